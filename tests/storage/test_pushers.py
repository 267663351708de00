"""Pushers, and how far each of them is, on both engines."""

from __future__ import annotations

from functools import partial

import msgspec

from homeserver.storage import pushers
from homeserver.storage.database import Database, Transaction
from homeserver.storage.pushers import MailedRoom, Pusher

ALICE, BOB = "@alice:x", "@bob:x"


def pusher(user_id: str, pushkey: str = "key", *, device: str = "PHONE", kind: str = "http") -> Pusher:
    return Pusher(
        user_id=user_id,
        app_id="app",
        pushkey=pushkey,
        kind=kind,
        device_id=device,
        app_display_name="App",
        device_display_name="Phone",
        profile_tag=None,
        lang="en",
        data="{}",
        pushkey_ts=1,
        pos=5,
    )


async def put(database: Database, *wanted: Pusher) -> None:
    for each in wanted:
        await database.write(partial(pushers.put, pusher=each))


async def test_a_pusher_that_is_set_anew_keeps_how_far_it_is(database: Database) -> None:
    await put(database, pusher(ALICE))
    await database.write(partial(pushers.advance, pusher=pusher(ALICE), pos=9, failing_since=70))
    changed = msgspec.structs.replace(pusher(ALICE), lang="de", pos=20)
    await put(database, changed)
    assert await pushers.of_user(database.read, ALICE) == [
        msgspec.structs.replace(changed, pos=9, failing_since=70)
    ]


async def test_pushers_of_others_with_the_same_key_give_way(database: Database) -> None:
    await put(database, pusher(ALICE), pusher(BOB), pusher(BOB, "other"))
    gone = await database.write(partial(pushers.remove_of_others, user_id=ALICE, app_id="app", pushkey="key"))
    assert gone == [BOB]
    assert sorted(each.key for each in await pushers.everyone(database.scan)) == [
        (ALICE, "app", "key"),
        (BOB, "app", "other"),
    ]


async def test_pushers_go_with_their_device_and_mail_stays(database: Database) -> None:
    mail = pusher(ALICE, "mail", kind="email")
    await put(database, pusher(ALICE), pusher(ALICE, "tablet", device="TABLET"), mail, pusher(BOB))
    await database.write(partial(pushers.remove_of_devices, user_id=ALICE, device_ids=["PHONE", "NONE"]))
    assert [each.pushkey for each in await pushers.of_user(database.read, ALICE)] == ["mail", "tablet"]
    assert len(await pushers.of_user(database.read, BOB)) == 1


async def test_the_position_of_all_and_of_those_behind(database: Database) -> None:
    await put(database, pusher(ALICE), pusher(BOB))
    assert await pushers.position(database.read) is None
    moved = [(pusher(ALICE), 7, True)]
    await database.write(partial(pushers.store_position, pos=10, moved=moved))
    await database.write(partial(pushers.store_position, pos=11, moved=[]))
    assert await pushers.position(database.read) == 11
    (alices,) = await pushers.of_user(database.read, ALICE)
    (bobs,) = await pushers.of_user(database.read, BOB)
    assert (alices.pos, alices.behind, bobs.pos, bobs.behind) == (7, True, 5, False)


async def test_what_rooms_mailed_goes_with_the_pusher(database: Database) -> None:
    mail = pusher(ALICE, "mail", kind="email")
    await put(database, mail, pusher(ALICE))
    rooms = [MailedRoom(1, 100, 10), MailedRoom(2, 100, 10)]

    async def store(tx: Transaction) -> None:
        await pushers.set_mailed(tx, ALICE, "mail", rooms)
        await pushers.set_mailed(tx, ALICE, "mail", [MailedRoom(2, 200, 60)])

    await database.write(store)
    kept = await pushers.mailed_rooms(database.read, ALICE, "mail")
    assert kept == {1: rooms[0], 2: MailedRoom(2, 200, 60)}
    await database.write(partial(pushers.remove, user_id=ALICE, app_id="app", pushkey="key"))
    assert await pushers.mailed_rooms(database.read, ALICE, "mail") == kept
    await database.write(partial(pushers.remove, user_id=ALICE, app_id="app", pushkey="mail"))
    assert await pushers.mailed_rooms(database.read, ALICE, "mail") == {}
