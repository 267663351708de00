"""Sending over HTTP: transaction ids, state, redactions and memberships as clients ask for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp.test_utils import RawTestServer, TestClient
from yarl import URL

from homeserver.errors import MatrixError
from homeserver.ratelimit import RateLimiter
from homeserver.storage.database import Database
from homeserver.users.requester import Requester
from homeserver.web import Dispatcher
from tests.sync.server import SyncServer
from tests.world import SERVER, World

V3 = "/_matrix/client/v3"


async def who_is_asking(headers: Mapping[str, str], _: Mapping[str, str]) -> Requester:
    """A token is the user's name, their device, and a mark for administrators: ``alice/phone!``."""
    name, _slash, device_id = headers["Authorization"].removeprefix("Bearer ").partition("/")
    return Requester(f"@{name}:{SERVER}", device_id.rstrip("!") or None, is_admin=device_id.endswith("!"))


async def nobody(*_: object) -> str:
    raise MatrixError(401, "M_UNAUTHORIZED", "There are no other servers here")


@dataclass
class Server:
    world: World
    client: TestClient[Any, Any]

    async def call(
        self, method: str, path: str, body: Any = None, *, token: str = "alice/phone"
    ) -> tuple[int, dict[str, Any]]:
        headers = {"Authorization": f"Bearer {token}"}
        request = self.client.request(method, URL(V3 + path, encoded=True), json=body, headers=headers)
        async with request as response:
            return response.status, await response.json()

    async def ok(self, method: str, path: str, body: Any = None, *, token: str = "alice/phone") -> Any:
        status, reply = await self.call(method, path, body, token=token)
        assert status == 200, reply
        return reply

    async def refused(
        self, method: str, path: str, body: Any = None, *, token: str = "alice/phone"
    ) -> tuple[int, str]:
        status, reply = await self.call(method, path, body, token=token)
        return status, reply["errcode"]

    async def room(self, **wish: Any) -> str:
        """The path of a new public room of alice's."""
        reply = await self.ok("POST", "/createRoom", {"preset": "public_chat", **wish})
        return "/rooms/" + quote(reply["room_id"], safe="")


@asynccontextmanager
async def serving(world: World) -> AsyncIterator[Server]:
    dispatcher = Dispatcher(
        SyncServer(world).routes(),
        authenticate_user=who_is_asking,
        authenticate_server=nobody,
        rate_limiter=RateLimiter({}, world.clock, enabled=False),
    )
    client: TestClient[Any, Any]
    async with TestClient(RawTestServer(dispatcher)) as client:
        yield Server(world, client)


@pytest.fixture
async def server(sqlite_database: Database) -> AsyncIterator[Server]:
    async with serving(await World.open(sqlite_database)) as server:
        yield server


TEXT = {"msgtype": "m.text", "body": "hello"}


async def test_a_repeated_request_leads_to_the_same_event_also_after_a_restart(database: Database) -> None:
    world = await World.open(database)
    async with serving(world) as server:
        room = await server.room()
        path = f"{room}/send/m.room.message/1"
        first = await server.ok("PUT", path, TEXT)
        assert await server.ok("PUT", path, TEXT) == first
    async with serving(await world.reopen()) as server:
        assert await server.ok("PUT", path, TEXT) == first
        assert await server.ok("PUT", path, TEXT, token="alice/laptop") != first
        assert await server.ok("PUT", f"{room}/send/m.room.message/2", TEXT) != first
        assert await server.ok("PUT", f"{room}/send/m.sticker/1", TEXT) != first


async def test_requests_that_race_lead_to_the_same_event(server: Server) -> None:
    room = await server.room()
    replies = await asyncio.gather(
        *(server.ok("PUT", f"{room}/send/m.room.message/1", TEXT) for _ in range(8))
    )
    assert len({reply["event_id"] for reply in replies}) == 1
    messages = await server.world.db.read.fetch_value("SELECT COUNT(*) FROM transaction_ids")
    assert messages == 1


async def test_a_request_that_failed_may_be_repeated(server: Server) -> None:
    room = await server.room()
    path = f"{room}/send/m.room.message/1"
    assert await server.refused("PUT", path, TEXT, token="bob/phone") == (403, "M_FORBIDDEN")
    await server.ok("POST", f"{room}/join", token="bob/phone")
    await server.ok("PUT", path, TEXT, token="bob/phone")


async def test_state_is_set_by_both_forms_of_the_path(server: Server) -> None:
    room = await server.room()
    for path in (f"{room}/state/m.room.topic", f"{room}/state/m.room.topic/"):
        reply = await server.ok("PUT", path, {"topic": path})
        state = (await server.world.rooms.get(_room_id(room))).state
        assert state["m.room.topic", ""].id == reply["event_id"]
    await server.ok("PUT", f"{room}/state/m.custom/a%2Fb", {})
    assert ("m.custom", "a/b") in (await server.world.rooms.get(_room_id(room))).state


async def test_state_that_no_client_may_set_is_refused(server: Server) -> None:
    room = await server.room()
    assert await server.refused("PUT", f"{room}/state/m.room.create", {}) == (400, "M_INVALID_PARAM")
    assert await server.refused("PUT", f"{room}/send/m.room.create/1", {}) == (400, "M_INVALID_PARAM")
    assert await server.refused("PUT", f"{room}/send/m.room.member/1", {}) == (403, "M_FORBIDDEN")
    forged = {"redacts": "$event"}
    assert await server.refused("PUT", f"{room}/state/m.room.redaction", forged) == (400, "M_INVALID_PARAM")
    assert await server.refused("PUT", f"{room}/state/m.room.topic", [1]) == (400, "M_BAD_JSON")
    assert await server.refused("PUT", f"{room}/state/m.x", {"pi": 3.14}) == (400, "M_BAD_JSON")
    alias = {"alias": f"#nowhere:{SERVER}"}
    assert await server.refused("PUT", f"{room}/state/m.room.canonical_alias", alias) == (400, "M_BAD_ALIAS")
    large = {"body": "x" * 70_000}
    assert await server.refused("PUT", f"{room}/send/m.room.message/1", large) == (413, "M_TOO_LARGE")


async def test_member_state_follows_the_rules_of_membership(server: Server) -> None:
    room = await server.room(preset="private_chat")
    bob = quote(f"@bob:{SERVER}")
    path = f"{room}/state/m.room.member/{bob}"
    assert await server.refused("PUT", path, {"membership": "join"}) == (403, "M_FORBIDDEN")
    await server.ok("PUT", path, {"membership": "invite"})
    await server.ok("PUT", path, {"membership": "join", "displayname": "B"}, token="bob/phone")
    assert (await server.ok("GET", "/joined_rooms", token="bob/phone"))["joined_rooms"] == [_room_id(room)]


@pytest.mark.parametrize("version", ["1", "10", "11", "12"])
async def test_redactions_by_both_endpoints(server: Server, version: str) -> None:
    room = await server.room(room_version=version)
    for number, by_path in ((1, True), (2, False)):
        secret = (await server.ok("PUT", f"{room}/send/m.room.message/s{number}", TEXT))["event_id"]
        if by_path:
            path, body = f"{room}/redact/{quote(secret, safe='')}/r", {"reason": "oops"}
        else:
            path, body = f"{room}/send/m.room.redaction/r", {"redacts": secret, "reason": "oops"}
        reply = await server.ok("PUT", path, body)
        assert await server.ok("PUT", path, body) == reply
        redaction = await server.world.events.by_id(reply["event_id"])
        emptied = await server.world.events.by_id(secret)
        assert redaction is not None
        assert emptied is not None
        assert emptied.event.content == {}
        assert redaction.event.redacts == secret
        in_content = version in {"11", "12"}
        assert redaction.event.content == {"reason": "oops"} | ({"redacts": secret} if in_content else {})
        assert ("redacts" in redaction.event.pdu) is not in_content


async def test_who_may_redact_what(server: Server) -> None:
    room, other = await server.room(), await server.room()
    for name in ("bob", "eve"):
        await server.ok("POST", f"{room}/join", token=f"{name}/phone")
    sent = [
        (await server.ok("PUT", f"{room}/send/m.room.message/{n}", TEXT, token="bob/phone"))["event_id"]
        for n in range(3)
    ]
    paths = [f"{room}/redact/{quote(event_id)}/1" for event_id in sent]
    assert await server.refused("PUT", paths[0], {}, token="eve/phone") == (403, "M_FORBIDDEN")
    by_send = await server.refused(
        "PUT", f"{room}/send/m.room.redaction/1", {"redacts": sent[0]}, token="eve/phone"
    )
    assert by_send == (403, "M_FORBIDDEN")
    await server.ok("PUT", paths[0], {}, token="bob/phone")
    await server.ok("PUT", paths[1], {}, token="alice/phone")
    await server.ok("PUT", paths[2], {}, token="eve/phone!")
    assert await server.refused("PUT", f"{room}/redact/$unknown/1", {}) == (404, "M_NOT_FOUND")
    elsewhere = f"{other}/redact/{quote(sent[0])}/1"
    assert await server.refused("PUT", elsewhere, {}) == (404, "M_NOT_FOUND")
    for event_id in (sent[0], "$unknown"):  # who is not in the room learns nothing of what is
        outside = f"{other}/redact/{quote(event_id)}/2"
        assert await server.refused("PUT", outside, {}, token="bob/phone") == (403, "M_FORBIDDEN")
    assert await server.refused("PUT", f"{room}/send/m.room.redaction/2", {}) == (400, "M_BAD_JSON")


async def test_rooms_are_reached_by_alias_and_left(server: Server) -> None:
    room = await server.room(room_alias_name="pub", visibility="public")
    alias, bob = quote(f"#pub:{SERVER}"), "bob/phone"
    assert (await server.ok("GET", f"/directory/room/{alias}"))["room_id"] == _room_id(room)
    assert (await server.ok("POST", f"/join/{alias}", token=bob))["room_id"] == _room_id(room)
    assert (await server.ok("GET", f"{room}/aliases", token=bob)) == {"aliases": [f"#pub:{SERVER}"]}
    listed = f"/directory/list/room/{_quoted_id(room)}"
    assert await server.ok("GET", listed) == {"visibility": "public"}
    await server.ok("PUT", listed, {"visibility": "private"})
    assert await server.ok("GET", listed) == {"visibility": "private"}
    await server.ok("DELETE", f"/directory/room/{alias}")
    assert await server.refused("POST", f"/join/{alias}", token=bob) == (404, "M_NOT_FOUND")
    assert await server.refused("POST", "/join/pub", token=bob) == (400, "M_INVALID_PARAM")
    assert await server.refused("POST", f"{room}/forget", token=bob) == (400, "M_UNKNOWN")
    await server.ok("POST", f"{room}/leave", {"reason": "tired"}, token=bob)
    await server.ok("POST", f"{room}/forget", token=bob)
    assert await server.ok("GET", "/joined_rooms", token=bob) == {"joined_rooms": []}


async def test_memberships_of_others_are_changed_with_a_reason(server: Server) -> None:
    room = await server.room()
    target = {"user_id": f"@bob:{SERVER}", "reason": "because"}
    for action, membership in (("invite", "invite"), ("kick", "leave"), ("ban", "ban"), ("unban", "leave")):
        await server.ok("POST", f"{room}/{action}", target)
        live = await server.world.rooms.get(_room_id(room))
        member = live.members[target["user_id"]]
        assert member is not None
        assert member.event.content == {"membership": membership, "reason": "because"}
    by_mail = {"medium": "email", "address": "bob@example.org", "id_server": "x"}
    assert await server.refused("POST", f"{room}/invite", by_mail) == (400, "M_MISSING_PARAM")
    by_mail["id_access_token"] = "y"
    assert await server.refused("POST", f"{room}/invite", by_mail) == (403, "M_THREEPID_DENIED")
    assert await server.refused("POST", f"{room}/kick", {}) == (400, "M_MISSING_PARAM")
    assert await server.refused("POST", f"{room}/kick", {"user_id": "bob"}) == (400, "M_INVALID_PARAM")
    assert await server.refused("POST", f"{room}/leave", {"reason": 5}) == (400, "M_BAD_JSON")


async def test_a_room_is_upgraded(server: Server) -> None:
    room = await server.room(room_version="11")
    reply = await server.ok("POST", f"{room}/upgrade", {"new_version": "12"})
    assert reply["replacement_room"].startswith("!")
    assert await server.refused("POST", f"{room}/upgrade", {}) == (400, "M_BAD_JSON")


async def test_a_malformed_wish_for_a_room_is_refused(server: Server) -> None:
    for wish in ({"preset": "party"}, {"invite": "bob"}, {"initial_state": [{"type": "m.x"}]}):
        assert await server.refused("POST", "/createRoom", wish) == (400, "M_BAD_JSON")


def _quoted_id(room: str) -> str:
    return room.removeprefix("/rooms/")


def _room_id(room: str) -> str:
    return URL(room, encoded=True).path.removeprefix("/rooms/")
