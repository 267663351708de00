"""Rooms shared with servers that keep messages longer: what is over here stays so."""

from __future__ import annotations

import pytest

from federation.events import walk_back
from homeserver.errors import RemoteError
from homeserver.protocol.retention import Lifetimes
from homeserver.rooms.purge import Purge
from homeserver.storage import events as event_storage
from tests.federation.conftest import StartServer
from tests.federation.test_transactions import shared_room
from tests.remote import Network, Server

_DAY_S = 24 * 3600
_FAR = 1 << 62


@pytest.fixture
async def here(start: StartServer) -> Server:
    """A server that keeps messages for a week."""
    return await start("here.example", lifetimes=Lifetimes(default_max=7 * _DAY_S * 1000))


async def purge(server: Server, room_id: str) -> int:
    """Purge what is older than a week."""
    before = server.core.clock.now_ms() - 7 * _DAY_S * 1000
    return await Purge(server.db, server.rooms, server.events, pause=0).older_than(room_id, before)


async def read(server: Server, room_id: str, user_id: str) -> list[str]:
    """What a user reads, scrolling back as far as it goes, the newest first."""
    history = server.reading.history
    page = await history.backward(await history.view(user_id, room_id), None, None, 100, lambda _: True)
    texts = [one.stored.event.content.get("body") for one in page.events]
    return [text for text in texts if isinstance(text, str)]


@pytest.mark.parametrize("is_purged", [False, True], ids=["over", "purged"])
async def test_what_is_over_is_given_to_no_server(
    here: Server, there: Server, network: Network, is_purged: bool
) -> None:
    room_id, alice, _ = await shared_room(here, there)
    old = [await here.say(room_id, alice, f"old {number}") for number in range(3)]
    network.clock.advance(8 * _DAY_S)
    topic = await here.set_state(room_id, alice, "m.room.topic", {"topic": "kept"})
    new = await here.say(room_id, alice, "new")
    if is_purged:
        assert await purge(here, room_id) == 3

    with pytest.raises(RemoteError) as refused:
        await there.client.get_event(here.name, old[1].id)
    backfilled = await there.client.backfill(here.name, room_id, [new.id], 20)
    missing = await there.client.get_missing_events(
        here.name, room_id, earliest_events=[old[0].id], latest_events=[new.id], limit=20
    )

    assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")
    assert [pdu["content"]["body"] for pdu in backfilled if "body" in pdu["content"]] == ["new"]
    # History goes on behind what is left out.
    assert "m.room.create" in {pdu["type"] for pdu in backfilled}
    assert [pdu["type"] for pdu in missing] == ["m.room.topic"]
    assert topic.event.prev_events == (old[2].id,)


async def test_no_server_brings_back_what_was_purged(here: Server, there: Server, network: Network) -> None:
    room_id, alice, bob = await shared_room(here, there)
    old = await here.say(room_id, alice, "old")
    await there.say(room_id, bob, "old too")
    await network.settle()
    assert await read(here, room_id, alice) == ["old too", "old"]
    network.clock.advance(8 * _DAY_S)
    await here.say(room_id, alice, "new")
    await network.settle()
    assert await purge(here, room_id) == 2

    pdu = await there.events.by_id(old.id)
    assert pdu is not None
    again = await here.inbound.receive(there.name, room_id, pdu.event.pdu)
    await here.backfill.fill(await here.room(room_id), -_FAR, _FAR, 100)

    assert again.purged
    assert await read(here, room_id, alice) == ["new"]
    stored = await event_storage.by_id(here.db.read, old.id)
    assert stored is not None
    assert stored.event.content == {}


async def test_history_that_is_over_is_not_fetched(
    start: StartServer, network: Network, here: Server
) -> None:
    there = await start("there.example")
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await there.public_room(bob)
    await there.say(room_id, bob, "before alice")
    await here.join(alice, room_id, there)
    network.clock.advance(8 * _DAY_S)

    assert await read(here, room_id, alice) == []

    assert network.asked_for("backfill") == 0


async def test_the_room_goes_on_on_both_sides(here: Server, there: Server, network: Network) -> None:
    room_id, alice, bob = await shared_room(here, there)
    for number in range(5):
        await here.say(room_id, alice, f"old {number}")
        await there.say(room_id, bob, f"old {number} from there")
        await network.settle()
    network.clock.advance(8 * _DAY_S)
    assert await purge(here, room_id) > 0

    await there.say(room_id, bob, "new from there")
    await network.settle()
    await here.say(room_id, alice, "new")
    await there.set_state(room_id, bob, "m.room.member", {"membership": "join", "displayname": "B"}, bob)
    await network.settle()

    assert await read(here, room_id, alice) == ["new", "new from there"]
    assert await here.state_ids(room_id) == await there.state_ids(room_id)
    assert {tip.id for tip in (await here.room(room_id)).tips} == {
        tip.id for tip in (await there.room(room_id)).tips
    }


async def test_a_walk_goes_on_behind_what_was_purged(here: Server, there: Server, network: Network) -> None:
    room_id, alice, _ = await shared_room(here, there)
    topic = await here.set_state(room_id, alice, "m.room.topic", {"topic": "kept"})
    await here.say(room_id, alice, "old")
    network.clock.advance(8 * _DAY_S)
    new = await here.say(room_id, alice, "new")
    await purge(here, room_id)

    found = await walk_back(await here.room(room_id), here.events.by_ids, [new.id], limit=2)

    assert [one.id for one in found] == [new.id, topic.id]
