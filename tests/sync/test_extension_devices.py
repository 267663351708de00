"""What sliding sync tells devices: messages to them, and what they need for encryption."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.e2e.uploads import new_keys
from homeserver.errors import MatrixError
from homeserver.sync.sliding.extensions.to_device import MAX_MESSAGES
from tests.sync.extension_client import ENABLED, ExtensionClient
from tests.sync.server import SyncServer
from tests.sync.sliding_client import extended


async def send(server: SyncServer, to: str, *numbers: int, device: str = "PHONE") -> None:
    for number in numbers:
        await server.to_device.send(
            "@eve:here.example", None, "m.test", f"t{number}", {to: {device: {"number": number}}}
        )


def numbers(part: dict[str, Any]) -> list[int]:
    return [event["content"]["number"] for event in part["events"]]


@pytest.fixture
async def alice(server: SyncServer) -> str:
    user_id = server.world.user("alice")
    await server.add_device(user_id, "PHONE")
    return user_id


async def test_messages_come_until_the_device_shows_to_have_them(server: SyncServer, alice: str) -> None:
    phone = ExtensionClient.of(server, alice, "to_device")
    await send(server, alice, 1, 2)
    first = (await phone.told())["to_device"]
    assert numbers(first) == [1, 2]
    await send(server, alice, 3)
    again = (await phone.told())["to_device"]  # a client that lost the response, or what it said
    assert numbers(again) == [1, 2, 3]
    phone.extensions["to_device"]["since"] = first["next_batch"]
    assert numbers((await phone.told())["to_device"]) == [3]
    del phone.extensions["to_device"]["since"]
    assert numbers((await phone.told())["to_device"]) == [3]  # what is deleted does not come back


async def test_the_token_is_told_without_messages_and_does_not_end_the_waiting(
    server: SyncServer, alice: str
) -> None:
    phone = ExtensionClient.of(server, alice, "to_device")
    first = (await phone.told())["to_device"]
    assert first["events"] == []
    phone.extensions["to_device"]["since"] = first["next_batch"]
    waiting = asyncio.get_running_loop().create_task(phone.told(timeout=60))
    await asyncio.sleep(0)
    await send(server, alice, 1)
    async with asyncio.timeout(30):
        assert numbers((await waiting)["to_device"]) == [1]


async def test_many_messages_come_in_turn(server: SyncServer, alice: str) -> None:
    phone = ExtensionClient.of(server, alice, "to_device")
    await send(server, alice, *range(5))
    phone.extensions["to_device"]["limit"] = 2
    received = []
    for _ in range(3):
        part = (await phone.told())["to_device"]
        received.append(numbers(part))
        phone.extensions["to_device"]["since"] = part["next_batch"]
    assert received == [[0, 1], [2, 3], [4]]


async def test_no_more_than_so_many_whatever_is_asked_for(server: SyncServer, alice: str) -> None:
    phone = ExtensionClient.of(server, alice, "to_device")
    phone.extensions["to_device"]["limit"] = 10_000
    await send(server, alice, *range(MAX_MESSAGES + 1))
    assert len((await phone.told())["to_device"]["events"]) == MAX_MESSAGES


async def test_sync_and_sliding_sync_beside_each_other_lose_nothing(server: SyncServer, alice: str) -> None:
    phone, old = ExtensionClient.of(server, alice, "to_device"), server.client("alice")
    await send(server, alice, 1)
    first = (await phone.told())["to_device"]
    both = (await old.sync())["to_device"]
    assert numbers(first) == numbers(both) == [1]
    await send(server, alice, 2)
    assert numbers((await old.sync())["to_device"]) == [2]  # which shows that the first is there
    phone.extensions["to_device"]["since"] = first["next_batch"]
    assert numbers((await phone.told())["to_device"]) == [2]
    await old.sync()
    assert numbers((await phone.told())["to_device"]) == []


async def test_who_followed_sync_before_goes_on_from_its_token(server: SyncServer, alice: str) -> None:
    """The Rust SDK keeps one token for messages, whichever of the two told them."""
    phone, old = ExtensionClient.of(server, alice, "to_device"), server.client("alice")
    await send(server, alice, 1)
    response = await old.sync()
    assert numbers(response["to_device"]) == [1]
    await send(server, alice, 2)
    phone.extensions["to_device"]["since"] = response["next_batch"]
    assert numbers((await phone.told())["to_device"]) == [2]


async def test_two_connections_of_a_device_at_once_share_one_queue(server: SyncServer, alice: str) -> None:
    sliding = extended(server)
    rooms, keys = [
        ExtensionClient(sliding, alice, conn_id=name, extensions={"to_device": dict(ENABLED)})
        for name in ("room-list", "encryption")
    ]
    since = (await keys.told())["to_device"]["next_batch"]
    received = []
    for number in range(5):
        await send(server, alice, number)
        keys.extensions["to_device"]["since"] = since
        told, _ = await asyncio.gather(keys.told(timeout=60), rooms.sync())
        received += numbers(told["to_device"])
        since = told["to_device"]["next_batch"]
    assert received == list(range(5))
    # Nothing but an acknowledgement deletes: the last one was told, and not acknowledged.
    assert numbers((await rooms.told())["to_device"]) == [4]
    rooms.extensions["to_device"]["since"] = since
    assert numbers((await rooms.told())["to_device"]) == []


async def test_each_device_has_its_own(server: SyncServer, alice: str) -> None:
    await server.add_device(alice, "TABLET")
    tablet = ExtensionClient.of(server, alice, "to_device", device="TABLET")
    await send(server, alice, 1)
    await send(server, alice, 2, device="TABLET")
    assert numbers((await tablet.told())["to_device"]) == [2]


@pytest.mark.parametrize(
    ("asked", "errcode"),
    [
        ({"since": "nonsense"}, "M_INVALID_PARAM"),
        ({"since": "-1"}, "M_INVALID_PARAM"),
        ({"since": "9" * 30}, "M_INVALID_PARAM"),
        ({"since": 1}, "M_BAD_JSON"),
        ({"limit": 0}, "M_INVALID_PARAM"),
        ({"limit": "1"}, "M_BAD_JSON"),
        ({"limit": True}, "M_BAD_JSON"),
    ],
)
async def test_what_cannot_be_asked_for(
    server: SyncServer, alice: str, asked: dict[str, Any], errcode: str
) -> None:
    phone = ExtensionClient.of(server, alice, "to_device")
    phone.extensions["to_device"] |= asked
    with pytest.raises(MatrixError) as refused:
        await phone.told()
    assert refused.value.errcode == errcode


async def test_a_token_from_the_future_deletes_nothing_that_comes_later(
    server: SyncServer, alice: str
) -> None:
    phone = ExtensionClient.of(server, alice, "to_device")
    phone.extensions["to_device"]["since"] = "9" * 18
    await phone.told()
    await send(server, alice, 1)
    del phone.extensions["to_device"]["since"]
    assert numbers((await phone.told())["to_device"]) == [1]


async def test_key_counts_are_told_once_and_when_they_change(server: SyncServer, alice: str) -> None:
    phone = ExtensionClient.of(server, alice, "e2ee")
    assert (await phone.told())["e2ee"] == {
        "device_one_time_keys_count": {"signed_curve25519": 0},
        "device_unused_fallback_key_types": [],
    }
    assert await phone.told() == {}
    key = {"curve25519:AAAA": "abc"}
    keys = new_keys(alice, "PHONE", device_keys=None, one_time_keys=key, fallback_keys=key)
    await server.encryption.uploads.upload(keys)
    assert (await phone.told())["e2ee"] == {
        "device_one_time_keys_count": {"curve25519": 1, "signed_curve25519": 0},
        "device_unused_fallback_key_types": ["curve25519"],
    }
    assert await phone.told() == {}


async def test_people_one_comes_to_share_a_room_with_and_no_longer(server: SyncServer, alice: str) -> None:
    bob = server.world.user("bob")
    room = await server.world.public_room(alice)
    phone = ExtensionClient.of(server, alice, "e2ee")
    assert "device_lists" not in (await phone.told())["e2ee"]
    await room.join(bob)
    assert (await phone.told())["e2ee"] == {"device_lists": {"changed": [bob], "left": []}}
    await room.leave(bob)
    assert (await phone.told())["e2ee"] == {"device_lists": {"changed": [], "left": [bob]}}
    assert await phone.told() == {}
