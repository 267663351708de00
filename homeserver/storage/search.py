"""What people search for: texts of events by their words, and how far the index of them has come.

Which words a text has, and which texts fit a query, is decided elsewhere, alike for both engines:
their indexes only narrow down what is looked at, by terms that are keyed hashes.  So nothing that
was purged or redacted stays readable in an index, wherever an engine keeps deleted entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec
import orjson

from homeserver.storage.database import Reader, Row, Transaction
from homeserver.storage.events import PURGED, REDACTED, REJECTED, SOFT_FAILED, StoredEvent

#: The types of events that have a searchable text.
SEARCHED = frozenset(("m.room.message", "m.room.name", "m.room.topic"))

#: The searchable fields; stored.
BODY, NAME, TOPIC = range(3)

#: Documents with all the terms that are looked at, whosever rooms they are in.
_MAX_BY_TERMS = 50_000
_UNSEEN = REJECTED | SOFT_FAILED | REDACTED | PURGED


class Document(msgspec.Struct, frozen=True, gc=False):
    """The text of an event."""

    event_nid: int
    source_nid: int
    room_nid: int
    sender: str
    field: int
    has_url: bool
    ts: int
    words: str
    #: With spaces between them.
    terms: str


class Progress(msgspec.Struct, frozen=True, gc=False):
    """How far the index has come; see the schema."""

    version: int
    key: bytes
    pos: int
    upto: int


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A document that may be what is looked for."""

    event_nid: int
    source_nid: int
    room_nid: int
    sender: str
    ts: int
    words: str


class Wanted(msgspec.Struct, frozen=True):
    """Which documents are asked for; ``None``: all."""

    #: Of each of these groups of terms, a document has one.
    terms: Sequence[Sequence[str]]
    #: ``event_nid`` up to which they are asked for.
    upto: int
    rooms: Sequence[int]
    fields: Sequence[int] | None = None
    senders: Sequence[str] | None = None
    not_senders: Sequence[str] = ()
    #: Whose messages are left out.
    ignored: Sequence[str] = ()
    has_url: bool | None = None


def is_searched(stored: StoredEvent) -> bool:
    """Whether an event is of a type that has a searchable text."""
    return stored.event.type in SEARCHED


async def look_again(tx: Transaction, events: Iterable[StoredEvent]) -> None:
    """Have events looked at that got their place where the stream has been looked at, or lost it."""
    nids = [(stored.nid,) for stored in events if is_searched(stored)]
    if nids:
        await tx.execute_many(
            """INSERT INTO search_queue (event_nid)
               SELECT CAST($1 AS BIGINT) WHERE EXISTS (SELECT 1 FROM search_progress)""",
            nids,
        )


async def forget(tx: Transaction, nids: Sequence[int]) -> None:
    """Remove the texts that some events gave; what they were edits of will be looked at again."""
    again = await tx.fetch_in(
        "SELECT event_nid FROM search_documents WHERE source_nid IN $1 AND source_nid <> event_nid", nids
    )
    gone = [(nid,) for nid in {*nids, *(row[0] for row in again)}]
    await tx.execute_many("DELETE FROM search_documents WHERE event_nid = $1", gone)
    await tx.execute_many("INSERT INTO search_queue (event_nid) VALUES ($1)", [(row[0],) for row in again])


async def progress(r: Reader) -> Progress | None:
    """How far the index has come; ``None`` where there is none."""
    row = await r.fetch_row("SELECT version, key, pos, upto FROM search_progress")
    return Progress(row[0], bytes(row[1]), row[2], row[3]) if row else None


async def begin(tx: Transaction, version: int, key: bytes, pos: int) -> Progress:
    """Begin an index of all that is stored up to a stream position."""
    upto = await tx.fetch_value("SELECT MAX(event_nid) FROM events") or 0
    await tx.execute(
        "INSERT INTO search_progress (version, key, pos, upto) VALUES ($1, $2, $3, $4)",
        *(version, key, pos, upto),
    )
    return Progress(version, key, pos, upto)


async def stop(tx: Transaction) -> None:
    """Have no index any more; what is left of it is cleared away by ``clear``."""
    await tx.execute("DELETE FROM search_progress")
    await tx.execute("DELETE FROM search_queue")


async def clear(tx: Transaction, limit: int) -> bool:
    """Remove some documents; whether there were any."""
    removed = await tx.execute(
        "DELETE FROM search_documents WHERE event_nid IN (SELECT event_nid FROM search_documents LIMIT $1)",
        limit,
    )
    return removed > 0


async def queued(r: Reader, limit: int) -> list[tuple[int, int]]:
    """What is to be looked at again: ``(id, event_nid)``, the first first."""
    rows = await r.fetch("SELECT id, event_nid FROM search_queue ORDER BY id LIMIT $1", limit)
    return [(row[0], row[1]) for row in rows]


async def store(
    tx: Transaction,
    documents: Sequence[Document],
    without: Sequence[int],
    *,
    done: Sequence[int] = (),
    pos: int | None = None,
    upto: int | None = None,
) -> None:
    """Put in the texts of some events, and take out those of events that have none (any more).

    Texts of events that were redacted or purged meanwhile are left out; ``done`` are rows of
    the queue, ``pos`` and ``upto`` how far the index has come with that.
    """
    sources = [nid for one in documents for nid in (one.event_nid, one.source_nid)]
    rows = await tx.fetch_in(
        f"SELECT event_nid FROM events WHERE event_nid IN $1 AND pos IS NOT NULL AND flags & {_UNSEEN} = 0",
        sources,
    )
    there = {row[0] for row in rows}
    old = {*without, *(one.event_nid for one in documents)}
    await tx.execute_many("DELETE FROM search_documents WHERE event_nid = $1", [(nid,) for nid in old])
    await _insert(tx, [one for one in documents if {one.event_nid, one.source_nid} <= there])
    edits_gone = [
        one.event_nid for one in documents if one.event_nid in there and one.source_nid not in there
    ]
    await tx.execute_many("INSERT INTO search_queue (event_nid) VALUES ($1)", [(nid,) for nid in edits_gone])
    await tx.execute_many("DELETE FROM search_queue WHERE id = $1", [(row_id,) for row_id in done])
    if pos is not None:
        await tx.execute("UPDATE search_progress SET pos = $1 WHERE pos < $1", pos)
    if upto is not None:
        await tx.execute("UPDATE search_progress SET upto = $1", upto)


async def _insert(tx: Transaction, documents: Iterable[Document]) -> None:
    await tx.execute_many(
        """INSERT INTO search_documents
               (event_nid, source_nid, room_nid, sender, field, has_url, ts, words, terms)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)""",
        [
            (
                *(one.event_nid, one.source_nid, one.room_nid, one.sender, one.field),
                *(int(one.has_url), one.ts, one.words, one.terms),
            )
            for one in documents
        ],
    )


async def rooms_named(r: Reader, room_ids: Sequence[str]) -> dict[str, int]:
    """``room_nid`` of those of some rooms that are known here, by room id."""
    rows = await r.fetch_in("SELECT room_id, room_nid FROM rooms WHERE room_id IN $1", room_ids)
    return {row[0]: row[1] for row in rows}


async def newest(r: Reader) -> int:
    """The largest ``event_nid`` that has a document."""
    return await r.fetch_value("SELECT MAX(event_nid) FROM search_documents") or 0


async def candidates(
    r: Reader, engine: Literal["sqlite", "postgres"], wanted: Wanted, limit: int
) -> tuple[list[Candidate], int | None]:
    """The documents with the largest ``event_nid`` of those asked for, the largest first.

    Of documents with very common terms only the newest are looked at.  Where there may be more,
    the ``event_nid`` up to which they are comes with them.
    """
    by_terms = _BY_TERMS[engine]
    found_by = [*by_terms.arguments(wanted.terms), wanted.upto]
    args: list[Any] = [*found_by]
    conditions = []

    def condition(text: str, values: Sequence[int] | Sequence[str]) -> None:
        args.append(orjson.dumps(list(values)).decode())
        conditions.append(text.format(f"${len(args)}"))

    condition(f"d.room_nid IN {by_terms.numbers}", wanted.rooms)
    if wanted.fields is not None:
        condition(f"d.field IN {by_terms.numbers}", wanted.fields)
    if wanted.senders is not None:
        condition(f"d.sender IN {by_terms.texts}", wanted.senders)
    if wanted.not_senders:
        condition(f"d.sender NOT IN {by_terms.texts}", wanted.not_senders)
    if wanted.ignored:
        condition(f"(d.field <> {BODY} OR d.sender NOT IN {by_terms.texts})", wanted.ignored)
    if wanted.has_url is not None:
        conditions.append(f"d.has_url = {int(wanted.has_url)}")
    rows = await r.fetch(
        f"""WITH hits AS {by_terms.materialized} ({by_terms.query(wanted.terms)} LIMIT {_MAX_BY_TERMS})
            SELECT d.event_nid, d.source_nid, d.room_nid, d.sender, d.ts, d.words
            FROM hits JOIN search_documents d ON d.event_nid = hits.nid
            WHERE {" AND ".join(conditions)} ORDER BY d.event_nid DESC LIMIT {limit:d}""",
        *args,
    )
    found = [_candidate(row) for row in rows]
    if len(found) == limit:
        return found, found[-1].event_nid - 1
    last = await r.fetch_value(
        f"{by_terms.query(wanted.terms)} LIMIT 1 OFFSET {_MAX_BY_TERMS - 1:d}", *found_by
    )
    return found, None if last is None else last - 1


def _candidate(row: Row) -> Candidate:
    return Candidate(*row)


class _Fts5:
    """Terms in SQLite's index."""

    materialized = ""
    numbers = texts = "(SELECT value FROM json_each({}))"

    @staticmethod
    def arguments(terms: Sequence[Sequence[str]]) -> list[str]:
        """The query in FTS5's language, of quoted strings; terms are letters and digits."""
        groups = (" OR ".join(f'"{term}"' for term in group) for group in terms)
        return [" AND ".join(f"({group})" for group in groups)]

    @staticmethod
    def query(_terms: Sequence[Sequence[str]]) -> str:
        return """SELECT rowid AS nid FROM search_index
                  WHERE search_index MATCH $1 AND rowid <= $2 ORDER BY rowid DESC"""


class _Gin:
    """Terms in PostgreSQL's index; materialised, so that the planner uses it."""

    materialized = "MATERIALIZED"
    numbers = "(SELECT CAST(jsonb_array_elements_text(CAST({} AS jsonb)) AS bigint))"
    texts = "(SELECT jsonb_array_elements_text(CAST({} AS jsonb)))"

    @staticmethod
    def arguments(terms: Sequence[Sequence[str]]) -> list[str]:
        return [" ".join(group) for group in terms]

    @staticmethod
    def query(terms: Sequence[Sequence[str]]) -> str:
        groups = (
            f"string_to_array(terms, ' ') && string_to_array(${number}, ' ')"
            for number in range(1, len(terms) + 1)
        )
        return f"""SELECT nid FROM (
                       SELECT event_nid AS nid FROM search_documents
                       WHERE {" AND ".join(groups)} AND event_nid <= ${len(terms) + 1} OFFSET 0
                   ) found ORDER BY nid DESC"""


_BY_TERMS: dict[str, type[_Fts5 | _Gin]] = {"sqlite": _Fts5, "postgres": _Gin}
