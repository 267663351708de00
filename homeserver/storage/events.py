"""Events as they are stored: a narrow row, and the PDU's JSON apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS, EventIdFormat, RoomVersion
from homeserver.storage.database import Reader, Row, Transaction
from homeserver.storage.event_json import decode_event_json, encode_event_json
from homeserver.storage.numbers import pack, unpack
from homeserver.storage.rows import Rows

REJECTED = 1
SOFT_FAILED = 2
SENT_HERE = 4
REDACTED = 8
PURGED = 16

#: The type of events that only merge forks (``rooms/dummy_events.py``).
DUMMY = "org.matrix.dummy_event"

#: More ids than this in one query gain nothing and make the plan of the query worse.
_CHUNK = 500


class StoredEvent(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An event with its place in this server's storage."""

    nid: int
    room_nid: int
    event: Event
    #: Stream position; negative for backfilled events; ``None`` for outliers and what was purged.
    pos: int | None
    flags: int
    #: References into the room's state (``rooms/state_store.py``); ``None`` for outliers.
    state_before: int | None
    state_after: int | None
    auth_nids: tuple[int, ...]
    #: The ``event_nid`` of the redaction that emptied this event.
    redacted_by: int | None = None
    #: ``key_nid`` of a state event.
    key_nid: int | None = None

    @property
    def id(self) -> str:
        """The event id."""
        return self.event.event_id

    @property
    def rejected(self) -> bool:
        """Refused by the auth rules."""
        return bool(self.flags & REJECTED)

    @property
    def soft_failed(self) -> bool:
        """Allowed where it stands in the graph, not by the room's state now: kept from everybody."""
        return bool(self.flags & SOFT_FAILED)

    @property
    def sent_here(self) -> bool:
        """Made by this server."""
        return bool(self.flags & SENT_HERE)

    @property
    def hidden(self) -> bool:
        """Never shown to a client or extended from."""
        return bool(self.flags & (REJECTED | SOFT_FAILED))

    @property
    def shown(self) -> bool:
        """Whether clients are told of it at all."""
        return not (self.flags & (REJECTED | SOFT_FAILED | PURGED) or self.event.type == DUMMY)

    @property
    def purged(self) -> bool:
        """Nothing is left of it but its place in the graph."""
        return bool(self.flags & PURGED)


class _Pdu(msgspec.Struct, gc=False):
    sender: str
    type: str
    origin_server_ts: int
    depth: int
    prev_events: list[Any]
    auth_events: list[Any]
    state_key: str | None = None
    redacts: Any = None


class _Redacts(msgspec.Struct, gc=False):
    redacts: Any = None


class _RedactingContent(msgspec.Struct, gc=False):
    content: _Redacts


_decode_pdu = msgspec.json.Decoder(_Pdu).decode
_decode_redacting = msgspec.json.Decoder(_RedactingContent).decode

_COLUMNS = """
    e.event_nid, e.event_id, e.room_nid, e.pos, e.flags, e.state_before, e.state_after,
    e.auth_nids, e.redacted_by, e.key_nid, j.json, r.room_id, r.version
"""
_FROM = """
    FROM events e JOIN event_json j ON j.event_nid = e.event_nid JOIN rooms r ON r.room_nid = e.room_nid
"""


def event_from_stored_json(
    json: bytes, event_id: str, room_id: str, rules: RoomVersion, *, rejected: bool
) -> Event:
    """An ``Event`` from JSON whose format was checked before it was stored."""
    pdu = _decode_pdu(json)
    prev_events, auth_events = pdu.prev_events, pdu.auth_events
    if rules.event_id_format is EventIdFormat.SERVER_CHOSEN:
        prev_events = [reference[0] for reference in prev_events]
        auth_events = [reference[0] for reference in auth_events]
    redacts = None
    if pdu.type == "m.room.redaction":
        redacts = _decode_redacting(json).content.redacts if rules.updated_redaction_rules else pdu.redacts
    return Event(
        event_id=event_id,
        room_id=room_id,
        sender=pdu.sender,
        type=pdu.type,
        state_key=pdu.state_key,
        origin_server_ts=pdu.origin_server_ts,
        depth=pdu.depth,
        prev_events=tuple(prev_events),
        auth_events=tuple(auth_events),
        redacts=redacts if isinstance(redacts, str) else None,
        json=json,
        rejected=rejected,
    )


def _stored_event(row: Row) -> StoredEvent:
    (
        nid,
        event_id,
        room_nid,
        pos,
        flags,
        before,
        after,
        auth,
        redacted_by,
        key_nid,
        json,
        room_id,
        version,
    ) = row
    event = event_from_stored_json(
        decode_event_json(json), event_id, room_id, ROOM_VERSIONS[version], rejected=bool(flags & REJECTED)
    )
    return StoredEvent(nid, room_nid, event, pos, flags, before, after, unpack(auth), redacted_by, key_nid)


_INSERT = """
    INSERT INTO events (event_nid, event_id, room_nid, pos, depth, origin_server_ts, key_nid, flags,
                        state_before, state_after, auth_nids)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""
_INSERT_JSON = "INSERT INTO event_json (event_nid, json) VALUES ($1, $2)"
_NO_LONGER_MISSING = "DELETE FROM missing_events WHERE room_nid = $1 AND event_id = $2"


def rows(events: Iterable[StoredEvent]) -> list[Rows]:
    """Events that are new here, as they are stored."""
    rows, jsons = [], []
    for stored in events:
        event = stored.event
        rows.append(
            (
                stored.nid,
                event.event_id,
                stored.room_nid,
                stored.pos,
                event.depth,
                event.origin_server_ts,
                stored.key_nid,
                stored.flags,
                stored.state_before,
                stored.state_after,
                pack(stored.auth_nids),
            )
        )
        jsons.append((stored.nid, encode_event_json(event.json)))
    return [Rows(_INSERT, rows), Rows(_INSERT_JSON, jsons)]


async def insert(tx: Transaction, events: Iterable[StoredEvent]) -> None:
    """Store events that are new here."""
    for statement in rows(events):
        await tx.execute_many(statement.sql, statement.rows)


async def place(tx: Transaction, stored: StoredEvent) -> None:
    """Give an event that was stored as an outlier its place in the timeline."""
    await tx.execute(
        "UPDATE events SET pos = $2, flags = $3, state_before = $4, state_after = $5 WHERE event_nid = $1",
        stored.nid,
        stored.pos,
        stored.flags,
        stored.state_before,
        stored.state_after,
    )


async def accept(tx: Transaction, nids: Iterable[int]) -> None:
    """Take back that events were rejected."""
    await tx.execute_many(
        "UPDATE events SET flags = flags - $2 WHERE event_nid = $1 AND flags & $2 <> 0",
        [(nid, REJECTED) for nid in nids],
    )


async def redact(tx: Transaction, nid: int, json: bytes, redacted_by: int) -> None:
    """Replace an event's JSON by its redacted form."""
    await tx.execute(
        "UPDATE events SET redacted_by = $2, flags = flags | $3 WHERE event_nid = $1",
        nid,
        redacted_by,
        REDACTED,
    )
    await tx.execute("UPDATE event_json SET json = $2 WHERE event_nid = $1", nid, encode_event_json(json))


async def add_pending_redaction(tx: Transaction, redacts: str, nid: int) -> None:
    """Remember a redaction whose target has not come yet."""
    await tx.execute(
        "INSERT INTO pending_redactions (redacts, event_nid) VALUES ($1, $2) ON CONFLICT DO NOTHING",
        redacts,
        nid,
    )


async def pending_redactions_of(r: Reader, event_id: str) -> list[int]:
    """The ``event_nid``s of redactions that came before their target, the first first."""
    rows = await r.fetch(
        "SELECT event_nid FROM pending_redactions WHERE redacts = $1 ORDER BY event_nid LIMIT 50", event_id
    )
    return [row[0] for row in rows]


async def redacted_early(r: Reader, event_ids: Sequence[str]) -> set[str]:
    """Those of the events that redactions came before."""
    rows = await r.fetch_in("SELECT redacts FROM pending_redactions WHERE redacts IN $1", event_ids)
    return {row[0] for row in rows}


async def by_id(r: Reader, event_id: str) -> StoredEvent | None:
    """One event, outliers and rejected ones included."""
    row = await r.fetch_row(f"SELECT {_COLUMNS} {_FROM} WHERE e.event_id = $1", event_id)
    return _stored_event(row) if row else None


async def by_ids(r: Reader, event_ids: Sequence[str]) -> dict[str, StoredEvent]:
    """Those of the events that are stored, by event id."""
    found: dict[str, StoredEvent] = {}
    for start in range(0, len(event_ids), _CHUNK):
        chunk = event_ids[start : start + _CHUNK]
        rows = await r.fetch_in(f"SELECT {_COLUMNS} {_FROM} WHERE e.event_id IN $1", chunk)
        found.update((row[1], _stored_event(row)) for row in rows)
    return found


async def by_nids(r: Reader, nids: Sequence[int]) -> dict[int, StoredEvent]:
    """Events by ``event_nid``."""
    found: dict[int, StoredEvent] = {}
    for start in range(0, len(nids), _CHUNK):
        chunk = nids[start : start + _CHUNK]
        rows = await r.fetch_in(f"SELECT {_COLUMNS} {_FROM} WHERE e.event_nid IN $1", chunk)
        found.update((row[0], _stored_event(row)) for row in rows)
    return found


async def ids_of(r: Reader, nids: Sequence[int]) -> dict[int, str]:
    """Event id by ``event_nid``."""
    ids: dict[int, str] = {}
    for start in range(0, len(nids), _CHUNK):
        chunk = nids[start : start + _CHUNK]
        rows = await r.fetch_in("SELECT event_nid, event_id FROM events WHERE event_nid IN $1", chunk)
        ids.update((row[0], row[1]) for row in rows)
    return ids


async def auth_links(r: Reader, nids: Sequence[int]) -> dict[int, tuple[int, ...]]:
    """The ``event_nid``s of each event's auth events."""
    links: dict[int, tuple[int, ...]] = {}
    for start in range(0, len(nids), _CHUNK):
        chunk = nids[start : start + _CHUNK]
        rows = await r.fetch_in("SELECT event_nid, auth_nids FROM events WHERE event_nid IN $1", chunk)
        links.update((row[0], unpack(row[1])) for row in rows)
    return links


async def timeline_backward(r: Reader, room_nid: int, pos: int, limit: int) -> list[StoredEvent]:
    """The newest ``limit`` timeline events at or before ``pos``, newest first; hidden ones too."""
    rows = await r.fetch(
        f"SELECT {_COLUMNS} {_FROM} WHERE e.room_nid = $1 AND e.pos <= $2 ORDER BY e.pos DESC LIMIT $3",
        room_nid,
        pos,
        limit,
    )
    return [_stored_event(row) for row in rows]


async def timeline_forward(r: Reader, room_nid: int, after: int, upto: int, limit: int) -> list[StoredEvent]:
    """The oldest ``limit`` timeline events in ``(after, upto]``, oldest first; hidden ones too."""
    rows = await r.fetch(
        f"""SELECT {_COLUMNS} {_FROM} WHERE e.room_nid = $1 AND e.pos > $2 AND e.pos <= $3
            ORDER BY e.pos LIMIT $4""",
        room_nid,
        after,
        upto,
        limit,
    )
    return [_stored_event(row) for row in rows]


async def placed_between(r: Reader, after: int, upto: int) -> list[StoredEvent]:
    """The events of timelines whose ``event_nid`` is in ``(after, upto]``."""
    rows = await r.fetch(
        f"""SELECT {_COLUMNS} {_FROM}
            WHERE e.event_nid > $1 AND e.event_nid <= $2 AND e.pos IS NOT NULL""",
        after,
        upto,
    )
    return [_stored_event(row) for row in rows]


async def json_of(r: Reader, nids: Sequence[int]) -> dict[int, bytes]:
    """The canonical JSON of events, by ``event_nid``."""
    rows = await r.fetch_in("SELECT event_nid, json FROM event_json WHERE event_nid IN $1", nids)
    return {row[0]: decode_event_json(row[1]) for row in rows}


async def oldest_pos(r: Reader, room_nid: int) -> int:
    """The lowest position among a room's backfilled events, 0 when it has none."""
    return min(0, await r.fetch_value("SELECT MIN(pos) FROM events WHERE room_nid = $1", room_nid) or 0)


async def add_missing(tx: Transaction, room_nid: int, event_ids: Iterable[str], wanted_by: int) -> None:
    """Remember events that others refer to, unless they are here by now.

    Of several that refer to one event the newest counts; ``wanted_by`` 0 stands for one without
    a position.
    """
    await tx.execute_many(
        """INSERT INTO missing_events (room_nid, event_id, wanted_by)
           SELECT CAST($1 AS BIGINT), CAST($2 AS TEXT), CAST($3 AS BIGINT)
           WHERE NOT EXISTS (SELECT 1 FROM events WHERE event_id = $2 AND state_before IS NOT NULL)
           ON CONFLICT (room_nid, event_id) DO UPDATE SET wanted_by = excluded.wanted_by
           WHERE excluded.wanted_by > missing_events.wanted_by""",
        [(room_nid, event_id, wanted_by) for event_id in event_ids],
    )


async def remove_missing(tx: Transaction, room_nid: int, event_ids: Iterable[str]) -> None:
    """Forget that events are missing: they have come."""
    await tx.execute_many(_NO_LONGER_MISSING, [(room_nid, event_id) for event_id in event_ids])


def no_longer_missing(events: Sequence[tuple[int, str]]) -> Rows:
    """The same for events of several rooms, as ``(room_nid, event_id)``."""
    return Rows(_NO_LONGER_MISSING, events)


async def missing_among(r: Reader, room_nid: int, event_ids: Sequence[str]) -> set[str]:
    """Those of the events that timeline events refer to and that are not here."""
    rows = await r.fetch_in(
        "SELECT event_id FROM missing_events WHERE event_id IN $1 AND room_nid = $2 AND wanted_by <> 0",
        event_ids,
        room_nid,
    )
    return {row[0] for row in rows}


async def newest_gap(r: Reader, room_nid: int, low: int, high: int) -> tuple[int, list[str]] | None:
    """The newest position in ``[low, high]`` that refers to missing events, and up to ten of those."""
    pos: int | None = await r.fetch_value(
        """SELECT MAX(wanted_by) FROM missing_events
           WHERE room_nid = $1 AND wanted_by >= $2 AND wanted_by <= $3""",
        room_nid,
        low,
        high,
    )
    if pos is None:
        return None
    rows = await r.fetch(
        "SELECT event_id FROM missing_events WHERE room_nid = $1 AND wanted_by = $2 LIMIT 10", room_nid, pos
    )
    return pos, [row[0] for row in rows]


async def pos_before(r: Reader, room_nid: int, pos: int) -> int | None:
    """The position of the event right before ``pos`` in a room, ``None`` when there is none."""
    before: int | None = await r.fetch_value(
        "SELECT MAX(pos) FROM events WHERE room_nid = $1 AND pos < $2", room_nid, pos
    )
    return before
