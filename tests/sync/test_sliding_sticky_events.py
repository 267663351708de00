"""Events that stick, over sliding sync (MSC4354)."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.errors import MatrixError
from tests.sync.server import SyncServer
from tests.sync.sliding_client import SlidingClient, sliding_of, top
from tests.sync.test_sticky_events import stick, talk
from tests.world import WorldRoom

NAME = "org.matrix.msc4354.sticky_events"


@pytest.fixture
def alice(server: SyncServer) -> SlidingClient:
    return SlidingClient(sliding_of(server), server.world.user("alice"))


async def ask(client: SlidingClient, **asked: Any) -> dict[str, Any]:
    return await client.sync(lists={"all": top()}, extensions={NAME: {"enabled": True, **asked}})


def told(response: dict[str, Any], room: WorldRoom) -> list[str]:
    rooms = response["extensions"].get(NAME, {"rooms": {}})["rooms"]
    return [one["event_id"] for one in rooms.get(room.room_id, {"events": []})["events"]]


async def test_they_are_told_once_beside_the_timeline(server: SyncServer, alice: SlidingClient) -> None:
    room = await server.world.public_room(alice.user_id)
    first = await stick(room, alice.user_id, "first")
    await talk(room, alice.user_id, 3)
    response = await ask(alice)
    assert told(response, room) == [first.id]
    assert response["extensions"][NAME]["next_batch"]
    (event,) = response["extensions"][NAME]["rooms"][room.room_id]["events"]
    assert event["msc4354_sticky"] == {"duration_ms": 600_000}
    assert event["unsigned"]["msc4354_sticky_duration_ttl_ms"] == 600_000
    second = await stick(room, alice.user_id, "second")
    response = await ask(alice)
    assert told(response, room) == []
    assert response["rooms"][room.room_id]["timeline"][-1]["event_id"] == second.id
    await talk(room, alice.user_id, 3)
    assert NAME not in (await ask(alice))["extensions"]


async def test_a_client_says_how_far_it_is_and_how_many_it_takes(
    server: SyncServer, alice: SlidingClient
) -> None:
    room = await server.world.public_room(alice.user_id)
    sent = [(await stick(room, alice.user_id, str(number))).id for number in range(5)]
    await talk(room, alice.user_id, 3)
    responses = [await ask(alice, limit=2) for _ in range(3)]
    assert [told(response, room) for response in responses] == [sent[:2], sent[2:4], sent[4:]]
    token = responses[1]["extensions"][NAME]["next_batch"]
    again = SlidingClient(alice.sliding, alice.user_id, conn_id="again")
    assert told(await ask(again, since=token), room) == sent[4:]


@pytest.mark.parametrize(
    "asked", [{"limit": 0}, {"limit": "2"}, {"limit": True}, {"since": "x"}, {"since": 7}]
)
async def test_what_is_no_number_is_refused(alice: SlidingClient, asked: dict[str, Any]) -> None:
    with pytest.raises(MatrixError, match=next(iter(asked))) as refused:
        await ask(alice, **asked)
    assert refused.value.errcode == "M_INVALID_PARAM"


async def test_who_comes_is_told_what_sticks(server: SyncServer, alice: SlidingClient) -> None:
    bob = server.world.user("bob")
    room = await server.world.public_room(bob)
    own = await server.world.public_room(alice.user_id)
    event = await stick(room, bob)
    await stick(own, alice.user_id, "own")
    await talk(room, bob, 3)
    assert told(await ask(alice), room) == []
    await room.join(alice.user_id)
    assert told(await ask(alice), room) == [event.id]
    assert told(await ask(alice), room) == []


async def test_what_sticks_ends_the_waiting(server: SyncServer, alice: SlidingClient) -> None:
    room = await server.world.public_room(alice.user_id)
    stored = await stick(room, alice.user_id)
    await talk(room, alice.user_id, 3)
    await ask(alice)
    live = await room.live()
    (known,) = server.world.core.sticky.between([live.nid], 0, 2**62, 5)
    waiting = alice.wait(lists={"all": top()}, extensions={NAME: {"enabled": True}})
    # As if it had been soft-failed until now.
    written = server.world.core.sticky_checks._let_stick([known])
    assert written is not None
    await written
    assert told(await waiting, room) == [stored.id]
