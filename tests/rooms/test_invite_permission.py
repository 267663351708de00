"""What is remembered of whose invites somebody wants."""

from __future__ import annotations

import asyncio
from typing import Any

from homeserver.rooms.invite_permission import InvitePermissions
from homeserver.storage import account_data
from homeserver.storage.database import Database

BOB, MALLORY = "@bob:a.org", "@mallory:b.org"


class HeldReads:
    """A database whose answers are on their way until they are let go."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.on_their_way = asyncio.Event()
        self.let_go = asyncio.Event()

    @property
    def read(self) -> HeldReads:
        return self

    async def fetch_in(self, sql: str, *values: Any) -> Any:
        rows = await self._db.read.fetch_in(sql, *values)
        self.on_their_way.set()
        await self.let_go.wait()
        return rows


async def test_a_wish_that_comes_while_wishes_are_read_counts_from_then_on(database: Database) -> None:
    held = HeldReads(database)
    permissions = InvitePermissions(held)  # type: ignore[arg-type]
    before = asyncio.create_task(permissions.shows(BOB, MALLORY))
    async with asyncio.timeout(10):
        await held.on_their_way.wait()
        ignored = f'{{"ignored_users": {{"{MALLORY}": {{}}}}}}'
        await database.write(
            lambda tx: account_data.set_content(
                tx, BOB, account_data.GLOBAL, "m.ignored_user_list", content_json=ignored, pos=1
            )
        )
        permissions.forget([BOB])
        held.let_go.set()
        assert await before
        assert not await permissions.shows(BOB, MALLORY)
