"""``/versions`` says of what is not specified yet exactly what works: every flag has its proof here."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from client_api.discovery import SPEC_VERSIONS
from homeserver.config.push import Push
from homeserver.config.rendezvous import Rendezvous
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server, configured, segment

UNSTABLE = "/_matrix/client/unstable"
V1, V3 = "/_matrix/client/v1", "/_matrix/client/v3"

#: A route of the flag's own, which answers other than that there is no such thing.
ROUTES = {
    "io.element.msc4388": ("GET", f"{UNSTABLE}/io.element.msc4388/rendezvous"),
    "org.matrix.msc2108": ("GET", f"{UNSTABLE}/org.matrix.msc2108/sync/sse?since=nonsense"),
    "org.matrix.msc3391": ("DELETE", f"{UNSTABLE}/org.matrix.msc3391/user/@a:a.org/account_data/x"),
    "org.matrix.msc3814": ("GET", f"{UNSTABLE}/org.matrix.msc3814.v1/dehydrated_device"),
    "org.matrix.msc4108": ("POST", f"{UNSTABLE}/org.matrix.msc4108/rendezvous"),
    "org.matrix.msc4140": ("GET", f"{UNSTABLE}/org.matrix.msc4140/delayed_events"),
    "org.matrix.msc4143": ("GET", f"{UNSTABLE}/org.matrix.msc4143/rtc/transports"),
    "org.matrix.msc4306": ("GET", f"{UNSTABLE}/io.element.msc4306/rooms/!r:a.org/thread/$e/subscription"),
    "org.matrix.simplified_msc3575": ("POST", f"{UNSTABLE}/org.matrix.simplified_msc3575/sync"),
    "uk.half-shot.msc2666.query_mutual_rooms": (
        "GET",
        f"{UNSTABLE}/uk.half-shot.msc2666/user/mutual_rooms?user_id=@b:a.org",
    ),
    "uk.half-shot.msc2666.query_mutual_rooms.stable": ("GET", f"{V1}/mutual_rooms?user_id=@b:a.org"),
    "uk.tcpip.msc4133": ("GET", f"{UNSTABLE}/uk.tcpip.msc4133/profile/@a:a.org/m.tz"),
    "uk.tcpip.msc4133.stable": ("PUT", f"{V3}/profile/@a:a.org/m.tz"),
}


async def blocks_by_config(server: AccountServer, type_: str, config: dict[str, Any]) -> None:
    """Whether a kind of account data keeps invites away."""
    alice, bob = await server.user("alice"), await server.user("bob")
    path = f"/user/@alice:a.org/account_data/{type_}"
    assert (await server.call("PUT", path, config, token=alice))[0] == 200
    _, room = await server.call("POST", "/createRoom", {}, token=bob)
    invite = f"/rooms/{segment(room['room_id'])}/invite"
    refusal = await server.refused("POST", invite, {"user_id": "@alice:a.org"}, token=bob)
    assert refusal[0] == 403
    assert refusal[1].endswith("INVITE_BLOCKED")


async def redacted_content_is_asked_for(server: AccountServer) -> None:
    alice, room, event = await a_message(server)
    await server.call("PUT", f"{room}/redact/{event}/1", {}, token=alice)
    query = "?fi.mau.msc2815.include_unredacted_content=true"
    _, told = await server.call("GET", f"{room}/event/{event}{query}", token=alice)
    assert told["content"] == {"body": "hello"}


async def related_events_are_redacted(server: AccountServer) -> None:
    alice, room, event = await a_message(server)
    body = {"org.matrix.msc3912.with_relations": "not a list"}
    assert await server.refused("PUT", f"{room}/redact/{event}/1", body, token=alice) == (400, "M_BAD_JSON")
    body_of_all = {"org.matrix.msc3912.with_relations": ["*"]}
    assert (await server.call("PUT", f"{room}/redact/{event}/2", body_of_all, token=alice))[0] == 200


async def events_stick(server: AccountServer) -> None:
    alice, room, _ = await a_message(server)
    query = "?org.matrix.msc4354.sticky_duration_ms=60000"
    _, sent = await server.call("PUT", f"{room}/send/m.room.message/2{query}", {"body": "hi"}, token=alice)
    _, told = await server.call("GET", f"{room}/event/{sent['event_id']}", token=alice)
    assert told["msc4354_sticky"] == {"duration_ms": 60000}


async def invites_are_filtered_by_lists(server: AccountServer) -> None:
    type_ = "org.matrix.msc4155.invite_permission_config"
    await blocks_by_config(server, type_, {"enabled": True, "blocked_users": ["@bob:a.org"]})


async def invites_are_blocked(server: AccountServer) -> None:
    type_ = "org.matrix.msc4380.invite_permission_config"
    await blocks_by_config(server, type_, {"default_action": "block"})


async def invites_are_blocked_as_specified(server: AccountServer) -> None:
    await blocks_by_config(server, "m.invite_permission_config", {"default_action": "block"})


async def profiles_are_followed(server: AccountServer) -> None:
    alice = await server.user("alice")
    await server.call("POST", "/createRoom", {}, token=alice)
    await server.call("PUT", "/profile/@alice:a.org/m.tz", {"m.tz": "Europe/Paris"}, token=alice)
    name = "org.matrix.msc4262.profiles"
    body = {
        "lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": []}},
        "extensions": {name: {"enabled": True}},
    }
    path = f"{UNSTABLE}/org.matrix.simplified_msc3575/sync"
    _, told = await server.call("POST", path, body, token=alice)
    assert told["extensions"][name] == {"users": {"@alice:a.org": {"updated": {"m.tz": "Europe/Paris"}}}}


#: What has no route of its own.
BEHAVIOUR: dict[str, Callable[[AccountServer], Awaitable[None]]] = {
    "fi.mau.msc2815": redacted_content_is_asked_for,
    "org.matrix.msc3912": related_events_are_redacted,
    "org.matrix.msc4155": invites_are_filtered_by_lists,
    "org.matrix.msc4262": profiles_are_followed,
    "org.matrix.msc4354": events_stick,
    "org.matrix.msc4380": invites_are_blocked,
    "org.matrix.msc4380.stable": invites_are_blocked_as_specified,
}


@pytest.fixture
async def everything(sqlite_database: Database) -> AsyncIterator[AccountServer]:
    """A server with everything switched on that can be."""
    config = configured(rendezvous=Rendezvous(public=True), push=Push(thread_subscriptions=True))
    async with account_server(sqlite_database, config=config, keep_redacted_ms=86_400_000) as running:
        yield running


async def a_message(server: AccountServer) -> tuple[str, str, str]:
    """The access token of who sent it, the room's path, and the event's id for a path."""
    alice = await server.user("alice")
    _, created = await server.call("POST", "/createRoom", {}, token=alice)
    room = f"/rooms/{segment(created['room_id'])}"
    _, sent = await server.call("PUT", f"{room}/send/m.room.message/1", {"body": "hello"}, token=alice)
    return alice, room, segment(sent["event_id"])


async def test_every_flag_has_a_proof(everything: AccountServer) -> None:
    _, reply = await everything.call("GET", "/_matrix/client/versions")
    assert all(reply["unstable_features"].values())
    assert set(reply["unstable_features"]) == ROUTES.keys() | BEHAVIOUR.keys()


@pytest.mark.parametrize("flag", ROUTES)
async def test_what_a_flag_says_is_routed(everything: AccountServer, flag: str) -> None:
    token = await everything.user("a")
    method, path = ROUTES[flag]
    _, reply = await everything.call(method, path, {} if method != "GET" else None, token=token)
    assert reply.get("errcode") != "M_UNRECOGNIZED"


@pytest.mark.parametrize("flag", BEHAVIOUR)
async def test_what_a_flag_says_is_so(everything: AccountServer, flag: str) -> None:
    await BEHAVIOUR[flag](everything)
    _, reply = await everything.call("GET", "/_matrix/client/versions")
    assert reply["unstable_features"][flag] is True


async def test_versions_are_a_list_without_gaps(server: AccountServer) -> None:
    _, reply = await server.call("GET", "/_matrix/client/versions")
    assert reply["versions"] == list(SPEC_VERSIONS)
    minors = [int(match[1]) for one in reply["versions"] if (match := re.fullmatch(r"v1\.(\d+)", one))]
    assert minors == list(range(1, 20))


@pytest.mark.parametrize("action", ["kick", "ban"])
async def test_who_is_removed_may_have_their_events_redacted_by_clients(
    server: AccountServer, action: str
) -> None:
    alice, bob = await server.user("alice"), await server.user("bob")
    _, created = await server.call("POST", "/createRoom", {"preset": "public_chat"}, token=alice)
    room = f"/rooms/{segment(created['room_id'])}"
    assert (await server.call("POST", f"{room}/join", {}, token=bob))[0] == 200
    flag = "org.matrix.msc4293.redact_events"
    wrong = {"user_id": "@bob:a.org", flag: "yes"}
    assert await server.refused("POST", f"{room}/{action}", wrong, token=alice) == (400, "M_BAD_JSON")
    body = {"user_id": "@bob:a.org", "reason": "spam", flag: True}
    assert await server.call("POST", f"{room}/{action}", body, token=alice) == (200, {})
    _, member = await server.call("GET", f"{room}/state/m.room.member/@bob:a.org", token=alice)
    assert (member["reason"], member[flag]) == ("spam", True)
