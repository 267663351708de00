"""All local users at once."""

from __future__ import annotations

from homeserver.storage import users
from homeserver.storage.database import Database, Transaction
from homeserver.storage.user_listing import any_user, every_user


async def test_users_are_listed_from_the_oldest_the_deactivated_too(database: Database) -> None:
    async def people(tx: Transaction) -> None:
        await users.add(tx, "@young:example.org", password_hash="h", is_admin=False, created_at=2000)
        await users.add(tx, "@old:example.org", password_hash="h", is_admin=True, created_at=1000)
        await users.deactivate(tx, "@young:example.org")

    assert not await any_user(database.read)
    await database.write(people)

    assert await any_user(database.read)
    listed = [(user.user_id, user.is_admin, user.deactivated) for user in await every_user(database.scan)]
    assert listed == [("@old:example.org", True, False), ("@young:example.org", False, True)]
