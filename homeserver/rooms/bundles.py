"""Bundled aggregations: what is told of an event's children together with the event.

Worked out for a page of events at once, from the index of relations, for one reader: what
they may not see and what comes from users they ignore does not count.  Specification:
client-server API, "Aggregations of child events" and the "Server behaviour" of each
relationship type.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from homeserver.protocol.events import Event
from homeserver.protocol.relations import relation_in, replacement_slot
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.room import Room
from homeserver.rooms.visibility import SeenEvent, Visibility
from homeserver.storage import relations
from homeserver.storage.database import Database
from homeserver.storage.events import REDACTED, StoredEvent
from homeserver.storage.relations import Between, Wanted

#: References told of one event, the newest ones.
MAX_REFERENCES = 200
#: Children looked at where the newest is not to be seen.
_MAX_JUDGED = 100

_FAR = 1 << 62


class ThreadSummary(msgspec.Struct, frozen=True, gc=False):
    """``m.thread`` of a thread's root."""

    latest: SeenEvent
    count: int
    participated: bool


class Bundle(msgspec.Struct, gc=False):
    """What is told of one event's children; ``None`` and empty where there are none of a kind."""

    replacement: SeenEvent | None = None
    thread: ThreadSummary | None = None
    #: Event ids, oldest first.
    references: list[str] = []

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return self.replacement is None and self.thread is None and not self.references


class Bundles:
    """Aggregates children."""

    def __init__(
        self, db: Database, events: EventCache, visibility: Visibility, ignored: IgnoredUsers
    ) -> None:
        self._db = db
        self._events = events
        self._visibility = visibility
        self._ignored = ignored

    async def parents(self, events: Iterable[StoredEvent]) -> set[int]:
        """The numbers of those events that have children to tell of; state events never have."""
        nids = [stored.nid for stored in events if not stored.event.is_state]
        return await relations.with_children(self._db.read, nids) if nids else set()

    async def of(
        self, room: Room, user_id: str, seen: Sequence[SeenEvent], known: Collection[int] | None = None
    ) -> dict[int, Bundle]:
        """The bundles of a page of events and of the latest events of their threads, by ``event_nid``.

        Events without any are left out: a page of such costs one query, and none where it is
        ``known`` which events are ``parents``.
        """
        if known is None:
            known = await self.parents(one.stored for one in seen)
        parents = [one.stored for one in seen if one.stored.nid in known]
        if not parents:
            return {}
        summaries = await self._threads(room, user_id, parents)
        latest = [summary.latest for summary in summaries.values()]
        with_children = await self.parents(one.stored for one in latest)
        with_children -= {parent.nid for parent in parents}
        parents += [one.stored for one in latest if one.stored.nid in with_children]
        replacements = await self._replacements(room, user_id, parents)
        references = await self._references(room, user_id, parents)
        bundles = {
            parent.nid: Bundle(
                replacement=replacements.get(parent.nid),
                thread=summaries.get(parent.nid),
                references=references.get(parent.id, []),
            )
            for parent in parents
        }
        return {nid: bundle for nid, bundle in bundles.items() if not bundle.is_empty}

    async def _replacements(
        self, room: Room, user_id: str, parents: Sequence[StoredEvent]
    ) -> dict[int, SeenEvent]:
        """The most recent valid replacement of each event that has one and is not redacted."""
        slots = {
            slot: parent.nid
            for parent in parents
            if not parent.flags & REDACTED and (slot := replacement_slot(parent.event)) is not None
        }
        if not slots:
            return {}
        newest = await relations.newest_in_slots(self._db.read, list(slots))
        seen = await self._seen(room, user_id, list(newest.values()))
        found: dict[int, SeenEvent] = {}
        for slot, nid in newest.items():
            one = seen.get(nid)
            if one is None:
                earlier = await relations.in_slot(self._db.read, slot, _MAX_JUDGED)
                one = next(iter((await self._seen(room, user_id, earlier)).values()), None)
            if one is not None:
                found[slots[slot]] = one
        return found

    async def _threads(
        self, room: Room, user_id: str, parents: Sequence[StoredEvent]
    ) -> dict[int, ThreadSummary]:
        """The threads that begin at the events; none begins at a child of another event."""
        roots = {parent.id: parent for parent in parents if is_thread_root(parent.event)}
        if not roots:
            return {}
        ignored = await self._ignored.by(user_id)
        said = await relations.spoken(self._db.read, room.nid, list(roots), user_id, ignored)
        positions = {one.latest_pos: one for one in said}
        if not positions:
            return {}
        nids = await relations.at_positions(self._db.read, room.nid, list(positions))
        seen = await self._seen(room, user_id, list(nids.values()))
        found: dict[int, ThreadSummary] = {}
        for pos, spoken in positions.items():
            root, count = roots[spoken.root_id], spoken.events
            participated = root.event.sender == user_id or spoken.participated
            latest = seen.get(nids.get(pos, 0))
            if latest is None:
                visible = await self._visible_thread(room, user_id, root, ignored)
                latest, count = next(iter(visible), None), len(visible)
            if latest is not None:
                found[root.nid] = ThreadSummary(latest, count, participated)
        return found

    async def _visible_thread(
        self, room: Room, user_id: str, root: StoredEvent, ignored: frozenset[str]
    ) -> list[SeenEvent]:
        """What somebody who may not see the newest of a thread sees of it, newest first."""
        page = Between(-_FAR, _FAR, _MAX_JUDGED)
        nids = await relations.children(self._db.scan, room.nid, root.id, Wanted("m.thread"), page)
        seen = await self._seen(room, user_id, nids)
        return [one for one in seen.values() if one.stored.event.sender not in ignored]

    async def _references(
        self, room: Room, user_id: str, parents: Sequence[StoredEvent]
    ) -> Mapping[str, list[str]]:
        """The ids of the events that refer to each event, by its id."""
        ids = [parent.id for parent in parents]
        found = await relations.references(self._db.read, room.nid, ids, MAX_REFERENCES)
        if not found:
            return {}
        ignored = await self._ignored.by(user_id)
        seen = await self._seen(room, user_id, [nid for _, nid in found])
        references: defaultdict[str, list[str]] = defaultdict(list)
        for parent_id, nid in found:
            one = seen.get(nid)
            if one is not None and one.stored.event.sender not in ignored:
                references[parent_id].append(one.stored.id)
        return references

    async def _seen(self, room: Room, user_id: str, nids: Sequence[int]) -> dict[int, SeenEvent]:
        """Those of some children that the user may see, in the order they are given."""
        stored = await self._events.by_nids(nids)
        shown = [stored[nid] for nid in nids if nid in stored and not stored[nid].flags & REDACTED]
        return {one.stored.nid: one for one in await self._visibility.visible(room, user_id, shown)}


def is_thread_root(event: Event) -> bool:
    """Whether a thread may begin at an event: not at the child of another one."""
    return relation_in(event) is None
