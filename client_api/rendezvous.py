"""Rendezvous sessions as MSC4388 has them: JSON, and tokens that say which payload was seen last."""

from __future__ import annotations

import msgspec

from homeserver.config.rendezvous import Rendezvous
from homeserver.errors import MatrixError, forbidden
from homeserver.replies import Reply
from homeserver.users.rendezvous import ConcurrentWrite, RendezvousSessions
from homeserver.web import Request

#: The largest payload with every byte escaped, and what is around it.
MAX_BODY = 32 * 1024

#: How browsers say that a person opens the address, or that a page shows it as a part of itself.
_PLACES = frozenset(("document", "iframe", "frame", "embed", "object"))


class _Payload(msgspec.Struct, frozen=True):
    data: str


class _NextPayload(msgspec.Struct, frozen=True):
    sequence_token: str
    data: str


class RendezvousApi:
    """The endpoints, of which most are for whoever knows the id of a session."""

    def __init__(self, settings: Rendezvous, sessions: RendezvousSessions) -> None:
        self._settings = settings
        self._sessions = sessions

    @property
    def enabled(self) -> bool:
        """Whether there are such sessions here at all."""
        return self._settings.enabled

    async def discover(self, request: Request) -> Reply:
        """``GET /rendezvous``: whether who asks may create a session."""
        return {"create_available": may_create(request, self._settings)}

    async def create(self, request: Request) -> Reply:
        """``POST /rendezvous``."""
        if not may_create(request, self._settings):
            raise forbidden("Only users of this server may create rendezvous sessions")
        session = self._sessions.create(request.decode(_Payload).data.encode())
        return {
            "id": session.id,
            "sequence_token": session.token,
            "expires_in_ms": self._sessions.remaining_ms(session),
        }

    async def replace(self, request: Request) -> Reply:
        """``PUT /rendezvous/{rendezvousId}``; doing it again with the same data changes nothing."""
        wanted, id_ = request.decode(_NextPayload), request.params["rendezvousId"]
        payload = wanted.data.encode()
        try:
            session = self._sessions.replace(id_, wanted.sequence_token, payload)
        except ConcurrentWrite as refusal:
            session = refusal.session
            if session.payload != payload:
                raise MatrixError(
                    409, "IO_ELEMENT_MSC4388_CONCURRENT_WRITE", "The payload is another by now"
                ) from None
        return {"sequence_token": session.token}

    async def payload(self, request: Request) -> Reply:
        """``GET /rendezvous/{rendezvousId}``."""
        check_is_not_opened(request)
        session = self._sessions.session(request.params["rendezvousId"])
        return {
            "data": session.payload.decode(),
            "sequence_token": session.token,
            "expires_in_ms": self._sessions.remaining_ms(session),
        }

    async def remove(self, request: Request) -> Reply:
        """``DELETE /rendezvous/{rendezvousId}``."""
        self._sessions.remove(request.params["rendezvousId"])
        return {}


def may_create(request: Request, settings: Rendezvous) -> bool:
    """Whether who asks may begin a session: users may, others only where it is open to all."""
    requester = request.requester_if_any
    return settings.public or (requester is not None and not requester.is_guest)


def check_is_not_opened(request: Request) -> None:
    """``M_FORBIDDEN`` where a browser would show what strangers have put there ("Unsafe content")."""
    if (
        request.headers.get("Sec-Fetch-Mode") == "navigate"
        or request.headers.get("Sec-Fetch-Dest") in _PLACES
    ):
        raise forbidden("This is not to be opened in a browser")
