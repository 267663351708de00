"""A room in memory: all that sending into it needs, so that sending reads nothing from the database.

What is here may be ahead of the disk by the writes under way.  Readers that
show things to people ask for positions up to the announced one and so never see
what is not stored yet (``rooms/state_store.py``, ``sync/``).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Any

from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.power_levels import PowerLevels, power_levels_from
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.partial import Partial
from homeserver.rooms.recent_changes import RecentChanges
from homeserver.storage.events import StoredEvent
from homeserver.storage.rooms import RoomRow, StaleRoomError

#: How many of the newest timeline events a room keeps at hand.
RECENT_EVENTS = 50

MEMBER = "m.room.member"
GUEST_ACCESS = "m.room.guest_access"


#: How many kinds of messages a room remembers to be allowed.
_ALLOWED_KEPT = 256


class Room:
    """The current state, the forward extremities and the newest events of one room.

    ``lock`` is held by whoever decides about the room's next event, from reading
    the extremities until the write is queued.  No other lock is taken under it.
    """

    def __init__(
        self, row: RoomRow, tips: tuple[StoredEvent, ...], servers: dict[str, int], *, stored: bool = True
    ) -> None:
        self.nid = row.nid
        self.room_id = row.room_id
        self.rules: RoomVersion = ROOM_VERSIONS[row.version]
        self.epoch = row.epoch
        #: The version the epoch began with; older ones are of earlier stays in the room.
        self.epoch_start = 0
        self.state_ver = row.state_ver
        self.last_pos = row.last_pos
        self.depth = row.depth
        self.joined_members = row.joined_members
        self.invited_members = row.invited_members
        self.checkpoint_ver = row.checkpoint_ver
        #: What is special while only a part of the state is here; ``None`` for nearly all rooms.
        self.partial: Partial | None = None
        #: Where the state of a room that was joined with a part of it was complete, else 0.
        self.full_since = row.full_since
        #: Whether the room has a row in the database, queued writes counted.
        self.stored = stored
        self.tips = tips
        #: Joined members by server.
        self.servers = servers
        #: The current state but for memberships.
        self.state: dict[StateKey, StoredEvent] = {}
        #: Memberships that were asked for or changed; ``None``: known to have none.
        self.members: dict[str, StoredEvent | None] = {}
        #: Every timeline event after position ``recent_after``, oldest first.
        self.recent: deque[StoredEvent] = deque()
        self.recent_after = row.last_pos
        self.state_changes = RecentChanges(row.state_ver)
        self.changes_since_checkpoint = 0
        #: The auth events of messages that the current state allows, by sender and type.
        self._allowed: dict[tuple[str, str], list[StoredEvent]] = {}
        #: The state they are of: epoch and version.
        self._allowed_in = (0, 0)
        self.lock = asyncio.Lock()
        #: Writes that are queued and not on disk.
        self.unsettled: set[asyncio.Future[Any]] = set()
        #: A write failed: what is here is not what is stored, and the room must be loaded again.
        self.broken = False

    def row(self) -> RoomRow:
        """The room as its database row."""
        return RoomRow(
            nid=self.nid,
            room_id=self.room_id,
            version=self.rules.id,
            epoch=self.epoch,
            state_ver=self.state_ver,
            last_pos=self.last_pos,
            depth=self.depth,
            tips=tuple([tip.nid for tip in self.tips]),
            joined_members=self.joined_members,
            invited_members=self.invited_members,
            checkpoint_ver=self.checkpoint_ver,
            full_since=self.full_since,
        )

    async def settle(self) -> None:
        """Wait until every queued write has ended, well or badly."""
        if self.unsettled:
            await asyncio.wait(set(self.unsettled))

    def check_sound(self) -> None:
        """Raises ``StaleRoomError`` when a write failed, so that nothing may be decided from what is here."""
        if self.broken:
            raise StaleRoomError(self.room_id)

    def current(self, key: StateKey) -> StoredEvent | None:
        """The current value of a key; memberships only as far as ``members`` knows them."""
        return self.members.get(key[1]) if key[0] == MEMBER else self.state.get(key)

    def allowed(self, sender: str, type_: str) -> list[StoredEvent] | None:
        """The auth events of such a message, if one was allowed by the state as it is."""
        if self._allowed_in != (self.epoch, self.state_ver):
            return None
        return self._allowed.get((sender, type_))

    def note_allowed(self, sender: str, type_: str, auth: list[StoredEvent]) -> None:
        """The current state allows a message that ``auth_rules.says_nothing_of_itself``."""
        state = (self.epoch, self.state_ver)
        if self._allowed_in != state or len(self._allowed) >= _ALLOWED_KEPT:
            self._allowed, self._allowed_in = {}, state
        self._allowed[sender, type_] = auth

    def state_event(self, type_: str, state_key: str = "") -> Event | None:
        """A current state event that is not a membership."""
        stored = self.state.get((type_, state_key))
        return stored.event if stored else None

    @property
    def create(self) -> StoredEvent:
        """The ``m.room.create`` event."""
        return self.state["m.room.create", ""]

    @property
    def power_levels(self) -> PowerLevels:
        """The power levels in force."""
        return power_levels_from(self.state_event, self.rules)

    @property
    def join_rule(self) -> str:
        """The join rule in force; ``invite`` where there is none, or none that makes sense."""
        event = self.state_event("m.room.join_rules")
        rule = event.content.get("join_rule") if event else None
        return rule if isinstance(rule, str) else "invite"

    @property
    def history_visibility(self) -> str:
        """The history visibility in force; ``shared`` where there is none."""
        event = self.state_event("m.room.history_visibility")
        value = event.content.get("history_visibility") if event else None
        return value if isinstance(value, str) else "shared"

    @property
    def guests_may_join(self) -> bool:
        """Whether guests are let in: only where the room says so."""
        event = self.state_event(GUEST_ACCESS)
        return event is not None and event.content.get("guest_access") == "can_join"

    def remember(self, stored: StoredEvent) -> None:
        """Put a new timeline event at the end of the recent ones."""
        self.recent.append(stored)
        if len(self.recent) > RECENT_EVENTS:
            self.recent_after = self.recent.popleft().pos or 0

    def recent_between(self, after: int, upto: int, most: int = RECENT_EVENTS) -> list[StoredEvent]:
        """The newest of the recent events in ``(after, upto]``, newest first."""
        found: list[StoredEvent] = []
        for stored in reversed(self.recent):
            if (stored.pos or 0) <= after or len(found) == most:
                break
            if (stored.pos or 0) <= upto:
                found.append(stored)
        return found

    def forget_before(self, pos: int) -> None:
        """Hold only recent events from ``pos`` on: others are put in before it."""
        while self.recent and (self.recent[0].pos or 0) < pos:
            self.recent.popleft()
        self.recent_after = max(self.recent_after, pos - 1)

    def drop(self, nids: Collection[int]) -> None:
        """Take events out of the recent ones: they are in no timeline any more."""
        if any(stored.nid in nids for stored in self.recent):
            self.recent = deque(stored for stored in self.recent if stored.nid not in nids)

    def replace(self, stored: StoredEvent) -> None:
        """Put an event's redacted form wherever the event is held."""
        for index, recent in enumerate(self.recent):
            if recent.nid == stored.nid:
                self.recent[index] = stored
        self.tips = tuple(stored if tip.nid == stored.nid else tip for tip in self.tips)
        if stored.event.is_state:
            self._allowed.clear()
            key = stored.event.key
            held = self.state.get(key)
            if held is not None and held.nid == stored.nid:
                self.state[key] = stored
            member = self.members.get(key[1]) if key[0] == MEMBER else None
            if member is not None and member.nid == stored.nid:
                self.members[key[1]] = stored


def may_be_joined(room: Room, member: StoredEvent | None) -> bool:
    """Whether somebody with this member event is joined, as far as it is known who is."""
    return membership_of(member) == "join" or (member is None and room.partial is not None)


def membership_of(stored: StoredEvent | None) -> str:
    """The membership a member event gives; ``leave`` for none or one that makes no sense."""
    if stored is None:
        return "leave"
    membership = stored.event.content.get("membership")
    return membership if membership in {"join", "invite", "knock", "ban"} else "leave"
