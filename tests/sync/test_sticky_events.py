"""Events that stick (MSC4354): told once, wherever timelines begin, and to all who come while they do."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from homeserver.protocol.canonical_json import encode
from homeserver.protocol.sticky import MAX_STICKY_MS
from homeserver.rooms.send import Draft
from homeserver.rooms.visibility import SeenEvent
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.sync.client_events import Form
from homeserver.sync.positions import SyncToken
from homeserver.sync.sticky_section import MAX_NEWS
from tests.sync.server import SyncServer
from tests.world import WorldRoom

MEMBER = "org.matrix.msc4143.rtc.member"
STICKY = "msc4354_sticky"


async def stick(
    room: WorldRoom, sender: str, name: str = "x", duration_ms: int = 600_000, **fields: Any
) -> StoredEvent:
    draft = Draft(sender, MEMBER, {"msc4354_sticky_key": name}, sticky_ms=duration_ms, **fields)
    return await room.world.send.send(room.room_id, draft)


def in_timeline(response: dict[str, Any], room: WorldRoom) -> list[str]:
    section = response["rooms"].get("join", {}).get(room.room_id, {"timeline": {"events": []}})
    return [one["event_id"] for one in section["timeline"]["events"] if STICKY in one]


def beside(response: dict[str, Any], room: WorldRoom) -> list[str]:
    section = response["rooms"].get("join", {}).get(room.room_id, {})
    return [one["event_id"] for one in section.get(STICKY, {"events": []})["events"]]


async def talk(room: WorldRoom, sender: str, number: int = 20) -> None:
    for count in range(number):
        await room.send(sender, str(count))


async def test_in_the_timeline_it_is_an_event_like_others_with_a_key(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    event = await stick(room, alice.user_id)
    response = await alice.sync()
    assert (in_timeline(response, room), beside(response, room)) == ([event.id], [])
    told = response["rooms"]["join"][room.room_id]["timeline"]["events"][-1]
    assert told[STICKY] == {"duration_ms": 600_000}
    assert told["unsigned"]["msc4354_sticky_duration_ttl_ms"] == 600_000


async def test_beyond_the_timeline_it_is_told_beside_it_once(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    await alice.sync()
    event = await stick(room, alice.user_id)
    await talk(room, alice.user_id)
    server.world.clock.advance(100)
    response = await alice.sync()
    assert (in_timeline(response, room), beside(response, room)) == ([], [event.id])
    (told,) = response["rooms"]["join"][room.room_id][STICKY]["events"]
    assert told["unsigned"]["msc4354_sticky_duration_ttl_ms"] == 500_000
    assert "room_id" not in told
    await talk(room, alice.user_id, 1)
    assert beside(await alice.sync(), room) == []


async def test_a_first_sync_tells_all_that_sticks(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    long = await stick(room, alice.user_id, "long")
    await stick(room, alice.user_id, "short", 60_000)
    await talk(room, alice.user_id)
    server.world.clock.advance(60)
    assert beside(await alice.sync(), room) == [long.id]
    assert server.world.core.sticky.between([(await room.live()).nid], 0, 2**62, 10)
    server.world.clock.advance(3600)
    await server.world.core.sticky.forget_expired()
    alice.token = None
    assert beside(await alice.sync(), room) == []
    assert await server.world.db.scan.fetch("SELECT * FROM sticky_events") == []


async def test_what_a_filter_takes_out_of_the_timeline_is_told_beside_it(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    await alice.sync()
    event = await stick(room, alice.user_id)
    response = await alice.sync(filter={"room": {"timeline": {"not_types": [MEMBER]}}})
    assert (in_timeline(response, room), beside(response, room)) == ([], [event.id])


async def test_who_joins_is_told_whatever_the_history_visibility(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.set_state(alice.user_id, "m.room.history_visibility", {"history_visibility": "joined"})
    await bob.sync()
    event = await stick(room, alice.user_id)
    await talk(room, alice.user_id, 3)
    assert not (await bob.sync())["rooms"]
    await room.join(bob.user_id)
    response = await bob.sync()
    assert (in_timeline(response, room), beside(response, room)) == ([], [event.id])
    await talk(room, alice.user_id, 3)
    assert beside(await bob.sync(), room) == []


async def test_who_waits_is_told_at_once(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await bob.sync()
    waiting = bob.wait()
    event = await stick(room, alice.user_id)
    assert in_timeline(await waiting, room) == [event.id]


async def test_many_come_in_several_responses(server: SyncServer) -> None:
    alice = server.client("alice")
    rooms = [await server.world.public_room(alice.user_id) for _ in range(2)]
    await alice.sync()
    sent = [(await stick(rooms[number % 2], alice.user_id, str(number))).id for number in range(MAX_NEWS + 5)]
    for room in rooms:
        await talk(room, alice.user_id)
    told: list[str] = []
    for more in (True, False):
        response = await alice.sync(timeout=30)
        told += [event_id for room in rooms for event_id in beside(response, room)]
        assert (SyncToken.parse(alice.token or "").sticky is not None) == more
    assert sorted(told) == sorted(sent)


async def test_a_redacted_one_sticks_no_more(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    event = await stick(room, alice.user_id)
    await talk(room, alice.user_id)
    await room.redact(alice.user_id, event.id)
    assert beside(await alice.sync(), room) == []


async def test_people_who_are_ignored_stick_to_nobody(server: SyncServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await stick(room, bob.user_id)
    await talk(room, alice.user_id)
    ignored = {"ignored_users": {bob.user_id: {}}}
    await server.account_data.set_content(alice.user_id, "m.ignored_user_list", ignored)
    assert beside(await alice.sync(), room) == []


async def test_state_may_stick_too(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    event = await stick(room, alice.user_id, state_key="")
    await talk(room, alice.user_id)
    assert beside(await alice.sync(), room) == [event.id]


async def test_what_sticks_is_remembered_by_a_server_that_restarts(sqlite_database: Database) -> None:
    before = await SyncServer.open(sqlite_database)
    alice = before.client("alice")
    room = await before.world.public_room(alice.user_id)
    event = await stick(room, alice.user_id)
    await talk(room, alice.user_id)
    after = await SyncServer.open(sqlite_database)
    after.world.clock.advance(100)
    response = await after.client("alice").sync()
    assert beside(response, room) == [event.id]
    (told,) = response["rooms"]["join"][room.room_id][STICKY]["events"]
    assert told["unsigned"]["msc4354_sticky_duration_ttl_ms"] == 500_000


@pytest.mark.parametrize(
    "value",
    [
        None,
        "600000",
        {},
        {"duration_ms": "600000"},
        {"duration_ms": True},
        {"duration_ms": -1},
        {"duration_ms": MAX_STICKY_MS + 1},
        {"duration_ms": 0},
    ],
)
async def test_what_does_not_say_so_properly_does_not_stick(server: SyncServer, value: Any) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    addition = await room.compose_after((await room.timeline())[-1:], Draft(alice.user_id, MEMBER, {}))
    pdu = orjson.loads(encode(addition.event.pdu)) | {STICKY: value}
    event = server.world.send.sealed(
        {key: pdu[key] for key in pdu if key not in {"hashes", "signatures"}}, await room.live()
    )
    await room.append(type(addition)(event, addition.auth_nids, addition.state_before))
    await talk(room, alice.user_id)
    response = await alice.sync()
    assert beside(response, room) == []
    stored = await server.world.events.by_id(event.event_id)
    assert stored is not None
    (read,) = await server.client_events.write(
        await room.live(), alice.user_id, None, [SeenEvent(stored, "join")], Form()
    )
    told = orjson.loads(orjson.dumps(read))
    assert (STICKY in told) == isinstance(value, dict)
    assert "msc4354_sticky_duration_ttl_ms" not in told["unsigned"]


async def test_nobody_sticks_into_the_future(server: SyncServer) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    later = server.world.clock.now_ms() + 10_000_000
    event = await stick(room, alice.user_id, "future", 60_000, origin_server_ts=later)
    past = await stick(room, alice.user_id, "past", 60_000, origin_server_ts=later - 20_000_000)
    await talk(room, alice.user_id)
    assert server.world.core.sticky.ttl_ms(event) == 60_000
    assert server.world.core.sticky.ttl_ms(past) is None
    assert beside(await alice.sync(), room) == [event.id]
    server.world.clock.advance(60)
    alice.token = None
    assert beside(await alice.sync(), room) == []
