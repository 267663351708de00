"""Places where two devices meet before one of them is logged in: a text that both can read and replace.

Whoever knows the id of a session may use it, so ids cannot be guessed; what the devices tell each
other they encrypt themselves.  Sessions are kept in memory alone, bounded in number, size and
time: they live for minutes, and after a restart of the server both devices begin anew.
Nothing here logs anybody in.  Specification: MSC4388 and MSC4108, "rendezvous session".
"""

from __future__ import annotations

import secrets

import msgspec

from homeserver.clock import Clock
from homeserver.errors import MatrixError, limit_exceeded, not_found

#: Of one payload.
MAX_PAYLOAD_BYTES = 4096

#: With payloads of the largest size, 4 MiB.
_MAX_SESSIONS = 1000

_ID_BYTES = 24
_TOKEN_BYTES = 16


class Session(msgspec.Struct, frozen=True):
    """What is there to be read; ``token`` is another one after every write, whatever was written."""

    id: str
    token: str
    payload: bytes
    #: Milliseconds since the epoch.
    modified_ts: int
    expires_ts: int


class ConcurrentWrite(Exception):
    """Somebody else has written since; ``session`` is what is there now."""

    def __init__(self, session: Session) -> None:
        super().__init__("the session was written to by somebody else")
        self.session = session


class RendezvousSessions:
    """The sessions there are; each lives for ``lifetime`` seconds, however often it is written to."""

    def __init__(self, clock: Clock, *, lifetime: float, max_sessions: int = _MAX_SESSIONS) -> None:
        self._clock = clock
        self._lifetime_ms = round(lifetime * 1000)
        self._max_sessions = max_sessions
        #: By id, oldest first: the first to expire, since all live equally long.
        self._sessions: dict[str, Session] = {}

    def create(self, payload: bytes) -> Session:
        """A new session.

        ``M_TOO_LARGE``; ``M_LIMIT_EXCEEDED`` while there are as many as there may be: those who are
        in the middle of it are not thrown out for others.
        """
        _check_size(payload)
        now = self._clock.now_ms()
        self._drop_expired(now)
        if len(self._sessions) >= self._max_sessions:
            oldest = next(iter(self._sessions.values()))
            raise limit_exceeded(max(1, oldest.expires_ts - now))
        id_ = secrets.token_urlsafe(_ID_BYTES)
        session = Session(id_, _new_token(), payload, now, now + self._lifetime_ms)
        self._sessions[id_] = session
        return session

    def session(self, id_: str) -> Session:
        """What a session holds; ``M_NOT_FOUND`` for one that is over, or never was."""
        session = self._sessions.get(id_)
        if session is None or session.expires_ts <= self._clock.now_ms():
            raise not_found("There is no such rendezvous session, or it is over")
        return session

    def replace(self, id_: str, token: str, payload: bytes) -> Session:
        """Put another payload in the place of the one that ``token`` stands for.

        Raises ``ConcurrentWrite`` if that is not the one that is there, ``M_NOT_FOUND`` and
        ``M_TOO_LARGE``.
        """
        current = self.session(id_)
        _check_size(payload)
        if not secrets.compare_digest(current.token.encode(), token.encode()):
            raise ConcurrentWrite(current)
        now = self._clock.now_ms()
        session = Session(id_, _new_token(), payload, now, current.expires_ts)
        self._sessions[id_] = session
        return session

    def remove(self, id_: str) -> None:
        """End a session; ``M_NOT_FOUND`` if it is over."""
        del self._sessions[self.session(id_).id]

    def remaining_ms(self, session: Session) -> int:
        """How long a session will still be there."""
        return max(0, session.expires_ts - self._clock.now_ms())

    def _drop_expired(self, now: int) -> None:
        for session in list(self._sessions.values()):
            if session.expires_ts > now:
                return
            del self._sessions[session.id]


def _new_token() -> str:
    return secrets.token_urlsafe(_TOKEN_BYTES)


def _check_size(payload: bytes) -> None:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise MatrixError(413, "M_TOO_LARGE", f"A payload has at most {MAX_PAYLOAD_BYTES} bytes")
