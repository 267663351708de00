"""Sliding sync over HTTP, in both its forms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from homeserver.storage.database import Database
from tests.client_api.room_server import RoomServer, room_server, segment

UNSTABLE = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
STABLE = "/_matrix/client/v4/sync"
TOP = {"ranges": [[0, 19]], "timeline_limit": 1, "required_state": [["m.room.create", ""]]}
LATEST = {
    "range": [0, 19],
    "timeline_limit": 1,
    "required_state": {"include": [{"type": "m.room.create", "state_key": ""}]},
}


@pytest.fixture
async def server(sqlite_database: Database) -> AsyncIterator[RoomServer]:
    async with room_server(sqlite_database, presence=True) as opened:
        yield opened


async def refusal(
    server: RoomServer, user_id: str, path: str, body: dict[str, Any], **query: str
) -> tuple[int, str]:
    status, reply = await server.call(user_id, "POST", path, body, **query)
    return status, reply["errcode"]


async def test_clients_are_told_that_there_is_sliding_sync(server: RoomServer) -> None:
    versions = await server.get("@alice:here.example", "/_matrix/client/versions")
    assert versions["unstable_features"]["org.matrix.simplified_msc3575"] is True


async def test_the_form_of_today_has_its_position_in_the_query(server: RoomServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice, name="Tea")
    body = {"conn_id": "room-list", "txn_id": "t1", "lists": {"all": TOP}}
    status, first = await server.call(alice, "POST", UNSTABLE, body, timeout="30000")
    assert status == 200, first
    assert first["txn_id"] == "t1"
    assert first["lists"] == {"all": {"count": 1}}
    assert first["rooms"][room.room_id]["name"] == "Tea"
    assert first["extensions"] == {}
    await room.send(alice, "hello")
    _, second = await server.call(alice, "POST", UNSTABLE, body, pos=first["pos"], timeout="30000")
    assert [event["content"]["body"] for event in second["rooms"][room.room_id]["timeline"]] == ["hello"]


async def test_the_proposed_form_has_it_in_the_body(server: RoomServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice, name="Tea")
    body = {"conn_id": "main", "timeout": 30_000, "set_presence": "offline", "lists": {"all": LATEST}}
    status, first = await server.call(alice, "POST", STABLE, body)
    assert status == 200, first
    assert first["rooms"][room.room_id]["membership"] == "join"
    await room.send(alice, "hello")
    _, second = await server.call(alice, "POST", STABLE, {**body, "pos": first["pos"]})
    assert list(second["rooms"]) == [room.room_id]


async def test_a_position_leads_to_older_messages(server: RoomServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    sent = await room.send(alice, "before")
    _, reply = await server.call(alice, "POST", STABLE, {"lists": {"all": LATEST}})
    path = f"/rooms/{segment(room.room_id)}/messages"
    page = await server.get(alice, path, **{"from": reply["pos"], "dir": "b", "limit": "1"})
    assert [event["event_id"] for event in page["chunk"]] == [sent.id]


async def test_positions_that_are_not_known_are_refused(server: RoomServer) -> None:
    alice = server.world.user("alice")
    body = {"lists": {"all": TOP}}
    assert await refusal(server, alice, UNSTABLE, body, pos="s1_5_5") == (400, "M_UNKNOWN_POS")
    assert await refusal(server, alice, UNSTABLE, body, pos="9" * 5000) == (400, "M_UNKNOWN_POS")
    assert await refusal(server, alice, STABLE, {"pos": "x~y.1"}) == (400, "M_UNKNOWN_POS")


async def test_parameters_that_make_no_sense_are_refused(server: RoomServer) -> None:
    alice = server.world.user("alice")
    assert await refusal(server, alice, UNSTABLE, {}, timeout="soon") == (400, "M_INVALID_PARAM")
    assert await refusal(server, alice, UNSTABLE, {}, set_presence="there") == (400, "M_INVALID_PARAM")
    assert await refusal(server, alice, UNSTABLE, {"conn_id": 5}) == (400, "M_BAD_JSON")
    assert await refusal(server, alice, UNSTABLE, {"conn_id": "x" * 300}) == (400, "M_INVALID_PARAM")
    assert await refusal(server, alice, STABLE, {"set_presence": "there"}) == (400, "M_INVALID_PARAM")
    assert await refusal(server, alice, STABLE, {"timeout": -1}) == (400, "M_INVALID_PARAM")
    assert await refusal(server, alice, STABLE, {"timeout": "1"}) == (400, "M_BAD_JSON")
    assert await refusal(server, alice, STABLE, {"pos": 1}) == (400, "M_BAD_JSON")
    assert await refusal(server, alice, STABLE, {"lists": 1}) == (400, "M_BAD_JSON")


async def test_extensions_nobody_knows_are_passed_over(server: RoomServer) -> None:
    alice = server.world.user("alice")
    extensions = {"org.example.sun": {"enabled": "always"}, "org.example.rain": 5, "typing": None}
    for path in (UNSTABLE, STABLE):
        status, reply = await server.call(alice, "POST", path, {"extensions": extensions})
        assert (status, reply["extensions"]) == (200, {})
    wrong = {"extensions": {"typing": {"enabled": "always"}}}
    assert await refusal(server, alice, UNSTABLE, wrong) == (400, "M_BAD_JSON")


async def test_who_syncs_is_there(server: RoomServer) -> None:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    await server.call(alice, "POST", UNSTABLE, {}, set_presence="unavailable")
    await server.call(bob, "POST", STABLE, {"set_presence": "offline"})
    path = f"/presence/{segment(alice)}/status"
    assert (await server.get(alice, path))["presence"] == "unavailable"
    nothing_known = (404, "M_NOT_FOUND")
    assert await server.refusal(bob, f"/presence/{segment(bob)}/status") == nothing_known
