"""Policy servers: whether a room has one, and whether it recommends an event.

A policy server says so by its signature, with a key that the room itself names.  What
it recommends is still subject to the auth rules, which know nothing of it.
Specification: server-server API, "Policy Servers".
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import structlog

from homeserver.clock import Clock
from homeserver.errors import MatrixError, RemoteError, forbidden
from homeserver.protocol.event_format import InvalidEvent, parse_event
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing import BadSignature, verify_event_signature
from homeserver.rooms.room import MEMBER, Room

_log = structlog.get_logger()

POLICY = "m.room.policy"

#: What the key is always called.
POLICY_SERVER_KEY_ID = "ed25519:policy_server"

#: For so long a policy server that could not be reached is not asked about received events.
_SILENCE_SECONDS = 30.0
_REMEMBERED_SILENT = 1000

#: What it may say to a client; anything else could mean something to the client that is not its to say.
_FOR_CLIENTS = frozenset({"M_FORBIDDEN", "M_BAD_JSON", "M_NOT_JSON", "M_NOT_FOUND", "M_LIMIT_EXCEEDED"})


class PolicyServer(NamedTuple):
    """A room's policy server, and the public key it signs with."""

    name: str
    key_base64: str


class RemotePolicyServers(Protocol):
    """Asks policy servers."""

    async def ask_policy_server(self, server: str, event: Event) -> Mapping[str, Any]:
        """``POST /_matrix/policy/v1/sign``: signatures by server and key id; ``RemoteError``."""
        ...


def policy_server_of(room: Room, type_: str, state_key: str | None) -> PolicyServer | None:
    """Who has to recommend an event of this type; ``None`` where nobody does.

    1. The current state has a valid ``m.room.policy``.
    2. The server it names has a joined member.
    3. That piece of state itself is exempt, so that it can be taken back.
    """
    policy = room.state.get((POLICY, ""))
    if policy is None or (type_, state_key) == (POLICY, ""):
        return None
    server = _named_by(policy.event)
    return server if server is not None and room.servers.get(server.name, 0) > 0 else None


@lru_cache(maxsize=4096)
def _named_by(event: Event) -> PolicyServer | None:
    """Remembered by the event's identity: every event of the room asks."""
    content = event.content
    via, keys = content.get("via"), content.get("public_keys")
    key = keys.get("ed25519") if isinstance(keys, dict) else None
    if not isinstance(via, str) or not isinstance(key, str):
        return None
    # COMPAT: the specification's own example has the URL-safe alphabet.
    return PolicyServer(via, key.replace("-", "+").replace("_", "/"))


class Policy:
    """Has events signed by the policy servers of their rooms."""

    def __init__(self, remote: RemotePolicyServers, clock: Clock, server_name: str) -> None:
        self._remote = remote
        self._clock = clock
        self._server_name = server_name
        #: Servers that could not be reached, and until when they are left alone.
        self._silent: dict[str, float] = {}

    async def signed(self, server: PolicyServer, rules: RoomVersion, event: Event) -> Event:
        """An event with the policy server's signature, which is asked for where it lacks.

        Raises what the policy server answers, ``M_FORBIDDEN`` where it gives no good
        signature, and 502 or 504 ``M_UNKNOWN`` where it does not answer.
        """
        if is_signed(event, rules, server):
            return event
        if server.name == self._server_name:
            if _is_leave(event):  # which is how a server gets out of being named
                return event
            raise forbidden("The room has this server as its policy server, which it is not")
        try:
            signatures = await self._remote.ask_policy_server(server.name, event)
        except RemoteError as error:
            if not error.reachable:
                self._remember_silent(server.name)
            raise _as_told_to_clients(error) from error
        self._silent.pop(server.name, None)
        signed = with_signature(event, rules, server, signatures)
        if signed is None:
            raise forbidden("The room's policy server has not signed the event")
        return signed

    async def recommended(self, server: PolicyServer, rules: RoomVersion, event: Event) -> Event | None:
        """A received event with the policy server's signature; ``None`` where it is not recommended."""
        if self._silent.get(server.name, 0.0) > self._clock.monotonic():
            return event if is_signed(event, rules, server) else None
        try:
            return await self.signed(server, rules, event)
        except MatrixError as error:
            _log.info("event not recommended", event_id=event.event_id, reason=error.message)
            return None

    def _remember_silent(self, name: str) -> None:
        now = self._clock.monotonic()
        if len(self._silent) >= _REMEMBERED_SILENT:
            self._silent = {name: until for name, until in self._silent.items() if until > now}
        if len(self._silent) < _REMEMBERED_SILENT:
            self._silent[name] = now + _SILENCE_SECONDS


def is_signed(event: Event, rules: RoomVersion, server: PolicyServer) -> bool:
    """Whether a policy server has signed an event."""
    return _is_signed(event.pdu, rules, server)


def with_signature(
    event: Event, rules: RoomVersion, server: PolicyServer, answer: Mapping[str, Any]
) -> Event | None:
    """An event with the signature of a policy server's answer beside those it has; ``None``: no good one."""
    of_server = answer.get(server.name)
    signature = of_server.get(POLICY_SERVER_KEY_ID) if isinstance(of_server, dict) else None
    pdu = event.pdu
    before = pdu["signatures"].get(server.name, {})
    pdu["signatures"][server.name] = {**before, POLICY_SERVER_KEY_ID: signature}
    if not isinstance(signature, str) or not _is_signed(pdu, rules, server):
        return None
    try:
        return parse_event(pdu, rules, event_id=event.event_id)
    except InvalidEvent:  # the signature has made it too large
        return None


def _is_leave(event: Event) -> bool:
    return (
        event.type == MEMBER
        and event.sender == event.state_key
        and event.content.get("membership") == "leave"
    )


def _is_signed(pdu: dict[str, Any], rules: RoomVersion, server: PolicyServer) -> bool:
    try:
        verify_event_signature(pdu, rules, server.name, POLICY_SERVER_KEY_ID, server.key_base64)
    except BadSignature:
        return False
    return True


def _as_told_to_clients(error: RemoteError) -> MatrixError:
    if not error.reachable or error.status is None or not 400 <= error.status < 500:
        status = 502 if error.reachable else 504
        return MatrixError(status, "M_UNKNOWN", f"The room's policy server could not be asked: {error}")
    if error.errcode not in _FOR_CLIENTS or error.status == 401:
        return forbidden(f"The room's policy server does not sign the event: {error.message}")
    retry_after = {} if error.retry_after_ms is None else {"retry_after_ms": error.retry_after_ms}
    return MatrixError(error.status, error.errcode, error.message, **retry_after)
