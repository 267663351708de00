"""Who a service may speak for, and what only it may do."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from homeserver.clock import FakeClock
from homeserver.config import RateLimits
from homeserver.ratelimit import Limit, RateLimiter
from homeserver.storage.database import Database
from tests.appservices.bridge_app import AS_TOKEN, BOT, Bridged, registration
from tests.client_api.account_server import account_server

SERVICE = "m.login.application_service"


async def test_a_service_is_its_own_user_unless_it_says_otherwise(bridge: Bridged) -> None:
    ghost = await bridge.ghost("carol")

    assert (await bridge.as_bridge("GET", "/account/whoami"))[1] == {"user_id": BOT, "is_guest": False}
    assert (await bridge.as_bridge("GET", "/account/whoami", user_id=ghost))[1]["user_id"] == ghost


async def test_older_services_put_their_token_into_the_query(bridge: Bridged) -> None:
    path = f"/account/whoami?access_token={quote(AS_TOKEN)}"

    assert (await bridge.server.call("GET", path))[1]["user_id"] == BOT


@pytest.mark.parametrize(
    ("user_id", "refusal"),
    [
        ("@alice:a.org", (403, "M_EXCLUSIVE")),
        ("@_fake_carol:b.org", (403, "M_EXCLUSIVE")),
        ("@_fake_nobody:a.org", (403, "M_FORBIDDEN")),
        ("nonsense", (403, "M_EXCLUSIVE")),
    ],
)
async def test_a_service_speaks_for_its_users_alone(
    bridge: Bridged, user_id: str, refusal: tuple[int, str]
) -> None:
    await bridge.server.user("alice")

    status, reply = await bridge.as_bridge("GET", "/account/whoami", user_id=user_id)

    assert (status, reply["errcode"]) == refusal


async def test_a_locked_user_is_spoken_for_no_more_from_then_on(bridge: Bridged) -> None:
    ghost = await bridge.ghost("carol")
    assert (await bridge.as_bridge("GET", "/account/whoami", user_id=ghost))[0] == 200
    await bridge.server.people.moderation.change(ghost, locked=True)

    status, reply = await bridge.as_bridge("GET", "/account/whoami", user_id=ghost)
    assert (status, reply["errcode"]) == (401, "M_USER_LOCKED")

    await bridge.server.people.moderation.change(ghost, locked=False)
    assert (await bridge.as_bridge("GET", "/account/whoami", user_id=ghost))[0] == 200


async def test_a_deactivated_user_is_spoken_for_no_more(bridge: Bridged) -> None:
    ghost = await bridge.ghost("carol")
    assert (await bridge.as_bridge("GET", "/account/whoami", user_id=ghost))[0] == 200
    await bridge.server.accounts.deactivate(ghost)

    status, reply = await bridge.as_bridge("GET", "/account/whoami", user_id=ghost)

    assert (status, reply["errcode"]) == (403, "M_USER_DEACTIVATED")


@pytest.mark.parametrize("name", ["device_id", "org.matrix.msc3202.device_id"])
async def test_a_service_means_a_device_that_it_made(bridge: Bridged, name: str) -> None:
    ghost = await bridge.ghost("carol")
    device = {"display_name": "The bridge"}

    assert (await bridge.as_bridge("PUT", "/devices/BRIDGE", device, user_id=ghost))[0] == 201
    assert (await bridge.as_bridge("PUT", "/devices/BRIDGE", device, user_id=ghost))[0] == 200
    _, whoami = await bridge.as_bridge("GET", "/account/whoami", user_id=ghost, **{name: "BRIDGE"})
    status, other = await bridge.as_bridge("GET", "/account/whoami", user_id=ghost, **{name: "OTHER"})

    assert whoami["device_id"] == "BRIDGE"
    assert (status, other["errcode"]) == (400, "M_UNKNOWN_DEVICE")


async def test_devices_are_removed_without_a_password(bridge: Bridged) -> None:
    for device_id in ("ONE", "TWO", "THREE"):
        await bridge.as_bridge("PUT", f"/devices/{device_id}", {})

    assert (await bridge.as_bridge("DELETE", "/devices/ONE", {}))[0] == 200
    assert (await bridge.as_bridge("POST", "/delete_devices", {"devices": ["TWO"]}))[0] == 200
    _, left = await bridge.as_bridge("GET", "/devices")
    assert [device["device_id"] for device in left["devices"]] == ["THREE"]


async def test_an_ordinary_client_makes_no_devices(bridge: Bridged) -> None:
    alice = await bridge.server.user("alice")

    assert await bridge.server.refused("PUT", "/devices/NEW", {}, token=alice) == (404, "M_NOT_FOUND")


async def test_cross_signing_keys_are_replaced_without_a_password(bridge: Bridged) -> None:
    def master(key: str) -> dict[str, object]:
        return {"user_id": BOT, "usage": ["master"], "keys": {f"ed25519:{key}": key}}

    for key in ("A" * 43, "B" * 43):
        body = {"master_key": master(key)}
        assert await bridge.as_bridge("POST", "/keys/device_signing/upload", body) == (200, {})


async def test_registering_with_a_session_and_logging_in(bridge: Bridged) -> None:
    wanted = {"type": SERVICE, "username": "_fake_Dave", "device_id": "D"}
    status, made = await bridge.as_bridge("POST", "/register", wanted)
    identifier = {"type": "m.id.user", "user": "_fake_Dave"}
    _, again = await bridge.as_bridge("POST", "/login", {"type": SERVICE, "identifier": identifier})

    assert (status, made["user_id"], made["device_id"]) == (200, "@_fake_Dave:a.org", "D")
    _, whoami = await bridge.server.call("GET", "/account/whoami", token=again["access_token"])
    assert whoami["user_id"] == "@_fake_Dave:a.org"


@pytest.mark.parametrize(
    ("username", "refusal"),
    [
        ("alice", (400, "M_EXCLUSIVE")),
        ("_fake_with space", (400, "M_INVALID_USERNAME")),
        ("_fake_carol:b.org", (400, "M_INVALID_USERNAME")),
        ("_fake_taken", (400, "M_USER_IN_USE")),
        (None, (400, "M_MISSING_PARAM")),
    ],
)
async def test_what_a_service_may_not_register(
    bridge: Bridged, username: str | None, refusal: tuple[int, str]
) -> None:
    await bridge.ghost("taken")

    status, reply = await bridge.as_bridge("POST", "/register", {"type": SERVICE, "username": username})

    assert (status, reply["errcode"]) == refusal


@pytest.mark.parametrize("path", ["/register", "/login"])
async def test_without_a_services_token_nobody_passes_for_one(bridge: Bridged, path: str) -> None:
    alice = await bridge.server.user("alice")
    wanted = {"type": SERVICE, "username": "_fake_x", "identifier": {"type": "m.id.user", "user": "_fake_x"}}

    assert await bridge.server.refused("POST", path, wanted) == (401, "M_MISSING_TOKEN")
    assert await bridge.server.refused("POST", path, wanted, token=alice) == (401, "M_UNKNOWN_TOKEN")


async def test_a_service_logs_in_as_nobody_else(bridge: Bridged) -> None:
    await bridge.server.user("alice")
    wanted = {"type": SERVICE, "identifier": {"type": "m.id.user", "user": "alice"}}

    status, reply = await bridge.as_bridge("POST", "/login", wanted)

    assert (status, reply["errcode"]) == (403, "M_EXCLUSIVE")


async def test_people_take_no_names_and_aliases_that_are_reserved(bridge: Bridged) -> None:
    alice = await bridge.server.user("alice")
    room_id = await bridge.room(alice)
    alias = f"/directory/room/{quote('#_fake_room:a.org', safe='')}"
    server = bridge.server
    name = {"username": "_fake_erin", "password": "long enough a password"}

    assert await server.refused("POST", "/register", name) == (400, "M_EXCLUSIVE")
    assert await server.refused("GET", "/register/available?username=_fake_erin") == (400, "M_EXCLUSIVE")
    assert await server.refused("PUT", alias, {"room_id": room_id}, token=alice) == (400, "M_EXCLUSIVE")
    assert await server.refused("POST", "/createRoom", {"room_alias_name": "_fake_x"}, token=alice) == (
        400,
        "M_EXCLUSIVE",
    )
    status, reply = await bridge.as_bridge("POST", "/createRoom", {"room_alias_name": "mine"})
    assert (status, reply["errcode"]) == (400, "M_EXCLUSIVE")


async def test_a_service_says_when_its_events_were_sent(bridge: Bridged) -> None:
    ghost = await bridge.ghost("carol")
    _, made = await bridge.as_bridge("POST", "/createRoom", {"preset": "public_chat"}, user_id=ghost)
    room = f"/rooms/{quote(made['room_id'])}"
    message = {"msgtype": "m.text", "body": "long ago"}

    _, sent = await bridge.as_bridge(
        "PUT", f"{room}/send/m.room.message/1", message, user_id=ghost, ts="1234567890000"
    )
    _, member = await bridge.as_bridge(
        "PUT", f"{room}/state/m.room.member/{quote(ghost)}", {"membership": "leave"}, user_id=ghost, ts="0"
    )
    status, reply = await bridge.as_bridge("PUT", f"{room}/send/m.x/2", {}, user_id=ghost, ts=str(2**53))

    times = [
        (await bridge.server.core.events.by_id(one["event_id"])).event.origin_server_ts  # type: ignore[union-attr]
        for one in (sent, member)
    ]
    assert times == [1234567890000, 0]
    assert (status, reply["errcode"]) == (400, "M_INVALID_PARAM")


async def test_people_may_not_say_when_their_events_were_sent(bridge: Bridged) -> None:
    alice = await bridge.server.user("alice")
    room_id = await bridge.room(alice)
    path = f"/rooms/{quote(room_id)}/send/m.room.message/1?ts=5"
    _, sent = await bridge.server.call("PUT", path, {"msgtype": "m.text", "body": "now"}, token=alice)

    stored = await bridge.server.core.events.by_id(sent["event_id"])

    assert stored is not None
    assert stored.event.origin_server_ts == bridge.server.clock.now_ms()


@pytest.mark.parametrize(("rate_limited", "refused"), [(False, 0), (True, 3)])
async def test_rate_limits_are_for_services_that_have_them(
    sqlite_database: Database, rate_limited: bool, refused: int
) -> None:
    limits = dict.fromkeys(RateLimits().limits(), Limit(per_second=0.0001, burst=1))
    one_a_day = RateLimiter(limits, FakeClock())
    bridges = [registration(None, rate_limited=rate_limited)]
    async with account_server(sqlite_database, bridges=bridges, rate_limiter=one_a_day) as server:

        async def status(user_id: str) -> int:
            path = f"/createRoom?user_id={quote(user_id)}"
            return (await server.call("POST", path, {}, token=AS_TOKEN))[0]

        await server.accounts.create_account("somebody", None)
        server.people.accounts.check_reserved = lambda _: None
        await server.accounts.create_account("_fake_carol", None)
        statuses = [await status("@_fake_carol:a.org") for _ in range(4)]
        own = [await status(BOT) for _ in range(4)]

    assert statuses.count(429) == refused
    assert own == [200] * 4
