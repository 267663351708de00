"""Room state: the current one, the log of its changes, checkpoints and overlays.

``rooms/state_store.py`` says how they make up the state at any event.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import zstandard

from homeserver.protocol.events import StateKey
from homeserver.storage.database import Reader, Row, Transaction
from homeserver.storage.numbers import pack, unpack

#: Stands for "no event" in the log and in overlays.
NO_EVENT = 0

_CHUNK = 500


class StateChange(msgspec.Struct, frozen=True, gc=False):
    """One change of a room's current state."""

    key_nid: int
    ver: int
    event_nid: int
    prev_event_nid: int


class CurrentEntry(msgspec.Struct, frozen=True, gc=False):
    """A new value in a room's current state; ``event_nid`` is ``NO_EVENT`` to remove the key."""

    key_nid: int
    event_nid: int
    membership: int | None


class Overlay(msgspec.Struct, frozen=True, gc=False):
    """The state on a fork, as a difference (``key_nid`` to ``event_nid``) from its base."""

    nid: int
    room_nid: int
    epoch: int
    base_ver: int
    #: Another overlay to start from, or 0 to start from ``base_ver``.
    parent: int
    #: How many overlays have to be read to know this one.
    chain: int
    hash: bytes
    diff: tuple[tuple[int, int], ...]


async def add_keys(tx: Transaction, keys: Iterable[tuple[int, StateKey]]) -> None:
    """Store ``(key_nid, (type, state_key))`` pairs; known ones are left alone."""
    await tx.execute_many(
        "INSERT INTO state_keys (key_nid, type, state_key) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        [(nid, key[0], key[1]) for nid, key in keys],
    )


async def key_nid(r: Reader, key: StateKey) -> int | None:
    """The integer of a state key."""
    nid: int | None = await r.fetch_value(
        "SELECT key_nid FROM state_keys WHERE type = $1 AND state_key = $2", key[0], key[1]
    )
    return nid


async def nids_of_keys(r: Reader, type: str, state_keys: Sequence[str]) -> dict[str, int]:
    """The integers of state keys of one type, those that have one."""
    nids: dict[str, int] = {}
    for start in range(0, len(state_keys), _CHUNK):
        chunk = state_keys[start : start + _CHUNK]
        rows = await r.fetch_in(
            "SELECT state_key, key_nid FROM state_keys WHERE state_key IN $1 AND type = $2", chunk, type
        )
        nids.update((row[0], row[1]) for row in rows)
    return nids


async def keys_by_nid(r: Reader, nids: Sequence[int]) -> dict[int, StateKey]:
    """State keys by their integers."""
    keys: dict[int, StateKey] = {}
    for start in range(0, len(nids), _CHUNK):
        chunk = nids[start : start + _CHUNK]
        rows = await r.fetch_in("SELECT key_nid, type, state_key FROM state_keys WHERE key_nid IN $1", chunk)
        keys.update((row[0], (row[1], row[2])) for row in rows)
    return keys


async def current(r: Reader, room_nid: int) -> dict[int, int]:
    """The room's whole current state, ``key_nid`` to ``event_nid``."""
    rows = await r.fetch("SELECT key_nid, event_nid FROM current_state WHERE room_nid = $1", room_nid)
    return {row[0]: row[1] for row in rows}


async def current_without_members(r: Reader, room_nid: int) -> dict[int, int]:
    """The current state but for ``m.room.member``."""
    rows = await r.fetch(
        "SELECT key_nid, event_nid FROM current_state WHERE room_nid = $1 AND membership IS NULL", room_nid
    )
    return {row[0]: row[1] for row in rows}


async def current_values(r: Reader, room_nid: int, keys: Sequence[int]) -> dict[int, int]:
    """Several keys of the current state."""
    rows = await r.fetch_in(
        "SELECT key_nid, event_nid FROM current_state WHERE key_nid IN $1 AND room_nid = $2", keys, room_nid
    )
    return {row[0]: row[1] for row in rows}


async def newest_of_current(r: Reader, room_nid: int, below: int, limit: int) -> list[tuple[int, int]]:
    """``(key_nid, event_nid)`` of the current state's events below a number: the greatest, descending."""
    rows = await r.fetch(
        """SELECT key_nid, event_nid FROM current_state WHERE room_nid = $1 AND event_nid < $2
           ORDER BY event_nid DESC LIMIT $3""",
        room_nid,
        below,
        limit,
    )
    return [(row[0], row[1]) for row in rows]


async def those_of_current(r: Reader, room_nid: int, nids: Sequence[int]) -> list[tuple[int, int]]:
    """``(key_nid, event_nid)`` of those of the events that are in the current state."""
    rows = await r.fetch_in(
        "SELECT key_nid, event_nid FROM current_state WHERE event_nid IN $1 AND room_nid = $2", nids, room_nid
    )
    return [(row[0], row[1]) for row in rows]


async def set_current(tx: Transaction, room_nid: int, entries: Sequence[CurrentEntry]) -> None:
    """Change the current state."""
    gone = [(room_nid, entry.key_nid) for entry in entries if entry.event_nid == NO_EVENT]
    kept = [
        (room_nid, entry.key_nid, entry.event_nid, entry.membership)
        for entry in entries
        if entry.event_nid != NO_EVENT
    ]
    if gone:
        await tx.execute_many("DELETE FROM current_state WHERE room_nid = $1 AND key_nid = $2", gone)
    await tx.execute_many(
        """INSERT INTO current_state (room_nid, key_nid, event_nid, membership) VALUES ($1, $2, $3, $4)
           ON CONFLICT (room_nid, key_nid)
           DO UPDATE SET event_nid = excluded.event_nid, membership = excluded.membership""",
        kept,
    )


async def clear_current(tx: Transaction, room_nid: int) -> None:
    """Forget a room's current state, before it is imported anew."""
    await tx.execute("DELETE FROM current_state WHERE room_nid = $1", room_nid)


async def log(tx: Transaction, room_nid: int, epoch: int, changes: Iterable[StateChange]) -> None:
    """Append to a room's state log."""
    await tx.execute_many(
        """INSERT INTO state_log (room_nid, epoch, key_nid, ver, event_nid, prev_event_nid)
           VALUES ($1, $2, $3, $4, $5, $6)""",
        [(room_nid, epoch, c.key_nid, c.ver, c.event_nid, c.prev_event_nid) for c in changes],
    )


async def value_at(r: Reader, room_nid: int, epoch: int, key: int, ver: int) -> int:
    """The value of one key at a version: ``event_nid`` or ``NO_EVENT``."""
    nid: int | None = await r.fetch_value(
        """SELECT event_nid FROM state_log WHERE room_nid = $1 AND epoch = $2 AND key_nid = $3 AND ver <= $4
           ORDER BY ver DESC LIMIT 1""",
        room_nid,
        epoch,
        key,
        ver,
    )
    return nid or NO_EVENT


async def history_of(r: Reader, room_nid: int, epoch: int, key: int) -> list[tuple[int, int]]:
    """Every ``(ver, event_nid)`` a key has had, oldest first."""
    rows = await r.fetch(
        """SELECT ver, event_nid FROM state_log
           WHERE room_nid = $1 AND epoch = $2 AND key_nid = $3 ORDER BY ver""",
        room_nid,
        epoch,
        key,
    )
    return [(row[0], row[1]) for row in rows]


async def changes(r: Reader, room_nid: int, epoch: int, after: int, upto: int) -> list[StateChange]:
    """The log in ``(after, upto]``, in order of versions."""
    rows = await r.fetch(
        """SELECT key_nid, ver, event_nid, prev_event_nid FROM state_log
           WHERE room_nid = $1 AND epoch = $2 AND ver > $3 AND ver <= $4 ORDER BY ver""",
        room_nid,
        epoch,
        after,
        upto,
    )
    return [StateChange(*row) for row in rows]


async def newest_changes(r: Reader, room_nid: int, epoch: int, limit: int) -> list[StateChange]:
    """The last ``limit`` changes of the log, in order of versions."""
    rows = await r.fetch(
        """SELECT key_nid, ver, event_nid, prev_event_nid FROM state_log
           WHERE room_nid = $1 AND epoch = $2 ORDER BY ver DESC LIMIT $3""",
        room_nid,
        epoch,
        limit,
    )
    return [StateChange(*row) for row in reversed(rows)]


async def member_changes(
    r: Reader, room_nid: int, epoch: int, after: int, limit: int
) -> list[tuple[int, int]]:
    """``(event_nid, prev_event_nid)`` of the newest ``limit`` changes of memberships after a version."""
    rows = await r.fetch(
        """SELECT l.event_nid, l.prev_event_nid FROM state_log l JOIN state_keys k ON k.key_nid = l.key_nid
           WHERE l.room_nid = $1 AND l.epoch = $2 AND l.ver > $3 AND k.type = 'm.room.member'
           ORDER BY l.ver DESC LIMIT $4""",
        room_nid,
        epoch,
        after,
        limit,
    )
    return [(row[0], row[1]) for row in rows]


async def first_version(r: Reader, room_nid: int, epoch: int) -> int | None:
    """The version an epoch began with; ``None`` for an epoch that left no log."""
    ver: int | None = await r.fetch_value(
        "SELECT MIN(ver) FROM state_log WHERE room_nid = $1 AND epoch = $2", room_nid, epoch
    )
    return ver


async def add_checkpoint(tx: Transaction, room_nid: int, epoch: int, ver: int, state: dict[int, int]) -> None:
    """Store the whole state at a version."""
    flat = [number for entry in sorted(state.items()) for number in entry]
    await tx.execute(
        """INSERT INTO state_checkpoints (room_nid, epoch, ver, state) VALUES ($1, $2, $3, $4)
           ON CONFLICT (room_nid, epoch, ver) DO NOTHING""",
        room_nid,
        epoch,
        ver,
        zstandard.ZstdCompressor(level=6).compress(pack(flat)),
    )
    await tx.execute("UPDATE rooms SET checkpoint_ver = $2 WHERE room_nid = $1", room_nid, ver)


async def checkpoint_before(r: Reader, room_nid: int, epoch: int, ver: int) -> tuple[int, dict[int, int]]:
    """The newest checkpoint at or before a version: its version and state, ``(0, {})`` when there is none."""
    row = await r.fetch_row(
        """SELECT ver, state FROM state_checkpoints WHERE room_nid = $1 AND epoch = $2 AND ver <= $3
           ORDER BY ver DESC LIMIT 1""",
        room_nid,
        epoch,
        ver,
    )
    if row is None:
        return 0, {}
    flat = unpack(zstandard.ZstdDecompressor().decompress(row[1]))
    return row[0], dict(zip(flat[::2], flat[1::2], strict=True))


async def add_overlay(tx: Transaction, overlay: Overlay) -> None:
    """Store an overlay."""
    flat = [number for entry in overlay.diff for number in entry]
    await tx.execute(
        """INSERT INTO state_overlays (overlay_nid, room_nid, epoch, base_ver, parent, chain, hash, diff)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING""",
        overlay.nid,
        overlay.room_nid,
        overlay.epoch,
        overlay.base_ver,
        overlay.parent,
        overlay.chain,
        overlay.hash,
        pack(flat),
    )


_OVERLAY = "SELECT overlay_nid, room_nid, epoch, base_ver, parent, chain, hash, diff FROM state_overlays"


def _overlay(row: Row) -> Overlay:
    flat = unpack(row[7])
    nid, room_nid, epoch, base_ver, parent, chain, digest, _ = row
    diff = tuple(zip(flat[::2], flat[1::2], strict=True))
    return Overlay(nid, room_nid, epoch, base_ver, parent, chain, digest, diff)


async def overlay(r: Reader, nid: int) -> Overlay | None:
    """An overlay by its number."""
    row = await r.fetch_row(f"{_OVERLAY} WHERE overlay_nid = $1", nid)
    return _overlay(row) if row else None


async def overlay_by_hash(r: Reader, room_nid: int, digest: bytes) -> Overlay | None:
    """The overlay of a room that says the same, if there is one."""
    row = await r.fetch_row(f"{_OVERLAY} WHERE room_nid = $1 AND hash = $2", room_nid, digest)
    return _overlay(row) if row else None


async def count_changes(r: Reader, room_nid: int, epoch: int, after: int) -> int:
    """How many changes the log holds after a version."""
    count: int = await r.fetch_value(
        "SELECT COUNT(*) FROM state_log WHERE room_nid = $1 AND epoch = $2 AND ver > $3",
        room_nid,
        epoch,
        after,
    )
    return count
