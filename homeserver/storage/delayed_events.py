"""Events that are to be sent later, and for a while what became of them (MSC4140)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction


class DelayedEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as it was scheduled, with its outcome once it is finalised; times in milliseconds."""

    delay_id: str
    user_id: str
    room_id: str
    type: str
    #: ``None`` for a message event.
    state_key: str | None
    #: JSON.
    content: bytes
    delay_ms: int
    scheduled_at: int
    due_at: int
    origin_server_ts: int | None = None
    sticky_ms: int | None = None
    finalised_at: int | None = None
    event_id: str | None = None
    #: The standard error response of what kept it from being sent, as JSON.
    error: bytes | None = None

    @property
    def is_scheduled(self) -> bool:
        """Whether it is still to be sent."""
        return self.finalised_at is None


_COLUMNS = """delay_id, user_id, room_id, type, state_key, content, delay_ms, scheduled_at, due_at,
    origin_server_ts, sticky_ms, finalised_at, event_id, error"""


async def add(tx: Transaction, one: DelayedEvent) -> None:
    """Store a new one."""
    await tx.execute(
        f"""INSERT INTO delayed_events ({_COLUMNS})
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)""",
        *msgspec.structs.astuple(one),
    )


async def by_id(r: Reader, delay_id: str) -> DelayedEvent | None:
    """One of them, scheduled or finalised."""
    row = await r.fetch_row(f"SELECT {_COLUMNS} FROM delayed_events WHERE delay_id = $1", delay_id)
    return DelayedEvent(*row) if row else None


async def scheduled(r: Reader, user_id: str) -> list[DelayedEvent]:
    """What a user has scheduled, soonest first: not more than they are allowed to have."""
    rows = await r.fetch(
        f"""SELECT {_COLUMNS} FROM delayed_events
            WHERE user_id = $1 AND finalised_at IS NULL ORDER BY due_at, delay_id""",
        user_id,
    )
    return [DelayedEvent(*row) for row in rows]


async def load_of(r: Reader, user_id: str) -> tuple[int, int | None]:
    """How many events a user has scheduled, and when the next one of them is due."""
    row = await r.fetch_row(
        "SELECT COUNT(*), MIN(due_at) FROM delayed_events WHERE user_id = $1 AND finalised_at IS NULL",
        user_id,
    )
    return (row[0], row[1]) if row else (0, None)


async def finalised(
    r: Reader, user_id: str, before: tuple[int, str] | None, limit: int
) -> list[DelayedEvent]:
    """What became of a user's events, the latest first, from behind ``(finalised_at, delay_id)`` on."""
    at, delay_id = before or (2**62, "")
    rows = await r.fetch(
        f"""SELECT {_COLUMNS} FROM delayed_events
            WHERE user_id = $1 AND finalised_at IS NOT NULL
                AND (finalised_at < $2 OR (finalised_at = $2 AND delay_id < $3))
            ORDER BY finalised_at DESC, delay_id DESC LIMIT $4""",
        user_id,
        at,
        delay_id,
        limit,
    )
    return [DelayedEvent(*row) for row in rows]


async def by_ids(r: Reader, user_id: str, delay_ids: Sequence[str]) -> list[DelayedEvent]:
    """Those of a user's with these ids, scheduled or finalised."""
    rows = await r.fetch_in(
        f"SELECT {_COLUMNS} FROM delayed_events WHERE delay_id IN $1 AND user_id = $2", delay_ids, user_id
    )
    return [DelayedEvent(*row) for row in rows]


async def due(r: Reader, now: int, limit: int) -> list[DelayedEvent]:
    """Those whose time has come, in the order in which it came."""
    rows = await r.fetch(
        f"""SELECT {_COLUMNS} FROM delayed_events
            WHERE finalised_at IS NULL AND due_at <= $1 ORDER BY due_at, scheduled_at, delay_id LIMIT $2""",
        now,
        limit,
    )
    return [DelayedEvent(*row) for row in rows]


async def next_due(r: Reader) -> int | None:
    """When the next one is due."""
    at: int | None = await r.fetch_value("SELECT MIN(due_at) FROM delayed_events WHERE finalised_at IS NULL")
    return at


async def state_keys(r: Reader) -> list[tuple[str, str, str, str, str]]:
    """``(room_id, type, state_key, user_id, delay_id)`` of every state event that is scheduled."""
    rows = await r.fetch(
        """SELECT room_id, type, state_key, user_id, delay_id FROM delayed_events
           WHERE finalised_at IS NULL AND state_key IS NOT NULL"""
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in rows]


async def restart(tx: Transaction, delay_id: str, now: int) -> int:
    """Let the delay of a scheduled one begin again; how many that were."""
    return await tx.execute(
        """UPDATE delayed_events SET scheduled_at = $2, due_at = CAST($2 AS BIGINT) + delay_ms
           WHERE delay_id = $1 AND finalised_at IS NULL""",
        delay_id,
        now,
    )


async def finalise(
    tx: Transaction,
    delay_id: str,
    *,
    now: int,
    keep: int,
    event_id: str | None = None,
    error: bytes | None = None,
) -> int:
    """Note the outcome of a scheduled one; how many that were.

    Of the outcomes of one user the latest ``keep`` are kept.
    """
    changed = await tx.execute(
        """UPDATE delayed_events SET finalised_at = $2, event_id = $3, error = $4
           WHERE delay_id = $1 AND finalised_at IS NULL""",
        delay_id,
        now,
        event_id,
        error,
    )
    await tx.execute(
        """DELETE FROM delayed_events
           WHERE user_id = (SELECT user_id FROM delayed_events WHERE delay_id = $1)
               AND finalised_at IS NOT NULL AND finalised_at <= (
                   SELECT finalised_at FROM delayed_events
                   WHERE user_id = (SELECT user_id FROM delayed_events WHERE delay_id = $1)
                       AND finalised_at IS NOT NULL
                   ORDER BY finalised_at DESC LIMIT 1 OFFSET $2)""",
        delay_id,
        keep,
    )
    return changed


async def ids_of_events(r: Reader, user_id: str, event_ids: Sequence[str]) -> dict[str, str]:
    """The delay ids of those of the events that a user had scheduled, by event id."""
    rows = await r.fetch_in(
        "SELECT event_id, delay_id FROM delayed_events WHERE event_id IN $1 AND user_id = $2",
        event_ids,
        user_id,
    )
    return {row[0]: row[1] for row in rows}


async def senders(r: Reader) -> set[str]:
    """The users of whom a delayed event was sent that is remembered."""
    rows = await r.fetch("SELECT DISTINCT user_id FROM delayed_events WHERE event_id IS NOT NULL")
    return {row[0] for row in rows}


async def forget_finalised(tx: Transaction, before: int) -> int:
    """Forget outcomes from before a time; how many."""
    return await tx.execute("DELETE FROM delayed_events WHERE finalised_at < $1", before)


async def remove_all(tx: Transaction, user_id: str) -> None:
    """Forget what a user has scheduled, and what became of it."""
    await tx.execute("DELETE FROM delayed_events WHERE user_id = $1", user_id)
