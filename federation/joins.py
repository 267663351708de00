"""Letting users of other servers into rooms this server is in, and out of them.

The handshakes of ``make_join``, ``make_leave`` and ``make_knock`` with their ``send_``
halves.  Whether a membership is allowed is for the auth rules, in ``Send`` and
``Inbound``; decided here is what they cannot know: who is asking, and the conditions
of restricted rooms.  Specification: server-server API, "Joining Rooms", "Knocking upon
a room", "Leaving Rooms".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from federation.state_replies import StateReplies, with_commas
from homeserver.errors import MatrixError, bad_json, forbidden, invalid_param, not_found
from homeserver.protocol.auth_rules import check_against_state
from homeserver.protocol.event_format import InvalidEvent, parse_event
from homeserver.protocol.events import Event
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.protocol.signing import SigningKey, countersign_event
from homeserver.replies import Json, Reply
from homeserver.rooms.dummy_events import DummyEvents
from homeserver.rooms.inbound import Dropped, Inbound
from homeserver.rooms.restricted_join import RestrictedJoin, allowed_rooms
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, Send, current_state_of
from homeserver.rooms.server_acl import check_may_take_part
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.stripped_state import identifying_state
from homeserver.storage.events import StoredEvent
from homeserver.web import Request

_AUTHORISER = "join_authorised_via_users_server"


class Joins:
    """The endpoints by which other servers' users join, knock and leave."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        send: Send,
        inbound: Inbound,
        dummy_events: DummyEvents,
        states: StateStore,
        restricted: RestrictedJoin,
        replies: StateReplies,
        server_name: str,
        signing_key: SigningKey,
    ) -> None:
        self._rooms = rooms
        self._send = send
        self._inbound = inbound
        self._dummy_events = dummy_events
        self._states = states
        self._restricted = restricted
        self._replies = replies
        self._server_name = server_name
        self._key = signing_key

    async def make_join(self, request: Request) -> Reply:
        """``GET /make_join/{roomId}/{userId}``."""
        room = await self._whole_room(request)
        user_id = _user_of_origin(request)
        _check_version(room, request.query_all("ver") or ["1"])
        content = {"membership": "join"}
        authoriser = await self._authoriser(room, user_id)
        if authoriser is not None:
            content[_AUTHORISER] = authoriser
        return await self._template(room, user_id, content)

    async def make_knock(self, request: Request) -> Reply:
        """``GET /make_knock/{roomId}/{userId}``."""
        room = await self._whole_room(request)
        user_id = _user_of_origin(request)
        _check_version(room, request.query_all("ver"))
        if not room.rules.knocking:
            raise forbidden("The room's version does not know knocking")
        return await self._template(room, user_id, {"membership": "knock"})

    async def make_leave(self, request: Request) -> Reply:
        """``GET /make_leave/{roomId}/{userId}``."""
        room = await self._room(request)
        return await self._template(room, _user_of_origin(request), {"membership": "leave"})

    async def send_join_v2(self, request: Request) -> Reply:
        """``PUT /v2/send_join/{roomId}/{eventId}``."""
        return Json(await self._join(request))

    async def send_join_v1(self, request: Request) -> Reply:
        """``PUT /v1/send_join/{roomId}/{eventId}``: the answer of version 2 in a pair with 200."""
        return Json(b"[200," + await self._join(request) + b"]")

    async def send_knock(self, request: Request) -> Reply:
        """``PUT /send_knock/{roomId}/{eventId}``."""
        room, _ = await self._take(request, "knock")
        state = _array([event.json for event in identifying_state(room)])
        return Json(b'{"knock_room_state":' + state + b"}")

    async def send_leave_v2(self, request: Request) -> Reply:
        """``PUT /v2/send_leave/{roomId}/{eventId}``."""
        await self._take(request, "leave")
        return {}

    async def send_leave_v1(self, request: Request) -> Reply:
        """``PUT /v1/send_leave/{roomId}/{eventId}``."""
        await self._take(request, "leave")
        return Json(b"[200,{}]")

    async def _join(self, request: Request) -> bytes:
        omits_members = request.query_bool("omit_members")
        servers = sorted((await self._room(request)).servers)
        room, join = await self._take(request, "join")
        if request.origin not in servers:
            self._dummy_events.tie(room)
        if omits_members:
            state = await self._replies.state_of_few_members(room, join)
        else:
            state = await self._replies.state_before(room, join)
        chain = await self._replies.auth_chain([*state, join.nid])
        if omits_members:
            chain = sorted(set(chain).difference(state))
        head = {"members_omitted": omits_members, "origin": self._server_name, "servers_in_room": servers}
        pieces = [orjson.dumps(head)[:-1], b',"event":', join.event.json, b',"auth_chain":[']
        pieces += with_commas(await self._replies.pdus(chain))
        pieces.append(b'],"state":[')
        pieces += with_commas(await self._replies.pdus(state))
        pieces.append(b"]}")
        return b"".join(pieces)

    async def _room(self, request: Request) -> Room:
        """The room of a request, which the server that asks may take part in."""
        room = await self._rooms.get(request.params["roomId"])
        if not self._rooms.is_in(room):
            raise not_found("This server is not in the room")
        check_may_take_part(room, request.origin)
        return room

    async def _whole_room(self, request: Request) -> Room:
        """The same where all of the room's state is known; others can answer better meanwhile."""
        room = await self._room(request)
        if room.partial is not None:
            raise not_found("This server does not know the whole room yet")
        return room

    async def _template(self, room: Room, user_id: str, content: dict[str, Any]) -> dict[str, Any]:
        """The event that the user may have, still to be signed by their server."""
        async with self._rooms.lock(room.room_id) as locked:
            draft = Draft(user_id, MEMBER, content, state_key=user_id)
            pdu, _ = await self._send.template(locked, draft)
            event = self._send.sealed(pdu, locked)
            check_against_state(locked.rules, event, current_state_of(locked))
        return {"room_version": room.rules.id, "event": pdu}

    async def _take(self, request: Request, membership: str) -> tuple[Room, StoredEvent]:
        """Take in a signed membership event and hand it on to the other servers in the room."""
        room = await (self._room(request) if membership == "leave" else self._whole_room(request))
        pdu = request.json()
        event = _membership_event(request, room, pdu, membership)
        if membership == "join":
            pdu = await self._countersigned(room, event, pdu)
        try:
            stored = await self._inbound.receive(request.origin, room.room_id, pdu, hand_on=True)
        except Dropped as error:
            raise invalid_param(str(error)) from error
        if stored.hidden:
            raise forbidden(f"The room does not allow the {membership}")
        return await self._rooms.get(room.room_id), stored

    async def _countersigned(self, room: Room, event: Event, pdu: dict[str, Any]) -> dict[str, Any]:
        """A join that a local member authorises, with this server's signature to say so."""
        authoriser = event.content.get(_AUTHORISER)
        if not room.rules.restricted_joins or not isinstance(authoriser, str):
            return pdu
        if not is_user_id(authoriser) or server_name_of(authoriser) != self._server_name:
            return pdu
        await self._authoriser(room, event.sender)
        return countersign_event(pdu, room.rules, self._server_name, self._key)

    async def _authoriser(self, room: Room, user_id: str) -> str | None:
        """The local member who lets the user into a restricted room; ``None`` where nobody has to.

        Raises ``M_UNABLE_TO_AUTHORISE_JOIN``, ``M_UNABLE_TO_GRANT_JOIN`` and ``M_FORBIDDEN``.
        Specification: server-server API, "Restricted rooms".
        """
        membership = membership_of(await self._states.member(room, user_id))
        if not self._restricted.applies_to(room) or membership in ("invite", "join", "ban"):
            return None
        await self._check_conditions(room, user_id)
        authoriser = await self._restricted.inviter(room)
        if authoriser is None:
            raise MatrixError(400, "M_UNABLE_TO_GRANT_JOIN", "Nobody on this server may invite to the room")
        return authoriser

    async def _check_conditions(self, room: Room, user_id: str) -> None:
        """Whether the user is joined to one of the rooms whose members may join."""
        conditions = allowed_rooms(room)
        others = [await self._rooms.find(room_id) for room_id in conditions]
        known = [other for other in others if other is not None and self._rooms.is_in(other)]
        for other in known:
            if membership_of(await self._states.member(other, user_id)) == "join":
                return
        known = [other for other in known if other.partial is None]
        if conditions and not known:
            raise MatrixError(
                400,
                "M_UNABLE_TO_AUTHORISE_JOIN",
                "This server is in none of the rooms whose members may join",
            )
        raise forbidden("You are not in any of the rooms whose members may join this one")


def _user_of_origin(request: Request) -> str:
    user_id = request.params["userId"]
    if not is_user_id(user_id) or server_name_of(user_id) != request.origin:
        raise forbidden("The user is not of your server")
    return user_id


def _check_version(room: Room, versions: Sequence[str]) -> None:
    if room.rules.id not in versions:
        raise MatrixError(
            400,
            "M_INCOMPATIBLE_ROOM_VERSION",
            "Your homeserver does not know the version of the room",
            room_version=room.rules.id,
        )


def _membership_event(request: Request, room: Room, pdu: dict[str, Any], membership: str) -> Event:
    """The event in a request, which must be what the endpoint is for; ``M_INVALID_PARAM``."""
    try:
        event = parse_event(pdu, room.rules)
    except InvalidEvent as error:
        raise bad_json(f"Not an event: {error}") from error
    if event.event_id != request.params["eventId"]:
        raise invalid_param("The event has another ID")
    if event.room_id != room.room_id:
        raise invalid_param("The event is for another room")
    if event.type != MEMBER or event.content.get("membership") != membership:
        raise invalid_param(f"The event is not a {membership}")
    if event.state_key != event.sender:
        raise invalid_param("The event is not about its sender")
    if server_name_of(event.sender) != request.origin:
        raise invalid_param("The sender is not of your server")
    return event


def _array(values: Sequence[bytes]) -> bytes:
    return b"[" + b",".join(values) + b"]"
