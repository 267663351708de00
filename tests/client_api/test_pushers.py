"""Pushers and the list of notifications over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.rooms.receipts import READ
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer
from tests.client_api.room_server import room_server

URL = "https://push.example.org/_matrix/push/v1/notify"

PUSHER: dict[str, Any] = {
    "kind": "http",
    "app_id": "org.example.app",
    "pushkey": "key",
    "app_display_name": "App",
    "device_display_name": "Phone",
    "lang": "en",
    "profile_tag": "tag",
    "data": {"url": URL, "format": "event_id_only", "custom": 1},
}


async def pushers(server: AccountServer, token: str) -> list[dict[str, Any]]:
    status, reply = await server.call("GET", "/pushers", token=token)
    assert status == 200
    listed: list[dict[str, Any]] = reply["pushers"]
    return listed


async def test_pushers_are_listed_as_they_were_set(server: AccountServer) -> None:
    token = await server.user("alice")
    assert await pushers(server, token) == []
    assert await server.call("POST", "/pushers/set", PUSHER, token=token) == (200, {})
    assert await pushers(server, token) == [PUSHER]
    changed = {**PUSHER, "lang": "de", "profile_tag": None}
    assert await server.call("POST", "/pushers/set", changed, token=token) == (200, {})
    assert await pushers(server, token) == [
        {name: value for name, value in changed.items() if value is not None}
    ]


async def test_a_kind_of_null_removes_a_pusher(server: AccountServer) -> None:
    token = await server.user("alice")
    await server.call("POST", "/pushers/set", PUSHER, token=token)
    gone = {"kind": None, "app_id": PUSHER["app_id"], "pushkey": "other"}
    assert await server.call("POST", "/pushers/set", gone, token=token) == (200, {})
    assert len(await pushers(server, token)) == 1
    assert await server.call("POST", "/pushers/set", {**gone, "pushkey": "key"}, token=token) == (200, {})
    assert await pushers(server, token) == []


async def test_logging_out_removes_what_the_device_had_set(server: AccountServer) -> None:
    phone, tablet = await server.user("alice"), await server.user("alice")
    await server.call("POST", "/pushers/set", PUSHER, token=phone)
    await server.call("POST", "/pushers/set", {**PUSHER, "pushkey": "tablet"}, token=tablet)
    await server.call("POST", "/logout", {}, token=phone)
    assert [each["pushkey"] for each in await pushers(server, tablet)] == ["tablet"]


@pytest.mark.parametrize("name", ["kind", "app_id", "pushkey", "app_display_name", "lang", "data"])
async def test_what_is_missing_is_named(server: AccountServer, name: str) -> None:
    token = await server.user("alice")
    body = {key: value for key, value in PUSHER.items() if key != name}
    refused = await server.refused("POST", "/pushers/set", body, token=token)
    assert refused == (400, "M_MISSING_PARAM")


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"data": {}}, "M_MISSING_PARAM"),
        ({"data": {"url": "http://push.example.org/_matrix/push/v1/notify"}}, "M_INVALID_PARAM"),
        ({"data": {"url": "https://push.example.org/other"}}, "M_INVALID_PARAM"),
        ({"data": {"url": f"{URL}?more=1"}}, "M_INVALID_PARAM"),
        ({"data": {"url": f"{URL}#more"}}, "M_INVALID_PARAM"),
        ({"data": {"url": "https://name:secret@push.example.org/_matrix/push/v1/notify"}}, "M_INVALID_PARAM"),
        ({"data": {"url": "https://[::1/_matrix/push/v1/notify"}}, "M_INVALID_PARAM"),
        ({"data": {"url": 5}}, "M_INVALID_PARAM"),
        ({"data": []}, "M_BAD_JSON"),
        ({"data": {"url": URL, "more": "x" * 9000}}, "M_INVALID_PARAM"),
        ({"kind": "pigeon"}, "M_INVALID_PARAM"),
        ({"kind": "email", "app_id": "m.email", "pushkey": "a@example.org"}, "M_INVALID_PARAM"),
        ({"app_id": "x" * 65}, "M_INVALID_PARAM"),
        ({"pushkey": "ä" * 257}, "M_INVALID_PARAM"),
        ({"pushkey": 5}, "M_BAD_JSON"),
        ({"lang": "x" * 600}, "M_INVALID_PARAM"),
        ({"append": "yes"}, "M_BAD_JSON"),
        ({"profile_tag": 5}, "M_BAD_JSON"),
    ],
)
async def test_what_cannot_be_is_refused(server: AccountServer, change: dict[str, Any], errcode: str) -> None:
    token = await server.user("alice")
    refused = await server.refused("POST", "/pushers/set", {**PUSHER, **change}, token=token)
    assert refused == (400, errcode)
    assert await pushers(server, token) == []


async def test_notifications_are_listed_newest_first_with_what_was_read(sqlite_database: Database) -> None:
    async with room_server(sqlite_database) as server:
        alice, bob = server.world.user("alice"), server.world.user("bob")
        rooms = [await server.world.public_room(alice) for _ in range(3)]
        for room in rooms:
            await room.send(alice, "before Bob came")
            await room.join(bob)
        sent = [await rooms[number % 3].send(alice, str(number)) for number in range(70)]
        content = {"msgtype": "m.text", "body": "you", "m.mentions": {"user_ids": [bob]}}
        loud = await rooms[0].send_event(alice, "m.room.message", content)
        await server.sync_server.receipts.read(bob, rooms[0].room_id, READ, sent[3].id)
        found: list[dict[str, Any]] = []
        page = await server.get(bob, "/notifications", limit="25")
        found += page["notifications"]
        while "next_token" in page:
            page = await server.get(bob, "/notifications", limit="25", **{"from": page["next_token"]})
            found += page["notifications"]
        assert [each["event"]["event_id"] for each in found] == [loud.id, *(one.id for one in sent[::-1])]
        assert {each["event"]["event_id"] for each in found if each["read"]} == {sent[0].id, sent[3].id}
        newest = found[0]
        assert newest["room_id"] == rooms[0].room_id
        assert newest["ts"] == loud.event.origin_server_ts
        assert "room_id" not in newest["event"]
        assert newest["actions"] == [
            "notify",
            {"set_tweak": "sound", "value": "default"},
            {"set_tweak": "highlight"},
        ]
        highlights = await server.get(bob, "/notifications", only="highlight")
        assert [each["event"]["event_id"] for each in highlights["notifications"]] == [loud.id]
        assert (await server.get(alice, "/notifications"))["notifications"] == []


async def test_odd_questions_about_notifications_are_refused(sqlite_database: Database) -> None:
    async with room_server(sqlite_database) as server:
        for query in ({"from": "x"}, {"from": "n"}, {"from": "n-1"}, {"limit": "0"}, {"only": "loud"}):
            assert await server.refusal("@bob:here.example", "/notifications", **query) == (
                400,
                "M_INVALID_PARAM",
            )
