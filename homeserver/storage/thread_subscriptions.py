"""Which threads users are subscribed to, and where in the stream that changed (MSC4306, MSC4308)."""

from __future__ import annotations

import msgspec

from homeserver.storage.database import Reader, Row, Transaction


class Subscription(msgspec.Struct, frozen=True, gc=False):
    """What a user has said of one thread; they may have ended it."""

    room_nid: int
    root_id: str
    subscribed: bool
    #: Made by a client for the user, not by the user.
    automatic: bool
    #: The stream position of the last change.
    pos: int
    #: Where in the stream the user last said that they do not want it.
    unsubscribed_at: int | None = None


_COLUMNS = "room_nid, root_id, subscribed, automatic, pos, unsubscribed_at"


async def find(r: Reader, user_id: str, room_nid: int, root_id: str) -> Subscription | None:
    """What a user has said of a thread; ``None`` for nothing."""
    row = await r.fetch_row(
        f"""SELECT {_COLUMNS} FROM thread_subscriptions
            WHERE user_id = $1 AND room_nid = $2 AND root_id = $3""",
        user_id,
        room_nid,
        root_id,
    )
    return None if row is None else _subscription(row)


async def put(tx: Transaction, user_id: str, subscription: Subscription) -> None:
    """Put what a user says of a thread in the place of what they said before."""
    await tx.execute(
        f"""INSERT INTO thread_subscriptions (user_id, {_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7)
            ON CONFLICT (user_id, room_nid, root_id) DO UPDATE SET
                subscribed = excluded.subscribed, automatic = excluded.automatic, pos = excluded.pos,
                unsubscribed_at = excluded.unsubscribed_at""",
        user_id,
        subscription.room_nid,
        subscription.root_id,
        int(subscription.subscribed),
        int(subscription.automatic),
        subscription.pos,
        subscription.unsubscribed_at,
    )


async def roots_in(r: Reader, user_id: str, room_nid: int, limit: int) -> list[str]:
    """The roots of a room's threads that a user is subscribed to; those that changed last, if not all."""
    rows = await r.fetch(
        """SELECT root_id FROM thread_subscriptions
           WHERE user_id = $1 AND room_nid = $2 AND subscribed = 1 ORDER BY pos DESC LIMIT $3""",
        user_id,
        room_nid,
        limit,
    )
    return [row[0] for row in rows]


async def changed(
    r: Reader, user_id: str, after: int, upto: int, limit: int
) -> list[tuple[str, Subscription]]:
    """``(room_id, subscription)`` of what changed in ``(after, upto]``, the newest change first."""
    rows = await r.fetch(
        """SELECT o.room_id, s.room_nid, s.root_id, s.subscribed, s.automatic, s.pos, s.unsubscribed_at
           FROM thread_subscriptions s JOIN rooms o ON o.room_nid = s.room_nid
           WHERE s.user_id = $1 AND s.pos > $2 AND s.pos <= $3 ORDER BY s.pos DESC LIMIT $4""",
        user_id,
        after,
        upto,
        limit,
    )
    return [(row[0], _subscription(row[1:])) for row in rows]


async def remove_all(tx: Transaction, user_id: str) -> None:
    """Forget everything a user said of threads."""
    await tx.execute("DELETE FROM thread_subscriptions WHERE user_id = $1", user_id)


def _subscription(row: Row) -> Subscription:
    room_nid, root_id, subscribed, automatic, pos, unsubscribed_at = row
    return Subscription(room_nid, root_id, bool(subscribed), bool(automatic), pos, unsubscribed_at)
