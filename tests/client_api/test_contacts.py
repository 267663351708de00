"""Finding, reporting, inviting and ignoring each other, over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from homeserver.storage import reports
from homeserver.storage.database import Database
from tests.client_api.room_server import RoomServer, room_server, segment
from tests.sync.server import Client, bodies
from tests.world import ELSEWHERE, WorldRoom

MUTUAL = "/_matrix/client/v1/mutual_rooms"
SEARCH = "/user_directory/search"
INVITE_CONFIG = "m.invite_permission_config"


@pytest.fixture
async def rooms(sqlite_database: Database) -> AsyncIterator[RoomServer]:
    async with room_server(sqlite_database) as running:
        yield running


async def people(rooms: RoomServer, *names: str) -> list[str]:
    """Accounts with display names."""
    made = []
    for name in names:
        user_id = await rooms.sync_server.people.accounts.create_account(name, None)
        await rooms.sync_server.people.profiles.set_field(user_id, "displayname", name.title())
        made.append(user_id)
    return made


async def test_the_user_directory(rooms: RoomServer) -> None:
    alice, bob = await people(rooms, "alice", "bob")
    room = await rooms.world.public_room(alice)
    await room.join(bob)

    found = await rooms.call(alice, "POST", SEARCH, {"search_term": "Bo"})
    assert found == (200, {"results": [{"user_id": bob, "display_name": "Bob"}], "limited": False})
    assert await rooms.call(alice, "POST", SEARCH, {"search_term": ""}) == (
        200,
        {"results": [], "limited": False},
    )
    for body, errcode in (
        ({}, "M_BAD_JSON"),
        ({"search_term": 5}, "M_BAD_JSON"),
        ({"search_term": "b", "limit": 0}, "M_INVALID_PARAM"),
        ({"search_term": "b", "limit": "many"}, "M_BAD_JSON"),
    ):
        status, reply = await rooms.call(alice, "POST", SEARCH, body)
        assert (status, reply["errcode"]) == (400, errcode)


async def test_rooms_that_two_share_come_in_batches(rooms: RoomServer) -> None:
    alice, bob, eve = (rooms.world.user(name) for name in ("alice", "bob", "eve"))
    shared = []
    for _ in range(102):
        room = await rooms.world.public_room(alice)
        await room.join(bob)
        shared.append(room.room_id)
    await rooms.world.public_room(alice)

    first = await rooms.get(alice, MUTUAL, user_id=bob)
    assert (first["joined"], first["count"]) == (shared[:100], 102)
    rest = await rooms.get(alice, MUTUAL, user_id=bob, **{"from": first["next_batch"]})
    assert rest == {"joined": shared[100:], "count": 102}
    assert await rooms.get(eve, MUTUAL, user_id=bob) == {"joined": [], "count": 0}
    assert await rooms.get(alice, MUTUAL, user_id="@nobody:x") == {"joined": [], "count": 0}
    old = "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms"
    assert (await rooms.get(bob, old, user_id=alice))["next_batch_token"] == first["next_batch"]


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"user_id": "bob"}, "M_INVALID_PARAM"),
        ({"user_id": "@alice:here.example"}, "M_INVALID_PARAM"),
        ({"user_id": "@bob:x", "from": "m"}, "M_INVALID_PARAM"),
        ({"user_id": "@bob:x", "from": "m-1"}, "M_INVALID_PARAM"),
        ({"user_id": "@bob:x", "from": "5"}, "M_INVALID_PARAM"),
        ({"user_id": "@bob:x", "from": "m" + "9" * 30}, "M_INVALID_PARAM"),
    ],
)
async def test_shared_rooms_are_asked_for_rightly(
    rooms: RoomServer, query: dict[str, str], errcode: str
) -> None:
    alice = rooms.world.user("alice")
    assert await rooms.refusal(alice, MUTUAL, **query) == (400, errcode)


async def test_reports_are_kept_for_those_who_run_the_server(rooms: RoomServer) -> None:
    alice, bob = await people(rooms, "alice", "bob")
    room = await rooms.world.public_room(alice)
    await room.join(bob)
    event = await room.send(alice, "rude")
    about_room = f"/rooms/{segment(room.room_id)}/report"

    for path, body in (
        (about_room, {"reason": "a bad room"}),
        (f"{about_room}/{segment(event.id)}", {"reason": "rude", "score": -100}),
        (f"{about_room}/{segment(event.id)}", {"reason": "very rude"}),
        (f"/users/{segment(alice)}/report", {"reason": ""}),
        (f"/users/{segment('@far:away.example')}/report", {"reason": "spam"}),
        (f"/users/{segment('@nobody:here.example')}/report", {"reason": "is not there"}),
    ):
        assert await rooms.call(bob, "POST", path, body) == (200, {})

    kept = await reports.newest(rooms.world.db.scan, 10)
    assert [(one.room_id, one.event_id, one.user_id, one.reason) for one in kept] == [
        ("", "", "@far:away.example", "spam"),
        ("", "", alice, ""),
        (room.room_id, event.id, alice, "very rude"),
        (room.room_id, "", "", "a bad room"),
    ]
    assert {one.reporter for one in kept} == {bob}


async def test_what_cannot_be_reported(rooms: RoomServer) -> None:
    alice, bob, eve = await people(rooms, "alice", "bob", "eve")
    room = await rooms.world.public_room(alice)
    await room.set_state(alice, "m.room.history_visibility", {"history_visibility": "joined"})
    before = await room.send(alice, "before Bob")
    await room.join(bob)
    after = await room.send(alice, "after Bob")
    about = f"/rooms/{segment(room.room_id)}/report"

    for user_id, path, body, refused in (
        (bob, f"{about}/{segment(before.id)}", {}, (404, "M_NOT_FOUND")),
        (eve, f"{about}/{segment(after.id)}", {}, (404, "M_NOT_FOUND")),
        (bob, f"{about}/$nothing", {}, (404, "M_NOT_FOUND")),
        (bob, f"/rooms/!nowhere:x/report/{segment(after.id)}", {}, (404, "M_NOT_FOUND")),
        (bob, "/rooms/!nowhere:x/report", {"reason": "x"}, (404, "M_NOT_FOUND")),
        (bob, about, {}, (400, "M_BAD_JSON")),
        (bob, about, {"reason": 5}, (400, "M_BAD_JSON")),
        (bob, about, {"reason": "x" * 10_001}, (400, "M_INVALID_PARAM")),
        (bob, "/users/nobody/report", {"reason": "x"}, (400, "M_INVALID_PARAM")),
    ):
        status, reply = await rooms.call(user_id, "POST", path, body)
        assert (status, reply["errcode"]) == refused, path
    assert await reports.newest(rooms.world.db.scan, 10) == []


async def invited_by(rooms: RoomServer, sender: str, target: str) -> tuple[int, Any, WorldRoom]:
    room = await rooms.world.private_room(sender)
    path = f"/rooms/{segment(room.room_id)}/invite"
    return (*await rooms.call(sender, "POST", path, {"user_id": target}), room)


@pytest.mark.parametrize(
    ("type_", "content"),
    [
        (INVITE_CONFIG, {"default_action": "block"}),
        ("org.matrix.msc4380.invite_permission_config", {"default_action": "block"}),
        ("org.matrix.msc4155.invite_permission_config", {"blocked_users": ["@bob:*"]}),
    ],
)
async def test_blocked_invites_are_refused(rooms: RoomServer, type_: str, content: dict[str, Any]) -> None:
    alice, bob = rooms.world.user("alice"), rooms.world.user("bob")
    pending = await rooms.world.private_room(bob)
    await pending.invite(bob, alice)
    config = f"/user/{segment(alice)}/account_data/{type_}"
    assert (await rooms.call(alice, "PUT", config, content))[0] == 200

    status, reply, room = await invited_by(rooms, bob, alice)
    assert (status, reply["errcode"]) == (403, "M_INVITE_BLOCKED")
    member = f"/rooms/{segment(room.room_id)}/state/m.room.member/{segment(alice)}"
    status, reply = await rooms.call(bob, "PUT", member, {"membership": "invite"})
    assert (status, reply["errcode"]) == (403, "M_INVITE_BLOCKED")
    status, reply = await rooms.call(bob, "POST", "/createRoom", {"invite": [alice]})
    assert (status, reply["errcode"]) == (403, "M_INVITE_BLOCKED")
    # Neither is one shown that came before.
    assert (await rooms.get(alice, "/sync"))["rooms"].get("invite", {}) == {}

    assert (await rooms.call(alice, "PUT", config, {}))[0] == 200
    assert set((await rooms.get(alice, "/sync"))["rooms"]["invite"]) == {pending.room_id}


@pytest.mark.parametrize(
    ("type_", "content"),
    [
        (INVITE_CONFIG, {"ignored_users": ["@bob:here.example"]}),
        ("org.matrix.msc4155.invite_permission_config", {"ignored_servers": ["here.*"]}),
        ("m.ignored_user_list", {"ignored_users": {"@bob:here.example": {}}}),
    ],
)
async def test_ignored_invites_are_taken_and_not_shown(
    rooms: RoomServer, type_: str, content: dict[str, Any]
) -> None:
    alice, bob = rooms.world.user("alice"), rooms.world.user("bob")
    await rooms.sync_server.account_data.set_content(alice, type_, content)

    status, _, room = await invited_by(rooms, bob, alice)
    assert status == 200
    assert "invite" not in (await rooms.get(alice, "/sync"))["rooms"]
    assert (await room.state())["m.room.member", alice]["membership"] == "invite"


async def test_who_is_ignored_makes_nothing_unread_and_is_not_seen(rooms: RoomServer) -> None:
    server = rooms.sync_server
    alice, bob, carol = (Client(server, rooms.world.user(name)) for name in ("alice", "bob", "carol"))
    room = await rooms.world.public_room(alice.user_id)
    for other in (bob, carol):
        await room.join(other.user_id)
    await server.receipts.read(
        alice.user_id, room.room_id, "m.read", (await room.send(alice.user_id, "0")).id
    )
    await room.send(bob.user_id, "1")
    last = await room.send(carol.user_id, "2")
    (counts,) = [
        section["unread_notifications"] for section in (await alice.sync())["rooms"]["join"].values()
    ]
    assert counts["notification_count"] == 2

    ignored: dict[str, Any] = {"ignored_users": {bob.user_id: {}}}
    await server.account_data.set_content(alice.user_id, "m.ignored_user_list", ignored)
    await server.receipts.read(bob.user_id, room.room_id, "m.read", last.id)
    await server.typing.set_typing(bob.user_id, room.room_id, True, 30_000)
    await room.send(bob.user_id, "3")
    await room.send(carol.user_id, "4")
    section = (await alice.sync())["rooms"]["join"][room.room_id]

    assert bodies(section) == ["4"]
    assert section["unread_notifications"]["notification_count"] == 2
    assert bob.user_id not in str(section["ephemeral"])


async def test_tags_are_checked(rooms: RoomServer) -> None:
    alice = rooms.world.user("alice")
    tags = f"/user/{segment(alice)}/rooms/{segment('!r:x')}/tags"
    for number in range(100):
        assert (await rooms.call(alice, "PUT", f"{tags}/u.{number}", {"order": number / 100}))[0] == 200

    for name, body, errcode in (
        ("u.x", {"order": 1.5}, "M_INVALID_PARAM"),
        ("u.x", {"order": -1}, "M_INVALID_PARAM"),
        ("u.x", {"order": "first"}, "M_BAD_JSON"),
        ("u.0", {"x": "y" * 5_000}, "M_INVALID_PARAM"),
        ("u.one-too-many", {}, "M_INVALID_PARAM"),
        ("u." + "x" * 254, {}, "M_INVALID_PARAM"),
    ):
        status, reply = await rooms.call(alice, "PUT", f"{tags}/{name}", body)
        assert (status, reply["errcode"]) == (400, errcode), name
    assert len((await rooms.get(alice, tags))["tags"]) == 100


async def test_remote_members_are_found_too(rooms: RoomServer) -> None:
    (alice,) = await people(rooms, "alice")
    room = await rooms.world.public_room(alice)
    carol = f"@carol:{ELSEWHERE}"
    content = {"membership": "join", "displayname": "Carol", "avatar_url": "mxc://x/y"}
    await room.set_state(carol, "m.room.member", content, state_key=carol)

    _, reply = await rooms.call(alice, "POST", SEARCH, {"search_term": "@carol:else", "limit": 1_000})
    assert reply["results"] == [{"user_id": carol, "display_name": "Carol", "avatar_url": "mxc://x/y"}]
