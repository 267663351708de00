"""matrix-nio with encryption on our server: people chat, share keys, verify each other."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import nio
import pytest

from tests.clients.nio_device import Device, expect
from tests.processes import Server

pytestmark = pytest.mark.xdist_group("nio-encryption")

NewDevice = Callable[..., Awaitable[Device]]


@pytest.fixture
async def new_device(
    server: Server, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[NewDevice]:
    """Devices of people whose names no other test uses; the first one of a person registers."""
    numbers, devices = itertools.count(), []
    story = request.node.name.replace("_", "-")

    async def arrive(name: str, *, registers: bool = True) -> Device:
        device = Device(server.client_url, f"{name}-{story}", tmp_path / str(next(numbers)))
        devices.append(device)
        await (device.register() if registers else device.log_in())
        return device

    yield arrive
    for device in devices:
        await device.client.close()


@pytest.fixture
async def alice(new_device: NewDevice) -> Device:
    return await new_device("alice")


@pytest.fixture
async def bob(new_device: NewDevice) -> Device:
    return await new_device("bob")


async def encrypted_room(alice: Device, bob: Device) -> str:
    """A room both have joined, whose members' devices both know."""
    encryption = {
        "type": "m.room.encryption",
        "state_key": "",
        "content": {"algorithm": "m.megolm.v1.aes-sha2"},
    }
    answer = await alice.client.room_create(invite=[bob.user_id], initial_state=[encryption])
    room = expect(answer, nio.RoomCreateResponse).room_id
    expect(await bob.client.join(room), nio.JoinResponse)
    for person in (alice, bob):
        await person.until("both in the room", lambda person=person: _both(person, room))
    await alice.knows(bob)
    await bob.knows(alice)
    return room


def _both(person: Device, room: str) -> bool:
    found = person.client.rooms.get(room)
    return found is not None and found.encrypted and found.joined_count == 2


async def test_two_people_chat_in_both_directions(alice: Device, bob: Device) -> None:
    room = await encrypted_room(alice, bob)

    for number in range(3):
        asked = await alice.say(room, f"question {number}")
        answered = await bob.say(room, f"answer {number}")
        assert await bob.text(asked) == f"question {number}"
        assert await alice.text(answered) == f"answer {number}"


async def test_a_device_that_comes_late_asks_the_other_one_for_the_key(
    alice: Device, bob: Device, new_device: NewDevice
) -> None:
    room = await encrypted_room(alice, bob)
    said = await alice.say(room, "before the tablet")
    assert await bob.text(said) == "before the tablet"

    tablet = await new_device("bob", registers=False)
    unreadable = expect(await tablet.event(said), nio.MegolmEvent)
    await bob.knows(tablet)
    await tablet.knows(bob)
    for one, other in ((bob, tablet), (tablet, bob)):
        one.client.verify_device(one.client.device_store[other.user_id][other.id])
    expect(await tablet.client.request_room_key(unreadable), nio.RoomKeyRequestResponse)
    await bob.until("a session with the tablet", lambda: can_tell(bob, tablet))
    # nio looks at its waiting requests when a sync brings anything at all.
    assert await bob.text(await alice.say(room, "a moment")) == "a moment"
    await tablet.message(nio.ForwardedRoomKeyEvent)
    assert expect(tablet.client.decrypt_event(unreadable), nio.RoomMessageText).body == "before the tablet"

    await alice.knows(tablet)
    later = await alice.say(room, "after the tablet")
    assert await tablet.text(later) == "after the tablet"
    assert await bob.text(later) == "after the tablet"


def can_tell(one: Device, other: Device) -> bool:
    """Whether one device can encrypt to another."""
    olm = one.client.olm
    assert olm is not None
    device = one.client.device_store[other.user_id][other.id]
    return olm.session_store.get(device.curve25519) is not None


async def test_two_devices_verify_each_other_by_emojis(alice: Device, bob: Device) -> None:
    await encrypted_room(alice, bob)
    bobs = alice.client.device_store[bob.user_id][bob.id]
    expect(await alice.client.start_key_verification(bobs), nio.ToDeviceResponse)
    start = await bob.message(nio.KeyVerificationStart)
    expect(await bob.client.accept_key_verification(start.transaction_id), nio.ToDeviceResponse)
    await alice.message(nio.KeyVerificationAccept)
    await bob.message(nio.KeyVerificationKey)
    await alice.message(nio.KeyVerificationKey)

    transaction = start.transaction_id
    seen = [person.client.key_verifications[transaction].get_emoji() for person in (alice, bob)]
    assert seen[0] == seen[1]
    for person in (alice, bob):
        expect(await person.client.confirm_short_auth_string(transaction), nio.ToDeviceResponse)
    for person, other in ((alice, bob), (bob, alice)):
        await person.message(nio.KeyVerificationMac)
        assert person.client.device_store[other.user_id][other.id].verified


async def test_one_time_keys_that_were_given_out_are_replaced(
    alice: Device, bob: Device, server: Server
) -> None:
    room = await encrypted_room(alice, bob)
    olm = bob.client.olm
    assert olm is not None
    full = olm.uploaded_key_count
    claim = {"one_time_keys": {bob.user_id: {bob.id: "signed_curve25519"}}}
    headers = {"Authorization": f"Bearer {alice.client.access_token}"}
    taken: set[str] = set()
    async with aiohttp.ClientSession(server.client_url, headers=headers) as http:
        for _ in range(full - 1):
            async with http.post("/_matrix/client/v3/keys/claim", json=claim) as reply:
                taken |= (await reply.json())["one_time_keys"][bob.user_id][bob.id].keys()
    assert len(taken) == full - 1

    await bob.sync()
    assert olm.uploaded_key_count == full
    said = await alice.say(room, "with a new key")
    assert await bob.text(said) == "with a new key"
