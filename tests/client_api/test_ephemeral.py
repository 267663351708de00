"""Typing, receipts, read markers, presence and device messages over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from homeserver.storage.database import Database
from tests.client_api.room_server import RoomServer, room_server, segment


@pytest.fixture
async def rooms(sqlite_database: Database) -> AsyncIterator[RoomServer]:
    async with room_server(sqlite_database, presence=True) as running:
        yield running


async def test_typing(rooms: RoomServer) -> None:
    alice, bob = rooms.world.user("alice"), rooms.world.user("bob")
    room = await rooms.world.public_room(alice)
    typing = f"/rooms/{segment(room.room_id)}/typing/"
    assert await rooms.call(alice, "PUT", typing + segment(alice), {"typing": True, "timeout": 1000}) == (
        200,
        {},
    )
    assert rooms.sync_server.typing.users((await room.live()).nid) == [alice]
    assert await rooms.call(alice, "PUT", typing + segment(alice), {"typing": False}) == (200, {})
    assert rooms.sync_server.typing.users((await room.live()).nid) == []
    status, _ = await rooms.call(alice, "PUT", typing + segment(bob), {"typing": True})
    assert status == 403
    status, _ = await rooms.call(bob, "PUT", typing + segment(bob), {"typing": True})
    assert status == 403
    status, reply = await rooms.call(alice, "PUT", typing + segment(alice), {"typing": "yes"})
    assert (status, reply["errcode"]) == (400, "M_BAD_JSON")


async def test_receipts_and_read_markers(rooms: RoomServer) -> None:
    alice = rooms.world.user("alice")
    room = await rooms.world.public_room(alice)
    event = await room.send(alice, "read me")
    base = f"/rooms/{segment(room.room_id)}"
    first = await rooms.get(alice, "/sync")
    receipt = f"{base}/receipt/m.read/{segment(event.id)}"
    assert await rooms.call(alice, "POST", receipt, {"thread_id": "main"}) == (200, {})
    for bad in ("", 5, "$other"):
        status, reply = await rooms.call(alice, "POST", receipt, {"thread_id": bad})
        assert (status, reply["errcode"]) == (400, "M_INVALID_PARAM")
    markers = {"m.fully_read": event.id, "m.read": event.id, "m.read.private": event.id}
    assert await rooms.call(alice, "POST", f"{base}/read_markers", markers) == (200, {})
    section = (await rooms.get(alice, "/sync", since=first["next_batch"]))["rooms"]["join"][room.room_id]
    assert section["account_data"]["events"] == [{"type": "m.fully_read", "content": {"event_id": event.id}}]
    told = [content["content"][event.id] for content in section["ephemeral"]["events"]]
    assert [sorted(by_type) for by_type in told] == [["m.read"], ["m.read", "m.read.private"]]
    unknown = f"{base}/receipt/m.read/{segment('$nothing')}"
    assert (await rooms.call(alice, "POST", unknown, {}))[0] == 404
    assert (await rooms.call(alice, "POST", f"{base}/receipt/m.odd/{segment(event.id)}", {}))[0] == 400


async def test_presence(rooms: RoomServer) -> None:
    alice, bob, eve = (rooms.world.user(name) for name in ("alice", "bob", "eve"))
    room = await rooms.world.public_room(alice)
    await room.join(bob)
    status = f"/presence/{segment(alice)}/status"
    assert await rooms.call(alice, "PUT", status, {"presence": "unavailable", "status_msg": "tea"}) == (
        200,
        {},
    )
    reply = await rooms.get(bob, status)
    assert (reply["presence"], reply["status_msg"]) == ("unavailable", "tea")
    assert await rooms.refusal(eve, status) == (403, "M_FORBIDDEN")
    assert (await rooms.call(bob, "PUT", status, {"presence": "online"}))[0] == 403
    assert (await rooms.call(alice, "PUT", status, {"presence": "asleep"}))[0] == 400


async def test_messages_to_devices(rooms: RoomServer) -> None:
    alice, bob = rooms.world.user("alice"), rooms.world.user("bob")
    await rooms.sync_server.add_device(bob, "PHONE")
    body = {"messages": {bob: {"PHONE": {"x": 1}}}}
    for _ in range(2):
        assert await rooms.call(alice, "PUT", "/sendToDevice/m.test/txn", body) == (200, {})
    response = await rooms.get(bob, "/sync")
    assert response["to_device"]["events"] == [{"type": "m.test", "sender": alice, "content": {"x": 1}}]
    assert (await rooms.call(alice, "PUT", "/sendToDevice/m.test/t2", {"messages": {"bob": {}}}))[0] == 400
