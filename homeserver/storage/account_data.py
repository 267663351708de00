"""Account data: what clients keep for their user, globally (empty room id) or for a room."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction

#: The room id of global account data.
GLOBAL = ""

#: What is left of a deleted type, so that those who know it hear of its end (MSC3391).
DELETED = "{}"

_IS_THERE = f"AND content <> '{DELETED}'"


class AccountDatum(msgspec.Struct, frozen=True, gc=False):
    """One piece of account data; ``room_id`` is ``GLOBAL`` where it belongs to no room."""

    room_id: str
    type: str
    #: A JSON object.
    content: str
    #: The stream position of its last change.
    pos: int

    @property
    def is_there(self) -> bool:
        """False for what was deleted, of which clients that know nothing yet are not told."""
        return self.content != DELETED


async def content(r: Reader, user_id: str, room_id: str, type_: str) -> str | None:
    """The content of one type, as JSON."""
    text: str | None = await r.fetch_value(
        "SELECT content FROM account_data WHERE user_id = $1 AND room_id = $2 AND type = $3",
        user_id,
        room_id,
        type_,
    )
    return text


async def contents(r: Reader, user_id: str, room_id: str, types: Sequence[str]) -> dict[str, str]:
    """The contents of several types, as JSON, by type; those that are not there left out."""
    rows = await r.fetch_in(
        "SELECT type, content FROM account_data WHERE type IN $1 AND user_id = $2 AND room_id = $3",
        list(types),
        user_id,
        room_id,
    )
    return {row[0]: row[1] for row in rows}


async def of_user(r: Reader, user_id: str) -> list[AccountDatum]:
    """Everything a user keeps, oldest change first."""
    return await changed(r, user_id, since=0)


async def changed(r: Reader, user_id: str, since: int, until: int = 2**62) -> list[AccountDatum]:
    """What changed after position ``since``, up to and with ``until``, oldest change first.

    Who knows nothing yet (``since`` 0) is not told of what was deleted.
    """
    rows = await r.fetch(
        f"""
        SELECT room_id, type, content, pos FROM account_data
        WHERE user_id = $1 AND pos > $2 AND pos <= $3 {"" if since else _IS_THERE} ORDER BY pos
        """,
        user_id,
        since,
        until,
    )
    return [AccountDatum(*row) for row in rows]


async def of_rooms(r: Reader, user_id: str, room_ids: Sequence[str], until: int) -> list[AccountDatum]:
    """What a user keeps for some rooms, ``GLOBAL`` among them or not, that is not newer than that.

    What was deleted is among it.
    """
    rows = await r.fetch_in(
        """
        SELECT room_id, type, content, pos FROM account_data
        WHERE room_id IN $1 AND user_id = $2 AND pos <= $3 ORDER BY pos
        """,
        room_ids,
        user_id,
        until,
    )
    return [AccountDatum(*row) for row in rows]


async def set_content(
    tx: Transaction, user_id: str, room_id: str, type_: str, *, content_json: str, pos: int
) -> None:
    """Set the content of one type, changed at ``pos``."""
    await tx.execute(
        """
        INSERT INTO account_data (user_id, room_id, type, content, pos) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (user_id, room_id, type) DO UPDATE SET content = excluded.content, pos = excluded.pos
        """,
        user_id,
        room_id,
        type_,
        content_json,
        pos,
    )


async def remove_all(tx: Transaction, user_id: str) -> None:
    """Forget everything a user kept."""
    await tx.execute("DELETE FROM account_data WHERE user_id = $1", user_id)
