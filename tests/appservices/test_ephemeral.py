"""What a service is told beside events: typing, receipts, presence, and what encryption needs."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from homeserver.storage.database import Database
from tests.appservices.bridge_app import BOT, BridgeApp, Bridged, bridged

MESSAGE = {"msgtype": "m.text", "body": "hello"}


async def portal(bridge: Bridged) -> tuple[str, str, str, str]:
    """A person's token, a ghost, their room and a message in it."""
    alice = await bridge.server.user("alice", device_id="PHONE")
    ghost = await bridge.ghost("carol")
    room_id = await bridge.room(alice)
    await bridge.join(ghost, room_id)
    path = f"/rooms/{quote(room_id)}/send/m.room.message"
    _, sent = await bridge.server.call("POST", path, MESSAGE, token=alice)
    await bridge.delivered()
    return alice, ghost, room_id, sent["event_id"]


def of_type(bridge: Bridged, type_: str) -> list[dict[str, Any]]:
    assert bridge.app.all_of("ephemeral") == bridge.app.all_of("de.sorunome.msc2409.ephemeral")
    return [event for event in bridge.app.all_of("ephemeral") if event["type"] == type_]


async def test_typing_is_told_with_its_room(bridge: Bridged) -> None:
    alice, _, room_id, _ = await portal(bridge)
    for typing in (True, False):
        path = f"/rooms/{quote(room_id)}/typing/@alice:a.org"
        await bridge.server.call("PUT", path, {"typing": typing, "timeout": 30_000}, token=alice)
        await bridge.delivered()

    assert of_type(bridge, "m.typing") == [
        {"type": "m.typing", "room_id": room_id, "content": {"user_ids": ["@alice:a.org"]}},
        {"type": "m.typing", "room_id": room_id, "content": {"user_ids": []}},
    ]


async def test_receipts_are_told_and_private_ones_only_of_the_services_own_users(bridge: Bridged) -> None:
    alice, ghost, room_id, event_id = await portal(bridge)
    for type_ in ("m.read.private", "m.read"):
        path = f"/rooms/{quote(room_id)}/receipt/{type_}/{quote(event_id)}"
        await bridge.server.call("POST", path, {}, token=alice)
        await bridge.delivered()
        await bridge.as_bridge("POST", path, {}, user_id=ghost)
        await bridge.delivered()

    told = [
        (type_, user_id)
        for event in of_type(bridge, "m.receipt")
        for by_type in event["content"].values()
        for type_, users in by_type.items()
        for user_id in users
    ]
    assert told == [("m.read.private", ghost), ("m.read", "@alice:a.org"), ("m.read", ghost)]
    assert {event["room_id"] for event in of_type(bridge, "m.receipt")} == {room_id}


async def test_presence_is_told_of_who_shares_a_room(sqlite_database: Database) -> None:
    async with bridged(sqlite_database) as bridge:
        await portal(bridge)
        await bridge.server.user("stranger")
        presence = bridge.server.ephemeral.presence
        presence.enabled = True
        for user_id in ("@alice:a.org", "@stranger:a.org"):
            await presence.set_state(user_id, "online", "here")
        await bridge.delivered()

        told = [(event["sender"], event["content"]["presence"]) for event in of_type(bridge, "m.presence")]
        assert told == [("@alice:a.org", "online")]


async def test_who_did_not_ask_is_told_nothing_of_it(sqlite_database: Database) -> None:
    async with bridged(sqlite_database, receive_ephemeral=False, encryption=False) as bridge:
        alice, _, room_id, _ = await portal(bridge)
        await bridge.server.call(
            "PUT", f"/rooms/{quote(room_id)}/typing/@alice:a.org", {"typing": True}, token=alice
        )
        await bridge.delivered()

        assert {name for body in bridge.app.transactions.values() for name in body} == {"events"}


async def to_device(bridge: Bridged, alice: str, user_id: str, text: str) -> None:
    body = {"messages": {user_id: {"*": {"text": text}}}}
    assert (await bridge.server.call("PUT", f"/sendToDevice/m.x/{text}", body, token=alice))[0] == 200


async def test_messages_to_its_devices_come_once_with_what_is_left_of_their_keys(
    sqlite_database: Database,
) -> None:
    app = BridgeApp()
    async with bridged(sqlite_database, app) as bridge:
        alice, ghost, _, _ = await portal(bridge)
        await bridge.as_bridge("PUT", "/devices/BRIDGE", {}, user_id=ghost)
        await bridge.delivered()
        await to_device(bridge, alice, ghost, "one")
        await bridge.delivered()
        app.status = 500
        await to_device(bridge, alice, ghost, "two")
        await bridge.delivered()
        await to_device(bridge, alice, ghost, "three")
        await bridge.delivered()
    app.status = 200
    async with bridged(sqlite_database, app) as bridge:
        await bridge.delivered()

    messages = app.all_of("to_device")
    assert messages == app.all_of("de.sorunome.msc2409.to_device")
    assert messages[0] == {
        "type": "m.x",
        "sender": "@alice:a.org",
        "content": {"text": "one"},
        "to_user_id": ghost,
        "to_device_id": "BRIDGE",
    }
    assert [message["content"]["text"] for message in messages] == ["one", "two", "three"]
    counts = [body["device_one_time_keys_count"] for body in app.transactions.values() if "to_device" in body]
    assert counts[0] == {ghost: {"BRIDGE": {"signed_curve25519": 0}}}


async def test_a_service_is_told_whose_keys_changed_and_what_is_left_of_its_own(bridge: Bridged) -> None:
    _, ghost, _, _ = await portal(bridge)
    await bridge.server.user("alice", device_id="LAPTOP")
    await bridge.server.user("stranger", device_id="OTHER")
    await bridge.as_bridge("PUT", "/devices/BRIDGE", {}, user_id=ghost)
    await bridge.delivered()
    key = {"key": "a" * 43, "signatures": {ghost: {"ed25519:BRIDGE": "b" * 86}}}
    status, uploaded = await bridge.as_bridge(
        *("POST", "/keys/upload", {"one_time_keys": {"signed_curve25519:A": key}}),
        user_id=ghost,
        device_id="BRIDGE",
    )
    await bridge.delivered()

    assert (status, uploaded) == (200, {"one_time_key_counts": {"signed_curve25519": 1}})
    changed = {user for body in bridge.app.transactions.values() for user in _lists(body)["changed"]}
    assert {"@alice:a.org", ghost} <= changed
    assert "@stranger:a.org" not in changed
    newest = list(bridge.app.transactions.values())[-1]
    assert newest["org.matrix.msc3202.device_one_time_keys_count"] == {
        ghost: {"BRIDGE": {"signed_curve25519": 1}}
    }
    assert BOT not in changed


def _lists(body: dict[str, Any]) -> dict[str, list[str]]:
    return body.get("device_lists", {"changed": []})
