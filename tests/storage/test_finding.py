"""What rooms and events are found by, on both engines."""

from __future__ import annotations

from functools import partial

from homeserver.protocol.ids import server_name_of
from homeserver.storage import moments, openid_tokens, summaries
from homeserver.storage.database import Database
from homeserver.storage.summaries import PublishedRow
from tests.world import ELSEWHERE, SERVER, World


async def test_published_rooms_come_in_one_order_from_both_ends(database: Database) -> None:
    world = await World.open(database)
    alice = world.user("alice")
    rooms = []
    for guests in (0, 2, 2, 1):
        room = await world.public_room(alice, visibility="public")
        for guest in range(guests):
            await room.join(world.user(f"guest{guest}"))
        rooms.append((await room.live()).nid)
    await world.public_room(alice)
    first, busy, busy_too, middle = rooms
    order = [
        PublishedRow(3, busy_too),
        PublishedRow(3, busy),
        PublishedRow(2, middle),
        PublishedRow(1, first),
    ]

    assert await summaries.published(database.scan, None, 9, backwards=False) == order
    assert await summaries.published(database.scan, None, 9, backwards=True) == order[::-1]
    assert await summaries.published(database.scan, order[0], 2, backwards=False) == order[1:3]
    assert await summaries.published(database.scan, order[2], 9, backwards=True) == order[1::-1]
    assert await summaries.count_published(database.scan) == 4


async def test_many_rooms_are_summed_up_in_a_few_reads(database: Database) -> None:
    world = await World.open(database)
    alice, bob = world.user("alice"), world.user("bob")
    room, other = await world.public_room(alice), await world.private_room(alice)
    await other.invite(alice, bob)
    nids = [(await each.live()).nid for each in (room, other)]
    key = await world.keys.find(("m.room.create", ""))
    assert key is not None

    rows = await summaries.by_ids(database.scan, [room.room_id, other.room_id, "!no:x"], SERVER)
    assert {(row.nid, row.room_id, row.joined_members, row.resident) for row in rows} == {
        (nids[0], room.room_id, 1, True),
        (nids[1], other.room_id, 1, True),
    }
    assert [row.resident for row in await summaries.by_nids(database.scan, nids, ELSEWHERE)] == [False, False]
    values = await summaries.values(database.scan, nids, [key])
    assert {room_nid for room_nid, _ in values} == set(nids)
    assert await summaries.memberships_in(database.scan, bob, [room.room_id, other.room_id]) == {
        other.room_id: "invite"
    }
    assert await summaries.rooms_with(database.scan, SERVER, SERVER, [room.room_id]) == {room.room_id}
    assert await summaries.rooms_with(database.scan, ELSEWHERE, SERVER, [room.room_id]) == set()
    assert await summaries.rooms_inviting(database.scan, server_name_of(bob), nids) == {nids[1]}
    assert await summaries.rooms_inviting(database.scan, "re.example", nids) == set()


async def test_events_come_by_time_and_then_by_place(database: Database) -> None:
    world = await World.open(database)
    alice = world.user("alice")
    room = await world.public_room(alice)
    world.clock.advance(60)
    now = world.clock.now_ms()
    same = [(await room.send(alice, str(number))).pos for number in range(3)]
    world.clock.advance(60)
    later = await room.send(alice, "later")
    nid = (await room.live()).nid
    far = 1 << 62

    forward = await moments.closest(database.scan, nid, "f", (now, -far), 3)
    assert [row[1] for row in forward] == same
    on = await moments.closest(database.scan, nid, "f", forward[-1][:2], 9)
    assert [row[2] for row in on] == [later.nid]
    backward = await moments.closest(database.scan, nid, "b", (now, far), 2)
    assert [row[1] for row in backward] == same[:0:-1]


async def test_tokens_expire_and_are_cleared_away(database: Database) -> None:
    for number, expires_at in enumerate((10, 20)):
        await database.write(
            partial(
                openid_tokens.add, token_hash=bytes([number]), user_id=f"@{number}:x", expires_at=expires_at
            )
        )

    assert await openid_tokens.user_of(database.read, b"\x00", 9) == "@0:x"
    assert await openid_tokens.user_of(database.read, b"\x00", 10) is None
    assert await openid_tokens.user_of(database.read, b"none", 0) is None
    await database.write(partial(openid_tokens.remove_expired, now=10))
    assert await openid_tokens.user_of(database.read, b"\x00", 0) is None
    assert await openid_tokens.user_of(database.read, b"\x01", 10) == "@1:x"
