"""Pushers: where people want to be told of notifications, and how far each one is."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from homeserver.storage.database import Reader, Row, Transaction

HTTP = "http"
EMAIL = "email"


class Pusher(msgspec.Struct, frozen=True, gc=False):
    """One pusher."""

    user_id: str
    app_id: str
    pushkey: str
    kind: str
    device_id: str
    app_display_name: str
    device_display_name: str
    profile_tag: str | None
    lang: str
    #: A JSON object.
    data: str
    #: Seconds since the epoch.
    pushkey_ts: int
    #: Everything up to here has been pushed.
    pos: int
    behind: bool = False
    #: Milliseconds since the epoch; 0 for one that works.
    failing_since: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others."""
        return self.user_id, self.app_id, self.pushkey


class MailedRoom(msgspec.Struct, frozen=True, gc=False):
    """When a room last made mail for somebody, and how long it has to wait for its next, in ms."""

    room_nid: int
    mailed_at: int
    pause_ms: int


_PUSHER = """
    SELECT user_id, app_id, pushkey, kind, device_id, app_display_name, device_display_name, profile_tag,
           lang, data, pushkey_ts, pos, behind, failing_since
    FROM pushers
"""


def _pusher(row: Row) -> Pusher:
    values = list(row)
    values[12] = bool(values[12])
    return Pusher(*values)


async def put(tx: Transaction, pusher: Pusher) -> None:
    """Store a pusher; one that is there keeps how far it is."""
    await tx.execute(
        """INSERT INTO pushers (user_id, app_id, pushkey, kind, device_id, app_display_name,
                                device_display_name, profile_tag, lang, data, pushkey_ts, pos)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
           ON CONFLICT (user_id, app_id, pushkey) DO UPDATE SET
               kind = excluded.kind, device_id = excluded.device_id,
               app_display_name = excluded.app_display_name,
               device_display_name = excluded.device_display_name, profile_tag = excluded.profile_tag,
               lang = excluded.lang, data = excluded.data, pushkey_ts = excluded.pushkey_ts""",
        pusher.user_id,
        pusher.app_id,
        pusher.pushkey,
        pusher.kind,
        pusher.device_id,
        pusher.app_display_name,
        pusher.device_display_name,
        pusher.profile_tag,
        pusher.lang,
        pusher.data,
        pusher.pushkey_ts,
        pusher.pos,
    )


async def of_user(r: Reader, user_id: str) -> list[Pusher]:
    """A user's pushers."""
    rows = await r.fetch(f"{_PUSHER} WHERE user_id = $1 ORDER BY app_id, pushkey", user_id)
    return [_pusher(row) for row in rows]


async def everyone(r: Reader) -> list[Pusher]:
    """All pushers."""
    return [_pusher(row) for row in await r.fetch(_PUSHER)]


async def remove(tx: Transaction, user_id: str, app_id: str, pushkey: str) -> None:
    """Remove a pusher, if it is there."""
    await tx.execute(
        "DELETE FROM pushers WHERE user_id = $1 AND app_id = $2 AND pushkey = $3", user_id, app_id, pushkey
    )
    await _forget_mail(tx, user_id)


async def remove_of_others(tx: Transaction, user_id: str, app_id: str, pushkey: str) -> list[str]:
    """Remove other users' pushers with the same key; whose they were."""
    rows = await tx.fetch(
        "SELECT user_id FROM pushers WHERE app_id = $2 AND pushkey = $3 AND user_id <> $1",
        user_id,
        app_id,
        pushkey,
    )
    await tx.execute(
        "DELETE FROM pushers WHERE app_id = $2 AND pushkey = $3 AND user_id <> $1", user_id, app_id, pushkey
    )
    others = [row[0] for row in rows]
    for other in others:
        await _forget_mail(tx, other)
    return others


async def remove_of_devices(tx: Transaction, user_id: str, device_ids: Collection[str]) -> None:
    """Remove the pushers that devices made for themselves; mail is for the person, and stays."""
    for device_id in device_ids:
        await tx.execute(
            "DELETE FROM pushers WHERE user_id = $1 AND device_id = $2 AND kind = $3",
            user_id,
            device_id,
            HTTP,
        )


async def remove_all(tx: Transaction, user_id: str) -> None:
    """Remove all pushers of a user."""
    await tx.execute("DELETE FROM pushers WHERE user_id = $1", user_id)
    await _forget_mail(tx, user_id)


async def users_in(r: Reader, room_nid: int) -> list[str]:
    """The users with pushers who are joined to a room."""
    rows = await r.fetch(
        """SELECT m.user_id FROM local_memberships m
           WHERE m.room_nid = $1 AND m.membership = 1
             AND EXISTS (SELECT 1 FROM pushers p WHERE p.user_id = m.user_id)""",
        room_nid,
    )
    return [row[0] for row in rows]


async def rooms_with_news(r: Reader, since: int) -> list[tuple[str, int]]:
    """``(user_id, room_nid)`` of the users with pushers and their rooms that have events after ``since``."""
    rows = await r.fetch(
        """SELECT m.user_id, m.room_nid FROM rooms o
           JOIN local_memberships m ON m.room_nid = o.room_nid AND m.membership = 1
           WHERE o.last_pos > $1 AND EXISTS (SELECT 1 FROM pushers p WHERE p.user_id = m.user_id)""",
        since,
    )
    return [(row[0], row[1]) for row in rows]


async def invited_since(r: Reader, since: int) -> list[str]:
    """The users with pushers who were invited somewhere after a position."""
    rows = await r.fetch(
        """SELECT DISTINCT p.user_id FROM pushers p JOIN local_memberships m ON m.user_id = p.user_id
           WHERE m.membership = 2 AND m.pos > $1""",
        since,
    )
    return [row[0] for row in rows]


async def rooms_with_unread(r: Reader, user_id: str) -> list[int]:
    """The joined rooms of a user with events after their unthreaded receipts: no others have unread ones."""
    rows = await r.fetch(
        """SELECT m.room_nid FROM local_memberships m JOIN rooms o ON o.room_nid = m.room_nid
           WHERE m.user_id = $1 AND m.membership = 1 AND o.last_pos > COALESCE(
               (SELECT MAX(t.event_pos) FROM receipts t
                WHERE t.room_nid = m.room_nid AND t.user_id = $1 AND t.thread_id = ''), 0)""",
        user_id,
    )
    return [row[0] for row in rows]


async def position(r: Reader) -> int | None:
    """The position of all pushers that are not behind; ``None`` before it was stored first."""
    pos: int | None = await r.fetch_value("SELECT pos FROM push_position WHERE id = 1")
    return pos


async def store_position(tx: Transaction, pos: int, moved: Iterable[tuple[Pusher, int, bool]]) -> None:
    """Store the position of all pushers, and of some their own and whether they are behind."""
    await tx.execute(
        """INSERT INTO push_position (id, pos) VALUES (1, $1)
           ON CONFLICT (id) DO UPDATE SET pos = excluded.pos""",
        pos,
    )
    await tx.execute_many(
        """UPDATE pushers SET pos = $4, behind = $5
           WHERE user_id = $1 AND app_id = $2 AND pushkey = $3""",
        [(*pusher.key, own, int(behind)) for pusher, own, behind in moved],
    )


async def advance(tx: Transaction, pusher: Pusher, pos: int, failing_since: int) -> None:
    """Store how far one pusher is, and since when it fails."""
    await tx.execute(
        """UPDATE pushers SET pos = $4, failing_since = $5
           WHERE user_id = $1 AND app_id = $2 AND pushkey = $3""",
        *pusher.key,
        pos,
        failing_since,
    )


async def mailed_rooms(r: Reader, user_id: str, pushkey: str) -> dict[int, MailedRoom]:
    """When rooms made mail for somebody, by room."""
    rows = await r.fetch(
        "SELECT room_nid, mailed_at, pause_ms FROM mailed_rooms WHERE user_id = $1 AND pushkey = $2",
        user_id,
        pushkey,
    )
    return {row[0]: MailedRoom(*row) for row in rows}


async def set_mailed(tx: Transaction, user_id: str, pushkey: str, rooms: Sequence[MailedRoom]) -> None:
    """Note that rooms made mail."""
    await tx.execute_many(
        """INSERT INTO mailed_rooms (user_id, pushkey, room_nid, mailed_at, pause_ms)
           VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (user_id, pushkey, room_nid) DO UPDATE SET
               mailed_at = excluded.mailed_at, pause_ms = excluded.pause_ms""",
        [(user_id, pushkey, room.room_nid, room.mailed_at, room.pause_ms) for room in rooms],
    )


async def _forget_mail(tx: Transaction, user_id: str) -> None:
    """Forget what was mailed by pushers that are gone."""
    await tx.execute(
        """DELETE FROM mailed_rooms WHERE user_id = $1 AND NOT EXISTS (
               SELECT 1 FROM pushers p
               WHERE p.user_id = mailed_rooms.user_id AND p.pushkey = mailed_rooms.pushkey)""",
        user_id,
    )
