"""Which events of a room somebody may see, and what they were in the room at each of them.

Finds the state the rules of ``protocol/visibility.py`` look at: from the log of the two
keys they need, which is read once however many events are asked about, and from
overlays for events on forks.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence

import msgspec

from homeserver.protocol.visibility import SHARED, may_see_event, visibility_of
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.key_history import KeyHistories, KeyHistory, meaning_of
from homeserver.rooms.retention import Retention, is_expired
from homeserver.rooms.room import MEMBER, Room
from homeserver.rooms.state_store import StateStore
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.state import NO_EVENT

HISTORY_VISIBILITY = ("m.room.history_visibility", "")


class SeenEvent(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An event that somebody may see."""

    stored: StoredEvent
    #: Their membership at the event, the event's own effect included; ``leave`` for none.
    membership: str


class Visibility:
    """Tells what people may see of rooms' histories."""

    def __init__(
        self, db: Database, keys: Keys, events: EventCache, states: StateStore, retention: Retention
    ) -> None:
        self._histories = KeyHistories(db, keys, events)
        self._events = events
        self._states = states
        self._retention = retention

    async def visible(
        self,
        room: Room,
        user_id: str,
        events: Iterable[StoredEvent],
        *,
        joined_since: int | None = None,
    ) -> list[SeenEvent]:
        """Those of the events that a user may see, in the order they came; what is over, nobody may.

        ``joined_since`` is a position from which on the user is known to have been joined
        without a break: events that build on it need no look at anything.
        """
        seen: list[SeenEvent] = []
        histories: tuple[KeyHistory, KeyHistory] | None = None
        before = self._retention.expired_before(room)
        for stored in events:
            if not stored.shown or stored.state_before is None or is_expired(stored, before):
                continue
            if joined_since is not None and stored.state_before >= joined_since:
                seen.append(SeenEvent(stored, _member_after(stored, user_id) or "join"))
                continue
            if histories is None:
                histories = (
                    await self._histories.of(room, HISTORY_VISIBILITY),
                    await self._histories.of(room, (MEMBER, user_id)),
                )
            one = await self._judged(room, user_id, stored, *histories)
            if one is not None:
                seen.append(one)
        return seen

    async def may_see(self, room: Room, user_id: str, stored: StoredEvent) -> bool:
        """Whether a user may see one event."""
        return bool(await self.visible(room, user_id, [stored]))

    async def joined_since(self, room: Room, user_id: str, upto: int) -> int | None:
        """The position of the join that still held at ``upto``; ``None`` for who was not joined then."""
        history = await self._histories.of(room, (MEMBER, user_id))
        since: int | None = None
        for version, membership in zip(history.versions, history.values, strict=True):
            if version > upto:
                break
            if membership != "join":
                since = None
            elif since is None:
                since = version
        return since

    async def left_at(self, room: Room, user_id: str, before: int | None = None) -> int | None:
        """The position at which a user's last stay in a room (before a position) ended.

        ``None`` for who never left.
        """
        history = await self._histories.of(room, (MEMBER, user_id))
        left: int | None = None
        was_joined = False
        for version, membership in zip(history.versions, history.values, strict=True):
            if before is not None and version >= before:
                break
            joined = membership == "join"
            if was_joined and not joined:
                left = version
            was_joined = joined
        return left

    async def membership_at(self, room: Room, user_id: str, pos: int) -> tuple[int, StoredEvent] | None:
        """The member event in force at a position, with the position that put it there."""
        history = await self._histories.of(room, (MEMBER, user_id))
        index = bisect.bisect_right(history.versions, pos)
        nid = history.nids[index - 1] if index else NO_EVENT
        return (history.versions[index - 1], (await self._events.by_nids([nid]))[nid]) if nid else None

    async def _judged(
        self, room: Room, user_id: str, stored: StoredEvent, visibility: KeyHistory, member: KeyHistory
    ) -> SeenEvent | None:
        ref = stored.state_before or 0
        if ref >= 0:
            return _judge(user_id, stored, visibility.at(ref), member.at(ref), member)
        before = await self._at(room, stored, member)
        return _judge(user_id, stored, await self._at(room, stored, visibility), before, member)

    async def _at(self, room: Room, stored: StoredEvent, history: KeyHistory) -> str | None:
        """What one key said in the state before an event on a fork."""
        if history.key_nid is None:
            return meaning_of(history.key, None)
        nid = await self._states.value_at(room, stored.state_before or 0, history.key_nid)
        events = await self._events.by_nids([nid] if nid != NO_EVENT else [])
        return meaning_of(history.key, events.get(nid))


def only_events(seen: Sequence[SeenEvent]) -> list[StoredEvent]:
    """The events themselves."""
    return [one.stored for one in seen]


def _judge(
    user_id: str, stored: StoredEvent, visibility: str | None, before: str | None, member: KeyHistory
) -> SeenEvent | None:
    """The event for who may see it, by the visibility and their membership ``before`` it."""
    own = _member_after(stored, user_id)
    allowed = may_see_event(
        visibility=visibility or SHARED,
        membership_at_event=before,
        joined_since=_joined_after(member, stored.pos or 0),
        visibility_after=_visibility_after(stored),
        membership_after=own,
    )
    return SeenEvent(stored, own or before or "leave") if allowed else None


def _joined_after(member: KeyHistory, pos: int) -> bool:
    """Whether a user joined after a position; who is joined now did so after whatever they missed."""
    if not member.values:
        return False
    if member.values[-1] == "join":
        return True
    later = zip(reversed(member.versions), reversed(member.values), strict=True)
    return any(version > pos and membership == "join" for version, membership in later)


def _visibility_after(stored: StoredEvent) -> str | None:
    """The visibility an event sets, when it is one that does."""
    if stored.event.type != HISTORY_VISIBILITY[0] or stored.event.state_key != "":
        return None
    return visibility_of(stored.event.content)


def _member_after(stored: StoredEvent, user_id: str) -> str | None:
    """The membership an event gives a user, when it is one of theirs."""
    if stored.event.type != MEMBER or stored.event.state_key != user_id:
        return None
    return meaning_of((MEMBER, user_id), stored) or "leave"
