"""Events that are known without being part of a timeline: auth events, and state learnt from others.

An outlier has passed the checks that need no state (format, signatures, hash)
and has been judged by its own auth events, which are stored before it.
"""

from __future__ import annotations

import asyncio
import graphlib
from collections.abc import Collection, Iterable, Mapping
from functools import partial

import msgspec

from homeserver.protocol.auth_rules import NotAllowed, check_against_state, check_auth_events
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.event_cache import EventCache
from homeserver.storage import event_media
from homeserver.storage import events as event_storage
from homeserver.storage import state as state_storage
from homeserver.storage.database import Database, Transaction
from homeserver.storage.event_media import Naming, names_in
from homeserver.storage.events import REJECTED, StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.numbers import Sequence

#: More events than this are stored in several transactions, each of so many.
BULK = 500

#: After so many events that were judged in one go others get their turn.
_JUDGED_AT_ONCE = 50
#: How many rejected events are judged again at a time.
_MAX_JUDGED_AGAIN = 200


class MissingAuthEvents(Exception):
    """An event cannot be judged: some of its auth events are not here."""

    def __init__(self, event_id: str, missing: frozenset[str]) -> None:
        super().__init__(f"{event_id}: {len(missing)} auth events are not here")
        self.event_id = event_id
        self.missing = missing


def authorise_by_auth_events(
    rules: RoomVersion, event: Event, auth_events: Mapping[str, Event], create: Event | None
) -> None:
    """Judge an event by the auth events it names.

    ``auth_events`` holds those by id; ``create`` is the room's create event where the
    room version does not have events name it.  Raises ``NotAllowed``, and
    ``MissingAuthEvents`` when one of them is not there.
    Specification: server-server API, "Checks performed on receipt of a PDU", step 4.
    """
    missing = frozenset(event.auth_events) - auth_events.keys()
    if missing:
        raise MissingAuthEvents(event.event_id, missing)
    named = [auth_events[event_id] for event_id in event.auth_events]
    check_auth_events(rules, event, named, create)
    state = {auth.key: auth for auth in named if auth.state_key is not None}
    if create is not None:
        state.setdefault(create.key, create)
    check_against_state(rules, event, lambda type_, state_key: state.get((type_, state_key)))


def in_auth_order(events: Mapping[str, Event]) -> list[Event]:
    """Events sorted so that each comes after those of its auth events that are among them.

    Raises ``ValueError`` when they refer to each other in a circle.
    """
    if _is_in_auth_order(events):  # as the parts are of what was sorted once
        return list(events.values())
    graph = {
        event_id: [auth for auth in event.auth_events if auth in events] for event_id, event in events.items()
    }
    try:
        return [events[event_id] for event_id in graphlib.TopologicalSorter(graph).static_order()]
    except graphlib.CycleError as error:
        raise ValueError("events authorise each other in a circle") from error


def _is_in_auth_order(events: Mapping[str, Event]) -> bool:
    seen: set[str] = set()
    for event_id, event in events.items():
        if any(auth in events and auth not in seen for auth in event.auth_events):
            return False
        seen.add(event_id)
    return True


def auth_chain_within(event: Event, events: Mapping[str, Event]) -> set[str]:
    """The ids of those of some events that another one is based on, directly or through others of them."""
    chain: set[str] = set()
    pending = [event]
    while pending:
        cited = [auth_id for auth_id in pending.pop().auth_events if auth_id in events]
        pending += [events[auth_id] for auth_id in cited if auth_id not in chain]
        chain.update(cited)
    return chain


class Outliers:
    """Judges and stores outliers."""

    def __init__(
        self, db: Database, keys: Keys, events: EventCache, event_nids: Sequence, server_name: str
    ) -> None:
        self._db = db
        self._keys = keys
        self._events = events
        self._event_nids = event_nids
        self._server_name = server_name

    async def store(
        self, room_nid: int, rules: RoomVersion, events: Iterable[Event], create: Event | None
    ) -> dict[str, StoredEvent]:
        """Store those of the events that are new; all of them by id, as far as they could be judged.

        An event whose auth events are neither stored nor among these is left out; so is
        one that another room claims.  Those that were rejected are judged again.
        Caller holds the room lock.  Raises ``ValueError`` for a circle of auth events.
        """
        new, known = await self.judge(room_nid, rules, events, create)
        # Auth events come first, so that what is stored never cites what is not.
        for start in range(0, len(new), BULK):
            chunk = new[start : start + BULK]
            names = names_in(chunk, self._server_name)
            keys = self.unwritten_keys(chunk)
            await self._db.write(partial(_store, stored=chunk, keys=keys, names=names))
            self.stored(chunk)
        rejected = [stored.id for stored in known.values() if stored.rejected]
        return known | await self.judge_again(rules, rejected, create) if rejected else known

    async def judge_again(
        self, rules: RoomVersion, event_ids: Collection[str], create: Event | None
    ) -> dict[str, StoredEvent]:
        """Those rejected outliers that their auth events allow by now, by id: they are rejected no more.

        What may have changed is that one of those was rejected, and is not any more; so rejected
        outliers in their auth chains are judged first.  Caller holds the room lock.
        """
        rejected: dict[str, StoredEvent] = {}
        wanted = set(event_ids)
        while wanted and len(rejected) < _MAX_JUDGED_AGAIN:
            found = await self._events.by_ids(sorted(wanted))
            outliers = {
                name: stored
                for name, stored in found.items()
                if stored.rejected and stored.state_before is None
            }
            rejected |= outliers
            wanted = {auth for stored in outliers.values() for auth in stored.event.auth_events}
            wanted -= rejected.keys()
        auth_ids = {auth for stored in rejected.values() for auth in stored.event.auth_events}
        known = await self._events.by_ids(sorted(auth_ids))
        accepted: dict[str, StoredEvent] = {}
        for event in in_auth_order({name: stored.event for name, stored in rejected.items()}):
            stored = _accepted(rules, rejected[event.event_id], known | accepted, create)
            if stored is not None:
                accepted[stored.id] = stored
        if accepted:
            nids = [stored.nid for stored in accepted.values()]
            names = names_in(accepted.values(), self._server_name)
            await self._db.write(partial(_accept, nids=nids, names=names))
            self.stored(accepted.values())
        return accepted

    async def judge(
        self, room_nid: int, rules: RoomVersion, events: Iterable[Event], create: Event | None
    ) -> tuple[list[StoredEvent], dict[str, StoredEvent]]:
        """What ``store`` would store, auth events first, and all that is known of the events by id."""
        wanted = {event.event_id: event for event in events}
        auth_ids = {auth for event in wanted.values() for auth in event.auth_events}
        stored_here = await self._events.by_ids(list(wanted.keys() | auth_ids))
        # In v1 and v2 servers choose the ids of events, so that two rooms may claim the same one.
        known = {key: stored for key, stored in stored_here.items() if stored.room_nid == room_nid}
        await self._keys.intern_all([event.key for event in wanted.values() if event.is_state])
        new: list[StoredEvent] = []
        fresh = {key: event for key, event in wanted.items() if key not in stored_here}
        few = len(fresh) <= BULK
        for event in in_auth_order(fresh) if few else await asyncio.to_thread(in_auth_order, fresh):
            stored = await self._judged(room_nid, rules, event, known, create)
            if stored is not None:
                new.append(stored)
                known[event.event_id] = stored
            if len(new) % _JUDGED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return new, known

    async def _judged(
        self,
        room_nid: int,
        rules: RoomVersion,
        event: Event,
        known: Mapping[str, StoredEvent],
        create: Event | None,
    ) -> StoredEvent | None:
        auth = {auth_id: known[auth_id].event for auth_id in event.auth_events if auth_id in known}
        flags = 0
        try:
            authorise_by_auth_events(rules, event, auth, create if rules.hash_room_ids else None)
        except MissingAuthEvents:
            return None
        except NotAllowed:
            flags = REJECTED
            event = msgspec.structs.replace(event, rejected=True)
        return StoredEvent(
            nid=self._event_nids.next(),
            room_nid=room_nid,
            event=event,
            pos=None,
            flags=flags,
            state_before=None,
            state_after=None,
            auth_nids=tuple(known[auth_id].nid for auth_id in event.auth_events),
            key_nid=await self._keys.intern(event.key) if event.state_key is not None else None,
        )

    def unwritten_keys(self, stored: Iterable[StoredEvent]) -> dict[int, tuple[str, str]]:
        """State keys that have to be written with these events."""
        return dict(self._keys.unwritten({outlier.key_nid or 0 for outlier in stored}))

    def stored(self, stored: Iterable[StoredEvent]) -> None:
        """These are on disk."""
        for outlier in stored:
            self._events.put(outlier)
            self._keys.written([outlier.key_nid or 0])


def _accepted(
    rules: RoomVersion, outlier: StoredEvent, known: Mapping[str, StoredEvent], create: Event | None
) -> StoredEvent | None:
    """A rejected outlier as it is when its auth events allow it after all."""
    event = msgspec.structs.replace(outlier.event, rejected=False)
    auth = {name: known[name].event for name in event.auth_events if name in known}
    try:
        authorise_by_auth_events(rules, event, auth, create if rules.hash_room_ids else None)
    except (MissingAuthEvents, NotAllowed):
        return None
    return msgspec.structs.replace(outlier, event=event, flags=outlier.flags & ~REJECTED)


async def _store(
    tx: Transaction, stored: list[StoredEvent], keys: dict[int, tuple[str, str]], names: list[Naming]
) -> None:
    if keys:
        await state_storage.add_keys(tx, keys.items())
    await event_storage.insert(tx, stored)
    await event_media.add(tx, names)


async def _accept(tx: Transaction, nids: list[int], names: list[Naming]) -> None:
    await event_storage.accept(tx, nids)
    await event_media.add(tx, names)
