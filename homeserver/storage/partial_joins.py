"""Rooms joined with a part of their state, and the events that have to be decided again.

``rooms/partial.py`` says what that means.
"""

from __future__ import annotations

import msgspec

from homeserver.storage.database import Reader, Transaction


class PartialJoin(msgspec.Struct, frozen=True, gc=False):
    """A join whose state is not whole yet."""

    join_nid: int
    #: The server that let this one in.
    resident: str
    #: How many events have been taken in since, the join counted.
    received: int


class PartialEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that was taken in while the state was not whole."""

    event_nid: int
    #: The server to ask for the state before it, where what it builds on is not here.
    origin: str | None


async def add(tx: Transaction, room_nid: int, join_nid: int, resident: str) -> None:
    """Remember a join with a part of the state."""
    await remove(tx, room_nid)
    await tx.execute(
        "INSERT INTO partial_joins (room_nid, join_nid, resident) VALUES ($1, $2, $3)",
        room_nid,
        join_nid,
        resident,
    )


async def remove(tx: Transaction, room_nid: int) -> None:
    """Forget a partial join: it is complete, or this server has left."""
    await tx.execute("DELETE FROM partial_joins WHERE room_nid = $1", room_nid)
    await tx.execute("DELETE FROM partial_events WHERE room_nid = $1", room_nid)


async def complete(tx: Transaction, room_nid: int, pos: int, old_epoch: int) -> None:
    """The state is whole from a position on; what the log said meanwhile is forgotten."""
    await remove(tx, room_nid)
    await tx.execute(
        "UPDATE rooms SET full_since = $2, checkpoint_ver = 0 WHERE room_nid = $1", room_nid, pos
    )
    await tx.execute("DELETE FROM state_log WHERE room_nid = $1 AND epoch = $2", room_nid, old_epoch)
    await tx.execute("DELETE FROM state_checkpoints WHERE room_nid = $1 AND epoch = $2", room_nid, old_epoch)


async def of_room(r: Reader, room_nid: int) -> PartialJoin | None:
    """The partial join of a room; ``None`` for a room with its whole state."""
    row = await r.fetch_row("SELECT join_nid, resident FROM partial_joins WHERE room_nid = $1", room_nid)
    if row is None:
        return None
    last = await r.fetch_value("SELECT MAX(number) FROM partial_events WHERE room_nid = $1", room_nid)
    return PartialJoin(row[0], row[1], 0 if last is None else last + 1)


async def rooms(r: Reader) -> list[str]:
    """The ids of the rooms whose state is not whole."""
    rows = await r.fetch(
        "SELECT r.room_id FROM partial_joins p JOIN rooms r ON r.room_nid = p.room_nid ORDER BY p.room_nid"
    )
    return [row[0] for row in rows]


async def add_event(tx: Transaction, room_nid: int, number: int, event_nid: int, origin: str | None) -> None:
    """Remember an event to be decided again; ``number`` counts them."""
    await tx.execute(
        "INSERT INTO partial_events (room_nid, number, event_nid, origin) VALUES ($1, $2, $3, $4)",
        room_nid,
        number,
        event_nid,
        origin,
    )


async def events(r: Reader, room_nid: int) -> list[PartialEvent]:
    """The events to be decided again, in the order they were taken in."""
    rows = await r.fetch(
        "SELECT event_nid, origin FROM partial_events WHERE room_nid = $1 ORDER BY number", room_nid
    )
    return [PartialEvent(row[0], row[1]) for row in rows]
