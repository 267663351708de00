"""What administrators do to accounts, and what the accounts notice of it, over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server, password_auth, segment

LOCK, SUSPEND = "/_matrix/client/v1/admin/lock", "/_matrix/client/v1/admin/suspend"
ALICE = "@alice:a.org"
LOCKED, SUSPENDED = (401, "M_USER_LOCKED"), (403, "M_USER_SUSPENDED")
LOGIN = {
    "type": "m.login.password",
    "identifier": {"type": "m.id.user", "user": "alice"},
    "password": "secret alice",
}


async def lock(server: AccountServer, admin: str, locked: bool = True) -> None:
    status, reply = await server.call("PUT", f"{LOCK}/{ALICE}", {"locked": locked}, token=admin)
    assert (status, reply) == (200, {"locked": locked})


async def suspend(server: AccountServer, admin: str, suspended: bool = True) -> None:
    status, reply = await server.call("PUT", f"{SUSPEND}/{ALICE}", {"suspended": suspended}, token=admin)
    assert (status, reply) == (200, {"suspended": suspended})


async def test_a_lock_holds_at_once_in_every_session_and_leaves_them_as_they_are(
    server: AccountServer,
) -> None:
    admin, phone, laptop = await server.admin(), await server.user("alice"), await server.user("alice")
    assert (await server.call("GET", "/account/whoami", token=phone))[0] == 200
    await lock(server, admin)
    for token in (phone, laptop):
        status, reply = await server.call("GET", "/account/whoami", token=token)
        assert (status, reply["errcode"], reply["soft_logout"]) == (401, "M_USER_LOCKED", True)
    assert await server.call("GET", f"{LOCK}/{ALICE}", token=admin) == (200, {"locked": True})
    await lock(server, admin, False)
    assert (await server.call("GET", "/account/whoami", token=phone))[0] == 200


async def test_who_is_locked_can_log_out_and_not_log_in(server: AccountServer) -> None:
    admin, phone, laptop = await server.admin(), await server.user("alice"), await server.user("alice")
    await lock(server, admin)
    assert await server.refused("POST", "/login", LOGIN) == LOCKED
    assert await server.refused("POST", "/login", {**LOGIN, "password": "wrong"}) == (403, "M_FORBIDDEN")
    assert (await server.call("POST", "/logout", token=phone))[0] == 200
    assert await server.refused("GET", "/account/whoami", token=phone) == (401, "M_UNKNOWN_TOKEN")
    assert (await server.call("POST", "/logout/all", token=laptop))[0] == 200
    await lock(server, admin, False)
    assert (await server.call("POST", "/login", LOGIN))[0] == 200


async def test_tokens_are_not_refreshed_while_the_account_is_locked(server: AccountServer) -> None:
    admin, _ = await server.admin(), await server.user("alice")
    _, login = await server.call("POST", "/login", {**LOGIN, "refresh_token": True})
    await lock(server, admin)
    body = {"refresh_token": login["refresh_token"]}
    status, reply = await server.call("POST", "/refresh", body)
    assert (status, reply["errcode"], reply["soft_logout"]) == (401, "M_USER_LOCKED", True)
    await lock(server, admin, False)
    assert (await server.call("POST", "/refresh", body))[0] == 200


async def test_the_password_alone_changes_nothing_while_the_account_is_locked(server: AccountServer) -> None:
    admin, _ = await server.admin(), await server.user("alice")
    await lock(server, admin)
    body = {"new_password": "another password", "auth": password_auth("alice")}
    assert await server.refused("POST", "/account/password", body) == LOCKED
    assert await server.refused("POST", "/account/deactivate", {"auth": password_auth("alice")}) == LOCKED


async def test_a_sync_that_waits_ends_with_the_lock(
    server: AccountServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin, alice = await server.admin(), await server.user("alice")
    _, first = await server.call("GET", "/sync", token=alice)
    path = f"/sync?timeout=60000&since={first['next_batch']}"
    waits, register = asyncio.Event(), server.core.notifier.add

    def noticed(*waiter: Any) -> None:
        register(*waiter)
        waits.set()

    monkeypatch.setattr(server.core.notifier, "add", noticed)
    waiting = asyncio.create_task(server.refused("GET", path, token=alice))
    await asyncio.wait_for(waits.wait(), 10)
    await lock(server, admin)
    assert await asyncio.wait_for(waiting, 10) == LOCKED


@pytest.mark.parametrize(("endpoint", "field"), [(LOCK, "locked"), (SUSPEND, "suspended")])
async def test_only_administrators_moderate_and_only_whom_they_may(
    server: AccountServer, endpoint: str, field: str
) -> None:
    admin, alice = await server.admin(), await server.user("alice")
    await server.admin("other")
    await server.user("gone")
    await server.accounts.deactivate("@gone:a.org")
    refusals = {
        (alice, "@nobody:a.org"): (403, "M_FORBIDDEN"),
        (alice, ALICE): (403, "M_FORBIDDEN"),
        (admin, "@alice:b.org"): (400, "M_INVALID_PARAM"),
        (admin, "alice"): (400, "M_INVALID_PARAM"),
        (admin, "@nobody:a.org"): (404, "M_NOT_FOUND"),
        (admin, "@gone:a.org"): (404, "M_NOT_FOUND"),
        (admin, "@other:a.org"): (403, "M_FORBIDDEN"),
    }
    for (token, user_id), expected in refusals.items():
        path = f"{endpoint}/{segment(user_id)}"
        assert await server.refused("GET", path, token=token) == expected, user_id
        assert await server.refused("PUT", path, {field: True}, token=token) == expected, user_id
    own = f"{endpoint}/{segment('@root:a.org')}"
    assert await server.call("GET", own, token=admin) == (200, {field: False})
    assert await server.refused("PUT", own, {field: True}, token=admin) == (403, "M_FORBIDDEN")
    assert await server.refused("PUT", f"{endpoint}/{ALICE}", {}, token=admin) == (400, "M_BAD_JSON")
    assert await server.refused("PUT", f"{endpoint}/{ALICE}", {field: 1}, token=admin) == (400, "M_BAD_JSON")


async def test_administrators_are_told_that_they_are(server: AccountServer) -> None:
    admin, alice = await server.admin(), await server.user("alice")
    _, reply = await server.call("GET", "/capabilities", token=admin)
    assert reply["capabilities"]["m.account_moderation"] == {"suspend": True, "lock": True}
    _, reply = await server.call("GET", "/capabilities", token=alice)
    assert "m.account_moderation" not in reply["capabilities"]


class Room:
    """A room of Bob's with Alice in it, and one that she was asked into."""

    def __init__(self, server: AccountServer) -> None:
        self.server = server

    async def open(self) -> Room:
        self.bob, self.alice = await self.server.user("bob"), await self.server.user("alice")
        create = {"preset": "public_chat", "power_level_content_override": {"users": {ALICE: 90}}}
        create["power_level_content_override"]["users"]["@bob:a.org"] = 100  # type: ignore[index]
        self.id = (await self.ok(self.bob, "POST", "/createRoom", {**create, "room_version": "11"}))[
            "room_id"
        ]
        self.other = (await self.ok(self.bob, "POST", "/createRoom", {"invite": [ALICE]}))["room_id"]
        self.public = (await self.ok(self.bob, "POST", "/createRoom", {"preset": "public_chat"}))["room_id"]
        await self.ok(self.alice, "POST", f"/rooms/{segment(self.id)}/join", {})
        self.own, self.bobs = await self.say(self.alice), await self.say(self.bob)
        return self

    async def ok(self, token: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        status, reply = await self.server.call(method, path, body, token=token)
        assert status == 200, reply
        return reply

    async def say(self, token: str) -> str:
        path = f"/rooms/{segment(self.id)}/send/m.room.message"
        event_id: str = (await self.ok(token, "POST", path, {"msgtype": "m.text", "body": "hi"}))["event_id"]
        return event_id


@pytest.fixture
async def room(server: AccountServer) -> Room:
    return await Room(server).open()


async def test_who_is_suspended_does_nothing_that_others_notice(server: AccountServer, room: Room) -> None:
    await suspend(server, await server.admin())
    here, other, public = (segment(each) for each in (room.id, room.other, room.public))
    bob = {"user_id": "@bob:a.org"}
    for method, path, body in (
        ("PUT", f"/rooms/{here}/send/m.room.message/1", {"body": "hi"}),
        ("POST", f"/rooms/{here}/send/m.room.message", {"body": "hi"}),
        ("PUT", f"/rooms/{here}/state/m.room.topic", {"topic": "mine"}),
        ("PUT", f"/rooms/{here}/state/m.room.member/{segment(ALICE)}", {"membership": "join"}),
        ("PUT", f"/rooms/{other}/state/m.room.member/{segment(ALICE)}", {"membership": "join"}),
        ("PUT", f"/rooms/{here}/redact/{segment(room.bobs)}/2", {}),
        ("PUT", f"/rooms/{here}/send/m.room.redaction/3", {"redacts": room.bobs}),
        ("PUT", f"/rooms/{here}/redact/{segment('$' + 'x' * 43)}/4", {}),
        ("POST", f"/rooms/{here}/invite", {"user_id": "@carol:a.org"}),
        ("POST", f"/rooms/{here}/kick", bob),
        ("POST", f"/rooms/{here}/ban", bob),
        ("POST", f"/rooms/{here}/unban", bob),
        ("POST", f"/rooms/{other}/join", {}),
        ("POST", f"/join/{public}", {}),
        ("POST", f"/knock/{public}", {}),
        ("POST", f"/rooms/{here}/upgrade", {"new_version": "12"}),
        ("POST", "/createRoom", {}),
        ("PUT", f"/profile/{ALICE}/displayname", {"displayname": "Alice"}),
        ("DELETE", f"/profile/{ALICE}/displayname", {}),
        ("PUT", f"/presence/{ALICE}/status", {"presence": "online", "status_msg": "hi"}),
        ("PUT", f"/directory/room/{segment('#mine:a.org')}", {"room_id": room.id}),
        ("DELETE", f"/directory/room/{segment('#mine:a.org')}", None),
        ("PUT", f"/directory/list/room/{here}", {"visibility": "public"}),
        ("POST", "/account/3pid/delete", {"medium": "email", "address": "alice@b.org"}),
    ):
        assert await server.refused(method, path, body, token=room.alice) == SUSPENDED, path


async def test_who_is_suspended_reads_on_leaves_and_takes_back(server: AccountServer, room: Room) -> None:
    admin = await server.admin()
    await suspend(server, admin)
    here, other, alice = segment(room.id), segment(room.other), room.alice
    sync = await room.ok(alice, "GET", "/sync")
    assert room.id in sync["rooms"]["join"]
    assert (await room.ok(alice, "GET", f"/rooms/{here}/messages?dir=b"))["chunk"]
    assert "event_id" in await room.ok(alice, "PUT", f"/rooms/{here}/redact/{segment(room.own)}/1", {})
    assert (await server.call("POST", f"/rooms/{other}/leave", {}, token=alice))[0] == 200
    path = f"/rooms/{here}/state/m.room.member/{segment(ALICE)}"
    assert (await server.call("PUT", path, {"membership": "leave"}, token=alice))[0] == 200
    status, login = await server.call("POST", "/login", LOGIN)
    assert status == 200
    body = {"displayname": "Alice"}
    assert (
        await server.refused("PUT", f"/profile/{ALICE}/displayname", body, token=login["access_token"])
        == SUSPENDED
    )
    await suspend(server, admin, False)
    assert (await server.call("PUT", f"/profile/{ALICE}/displayname", body, token=alice))[0] == 200
    assert (await server.call("POST", "/logout", token=alice))[0] == 200


async def test_measures_outlive_the_server(database: Database) -> None:
    async with account_server(database) as server:
        admin, alice = await server.admin(), await server.user("alice")
        await server.user("bob")
        await lock(server, admin)
        body = {"suspended": True}
        assert (await server.call("PUT", f"{SUSPEND}/@bob:a.org", body, token=admin))[0] == 200
    async with account_server(database) as server:
        assert await server.refused("GET", "/account/whoami", token=alice) == LOCKED
        assert await server.call("GET", f"{SUSPEND}/@bob:a.org", token=admin) == (200, body)


async def test_where_somebody_was_last_seen(server: AccountServer) -> None:
    admin, alice = await server.admin(), await server.user("alice", device_id="PHONE")
    server.clock.advance(60)
    await server.call("GET", "/account/whoami", token=alice)
    status, reply = await server.call("GET", f"/admin/whois/{ALICE}", token=admin)
    assert (status, reply["user_id"], list(reply["devices"])) == (200, ALICE, ["PHONE"])
    [connection] = reply["devices"]["PHONE"]["sessions"][0]["connections"]
    assert (connection["ip"], connection["last_seen"]) == ("127.0.0.1", server.clock.now_ms())
    assert connection["user_agent"].startswith("Python")
    assert (await server.call("GET", f"/admin/whois/{ALICE}", token=alice))[0] == 200
    _, device = await server.call("GET", "/devices/PHONE", token=alice)
    assert (device["last_seen_ip"], device["last_seen_ts"]) == ("127.0.0.1", server.clock.now_ms())


async def test_whois_is_for_oneself_and_for_administrators(server: AccountServer) -> None:
    admin, alice = await server.admin(), await server.user("alice")
    assert await server.refused("GET", "/admin/whois/@root:a.org", token=alice) == (403, "M_FORBIDDEN")
    assert await server.refused("GET", "/admin/whois/@alice:b.org", token=admin) == (400, "M_INVALID_PARAM")
    assert await server.refused("GET", "/admin/whois/@nobody:a.org", token=admin) == (404, "M_NOT_FOUND")
