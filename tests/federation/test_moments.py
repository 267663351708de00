"""Finding events by their time, also those that only another server has."""

from __future__ import annotations

import pytest

from homeserver.errors import MatrixError, RemoteError
from homeserver.storage.events import StoredEvent
from homeserver.storage.moments import Direction
from tests.remote import Network, Server


async def talk(server: Server, room_id: str, sender: str, *bodies: str) -> dict[str, StoredEvent]:
    """Messages, a minute apart."""
    said = {}
    for body in bodies:
        server.network.clock.advance(60)
        said[body] = await server.say(room_id, sender, body)
    server.network.clock.advance(60)
    return said


def time_of(stored: StoredEvent) -> int:
    return stored.event.origin_server_ts


async def found(server: Server, user_id: str, room_id: str, ts: int, direction: Direction) -> str | None:
    """The text of the closest event, or its type."""
    try:
        stored = await server.finding.moments.closest_for_user(user_id, room_id, ts, direction)
    except MatrixError as error:
        return None if error.errcode == "M_NOT_FOUND" else error.errcode
    body = stored.event.content.get("body")
    return body if isinstance(body, str) else stored.event.type


async def read_back(server: Server, user_id: str, room_id: str, start: int | None = None) -> list[str]:
    """Everything from a position backwards, newest first: texts of messages and types of others."""
    history = server.reading.history
    view = await history.view(user_id, room_id)
    seen: list[str] = []
    while True:
        page = await history.backward(view, start, None, 20, lambda stored: True)
        for one in page.events:
            body = one.stored.event.content.get("body")
            seen.append(body if isinstance(body, str) else one.stored.event.type)
        if page.end is None:
            return seen
        start = page.end


async def test_the_closest_event_on_each_side_is_found(here: Server) -> None:
    alice = here.user("alice")
    room_id = await here.public_room(alice)
    said = await talk(here, room_id, alice, "first", "second")
    first, second = time_of(said["first"]), time_of(said["second"])

    assert await found(here, alice, room_id, first + 1, "f") == "second"
    assert await found(here, alice, room_id, second - 1, "b") == "first"
    assert await found(here, alice, room_id, first, "f") == "first"
    assert await found(here, alice, room_id, first, "b") == "first"
    assert await found(here, alice, room_id, second + 1, "f") is None
    assert await found(here, alice, room_id, 0, "b") is None
    assert await found(here, alice, room_id, 0, "f") == "m.room.create"
    assert await found(here, alice, room_id, 2**53, "b") == "second"


async def test_of_events_of_one_time_the_nearest_in_the_timeline_counts(here: Server) -> None:
    alice = here.user("alice")
    room_id = await here.public_room(alice)
    here.network.clock.advance(60)
    now = here.network.clock.now_ms()
    for body in ("one", "two", "three"):
        await here.say(room_id, alice, body)

    assert await found(here, alice, room_id, now, "f") == "one"
    assert await found(here, alice, room_id, now, "b") == "three"


async def test_what_somebody_may_not_see_is_passed_over(here: Server) -> None:
    alice, bob = here.user("alice"), here.user("bob")
    room_id = await here.public_room(alice)
    await here.set_state(room_id, alice, "m.room.history_visibility", {"history_visibility": "joined"})
    said = await talk(here, room_id, alice, "secret")
    await here.join(bob, room_id)

    assert await found(here, bob, room_id, time_of(said["secret"]), "f") == "m.room.member"
    assert await found(here, bob, room_id, time_of(said["secret"]), "b") != "secret"


async def test_nobody_outside_is_answered(here: Server, there: Server) -> None:
    room_id = await here.public_room(here.user("alice"))

    with pytest.raises(MatrixError) as refused:
        await here.finding.moments.closest_for_user(here.user("bob"), room_id, 0, "f")
    assert refused.value.errcode == "M_FORBIDDEN"
    with pytest.raises(RemoteError) as refusal:
        await there.client.timestamp_to_event(here.name, room_id, 0, "f")
    assert (refusal.value.status, refusal.value.errcode) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("direction", ["f", "b"])
async def test_an_event_from_before_the_join_is_fetched_and_read_on_from(
    here: Server, there: Server, network: Network, direction: Direction
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    texts = [f"message {number}" for number in range(40)]
    said = await talk(here, room_id, alice, *texts)
    await there.join(bob, room_id, here)
    wanted = time_of(said["message 20"])

    assert await found(there, bob, room_id, wanted, direction) == "message 20"
    asked = network.asked_for("/timestamp_to_event/")
    assert await found(there, bob, room_id, wanted, "b") == "message 20"
    assert network.asked_for("/timestamp_to_event/") <= asked + 1

    stored = await there.events.by_id(said["message 20"].id)
    assert stored is not None
    before = await read_back(there, bob, room_id, stored.pos)
    assert [text for text in before if text.startswith("message")] == texts[20::-1]
    everything = await read_back(there, bob, room_id)
    assert [text for text in everything if text.startswith("message")] == texts[::-1]
    assert everything[-1] == "m.room.create"
    assert len(everything) == len(await read_back(here, alice, room_id))


async def test_jumps_in_any_order_leave_the_history_whole(here: Server, there: Server) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    texts = [f"message {number}" for number in range(60)]
    said = await talk(here, room_id, alice, *texts)
    await there.join(bob, room_id, here)

    for number in (30, 45, 10, 46, 29):
        assert await found(there, bob, room_id, time_of(said[texts[number]]), "f") == texts[number]

    everything = await read_back(there, bob, room_id)
    assert [text for text in everything if text.startswith("message")] == texts[::-1]


async def test_nobody_is_asked_where_nothing_is_missing(
    here: Server, there: Server, network: Network
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    await there.join(bob, room_id, here)
    said = await talk(here, room_id, alice, "one", "two")
    await network.settle()

    assert await found(there, bob, room_id, time_of(said["one"]) + 1, "f") == "two"
    assert network.asked_for("/timestamp_to_event/") == 0


async def test_a_server_that_is_gone_leaves_what_is_known(
    here: Server, there: Server, network: Network
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    said = await talk(here, room_id, alice, "before")
    await there.join(bob, room_id, here)
    network.down.add(here.name)

    assert await found(there, bob, room_id, time_of(said["before"]), "b") is None
    assert await found(there, bob, room_id, time_of(said["before"]), "f") is not None


async def test_another_server_is_told_what_its_users_may_see(here: Server, there: Server) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    await here.set_state(room_id, alice, "m.room.history_visibility", {"history_visibility": "joined"})
    said = await talk(here, room_id, alice, "secret")
    await there.join(bob, room_id, here)

    event_id, ts = await there.client.timestamp_to_event(here.name, room_id, time_of(said["secret"]), "f")

    assert event_id != said["secret"].id
    assert ts > time_of(said["secret"])
