"""What application services are still to be sent, and the rooms they publish for their networks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction


class ServiceRow(msgspec.Struct, frozen=True, gc=False):
    """How far a service has come; see the schema for the columns."""

    service_id: str
    txn_id: int
    pos: int
    devices_pos: int


class Queued(msgspec.Struct, frozen=True, gc=False):
    """An event for a service: one of a timeline, or (``event_nid`` 0) the JSON of another."""

    service_id: str
    pos: int
    event_nid: int
    json: bytes | None = None


class OnItsWay(msgspec.Struct, frozen=True, gc=False):
    """A transaction; ``body`` is its JSON."""

    service_id: str
    txn_id: int
    body: bytes


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A message that waits for a device; ``message`` is JSON."""

    user_id: str
    device_id: str
    pos: int
    message: str


async def keep_only(tx: Transaction, service_ids: Sequence[str], pos: int) -> None:
    """Forget all other services; those that are new begin at ``pos``."""
    known = [row[0] for row in await tx.fetch("SELECT service_id FROM appservices")]
    gone = [(service_id,) for service_id in known if service_id not in service_ids]
    for table in ("appservices", "appservice_events", "appservice_transactions", "appservice_rooms"):
        await tx.execute_many(f"DELETE FROM {table} WHERE service_id = $1", gone)
    await tx.execute_many(
        "INSERT INTO appservices (service_id, txn_id, pos, devices_pos) VALUES ($1, 0, $2, $2)",
        [(service_id, pos) for service_id in service_ids if service_id not in known],
    )


async def everyone(r: Reader) -> dict[str, ServiceRow]:
    """Every service by its id."""
    rows = await r.fetch("SELECT service_id, txn_id, pos, devices_pos FROM appservices")
    return {row[0]: ServiceRow(*row) for row in rows}


async def queue(tx: Transaction, events: Iterable[Queued], pos: int) -> None:
    """Queue events; everything up to ``pos`` has been looked at for every service."""
    await add(tx, events)
    await tx.execute("UPDATE appservices SET pos = $1 WHERE pos < $1", pos)


async def add(tx: Transaction, events: Iterable[Queued]) -> None:
    """Queue events."""
    await tx.execute_many(
        """INSERT INTO appservice_events (service_id, pos, event_nid, json) VALUES ($1, $2, $3, $4)
           ON CONFLICT (service_id, pos) DO NOTHING""",
        [(event.service_id, event.pos, event.event_nid, event.json) for event in events],
    )


async def queued(r: Reader, service_id: str, limit: int) -> list[Queued]:
    """The oldest events in a service's queue."""
    rows = await r.fetch(
        """SELECT service_id, pos, event_nid, json FROM appservice_events
           WHERE service_id = $1 ORDER BY pos LIMIT $2""",
        service_id,
        limit,
    )
    return [Queued(*row) for row in rows]


async def on_its_way(r: Reader, service_id: str) -> OnItsWay | None:
    """The transaction that a service has not acknowledged."""
    row = await r.fetch_row(
        "SELECT service_id, txn_id, body FROM appservice_transactions WHERE service_id = $1", service_id
    )
    return OnItsWay(*row) if row else None


async def send(
    tx: Transaction,
    transaction: OnItsWay,
    *,
    events: Sequence[Queued],
    messages: Sequence[Waiting],
    devices_pos: int,
) -> None:
    """Store a transaction, and take what it is made of out of the queues."""
    service_id = transaction.service_id
    await tx.execute(
        "INSERT INTO appservice_transactions (service_id, txn_id, body) VALUES ($1, $2, $3)",
        service_id,
        transaction.txn_id,
        transaction.body,
    )
    await tx.execute(
        "UPDATE appservices SET txn_id = $2, devices_pos = $3 WHERE service_id = $1",
        service_id,
        transaction.txn_id,
        devices_pos,
    )
    await tx.execute_many(
        "DELETE FROM appservice_events WHERE service_id = $1 AND pos = $2",
        [(service_id, event.pos) for event in events],
    )
    await tx.execute_many(
        "DELETE FROM to_device WHERE user_id = $1 AND device_id = $2 AND pos = $3",
        [(message.user_id, message.device_id, message.pos) for message in messages],
    )


async def arrived(tx: Transaction, service_id: str, txn_id: int) -> None:
    """A service has acknowledged a transaction."""
    await tx.execute(
        "DELETE FROM appservice_transactions WHERE service_id = $1 AND txn_id = $2", service_id, txn_id
    )


async def newest_event_pos(r: Reader) -> int:
    """The position of the newest event of any room."""
    return await r.fetch_value("SELECT MAX(last_pos) FROM rooms") or 0


async def events_between(r: Reader, after: int, upto: int) -> list[tuple[int, int, int]]:
    """``(pos, event_nid, room_nid)`` of the timeline events of all rooms in ``(after, upto]``, oldest first.

    Soft-failed and rejected ones are left out.  To be asked for few positions at a time.
    """
    rows = await r.fetch(
        """SELECT e.pos, e.event_nid, e.room_nid FROM rooms r
           JOIN events e ON e.room_nid = r.room_nid AND e.pos > $1 AND e.pos <= $2
           WHERE r.last_pos > $1 AND e.flags & 3 = 0 ORDER BY e.pos""",
        after,
        upto,
    )
    return [(row[0], row[1], row[2]) for row in rows]


async def local_members(r: Reader, room_nid: int) -> list[tuple[str, bool, int]]:
    """``(user_id, joined, pos)`` of every local user who has to do with a room: what they are since when."""
    rows = await r.fetch(
        "SELECT user_id, membership, pos FROM local_memberships WHERE room_nid = $1", room_nid
    )
    return [(row[0], row[1] == 1, row[2]) for row in rows]


async def waiting_users(r: Reader) -> list[str]:
    """Whose devices have messages waiting."""
    return [row[0] for row in await r.fetch("SELECT DISTINCT user_id FROM to_device")]


async def waiting(r: Reader, user_ids: Sequence[str], upto: int, limit: int) -> list[Waiting]:
    """The oldest messages at or before a position that wait for devices of some users."""
    rows = await r.fetch_in(
        """SELECT user_id, device_id, pos, message FROM to_device
           WHERE user_id IN $1 AND pos <= $2 ORDER BY pos, user_id, device_id LIMIT $3""",
        user_ids,
        upto,
        limit,
    )
    return [Waiting(*row) for row in rows]


async def device_list_changes(r: Reader, after: int, upto: int, limit: int) -> list[tuple[str, int]]:
    """``(user_id, pos)`` of users, here and elsewhere, whose keys changed in ``(after, upto]``."""
    rows = await r.fetch(
        "SELECT user_id, pos FROM device_lists WHERE pos > $1 AND pos <= $2 ORDER BY pos LIMIT $3",
        after,
        upto,
        limit,
    )
    return [(row[0], row[1]) for row in rows]


async def publish(
    tx: Transaction, service_id: str, network_id: str, room_nid: int, *, published: bool
) -> None:
    """List a room among those of a network, or take it out."""
    sql = (
        """INSERT INTO appservice_rooms (service_id, network_id, room_nid) VALUES ($1, $2, $3)
           ON CONFLICT (service_id, network_id, room_nid) DO NOTHING"""
        if published
        else "DELETE FROM appservice_rooms WHERE service_id = $1 AND network_id = $2 AND room_nid = $3"
    )
    await tx.execute(sql, service_id, network_id, room_nid)
