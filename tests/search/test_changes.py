"""What is found follows what becomes of events: edits, redactions, purges, and places in the past."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from homeserver.protocol.retention import Lifetimes
from homeserver.rooms.expiry import Expiry
from homeserver.rooms.purge import Purge
from homeserver.rooms.send import Draft
from homeserver.search.index import SearchIndex, discard
from homeserver.storage import open_database
from homeserver.storage import search as storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.rooms.test_missing import Story, backfill_of, room_with_history
from tests.search.library import Library, library_over
from tests.world import World, WorldRoom

ALICE, BOB, CAROL = (f"@{name}:here.example" for name in ("alice", "bob", "carol"))
_DAY_S = 24 * 3600
_WEEK = Lifetimes(default_max=7 * _DAY_S * 1000)


async def edit(room: WorldRoom, sender: str, event_id: str, body: str) -> StoredEvent:
    """Send a replacement, some time later: of several the newest counts."""
    room.world.clock.advance(1)
    content = {
        "msgtype": "m.text",
        "body": f"* {body}",
        "m.new_content": {"msgtype": "m.text", "body": body},
        "m.relates_to": {"rel_type": "m.replace", "event_id": event_id},
    }
    return await room.send_event(sender, "m.room.message", content)


async def expire(library: Library) -> None:
    """Purge what is over."""
    core = library.world.core
    purge = Purge(core.db, core.rooms, core.events, also=[storage.forget], pause=0)
    expiry = Expiry(
        db=core.db,
        rooms=core.rooms,
        keys=core.keys,
        events=core.events,
        retention=core.retention,
        purge=purge,
    )
    await expiry.round()


async def test_an_edited_message_is_found_by_its_new_text_alone(library: Library) -> None:
    room = await library.room(ALICE, BOB)
    original = await room.send(ALICE, "elephant")
    assert (await library.search(BOB, "elephant"))["count"] == 1
    await edit(room, ALICE, original.id, "giraffe")
    found = await library.search(BOB, "giraffe")
    assert [one["result"]["event_id"] for one in found["results"]] == [original.id]
    replaced = found["results"][0]["result"]["unsigned"]["m.relations"]["m.replace"]
    assert replaced["content"]["m.new_content"]["body"] == "giraffe"
    assert (await library.search(BOB, "elephant"))["count"] == 0
    await edit(room, ALICE, original.id, "zebra")
    assert (await library.search(BOB, "giraffe"))["count"] == 0
    assert (await library.search(BOB, "zebra"))["count"] == 1
    await edit(room, BOB, original.id, "crocodile")
    assert (await library.search(ALICE, "crocodile"))["count"] == 0
    assert (await library.search(ALICE, "zebra"))["count"] == 1


async def test_the_redaction_of_an_edit_brings_back_the_text_before_it(library: Library) -> None:
    room = await library.room(ALICE)
    original = await room.send(ALICE, "elephant")
    first = await edit(room, ALICE, original.id, "giraffe")
    second = await edit(room, ALICE, original.id, "zebra")
    assert await library.bodies(ALICE, "zebra") == ["elephant"]
    await room.redact(ALICE, second.id)
    assert (await library.search(ALICE, "zebra"))["count"] == 0
    assert (await library.search(ALICE, "giraffe"))["count"] == 1
    await room.redact(ALICE, first.id)
    assert (await library.search(ALICE, "giraffe"))["count"] == 0
    assert (await library.search(ALICE, "elephant"))["count"] == 1
    await room.redact(ALICE, original.id)
    assert (await library.search(ALICE, "elephant"))["count"] == 0


@pytest.mark.parametrize("indexed_before", [True, False])
async def test_redacted_events_are_not_found_nor_what_they_were_edited_to(
    library: Library, indexed_before: bool
) -> None:
    room = await library.room(ALICE)
    original = await room.send(ALICE, "walrus")
    await edit(room, ALICE, original.id, "penguin")
    topic = await room.set_state(ALICE, "m.room.topic", {"topic": "penguins"})
    if indexed_before:
        assert (await library.search(ALICE, "penguin"))["count"] == 2
    await room.redact(ALICE, original.id)
    await room.redact(ALICE, topic.id)
    assert (await library.search(ALICE, "penguin walrus"))["count"] == 0
    assert (await library.search(ALICE, "penguin"))["count"] == 0
    rows = await library.world.db.read.fetch("SELECT words FROM search_documents")
    assert not [row for row in rows if "penguin" in row[0] or "walrus" in row[0]]


async def test_redactions_while_a_step_of_the_index_is_under_way_win(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read before the redaction is not written after it."""
    room = await library.room(ALICE)
    original = await room.send(ALICE, "walrus")
    edited = await room.send(ALICE, "badger")
    change = await edit(room, ALICE, edited.id, "ferret")
    redacted: list[str] = []
    documents = SearchIndex._documents

    async def documents_early(index: SearchIndex, events: Sequence[StoredEvent]) -> object:
        made = await documents(index, events)
        while not redacted:
            for each in (original.id, change.id):
                redacted.append((await room.redact(ALICE, each)).id)
        return made

    monkeypatch.setattr(SearchIndex, "_documents", documents_early)
    assert (await library.search(ALICE, "walrus"))["count"] == 0
    assert len(redacted) == 2
    assert (await library.search(ALICE, "ferret"))["count"] == 0
    assert (await library.search(ALICE, "badger"))["count"] == 1


async def test_what_was_purged_is_not_found(database: Database) -> None:
    async with library_over(database, lifetimes=_WEEK) as library:
        room = await library.room(ALICE)
        await room.send(ALICE, "an old walrus")
        library.world.clock.advance(6 * _DAY_S)
        original = await room.send(ALICE, "a walrus")
        assert (await library.search(ALICE, "walrus"))["count"] == 2
        library.world.clock.advance(2 * _DAY_S)
        await edit(room, ALICE, original.id, "a new walrus")
        assert (await library.search(ALICE, "walrus"))["count"] == 1, "over, but not purged yet"
        await expire(library)
        assert (await library.search(ALICE, "walrus"))["count"] == 1
        rows = await database.read.fetch("SELECT words FROM search_documents WHERE words LIKE '%walrus%'")
        assert [row[0] for row in rows] == [" a new walrus "]
        library.world.clock.advance(6 * _DAY_S)
        await room.send(ALICE, "another")
        await expire(library)
        # The edit is not over yet, and what it is an edit of is.
        assert (await library.search(ALICE, "walrus"))["count"] == 0


async def test_what_was_purged_or_redacted_is_not_in_the_file(tmp_path: Path) -> None:
    """Neither the text nor its words, in the table or in the engine's own index."""
    path = tmp_path / "inglenook.db"
    db = await open_database(str(path))
    chance = random.Random(7)
    async with library_over(db, lifetimes=_WEEK) as library:
        room = await library.room(ALICE)
        words = ["".join(chance.choices("abcdefghijklmnop", k=12)) for _ in range(300)]
        for at in range(0, 280, 4):
            await room.send(ALICE, " ".join(words[at : at + 4]))
        redacted = await room.send(ALICE, " ".join(words[280:290]))
        assert (await library.search(ALICE, words[285]))["count"] == 1
        await room.redact(ALICE, redacted.id)
        library.world.clock.advance(8 * _DAY_S)
        await room.send(ALICE, " ".join(words[290:]))
        await expire(library)
        assert (await library.search(ALICE, words[299]))["count"] == 1
    await db.close()
    content = path.read_bytes()
    assert words[299].encode() in content
    assert [word for word in words[:290] if word.encode() in content] == []


async def test_history_that_other_servers_bring_is_found(database: Database) -> None:
    world = await World.open(database)
    index = SearchIndex(database, world.core.notifier, world.clock)
    await index.open()
    story = await Story.begin(world)
    events, newest = await room_with_history(story)
    await index.catch_up()
    before = await database.read.fetch_value("SELECT COUNT(*) FROM search_documents")
    story.elsewhere.history = events[:-1]
    assert await backfill_of(story).fill(story.room, 0, newest.pos or 0, 10)
    await index.catch_up()
    texts = await database.read.fetch("SELECT words FROM search_documents ORDER BY event_nid")
    await world.background.close()
    assert before == 1
    assert len(texts) == len(events)


async def test_after_a_restart_everything_that_was_sent_is_found(database: Database) -> None:
    """Also what was never indexed, as after a crash."""
    async with library_over(database) as library:
        room = await library.room(ALICE)
        for number in range(30):
            await room.send(ALICE, f"otter {number}")
        assert (await library.search(ALICE, "otter"))["count"] == 30
        await library.world.core.background.close()
        for number in range(30, 60):
            await room.send(ALICE, f"otter {number}")
        original = await room.send(ALICE, "marten")
        await edit(room, ALICE, original.id, "otter marten")
    async with library_over(database) as library:
        assert (await library.search(ALICE, "otter"))["count"] == 61
        await WorldRoom(library.world, room.room_id).send(ALICE, "otter again")
        assert (await library.search(ALICE, "otter"))["count"] == 62


async def test_one_who_is_far_behind_catches_up_from_storage(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeserver.search.index._MAX_PENDING", 10)
    world = await World.open(database)
    index = SearchIndex(database, world.core.notifier, world.clock, at_once=7)
    await index.open()
    await index.catch_up()
    room = await world.public_room(ALICE)
    for number in range(25):
        await room.send(ALICE, f"otter {number}")
    await index.catch_up()
    assert await database.read.fetch_value("SELECT COUNT(*) FROM search_documents") == 25
    await world.background.close()


@pytest.mark.parametrize("steps", [0, 1, 2, 5])
async def test_an_index_is_made_of_what_was_there_before_however_often_it_is_interrupted(
    database: Database, steps: int
) -> None:
    world = await World.open(database)
    room = await world.public_room(ALICE)
    original = await room.send(ALICE, "otter in the beginning")
    for number in range(20):
        await room.send(ALICE, f"otter {number}")
    await edit(room, ALICE, original.id, "beaver in the beginning")
    await world.background.close()
    world = await world.reopen()
    for _ in range(3):
        index = SearchIndex(database, world.core.notifier, world.clock, at_once=5)
        await index.open()
        for _ in range(steps):
            await index._fill()
    await world.background.close()
    async with library_over(database) as library:
        while (await storage.progress(database.read)).upto > 0:  # type: ignore[union-attr]
            await index._fill()
        assert (await library.search(ALICE, "otter", filter={"limit": 50}))["count"] == 20
        assert (await library.search(ALICE, "beaver"))["count"] == 1


async def test_an_index_of_another_form_is_made_anew(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await World.open(database)
    room = await world.public_room(ALICE)
    await room.send(ALICE, "otter")
    index = SearchIndex(database, world.core.notifier, world.clock)
    await index.open()
    await index._fill()
    old = await database.read.fetch_value("SELECT terms FROM search_documents")
    monkeypatch.setattr("homeserver.search.index.VERSION", 99)
    index = SearchIndex(database, world.core.notifier, world.clock)
    await index.open()
    assert await database.read.fetch("SELECT 1 FROM search_documents") == []
    await index._fill()
    new = await database.read.fetch_value("SELECT terms FROM search_documents")
    assert new
    assert new != old
    await world.background.close()


async def test_an_index_that_is_not_wanted_any_more_is_removed(database: Database) -> None:
    world = await World.open(database)
    room = await world.public_room(ALICE)
    index = SearchIndex(database, world.core.notifier, world.clock)
    await index.open()
    await room.send(ALICE, "otter")
    await index.catch_up()
    await discard(database)
    event = await room.send_event(ALICE, "m.room.message", {"body": "otter"})
    await database.write(lambda tx: storage.look_again(tx, [event]))
    for table in ("search_documents", "search_queue", "search_progress"):
        assert await database.read.fetch(f"SELECT 1 FROM {table}") == []
    await world.background.close()


async def test_an_outlier_that_gets_its_place_is_found(database: Database) -> None:
    world = await World.open(database)
    index = SearchIndex(database, world.core.notifier, world.clock)
    await index.open()
    story = await Story.begin(world)
    event = await story.compose(Draft("@bob:elsewhere.example", "m.room.message", {"body": "ibex"}))
    await story.elsewhere.inbound.store_outliers(story.room, [event.pdu])
    await index.catch_up()
    assert await database.read.fetch("SELECT 1 FROM search_documents") == []
    await story.elsewhere.sends(event)
    await index.catch_up()
    assert await database.read.fetch_value("SELECT words FROM search_documents") == " ibex "
    await world.background.close()
