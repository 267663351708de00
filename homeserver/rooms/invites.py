"""Invitations to rooms this server is not in, and what becomes of them there.

Nothing of such a room is known but what the inviting server says, so what is kept is
what the invited person is shown; the invite event itself comes with the room's state
once the room is joined.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from homeserver.protocol.event_format import stripped
from homeserver.protocol.events import Event
from homeserver.protocol.ids import server_name_of
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.announcement import AnnounceMemberships
from homeserver.rooms.invite_permission import check_accepts_invites
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.storage import rooms as room_storage
from homeserver.storage.append import Also
from homeserver.storage.database import Database, Transaction
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.storage.rooms import LocalMembership
from homeserver.storage.state import NO_EVENT


class Invites:
    """Keeps invitations that other servers bring."""

    def __init__(
        self, *, db: Database, rooms: Rooms, positions: NumberSequence, announce: AnnounceMemberships
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._positions = positions
        self._announce = announce
        #: Asked what else to store with a membership, given its event and position.
        self.recorders: list[Callable[[Room, Event, int], Also | None]] = []

    async def check_accepted_by(self, user_id: str, sender: str) -> None:
        """Raises ``M_INVITE_BLOCKED`` for a local user who wants no invites of the sender."""
        await check_accepts_invites(self._db.read, user_id, sender)

    async def invited(
        self, rules: RoomVersion, invite: Event, invite_room_state: Sequence[Mapping[str, Any]]
    ) -> None:
        """Show a checked invite to the local user it is for, with stripped state events.

        ``ValueError`` where the room is known to have another version.
        """
        room = await self._rooms.of_version(invite.room_id, rules)
        others = [event for event in invite_room_state if not _is_about(event, invite)]
        await self._record(room, invite, "invite", orjson.dumps([*others, _named(invite)]))

    async def ended(self, room: Room, event: Event) -> bool:
        """Take back an invite or refuse a knock, as a signed ``leave`` or ``ban`` says; false: it may not.

        An invite is ended by the server that brought it.  Which servers were knocked at
        is not kept, so any of them may refuse a knock.
        """
        membership = event.content.get("membership")
        if event.type != "m.room.member" or event.state_key is None or membership not in ("leave", "ban"):
            return False
        known = await room_storage.local_membership(self._db.read, event.state_key, room.nid)
        if known is None or known.membership not in ("invite", "knock"):
            return False
        if known.membership == "invite" and server_name_of(known.sender) != server_name_of(event.sender):
            return False
        await self._record(room, event, membership, None)
        return True

    async def _record(self, room: Room, event: Event, membership: str, stripped_state: bytes | None) -> None:
        user_id = event.state_key or ""
        pos = self._positions.next()
        local = LocalMembership(
            user_id, room.nid, membership, NO_EVENT, event.sender, pos, stripped_state=stripped_state
        )
        more = [record(room, event, pos) for record in self.recorders]

        async def store(tx: Transaction) -> None:
            await room_storage.set_outside_membership(tx, room.row(), local)
            for also in more:
                if also is not None:
                    await also(tx)

        written = self._db.write(store)
        room.stored = True
        await written
        self._announce(pos, room_nid=room.nid, users=(user_id,))


def _named(invite: Event) -> dict[str, Any]:
    """An invite as stripped state, with what tells it from another one."""
    return {**stripped(invite), "event_id": invite.event_id, "origin_server_ts": invite.origin_server_ts}


def _is_about(event: Mapping[str, Any], invite: Event) -> bool:
    """Whether a stripped event is for the same piece of state as the invite."""
    return (event.get("type"), event.get("state_key")) == (invite.type, invite.state_key)
