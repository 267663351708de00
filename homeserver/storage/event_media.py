"""Which events name which media of this server, and what is to be done about media that none names.

Rows are of events that were not rejected, outliers among them, as long as they are neither redacted
nor purged, and of media that was there when the event came.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from homeserver.protocol.media_names import media_named
from homeserver.storage.database import Reader, Transaction
from homeserver.storage.event_json import decode_event_json
from homeserver.storage.events import REJECTED, StoredEvent

#: ``due`` of media that events name: it is looked at when one of them goes.
_NEVER = 1 << 62


class Naming(msgspec.Struct, frozen=True, gc=False):
    """An event names some media."""

    event_nid: int
    media_id: str
    sender: str


class _Sent(msgspec.Struct, gc=False):
    sender: str


_decode_sent = msgspec.json.Decoder(_Sent).decode


def names_in(events: Iterable[StoredEvent], server_name: str) -> list[Naming]:
    """What events name of a server's media; those that were rejected name nothing."""
    return [
        Naming(one.nid, media_id, one.event.sender)
        for one in events
        if not one.rejected
        for media_id in media_named(one.event.json, server_name)
    ]


async def add(tx: Transaction, names: Sequence[Naming]) -> None:
    """Put them into the index, as far as there is such media; what is there already stays."""
    if names:
        await tx.execute_many(
            """INSERT INTO event_media (event_nid, media_id, sender)
               SELECT CAST($1 AS BIGINT), media_id, CAST($3 AS TEXT) FROM local_media WHERE media_id = $2
               ON CONFLICT DO NOTHING""",
            [(name.event_nid, name.media_id, name.sender) for name in names],
        )


async def remove(tx: Transaction, nids: Sequence[int]) -> None:
    """Events name nothing any more.  What they named is looked at, if its uploader ever let go of it.

    That one event of the uploader named it is asked for so that nobody can have media deleted
    that others use where no server sees it, in encrypted messages, by naming it once more.
    """
    rows = await tx.fetch_in(
        """SELECT e.media_id, CASE WHEN m.user_id = e.sender THEN 1 ELSE 0 END
           FROM event_media e JOIN local_media m ON m.media_id = e.media_id WHERE e.event_nid IN $1""",
        nids,
    )
    if not rows:
        return
    await tx.execute_many(
        "INSERT INTO forsaken_media (media_id, due) VALUES ($1, 0) ON CONFLICT DO NOTHING",
        [(media_id,) for media_id, by_uploader in rows if by_uploader],
    )
    await tx.execute_many(
        "UPDATE forsaken_media SET due = 0 WHERE media_id = $1", [(row[0],) for row in rows]
    )
    await tx.execute_many("DELETE FROM event_media WHERE event_nid = $1", [(nid,) for nid in nids])


async def fill(tx: Transaction, server_name: str, limit: int) -> bool:
    """Look at the next ``limit`` numbers of events that were stored before there was the index.

    Newest first.  Whether there is more to do.
    """
    upto: int = await tx.fetch_value("SELECT MAX(upto) FROM event_media_fill") or 0
    if upto <= 0:
        return False
    rows = await tx.fetch(
        f"""SELECT e.event_nid, j.json FROM events e JOIN event_json j ON j.event_nid = e.event_nid
            WHERE e.event_nid > $1 AND e.event_nid <= $2 AND e.flags & {REJECTED} = 0""",
        upto - limit,
        upto,
    )
    names = []
    for nid, compressed in rows:
        json = decode_event_json(compressed)
        if media_ids := media_named(json, server_name):
            sender = _decode_sent(json).sender
            names += [Naming(nid, media_id, sender) for media_id in media_ids]
    await add(tx, names)
    await tx.execute("UPDATE event_media_fill SET upto = $1", max(0, upto - limit))
    return upto > limit


async def is_filled(r: Reader) -> bool:
    """Whether every event is in the index that belongs there."""
    return not await r.fetch_value("SELECT MAX(upto) FROM event_media_fill")


async def named(r: Reader, media_ids: Sequence[str]) -> set[str]:
    """Those of some media that an event names."""
    rows = await r.fetch_in("SELECT DISTINCT media_id FROM event_media WHERE media_id IN $1", media_ids)
    return {row[0] for row in rows}


async def forsaken(r: Reader, now: int, limit: int) -> list[str]:
    """Media that is to be looked at by now."""
    rows = await r.fetch(
        "SELECT media_id FROM forsaken_media WHERE due <= $1 ORDER BY due, media_id LIMIT $2", now, limit
    )
    return [row[0] for row in rows]


async def named_by_accounts(r: Reader, server_name: str, media_ids: Collection[str]) -> set[str]:
    """Those of some media that are avatars, or named elsewhere in profiles or in account data.

    Reads through both tables.
    """
    avatars = await r.fetch_in(
        "SELECT value FROM profiles WHERE value IN $1",
        [f'"mxc://{server_name}/{media_id}"' for media_id in media_ids],
    )
    others = await r.fetch(
        """SELECT value FROM profiles WHERE field NOT IN ('avatar_url', 'displayname') AND value LIKE $1
           UNION ALL SELECT content FROM account_data WHERE content LIKE $1""",
        f"%mxc://{server_name}/%",
    )
    found = [media_named(row[0].encode(), server_name) for row in (*avatars, *others)]
    return set(media_ids) & set[str]().union(*found)


async def let_go(tx: Transaction, media_ids: Sequence[str]) -> None:
    """Forget media that no event names; its files are to be deleted.  What is named is kept."""
    kept = await named(tx, media_ids)
    gone = [(media_id,) for media_id in media_ids if media_id not in kept]
    await tx.execute_many(
        """INSERT INTO discarded_files (file_id)
           SELECT file_id FROM local_media WHERE media_id = $1 AND file_id IS NOT NULL
           ON CONFLICT DO NOTHING""",
        gone,
    )
    await tx.execute_many("DELETE FROM local_media WHERE media_id = $1", gone)
    await tx.execute_many("DELETE FROM forsaken_media WHERE media_id = $1", gone)
    await put_off(tx, kept, _NEVER)


async def put_off(tx: Transaction, media_ids: Iterable[str], due: int) -> None:
    """Look at forsaken media later."""
    await tx.execute_many(
        "UPDATE forsaken_media SET due = $2 WHERE media_id = $1", [(each, due) for each in media_ids]
    )


async def discarded(r: Reader, limit: int) -> list[str]:
    """Files that are still to be deleted."""
    return [row[0] for row in await r.fetch("SELECT file_id FROM discarded_files LIMIT $1", limit)]


async def forget_discarded(tx: Transaction, file_ids: Iterable[str]) -> None:
    """Files are deleted."""
    await tx.execute_many("DELETE FROM discarded_files WHERE file_id = $1", [(each,) for each in file_ids])
