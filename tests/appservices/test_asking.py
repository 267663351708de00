"""What a service is asked: for users and rooms, whether it is there, and about its networks."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from homeserver.storage.database import Database
from tests.appservices.bridge_app import BridgeApp, Bridged, bridged

GHOST, ALIAS = "@_fake_carol:a.org", "#_fake_room:a.org"
PING = "/_matrix/client/v1/appservice/fake/ping"


async def test_a_profile_that_is_not_there_is_asked_for(bridge: Bridged) -> None:
    async def make(_: str) -> None:
        await bridge.ghost("carol")
        await bridge.as_bridge(
            "PUT", f"/profile/{quote(GHOST)}/displayname", {"displayname": "Carol"}, user_id=GHOST
        )

    bridge.app.on_query, bridge.app.users = make, {GHOST: 200}

    assert await bridge.server.call("GET", f"/profile/{quote(GHOST)}") == (200, {"displayname": "Carol"})
    assert bridge.app.asked == [f"users/{GHOST}"]


async def test_who_is_not_there_is_asked_for_once_in_a_while(bridge: Bridged) -> None:
    for _ in range(3):
        assert await bridge.server.refused("GET", f"/profile/{quote(GHOST)}") == (404, "M_NOT_FOUND")
    # Twice: a service that knows no such path says 404 too.
    assert bridge.app.asked == [f"users/{GHOST}"]
    bridge.server.clock.advance(6)
    await bridge.server.refused("GET", f"/profile/{quote(GHOST)}")

    assert len(bridge.app.asked) == 2


async def test_nobody_is_asked_for_users_of_no_namespace(bridge: Bridged) -> None:
    await bridge.server.refused("GET", "/profile/@nobody:a.org")

    assert bridge.app.asked == []


async def test_a_user_who_is_invited_is_asked_for(bridge: Bridged) -> None:
    bridge.app.users = {GHOST: 200}
    alice = await bridge.server.user("alice")
    room_id = await bridge.room(alice)

    status, _ = await bridge.server.call(
        "POST", f"/rooms/{quote(room_id)}/invite", {"user_id": GHOST}, token=alice
    )

    assert (status, bridge.app.asked) == (200, [f"users/{GHOST}"])


async def test_an_alias_is_asked_for_and_its_room_made_meanwhile(bridge: Bridged) -> None:
    made: list[str] = []

    async def make(_: str) -> None:
        _, room = await bridge.as_bridge(
            "POST", "/createRoom", {"room_alias_name": "_fake_room", "preset": "public_chat"}
        )
        made.append(room["room_id"])

    bridge.app.on_query, bridge.app.aliases = make, {ALIAS: 200}
    alice = await bridge.server.user("alice")

    status, joined = await bridge.server.call("POST", f"/join/{quote(ALIAS, safe='')}", {}, token=alice)

    assert (status, joined) == (200, {"room_id": made[0]})


async def test_a_service_that_cannot_be_reached_leaves_an_alias_unanswered(sqlite_database: Database) -> None:
    async with bridged(sqlite_database, url="http://127.0.0.1:9") as bridge:
        path = f"/directory/room/{quote(ALIAS, safe='')}"
        assert await bridge.server.refused("GET", path) == (408, "M_UNKNOWN")


async def test_a_ping_goes_there_and_back(bridge: Bridged) -> None:
    status, reply = await bridge.as_bridge("POST", PING, {"transaction_id": "meow"})

    assert status == 200
    assert reply["duration_ms"] >= 0
    assert bridge.app.asked == ['{"transaction_id":"meow"}']


async def test_a_ping_that_succeeds_ends_a_pause(bridge: Bridged) -> None:
    await bridge.ghost("carol")
    bridge.app.status = 500
    await bridge.as_bridge("POST", "/createRoom", {})
    await bridge.delivered()
    bridge.app.status = 200
    before = len(bridge.app.transactions)

    await bridge.as_bridge("POST", PING, {})
    await bridge.delivered()

    assert (before, len(bridge.app.transactions)) == (0, 1)


@pytest.mark.parametrize(
    ("url", "ping_status", "refusal"),
    [
        (None, 200, {"status": 400, "errcode": "M_URL_NOT_SET"}),
        ("http://127.0.0.1:9", 200, {"status": 502, "errcode": "M_CONNECTION_FAILED"}),
        ("", 418, {"status": 502, "errcode": "M_BAD_STATUS"}),
    ],
)
async def test_what_a_failed_ping_tells(
    sqlite_database: Database, url: str | None, ping_status: int, refusal: dict[str, object]
) -> None:
    changes = {} if url == "" else {"url": url}
    async with bridged(sqlite_database, BridgeApp(ping_status=ping_status), **changes) as bridge:
        status, reply = await bridge.as_bridge("POST", PING, {})

    assert {"status": status, "errcode": reply["errcode"]} == refusal
    assert reply.get("body") == ('{"no":1}' if ping_status == 418 else None)


async def test_only_the_service_itself_may_ping(bridge: Bridged) -> None:
    alice = await bridge.server.user("alice")

    assert await bridge.server.refused("POST", PING, {}, token=alice) == (403, "M_FORBIDDEN")
    status, reply = await bridge.as_bridge("POST", PING.replace("fake", "other"), {})
    assert (status, reply["errcode"]) == (403, "M_FORBIDDEN")


PROTOCOL = {
    "user_fields": ["nick"],
    "location_fields": ["channel"],
    "icon": "mxc://a.org/icon",
    "field_types": {},
    "instances": [{"network_id": "net", "desc": "A network", "fields": {}}, "nonsense"],
}
LOCATION = {"alias": ALIAS, "protocol": "irc", "fields": {"channel": "#x"}}
USER = {"userid": GHOST, "protocol": "irc", "fields": {"nick": "carol"}}


async def test_networks_are_described_by_those_who_bridge_them(sqlite_database: Database) -> None:
    app = BridgeApp(networks={"protocol/irc": PROTOCOL})
    async with bridged(sqlite_database, app, protocols=("irc", "silent")) as bridge:
        alice = await bridge.server.user("alice")
        instance = {"network_id": "net", "desc": "A network", "fields": {}, "instance_id": "fake|net"}
        described = {**PROTOCOL, "instances": [instance]}
        server = bridge.server

        assert await server.call("GET", "/thirdparty/protocols", token=alice) == (200, {"irc": described})
        assert await server.call("GET", "/thirdparty/protocol/irc", token=alice) == (200, described)
        assert await server.refused("GET", "/thirdparty/protocol/gitter", token=alice) == (404, "M_NOT_FOUND")
        assert app.asked.count("thirdparty/protocol/irc") == 1


async def test_users_and_places_of_networks_are_looked_up(sqlite_database: Database) -> None:
    app = BridgeApp(
        networks={
            "location/irc": [LOCATION, {"alias": 5}],
            "user/irc": [USER],
            "user": [USER],
            "location": [],
        }
    )
    async with bridged(sqlite_database, app, protocols=("irc",)) as bridge:
        alice = await bridge.server.user("alice")
        call, refused = bridge.server.call, bridge.server.refused

        assert await call("GET", "/thirdparty/location/irc?channel=%23x", token=alice) == (200, [LOCATION])
        assert await call("GET", "/thirdparty/user/irc?nick=carol", token=alice) == (200, [USER])
        assert await call("GET", f"/thirdparty/user?userid={quote(GHOST)}", token=alice) == (200, [USER])
        alias = quote(ALIAS, safe="")
        assert await refused("GET", f"/thirdparty/location?alias={alias}", token=alice) == (
            404,
            "M_NOT_FOUND",
        )
        assert await refused("GET", "/thirdparty/location", token=alice) == (400, "M_MISSING_PARAM")
        assert "thirdparty/location/irc?channel=#x" in app.asked


async def test_a_service_publishes_rooms_for_its_network(bridge: Bridged) -> None:
    alice = await bridge.server.user("alice")
    own = await bridge.room(alice, visibility="public")
    bridged_room = await bridge.room(alice)
    path = f"/directory/list/appservice/net/{quote(bridged_room)}"

    async def listed(**wanted: object) -> list[str]:
        _, page = await bridge.server.call("POST", "/publicRooms", wanted, token=alice)
        assert page["total_room_count_estimate"] == len(page["chunk"])
        return sorted(room["room_id"] for room in page["chunk"])

    assert await bridge.as_bridge("PUT", path, {"visibility": "public"}) == (200, {})
    assert await listed() == [own]
    assert await listed(third_party_instance_id="fake|net") == [bridged_room]
    assert await listed(third_party_instance_id="fake|other") == []
    assert await listed(include_all_networks=True) == sorted([own, bridged_room])
    assert await bridge.as_bridge("PUT", path, {"visibility": "private"}) == (200, {})
    assert await listed(third_party_instance_id="fake|net") == []
    assert await bridge.server.refused("PUT", path, {"visibility": "public"}, token=alice) == (
        403,
        "M_FORBIDDEN",
    )
