"""Users, devices with their tokens, and what users keep: the same on both engines."""

from __future__ import annotations

from homeserver.storage import (
    account_data,
    devices,
    filters,
    last_seen,
    profiles,
    registration_tokens,
    transaction_ids,
    users,
)
from homeserver.storage.account_data import GLOBAL, AccountDatum
from homeserver.storage.database import Database, Transaction
from homeserver.storage.devices import RefreshToken

ALICE = "@alice:a.org"
NOW = 1_700_000_000_000


async def add_user(tx: Transaction, user_id: str = ALICE) -> bool:
    return await users.add(tx, user_id, password_hash="hash", is_admin=True, created_at=NOW)


async def test_a_name_is_given_once(database: Database) -> None:
    assert await database.write(add_user)
    assert not await database.write(add_user)
    assert await users.exists(database.read, ALICE)
    assert not await users.exists(database.read, "@bob:a.org")
    assert await users.user(database.read, ALICE) == users.User(
        ALICE, "hash", is_admin=True, deactivated=False, created_at=NOW
    )


async def test_a_deactivated_user_keeps_the_name_but_no_password(database: Database) -> None:
    await database.write(add_user)

    async def end(tx: Transaction) -> None:
        await users.deactivate(tx, ALICE)
        await users.set_password_hash(tx, ALICE, "another")

    await database.write(end)
    user = await users.user(database.read, ALICE)
    assert user is not None
    assert (user.deactivated, user.password_hash, user.is_admin) == (True, None, False)


async def test_devices_keep_their_name_and_go_with_their_tokens(database: Database) -> None:
    async def fill(tx: Transaction) -> None:
        await add_user(tx)
        assert await devices.add(tx, ALICE, "A", display_name="Phone", now=NOW)
        assert not await devices.add(tx, ALICE, "A", display_name="Other", now=NOW + 1)
        await devices.add(tx, ALICE, "B", display_name=None, now=NOW)
        await devices.add_access_token(tx, b"a", ALICE, "A")
        await devices.add_refresh_token(tx, b"ra", ALICE, "A")
        await devices.add_access_token(tx, b"b", ALICE, "B", expires_at=NOW + 5)
        await last_seen.store(tx, [(ALICE, "B", last_seen.Use(NOW + 9, "192.0.2.1", "Phone/1"))])

    await database.write(fill)
    assert await devices.devices(database.read, ALICE) == [
        devices.Device("A", "Phone", NOW),
        devices.Device("B", None, NOW + 9),
    ]
    assert await database.write(lambda tx: devices.remove(tx, ALICE, ["A", "X"])) == ["A"]
    assert await devices.device(database.read, ALICE, "A") is None
    assert await devices.access_token(database.read, b"a") is None
    assert await devices.refresh_token(database.read, b"ra") is None
    token = await devices.access_token(database.read, b"b")
    assert token is not None
    assert (token.user_id, token.device_id, token.expires_at, token.is_admin) == (ALICE, "B", NOW + 5, True)
    assert await devices.device_ids(database.read, ALICE) == ["B"]


async def test_tokens_of_deactivated_users_are_not_found(database: Database) -> None:
    async def fill(tx: Transaction) -> None:
        await add_user(tx)
        await devices.add(tx, ALICE, "A", display_name=None, now=NOW)
        await devices.add_access_token(tx, b"a", ALICE, "A")
        await devices.add_refresh_token(tx, b"r", ALICE, "A")
        await users.deactivate(tx, ALICE)

    await database.write(fill)
    assert await devices.access_token(database.read, b"a") is None
    assert await devices.refresh_token(database.read, b"r") is None


async def test_a_replaced_refresh_token_ends_with_its_access_tokens(database: Database) -> None:
    async def fill(tx: Transaction) -> tuple[int, int]:
        await add_user(tx)
        await devices.add(tx, ALICE, "A", display_name=None, now=NOW)
        old = await devices.add_refresh_token(tx, b"r1", ALICE, "A")
        await devices.add_access_token(tx, b"a1", ALICE, "A", refresh_nid=old)
        new = await devices.add_refresh_token(tx, b"r2", ALICE, "A", replaces_nid=old)
        await devices.add_access_token(tx, b"a2", ALICE, "A", refresh_nid=new)
        return old, new

    old, new = await database.write(fill)
    before = await devices.access_token(database.read, b"a2")
    assert before is not None
    assert before.replaces_nid == old
    await database.write(lambda tx: devices.end_replaced(tx, new, old))
    assert await devices.access_token(database.read, b"a1") is None
    assert await devices.refresh_token(database.read, b"r1") is None
    assert await devices.refresh_token(database.read, b"r2") == RefreshToken(new, ALICE, "A", None)


async def test_registration_tokens_run_out(database: Database) -> None:
    async def fill(tx: Transaction) -> None:
        assert await registration_tokens.add(tx, "once", uses_allowed=1)
        assert not await registration_tokens.add(tx, "once")
        await registration_tokens.add(tx, "today", expires_at=NOW + 1)

    await database.write(fill)
    assert await registration_tokens.is_usable(database.read, "once", NOW)
    assert await database.write(lambda tx: registration_tokens.use(tx, "once", NOW))
    assert not await database.write(lambda tx: registration_tokens.use(tx, "once", NOW))
    assert await registration_tokens.is_usable(database.read, "today", NOW)
    assert not await registration_tokens.is_usable(database.read, "today", NOW + 1)
    assert await database.write(lambda tx: registration_tokens.remove(tx, "today"))
    assert not await database.write(lambda tx: registration_tokens.remove(tx, "today"))


async def test_profile_fields(database: Database) -> None:
    async def fill(tx: Transaction) -> None:
        await profiles.set_field(tx, ALICE, "displayname", '"A"')
        await profiles.set_field(tx, ALICE, "displayname", '"B"')
        await profiles.set_field(tx, ALICE, "m.tz", '"UTC"')

    await database.write(fill)
    assert await profiles.fields(database.read, ALICE) == {"displayname": '"B"', "m.tz": '"UTC"'}
    assert await profiles.field(database.read, ALICE, "m.tz") == '"UTC"'
    assert await database.write(lambda tx: profiles.remove_field(tx, ALICE, "m.tz"))
    assert not await database.write(lambda tx: profiles.remove_field(tx, ALICE, "m.tz"))
    await database.write(lambda tx: profiles.remove_all(tx, ALICE))
    assert await profiles.fields(database.read, ALICE) == {}


async def test_account_data_is_found_by_when_it_changed(database: Database) -> None:
    async def fill(tx: Transaction) -> None:
        for pos, room_id in ((1, GLOBAL), (2, "!r:a.org"), (3, GLOBAL), (4, "!q:a.org")):
            await account_data.set_content(tx, ALICE, room_id, "x", content_json=f'{{"n":{pos}}}', pos=pos)

    await database.write(fill)
    assert await account_data.content(database.read, ALICE, GLOBAL, "x") == '{"n":3}'
    assert [datum.pos for datum in await account_data.of_user(database.read, ALICE)] == [2, 3, 4]
    assert await account_data.changed(database.read, ALICE, since=2, until=3) == [
        AccountDatum(GLOBAL, "x", '{"n":3}', 3)
    ]
    await database.write(lambda tx: account_data.remove_all(tx, ALICE))
    assert await account_data.of_user(database.read, ALICE) == []


async def test_filters_are_numbered_for_each_user(database: Database) -> None:
    async def fill(tx: Transaction) -> list[int]:
        return [
            await filters.add(tx, user_id, definition)
            for user_id, definition in ((ALICE, "{}"), (ALICE, '{"a":1}'), (ALICE, "{}"), ("@b:a.org", "{}"))
        ]

    assert await database.write(fill) == [0, 1, 0, 0]
    assert await filters.definition(database.read, ALICE, 1) == '{"a":1}'
    await database.write(lambda tx: filters.remove_all(tx, ALICE))
    assert await filters.definition(database.read, ALICE, 1) is None


async def test_a_transaction_leads_to_its_first_event_until_it_is_forgotten(database: Database) -> None:
    async def fill(tx: Transaction) -> None:
        for event_id in ("$one", "$two"):
            await transaction_ids.add(tx, ALICE, "A", "send !r", "t", event_id=event_id, now=NOW)

    await database.write(fill)
    assert await transaction_ids.event_id(database.read, ALICE, "A", "send !r", "t") == "$one"
    assert await transaction_ids.event_id(database.read, ALICE, "A", "send !q", "t") is None
    assert await transaction_ids.event_id(database.read, ALICE, "B", "send !r", "t") is None
    assert await transaction_ids.older(database.read, NOW) == []
    old = await transaction_ids.older(database.read, NOW + 1)
    assert old == [(ALICE, "A", "send !r", "t")]
    assert await transaction_ids.older(database.read, NOW + 1, old[-1]) == []
    await database.write(lambda tx: transaction_ids.remove(tx, old))
