"""Keys of devices, device lists and cross-signing keys on both engines."""

from __future__ import annotations

import asyncio

from homeserver.protocol.e2e_keys import CrossSigningKey, Signature
from homeserver.storage import cross_signing, device_lists, devices, e2e_keys, remote_devices
from homeserver.storage.database import Database, Transaction
from homeserver.storage.e2e_keys import NewKey
from homeserver.storage.remote_devices import RemoteDevice, RemoteList

ALICE, BOB = "@alice:here", "@bob:there"
CURVE = "signed_curve25519"


def key(key_id: str, algorithm: str = CURVE) -> NewKey:
    return NewKey(algorithm, key_id, f'"{key_id}"')


async def add_keys(database: Database, *key_ids: str) -> None:
    await database.write(
        lambda tx: e2e_keys.add_one_time_keys(tx, ALICE, "D", [key(key_id) for key_id in key_ids])
    )


async def claim(database: Database, algorithm: str = CURVE) -> tuple[str, str] | None:
    return await database.write(lambda tx: e2e_keys.claim(tx, ALICE, "D", algorithm, 1000))


async def test_identity_keys_belong_to_devices_that_exist(database: Database) -> None:
    async def store(tx: Transaction) -> None:
        await devices.add(tx, ALICE, "D", display_name="Phone", now=0)
        await e2e_keys.set_device_keys(tx, ALICE, "D", "{}")
        await e2e_keys.set_device_keys(tx, ALICE, "D", '{"x":1}')
        await e2e_keys.set_device_keys(tx, ALICE, "GONE", "{}")

    await database.write(store)
    found = await e2e_keys.devices_with_keys(database.scan, [ALICE, BOB])
    assert [(each.device_id, each.keys, each.display_name) for each in found[ALICE]] == [
        ("D", '{"x":1}', "Phone")
    ]
    await database.write(lambda tx: e2e_keys.remove_devices(tx, ALICE, ["D"]))
    assert await e2e_keys.device_keys(database.read, ALICE, "D") is None


async def test_keys_are_given_out_in_the_order_of_their_uploads(database: Database) -> None:
    await add_keys(database, "b", "c")
    await add_keys(database, "a")
    assert await e2e_keys.counts(database.read, ALICE, "D") == {CURVE: 3}
    given = [await claim(database) for _ in range(4)]
    assert given == [("b", '"b"'), ("c", '"c"'), ("a", '"a"'), None]
    assert await e2e_keys.counts(database.read, ALICE, "D") == {}
    assert await claim(database, "other") is None


async def test_a_key_is_given_out_once_however_many_ask(database: Database) -> None:
    await add_keys(database, *(str(number) for number in range(30)))
    given = await asyncio.gather(*(claim(database) for _ in range(50)))
    found = [one for one in given if one is not None]
    assert len(found) == len(set(found)) == 30


async def test_what_was_given_out_is_known_for_a_while(database: Database) -> None:
    await add_keys(database, "a", "b")
    await claim(database)
    assert await e2e_keys.claimed_ids(database.read, ALICE, "D", ["a", "b", "c"]) == {(CURVE, "a")}
    assert set(await e2e_keys.one_time_keys(database.read, ALICE, "D", ["a", "b"])) == {
        (CURVE, "a"),
        (CURVE, "b"),
    }
    assert await database.write(lambda tx: e2e_keys.forget_claimed(tx, 1000)) == 0
    assert await database.write(lambda tx: e2e_keys.forget_claimed(tx, 1001)) == 1
    assert await e2e_keys.claimed_ids(database.read, ALICE, "D", ["a"]) == set()
    await add_keys(database, "b")
    assert await claim(database) == ("b", '"b"')


async def test_fallback_keys_are_replaced_and_marked(database: Database) -> None:
    async def put(key_id: str) -> None:
        await database.write(lambda tx: e2e_keys.set_fallback_keys(tx, ALICE, "D", [key(key_id)]))

    await put("one")
    for _ in range(2):
        used = await database.write(lambda tx: e2e_keys.use_fallback_key(tx, ALICE, "D", CURVE))
        assert used == ("one", '"one"')
    assert await e2e_keys.fallback_keys(database.read, ALICE, "D") == {CURVE: (key("one"), True)}
    await put("two")
    assert await e2e_keys.fallback_keys(database.read, ALICE, "D") == {CURVE: (key("two"), False)}
    assert await database.write(lambda tx: e2e_keys.use_fallback_key(tx, ALICE, "E", CURVE)) is None


async def test_changes_are_numbered_by_user_until_they_are_told(database: Database) -> None:
    async def store(tx: Transaction) -> None:
        await device_lists.record(tx, ALICE, ["A"])
        await device_lists.record(tx, "@carol:here", ["X"])
        await device_lists.record(tx, ALICE, ["B", "C"])
        await device_lists.record_signing_keys(tx, ALICE)

    await database.write(store)
    changes = await device_lists.untold(database.read, 10)
    assert [(each.user_id, each.device_id, each.stream_id) for each in changes] == [
        (ALICE, "A", 1),
        ("@carol:here", "X", 1),
        (ALICE, "B", 2),
        (ALICE, "C", 3),
        (ALICE, "", 0),
    ]
    assert await device_lists.stream_id(database.read, ALICE) == 3
    assert sorted(await device_lists.users_with_untold(database.read)) == [ALICE, "@carol:here"]
    await database.write(lambda tx: device_lists.told(tx, [each.number for each in changes[:4]]))
    assert [each.device_id for each in await device_lists.untold(database.read, 10)] == [""]


async def test_everybody_sees_their_own_changes(database: Database) -> None:
    await database.write(lambda tx: device_lists.set_position(tx, [ALICE, BOB], 10))
    await database.write(lambda tx: device_lists.set_position(tx, [ALICE], 12))
    assert await device_lists.changed_for(database.scan, ALICE, 11) == [ALICE]
    assert await device_lists.changed_for(database.scan, ALICE, 12) == []
    assert await device_lists.changed_for(database.scan, BOB, 9) == [BOB]
    assert await device_lists.stream_id(database.read, ALICE) == 0


async def test_lists_of_other_servers_users(database: Database) -> None:
    async def store(tx: Transaction) -> None:
        await remote_devices.put_list(tx, RemoteList(BOB, 3, stale=False))
        await remote_devices.put_devices(
            tx, [RemoteDevice(BOB, "A", "{}", "Phone"), RemoteDevice(BOB, "B", None, None)]
        )
        await cross_signing.put(tx, BOB, [CrossSigningKey("master", "abc", {"x": 1})])
        await remote_devices.put_devices(tx, [RemoteDevice(BOB, "A", '{"x":1}', None)])
        await remote_devices.put_list(tx, RemoteList(BOB, 4, stale=True))

    await database.write(store)
    assert await remote_devices.lists(database.read, [ALICE, BOB]) == {BOB: RemoteList(BOB, 4, stale=True)}
    assert await remote_devices.stale_users(database.read, 10) == [BOB]
    assert await remote_devices.kept_users(database.read, "", 10) == [BOB]
    assert await remote_devices.kept_users(database.read, BOB, 10) == []
    found = (await remote_devices.devices(database.read, [BOB]))[BOB]
    assert found["A"] == RemoteDevice(BOB, "A", '{"x":1}', None)
    await database.write(lambda tx: remote_devices.remove_device(tx, BOB, "A"))
    assert set((await remote_devices.devices(database.read, [BOB]))[BOB]) == {"B"}
    await database.write(lambda tx: remote_devices.remove_lists(tx, [BOB]))
    assert await remote_devices.lists(database.read, [BOB]) == {}
    assert await remote_devices.devices(database.read, [BOB]) == {}
    assert await cross_signing.keys_of(database.read, [BOB]) == {}


async def test_signatures_are_found_by_whose_keys_they_are_of(database: Database) -> None:
    first = Signature(BOB, "bobs", ALICE, "ed25519:alices", "sig")
    second = Signature(ALICE, "D", ALICE, "ed25519:self", "sig")

    async def store(tx: Transaction) -> None:
        await cross_signing.add_signatures(tx, [first], 10)
        await cross_signing.add_signatures(tx, [second], 11)

    await database.write(store)
    assert await cross_signing.signatures_of(database.read, [BOB]) == {(BOB, "bobs"): [first]}
    assert await cross_signing.signed_since(database.read, ALICE, 10) == [ALICE]
    assert sorted(await cross_signing.signed_since(database.read, ALICE, 9)) == [ALICE, BOB]
    await database.write(lambda tx: cross_signing.remove_signatures_by(tx, ALICE, ["ed25519:alices"]))
    assert await cross_signing.signatures_of(database.read, [BOB]) == {}
    await database.write(lambda tx: e2e_keys.remove_devices(tx, ALICE, ["D"]))
    assert await cross_signing.signatures_of(database.read, [ALICE]) == {}
