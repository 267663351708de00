"""Which threads were spoken in, in several rooms at once (MSC4360); the index is ``relations``'."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.protocol.relations import THREAD
from homeserver.storage.database import Reader
from homeserver.storage.relations import Between


class LastWord(msgspec.Struct, frozen=True, gc=False):
    """The newest event of one sender in one thread."""

    room_nid: int
    root_id: str
    sender: str
    pos: int


async def last_words(r: Reader, room_nids: Sequence[int], page: Between) -> list[LastWord]:
    """What was said in threads of some rooms, the newest first: each sender's last."""
    rows = await r.fetch_in(
        """SELECT room_nid, root_id, sender, latest_pos FROM threads
           WHERE room_nid IN $1 AND latest_pos > $2 AND latest_pos <= $3
           ORDER BY latest_pos DESC LIMIT $4""",
        room_nids,
        page.low,
        page.high,
        page.limit,
    )
    return [LastWord(*row) for row in rows]


async def spoken_in_after(
    r: Reader, room_nid: int, root_ids: Sequence[str], pos: int
) -> list[tuple[str, str]]:
    """``(root_id, sender)`` of who has said something in some threads of a room after a position."""
    rows = await r.fetch_in(
        """SELECT root_id, sender FROM threads
           WHERE root_id IN $1 AND room_nid = $2 AND latest_pos > $3""",
        root_ids,
        room_nid,
        pos,
    )
    return [(row[0], row[1]) for row in rows]


async def with_earlier(r: Reader, room_nid: int, root_ids: Sequence[str], page: Between) -> set[str]:
    """Those of some threads of a room in which more than one thing was said, on a page of the timeline."""
    rows = await r.fetch_in(
        f"""SELECT DISTINCT t.root_id FROM threads t
            WHERE t.root_id IN $1 AND t.room_nid = $2 AND t.latest_pos <= $4 AND EXISTS (
                SELECT 1 FROM relations c WHERE c.room_nid = t.room_nid AND c.parent_id = t.root_id
                AND c.rel_type = '{THREAD}' AND c.pos > $3 AND c.pos < t.latest_pos)""",
        root_ids,
        room_nid,
        page.low,
        page.high,
    )
    return {row[0] for row in rows}


async def spoken_between(
    r: Reader, room_nid: int, root_ids: Sequence[str], after: int, upto: int
) -> set[str]:
    """Those of some threads of a room in which something was said in ``(after, upto]``."""
    rows = await r.fetch_in(
        f"""SELECT DISTINCT t.root_id FROM threads t
            WHERE t.root_id IN $1 AND t.room_nid = $2 AND EXISTS (
                SELECT 1 FROM relations c WHERE c.room_nid = t.room_nid AND c.parent_id = t.root_id
                AND c.rel_type = '{THREAD}' AND c.pos > $3 AND c.pos <= $4)""",
        root_ids,
        room_nid,
        after,
        upto,
    )
    return {row[0] for row in rows}
