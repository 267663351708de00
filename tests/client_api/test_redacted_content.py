"""Moderators see what was redacted (MSC2815), nobody else does, and only for a time."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.client_api.room_server import RoomServer, room_server, segment
from tests.world import WorldRoom

DAY_MS = 86_400_000
ASKED = {"fi.mau.msc2815.include_unredacted_content": "true"}
DELETED = (404, "FI.MAU.MSC2815_UNREDACTED_CONTENT_DELETED")


@pytest.fixture
async def rooms(sqlite_database: Database) -> AsyncIterator[RoomServer]:
    async with room_server(sqlite_database, keep_redacted_ms=DAY_MS) as running:
        yield running


def path(room: WorldRoom, event: StoredEvent) -> str:
    return f"/rooms/{segment(room.room_id)}/event/{segment(event.id)}"


async def a_redacted_message(rooms: RoomServer) -> tuple[str, str, WorldRoom, StoredEvent]:
    alice, bob = rooms.world.user("alice"), rooms.world.user("bob")
    room = await rooms.world.public_room(alice)
    await room.join(bob)
    message = await room.send(bob, "never mind")
    await room.redact(bob, message.id)
    return alice, bob, room, message


async def test_a_moderator_sees_what_was_redacted(rooms: RoomServer) -> None:
    alice, bob, room, message = await a_redacted_message(rooms)
    assert (await rooms.get(alice, path(room, message)))["content"] == {}
    told = await rooms.get(alice, path(room, message), **ASKED)
    assert told["content"] == {"msgtype": "m.text", "body": "never mind"}
    assert told["unsigned"]["redacted_because"]["sender"] == bob
    assert (await rooms.get(alice, path(room, message)))["content"] == {}, "only for those who ask"
    _, context = await rooms.call(alice, "GET", path(room, message).replace("/event/", "/context/"), **ASKED)
    assert context["event"]["content"] == {}


async def test_others_do_not(rooms: RoomServer) -> None:
    alice, bob, room, message = await a_redacted_message(rooms)
    assert await rooms.refusal(bob, path(room, message), **ASKED) == (403, "M_FORBIDDEN")
    stranger = rooms.world.user("stranger")
    await room.set_state(alice, "m.room.history_visibility", {"history_visibility": "joined"})
    hidden = await room.send(bob, "hidden")
    await room.redact(bob, hidden.id)
    assert await rooms.refusal(stranger, path(room, hidden), **ASKED) == (404, "M_NOT_FOUND")


async def test_who_has_left_moderates_no_more(rooms: RoomServer) -> None:
    alice, bob, room, message = await a_redacted_message(rooms)
    await room.set_state(alice, "m.room.power_levels", {"users": {bob: 50}})
    assert (await rooms.get(bob, path(room, message), **ASKED))["content"]["body"] == "never mind"
    await room.leave(bob)
    assert await rooms.refusal(bob, path(room, message), **ASKED) == (403, "M_FORBIDDEN")


async def test_it_is_kept_for_a_time(rooms: RoomServer) -> None:
    alice, _, room, message = await a_redacted_message(rooms)
    rooms.world.clock.advance(DAY_MS / 1000 - 1)
    assert (await rooms.get(alice, path(room, message), **ASKED))["content"]["body"] == "never mind"
    rooms.world.clock.advance(1)
    status, reply = await rooms.call(alice, "GET", path(room, message), **ASKED)
    assert (status, reply["errcode"]) == DELETED
    assert reply["fi.mau.msc2815.content_keep_ms"] == DAY_MS


async def test_what_is_not_redacted_is_told_as_it_is(rooms: RoomServer) -> None:
    alice, bob, room, _ = await a_redacted_message(rooms)
    message = await room.send(alice, "here to stay")
    assert (await rooms.get(alice, path(room, message), **ASKED))["content"]["body"] == "here to stay"
    assert await rooms.refusal(bob, path(room, message), **ASKED) == (403, "M_FORBIDDEN")


async def test_a_second_redaction_takes_nothing_from_what_is_kept(rooms: RoomServer) -> None:
    alice, _, room, message = await a_redacted_message(rooms)
    await room.redact(alice, message.id)
    assert (await rooms.get(alice, path(room, message), **ASKED))["content"]["body"] == "never mind"


async def test_a_server_that_keeps_nothing_does_not_say_it_would(sqlite_database: Database) -> None:
    async with room_server(sqlite_database) as rooms:
        alice, bob, room, message = await a_redacted_message(rooms)
        assert (await rooms.get(alice, path(room, message), **ASKED))["content"] == {}
        told = await rooms.get(bob, "/_matrix/client/versions")
        assert told["unstable_features"]["fi.mau.msc2815"] is False


async def test_a_question_that_is_neither_yes_nor_no_is_refused(rooms: RoomServer) -> None:
    alice, _, room, message = await a_redacted_message(rooms)
    query = dict.fromkeys(ASKED, "maybe")
    assert await rooms.refusal(alice, path(room, message), **query) == (400, "M_INVALID_PARAM")
