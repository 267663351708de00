"""Which events notify a person, and how: a room's events through their push rules.

An event is looked at once for everybody whose rules are the predefined ones, and for others
with the room as it was at the event, so that the answer is the same whenever it is asked
for: at once, later, and after a restart.  What of it has been read is ``unread``'s.
Specification: client-server API, "Push Rules".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from homeserver.protocol.default_push_rules import default_ruleset
from homeserver.protocol.event_format import client_event
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.power_levels import PowerLevels, power_levels_from
from homeserver.protocol.push_rules import Notice, PushEvent, evaluate
from homeserver.protocol.relations import THREAD, relation_in
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.threads import thread_of
from homeserver.rooms.visibility import Visibility
from homeserver.storage import state as state_storage
from homeserver.storage.database import Database
from homeserver.storage.events import REDACTED, StoredEvent
from homeserver.sync.rulesets import Rules

_REMEMBERED_EVENTS = 1000
#: More changes of a room's members than these are not counted back through.
_MAX_MEMBER_CHANGES = 1000

_POWER_LEVELS: StateKey = ("m.room.power_levels", "")

#: No user id: nobody's rules but those everybody starts with.
_ANYBODY = ""
_ANYBODYS_RULES = default_ruleset(_ANYBODY)


class Reader(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Whom events may notify."""

    user_id: str
    rules: Rules
    #: Those they want to hear nothing from.
    ignored: frozenset[str]
    #: A position from which on they have been in the room without a break.
    joined_since: int
    #: The threads of the room they are subscribed to, where their rules ask for it.
    subscribed: frozenset[str] = frozenset()


class Notified(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An event that notifies somebody."""

    stored: StoredEvent
    notice: Notice
    thread: str
    #: It is in its thread by way of other events.
    indirect: bool


class Notices:
    """Finds the events that notify people."""

    def __init__(self, db: Database, events: EventCache, states: StateStore, visibility: Visibility) -> None:
        self._db = db
        self._events = events
        self._states = states
        self._visibility = visibility
        self._judged: OrderedDict[int, _Judged] = OrderedDict()

    async def among(self, room: Room, reader: Reader, events: Iterable[StoredEvent]) -> list[Notified]:
        """Those of a room's events that notify a person, in the order they came."""
        found = []
        for stored in events:
            if not may_notify(reader, stored):
                continue
            notice = await self._notice(room, reader, stored)
            if notice.notify and await self._is_seen(room, reader, stored):
                thread, indirect = await self.thread(stored)
                found.append(Notified(stored, notice, thread, indirect))
        return found

    async def thread(self, stored: StoredEvent) -> tuple[str, bool]:
        """The thread an event is in, and whether it is there by way of other events."""
        relation = relation_in(stored.event)
        indirect = relation is not None and relation.rel_type != THREAD
        return await thread_of(self._events, stored.event), indirect

    async def _is_seen(self, room: Room, reader: Reader, stored: StoredEvent) -> bool:
        seen = await self._visibility.visible(
            room, reader.user_id, [stored], joined_since=reader.joined_since
        )
        return bool(seen)

    async def _notice(self, room: Room, reader: Reader, stored: StoredEvent) -> Notice:
        judged = await self._judge(room, stored)
        rules, user_id = reader.rules, reader.user_id
        thread = judged.push_event.thread
        subscribed = thread in reader.subscribed
        if rules.predefined:
            if not judged.concerns(user_id) and not (rules.asks_threads and thread is not None):
                return judged.for_anybody
            return evaluate(
                rules.ruleset,
                judged.push_event,
                user_id=user_id,
                display_name=None,
                subscribed=subscribed,
            )
        if rules.counts_members and not judged.counted:
            judged.push_event.member_count = await self._members_at(room, stored)
            judged.counted = True
        member = await self._at(room, stored, (MEMBER, user_id))
        name = member.event.content.get("displayname") if member else None
        display_name = name if isinstance(name, str) else None
        return evaluate(
            rules.ruleset,
            judged.push_event,
            user_id=user_id,
            display_name=display_name,
            subscribed=subscribed,
        )

    async def _judge(self, room: Room, stored: StoredEvent) -> _Judged:
        """The event as push rules look at it, made once for all users."""
        judged = self._judged.get(stored.nid)
        if judged is None:
            levels = await self._levels(room, stored)
            push_event = PushEvent(
                client_event(stored.event),
                member_count=room.joined_members,
                sender_level=levels.of_user(stored.event.sender),
                notification_level=levels.notifications,
            )
            judged = self._judged[stored.nid] = _Judged(push_event)
            if len(self._judged) > _REMEMBERED_EVENTS:
                self._judged.popitem(last=False)
        return judged

    async def _levels(self, room: Room, stored: StoredEvent) -> PowerLevels:
        """The power levels before an event."""
        current = room.state.get(_POWER_LEVELS)
        before = await self._at(room, stored, _POWER_LEVELS)
        if before is current:
            return room.power_levels

        def lookup(type_: str, state_key: str) -> Event | None:
            if (type_, state_key) == _POWER_LEVELS:
                return before.event if before else None
            return room.state_event(type_, state_key)

        return power_levels_from(lookup, room.rules)

    async def _at(self, room: Room, stored: StoredEvent, key: StateKey) -> StoredEvent | None:
        """One key of the state before an event; nearly always it is what it is now."""
        ref = stored.state_before or 0
        now = await self._states.member(room, key[1]) if key[0] == MEMBER else room.state.get(key)
        if now is not None and _in_force_since_it_came(now) and room.epoch_start <= (now.pos or 0) <= ref:
            return now
        return await self._states.event_at(room, ref, key)

    async def _members_at(self, room: Room, stored: StoredEvent) -> int:
        """How many members the room had at an event: as many as now, but for the changes since."""
        pos = stored.pos or 0
        if room.state_ver <= pos:
            return room.joined_members
        await room.settle()
        joined, epoch = room.joined_members, room.epoch
        changes = await state_storage.member_changes(self._db.scan, room.nid, epoch, pos, _MAX_MEMBER_CHANGES)
        events = await self._events.by_nids(list({nid for change in changes for nid in change if nid}))
        for new, old in changes:
            joined -= membership_of(events.get(new)) == "join"
            joined += membership_of(events.get(old)) == "join"
        return joined


class _Judged:
    """An event, and what the predefined rules say of it to people it does not name.

    Not what they say of threads: that depends on who is subscribed.
    """

    def __init__(self, push_event: PushEvent) -> None:
        self.push_event = push_event
        #: The member count is that at the event.
        self.counted = False
        self.for_anybody = evaluate(_ANYBODYS_RULES, push_event, user_id=_ANYBODY, display_name=None)
        mentions = push_event.event["content"].get("m.mentions")
        named = mentions.get("user_ids") if isinstance(mentions, dict) else None
        self._named = [push_event.event.get("state_key"), *(named if isinstance(named, list) else ())]

    def concerns(self, user_id: str) -> bool:
        """Whether the predefined rules may say something else to this user."""
        return user_id in self._named


def _in_force_since_it_came(stored: StoredEvent) -> bool:
    """Whether a current state event was so as soon as it was stored, not by a later resolution."""
    return stored.pos is not None and stored.state_after == stored.pos


def may_notify(reader: Reader, stored: StoredEvent) -> bool:
    """Whether an event is looked at at all: shown, not emptied, by somebody else who is listened to."""
    event = stored.event
    if not stored.shown or stored.flags & REDACTED or event.sender == reader.user_id:
        return False
    return event.is_state or event.sender not in reader.ignored
