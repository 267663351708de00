"""Account data over sliding sync: everything once, then what changed."""

from __future__ import annotations

from typing import Any

from tests.sync.extension_client import ENABLED, ExtensionClient
from tests.sync.server import SyncServer
from tests.sync.sliding_client import top


def kept(events: list[dict[str, Any]]) -> dict[str, Any]:
    return {event["type"]: event["content"] for event in events if event["type"] != "m.push_rules"}


async def keep(server: SyncServer, user_id: str, value: int, room_id: str = "") -> None:
    await server.account_data.set_content(user_id, "org.example", {"value": value}, room_id=room_id)


async def test_all_of_it_comes_first_and_then_what_changes(server: SyncServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    await keep(server, alice, 1)
    await keep(server, alice, 2, room.room_id)
    phone = ExtensionClient.of(server, alice, "account_data")
    first = (await phone.told())["account_data"]
    assert kept(first["global"]) == {"org.example": {"value": 1}}
    assert {event["type"] for event in first["global"]} == {"org.example", "m.push_rules"}
    assert kept(first["rooms"][room.room_id]) == {"org.example": {"value": 2}}
    assert await phone.told() == {}
    await keep(server, alice, 3)
    assert (await phone.told())["account_data"] == {
        "global": [{"type": "org.example", "content": {"value": 3}}],
        "rooms": {},
    }
    await keep(server, alice, 4, room.room_id)
    assert kept((await phone.told())["account_data"]["rooms"][room.room_id]) == {"org.example": {"value": 4}}


async def test_a_change_of_push_rules_tells_the_whole_ruleset(server: SyncServer) -> None:
    alice = server.world.user("alice")
    phone = ExtensionClient.of(server, alice, "account_data")
    await phone.told()
    await server.people.push_rules.set_enabled(alice, "override", ".m.rule.master", True)
    (event,) = (await phone.told())["account_data"]["global"]
    assert event["type"] == "m.push_rules"
    assert event["content"]["global"]["override"][0]["enabled"] is True


async def test_rooms_that_were_not_told_keep_theirs_to_themselves(server: SyncServer) -> None:
    alice = server.world.user("alice")
    hidden, shown = [await server.world.public_room(alice) for _ in range(2)]
    for room in (hidden, shown):
        await keep(server, alice, 1, room.room_id)
    phone = ExtensionClient.of(server, alice, "account_data")
    assert list((await phone.told(0))["account_data"]["rooms"]) == [shown.room_id]
    await keep(server, alice, 2, hidden.room_id)
    assert await phone.told(0) == {}
    whole = (await phone.told(1))["account_data"]["rooms"]
    assert kept(whole[hidden.room_id]) == {"org.example": {"value": 2}}
    assert list(whole) == [hidden.room_id]


async def test_what_changes_out_of_view_is_told_when_the_room_is_back(server: SyncServer) -> None:
    alice = server.world.user("alice")
    older, newer = [await server.world.public_room(alice) for _ in range(2)]
    phone = ExtensionClient.of(server, alice, "account_data")
    await phone.told(1)
    await keep(server, alice, 1, older.room_id)
    assert await phone.told(0) == {}
    assert await phone.told(0) == {}
    await keep(server, alice, 2, newer.room_id)
    assert list((await phone.told(0))["account_data"]["rooms"]) == [newer.room_id]
    back = (await phone.told(1))["account_data"]["rooms"]
    assert back == {older.room_id: [{"type": "org.example", "content": {"value": 1}}]}
    assert await phone.told(1) == {}


async def test_a_repeated_request_is_told_the_same(server: SyncServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    phone = ExtensionClient.of(server, alice, "account_data")
    await phone.told()
    await keep(server, alice, 1, room.room_id)
    body: dict[str, Any] = {"lists": {"all": top()}, "extensions": phone.extensions}
    lost = await phone.ask(pos=phone.pos, **body)
    again = await phone.ask(pos=phone.pos, **body)
    assert lost["extensions"] == again["extensions"] != {}


async def test_only_the_lists_and_rooms_that_are_named(server: SyncServer) -> None:
    alice = server.world.user("alice")
    listed, subscribed = [await server.world.public_room(alice) for _ in range(2)]
    for room in (listed, subscribed):
        await keep(server, alice, 1, room.room_id)
    subscription = {subscribed.room_id: {"timeline_limit": 1, "required_state": []}}

    async def rooms(**asked: Any) -> set[str]:
        phone = ExtensionClient.of(server, alice)
        phone.extensions = {"account_data": {**ENABLED, **asked}}
        told = await phone.told(room_subscriptions=subscription)
        return set(told["account_data"]["rooms"])

    assert await rooms() == {listed.room_id, subscribed.room_id}
    assert await rooms(lists=[], rooms=[subscribed.room_id]) == {subscribed.room_id}
    assert await rooms(lists=[], rooms=["*"]) == {subscribed.room_id}
    assert await rooms(lists=[], rooms=[]) == set()
    assert await rooms(lists=["all"]) == {listed.room_id, subscribed.room_id}
    assert await rooms(lists=["unknown"], rooms=["!unknown:x"]) == set()


async def test_switched_on_later_it_tells_everything_then(server: SyncServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    await keep(server, alice, 1)
    await keep(server, alice, 2, room.room_id)
    phone = ExtensionClient.of(server, alice)
    assert await phone.told() == {}
    phone.extensions = {"account_data": dict(ENABLED)}
    told = (await phone.told())["account_data"]
    assert kept(told["global"]) == {"org.example": {"value": 1}}
    assert kept(told["rooms"][room.room_id]) == {"org.example": {"value": 2}}


async def test_what_was_deleted_is_told_to_those_who_knew_it(server: SyncServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    for room_id in ("", room.room_id):
        await keep(server, alice, 1, room_id)
    phone, tablet = [ExtensionClient.of(server, alice, "account_data", device=name) for name in ("P", "T")]
    await phone.told()
    for room_id in ("", room.room_id):
        await server.account_data.delete(alice, "org.example", room_id=room_id)
    told = (await phone.told())["account_data"]
    assert kept(told["global"]) == {"org.example": {}}
    assert kept(told["rooms"][room.room_id]) == {"org.example": {}}
    new = (await tablet.told())["account_data"]
    assert (kept(new["global"]), new["rooms"]) == ({}, {})
