"""Only what the user may see is found, and counted."""

from __future__ import annotations

import pytest

from homeserver.protocol.events import StateKey
from homeserver.rooms.new_room import InitialState
from tests.search.library import Library
from tests.world import WorldRoom

ALICE, BOB, CAROL = (f"@{name}:here.example" for name in ("alice", "bob", "carol"))
KEY: StateKey = ("m.room.history_visibility", "")


async def room_with(library: Library, visibility: str) -> WorldRoom:
    state = [InitialState(*KEY[:1], {"history_visibility": visibility})]
    return await library.world.public_room(ALICE, initial_state=state)


@pytest.mark.parametrize(
    ("visibility", "found"),
    [
        ("joined", ["heron 2"]),
        ("invited", ["heron 2", "heron 1"]),
        ("shared", ["heron 2", "heron 1", "heron 0"]),
        ("world_readable", ["heron 3", "heron 2", "heron 1", "heron 0"]),
    ],
)
async def test_the_history_of_a_room_decides(library: Library, visibility: str, found: list[str]) -> None:
    room = await room_with(library, visibility)
    await room.send(ALICE, "heron 0")
    await room.invite(ALICE, BOB)
    await room.send(ALICE, "heron 1")
    await room.join(BOB)
    await room.send(ALICE, "heron 2")
    await room.leave(BOB)
    await room.send(ALICE, "heron 3")
    assert await library.bodies(BOB, "heron") == found
    assert (await library.search(BOB, "heron"))["count"] == len(found)
    assert (await library.search(ALICE, "heron"))["count"] == 4
    assert (await library.search(CAROL, "heron"))["count"] == 0


async def test_rooms_of_others_and_forgotten_rooms_are_not_searched(library: Library) -> None:
    room = await library.room(ALICE, BOB)
    await room.send(ALICE, "stork")
    assert (await library.search(BOB, "stork"))["count"] == 1
    await room.leave(BOB)
    assert (await library.search(BOB, "stork"))["count"] == 1
    await library.server.call(BOB, "POST", f"/rooms/{room.room_id}/forget", {})
    assert (await library.search(BOB, "stork"))["count"] == 0
    assert (await library.search(BOB, "stork", filter={"rooms": [room.room_id]}))["count"] == 0
    await room.invite(ALICE, CAROL)
    assert (await library.search(CAROL, "stork"))["count"] == 0


async def test_messages_of_ignored_users_are_not_found(library: Library) -> None:
    room = await library.room(ALICE, BOB)
    await room.send(BOB, "crane")
    await room.send(ALICE, "crane too")
    content = {"ignored_users": {BOB: {}}}
    path = f"/user/{ALICE}/account_data/m.ignored_user_list"
    assert (await library.server.call(ALICE, "PUT", path, content))[0] == 200
    found = await library.search(ALICE, "crane", event_context={})
    assert found["count"] == 1
    context = found["results"][0]["context"]
    around = context["events_before"] + context["events_after"]
    assert [one["type"] for one in around if one["sender"] == BOB] == ["m.room.member"]
    assert (await library.search(BOB, "crane"))["count"] == 2


async def test_an_edit_that_somebody_may_not_see_is_not_found_by_them(library: Library) -> None:
    room = await room_with(library, "joined")
    await room.join(BOB)
    original = await room.send(ALICE, "ibis")
    await room.leave(BOB)
    content = {
        "body": "* eagle",
        "m.new_content": {"body": "eagle"},
        "m.relates_to": {"rel_type": "m.replace", "event_id": original.id},
    }
    await room.send_event(ALICE, "m.room.message", content)
    assert (await library.search(ALICE, "eagle"))["count"] == 1
    assert (await library.search(BOB, "eagle"))["count"] == 0


async def test_the_context_shows_no_more_than_one_may_see(library: Library) -> None:
    room = await room_with(library, "joined")
    await room.send(ALICE, "before")
    await room.join(BOB)
    await room.send(ALICE, "finch")
    await room.leave(BOB)
    await room.send(ALICE, "after")
    wanted = {"before_limit": 10, "after_limit": 10, "include_profile": True}
    found = await library.search(BOB, "finch", event_context=wanted, include_state=True)
    context = found["results"][0]["context"]
    around = context["events_before"] + context["events_after"]
    seen = [one["content"]["membership"] for one in around if one["type"] == "m.room.member"]
    assert seen == ["join", "join", "leave"]
    assert "m.room.message" not in [one["type"] for one in around]
    members = {
        one["state_key"]: one["content"]["membership"]
        for one in found["state"][room.room_id]
        if one["type"] == "m.room.member"
    }
    assert members == {ALICE: "join", BOB: "leave"}
