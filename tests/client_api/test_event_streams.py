"""The event stream of before ``/sync``, looking into rooms one is not in, and initial syncs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from homeserver.rooms.new_room import InitialState
from homeserver.storage.database import Database
from homeserver.sync.event_stream import MAX_EVENTS
from tests.client_api.room_server import RoomServer, room_server, segment
from tests.world import WorldRoom

WORLD_READABLE = [InitialState("m.room.history_visibility", {"history_visibility": "world_readable"})]


@pytest.fixture
async def server(sqlite_database: Database) -> AsyncIterator[RoomServer]:
    """A running server whose people see who is there."""
    async with room_server(sqlite_database, presence=True) as running:
        yield running


@pytest.fixture
def alice(server: RoomServer) -> str:
    return server.world.user("alice")


@pytest.fixture
def bob(server: RoomServer) -> str:
    return server.world.user("bob")


def path(room: WorldRoom, below: str) -> str:
    return f"/rooms/{segment(room.room_id)}/{below}"


def bodies(events: list[dict[str, Any]]) -> list[str]:
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


async def now(server: RoomServer, user_id: str) -> str:
    """A token for what comes from now on."""
    reply = await server.get(user_id, "/events")
    return str(reply["end"])


async def until_waiting(server: RoomServer, user_id: str) -> None:
    """Somebody's request has found nothing and waits."""
    while not server.world.core.notifier._by_user.get(user_id):  # noqa: ASYNC110
        await asyncio.sleep(0)


async def test_the_stream_tells_what_is_new_in_all_rooms(server: RoomServer, alice: str, bob: str) -> None:
    rooms = [await server.world.public_room(alice) for _ in range(2)]
    start = await now(server, alice)
    for number, room in enumerate(rooms):
        await room.join(bob)
        await room.send(bob, f"hello {number}")

    reply = await server.get(alice, "/events", **{"from": start})

    assert reply["start"] == start
    assert bodies(reply["chunk"]) == ["hello 0", "hello 1"]
    in_rooms = [event for event in reply["chunk"] if event["type"] == "m.room.message"]
    assert [event["room_id"] for event in in_rooms] == [room.room_id for room in rooms]
    assert "event_id" in in_rooms[0]
    again = await server.get(alice, "/events", **{"from": reply["end"]})
    assert bodies(again["chunk"]) == []


async def test_the_stream_waits(server: RoomServer, alice: str, bob: str) -> None:
    room = await server.world.public_room(alice)
    await room.join(bob)
    start = await now(server, alice)
    waiting = asyncio.create_task(server.get(alice, "/events", **{"from": start}, timeout="30000"))
    await until_waiting(server, alice)

    await room.send(bob, "awake")

    assert bodies((await asyncio.wait_for(waiting, 10))["chunk"]) == ["awake"]


async def test_tokens_of_sync_serve_too(server: RoomServer, alice: str, bob: str) -> None:
    room = await server.world.public_room(alice)
    synced = (await server.get(alice, "/sync"))["next_batch"]
    await room.send(alice, "since the sync")

    reply = await server.get(alice, "/events", **{"from": synced})
    assert bodies(reply["chunk"]) == ["since the sync"]

    await room.send(alice, "since the stream")
    synced_on = await server.get(alice, "/sync", since=reply["end"])
    assert bodies(synced_on["rooms"]["join"][room.room_id]["timeline"]["events"]) == ["since the stream"]
    back = await server.get(alice, path(room, "messages"), dir="b", limit="1", **{"from": reply["end"]})
    assert bodies(back["chunk"]) == ["since the sync"]
    assert await server.refusal(alice, "/events", **{"from": "nonsense"}) == (400, "M_INVALID_PARAM")


async def test_a_long_absence_is_told_in_pieces(server: RoomServer, alice: str) -> None:
    rooms = [await server.world.public_room(alice) for _ in range(2)]
    token = await now(server, alice)
    sent = [f"{number}" for number in range(MAX_EVENTS + 30)]
    for number, body in enumerate(sent):
        await rooms[number % 2].send(alice, body)

    told: list[str] = []
    for _ in range(3):
        reply = await server.get(alice, "/events", **{"from": token})
        assert len(reply["chunk"]) <= MAX_EVENTS + 1
        told += bodies(reply["chunk"])
        token = reply["end"]

    assert told == sent


async def test_sync_goes_on_with_what_the_stream_does_not_tell(
    server: RoomServer, alice: str, bob: str
) -> None:
    room = await server.world.public_room(alice)
    await room.join(bob)
    said = await room.send(alice, "hello")
    await server.sync_server.add_device(alice, "PHONE")
    start = await now(server, alice)
    await server.call(bob, "PUT", path(room, f"typing/{segment(bob)}"), {"typing": True, "timeout": 30000})
    to_alice = {"messages": {alice: {"PHONE": {"secret": 1}}}}
    await server.call(bob, "PUT", "/sendToDevice/org.example.key/1", to_alice)
    await room.send(bob, "good morning")

    reply = await server.get(alice, "/events", **{"from": start})
    synced = await server.get(alice, "/sync", since=reply["end"])

    assert bodies(reply["chunk"]) == ["good morning"]
    assert {event["type"] for event in reply["chunk"]} == {"m.room.message"}
    assert [message["content"] for message in synced["to_device"]["events"]] == [{"secret": 1}]
    ephemeral = synced["rooms"]["join"][room.room_id]["ephemeral"]["events"]
    assert {"type": "m.typing", "content": {"user_ids": [bob]}} in ephemeral
    assert said.id not in {event["event_id"] for event in reply["chunk"]}


async def test_an_invite_and_a_removal_are_in_the_stream(server: RoomServer, alice: str, bob: str) -> None:
    room = await server.world.private_room(alice)
    start = await now(server, bob)
    await room.invite(alice, bob)

    invited = await server.get(bob, "/events", **{"from": start})
    await room.join(bob)
    await server.world.membership.kick(alice, room.room_id, bob)
    await room.send(alice, "behind the door")
    removed = await server.get(bob, "/events", **{"from": invited["end"]})

    def own(chunk: list[dict[str, Any]]) -> list[str]:
        return [event["content"]["membership"] for event in chunk if event.get("state_key") == bob]

    assert own(invited["chunk"]) == ["invite"]
    assert own(removed["chunk"]) == ["join", "leave"]
    assert bodies(removed["chunk"]) == []


async def test_a_world_readable_room_is_open_to_everybody(server: RoomServer, alice: str, bob: str) -> None:
    room = await server.world.public_room(alice, initial_state=WORLD_READABLE)
    said = await room.send(alice, "hello world")

    assert bodies((await server.get(bob, path(room, "messages"), dir="b"))["chunk"]) == ["hello world"]
    assert any(event["type"] == "m.room.create" for event in await server.get(bob, path(room, "state")))
    visibility = await server.get(bob, path(room, "state/m.room.history_visibility"))
    assert visibility == {"history_visibility": "world_readable"}
    assert (await server.get(bob, path(room, "members")))["chunk"]
    around = await server.get(bob, path(room, f"context/{segment(said.id)}"))
    assert around["event"]["event_id"] == said.id
    assert (await server.get(bob, path(room, f"event/{segment(said.id)}")))["event_id"] == said.id
    assert (await server.get(bob, f"/events/{segment(said.id)}"))["event_id"] == said.id


async def test_somebody_looks_on_without_being_in_the_room(server: RoomServer, alice: str, bob: str) -> None:
    room = await server.world.public_room(alice, initial_state=WORLD_READABLE)
    await room.send(alice, "before")

    first = await server.get(bob, path(room, "initialSync"))
    waiting = asyncio.create_task(
        server.get(
            bob, "/events", **{"from": first["messages"]["end"]}, room_id=room.room_id, timeout="30000"
        )
    )
    await until_waiting(server, bob)
    await room.send(alice, "live")
    live = await asyncio.wait_for(waiting, 10)

    assert "membership" not in first
    assert bodies(first["messages"]["chunk"]) == ["before"]
    assert any(event["type"] == "m.room.create" for event in first["state"])
    assert bodies(live["chunk"]) == ["live"]
    # What is said behind the door is not for those who stand before it.
    await room.set_state(alice, "m.room.history_visibility", {"history_visibility": "shared"})
    await room.send(alice, "private")
    assert await server.refusal(bob, path(room, "initialSync")) == (403, "M_FORBIDDEN")
    assert await server.refusal(bob, "/events", room_id=room.room_id) == (403, "M_FORBIDDEN")


async def test_other_rooms_are_closed_to_who_is_not_in_them(server: RoomServer, alice: str, bob: str) -> None:
    room = await server.world.public_room(alice)
    said = await room.send(alice, "among us")

    for below in ("initialSync", "messages?dir=b", "state", "members", f"context/{segment(said.id)}"):
        assert await server.refusal(bob, path(room, below)) == (403, "M_FORBIDDEN")
    assert await server.refusal(bob, "/events", room_id=room.room_id) == (403, "M_FORBIDDEN")
    assert await server.refusal(bob, f"/events/{segment(said.id)}") == (404, "M_NOT_FOUND")
    assert await server.refusal(bob, "/events", room_id="!nowhere:elsewhere.example") == (403, "M_FORBIDDEN")
    assert await server.refusal(bob, f"/rooms/{segment('!nowhere:elsewhere.example')}/initialSync") == (
        403,
        "M_FORBIDDEN",
    )


async def test_an_initial_sync_holds_every_room(server: RoomServer, alice: str, bob: str) -> None:
    world = server.world
    joined = await world.public_room(alice, visibility="public")
    invited, left = await world.private_room(bob), await world.public_room(bob)
    for number in range(4):
        await joined.send(alice, f"{number}")
    await invited.invite(bob, alice)
    await left.join(alice)
    await left.send(bob, "with you")
    await left.leave(alice)
    await left.send(bob, "without you")
    await server.call(alice, "PUT", f"/user/{segment(alice)}/account_data/org.example.mine", {"a": 1})
    tags = f"/user/{segment(alice)}/rooms/{segment(joined.room_id)}/tags/work"
    await server.call(alice, "PUT", tags, {"order": 0.5})

    reply = await server.get(alice, "/initialSync", limit="2")
    archived = await server.get(alice, "/initialSync", limit="2", archived="true")

    rooms = {room["room_id"]: room for room in reply["rooms"]}
    assert rooms.keys() == {joined.room_id, invited.room_id}
    info = rooms[joined.room_id]
    assert (info["membership"], info["visibility"]) == ("join", "public")
    assert bodies(info["messages"]["chunk"]) == ["2", "3"]
    assert {event["type"] for event in info["account_data"]} == {"m.tag"}
    assert any(event["type"] == "m.room.member" for event in info["state"])
    invite = rooms[invited.room_id]
    assert (invite["membership"], invite["inviter"]) == ("invite", bob)
    assert invite["invite"]["content"]["membership"] == "invite"
    assert {event["type"] for event in reply["account_data"]} == {"org.example.mine"}
    was_there = {room["room_id"]: room for room in archived["rooms"]}[left.room_id]
    assert was_there["membership"] == "leave"
    assert bodies(was_there["messages"]["chunk"]) == ["with you"]
    earlier = await server.get(
        alice, path(joined, "messages"), dir="b", limit="2", **{"from": info["messages"]["start"]}
    )
    assert bodies(earlier["chunk"]) == ["1", "0"]
    await joined.send(alice, "next")
    assert bodies((await server.get(alice, "/events", **{"from": reply["end"]}))["chunk"]) == ["next"]


async def test_one_room_as_a_member_sees_it(server: RoomServer, alice: str, bob: str) -> None:
    room = await server.world.public_room(alice)
    await room.join(bob)
    said = await room.send(alice, "hello")
    await server.call(bob, "POST", path(room, f"receipt/m.read/{segment(said.id)}"), {})
    await server.call(bob, "PUT", f"/presence/{segment(bob)}/status", {"presence": "online"})

    info = await server.get(alice, path(room, "initialSync"))

    assert (info["room_id"], info["membership"], info["visibility"]) == (room.room_id, "join", "private")
    assert bodies(info["messages"]["chunk"]) == ["hello"]
    assert [event["sender"] for event in info["presence"]] == [bob]
    assert info["receipts"][0]["content"][said.id]["m.read"].keys() == {bob}


async def test_who_left_sees_the_room_as_it_was(server: RoomServer, alice: str, bob: str) -> None:
    room = await server.world.public_room(alice)
    await room.join(bob)
    await room.send(alice, "with bob")
    await room.leave(bob)
    await room.set_state(alice, "m.room.topic", {"topic": "without bob"})
    await room.send(alice, "without bob")

    info = await server.get(bob, path(room, "initialSync"))

    assert info["membership"] == "leave"
    assert bodies(info["messages"]["chunk"]) == ["with bob"]
    assert "m.room.topic" not in {event["type"] for event in info["state"]}
    assert info["receipts"] == info["presence"] == []
