"""Invitations that other servers bring for local users.

The invite is checked and signed here before its room's servers get to see it.
Specification: server-server API, "Inviting to a room".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson

from homeserver.errors import MatrixError, bad_json, forbidden, invalid_param
from homeserver.protocol.event_format import InvalidEvent, parse_event
from homeserver.protocol.events import Event
from homeserver.protocol.ids import server_name_of
from homeserver.protocol.room_versions import ROOM_VERSIONS, V1, RoomVersion
from homeserver.protocol.signing import SigningKey, content_hash_matches, countersign_event
from homeserver.replies import Json, Reply
from homeserver.rooms.inbound import Dropped, Inbound
from homeserver.rooms.invites import Invites
from homeserver.rooms.room import MEMBER
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.server_acl import check_may_take_part
from homeserver.web import Request

_STRIPPED_FIELDS = ("type", "state_key", "sender", "content")
#: More than a room has to tell who it is.
_MAX_STATE_EVENTS = 100


class InviteEndpoints:
    """The endpoints by which local users are invited."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        inbound: Inbound,
        invites: Invites,
        is_local_user: Callable[[str], Awaitable[bool]],
        server_name: str,
        signing_key: SigningKey,
    ) -> None:
        self._rooms = rooms
        self._inbound = inbound
        self._invites = invites
        self._is_local_user = is_local_user
        self._server_name = server_name
        self._key = signing_key

    async def invite_v2(self, request: Request) -> Reply:
        """``PUT /v2/invite/{roomId}/{eventId}``."""
        body = request.json()
        version, pdu, state = body.get("room_version"), body.get("event"), body.get("invite_room_state", [])
        if not isinstance(version, str) or not isinstance(pdu, dict) or not isinstance(state, list):
            raise bad_json("The body must have 'room_version', 'event' and 'invite_room_state'")
        rules = ROOM_VERSIONS.get(version)
        if rules is None:
            raise MatrixError(
                400,
                "M_INCOMPATIBLE_ROOM_VERSION",
                f"Room version {version} is not supported",
                room_version=version,
            )
        return {"event": await self._invited(request, rules, pdu, state)}

    async def invite_v1(self, request: Request) -> Reply:
        """``PUT /v1/invite/{roomId}/{eventId}``: rooms of versions 1 and 2, whose events look alike."""
        pdu = request.json()
        unsigned = pdu.get("unsigned")
        state = unsigned.get("invite_room_state") if isinstance(unsigned, dict) else None
        room = await self._rooms.find(request.params["roomId"])
        rules = V1 if room is None else room.rules
        signed = await self._invited(request, rules, pdu, state if isinstance(state, list) else [])
        return Json(b"[200," + orjson.dumps({"event": signed}) + b"]")

    async def _invited(
        self, request: Request, rules: RoomVersion, pdu: dict[str, Any], state: Sequence[Any]
    ) -> dict[str, Any]:
        """The invite with this server's signature; the invited user has been told of it."""
        invite = await self._checked(request, rules, pdu)
        room = await self._rooms.find(invite.room_id)
        if room is not None:
            check_may_take_part(room, request.origin)
        # Where this server is in the room, the invite comes in a transaction too, and counts then.
        if room is None or not self._rooms.is_in(room):
            shown = shown_state(rules, invite.room_id, state)
            try:
                await self._invites.invited(rules, invite, shown)
            except ValueError as error:
                raise invalid_param(f"The invite does not fit: {error}") from error
        elif room.rules != rules:
            raise invalid_param("The room has another version")
        return countersign_event(pdu, rules, self._server_name, self._key)

    async def _checked(self, request: Request, rules: RoomVersion, pdu: dict[str, Any]) -> Event:
        """A signed invite of a local user by one of the origin's.

        Raises ``M_INVALID_PARAM`` for anything else, ``M_FORBIDDEN`` where there is no such
        user and ``M_INVITE_BLOCKED`` for one who wants no invites.
        """
        (invite,) = await self._inbound.checked(rules, [pdu])
        if isinstance(invite, Dropped):
            raise invalid_param(str(invite))
        if not content_hash_matches(pdu):
            raise invalid_param("The event's hash is wrong")
        if (invite.room_id, invite.event_id) != (request.params["roomId"], request.params["eventId"]):
            raise invalid_param("The event has another ID or is for another room")
        if invite.type != MEMBER or invite.content.get("membership") != "invite":
            raise invalid_param("The event is not an invite")
        if server_name_of(invite.sender) != request.origin:
            raise invalid_param("The sender is not of your server")
        target = invite.state_key or ""
        if ":" not in target or server_name_of(target) != self._server_name:
            raise invalid_param("The invited user is not of this server")
        if not await self._is_local_user(target):
            raise forbidden("There is no such user to invite")
        await self._invites.check_accepted_by(target, invite.sender)
        return invite


def shown_state(rules: RoomVersion, room_id: str, state: Sequence[Any]) -> list[dict[str, Any]]:
    """What the invited person is shown of ``invite_room_state``: stripped events.

    In rooms whose id stands for their create event (since v12) that has to be there, and
    has to be the room's: ``M_INVALID_PARAM`` otherwise.
    COMPAT: many servers send stripped events instead of PDUs, so those are taken too.
    """
    events = [event for event in state[:_MAX_STATE_EVENTS] if _is_stripped(event)]
    if rules.hash_room_ids:
        creates = [event for event in events if event["type"] == "m.room.create"]
        if len(creates) != 1 or not _may_be_of_room(rules, room_id, creates[0]):
            raise invalid_param("'invite_room_state' does not hold the room's create event")
    return [{name: event[name] for name in _STRIPPED_FIELDS} for event in events]


def _is_stripped(event: Any) -> bool:
    return (
        isinstance(event, dict)
        and isinstance(event.get("type"), str)
        and isinstance(event.get("state_key"), str)
        and isinstance(event.get("sender"), str)
        and isinstance(event.get("content"), dict)
    )


def _may_be_of_room(rules: RoomVersion, room_id: str, create: Mapping[str, Any]) -> bool:
    if "auth_events" not in create:
        return True
    try:
        return parse_event(dict(create), rules).room_id == room_id
    except InvalidEvent:
        return False
