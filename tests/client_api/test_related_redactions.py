"""Redacting an event together with what relates to it (MSC3912), over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

import pytest

from homeserver.storage.database import Database
from homeserver.storage.events import REDACTED, StoredEvent
from tests.client_api.room_server import RoomServer, room_server, segment
from tests.world import WorldRoom

NAME = "org.matrix.msc3912.with_relations"
_numbers = count()


@pytest.fixture
async def rooms(sqlite_database: Database) -> AsyncIterator[RoomServer]:
    async with room_server(sqlite_database) as running:
        yield running


async def a_room(rooms: RoomServer) -> tuple[str, str, WorldRoom]:
    alice, bob = rooms.world.user("alice"), rooms.world.user("bob")
    room = await rooms.world.public_room(alice)
    await room.join(bob)
    return alice, bob, room


async def related(room: WorldRoom, sender: str, parent: StoredEvent, rel_type: str) -> StoredEvent:
    content: dict[str, Any] = {
        "body": "* child",
        "msgtype": "m.text",
        "m.relates_to": {"rel_type": rel_type, "event_id": parent.id, "key": "x"},
    }
    if rel_type == "m.replace":
        content["m.new_content"] = {"body": "child", "msgtype": "m.text"}
    return await room.send_event(sender, "m.room.message", content)


async def redact(
    rooms: RoomServer, user_id: str, room: WorldRoom, event: StoredEvent, **body: Any
) -> tuple[int, Any]:
    """The answer to a redaction, once everything that follows from it is done."""
    path = f"/rooms/{segment(room.room_id)}/redact/{segment(event.id)}/{next(_numbers)}"
    reply = await rooms.call(user_id, "PUT", path, body)
    await rooms.world.actions.related_redactions.idle()
    return reply


async def redacted(rooms: RoomServer, events: Sequence[StoredEvent]) -> list[bool]:
    stored = [await rooms.world.events.by_id(one.id) for one in events]
    return [one is not None and bool(one.flags & REDACTED) for one in stored]


@pytest.mark.parametrize("name", [NAME, "with_rel_types"])
async def test_edits_go_with_the_message(rooms: RoomServer, name: str) -> None:
    alice, _, room = await a_room(rooms)
    message = await room.send(alice, "hello")
    edits = [await related(room, alice, message, "m.replace") for _ in range(3)]
    reaction = await related(room, alice, message, "m.annotation")
    status, reply = await redact(rooms, alice, room, message, **{name: ["m.replace"]}, reason="oops")
    assert status == 200
    assert await redacted(rooms, [message, *edits, reaction]) == [True, True, True, True, False]
    redaction = await rooms.world.events.by_id(reply["event_id"])
    assert redaction is not None
    assert redaction.event.content == {"redacts": message.id, "reason": "oops"}
    edit = await rooms.world.events.by_id(edits[0].id)
    assert edit is not None
    assert edit.redacted_by is not None
    (of_edit,) = (await rooms.world.events.by_nids([edit.redacted_by])).values()
    assert of_edit.event.content["reason"] == "oops"
    assert of_edit.event.sender == alice


@pytest.mark.parametrize("body", [{}, {NAME: []}])
async def test_without_types_the_event_alone_is_redacted(rooms: RoomServer, body: dict[str, Any]) -> None:
    alice, _, room = await a_room(rooms)
    message = await room.send(alice, "hello")
    edit = await related(room, alice, message, "m.replace")
    await redact(rooms, alice, room, message, **body)
    assert await redacted(rooms, [message, edit]) == [True, False]


async def test_the_star_is_any_type(rooms: RoomServer) -> None:
    alice, _, room = await a_room(rooms)
    message = await room.send(alice, "hello")
    types = ["m.replace", "m.annotation", "m.thread", "m.reference", "org.example"]
    children = [await related(room, alice, message, rel_type) for rel_type in types]
    await redact(rooms, alice, room, message, **{NAME: ["*"]})
    assert await redacted(rooms, children) == [True] * len(types)


async def test_what_the_user_may_not_redact_stays(rooms: RoomServer) -> None:
    alice, bob, room = await a_room(rooms)
    message = await room.send(bob, "hello")
    children = [await related(room, user, message, "m.thread") for user in (bob, alice)]
    await redact(rooms, bob, room, message, **{NAME: ["m.thread"]})
    assert await redacted(rooms, children) == [True, False]
    await redact(rooms, alice, room, message, **{NAME: ["m.thread"]})
    assert await redacted(rooms, children) == [True, True]


async def test_only_direct_and_valid_children_are_meant(rooms: RoomServer) -> None:
    alice, bob, room = await a_room(rooms)
    message = await room.send(alice, "hello")
    edit = await related(room, alice, message, "m.replace")
    edit_of_edit = await related(room, alice, edit, "m.replace")
    edit_by_another = await related(room, bob, message, "m.replace")
    await redact(rooms, alice, room, edit, **{NAME: ["*"]})
    assert await redacted(rooms, [message, edit, edit_of_edit]) == [False, True, False]
    await redact(rooms, alice, room, message, **{NAME: ["*"]})
    assert await redacted(rooms, [message, edit_of_edit, edit_by_another]) == [True, False, False]


async def test_more_than_a_page_of_children_and_late_ones(rooms: RoomServer) -> None:
    alice, bob, room = await a_room(rooms)
    message = await room.send(alice, "hello")
    children = [await related(room, bob, message, "m.thread") for _ in range(60)]
    await redact(rooms, alice, room, message, **{NAME: ["m.thread"]})
    assert all(await redacted(rooms, children))
    late, other = (
        await related(room, bob, message, "m.thread"),
        await related(room, bob, message, "m.reference"),
    )
    await rooms.world.actions.related_redactions.idle()
    assert await redacted(rooms, [late, other]) == [True, False]
    rooms.world.clock.advance(8 * 86_400)
    too_late = await related(room, bob, message, "m.thread")
    await rooms.world.actions.related_redactions.idle()
    assert await redacted(rooms, [too_late]) == [False]


async def test_who_leaves_redacts_nothing_more(rooms: RoomServer) -> None:
    _, bob, room = await a_room(rooms)
    message = await room.send(bob, "hello")
    await redact(rooms, bob, room, message, **{NAME: ["*"]})
    await room.leave(bob)
    late = await related(room, rooms.world.user("alice"), message, "m.thread")
    await rooms.world.actions.related_redactions.idle()
    assert await redacted(rooms, [late]) == [False]


@pytest.mark.parametrize(
    ("wanted", "errcode"),
    [
        ("m.replace", "M_BAD_JSON"),
        ([1], "M_BAD_JSON"),
        (["x" * 256], "M_BAD_JSON"),
        ([str(n) for n in range(51)], "M_INVALID_PARAM"),
    ],
)
async def test_what_is_no_list_of_types_is_refused(rooms: RoomServer, wanted: Any, errcode: str) -> None:
    alice, _, room = await a_room(rooms)
    message = await room.send(alice, "hello")
    status, reply = await redact(rooms, alice, room, message, **{NAME: wanted})
    assert (status, reply["errcode"]) == (400, errcode)
    assert await redacted(rooms, [message]) == [False]


async def test_who_may_not_redact_the_event_redacts_nothing(rooms: RoomServer) -> None:
    alice, bob, room = await a_room(rooms)
    message = await room.send(alice, "hello")
    own = await related(room, bob, message, "m.thread")
    status, reply = await redact(rooms, bob, room, message, **{NAME: ["*"]})
    assert (status, reply["errcode"]) == (403, "M_FORBIDDEN")
    assert await redacted(rooms, [own]) == [False]
