"""Whose invites are shown."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from homeserver.rooms import invite_permission
from homeserver.rooms.invite_permission import InvitePermissions
from homeserver.storage import account_data
from homeserver.storage.database import Database

BOB, MALLORY = "@bob:here.example", "@mallory:here.example"


async def test_wishes_that_change_while_they_are_read_are_read_again(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    permissions = InvitePermissions(sqlite_database)
    read = invite_permission._wishes

    async def read_first(*args: Any) -> object:
        found = await read(*args)
        text = orjson.dumps({"ignored_users": [MALLORY]}).decode()
        await sqlite_database.write(
            lambda tx: account_data.set_content(
                tx, BOB, account_data.GLOBAL, "m.invite_permission_config", content_json=text, pos=1
            )
        )
        permissions.forget([BOB])
        return found

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(invite_permission, "_wishes", read_first)
        assert await permissions.shows(BOB, MALLORY)
    assert not await permissions.shows(BOB, MALLORY)
