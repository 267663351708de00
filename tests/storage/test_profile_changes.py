"""The stream of profile changes, on both engines."""

from __future__ import annotations

from homeserver.storage import profile_changes, profiles
from homeserver.storage.database import Database, Transaction
from homeserver.storage.profile_changes import ProfileField
from tests.world import World


async def test_changes_are_seen_by_those_who_share_a_room(database: Database) -> None:
    world = await World.open(database)
    alice, bob, stranger = (world.user(name) for name in ("alice", "bob", "stranger"))
    room = await world.public_room(alice)
    await room.join(bob)

    async def change(tx: Transaction) -> None:
        for pos, user_id in enumerate((alice, stranger, bob), 1):
            await profiles.set_field(tx, user_id, "m.tz", f'"{pos}"')
            await profile_changes.note(tx, user_id, "m.tz", pos)

    await database.write(change)
    of_alice, of_bob = ProfileField(alice, "m.tz", '"1"'), ProfileField(bob, "m.tz", '"3"')
    assert await profile_changes.seen_by(database.read, alice, 0, 9, 9) == [of_bob, of_alice]
    assert await profile_changes.seen_by(database.read, alice, 1, 3, 9) == [of_bob]
    assert await profile_changes.seen_by(database.read, alice, 0, 2, 9) == [of_alice]
    assert await profile_changes.seen_by(database.read, alice, 0, 9, 1) == [of_bob]
    assert await profile_changes.of_users(database.read, [alice, bob]) == [of_alice, of_bob]
    await room.leave(bob)
    assert await profile_changes.seen_by(database.read, alice, 0, 9, 9) == [of_alice]


async def test_only_so_many_removed_fields_are_remembered(database: Database) -> None:
    async def come_and_go(tx: Transaction) -> None:
        await profiles.set_field(tx, "@a:x", "stays", "1")
        await profile_changes.note(tx, "@a:x", "stays", 1)
        for pos in range(2, 152):
            await profile_changes.note_removed(tx, "@a:x", f"field {pos}", pos)

    await database.write(come_and_go)
    kept = await profile_changes.seen_by(database.read, "@a:x", 0, 999, 999)
    assert [one.field for one in kept] == [*(f"field {pos}" for pos in range(151, 51, -1)), "stays"]
    await database.write(lambda tx: profile_changes.forget(tx, "@a:x"))
    assert await profile_changes.seen_by(database.read, "@a:x", 0, 999, 999) == []
