"""Purging: the content of old messages leaves for good, and everything else is as it was."""

from __future__ import annotations

import hashlib
import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.errors import MatrixError
from homeserver.protocol.retention import Lifetimes
from homeserver.rooms.expiry import Expiry
from homeserver.rooms.purge import Purge
from homeserver.rooms.room import Room
from homeserver.storage import events as event_storage
from homeserver.storage import open_database
from homeserver.storage.database import Database, Transaction
from homeserver.storage.event_json import decode_event_json
from tests.sync.server import Client, SyncServer, bodies
from tests.world import World, WorldRoom

_DAY_S = 24 * 3600
_DAY_MS = _DAY_S * 1000
_WEEK = Lifetimes(default_max=7 * _DAY_MS)


def purge_of(world: World, **options: object) -> Purge:
    return Purge(world.db, world.rooms, world.events, pause=0, **options)  # type: ignore[arg-type]


def expiry_of(world: World) -> Expiry:
    return Expiry(
        db=world.db,
        rooms=world.rooms,
        keys=world.keys,
        events=world.events,
        retention=world.core.retention,
        purge=purge_of(world),
    )


@pytest.fixture
async def server(database: Database) -> SyncServer:
    """A server that keeps messages for a week, on each engine."""
    return await SyncServer.open(database, lifetimes=_WEEK)


@pytest.fixture
async def alice(server: SyncServer) -> Client:
    return server.client("alice")


async def jsons_of(world: World, room: Room) -> list[bytes]:
    """The JSON of every event of a room, as it lies on disk."""
    rows = await world.db.read.fetch(
        "SELECT j.json FROM events e JOIN event_json j ON j.event_nid = e.event_nid WHERE e.room_nid = $1",
        room.nid,
    )
    return [decode_event_json(row[0]) for row in rows]


async def shown(server: SyncServer, client: Client, room_id: str) -> list[str] | None:
    """What the client reads, scrolling back to the beginning; ``None``: they may not look."""
    history = server.reading.history
    try:
        view = await history.view(client.user_id, room_id)
    except MatrixError:
        return None
    page = await history.backward(view, None, None, 1000, lambda _: True)
    found = [one.stored.event.content.get("body") for one in page.events]
    return [body for body in reversed(found) if isinstance(body, str)]


async def test_what_is_over_is_shown_to_nobody_even_before_it_is_purged(
    server: SyncServer, alice: Client
) -> None:
    room = await server.world.public_room(alice.user_id)
    old = await room.send(alice.user_id, "old")
    server.world.clock.advance(8 * _DAY_S)
    await room.send(alice.user_id, "new")

    response = await alice.sync()

    assert await shown(server, alice, room.room_id) == ["new"]
    assert bodies(response["rooms"]["join"][room.room_id]) == ["new"]
    live = await room.live()
    assert not await server.visibility.may_see(live, alice.user_id, old)


async def test_a_purge_takes_the_content_and_leaves_the_graph(server: SyncServer, alice: Client) -> None:
    world = server.world
    room = await world.public_room(alice.user_id)
    old = [await room.send(alice.user_id, f"secret {number}") for number in range(250)]
    await room.set_state(alice.user_id, "m.room.topic", {"topic": "kept"})
    state = await room.state()
    world.clock.advance(8 * _DAY_S)
    await room.send(alice.user_id, "new")

    assert await expiry_of(world).round() == 250
    assert await expiry_of(world).round() == 0

    assert not [json for json in await jsons_of(world, await room.live()) if b"secret" in json]
    assert await room.state() == state
    stored = await event_storage.by_id(world.db.read, old[7].id)
    assert stored is not None
    assert stored.purged
    assert stored.pos is None
    assert stored.event.prev_events == (old[6].id,)
    assert stored.state_before == old[7].state_before
    assert await shown(server, alice, room.room_id) == ["new"]


async def test_after_a_restart_the_room_goes_on(
    server: SyncServer, alice: Client, database: Database
) -> None:
    room = await server.world.public_room(alice.user_id)
    for number in range(60):
        await room.send(alice.user_id, f"secret {number}")
    server.world.clock.advance(8 * _DAY_S)
    await expiry_of(server.world).round()

    again = await SyncServer.open(database, lifetimes=_WEEK)
    again.world.clock.advance(8 * _DAY_S)
    bob = again.client("bob")
    same = WorldRoom(again.world, room.room_id)
    await same.join(bob.user_id)
    said = await same.send(bob.user_id, "good morning")

    assert (await same.live()).tips[0].id == said.id
    assert await shown(again, bob, room.room_id) == ["good morning"]
    assert bodies((await bob.sync())["rooms"]["join"][room.room_id]) == ["good morning"]


async def test_the_newest_message_is_kept_for_what_comes_after_it(server: SyncServer, alice: Client) -> None:
    world = server.world
    room = await world.public_room(alice.user_id)
    await room.send(alice.user_id, "first")
    last = await room.send(alice.user_id, "last")
    world.clock.advance(8 * _DAY_S)

    assert await expiry_of(world).round() == 1

    assert await shown(server, alice, room.room_id) == []
    stored = await event_storage.by_id(world.db.read, last.id)
    assert stored is not None
    assert not stored.purged
    assert (await room.send(alice.user_id, "after")).event.prev_events == (last.id,)
    assert await expiry_of(world).round() == 1


async def test_rooms_say_for_themselves_within_what_is_allowed(database: Database) -> None:
    server = await SyncServer.open(database, lifetimes=Lifetimes(allowed_min=2 * _DAY_MS))
    world, alice = server.world, server.client("alice")
    short, hasty, forever = [await world.public_room(alice.user_id) for _ in range(3)]
    await short.set_state(alice.user_id, "m.room.retention", {"max_lifetime": 3 * _DAY_MS})
    await hasty.set_state(alice.user_id, "m.room.retention", {"max_lifetime": 1})
    for room in (short, hasty, forever):
        await room.send(alice.user_id, "hello")
        await room.send(alice.user_id, "bye")

    world.clock.advance(1 * _DAY_S)
    assert await expiry_of(world).round() == 0
    world.clock.advance(1.5 * _DAY_S)
    assert await expiry_of(world).round() == 1
    world.clock.advance(1 * _DAY_S)
    assert await expiry_of(world).round() == 1

    assert await shown(server, alice, forever.room_id) == ["hello", "bye"]


async def test_what_was_redacted_and_its_redaction_are_purged_too(server: SyncServer, alice: Client) -> None:
    world = server.world
    room = await world.public_room(alice.user_id)
    old = await room.send(alice.user_id, "typo")
    redaction = await room.redact(alice.user_id, old.id)
    world.clock.advance(8 * _DAY_S)
    await room.send(alice.user_id, "new")

    assert await expiry_of(world).round() == 2

    late = await room.redact(alice.user_id, old.id)
    stored = await event_storage.by_nids(world.db.read, [old.nid, redaction.nid, late.nid])
    assert [stored[nid].purged for nid in (old.nid, redaction.nid, late.nid)] == [True, True, False]
    assert stored[redaction.nid].event.redacts == old.id


async def test_what_was_purged_relates_to_nothing(server: SyncServer, alice: Client) -> None:
    world = server.world
    room = await world.public_room(alice.user_id)
    root = await room.send(alice.user_id, "root")
    thread = {"body": "reply", "m.relates_to": {"rel_type": "m.thread", "event_id": root.id}}
    replies = [await room.send_event(alice.user_id, "m.room.message", thread) for _ in range(2)]
    world.clock.advance(8 * _DAY_S)
    await room.send_event(alice.user_id, "m.room.message", thread)

    await expiry_of(world).round()

    related = await world.db.read.fetch("SELECT event_nid FROM relations")
    assert not {row[0] for row in related} & {one.nid for one in replies}
    assert await world.db.read.fetch_value("SELECT events FROM threads") == 1


async def test_an_administrator_purges_up_to_a_position(database: Database) -> None:
    server = await SyncServer.open(database)
    world, alice = server.world, server.client("alice")
    room = await world.public_room(alice.user_id)
    said = [await room.send(alice.user_id, f"m{number}") for number in range(5)]
    forgotten: list[int] = []

    async def forget(_: Transaction, nids: list[int]) -> None:
        forgotten.extend(nids)

    purged = await purge_of(world, also=[forget]).upto(room.room_id, said[2].pos or 0)

    assert purged == 3
    assert forgotten == [one.nid for one in said[:3]]
    assert await shown(server, alice, room.room_id) == ["m3", "m4"]
    # Nothing is over here, so what was sent before is only gone where it was purged.
    assert await purge_of(world).older_than(room.room_id, world.clock.now_ms() + 1) == 1


async def test_a_failing_transaction_leaves_the_event_to_the_next_round(
    server: SyncServer, alice: Client
) -> None:
    world = server.world
    room = await world.public_room(alice.user_id)
    old = await room.send(alice.user_id, "old")
    world.clock.advance(8 * _DAY_S)
    await room.send(alice.user_id, "new")

    async def fail(_: Transaction, nids: object) -> None:
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError):
        await purge_of(world, also=[fail]).older_than(room.room_id, world.clock.now_ms())
    stored = await event_storage.by_id(world.db.read, old.id)
    assert stored is not None
    assert not stored.purged

    assert await expiry_of(world).round() == 1
    assert not [json for json in await jsons_of(world, await room.live()) if b'"old"' in json]


async def test_what_was_purged_or_redacted_is_not_in_the_file(tmp_path: Path) -> None:
    """On SQLite the bytes are overwritten, not only let go of."""
    path = tmp_path / "inglenook.db"
    db = await open_database(str(path))
    server = await SyncServer.open(db, lifetimes=_WEEK)
    world, alice = server.world, server.client("alice")
    room = await world.public_room(alice.user_id)
    # Long and incompressible ones spill over into pages of their own.
    sent = [await room.send(alice.user_id, f"{number} {world.key} {noise(number)}") for number in range(40)]
    redacted = await room.send(alice.user_id, noise(99))
    stored = [await raw_json(db, one.nid) for one in (*sent, redacted)]
    await room.redact(alice.user_id, redacted.id)
    world.clock.advance(8 * _DAY_S)
    await room.send(alice.user_id, "new")
    kept = await raw_json(db, (await room.live()).tips[0].nid)
    await expiry_of(world).round()
    await world.background.close()
    await db.close()
    content = path.read_bytes()
    assert kept[10:60] in content
    assert not [json for json in stored if json[40:80] in content or json[-60:-20] in content]


def noise(number: int) -> str:
    """Text that no compression makes shorter, of a few or of many kilobytes."""
    return "".join(hashlib.sha512(f"{number} {part}".encode()).hexdigest() for part in range(5 + number * 4))


async def raw_json(db: Database, nid: int) -> bytes:
    """An event's JSON as the bytes that are stored."""
    return bytes(await db.read.fetch_value("SELECT json FROM event_json WHERE event_nid = $1", nid))


_EXAMPLES = itertools.count(1)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 2)),
        st.tuples(st.just("topic"), st.integers(0, 2)),
        st.tuples(st.just("come or go"), st.integers(1, 2)),
        st.tuples(st.just("lifetime"), st.integers(0, 10)),
        st.tuples(st.just("days"), st.integers(1, 4)),
    ),
    max_size=25,
)


async def live_through(room: WorldRoom, people: list[str], steps: list[tuple[str, int]]) -> None:
    for number, (step, which) in enumerate(steps):
        if step == "days":
            room.world.clock.advance(which * _DAY_S)
        elif step == "lifetime":
            content = {"max_lifetime": which * _DAY_MS}
            await room.set_state(people[0], "m.room.retention", content)
        elif await room.membership(people[which]) != "join":
            await room.join(people[which])
        elif step == "come or go":
            await room.leave(people[which])
        elif step == "say":
            await room.send(people[which], f"{number}")
        else:
            await room.set_state(people[0], "m.room.topic", {"topic": f"{number}"})


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=_STEPS)
async def test_whatever_happened_what_is_not_over_reads_as_before(
    sqlite_database: Database, steps: list[tuple[str, int]]
) -> None:
    server = await SyncServer.open(sqlite_database, lifetimes=Lifetimes(allowed_min=0))
    world = server.world
    world.clock.advance(next(_EXAMPLES))  # rooms made alike at the same time would be the same
    clients = [server.client(name) for name in ("alice", "bob", "carol")]
    people = [client.user_id for client in clients]
    room = await world.public_room(people[0])
    await live_through(room, people, steps)
    before = [await shown(server, client, room.room_id) for client in clients]
    state, tips = await room.state(), [tip.id for tip in (await room.live()).tips]

    await expiry_of(world).round()

    for opened in (server, await SyncServer.open(sqlite_database, lifetimes=Lifetimes(allowed_min=0))):
        opened.world.clock.advance((world.clock.now_ms() - opened.world.clock.now_ms()) / 1000)
        same = WorldRoom(opened.world, room.room_id)
        assert [await shown(opened, client, room.room_id) for client in clients] == before
        assert await same.state() == state
        assert [tip.id for tip in (await same.live()).tips] == tips
    await same.set_state(people[0], "m.room.topic", {"topic": "after"})
    assert (await same.send(people[0], "after")).state_after == (await same.live()).state_ver
