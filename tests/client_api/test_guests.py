"""Guests: what they may do, where they may be, and how they become full users."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from client_api.guests import FOR_GUESTS
from homeserver.rooms.guest_access import GuestAccess
from homeserver.storage.database import Database
from homeserver.web import Access
from tests.client_api.account_server import AccountServer, account_server, password_auth, segment

REFUSED = (403, "M_GUEST_ACCESS_FORBIDDEN")
DUMMY = {"type": "m.login.dummy"}


@pytest.fixture
async def server(database: Database) -> AsyncIterator[AccountServer]:
    """A running server that takes guests, on each engine."""
    async with account_server(database, allow_guests=True) as running:
        yield running


async def ok(server: AccountServer, method: str, path: str, body: Any = None, *, token: str) -> Any:
    status, reply = await server.call(method, path, body, token=token)
    assert status == 200, reply
    return reply


async def new_guest(server: AccountServer) -> tuple[str, str]:
    """User id and access token."""
    status, reply = await server.call("POST", "/register?kind=guest", {})
    assert status == 200, reply
    return reply["user_id"], reply["access_token"]


async def open_room(server: AccountServer, token: str, **wish: Any) -> str:
    """A room's path; everybody may join, guests too unless ``wish`` says otherwise."""
    wish = {"preset": "public_chat", "initial_state": [guest_access("can_join")], **wish}
    room_id = (await ok(server, "POST", "/createRoom", wish, token=token))["room_id"]
    return f"/rooms/{segment(room_id)}"


async def members(server: AccountServer, room: str, token: str) -> set[str]:
    """Who is joined to a room."""
    return set((await ok(server, "GET", f"{room}/joined_members", token=token))["joined"])


def guest_access(value: str) -> dict[str, Any]:
    return {"type": "m.room.guest_access", "state_key": "", "content": {"guest_access": value}}


async def test_a_guest_has_an_account_that_says_so(server: AccountServer) -> None:
    body = {"username": "mallory", "password": "mine", "device_id": "MINE", "inhibit_login": True}
    status, reply = await server.call(
        "POST", "/register?kind=guest", {**body, "initial_device_display_name": "Kiosk"}
    )

    assert status == 200
    assert "mallory" not in reply["user_id"]
    assert reply["device_id"] != "MINE"
    who = await ok(server, "GET", "/account/whoami", token=reply["access_token"])
    assert who["is_guest"] is True
    (device,) = (await ok(server, "GET", "/devices", token=reply["access_token"]))["devices"]
    assert device["display_name"] == "Kiosk"


async def test_nobody_logs_in_as_a_guest(server: AccountServer) -> None:
    user_id, _ = await new_guest(server)

    for password in ("", "secret"):
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": user_id},
            "password": password,
        }
        assert await server.refused("POST", "/login", login) == (403, "M_FORBIDDEN")


async def test_guests_may_call_what_the_specification_lists_and_nothing_else(server: AccountServer) -> None:
    _, token = await new_guest(server)

    for route in server.routes():
        if route.access is not Access.USER:
            continue
        # Streams would not end by themselves.
        path = f"{route.path.format_map(_Anything())}?since=nonsense"
        status, reply = await server.call(route.method, path, None, token=token)
        refused = status == 403 and reply["error"] == "Guests may not do this"
        # A guest who may call it has other reasons to fail here.
        assert refused == ((route.method, route.path) not in FOR_GUESTS), (route.method, route.path, reply)


class _Anything(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "displayname" if key == "keyName" else segment("!nowhere:a.org")


async def test_guests_join_where_guests_may(server: AccountServer) -> None:
    alice = await server.user("alice")
    user_id, token = await new_guest(server)
    wanted, forbidding = (
        await open_room(server, alice),
        await open_room(server, alice, initial_state=[guest_access("forbidden")]),
    )
    silent = await open_room(server, alice, initial_state=[])

    assert await server.refused("POST", f"{forbidding}/join", {}, token=token) == REFUSED
    assert await server.refused("POST", f"{silent}/join", {}, token=token) == REFUSED
    member = f"{forbidding}/state/m.room.member/{segment(user_id)}"
    assert await server.refused("PUT", member, {"membership": "join"}, token=token) == REFUSED
    elsewhere = f"/rooms/{segment('!room:elsewhere.org')}/join"
    assert await server.refused("POST", elsewhere, {}, token=token) == REFUSED
    await ok(server, "POST", f"{wanted}/join", {}, token=token)

    await ok(server, "PUT", f"{wanted}/send/m.room.message/1", {"body": "hello"}, token=token)
    assert (await server.call("PUT", f"{wanted}/redact/$event/1", {}, token=token))[0] == 403
    await ok(server, "POST", f"{wanted}/leave", {}, token=token)


async def test_an_invited_guest_needs_guest_access_too(server: AccountServer) -> None:
    alice = await server.user("alice")
    user_id, token = await new_guest(server)
    room = await open_room(server, alice, initial_state=[guest_access("forbidden")], invite=[user_id])

    assert await server.refused("POST", f"{room}/join", {}, token=token) == REFUSED
    await ok(server, "PUT", f"{room}/state/m.room.guest_access", {"guest_access": "can_join"}, token=alice)
    assert (await server.call("POST", f"{room}/join", {}, token=token))[0] == 200


async def test_guests_only_name_themselves(server: AccountServer) -> None:
    user_id, token = await new_guest(server)
    profile = f"/profile/{segment(user_id)}"

    await ok(server, "PUT", f"{profile}/displayname", {"displayname": "Visitor"}, token=token)
    assert (
        await server.refused("PUT", f"{profile}/avatar_url", {"avatar_url": "mxc://a/b"}, token=token)
        == REFUSED
    )
    assert await server.refused("DELETE", f"{profile}/avatar_url", token=token) == REFUSED
    await ok(server, "DELETE", f"{profile}/displayname", token=token)


async def test_guests_leave_when_the_room_wants_none_any_more(server: AccountServer) -> None:
    core = server.core
    access = GuestAccess(core.db, core.rooms, server.actions.membership, core.background)
    alice, bob = await server.user("alice"), await server.user("bob")
    user_id, token = await new_guest(server)
    room = await open_room(server, alice)
    for joining in (bob, token):
        await ok(server, "POST", f"{room}/join", {}, token=joining)
    core.notifier.listeners.append(access.look)

    await ok(server, "PUT", f"{room}/state/m.room.guest_access", {"guest_access": "forbidden"}, token=alice)
    (sending_away,) = [task for task in asyncio.all_tasks() if task.get_name().startswith("guests of")]
    await sending_away

    assert await members(server, room, alice) == {"@alice:a.org", "@bob:a.org"}
    member = await ok(server, "GET", f"{room}/state/m.room.member/{segment(user_id)}", token=alice)
    assert member["membership"] == "leave"


async def test_what_a_stop_left_undone_is_done_later(server: AccountServer) -> None:
    core = server.core
    alice = await server.user("alice")
    user_id, token = await new_guest(server)
    room, other = await open_room(server, alice), await open_room(server, alice)
    for path in (room, other):
        await ok(server, "POST", f"{path}/join", {}, token=token)
    await ok(server, "PUT", f"{room}/state/m.room.guest_access", {"guest_access": "forbidden"}, token=alice)

    await GuestAccess(core.db, core.rooms, server.actions.membership, core.background).enforce()

    assert user_id not in await members(server, room, alice)
    assert user_id in await members(server, other, alice)


async def test_a_guest_becomes_a_full_user_of_the_same_name(server: AccountServer) -> None:
    alice = await server.user("alice")
    user_id, token = await new_guest(server)
    room = await open_room(server, alice)
    await ok(server, "POST", f"{room}/join", {}, token=token)
    name = user_id.removeprefix("@").partition(":")[0]
    wish = {"guest_access_token": token, "password": f"secret {name}", "auth": DUMMY}

    assert await server.refused("POST", "/register", wish) == (400, "M_MISSING_PARAM")
    assert await server.refused("POST", "/register", {**wish, "username": "x"}) == (400, "M_INVALID_USERNAME")
    not_a_guests = {**wish, "username": name, "guest_access_token": alice}
    assert await server.refused("POST", "/register", not_a_guests) == (403, "M_FORBIDDEN")
    unknown = {**wish, "username": name, "guest_access_token": "nobody's"}
    assert await server.refused("POST", "/register", unknown) == (401, "M_UNKNOWN_TOKEN")
    status, reply = await server.call("POST", "/register", {**wish, "username": name})

    assert (status, reply["user_id"]) == (200, user_id)
    who = await ok(server, "GET", "/account/whoami", token=reply["access_token"])
    assert who["is_guest"] is False
    assert await server.refused("GET", "/account/whoami", token=token) == (401, "M_UNKNOWN_TOKEN")
    assert len((await ok(server, "GET", "/joined_rooms", token=reply["access_token"]))["joined_rooms"]) == 1
    status, _ = await server.call("POST", "/login", password_auth(name))
    assert status == 200


async def test_without_a_token_the_name_of_a_guest_is_taken(server: AccountServer) -> None:
    user_id, _ = await new_guest(server)
    name = user_id.removeprefix("@").partition(":")[0]

    wish = {"username": name, "password": "secret", "auth": DUMMY}
    assert await server.refused("POST", "/register", wish) == (400, "M_USER_IN_USE")


async def test_a_guest_looks_into_a_room_that_is_open_to_the_world(server: AccountServer) -> None:
    alice = await server.user("alice")
    _, token = await new_guest(server)
    readable = {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}
    room = await open_room(server, alice, initial_state=[readable])
    said = await ok(server, "PUT", f"{room}/send/m.room.message/1", {"body": "hello"}, token=alice)

    info = await ok(server, "GET", f"{room}/initialSync", token=token)
    one_room = f"/events?room_id={room.removeprefix('/rooms/')}&from={info['messages']['start']}"
    stream = await ok(server, "GET", one_room, token=token)

    assert said["event_id"] in {event["event_id"] for event in info["messages"]["chunk"]}
    assert said["event_id"] in {event["event_id"] for event in stream["chunk"]}
    assert await server.refused("GET", "/events", token=token) == (400, "M_MISSING_PARAM")
