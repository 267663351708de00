"""Finding rooms and events over HTTP: published rooms, spaces, summaries, dates; and OpenID tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from yarl import URL

from homeserver.rooms.new_room import NewRoom
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer
from tests.client_api.room_server import RoomServer, room_server, segment
from tests.world import ELSEWHERE

V1 = "/_matrix/client/v1"


@pytest.fixture
async def rooms(sqlite_database: Database) -> AsyncIterator[RoomServer]:
    async with room_server(sqlite_database) as running:
        yield running


async def get(rooms: RoomServer, user_id: str | None, path: str, **query: str) -> tuple[int, Any]:
    """Status and JSON of a request below ``/_matrix/client/v1``."""
    headers = {"Authorization": f"Bearer {user_id}"} if user_id else {}
    url = URL(V1 + path, encoded=True).with_query(query)
    async with rooms.client.get(url, headers=headers) as response:
        return response.status, await response.json()


async def listed(rooms: RoomServer, creator: str, name: str, **fields: Any) -> str:
    wish = NewRoom(preset="public_chat", visibility="public", name=name, **fields)
    return (await rooms.world.room(creator, wish)).room_id


async def test_published_rooms_are_read_and_searched(rooms: RoomServer) -> None:
    alice = rooms.world.user("alice")
    hearth = await listed(rooms, alice, "Hearth", topic="Test Topic Wombles")
    await listed(rooms, alice, "Garden")

    page = await rooms.get(alice, "/publicRooms", limit="1")
    assert len(page["chunk"]) == 1
    assert page["total_room_count_estimate"] == 2
    page = await rooms.get(alice, "/publicRooms", since=page["next_batch"])
    assert [entry["room_id"] for entry in page["chunk"]] == [hearth]
    body = {"filter": {"generic_search_term": "wombles"}}
    status, page = await rooms.call(alice, "POST", "/publicRooms", body)
    assert (status, [entry["room_id"] for entry in page["chunk"]]) == (200, [hearth])
    assert "next_batch" not in page


async def test_a_room_is_taken_out_of_the_list_and_put_back(rooms: RoomServer) -> None:
    alice, bob = rooms.world.user("alice"), rooms.world.user("bob")
    room_id = await listed(rooms, alice, "Hearth")
    place = f"/directory/list/room/{segment(room_id)}"

    assert (await rooms.call(bob, "PUT", place, {"visibility": "private"}))[0] == 403
    assert await rooms.call(alice, "PUT", place, {"visibility": "private"}) == (200, {})
    assert (await rooms.get(alice, "/publicRooms"))["chunk"] == []
    assert await rooms.get(bob, place) == {"visibility": "private"}
    assert await rooms.call(alice, "PUT", place, {}) == (200, {})
    assert len((await rooms.get(alice, "/publicRooms"))["chunk"]) == 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"since": "yesterday"}, (400, "M_INVALID_PARAM")),
        ({"limit": "many"}, (400, "M_INVALID_PARAM")),
        ({"server": "not a server"}, (400, "M_INVALID_PARAM")),
        ({"server": ELSEWHERE}, (504, "M_UNKNOWN")),
    ],
)
async def test_a_list_that_cannot_be_read(
    rooms: RoomServer, query: dict[str, str], expected: tuple[int, str]
) -> None:
    assert await rooms.refusal(rooms.world.user("alice"), "/publicRooms", **query) == expected


async def test_bodies_of_the_wrong_shape_are_refused(rooms: RoomServer) -> None:
    alice = rooms.world.user("alice")
    for body in ({"limit": "1"}, {"filter": 1}, {"filter": {"room_types": "m.space"}}, {"limit": -5}):
        status, reply = await rooms.call(alice, "POST", "/publicRooms", body)
        assert (status, reply["errcode"]) in {(400, "M_BAD_JSON"), (400, "M_INVALID_PARAM")}


async def test_which_rooms_there_are_is_for_those_with_an_account(server: AccountServer) -> None:
    assert await server.refused("GET", "/publicRooms") == (401, "M_MISSING_TOKEN")


async def test_a_space_is_walked(rooms: RoomServer) -> None:
    alice = rooms.world.user("alice")
    space = await rooms.world.public_room(alice, name="Space", creation_content={"type": "m.space"})
    room = await rooms.world.public_room(alice, name="Room")
    await space.set_state(alice, "m.space.child", {"via": ["here.example"]}, room.room_id)
    path = f"/rooms/{segment(space.room_id)}/hierarchy"

    status, page = await get(rooms, alice, path, limit="1")
    assert (status, [each["name"] for each in page["rooms"]]) == (200, ["Space"])
    (child,) = page["rooms"][0]["children_state"]
    assert child["state_key"] == room.room_id
    _, page = await get(rooms, alice, path, limit="1", **{"from": page["next_batch"]})
    assert [each["name"] for each in page["rooms"]] == ["Room"]
    assert "next_batch" not in page
    for query in ({"limit": "0"}, {"max_depth": "-1"}, {"suggested_only": "maybe"}, {"from": "nowhere"}):
        status, reply = await get(rooms, alice, path, **query)
        assert (status, reply["errcode"]) == (400, "M_INVALID_PARAM")
    assert (await get(rooms, alice, "/rooms/!no:here.example/hierarchy"))[0] == 403


async def test_a_room_is_summarised_by_id_and_alias(rooms: RoomServer) -> None:
    alice, bob = rooms.world.user("alice"), rooms.world.user("bob")
    room = await rooms.world.public_room(alice, name="Room", room_alias_name="room", version="11")
    alias = segment("#room:here.example")

    status, summary = await get(rooms, bob, f"/room_summary/{alias}")
    assert (status, summary["room_id"], summary["membership"]) == (200, room.room_id, "leave")
    assert summary["room_version"] == "11"
    status, summary = await get(rooms, None, f"/room_summary/{segment(room.room_id)}")
    assert (status, summary["name"]) == (200, "Room")
    assert (await get(rooms, bob, "/room_summary/!no:here.example"))[0] == 404
    assert (await get(rooms, bob, "/room_summary/nothing"))[0] == 400


async def test_a_date_leads_to_an_event(rooms: RoomServer) -> None:
    alice, bob = rooms.world.user("alice"), rooms.world.user("bob")
    room = await rooms.world.public_room(alice)
    rooms.world.clock.advance(60)
    said = await room.send(alice, "hello")
    path, ts = f"/rooms/{segment(room.room_id)}/timestamp_to_event", said.event.origin_server_ts

    expected = {"event_id": said.id, "origin_server_ts": ts}
    assert await get(rooms, alice, path, ts=str(ts), dir="f") == (200, expected)
    assert await get(rooms, alice, path, ts=str(ts + 5), dir="b") == (200, expected)
    status, reply = await get(rooms, alice, path, ts=str(ts + 5), dir="f")
    assert (status, reply["errcode"]) == (404, "M_NOT_FOUND")
    for query in ({"dir": "f"}, {"ts": "1"}, {"ts": "1", "dir": "up"}, {"ts": "x", "dir": "f"}):
        assert (await get(rooms, alice, path, **query))[0] == 400
    assert (await get(rooms, bob, path, ts=str(ts), dir="f"))[0] == 403


async def test_a_token_for_others_is_for_oneself_and_opens_nothing(server: AccountServer) -> None:
    token = await server.user("alice")
    path = "/user/@alice:a.org/openid/request_token"

    status, reply = await server.call("POST", path, {}, token=token)
    assert status == 200
    assert (reply["token_type"], reply["matrix_server_name"], reply["expires_in"]) == (
        "Bearer",
        "a.org",
        3600,
    )
    assert await server.people.openid.user_of(reply["access_token"]) == "@alice:a.org"
    assert await server.refused("GET", "/account/whoami", token=reply["access_token"]) == (
        401,
        "M_UNKNOWN_TOKEN",
    )
    other = "/user/@bob:a.org/openid/request_token"
    assert await server.refused("POST", other, {}, token=token) == (403, "M_FORBIDDEN")
