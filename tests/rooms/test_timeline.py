"""The write path and the state it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.events import StateKey
from homeserver.rooms.room import RECENT_EVENTS
from homeserver.rooms.send import Draft
from homeserver.rooms.state_store import MAX_OVERLAY_CHAIN
from homeserver.storage import events as event_storage
from homeserver.storage import state as state_storage
from homeserver.storage.database import Database, Transaction
from homeserver.storage.events import SOFT_FAILED, StoredEvent
from homeserver.storage.rooms import MEMBERSHIPS
from homeserver.storage.state import CurrentEntry, StateChange
from tests.world import ELSEWHERE, World, WorldRoom

MEMBERS = 50_000
#: Numbers that nothing else has; those of the events are older than every other.
FIRST_KEY, FIRST_EVENT = 10_000_000, -20_000_000

STATE_TABLES = ("state_log", "state_overlays", "state_checkpoints", "current_state")


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    world = await World.open(database)
    yield world
    await world.background.close()


async def names_at(world: World, room: WorldRoom, ref: int | None) -> dict[StateKey, str]:
    """The state at a reference, as event ids."""
    assert ref is not None
    events = await world.states.events_at(await room.live(), ref)
    return {key: stored.id for key, stored in events.items()}


async def rows(world: World) -> dict[str, int]:
    return {table: await world.db.read.fetch_value(f"SELECT COUNT(*) FROM {table}") for table in STATE_TABLES}


async def fill(world: World, room: WorldRoom, count: int) -> None:
    """Give a room more members than anybody would let join one by one: rows only, no events."""
    live = await room.live()
    numbers = range(count)

    async def add(tx: Transaction) -> None:
        await state_storage.add_keys(
            tx, ((FIRST_KEY + n, ("m.room.member", f"@user{n}:{ELSEWHERE}")) for n in numbers)
        )
        changes = (StateChange(FIRST_KEY + n, live.state_ver, FIRST_EVENT + n, 0) for n in numbers)
        await state_storage.log(tx, live.nid, live.epoch, changes)
        entries = [CurrentEntry(FIRST_KEY + n, FIRST_EVENT + n, MEMBERSHIPS["join"]) for n in numbers]
        await state_storage.set_current(tx, live.nid, entries)

    await world.db.write(add)


async def test_a_state_change_writes_tens_of_bytes_in_a_room_of_50000_members(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    await fill(world, room, MEMBERS)
    base = await room.send(alice, "before")

    before = await rows(world)
    await room.set_state(alice, "m.room.topic", {"topic": "new"})
    after = await rows(world)
    # Six integers: room, epoch, key, version, event, and the event before.
    assert {table: after[table] - before[table] for table in STATE_TABLES} == {
        "state_log": 1,
        "state_overlays": 0,
        "state_checkpoints": 0,
        "current_state": 1,
    }

    before = after
    await room.append_after([base], Draft(alice, "m.room.name", {"name": "fork"}, state_key=""))
    after = await rows(world)
    assert after["state_overlays"] - before["state_overlays"] == 1
    assert after["state_checkpoints"] == before["state_checkpoints"]
    overlay = await world.db.read.fetch_value("SELECT diff FROM state_overlays")
    assert len(overlay) == 16


async def bytes_of_state(world: World) -> int:
    """What the state tables and their indexes take in an SQLite file, free space in pages left out."""
    await world.db.write(flush)
    query = """SELECT SUM(s.pgsize - s.unused) FROM dbstat s JOIN sqlite_schema t ON t.name = s.name
               WHERE t.tbl_name IN ('state_log', 'state_overlays', 'state_checkpoints', 'current_state')"""
    taken: int = await world.db.scan.fetch_value(query)
    return taken


async def flush(_: Transaction) -> None:
    """A write behind every other: when it is done, so are they."""


async def test_the_bytes_of_a_state_change_do_not_grow_with_the_room(sqlite_database: Database) -> None:
    compiled = await sqlite_database.read.fetch("SELECT compile_options FROM pragma_compile_options")
    if ("ENABLE_DBSTAT_VTAB",) not in compiled:
        pytest.skip("this SQLite cannot tell how large its tables are")
    world = await World.open(sqlite_database)
    alice = world.user("alice")
    room = await world.public_room(alice)
    await fill(world, room, MEMBERS)

    before = await bytes_of_state(world)
    for number in range(300):
        await room.set_state(alice, "m.room.topic", {"topic": f"topic {number}"})
    each = (await bytes_of_state(world) - before) / 300

    assert each < 100, f"{each:.0f} bytes a change"
    await world.background.close()


async def test_messages_write_no_state_at_all(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    before = await rows(world)
    sent = [await room.send(alice, str(number)) for number in range(5)]
    assert await rows(world) == before
    assert len({stored.state_before for stored in sent} | {stored.state_after for stored in sent}) == 1


async def test_the_newest_events_are_at_hand(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    first = [stored.id for stored in await room.timeline()]
    sent = [await room.send(alice, str(number)) for number in range(RECENT_EVENTS + 10)]
    live = await room.live()
    assert [stored.id for stored in live.recent] == [stored.id for stored in sent[10:]]
    assert live.recent_after == sent[9].pos
    assert len(first) + len(sent) == await world.db.read.fetch_value("SELECT COUNT(*) FROM events")
    again = await (await world.reopen()).rooms.get(room.room_id)
    assert [stored.id for stored in again.recent] == [stored.id for stored in live.recent]
    assert again.recent_after == live.recent_after


async def test_positions_grow_and_are_announced_once_on_disk(world: World) -> None:
    alice = world.user("alice")
    room, other = await world.public_room(alice), await world.public_room(alice)
    world.announced.clear()
    sent = await asyncio.gather(
        *(one.send(alice, str(number)) for number in range(10) for one in (room, other))
    )
    positions = [news.pos for news in world.announced]
    assert positions == sorted(stored.pos or 0 for stored in sent)
    assert [stored.id for news in world.announced for stored in news.events] == [
        stored.id for stored in sorted(sent, key=lambda stored: stored.pos or 0)
    ]


async def test_a_redaction_empties_the_event_everywhere(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    secret = await room.send(alice, "secret")
    redaction = await room.redact(alice, secret.id)
    in_memory = next(stored for stored in await room.timeline() if stored.id == secret.id)
    on_disk = await event_storage.by_id(world.db.read, secret.id)
    cached = await world.events.by_id(secret.id)
    assert on_disk is not None
    assert cached is not None
    for stored in (in_memory, on_disk, cached):
        assert stored.event.content == {}
        assert stored.redacted_by == redaction.nid
        assert b"secret" not in stored.event.json


async def test_a_redacted_state_event_loses_its_content_in_the_current_state(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob", displayname="Bob")
    room = await world.public_room(alice, topic="secret")
    await room.join(bob)
    topic = (await room.live()).state["m.room.topic", ""]
    member = (await room.live()).members[bob]
    assert member is not None
    await room.redact(alice, topic.id)
    await room.redact(alice, member.id)
    for one in (room, WorldRoom(await world.reopen(), room.room_id)):
        assert await one.content("m.room.topic") == {}
        assert await one.content("m.room.member", bob) == {"membership": "join"}


async def test_a_redaction_that_comes_first_empties_its_target_when_that_comes(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice, version="10")
    await room.join(bob)
    tip = (await room.timeline())[-1]
    secret = await room.compose_after([tip], Draft(bob, "m.room.message", {"body": "secret"}))
    redaction = await room.redact(alice, secret.event.event_id)
    target = await room.append(secret)
    assert (await room.send(alice, "next")).event.prev_events == (redaction.id, target.id)
    for again in (world, await world.reopen()):
        stored = await again.events.by_id(target.id)
        assert stored is not None
        assert stored.event.content == {}
        assert stored.redacted_by == redaction.nid


async def test_a_failed_write_breaks_the_room_and_the_next_load_heals_it(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    good = await room.send(alice, "good")
    broken = await room.live()

    async def fail(_: Transaction) -> None:
        raise OSError("no space left")

    async with world.rooms.lock(room.room_id) as live:
        failing = await world.send.stage(live, Draft(alice, "m.x", {}, state_key=""), lambda _: fail)
        behind = await world.send.stage(live, Draft(alice, "m.room.message", {"body": "behind"}))
        assert live.state_event("m.x") is not None
    with pytest.raises(OSError, match="no space"):
        await failing
    with pytest.raises(Exception, match=room.room_id):
        await behind

    healed = await room.live()
    assert broken.broken
    assert healed is not broken
    assert healed.state_event("m.x") is None
    assert [tip.id for tip in healed.tips] == [good.id]
    assert (await room.send(alice, "again")).event.prev_events == (good.id,)


async def test_nothing_of_a_failed_write_is_announced(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    world.announced.clear()

    async def fail(_: Transaction) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        await world.send.send(room.room_id, Draft(alice, "m.x", {}), lambda _: fail)
    assert world.announced == []


async def test_a_soft_failed_event_changes_nothing_and_is_not_built_upon(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    tip = (await room.timeline())[-1]
    draft = Draft(alice, "m.room.topic", {"topic": "hidden"}, state_key="")
    hidden = await room.append_after([tip], draft, flags=SOFT_FAILED)
    assert await room.content("m.room.topic") is None
    assert (await room.send(alice, "next")).event.prev_events == (tip.id,)
    assert hidden.id not in {stored.id for stored in await room.timeline()}
    assert ("m.room.topic", "") in await names_at(world, room, hidden.state_after)


async def test_a_branch_longer_than_an_overlay_chain_keeps_its_state(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    branch: list[StoredEvent] = [await room.send(alice, "root")]
    expected = await names_at(world, room, branch[0].state_after)
    for number in range(MAX_OVERLAY_CHAIN * 2):
        await room.set_state(alice, "m.room.topic", {"topic": str(number)})
        draft = Draft(alice, f"m.branch{number}", {}, state_key="")
        branch.append(await room.append_after([branch[-1]], draft))
        expected[f"m.branch{number}", ""] = branch[-1].id
        assert await names_at(world, room, branch[-1].state_after) == expected
    longest = await world.db.read.fetch_value("SELECT MAX(chain) FROM state_overlays")
    assert longest == MAX_OVERLAY_CHAIN


async def test_a_ban_on_one_branch_wins_over_what_the_banned_do_on_another(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice, power_level_content_override={"state_default": 0})
    await room.join(bob)
    fork = await room.send(alice, "fork")
    await world.membership.ban(alice, room.room_id, bob)
    late = await room.append_after([fork], Draft(bob, "m.room.topic", {"topic": "mine"}, state_key=""))
    assert await room.membership(bob) == "ban"
    assert await room.content("m.room.topic") is None
    assert ("m.room.topic", "") in await names_at(world, room, late.state_after)
    live = await room.live()
    assert live.joined_members == 1
    assert live.servers == {"here.example": 1}


async def checkpoints_written() -> None:
    """Wait for the checkpoints that are being written."""
    tasks = [task for task in asyncio.all_tasks() if task.get_name() == "state checkpoint"]
    assert tasks
    await asyncio.gather(*tasks)


async def test_checkpoints_change_nothing_in_what_the_state_was(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    expected: list[tuple[StoredEvent, dict[StateKey, str]]] = []
    names = await names_at(world, room, (await room.live()).state_ver)
    for number in range(30):
        topic = {"topic": str(number)}
        stored = await room.set_state(alice, "m.room.topic", topic, state_key=str(number % 7))
        names = names | {stored.event.key: stored.id}
        expected.append((stored, names))
        if number in {9, 19}:
            (await room.live()).changes_since_checkpoint = 100_000
            await room.send(alice, "one more write")
            await checkpoints_written()
    assert await world.db.read.fetch_value("SELECT COUNT(*) FROM state_checkpoints") == 2
    for again in (world, await world.reopen()):
        for stored, state in expected:
            assert await names_at(again, WorldRoom(again, room.room_id), stored.state_after) == state


async def test_what_is_not_allowed_leaves_no_trace(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice)
    before = (await room.live()).row()
    with pytest.raises(NotAllowed):
        await room.send(bob, "hello")
    assert (await room.live()).row() == before


async def test_state_set_twice_alike_is_one_event(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    content: dict[str, Any] = {"topic": "same"}
    first = await room.set_state(alice, "m.room.topic", content)
    assert (await room.set_state(alice, "m.room.topic", content)).id == first.id
    assert (await room.set_state(alice, "m.room.topic", {"topic": "other"})).id != first.id
