"""Whether a local user may redact an event, asked before the redaction is sent.

The auth rules let anybody send redactions, and other servers believe this one about its
own users; so it is here that they are told apart.  Specification: client-server API,
``PUT /rooms/{roomId}/redact/{eventId}/{txnId}``.
"""

from __future__ import annotations

from homeserver.errors import forbidden, not_found, user_suspended
from homeserver.protocol.ids import is_event_id, server_name_of
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore


class RedactionRights:
    """Decides about redactions by local users."""

    def __init__(self, rooms: Rooms, events: EventCache, states: StateStore, server_name: str) -> None:
        self._rooms = rooms
        self._events = events
        self._states = states
        self._server_name = server_name

    async def check(
        self, user_id: str, room_id: str, event_id: str, *, is_admin: bool = False, own_only: bool = False
    ) -> None:
        """Raises ``M_FORBIDDEN`` for a user who is not in the room, or may not redact the event.

        Users redact their own events, those with the room's redact level everybody's, and
        this server's administrators those of its users.  ``M_NOT_FOUND`` for an event that is
        not in the room, wherever else it may be; but where other servers are in the room, one
        that is not known here may be known there, and the redact level is enough.  ``own_only``
        is for suspended users: ``M_USER_SUSPENDED`` for everything but their own events.
        """
        room = await self._rooms.get(room_id)
        if membership_of(await self._states.member(room, user_id)) != "join":
            raise forbidden("You are not in this room")
        await room.settle()
        target, levels = await self._events.by_id(event_id), room.power_levels
        may_redact_all = levels.of_user(user_id) >= levels.redact
        if own_only and (target is None or target.event.sender != user_id):
            raise user_suspended()
        others = room.servers.keys() - {self._server_name}
        if target is None and others and may_redact_all and is_event_id(event_id):
            return
        if target is None or target.room_nid != room.nid:
            raise not_found("There is no such event to redact")
        sender = target.event.sender
        if sender == user_id or may_redact_all:
            return
        if not (is_admin and server_name_of(sender) == self._server_name):
            raise forbidden("You may not redact this event")
