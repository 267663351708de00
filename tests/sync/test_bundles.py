"""Aggregations out of the index are what a look at every event comes to."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.protocol.relations import replacement_slot
from homeserver.rooms.relations_fill import fill_relations
from homeserver.rooms.send import Draft
from homeserver.rooms.visibility import SeenEvent
from homeserver.storage import events as event_storage
from homeserver.storage import relations
from homeserver.storage.database import Database, Transaction
from homeserver.storage.events import REDACTED, SOFT_FAILED, StoredEvent
from homeserver.sync.client_events import Form
from tests.sync.server import SyncServer
from tests.world import WorldRoom

NAMES = ("alice", "bob", "carol")
_rooms = itertools.count()

#: What is done, by whom, to which of the events so far; and whether a second goes by before.
steps = st.tuples(
    st.sampled_from(["say", "edit", "edit", "m.thread", "m.thread", "m.reference", "m.annotation", "redact"]),
    st.sampled_from(NAMES),
    st.integers(0, 30),
    st.booleans(),
)


@pytest.fixture
async def both(database: Database) -> AsyncIterator[SyncServer]:
    """A server on each engine."""
    server = await SyncServer.open(database)
    yield server
    await server.world.background.close()


async def act(room: WorldRoom, said: list[StoredEvent], step: tuple[str, str, int, bool]) -> None:
    what, name, which, later = step
    world, sender = room.world, room.world.user(name)
    if later:
        world.clock.advance(1)
    target = said[which % len(said)].id if said else "$unknown"
    if what == "redact":
        await room.redact(world.user("alice"), target)
        return
    content: dict[str, Any] = {"body": what, "msgtype": "m.text"}
    if what == "edit":
        content["m.new_content"] = {"body": "new"}
    if what != "say":
        rel_type = "m.replace" if what == "edit" else what
        content["m.relates_to"] = {"rel_type": rel_type, "event_id": target, "key": "+"}
    said.append(await room.send_event(sender, "m.room.message", content))


def related(stored: StoredEvent) -> tuple[str, str] | None:
    relation = stored.event.content.get("m.relates_to")
    return (relation["rel_type"], relation["event_id"]) if relation else None


def recount(
    timeline: Sequence[StoredEvent], parent: StoredEvent, reader: str, ignored: set[str]
) -> dict[str, Any]:
    """The bundle of one event, in short, by the letter of the specification."""

    def children(rel_type: str) -> list[StoredEvent]:
        return [one for one in timeline if related(one) == (rel_type, parent.id)]

    bundle: dict[str, Any] = {}
    own = related(parent)
    edits = [one for one in children("m.replace") if one.event.sender == parent.event.sender]
    if edits and not parent.flags & REDACTED and (own is None or own[0] != "m.replace"):
        newest = max(edits, key=lambda one: (one.event.origin_server_ts, one.id))
        bundle["m.replace"] = newest.id
    threaded = [one for one in children("m.thread") if one.event.sender not in ignored]
    if threaded and own is None:
        participants = {parent.event.sender, *(one.event.sender for one in threaded)}
        bundle["m.thread"] = (threaded[-1].id, len(threaded), reader in participants)
    references = [one.id for one in children("m.reference") if one.event.sender not in ignored]
    if references:
        bundle["m.reference"] = references
    return bundle


def in_short(event: dict[str, Any]) -> dict[str, Any]:
    told = event["unsigned"].get("m.relations", {})
    short: dict[str, Any] = {}
    if "m.replace" in told:
        short["m.replace"] = told["m.replace"]["event_id"]
    if "m.thread" in told:
        thread = told["m.thread"]
        latest = thread["latest_event"]["event_id"]
        short["m.thread"] = (latest, thread["count"], thread["current_user_participated"])
    if "m.reference" in told:
        short["m.reference"] = [one["event_id"] for one in told["m.reference"]["chunk"]]
    return short


async def whole_timeline(server: SyncServer, room: WorldRoom) -> list[StoredEvent]:
    live = await room.live()
    rows = await event_storage.timeline_backward(server.world.db.scan, live.nid, live.last_pos, 1000)
    return rows[::-1]


async def told_to(
    server: SyncServer, room: WorldRoom, reader: str, events: Sequence[StoredEvent]
) -> list[dict[str, Any]]:
    seen = [SeenEvent(stored, "join") for stored in events]
    written = await server.client_events.write(await room.live(), reader, "PHONE", seen, Form())
    told: list[dict[str, Any]] = orjson.loads(orjson.dumps(written))
    return told


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=st.lists(steps, min_size=6, max_size=20), ignoring=st.booleans(), filled=st.booleans())
async def test_the_index_agrees_with_a_recount(
    both: SyncServer, story: list[tuple[str, str, int, bool]], ignoring: bool, filled: bool
) -> None:
    world = both.world
    reader = f"@reader{next(_rooms)}:here.example"
    room = await world.public_room(world.user("alice"))
    for user_id in (world.user("bob"), world.user("carol"), reader):
        await room.join(user_id)
    if ignoring:
        content = {"ignored_users": {world.user("bob"): {}}}
        await both.account_data.set_content(reader, "m.ignored_user_list", content)
    said: list[StoredEvent] = []
    for step in story:
        await act(room, said, step)
    if filled:
        await forget_the_index(both)
        await fill_relations(world.db, at_once=7, pause=0)

    timeline = await whole_timeline(both, room)
    ignored = {world.user("bob")} if ignoring else set()
    shown = [one for one in timeline if not one.event.is_state]
    told = await told_to(both, room, reader, shown)

    expected = {one.id: recount(timeline, one, reader, ignored) for one in shown}
    assert {event["event_id"]: in_short(event) for event in told} == expected


async def forget_the_index(server: SyncServer) -> None:
    """As it is right after the migration that brought it."""

    async def forget(tx: Transaction) -> None:
        await tx.execute("DELETE FROM relations")
        await tx.execute("DELETE FROM threads")
        await tx.execute("UPDATE relations_fill SET upto = (SELECT MAX(event_nid) FROM events)")

    await server.world.db.write(forget)


async def test_filling_the_index_goes_on_after_a_restart(both: SyncServer) -> None:
    alice = both.world.user("alice")
    room = await both.world.public_room(alice)
    said: list[StoredEvent] = []
    for step in [("say", "alice", 0, False), *[("m.thread", "alice", 0, False)] * 10]:
        await act(room, said, step)
    await forget_the_index(both)
    assert await both.world.db.write(lambda tx: relations.fill(tx, 5))
    await act(room, said, ("m.thread", "alice", 0, False))

    again = await SyncServer.open(both.world.db)
    assert not await relations.is_filled(again.world.db.read)
    await fill_relations(again.world.db, at_once=5, pause=0)

    assert await relations.is_filled(again.world.db.read)
    (told,) = await told_to(again, room, alice, said[:1])
    assert in_short(told)["m.thread"] == (said[-1].id, 11, True)
    await again.world.background.close()


async def test_children_that_come_before_their_parent(both: SyncServer) -> None:
    alice = both.world.user("alice")
    room = await both.world.public_room(alice)
    view = await both.reading.history.view(alice, room.room_id)
    tips = (await room.live()).tips
    root = await room.compose_after(tips, Draft(alice, "m.room.message", {"body": "root"}))
    relation = {"rel_type": "m.thread", "event_id": root.event.event_id}
    child = await room.send_event(alice, "m.room.message", {"body": "child", "m.relates_to": relation})
    assert (await both.reading.relations.threads(view, "all", None, 5)).events == []

    stored = await room.append(root)

    (told,) = await told_to(both, room, alice, [stored])
    assert in_short(told) == {"m.thread": (child.id, 1, True)}
    threads = (await both.reading.relations.threads(view, "all", None, 5)).events
    assert [one.stored.id for one in threads] == [stored.id]


async def test_a_child_that_came_after_its_redaction_is_none(both: SyncServer) -> None:
    alice = both.world.user("alice")
    room = await both.world.public_room(alice)
    root = await room.send(alice, "root")
    relation = {"rel_type": "m.thread", "event_id": root.id}
    draft = Draft(alice, "m.room.message", {"body": "child", "m.relates_to": relation})
    child = await room.compose_after([root], draft)
    await room.redact(alice, child.event.event_id)

    await room.append(child)

    (told,) = await told_to(both, room, alice, [root])
    assert in_short(told) == {}


async def test_an_event_kept_back_is_no_child(both: SyncServer) -> None:
    alice = both.world.user("alice")
    room = await both.world.public_room(alice)
    root = await room.send(alice, "root")
    relation = {"rel_type": "m.thread", "event_id": root.id}
    draft = Draft(alice, "m.room.message", {"body": "child", "m.relates_to": relation})
    await room.append_after([root], draft, flags=SOFT_FAILED)

    (told,) = await told_to(both, room, alice, [root])

    assert in_short(told) == {}


async def test_hostile_relations_are_passed_over(both: SyncServer) -> None:
    alice = both.world.user("alice")
    room = await both.world.public_room(alice)
    root = await room.send(alice, "root")
    for relation in (
        "text",
        {"rel_type": 1, "event_id": root.id},
        {"rel_type": "m.thread", "event_id": [root.id]},
        {"rel_type": "m\0thread", "event_id": root.id},
        {"rel_type": "x" * 300, "event_id": root.id},
        {"rel_type": "m.thread", "event_id": root.id + "\0"},
        {"rel_type": "m.thread"},
    ):
        await room.send_event(alice, "m.room.message", {"body": "child", "m.relates_to": relation})

    assert await both.world.db.read.fetch_value("SELECT COUNT(*) FROM relations") == 0


async def test_a_relation_across_rooms_is_none(both: SyncServer) -> None:
    alice = both.world.user("alice")
    here, there = await both.world.public_room(alice), await both.world.public_room(alice)
    root = await here.send(alice, "root")
    content = {"body": "new", "m.new_content": {"body": "new"}}
    for rel_type in ("m.thread", "m.replace", "m.reference"):
        relation = {"rel_type": rel_type, "event_id": root.id}
        await there.send_event(alice, "m.room.message", {**content, "m.relates_to": relation})

    (told,) = await told_to(both, here, alice, [root])

    assert in_short(told) == {}


class Counted:
    """A reader that counts the rows it is given."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.rows = 0

    async def fetch_in(self, *args: Any) -> list[Any]:
        found: list[Any] = await self._reader.fetch_in(*args)
        self.rows += len(found)
        return found


async def test_what_is_read_does_not_grow_with_those_who_speak_or_edit(both: SyncServer) -> None:
    room = await both.world.public_room(both.world.user("alice"))
    root = await room.send(both.world.user("alice"), "root")
    for name in ("alice", "bob", "carol"):
        await room.join(both.world.user(name))
        await room.send_event(both.world.user(name), "m.room.message", thread_message(root))
    for _ in range(3):
        edit = {
            "body": "*",
            "m.new_content": {"body": "new"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": root.id},
        }
        await room.send_event(both.world.user("alice"), "m.room.message", edit)
    slot = replacement_slot(root.event)
    assert slot is not None

    reader: Any = Counted(both.world.db.read)
    live = await room.live()
    (thread,) = await relations.spoken(
        reader, live.nid, [root.id], "@bob:here.example", ["@carol:here.example"]
    )
    newest = await relations.newest_in_slots(reader, [slot])

    assert (thread.events, thread.participated) == (2, True)
    assert len(newest) == 1
    assert reader.rows == 2


def thread_message(root: StoredEvent) -> dict[str, Any]:
    return {"body": "hi", "m.relates_to": {"rel_type": "m.thread", "event_id": root.id}}
