"""Events from other servers: the checks of the specification, in its order.

Specification: server-server API, "Checks performed on receipt of a PDU".
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from homeserver.errors import RemoteError
from homeserver.protocol.auth_rules import NotAllowed, auth_types_of, check_against_state
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.again import again_when_stale
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.inbound_run import Runs
from homeserver.rooms.missing import MAX_GAP_EVENTS, Gap, Missing
from homeserver.rooms.outliers import (
    BULK,
    MissingAuthEvents,
    Outliers,
    auth_chain_within,
    authorise_by_auth_events,
    in_auth_order,
)
from homeserver.rooms.partial import cited_members
from homeserver.rooms.policy import Policy, policy_server_of
from homeserver.rooms.resolution import Resolution
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.sticky_checks import StickyChecks
from homeserver.rooms.timeline import Addition, Timeline
from homeserver.storage.events import REJECTED, SENT_HERE, SOFT_FAILED, StoredEvent
from homeserver.storage.rooms import StaleRoomError
from homeserver.storage.state import Overlay

_log = structlog.get_logger()

#: How many events one question for missing events is about.
_MAX_LATEST = 20


#: PDUs that are read in one go, and how many such parts wait for their signatures.
_CHECKED_AT_ONCE = 250
_PARTS_UNDER_WAY = 4


#: Each asks other servers for a state in vain; what comes after it most likely does so too.
_MAX_UNCONNECTED = 3


class Dropped(Exception):
    """A PDU that leaves no trace; the message says why."""


class Unconnected(Dropped):
    """A PDU dropped because what it builds on or cites cannot be had: it may come again after that."""


class _Judged(msgspec.Struct, frozen=True, gc=False):
    """An event, and what was found out about it before the room lock was taken."""

    event: Event
    auth: Sequence[StoredEvent]
    gap: Gap | None
    #: Why its auth events do not allow it.
    refusal: str | None
    #: The room's policy server, where there is one, has nothing against it.
    recommended: bool


class EventVerifier(Protocol):
    """Reads PDUs whose signatures are good."""

    async def verified(self, pdus: Sequence[Mapping[str, Any]], rules: RoomVersion) -> list[Event | str]:
        """For each PDU its event, redacted where its hash is wrong, or why it is to be dropped."""
        ...


class Inbound:
    """Receives PDUs."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        events: EventCache,
        states: StateStore,
        resolution: Resolution,
        timeline: Timeline,
        outliers: Outliers,
        missing: Missing,
        verifier: EventVerifier,
        policy: Policy,
        sticky: StickyChecks,
    ) -> None:
        self._rooms = rooms
        self._events = events
        self._states = states
        self._resolution = resolution
        self._timeline = timeline
        self._outliers = outliers
        self._missing = missing
        self._verifier = verifier
        self._policy = policy
        self._sticky = sticky
        self._runs = Runs(rooms=rooms, events=events, states=states, timeline=timeline)

    async def receive(
        self, origin: str, room_id: str, pdu: dict[str, Any], *, hand_on: bool = False
    ) -> StoredEvent:
        """Take in one PDU that ``origin`` sent; the event as it was stored.

        ``hand_on``: this server sends it to the others in the room, as it does with its own.

        1. Known already?  Then there is nothing to do, but for one that was rejected: what it was
           judged by may have been wrong, or have come since.
        2. A valid event of its room version, else drop it.
        3. Good signatures, else drop it.
        4. A good hash, else redact it.
        5. Allowed by its own auth events, else reject it.
        6. Fetch the events it builds on that are missing.
        7. Allowed by the state before it, else reject it.
        8. Allowed by the room's current state, and recommended by its policy server if it
           has one, else soft-fail it.
        9. Append it.

        Raises ``Dropped``.
        """
        room = await self._rooms.find(room_id)
        if room is None or not self._rooms.is_in(room):
            raise Dropped("this server is not in the room")
        (event,) = await self.checked(room.rules, [pdu])  # steps 2 to 4
        return await self.receive_checked(origin, room_id, event, hand_on=hand_on)

    async def receive_run(self, room_id: str, events: Sequence[Event]) -> list[StoredEvent]:
        """Take in those of the first events that only continue the room; there may be none.

        The steps are those of ``receive``, each gone through for all of them together.
        """
        try:
            return await self._runs.take(room_id, events)
        except StaleRoomError:
            return []

    async def receive_checked(
        self, origin: str, room_id: str, event: Event | Dropped, *, hand_on: bool = False
    ) -> StoredEvent:
        """``receive`` for what steps 2 to 4 made of a PDU."""
        room = await self._rooms.find(room_id)
        if room is None or not self._rooms.is_in(room):
            raise Dropped("this server is not in the room")
        if isinstance(event, Dropped):
            raise event
        if event.room_id != room_id:
            raise Dropped("the event is for another room")
        if not event.prev_events:
            raise Dropped("it builds on nothing, and the room has its first event")
        return await self._take(origin, room, event, fill_gap=True, hand_on=hand_on)

    async def checked(self, rules: RoomVersion, pdus: Sequence[dict[str, Any]]) -> list[Event | Dropped]:
        """Steps 2 to 4 for several PDUs at once: each as an event, or why it is dropped.

        Many are taken a part at a time, so that others get their turn: while one part's signatures
        are verified elsewhere, the next one is read.
        """
        under_way: deque[asyncio.Task[list[Event | Dropped]]] = deque()
        events: list[Event | Dropped] = []
        try:
            for start in range(0, len(pdus), _CHECKED_AT_ONCE):
                part = pdus[start : start + _CHECKED_AT_ONCE]
                under_way.append(asyncio.create_task(self._checked(rules, part)))
                if len(under_way) == _PARTS_UNDER_WAY:
                    events += await under_way.popleft()
                await asyncio.sleep(0)
            while under_way:
                events += await under_way.popleft()
        finally:
            for task in under_way:
                task.cancel()
        return events

    async def _checked(self, rules: RoomVersion, pdus: Sequence[dict[str, Any]]) -> list[Event | Dropped]:
        read = await self._verifier.verified(pdus, rules)
        return [Dropped(each) if isinstance(each, str) else each for each in read]

    @again_when_stale
    async def _take(
        self, origin: str, room: Room, event: Event, *, fill_gap: bool, hand_on: bool = False
    ) -> StoredEvent:
        stored = await self._events.by_id(event.event_id)
        if stored is not None and stored.room_nid != room.nid:
            raise Dropped("another room has an event with its id")
        if stored is not None and _is_settled(stored):  # step 1
            await self._sticky.came_again(stored)
            return stored
        while True:
            epoch = room.epoch
            auth, gap = await self._auth_events_and_gap(origin, room, event, fill_gap=fill_gap)
            refusal = self._refusal_by_auth_events(room, event, auth)  # step 5
            recommended: Event | None = event
            policy_server = policy_server_of(room, event.type, event.state_key)
            if policy_server is not None and refusal is None:  # asked before the room lock is taken
                recommended = await self._policy.recommended(policy_server, room.rules, event)
                event = recommended or event
            async with self._rooms.lock(room.room_id) as room:  # noqa: PLR1704 - it may have been loaded anew
                # The same event may have come from another server, and be on its way to the disk.
                await room.settle()
                room.check_sound()
                stored = await self._events.by_id(event.event_id)
                if stored is not None and _is_settled(stored):
                    return stored
                if room.epoch != epoch:  # the room's state has become whole, and much was decided again
                    continue
                judged = _Judged(event, auth, gap, refusal, recommended=recommended is not None)
                addition, reason = await self._addition(room, judged, stored)
                if stored is not None and stored.state_before is not None and addition.flags & REJECTED:
                    return stored
                if hand_on:
                    addition = msgspec.structs.replace(addition, flags=addition.flags or SENT_HERE)
                if gap is not None and gap.state is None:
                    addition = msgspec.structs.replace(addition, origin=origin)
                written = await self._timeline.stage(room, [addition])  # step 9
            if refused := addition.flags & (REJECTED | SOFT_FAILED):
                _log.info(
                    "event refused",
                    event_id=event.event_id,
                    origin=origin,
                    rejected=refused == REJECTED,
                    reason=reason,
                )
            return (await written)[0]

    async def _auth_events_and_gap(
        self, origin: str, room: Room, event: Event, *, fill_gap: bool
    ) -> tuple[list[StoredEvent], Gap | None]:
        """What an event is to be judged by (steps 5 and 6), as far as it was not here."""
        try:
            auth = await self._auth_events(origin, room, event)
        except Unconnected:
            # They may come with what it builds on, or with the state before it.
            if not await self._unknown_prev_events(event):
                raise
            gap = await self._close_gap(origin, room, event, fill_gap=fill_gap)
            return await self._auth_events(origin, room, event), gap
        return auth, await self._close_gap(origin, room, event, fill_gap=fill_gap)

    async def _addition(
        self, room: Room, judged: _Judged, outlier: StoredEvent | None
    ) -> tuple[Addition, str | None]:
        """The event judged by the state before it and by the room's current state; why it is refused."""
        event, auth, gap = judged.event, judged.auth, judged.gap
        before, overlay = await self._state_before(room, event, gap)
        cited = cited_members(auth) if room.partial is not None else {}
        flags = 0
        reason = judged.refusal or await self._refusal_at(room, event, before, cited)  # step 7
        if reason is not None:
            flags = REJECTED
            event = msgspec.structs.replace(event, rejected=True)
        else:
            reason = await self._refusal_at(room, event, room.state_ver, cited)  # step 8
            if not judged.recommended:
                reason = "the room's policy server does not recommend it"
            flags = 0 if reason is None else SOFT_FAILED
        addition = Addition(
            event=event,
            auth_nids=tuple(stored.nid for stored in auth),
            state_before=before,
            flags=flags,
            outlier=outlier,
            missing=gap.unknown if gap else (),
            overlay=overlay,
            unwanted=not judged.recommended,
        )
        return addition, reason

    async def _auth_events(self, origin: str, room: Room, event: Event) -> list[StoredEvent]:
        await self.fetch_auth_events(origin, room, [event])
        known = await self._events.by_ids(event.auth_events)
        missing = set(event.auth_events) - known.keys()
        if missing:
            raise Unconnected(f"{len(missing)} of its auth events cannot be had")
        rejected = [stored.id for stored in known.values() if stored.rejected]
        if rejected:
            async with self._rooms.lock(room.room_id) as locked:
                known |= await self._outliers.judge_again(room.rules, rejected, locked.create.event)
        return [known[event_id] for event_id in event.auth_events]

    async def fetch_auth_events(self, origin: str, room: Room, events: Sequence[Event]) -> None:
        """Have the auth events of events stored, as far as ``origin``, or others in the room, give them."""
        for event in events:
            for server in self._missing.servers(origin, room):
                known = await self._events.by_ids(event.auth_events)
                if len(known) == len(set(event.auth_events)):
                    break
                chain = await self._missing.auth_chain(server, room.room_id, event, known)
                await self.store_outliers(room, chain, cited_by=event)

    async def store_outliers(
        self, room: Room, pdus: Sequence[dict[str, Any]], *, cited_by: Event | None = None
    ) -> dict[str, StoredEvent]:
        """Check PDUs, judge them by their auth events and store them outside the timeline.

        With ``cited_by`` only what is in that event's auth chain is kept: an answer may hold more.
        """
        checked = await self.checked(room.rules, pdus)
        events = {
            event.event_id: event
            for event in checked
            if isinstance(event, Event) and event.room_id == room.room_id
        }
        if cited_by is not None:
            chain = auth_chain_within(cited_by, events)
            events = {event_id: event for event_id, event in events.items() if event_id in chain}
        try:
            if len(events) <= BULK:
                ordered = in_auth_order(events)
            else:
                ordered = await asyncio.to_thread(in_auth_order, events)
        except ValueError as error:
            raise Dropped(str(error)) from error
        known: dict[str, StoredEvent] = {}
        for start in range(0, len(ordered), BULK):
            async with self._rooms.lock(room.room_id) as room:  # noqa: PLR1704 - it may have been loaded anew
                # Some of them may be on their way to the disk.
                await room.settle()
                part = ordered[start : start + BULK]
                known |= await self._outliers.store(room.nid, room.rules, part, room.create.event)
        return known

    def _refusal_by_auth_events(self, room: Room, event: Event, auth: Sequence[StoredEvent]) -> str | None:
        """Why its auth events do not allow an event."""
        create = room.create.event if room.rules.hash_room_ids else None
        try:
            authorise_by_auth_events(room.rules, event, {stored.id: stored.event for stored in auth}, create)
        except MissingAuthEvents as error:  # all of them were given
            raise Dropped(str(error)) from error
        except NotAllowed as error:
            return str(error)
        return None

    async def _close_gap(self, origin: str, room: Room, event: Event, *, fill_gap: bool) -> Gap | None:
        """Have the events it builds on, or the state before it from another server; ``None``: no gap.

        Where neither can be had the event is dropped.  The next one that builds on it brings the
        question up anew, and may come from a server that knows the answer.
        """
        unknown = await self._unknown_prev_events(event)
        if unknown and fill_gap:
            await self._take_events_before(origin, room, event)
            unknown = await self._unknown_prev_events(event)
        if not unknown:
            return None
        if room.partial is not None:
            return Gap(unknown=tuple(unknown), state=None)
        try:
            state = await self._missing.state_before(origin, room, event, self.store_claimed)
        except RemoteError as error:
            raise Unconnected(f"what it builds on cannot be had: {error}") from error
        return Gap(unknown=tuple(unknown), state=state)

    async def _take_events_before(self, origin: str, room: Room, event: Event) -> None:
        """Take in what leads to an event, until too much of it cannot be placed either."""
        unconnected = 0
        for earlier in await self._events_before(origin, room, event):
            try:
                await self._take(origin, room, earlier, fill_gap=False)
            except (Dropped, RemoteError) as error:
                _log.info("missing event dropped", origin=origin, reason=str(error))
                unconnected += isinstance(error, Unconnected)
                if unconnected == _MAX_UNCONNECTED:
                    return

    async def store_claimed(self, room: Room, pdus: Sequence[dict[str, Any]]) -> dict[str, StoredEvent]:
        """``store_outliers`` for what one server says, which another may say better."""
        try:
            return await self.store_outliers(room, pdus)
        except Dropped as error:
            raise RemoteError("", str(error), reachable=True, transient=False) from error

    async def _events_before(self, origin: str, room: Room, event: Event) -> list[Event]:
        """Events that lead from what is known here to an event, earlier ones first.

        What lies before the known part of the graph is history: it is left to backfill, for
        in the timeline's end it would be shown as new.
        """
        found: dict[str, Event] = {}
        for server in self._missing.servers(origin, room):
            latest = [event.event_id]
            while latest and len(found) < MAX_GAP_EVENTS:
                pdus = await self._missing.events_before(server, room, latest)
                fresh = {
                    earlier.event_id: earlier
                    for earlier in await self.checked(room.rules, pdus)
                    if isinstance(earlier, Event) and earlier.room_id == room.room_id and earlier.prev_events
                }
                fresh = {event_id: earlier for event_id, earlier in fresh.items() if event_id not in found}
                found |= fresh
                latest = await self._reaching_further(fresh.values(), found)
            if found:
                break
        history: set[str] = set()
        pending = list(await self._timeline.missing_among(room, list(found)))
        while pending:
            event_id = pending.pop()
            if event_id in found and event_id not in history:
                history.add(event_id)
                pending += found[event_id].prev_events
        wanted = [earlier for event_id, earlier in found.items() if event_id not in history]
        return sorted(wanted, key=lambda earlier: earlier.depth)

    async def _reaching_further(self, fresh: Iterable[Event], found: Mapping[str, Event]) -> list[str]:
        """Those of the events that build on others which are not known yet."""
        reaching = []
        for event in fresh:
            if any(prev not in found for prev in await self._unknown_prev_events(event)):
                reaching.append(event.event_id)
        return reaching[:_MAX_LATEST]

    async def _unknown_prev_events(self, event: Event) -> list[str]:
        known = await self._events.by_ids(event.prev_events)
        return [
            event_id
            for event_id in event.prev_events
            if event_id not in known or known[event_id].state_after is None
        ]

    async def _state_before(self, room: Room, event: Event, gap: Gap | None) -> tuple[int, Overlay | None]:
        """The reference to the state before an event, and the overlay it may stand for."""
        known = await self._events.by_ids(event.prev_events)
        refs = {stored.state_after for stored in known.values() if stored.state_after is not None}
        if gap is not None and gap.state is not None:
            claimed = gap.state.difference(await self._states.state_at(room, room.state_ver))
            # The origin is asked about what is not known here, and does not get to replace what is.
            known_sides = [await self._states.difference(room, ref, room.state_ver) for ref in refs]
            difference = await self._resolution.resolve_maps(room, [claimed, *known_sides], {})
        else:
            if len(refs) == 1:
                return refs.pop(), None
            if not refs:  # nothing it builds on is here, and its state is asked for later
                return room.state_ver, None
            difference = await self._resolution.resolve(room, refs)
        if not difference:
            return room.state_ver, None
        overlay = await self._states.overlay_on(room, room.state_ver, difference)
        return -overlay.nid, overlay

    async def _refusal_at(
        self, room: Room, event: Event, ref: int, cited: Mapping[StateKey, Event]
    ) -> str | None:
        """Why the auth rules refuse an event at a state; ``cited`` stands in for what is not there."""
        keys = auth_types_of(room.rules, event)
        state: dict[StateKey, Event] = {room.create.event.key: room.create.event, **cited}
        for key in keys:
            stored = await self._states.event_at(room, ref, key)
            if stored is not None:
                state[key] = stored.event
        try:
            check_against_state(room.rules, event, lambda type_, key: state.get((type_, key)))
        except NotAllowed as error:
            return str(error)
        return None


def _is_settled(stored: StoredEvent) -> bool:
    """Whether an event has its place in the graph, and nothing that comes later changes how it was judged."""
    return stored.purged or (stored.state_before is not None and not stored.rejected)
