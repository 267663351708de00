"""Memberships that need another server: this one is not in the room, or the invited person lives elsewhere.

Each is a handshake: the other server makes a template, this one completes and
signs it, the other takes it.  A failure tells whether the next server is worth trying.
Specification: server-server API, "Joining Rooms", "Leaving Rooms", "Knocking upon a room",
"Inviting to a room".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import orjson
import structlog

from homeserver.clock import Clock
from homeserver.errors import MatrixError, RemoteError, not_found
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.event_format import InvalidEvent, parse_event, stripped
from homeserver.protocol.events import Event
from homeserver.protocol.ids import is_server_name, server_name_of
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.protocol.signing import SigningKey
from homeserver.rooms.adopt import Adoption, Unacceptable
from homeserver.rooms.announcement import AnnounceMemberships
from homeserver.rooms.compose import seal
from homeserver.rooms.inbound import Dropped, Inbound
from homeserver.rooms.partial import PartialState
from homeserver.rooms.remote import RemoteRooms
from homeserver.rooms.room import MEMBER, Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, Send
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.storage.rooms import LocalMembership

_log = structlog.get_logger()

#: What a server answers that wants another one to be asked (restricted rooms).
_PASSED_ON = frozenset({"M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN"})

#: How many servers are asked before giving up.
_MAX_SERVERS = 5
#: How many servers of a room are remembered while its members are not known.
_MAX_SERVERS_IN_ROOM = 20_000


class RemoteJoin:
    """Carries out membership handshakes with other servers."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        send: Send,
        inbound: Inbound,
        adoption: Adoption,
        remote: RemoteRooms,
        positions: NumberSequence,
        announce: AnnounceMemberships,
        clock: Clock,
        server_name: str,
        signing_key: SigningKey,
        complete_later: Callable[[str], object] | None = None,
    ) -> None:
        """``complete_later`` has the rest of a room's state fetched; without it joins ask for all of it."""
        self._db = db
        self._rooms = rooms
        self._send = send
        self._inbound = inbound
        self._adoption = adoption
        self._remote = remote
        self._positions = positions
        self._announce = announce
        self._clock = clock
        self._server_name = server_name
        self._key = signing_key
        self._complete_later = complete_later
        #: One join of a room at a time; taken before the room lock.
        self._joining: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def join(
        self, room_id: str, servers: Sequence[str], user_id: str, content: Mapping[str, Any]
    ) -> None:
        """Join a room through the first of ``servers`` that makes it possible.

        Raises the ``MatrixError`` of a server that refused, ``RemoteError`` when none could be used.
        """
        async with self._joining.setdefault(room_id, asyncio.Lock()):
            room = await self._rooms.find(room_id)
            if (
                room is not None
                and self._rooms.is_in(room)
                # Whether the user may join is for others to say while members are missing here.
                and room.partial is None
                and await self._join_here(room_id, user_id, content)
            ):
                return
            await self._through(servers, lambda server: self._join_via(server, room_id, user_id, content))

    async def _join_here(self, room_id: str, user_id: str, content: Mapping[str, Any]) -> bool:
        """Join a room this server is in by now; false where nobody here may let the user in."""
        try:
            await self._send.send(room_id, Draft(user_id, MEMBER, content, state_key=user_id))
        except NotAllowed:  # a restricted room, which nobody here may let people into
            return False
        return True

    async def knock(
        self, room_id: str, servers: Sequence[str], user_id: str, content: Mapping[str, Any]
    ) -> None:
        """Knock on a room this server is not in."""

        async def knock_via(server: str) -> None:
            rules, event = await self._membership_event(server, "knock", room_id, user_id, content)
            answer = await self._remote.send_membership(server, "knock", event)
            state = answer.get("knock_room_state")
            await self._record(
                server, rules, event, "knock", [*(state if isinstance(state, list) else []), stripped(event)]
            )

        await self._through(servers, knock_via)

    async def leave(
        self, room: Room, servers: Sequence[str], user_id: str, content: Mapping[str, Any]
    ) -> None:
        """Leave a room this server is not in: reject an invite, or take back a knock.

        The user is out of the room here even when no server could be told.
        """
        sender = user_id

        async def leave_via(server: str) -> None:
            _, event = await self._membership_event(server, "leave", room.room_id, user_id, content)
            await self._remote.send_membership(server, "leave", event)

        try:
            await self._through(servers, leave_via)
        except (RemoteError, MatrixError) as error:
            _log.warning("leave not delivered", room_id=room.room_id, reason=str(error))
        await self._set_membership(room, user_id, "leave", sender, None)

    async def sign_invite(
        self, room: Room, event: Event, invite_room_state: Sequence[Mapping[str, Any]]
    ) -> Event:
        """Have the invited person's server sign an invite; the event with both signatures."""
        server = server_name_of(event.state_key or "")
        answer = await self._remote.invite(server, room.rules, event, invite_room_state)
        (signed,) = await self._inbound.checked(room.rules, [_with_signatures_of(event, answer)])
        if not isinstance(signed, Event) or signed.event_id != event.event_id:
            raise RemoteError(server, "it signed another event", reachable=True, transient=False)
        return signed

    async def resolve_alias(self, room_alias: str) -> tuple[str, list[str]]:
        """Room id and servers of another server's alias."""
        return await self._remote.directory(room_alias)

    async def _through(self, servers: Sequence[str], attempt: Any) -> None:
        candidates = [
            server
            for server in dict.fromkeys(servers)
            if is_server_name(server) and server != self._server_name
        ]
        failures: list[RemoteError] = []
        for server in candidates[:_MAX_SERVERS]:
            try:
                await attempt(server)
            except RemoteError as error:
                _log.info("membership through server failed", server=server, reason=error.message)
                failures.append(error)
            else:
                return
        if not failures:
            raise not_found("No server is known that is in this room")
        failure = max(failures, key=_tells_most)
        if failure.errcode is not None and failure.status is not None and 400 <= failure.status < 500:
            raise MatrixError(failure.status, failure.errcode, failure.message)
        raise failure

    async def _join_via(self, server: str, room_id: str, user_id: str, content: Mapping[str, Any]) -> None:
        rules, event = await self._membership_event(server, "join", room_id, user_id, content)
        answer = await self._remote.send_membership(
            server, "join", event, omit_members=self._complete_later is not None
        )
        event = self._countersigned(answer, rules, event)
        room = await self._rooms.find(room_id)
        if room is not None and self._rooms.is_in(room):
            await self._take_in(server, room_id, event)
            return
        state = await self._checked_all(server, rules, room_id, answer.get("state"))
        auth_chain = await self._checked_all(server, rules, room_id, answer.get("auth_chain"))
        incomplete = _incomplete(server, answer)
        # Kept from now on, so that an invite that comes meanwhile is for the same room.
        room = await self._of_version(server, room_id, rules)
        try:
            async with room.lock:
                written = await self._adoption.adopt(room, event, state, auth_chain, incomplete)
            await written
        except Unacceptable as error:
            raise RemoteError(server, str(error), reachable=True, transient=False) from error
        except NotAllowed as error:
            raise RemoteError(
                server, str(error), reachable=True, transient=False, status=403, errcode="M_FORBIDDEN"
            ) from error
        finally:
            if not room.stored or room.broken:
                self._rooms.discard(room)
        if incomplete is not None and self._complete_later is not None:
            self._complete_later(room_id)
        _log.info(
            "joined room",
            room_id=room_id,
            server=server,
            state_events=len(state),
            members_omitted=incomplete is not None,
        )

    async def _take_in(self, server: str, room_id: str, event: Event) -> None:
        """Append a join that another server authorised to a room this server is in."""
        try:
            stored = await self._inbound.receive(server, room_id, event.pdu)
        except Dropped as error:
            raise RemoteError(server, str(error), reachable=True, transient=False) from error
        if stored.hidden:
            raise RemoteError(server, "its join is not allowed here", reachable=True, transient=False)

    async def _membership_event(
        self, server: str, action: str, room_id: str, user_id: str, content: Mapping[str, Any]
    ) -> tuple[RoomVersion, Event]:
        """The signed membership event made from a server's template."""
        version, pdu = await self._remote.make_membership(
            server, action, room_id, user_id, list(ROOM_VERSIONS)
        )
        rules = ROOM_VERSIONS.get(version)
        if rules is None:
            raise MatrixError(
                400,
                "M_UNSUPPORTED_ROOM_VERSION",
                f"Room version {version} is not supported",
                room_version=version,
            )
        try:
            completed = _completed(
                pdu,
                room_id=room_id,
                user_id=user_id,
                content={**content, "membership": action},
                now_ms=self._clock.now_ms(),
            )
            return rules, seal(completed, rules, self._server_name, self._key)
        except (InvalidEvent, TypeError, ValueError) as error:
            raise RemoteError(
                server, f"its template is no event: {error}", reachable=True, transient=False
            ) from error

    def _countersigned(self, answer: Mapping[str, Any], rules: RoomVersion, event: Event) -> Event:
        """The join with the signature of the server that authorised it (restricted rooms)."""
        try:
            return parse_event(_with_signatures_of(event, answer.get("event")), rules)
        except InvalidEvent:
            return event

    async def _checked_all(self, server: str, rules: RoomVersion, room_id: str, pdus: object) -> list[Event]:
        if not isinstance(pdus, list) or not all(isinstance(pdu, dict) for pdu in pdus):
            raise RemoteError(server, "its answer holds no events", reachable=True, transient=False)
        checked = await self._inbound.checked(rules, pdus)
        return [event for event in checked if isinstance(event, Event) and event.room_id == room_id]

    async def _of_version(self, server: str, room_id: str, rules: RoomVersion) -> Room:
        """The room, which may have the version that the server says it has."""
        try:
            return await self._rooms.of_version(room_id, rules)
        except ValueError as error:
            raise RemoteError(server, str(error), reachable=True, transient=False) from error

    async def _record(
        self,
        server: str,
        rules: RoomVersion,
        event: Event,
        membership: str,
        state: list[Mapping[str, Any]],
    ) -> None:
        """Remember a membership in a room this server is not in."""
        room = await self._of_version(server, event.room_id, rules)
        await self._set_membership(room, event.state_key or "", membership, event.sender, orjson.dumps(state))

    async def _set_membership(
        self, room: Room, user_id: str, membership: str, sender: str, stripped_state: bytes | None
    ) -> None:
        pos = self._positions.next()
        local = LocalMembership(user_id, room.nid, membership, 0, sender, pos, stripped_state=stripped_state)
        written = self._db.write(
            partial(room_storage.set_outside_membership, room=room.row(), membership=local)
        )
        room.stored = True
        await written
        self._announce(pos, room_nid=room.nid, users=(user_id,))


def _incomplete(server: str, answer: Mapping[str, Any]) -> PartialState | None:
    """What an answer that leaves members out says for them; ``None`` for one with the whole state."""
    if answer.get("members_omitted") is not True:
        return None
    names = answer.get("servers_in_room")
    if not isinstance(names, list):
        raise RemoteError(
            server, "it omits members and does not name the servers", reachable=True, transient=False
        )
    known = (name for name in names[:_MAX_SERVERS_IN_ROOM] if isinstance(name, str) and is_server_name(name))
    return PartialState(server, tuple(known))


def _with_signatures_of(event: Event, answer: object) -> dict[str, Any]:
    """This server's event with what another one signed of it.

    Nothing but signatures is taken of what came back: the rest is for this server to say.
    """
    pdu = event.pdu
    signatures = answer.get("signatures") if isinstance(answer, dict) else None
    return {
        **pdu,
        "signatures": {**(signatures if isinstance(signatures, dict) else {}), **pdu["signatures"]},
    }


def _tells_most(failure: RemoteError) -> int:
    """Which failure the user is told of: that they may not, rather than that some server could not."""
    if failure.errcode is None:
        return 1 if failure.reachable else 0
    return 2 if failure.errcode in _PASSED_ON or failure.errcode == "M_NOT_FOUND" else 3


def _completed(
    pdu: Mapping[str, Any], *, room_id: str, user_id: str, content: Mapping[str, Any], now_ms: int
) -> dict[str, Any]:
    """The event this server wants, with the place in the graph that a template names."""
    wanted = dict(content)
    offered = pdu.get("content")
    authoriser = offered.get("join_authorised_via_users_server") if isinstance(offered, dict) else None
    if wanted["membership"] == "join" and isinstance(authoriser, str):
        wanted["join_authorised_via_users_server"] = authoriser
    return {
        "auth_events": pdu.get("auth_events"),
        "content": wanted,
        "depth": pdu.get("depth"),
        "origin_server_ts": now_ms,
        "prev_events": pdu.get("prev_events"),
        "room_id": room_id,
        "sender": user_id,
        "state_key": user_id,
        "type": MEMBER,
    }
