"""Events in the client-server API's format, as bytes that are made once and shared.

What differs from reader to reader is ``unsigned`` alone; it is put behind the shared bytes.
Specification: client-server API, "Client event", ``unsigned`` of events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from homeserver.clock import Clock
from homeserver.protocol.event_format import client_event
from homeserver.protocol.events import Event
from homeserver.protocol.filters import EventFormat, project_fields
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import Room
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.visibility import SeenEvent
from homeserver.storage import transaction_ids
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.state import NO_EVENT

_REMEMBERED = 20_000

#: JSON that is put into a response as it is.
Encoded = orjson.Fragment | dict[str, Any]


class Form(msgspec.Struct, frozen=True, gc=False):
    """How a client wants events."""

    #: Left out where the response says it already (``/sync``).
    room_id: bool = True
    event_fields: tuple[tuple[str, ...], ...] | None = None
    event_format: EventFormat = "client"


class ClientEvents:
    """Writes events for clients."""

    def __init__(self, db: Database, events: EventCache, states: StateStore, clock: Clock) -> None:
        self._db = db
        self._events = events
        self._states = states
        self._clock = clock
        #: By number of the event and of the redaction that emptied it: JSON without its closing brace.
        self._shared: dict[tuple[int, int | None], bytes] = {}

    async def write(
        self, room: Room, user_id: str, device_id: str | None, seen: Sequence[SeenEvent], form: Form
    ) -> list[Encoded]:
        """Events of a room for one reader, with all that ``unsigned`` is to tell them."""
        now = self._clock.now_ms()
        own = [one.stored.id for one in seen if one.stored.event.sender == user_id]
        txn_ids: dict[str, str] = {}
        if own and device_id is not None:
            txn_ids = await transaction_ids.of_events(self._db.read, user_id, device_id, own)
        written = []
        for one in seen:
            unsigned: dict[str, Any] = {
                "age": max(0, now - one.stored.event.origin_server_ts),
                "membership": one.membership,
            }
            if one.stored.id in txn_ids:
                unsigned["transaction_id"] = txn_ids[one.stored.id]
            if one.stored.event.is_state:
                unsigned.update(await self._replaced(room, one.stored))
            if one.stored.redacted_by is not None:
                unsigned.update(await self._redaction(one.stored.redacted_by, form))
            written.append(self._put_together(one.stored, unsigned, form))
        return written

    def write_state(self, stored: Sequence[StoredEvent], form: Form) -> list[Encoded]:
        """State events, as the state of a room lists them."""
        now = self._clock.now_ms()
        return [
            self._put_together(one, {"age": max(0, now - one.event.origin_server_ts)}, form) for one in stored
        ]

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
        return {"redacted_because": self._put_together(redaction, {}, Form(room_id=form.room_id))}

    def _put_together(self, stored: StoredEvent, unsigned: dict[str, Any], form: Form) -> Encoded:
        if form.event_fields is not None:
            whole = client_event(stored.event, unsigned=unsigned, room_id=form.room_id)
            return project_fields(whole, form.event_fields)
        if form.event_format == "federation":
            parts = [stored.event.json[:-1]]
        else:
            parts = [self._shared_bytes(stored)]
            if form.room_id:
                parts += [b',"room_id":', orjson.dumps(stored.event.room_id)]
        if unsigned:
            parts += [b',"unsigned":', orjson.dumps(unsigned)]
        parts.append(b"}")
        return orjson.Fragment(b"".join(parts))

    def _shared_bytes(self, stored: StoredEvent) -> bytes:
        key = (stored.nid, stored.redacted_by)
        shared = self._shared.get(key)
        if shared is None:
            if len(self._shared) >= _REMEMBERED:
                for old in list(self._shared)[: _REMEMBERED // 4]:
                    del self._shared[old]
            shared = self._shared[key] = _encode(stored.event)
        return shared


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
    return b"".join(parts)
