"""Identity servers over HTTP: being found by one's address, not being found any more, inviting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme

from homeserver.config.accounts import IdentityServers
from homeserver.config.egress import Egress
from homeserver.protocol.signing import decode_base64
from homeserver.storage import third_party_ids
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server, configured, password_auth
from tests.identity_server import TOKEN, IdentityServer, ca_file, hashed, identity_server

ADDRESS = "alice@b.org"


@dataclass
class Story:
    """A homeserver, and an identity server that it trusts."""

    server: AccountServer
    identity: IdentityServer

    def creds(self, **changes: Any) -> dict[str, Any]:
        given = {"id_server": self.identity.name, "id_access_token": TOKEN, **self.identity.validate(ADDRESS)}
        return {**given, **changes}

    def address(self, **more: Any) -> dict[str, Any]:
        return {"medium": "email", "address": "Alice@B.org", **more}

    def invited(self, address: str = "Bob@B.org", **changes: Any) -> dict[str, Any]:
        given = {"medium": "email", "address": address, "id_server": self.identity.name}
        return {**given, "id_access_token": TOKEN, **changes}

    async def bound(self, name: str = "alice") -> str:
        """Somebody whose address the identity server knows; their access token."""
        token = await self.server.user(name)
        assert await self.server.call("POST", "/account/3pid/bind", self.creds(), token=token) == (200, {})
        return token

    async def room(self, token: str, **wish: Any) -> str:
        status, reply = await self.server.call("POST", "/createRoom", wish, token=token)
        assert status == 200, reply
        return str(reply["room_id"])

    async def bindings(self, name: str = "alice") -> list[str]:
        found = await third_party_ids.bindings(self.server.db.read, f"@{name}:a.org")
        return [each.address for each in found]


@asynccontextmanager
async def begin(db: Database, folder: Path) -> AsyncIterator[Story]:
    authority = trustme.CA()
    async with identity_server(authority) as identity:
        config = configured(
            identity_servers=IdentityServers(trusted=(identity.name,), recommend="https://id.example"),
            egress=Egress(ca_file=ca_file(authority, folder)),
        )
        async with account_server(db, config=config) as server:
            identity.homeservers["a.org"] = decode_base64(server.core.signing_key.verify_key_base64)
            yield Story(server, identity)


@pytest.fixture
async def story(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[Story]:
    async with begin(sqlite_database, tmp_path) as running:
        yield running


async def test_an_address_is_bound_and_unbound(story: Story) -> None:
    token = await story.bound()
    assert story.identity.bound == {("email", ADDRESS): "@alice:a.org"}
    assert await story.bindings() == [ADDRESS]
    body = story.address()
    unbound = await story.server.call("POST", "/account/3pid/unbind", body, token=token)
    assert unbound == (200, {"id_server_unbind_result": "success"})
    assert (story.identity.bound, await story.bindings()) == ({}, [])
    again = await story.server.call("POST", "/account/3pid/unbind", body, token=token)
    assert again == (200, {"id_server_unbind_result": "no-support"})


async def test_nobody_unbinds_the_address_of_another(story: Story) -> None:
    await story.bound()
    mallory = await story.server.user("mallory")
    body = story.address(id_server=story.identity.name)
    await story.server.call("POST", "/account/3pid/unbind", body, token=mallory)
    assert story.identity.bound == {("email", ADDRESS): "@alice:a.org"}


async def test_an_identity_server_may_not_know_how_to_unbind(story: Story) -> None:
    token = await story.bound()
    story.identity.can_unbind = False
    for path in ("unbind", "delete"):
        reply = await story.server.call("POST", f"/account/3pid/{path}", story.address(), token=token)
        assert reply == (200, {"id_server_unbind_result": "no-support"})
    assert await story.bindings() == [ADDRESS]


async def test_who_leaves_for_good_is_not_found_any_more(story: Story) -> None:
    token = await story.bound()
    body = {"auth": password_auth("alice")}
    reply = await story.server.call("POST", "/account/deactivate", body, token=token)
    assert reply == (200, {"id_server_unbind_result": "success"})
    assert story.identity.bound == {}


async def test_a_server_that_refuses_to_unbind_holds_nobody_back(story: Story) -> None:
    token = await story.bound()
    story.identity.homeservers.clear()
    unbind = await story.server.refused("POST", "/account/3pid/unbind", story.address(), token=token)
    assert unbind == (403, "M_FORBIDDEN")
    body = {"auth": password_auth("alice")}
    reply = await story.server.call("POST", "/account/deactivate", body, token=token)
    assert reply == (200, {"id_server_unbind_result": "no-support"})
    assert not await story.server.accounts.is_active("@alice:a.org")


async def test_what_the_identity_server_refuses_is_refused(story: Story) -> None:
    token = await story.server.user("alice")
    for changes, expected in (
        ({"sid": "other"}, (404, "M_NO_VALID_SESSION")),
        ({"id_access_token": "wrong"}, (403, "M_UNAUTHORIZED")),
        ({"id_access_token": "x\r\nX-Evil: 1"}, (403, "M_UNAUTHORIZED")),
        ({"id_server": "127.0.0.1:1"}, (400, "M_SERVER_NOT_TRUSTED")),
        ({"id_server": None}, (400, "M_BAD_JSON")),
    ):
        body = story.creds(**changes)
        assert await story.server.refused("POST", "/account/3pid/bind", body, token=token) == expected
    assert (story.identity.bound, await story.bindings()) == ({}, [])


async def test_who_is_known_by_an_address_is_invited(story: Story) -> None:
    await story.bound()
    bob = await story.server.user("bob")
    room = await story.room(bob)
    invited = story.invited("ALICE@b.org")
    assert await story.server.call("POST", f"/rooms/{room}/invite", invited, token=bob) == (200, {})
    _, member = await story.server.call("GET", f"/rooms/{room}/state/m.room.member/@alice:a.org", token=bob)
    assert member["membership"] == "invite"
    assert story.identity.asked == [
        {"algorithm": "sha256", "pepper": "matrixrocks", "addresses": [hashed(ADDRESS)]}
    ]


async def test_a_server_without_hashes_is_asked_in_the_clear(story: Story) -> None:
    await story.bound()
    story.identity.algorithms = ["none"]
    bob = await story.server.user("bob")
    room = await story.room(bob)
    invited = story.invited("alice@b.org")
    assert await story.server.call("POST", f"/rooms/{room}/invite", invited, token=bob) == (200, {})
    assert story.identity.asked[0]["addresses"] == ["alice@b.org email"]
    story.identity.algorithms = ["md5"]
    assert (await story.server.refused("POST", f"/rooms/{room}/invite", invited, token=bob))[0] == 502


async def test_an_invite_is_kept_for_who_is_not_known_yet(story: Story) -> None:
    alice = await story.server.user("alice")
    wish = {"name": "The Room", "room_alias_name": "room", "preset": "public_chat"}
    room = await story.room(alice, **wish, invite_3pid=[story.invited()])
    (kept,) = story.identity.invites
    told = {name: kept[name] for name in ("address", "room_id", "sender", "room_name", "room_alias")}
    assert told == {
        "address": "bob@b.org",
        "room_id": room,
        "sender": "@alice:a.org",
        "room_name": "The Room",
        "room_alias": "#room:a.org",
    }
    _, issued = await story.server.call(
        "GET", f"/rooms/{room}/state/m.room.third_party_invite/token0", token=alice
    )
    assert issued["display_name"] == "b...@b..."
    assert issued["key_validity_url"] == story.identity.validity_url
    assert issued["public_keys"] == [
        {"public_key": issued["public_key"], "key_validity_url": story.identity.validity_url}
    ]
    assert "bob@b.org" not in str(issued)


async def test_nobody_is_told_of_an_invite_that_the_room_would_not_take(story: Story) -> None:
    alice, mallory = await story.server.user("alice"), await story.server.user("mallory")
    closed = {"users": {"@alice:a.org": 100}, "invite": 50}
    room = await story.room(
        alice, preset="public_chat", power_level_content_override=closed, room_version="11"
    )
    for _ in range(2):
        refused = await story.server.refused("POST", f"/rooms/{room}/invite", story.invited(), token=mallory)
        assert refused == (403, "M_FORBIDDEN")
        await story.server.call("POST", f"/join/{room}", {}, token=mallory)
    assert (story.identity.asked, story.identity.invites) == ([], [])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id_server": "id.example"}, (403, "M_THREEPID_DENIED")),
        ({"address": "bob"}, (400, "M_INVALID_PARAM")),
        ({"medium": "pigeon"}, (400, "M_INVALID_PARAM")),
        ({"id_access_token": "wrong"}, (403, "M_UNAUTHORIZED")),
        ({"id_access_token": None}, (400, "M_MISSING_PARAM")),
        ({"address": None}, (400, "M_MISSING_PARAM")),
    ],
)
async def test_invites_that_cannot_be(
    story: Story, change: dict[str, Any], expected: tuple[int, str]
) -> None:
    alice = await story.server.user("alice")
    room = await story.room(alice)
    body = story.invited(**change)
    assert await story.server.refused("POST", f"/rooms/{room}/invite", body, token=alice) == expected
    assert story.identity.invites == []


async def test_clients_are_told_which_identity_server_to_use(story: Story) -> None:
    status, found = await story.server.call("GET", "/.well-known/matrix/client")
    assert (status, found["m.identity_server"]) == (200, {"base_url": "https://id.example"})


async def test_without_a_trusted_server_nobody_is_bound_or_invited(server: AccountServer) -> None:
    token = await server.user("alice")
    body = {"id_server": "id.example", "id_access_token": "x", "sid": "x", "client_secret": "x"}
    assert await server.refused("POST", "/account/3pid/bind", body, token=token) == (
        403,
        "M_THREEPID_DENIED",
    )
    address = {"medium": "email", "address": ADDRESS, "id_server": "id.example"}
    unbound = await server.call("POST", "/account/3pid/unbind", address, token=token)
    assert unbound == (200, {"id_server_unbind_result": "no-support"})
    _, found = await server.call("GET", "/.well-known/matrix/client")
    assert "m.identity_server" not in found
