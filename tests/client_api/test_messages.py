"""Looking back at rooms: messages, context, events, state and members, and who may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from homeserver.storage import events as event_storage
from homeserver.storage.database import Database, Transaction
from tests.client_api.room_server import RoomServer, room_server, segment
from tests.world import WorldRoom


@pytest.fixture
async def rooms(sqlite_database: Database) -> AsyncIterator[RoomServer]:
    async with room_server(sqlite_database) as running:
        yield running


def path(room: WorldRoom, rest: str) -> str:
    return f"/rooms/{segment(room.room_id)}/{rest}"


def bodies(events: list[dict[str, Any]]) -> list[str]:
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


async def a_room(rooms: RoomServer, messages: int = 0) -> tuple[str, str, WorldRoom]:
    alice, bob = rooms.world.user("alice", displayname="Alice"), rooms.world.user("bob")
    room = await rooms.world.public_room(alice)
    await room.join(bob)
    for number in range(messages):
        await room.send(alice, str(number))
    return alice, bob, room


async def test_scrolling_back_reaches_the_first_event(rooms: RoomServer) -> None:
    alice, _, room = await a_room(rooms, 25)
    query, seen = {"dir": "b", "limit": "7"}, []
    while True:
        page = await rooms.get(alice, path(room, "messages"), **query)
        assert page["start"] == query.get("from", page["start"])
        seen += page["chunk"]
        if "end" not in page:
            break
        query["from"] = page["end"]
    assert bodies(seen) == [str(number) for number in reversed(range(25))]
    assert seen[-1]["type"] == "m.room.create"
    assert all(event["room_id"] == room.room_id for event in seen)
    assert len({event["event_id"] for event in seen}) == len(seen)


async def test_scrolling_forward_from_the_first_event(rooms: RoomServer) -> None:
    alice, _, room = await a_room(rooms, 3)
    page = await rooms.get(alice, path(room, "messages"), dir="f", limit="100")
    assert page["chunk"][0]["type"] == "m.room.create"
    assert bodies(page["chunk"]) == ["0", "1", "2"]
    assert "end" not in page


async def test_the_gap_of_a_limited_sync_is_filled_to_its_token(rooms: RoomServer) -> None:
    alice, bob, room = await a_room(rooms)
    first = await rooms.get(bob, "/sync")
    for number in range(30):
        await room.send(alice, str(number))
    second = await rooms.get(bob, "/sync", since=first["next_batch"])
    timeline = second["rooms"]["join"][room.room_id]["timeline"]
    query = {"dir": "b", "limit": "100", "from": timeline["prev_batch"], "to": first["next_batch"]}
    page = await rooms.get(bob, path(room, "messages"), **query)
    assert bodies(page["chunk"][::-1] + timeline["events"]) == [str(number) for number in range(30)]
    assert "end" not in page
    forward = {"dir": "f", "limit": "100", "from": first["next_batch"]}
    page = await rooms.get(bob, path(room, "messages"), **forward)
    assert bodies(page["chunk"]) == [str(number) for number in range(30)]


async def test_other_servers_are_asked_for_what_is_before_the_oldest_event(rooms: RoomServer) -> None:
    alice, _, room = await a_room(rooms)
    live = await room.live()
    oldest = (await room.timeline())[0]
    page = await rooms.get(alice, path(room, "messages"), dir="b", limit="100")
    assert "end" not in page
    assert rooms.elsewhere.asked == []

    async def lack(tx: Transaction) -> None:
        await event_storage.add_missing(tx, live.nid, ["$missing"], oldest.pos or 0)

    await rooms.world.db.write(lack)
    page = await rooms.get(alice, path(room, "messages"), dir="b", limit="100")
    assert "end" not in page
    assert len(rooms.elsewhere.asked) == 1


async def test_the_filter_and_lazily_loaded_members(rooms: RoomServer) -> None:
    alice, bob, room = await a_room(rooms, 2)
    await room.send(bob, "from bob")
    wanted = orjson.dumps({"senders": [bob], "types": ["m.room.message"], "lazy_load_members": True}).decode()
    page = await rooms.get(alice, path(room, "messages"), dir="b", filter=wanted)
    assert bodies(page["chunk"]) == ["from bob"]
    assert [event["state_key"] for event in page["state"]] == [bob]


async def test_odd_parameters_are_refused(rooms: RoomServer) -> None:
    alice, _, room = await a_room(rooms)
    messages = path(room, "messages")
    assert await rooms.refusal(alice, messages) == (400, "M_MISSING_PARAM")
    assert await rooms.refusal(alice, messages, dir="x") == (400, "M_INVALID_PARAM")
    assert await rooms.refusal(alice, messages, dir="b", **{"from": "nonsense"}) == (400, "M_INVALID_PARAM")
    assert await rooms.refusal(alice, messages, dir="b", filter="{") == (400, "M_INVALID_PARAM")
    assert await rooms.refusal(alice, messages, dir="b", limit="-1") == (400, "M_INVALID_PARAM")
    assert await rooms.refusal(alice, "/sync", since="s1_1_2_3_4_5") == (400, "M_INVALID_PARAM")
    assert await rooms.refusal(alice, "/sync", filter="7") == (400, "M_INVALID_PARAM")


async def test_strangers_see_nothing(rooms: RoomServer) -> None:
    _, _, room = await a_room(rooms, 1)
    eve = rooms.world.user("eve")
    for rest in ("messages?dir=b", "state", "members", "joined_members", "state/m.room.create"):
        base, _, query = rest.partition("?")
        given = {"dir": "b"} if query else {}
        assert await rooms.refusal(eve, path(room, base), **given) == (403, "M_FORBIDDEN")
    event = (await room.timeline())[-1]
    assert await rooms.refusal(eve, path(room, f"event/{segment(event.id)}")) == (404, "M_NOT_FOUND")


async def test_rooms_open_to_the_world_are_seen_by_everybody(rooms: RoomServer) -> None:
    alice, _, room = await a_room(rooms)
    await room.set_state(alice, "m.room.history_visibility", {"history_visibility": "world_readable"})
    await room.send(alice, "to the world")
    eve = rooms.world.user("eve")
    page = await rooms.get(eve, path(room, "messages"), dir="b")
    assert bodies(page["chunk"]) == ["to the world"]
    assert page["chunk"][0]["unsigned"]["membership"] == "leave"
    assert await rooms.get(eve, path(room, "state/m.room.create"))
    assert await rooms.refusal(eve, path(room, "joined_members")) == (403, "M_FORBIDDEN")


async def test_who_left_sees_the_room_as_it_was(rooms: RoomServer) -> None:
    alice, bob, room = await a_room(rooms)
    await room.set_state(alice, "m.room.topic", {"topic": "then"})
    await room.send(alice, "before")
    await room.leave(bob)
    after = await room.send(alice, "after")
    await room.set_state(alice, "m.room.topic", {"topic": "now"})
    page = await rooms.get(bob, path(room, "messages"), dir="b")
    assert bodies(page["chunk"]) == ["before"]
    assert (await rooms.get(bob, path(room, "state/m.room.topic")))["topic"] == "then"
    state = {
        (event["type"], event["state_key"]): event for event in await rooms.get(bob, path(room, "state"))
    }
    assert state["m.room.topic", ""]["content"]["topic"] == "then"
    assert state["m.room.member", bob]["content"]["membership"] == "leave"
    assert await rooms.refusal(bob, path(room, f"event/{segment(after.id)}")) == (404, "M_NOT_FOUND")
    members = await rooms.get(bob, path(room, "members"), membership="join")
    assert [event["state_key"] for event in members["chunk"]] == [alice]


@pytest.mark.parametrize(
    ("visibility", "seen"),
    [
        ("shared", ["before", "invited", "joined"]),
        ("invited", ["invited", "joined"]),
        ("joined", ["joined"]),
    ],
)
async def test_history_visibility(rooms: RoomServer, visibility: str, seen: list[str]) -> None:
    alice, carol = rooms.world.user("alice"), rooms.world.user("carol")
    room = await rooms.world.private_room(alice)
    await room.set_state(alice, "m.room.history_visibility", {"history_visibility": visibility})
    await room.send(alice, "before")
    await room.invite(alice, carol)
    await room.send(alice, "invited")
    await room.join(carol)
    await room.send(alice, "joined")
    page = await rooms.get(carol, path(room, "messages"), dir="b", limit="100")
    assert bodies(page["chunk"])[::-1] == seen


async def test_context_shows_both_sides_and_the_state(rooms: RoomServer) -> None:
    alice, _, room = await a_room(rooms, 5)
    event = next(stored for stored in await room.timeline() if stored.event.content.get("body") == "2")
    await room.set_state(alice, "m.room.topic", {"topic": "later"})
    reply = await rooms.get(alice, path(room, f"context/{segment(event.id)}"), limit="4")
    assert reply["event"]["event_id"] == event.id
    assert bodies(reply["events_before"]) == ["1", "0"]
    assert bodies(reply["events_after"]) == ["3", "4"]
    assert "m.room.topic" not in {state["type"] for state in reply["state"]}
    back = {"dir": "b", "limit": "100", "from": reply["start"]}
    assert bodies((await rooms.get(alice, path(room, "messages"), **back))["chunk"]) == []
    on = {"dir": "f", "limit": "100", "from": reply["end"]}
    chunk = (await rooms.get(alice, path(room, "messages"), **on))["chunk"]
    assert [one["type"] for one in chunk] == ["m.room.topic"]


async def test_one_event_and_one_piece_of_state(rooms: RoomServer) -> None:
    alice, _, room = await a_room(rooms, 1)
    event = (await room.timeline())[-1]
    assert (await rooms.get(alice, path(room, f"event/{segment(event.id)}")))["content"]["body"] == "0"
    create = await rooms.get(alice, path(room, "state/m.room.create"), format="event")
    assert (create["type"], create["state_key"], create["sender"]) == ("m.room.create", "", alice)
    member = await rooms.get(alice, path(room, f"state/m.room.member/{segment(alice)}"))
    assert member == {"membership": "join", "displayname": "Alice"}
    assert await rooms.refusal(alice, path(room, "state/m.room.nothing")) == (404, "M_NOT_FOUND")


async def test_members_now_and_then(rooms: RoomServer) -> None:
    alice, bob, room = await a_room(rooms)
    then = (await rooms.get(alice, "/sync"))["next_batch"]
    await room.leave(bob)

    async def members(**query: str) -> set[str]:
        reply = await rooms.get(alice, path(room, "members"), **query)
        return {event["state_key"] for event in reply["chunk"]}

    assert await members() == {alice, bob}
    assert await members(membership="join") == {alice}
    assert await members(not_membership="join") == {bob}
    assert await members(membership="join", at=then) == {alice, bob}
    reply = await rooms.get(alice, path(room, "joined_members"))
    assert reply == {"joined": {alice: {"display_name": "Alice", "avatar_url": ""}}}


async def test_a_sender_has_the_reply_before_their_sync_tells_of_the_event(
    rooms: RoomServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = rooms.world.user("alice")
    room = await rooms.world.public_room(alice)
    since = (await rooms.get(alice, "/sync"))["next_batch"]
    answered: list[str] = []
    notifier, waiting = rooms.sync_server.notifier, asyncio.Event()
    add = notifier.add
    monkeypatch.setattr(notifier, "add", lambda *args: (add(*args), waiting.set()))

    async def sync() -> None:
        reply = await rooms.get(alice, "/sync", since=since, timeout="10000")
        assert reply["rooms"]["join"]
        answered.append("sync")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(sync())
        await waiting.wait()
        body = {"msgtype": "m.text", "body": "x"}
        await rooms.call(alice, "PUT", f"/rooms/{segment(room.room_id)}/send/m.room.message/t", body)
        answered.append("send")

    assert answered == ["send", "sync"]
