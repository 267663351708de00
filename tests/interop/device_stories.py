"""What the devices of people on two servers know of each other, told once for every pair of servers.

A module of tests inherits ``DeviceStories`` and gives the fixture ``pair``, as with ``Stories``.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any
from urllib.parse import quote

import pytest

from tests.identities import Device, Identity, only_new_signatures
from tests.interop.client import Client, NotSeen, View
from tests.interop.conftest import PASSWORD, NewUser, Pair
from tests.interop.stories import come_in, public_room, shared_room, stopped

CURVE = "signed_curve25519"
_transactions = itertools.count()


async def upload(client: Client, *one_time_keys: int, fallback: int | None = None) -> Device:
    """The client's device makes keys and uploads them."""
    device = Device(client.user_id, client.device_id)
    body: dict[str, Any] = {
        "device_keys": device.keys(),
        "one_time_keys": device.one_time_keys(*one_time_keys),
    }
    if fallback is not None:
        body["fallback_keys"] = device.fallback_key(fallback)
    await client.request("POST", "/keys/upload", body)
    return device


async def query(client: Client, user_id: str) -> dict[str, Any]:
    """All that a client finds of somebody's keys."""
    body = {"device_keys": {user_id: []}, "timeout": 5000}
    reply: dict[str, Any] = await client.request("POST", "/keys/query", body)
    return reply


async def devices_of(client: Client, user_id: str) -> dict[str, Any]:
    """Somebody's devices without what servers add to them."""
    deadline = time.monotonic() + 20
    reply = await query(client, user_id)
    # COMPAT: Synapse speaks of a failure, "'devices'", when it is just fetching that list for itself.
    while reply["failures"] and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        reply = await query(client, user_id)
    assert reply["failures"] == {}
    devices = reply["device_keys"].get(user_id, {})
    for device in devices.values():
        device.pop("unsigned", None)
    return dict(devices)


async def claim(client: Client, device: Device) -> dict[str, Any]:
    """A one-time key of a device."""
    body = {"one_time_keys": {device.user_id: {device.device_id: CURVE}}}
    reply = await client.request("POST", "/keys/claim", body)
    keys: dict[str, Any] = reply["one_time_keys"].get(device.user_id, {}).get(device.device_id, {})
    return keys


async def is_told(client: Client, user_id: str) -> None:
    """Wait until the client is told that somebody's devices changed, and start to wait anew."""
    await client.until(f"a change of {user_id}", lambda view: user_id in view.devices_changed)
    client.view.devices_changed.clear()


async def finds(client: Client, user_id: str, *devices: Device) -> None:
    """The client is told of a change, and then finds exactly these devices.

    Several changes in a row are told of one by one.
    """
    wanted = {device.device_id: device.keys() for device in devices}
    deadline = time.monotonic() + 20
    await is_told(client, user_id)
    while (found := await devices_of(client, user_id)) != wanted:
        if time.monotonic() > deadline:
            raise NotSeen(f"the devices {set(wanted)}; found {found}")
        await is_told(client, user_id)


async def send_to_device(sender: Client, user_id: str, device_id: str, content: dict[str, Any]) -> None:
    path = f"/sendToDevice/m.test/t{next(_transactions)}-{sender.device_id}"
    await sender.request("PUT", path, {"messages": {user_id: {device_id: content}}})


async def is_sent(client: Client, sender: Client, content: dict[str, Any]) -> None:
    """Wait for a message to the device; it comes once."""
    message = {"type": "m.test", "sender": sender.user_id, "content": content}

    def find(view: View) -> bool:
        return message in view.to_device

    await client.until(f"message {content}", find)
    assert client.view.to_device.count(message) == 1


class DeviceStories:
    """Told between ``pair.host`` and ``pair.guest``."""

    async def test_each_learns_of_the_others_devices_as_they_come_and_go(
        self, alice: Client, bob: Client, pair: Pair, new_user: NewUser
    ) -> None:
        alices = await upload(alice)
        room = await public_room(alice)
        await alice.sync()
        await bob.sync()
        bobs = await upload(bob)
        await come_in(room, alice, bob, pair)
        await finds(alice, bob.user_id, bobs)
        await finds(bob, alice.user_id, alices)
        for owner, first, watcher in ((alice, alices, bob), (bob, bobs, alice)):
            tablet = Client(owner._http, pair.host if owner is alice else pair.guest)
            await tablet.login(owner.user_id, PASSWORD)
            second = await upload(tablet)
            await finds(watcher, owner.user_id, first, second)
            await tablet.request("POST", "/logout")
            await finds(watcher, owner.user_id, first)
            assert await devices_of(watcher, owner.user_id) == {owner.device_id: first.keys()}

    async def test_one_time_keys_are_claimed_once_and_then_the_fallback_key(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        for owner, other in ((alice, bob), (bob, alice)):
            device = await upload(owner, 1, 2, 3, fallback=1)
            claimed = await asyncio.gather(*(claim(other, device) for _ in range(3)))
            assert {name: key for one in claimed for name, key in one.items()} == device.one_time_keys(
                1, 2, 3
            )
            assert await claim(other, device) == device.fallback_key(1)
            synced = await owner.sync()
            assert synced["device_one_time_keys_count"].get(CURVE, 0) == 0
            assert synced["device_unused_fallback_key_types"] == []

    async def test_messages_reach_one_device_or_all(self, alice: Client, bob: Client, pair: Pair) -> None:
        for sender, receiver in ((alice, bob), (bob, alice)):
            await receiver.sync()
            await send_to_device(sender, receiver.user_id, receiver.device_id, {"for": "one"})
            await is_sent(receiver, sender, {"for": "one"})
            await send_to_device(sender, receiver.user_id, "*", {"for": "all"})
            await is_sent(receiver, sender, {"for": "all"})
            assert [message["content"]["for"] for message in receiver.view.to_device] == ["one", "all"]

    @pytest.mark.parametrize("alices", [True, False], ids=["alice's", "bob's"])
    async def test_cross_signing_keys_and_signatures_cross(
        self, alice: Client, bob: Client, pair: Pair, alices: bool
    ) -> None:
        await shared_room(alice, bob, pair)
        owner, watcher = (alice, bob) if alices else (bob, alice)
        device, identity = await upload(owner), Identity(owner.user_id)
        await finds(watcher, owner.user_id, device)
        await owner.request("POST", "/keys/device_signing/upload", identity.upload())
        await _until_master_key(watcher, identity)

        signed = identity.sign(device.keys(), "self_signing")
        uploaded = only_new_signatures(device.keys(), signed, owner.user_id)
        await _publish(owner, owner.user_id, owner.device_id, uploaded)
        await _until_signed(watcher, signed)

        verifier = Identity(watcher.user_id)
        await watcher.request("POST", "/keys/device_signing/upload", verifier.upload())
        verified = verifier.sign(identity.key("master"), "user_signing")
        await _publish(watcher, owner.user_id, identity.public_key("master"), verified)
        found = await query(watcher, owner.user_id)
        assert watcher.user_id in found["master_keys"][owner.user_id]["signatures"]
        seen = (await query(owner, owner.user_id))["master_keys"][owner.user_id]
        assert watcher.user_id not in seen.get("signatures", {})

    async def test_who_comes_back_after_changing_devices_is_looked_at_again(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        room = await shared_room(alice, bob, pair)
        await alice.sync()
        first = await upload(bob)
        await finds(alice, bob.user_id, first)
        await bob.leave(room)
        await alice.until("bob to have left", lambda view: bob.user_id in view.devices_left)
        second = await upload(bob)
        assert await devices_of(alice, bob.user_id) == {bob.device_id: second.keys()}
        alice.view.devices_changed.clear()
        third = await upload(bob)
        await come_in(room, alice, bob, pair)
        await finds(alice, bob.user_id, third)

    @pytest.mark.parametrize("restarted", [False, True], ids=["", "and the sender is restarted"])
    async def test_what_happens_while_a_server_is_away_arrives_when_it_is_back(
        self, alice: Client, bob: Client, pair: Pair, restarted: bool
    ) -> None:
        await shared_room(alice, bob, pair)
        first = await upload(alice)
        await finds(bob, alice.user_id, first)
        async with stopped(pair.guest):
            second = await upload(alice)
            await send_to_device(alice, bob.user_id, bob.device_id, {"while": "away"})
            if restarted:
                async with stopped(pair.host):
                    pass
        # Whatever is said wakes a server up to who is there again.
        await alice.say(await public_room(alice), "hello")
        await bob.request("PUT", f"/profile/{quote(bob.user_id)}/displayname", {"displayname": "B"})
        await finds(bob, alice.user_id, second)
        await is_sent(bob, alice, {"while": "away"})
        assert await devices_of(bob, alice.user_id) == {alice.device_id: second.keys()}


async def _until_master_key(client: Client, identity: Identity) -> None:
    await is_told(client, identity.user_id)
    deadline = time.monotonic() + 20
    while identity.public_key("master") not in str((await query(client, identity.user_id))["master_keys"]):
        if time.monotonic() > deadline:
            raise NotSeen("the master key")
        await is_told(client, identity.user_id)


async def _until_signed(client: Client, signed: dict[str, Any]) -> None:
    user_id, device_id = signed["user_id"], signed["device_id"]
    deadline = time.monotonic() + 20
    while (await devices_of(client, user_id))[device_id]["signatures"] != signed["signatures"]:
        if time.monotonic() > deadline:
            raise NotSeen("the signature")
        await is_told(client, user_id)


async def _publish(client: Client, user_id: str, key: str, signed: dict[str, Any]) -> None:
    """Upload a signature that is taken."""
    reply = await client.request("POST", "/keys/signatures/upload", {user_id: {key: signed}})
    assert reply.get("failures", {}) == {}
