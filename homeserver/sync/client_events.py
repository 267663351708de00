"""Events in the client-server API's format, as bytes that are made once and shared.

What differs from reader to reader is ``unsigned`` alone; it is put behind the shared bytes.
Specification: client-server API, "Client event", ``unsigned`` of events.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec
import orjson

from homeserver.clock import Clock
from homeserver.protocol.event_format import client_event
from homeserver.protocol.events import Event
from homeserver.protocol.filters import EventFormat, project_fields
from homeserver.protocol.relations import REFERENCE, REPLACE, THREAD
from homeserver.protocol.sticky import STICKY, sticky_ms, sticky_of
from homeserver.rooms.bundles import Bundle, Bundles
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.recent_transactions import RecentTransactions
from homeserver.rooms.room import Room
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.sticky_events import StickyEvents
from homeserver.rooms.visibility import SeenEvent, only_events
from homeserver.storage import timeline_pages, transaction_ids
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.state import NO_EVENT
from homeserver.storage.timeline_pages import Told
from homeserver.turns import each_in_turns

#: How much memory written events may take: those of some twenty thousand messages do.
_MAX_BYTES = 8 * 1024 * 1024
#: What one takes beside its JSON, in bytes.
_BESIDE_JSON = 200

#: MSC4354 and MSC4140.
_STICKY_TTL = "msc4354_sticky_duration_ttl_ms"
_DELAY_ID = "org.matrix.msc4140.delay_id"

_NOTHING: Mapping[str, Any] = {}
_MEMBERSHIPS = {
    membership: b',"membership":"%b"' % membership.encode()
    for membership in ("join", "invite", "knock", "leave", "ban")
}

#: JSON that is put into a response as it is.
Encoded = orjson.Fragment | dict[str, Any]


class Form(msgspec.Struct, frozen=True, gc=False):
    """How a client wants events."""

    #: Left out where the response says it already (``/sync``).
    room_id: bool = True
    event_fields: tuple[tuple[str, ...], ...] | None = None
    event_format: EventFormat = "client"


class LookedUp(msgspec.Struct, frozen=True, gc=False):
    """What has to be looked up to write events for one reader, for many events at once."""

    #: The numbers of the events it was looked up for.
    events: frozenset[int]
    #: Those of them that have children; ``None`` where that does not matter.
    parents: set[int] | None
    #: What ``unsigned`` tells the sender alone, by event id.
    own: Mapping[str, Mapping[str, str]]


class _Shared(msgspec.Struct, frozen=True, gc=False):
    """What all readers of an event are told alike."""

    #: JSON without ``room_id``, ``unsigned`` and the closing brace.
    start: bytes
    sticks: bool


class DelayedIds(Protocol):
    """Knows which events had been scheduled (``rooms/delayed_events.py``)."""

    async def delay_ids(self, user_id: str, event_ids: list[str]) -> Mapping[str, str]:
        """The delay ids of those of a user's own events that had been, by event id."""
        ...


class ClientEvents:
    """Writes events for clients; ``delayed`` knows those that senders had sent later."""

    def __init__(
        self,
        db: Database,
        events: EventCache,
        states: StateStore,
        clock: Clock,
        bundles: Bundles,
        *,
        sticky: StickyEvents,
        transactions: RecentTransactions,
    ) -> None:
        self._db = db
        self._events = events
        self._states = states
        self._clock = clock
        self._bundles = bundles
        self._sticky = sticky
        self._transactions = transactions
        self.delayed: DelayedIds | None = None
        #: By number of the event and of the redaction that emptied it; made first, forgotten first.
        self._shared: OrderedDict[tuple[int, int | None], _Shared] = OrderedDict()
        self._shared_bytes = 0

    async def look_up(
        self,
        user_id: str,
        device_id: str | None,
        events: Sequence[StoredEvent],
        *,
        bundled: bool = True,
        told: Told | None = None,
    ) -> LookedUp:
        """What writing any of these events for a reader has to look up, whatever rooms they are of.

        ``bundled``: as ``write`` has it.  ``told`` was read together with the events.
        """
        nids = frozenset([stored.nid for stored in events])
        if told is None and bundled:
            told = await timeline_pages.told(self._db.read, [*nids], device_id)
        own = await self._known_to_sender(user_id, device_id, events, told)
        if told is None:
            return LookedUp(nids, None, own)
        # Of the children of state nothing is told.
        state = {stored.nid for stored in events if stored.event.is_state}
        return LookedUp(nids, told.parents - state, own)

    async def write(
        self,
        room: Room,
        user_id: str,
        device_id: str | None,
        seen: Sequence[SeenEvent],
        form: Form,
        *,
        bundled: bool = True,
        looked_up: LookedUp | None = None,
    ) -> list[Encoded]:
        """Events of a room for one reader, with all that ``unsigned`` is to tell them.

        ``bundled``: aggregations of their children included.  ``looked_up`` saves looking up what
        it has; it may be of other events, too, or not of all of these.
        """
        if not seen:
            return []
        if looked_up is None or not _covers(looked_up, seen, bundled=bundled):
            looked_up = await self.look_up(user_id, device_id, only_events(seen), bundled=bundled)
        own = looked_up.own
        bundles = await self._bundles.of(room, user_id, seen, looked_up.parents) if bundled else {}
        if not bundles:
            now = self._clock.now_ms()
            return [
                self._message(one, own, form, now)
                if _is_simple(one.stored)
                else await self._written(room, one, own, form, _NOTHING)
                for one in seen
            ]
        # Events inside of aggregations always name their room: that is how clients take them.
        inner = Form(room_id=True, event_format=form.event_format)
        told = [one.stored for bundle in bundles.values() for one in _inside(bundle)]
        own = {**own, **await self._known_to_sender(user_id, device_id, told)}
        replacements = [bundle.replacement for bundle in bundles.values() if bundle.replacement is not None]
        written: dict[int, Encoded] = {
            one.stored.nid: await self._written(room, one, own, inner, {}) for one in replacements
        }
        latest = [bundle.thread.latest for bundle in bundles.values() if bundle.thread is not None]
        for one in latest:
            relations = _relations(bundles.get(one.stored.nid), written)
            written[one.stored.nid] = await self._written(room, one, own, inner, relations)
        return [
            await self._written(room, one, own, form, _relations(bundles.get(one.stored.nid), written))
            for one in seen
        ]

    async def _known_to_sender(
        self,
        user_id: str,
        device_id: str | None,
        events: Sequence[StoredEvent],
        told: Told | None = None,
    ) -> dict[str, dict[str, str]]:
        """What ``unsigned`` tells the sender alone of an event, by event id."""
        known: defaultdict[str, dict[str, str]] = defaultdict(dict)
        own = {stored.nid: stored for stored in events if stored.event.sender == user_id}
        if own and self.delayed is not None:
            ids = [stored.id for stored in own.values()]
            for event_id, delay_id in (await self.delayed.delay_ids(user_id, ids)).items():
                known[event_id][_DELAY_ID] = delay_id
        if own and device_id is not None:
            txn_ids = told.txn_ids if told is not None else self._transactions.of(own.values(), device_id)
            if txn_ids is None:
                txn_ids = await transaction_ids.of_events(self._db.read, device_id, [*own])
            for nid, txn_id in txn_ids.items():
                if nid in own:
                    known[own[nid].id]["transaction_id"] = txn_id
        return known

    def _message(self, one: SeenEvent, own: Mapping[str, Mapping[str, str]], form: Form, now: int) -> Encoded:
        """``_written`` of a message of which nothing has to be looked up: of nearly all events."""
        stored = one.stored
        shared = self._shared_of(stored)
        also = own.get(stored.event.event_id, _NOTHING)
        if shared.sticks and (ttl_ms := self._sticky.ttl_ms(stored)) is not None:
            also = {**also, _STICKY_TTL: ttl_ms}
        return self._put_together(stored, shared, self._unsigned(stored, also, one.membership, now), form)

    async def _written(
        self,
        room: Room,
        one: SeenEvent,
        own: Mapping[str, Mapping[str, str]],
        form: Form,
        relations: Mapping[str, Any],
    ) -> Encoded:
        stored = one.stored
        shared = self._shared_of(stored)
        unsigned: dict[str, Any] = {**own.get(stored.event.event_id, _NOTHING)}
        if shared.sticks and (ttl_ms := self._sticky.ttl_ms(stored)) is not None:
            unsigned[_STICKY_TTL] = ttl_ms
        if relations:
            unsigned["m.relations"] = relations
        if stored.key_nid is not None:
            unsigned.update(await self._replaced(room, stored))
        if stored.redacted_by is not None:
            unsigned.update(await self._redaction(stored.redacted_by, form))
        return self._put_together(stored, shared, self._unsigned(stored, unsigned, one.membership), form)

    def _unsigned(
        self,
        stored: StoredEvent,
        also: Mapping[str, Any],
        membership: str | None = None,
        now: int | None = None,
    ) -> bytes:
        """``unsigned`` as JSON; most events have nothing in it but their age and the membership."""
        age = max(0, (self._clock.now_ms() if now is None else now) - stored.event.origin_server_ts)
        start = b'{"age":%d' % age
        if membership is not None:
            start += _MEMBERSHIPS.get(membership) or b',"membership":' + orjson.dumps(membership)
        return start + (b"," + orjson.dumps(also)[1:] if also else b"}")

    async def write_plain(self, room: Room, stored: StoredEvent) -> Encoded:
        """An event of a room for a reader who is no member: an application service."""
        unsigned: dict[str, Any] = {}
        if stored.event.is_state:
            unsigned.update(await self._replaced(room, stored))
        if stored.redacted_by is not None:
            unsigned.update(await self._redaction(stored.redacted_by, Form()))
        return self._put_together(stored, self._shared_of(stored), self._unsigned(stored, unsigned), Form())

    def write_state(self, stored: Sequence[StoredEvent], form: Form) -> list[Encoded]:
        """State events, as the state of a room lists them."""
        return [
            self._put_together(one, self._shared_of(one), self._unsigned(one, _NOTHING), form)
            for one in stored
        ]

    async def write_much_state(self, stored: Iterable[StoredEvent], form: Form) -> list[Encoded]:
        """``write_state`` of what may be all members of a room; others get their turn meanwhile."""
        return await each_in_turns(
            lambda one: self._put_together(one, self._shared_of(one), self._unsigned(one, _NOTHING), form),
            stored,
        )

    async def _replaced(self, room: Room, stored: StoredEvent) -> dict[str, Any]:
        """``prev_content`` and ``replaces_state`` of a state event."""
        if stored.key_nid is None or stored.state_before is None:
            return {}
        nid = await self._states.value_at(room, stored.state_before, stored.key_nid)
        if nid == NO_EVENT:
            return {}
        replaced = (await self._events.by_nids([nid]))[nid]
        return {
            "prev_content": orjson.Fragment(replaced.event.content_json),
            "prev_sender": replaced.event.sender,
            "replaces_state": replaced.id,
        }

    async def _redaction(self, redacted_by: int, form: Form) -> dict[str, Any]:
        redaction = (await self._events.by_nids([redacted_by])).get(redacted_by)
        if redaction is None:
            return {}
        shared = self._shared_of(redaction)
        return {"redacted_because": self._put_together(redaction, shared, None, Form(room_id=form.room_id))}

    def _put_together(
        self, stored: StoredEvent, shared: _Shared, unsigned: bytes | None, form: Form
    ) -> Encoded:
        if form.event_fields is not None:
            told = orjson.loads(unsigned) if unsigned is not None else None
            whole = client_event(stored.event, unsigned=told, room_id=form.room_id)
            return project_fields(whole, form.event_fields)
        start, room_id, end = shared.start, b"", b"}"
        if form.event_format == "federation":
            start = stored.event.json[:-1]
        elif form.room_id:
            room_id = b',"room_id":' + orjson.dumps(stored.event.room_id)
        if unsigned is not None:
            end = b',"unsigned":%b}' % unsigned
        return orjson.Fragment(start + room_id + end)

    def _shared_of(self, stored: StoredEvent) -> _Shared:
        key = (stored.nid, stored.redacted_by)
        shared = self._shared.get(key)
        if shared is None:
            shared = self._shared[key] = _Shared(_encode(stored.event), sticky_ms(stored.event) is not None)
            self._shared_bytes += len(shared.start) + _BESIDE_JSON
            while self._shared_bytes > _MAX_BYTES:
                self._shared_bytes -= len(self._shared.popitem(last=False)[1].start) + _BESIDE_JSON
        return shared


def _covers(looked_up: LookedUp, seen: Sequence[SeenEvent], *, bundled: bool) -> bool:
    """Whether everything was looked up that writing these events takes."""
    if bundled and looked_up.parents is None:
        return False
    return all(one.stored.nid in looked_up.events for one in seen)


def _is_simple(stored: StoredEvent) -> bool:
    """Whether ``unsigned`` says nothing of other events."""
    return stored.key_nid is None and stored.redacted_by is None


def _inside(bundle: Bundle) -> list[SeenEvent]:
    """The events that a bundle shows whole."""
    latest = bundle.thread.latest if bundle.thread is not None else None
    return [one for one in (bundle.replacement, latest) if one is not None]


def _relations(bundle: Bundle | None, written: Mapping[int, Encoded]) -> dict[str, Any]:
    """``m.relations`` with the events in it as they were written."""
    relations: dict[str, Any] = {}
    if bundle is None:
        return relations
    if bundle.replacement is not None:
        relations[REPLACE] = written[bundle.replacement.stored.nid]
    if bundle.thread is not None and bundle.thread.latest.stored.nid in written:
        relations[THREAD] = {
            "latest_event": written[bundle.thread.latest.stored.nid],
            "count": bundle.thread.count,
            "current_user_participated": bundle.thread.participated,
        }
    if bundle.references:
        relations[REFERENCE] = {"chunk": [{"event_id": event_id} for event_id in bundle.references]}
    return relations


def _encode(event: Event) -> bytes:
    """The event as JSON without ``room_id``, ``unsigned`` and its closing brace."""
    if event.redacts is not None:
        return orjson.dumps(client_event(event, room_id=False))[:-1]
    parts = [
        b'{"content":',
        event.content_json,
        b',"event_id":',
        orjson.dumps(event.event_id),
        b',"origin_server_ts":%d,"sender":' % event.origin_server_ts,
        orjson.dumps(event.sender),
        b',"type":',
        orjson.dumps(event.type),
    ]
    if event.state_key is not None:
        parts += [b',"state_key":', orjson.dumps(event.state_key)]
    if isinstance(sticky := sticky_of(event), dict):
        parts += [b',"%b":' % STICKY.encode(), orjson.dumps(sticky)]
    return b"".join(parts)
