"""Devices and keys between servers: lists that are kept, updated, fetched anew and forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from homeserver.e2e.uploads import new_keys
from homeserver.errors import RemoteError
from homeserver.storage import remote_devices, users
from homeserver.storage.database import Transaction
from homeserver.users.sessions import Sessions
from tests.federation.conftest import StartServer
from tests.identities import Device, Identity
from tests.remote import Network, Server

CURVE = "signed_curve25519"
BACKGROUND = {
    "shared device lists",
    "device list of who joined",
    "device list updates",
    "fetching device lists",
}


async def nothing(_: Transaction) -> None:
    return


async def settle_servers(network: Network) -> None:
    """Wait until what is written is sent."""
    for server in network.servers.values():
        await server.encryption.lists.idle()
        await server.db.write(nothing)
    await network.settle()


async def settle(network: Network) -> None:
    """Wait until no server has anything more to say or to do about devices."""
    while True:
        await settle_servers(network)
        busy = [task for task in asyncio.all_tasks() if task.get_name() in BACKGROUND]
        if not busy:
            return
        await asyncio.wait(busy)


class Overheard:
    """Passes EDUs on, or not, as the test says of destination, type and content."""

    def __init__(self, edus: Any, passes: Callable[[str, str, dict[str, Any]], bool]) -> None:
        self._edus = edus
        self._passes = passes

    def send_edu(self, destination: str, edu_type: str, content: dict[str, Any], durable: bool) -> None:
        assert durable
        if self._passes(destination, edu_type, content):
            self._edus.send_edu(destination, edu_type, content, durable)

    def durable(self, edus: Iterable[tuple[str, str, dict[str, Any]]]) -> Any:
        return self._edus.durable([edu for edu in edus if self._passes(*edu)])


def overhear(server: Server, passes: Callable[[str, str, dict[str, Any]], bool]) -> Any:
    """Listen to what a server tells of its devices; what it told them by before."""
    lists: Any = server.encryption.lists
    before = lists._edus
    lists._edus = Overheard(before, passes)
    return before


class Person:
    """A user of a server with devices that encrypt."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.user_id = server.user(name)
        self.identity = Identity(self.user_id)
        self.devices: dict[str, Device] = {}

    @property
    def encryption(self) -> Any:
        return self.server.encryption

    @property
    def sessions(self) -> Sessions:
        return Sessions(self.server.db, self.server.network.clock, observers=(self.encryption.lists,))

    @classmethod
    async def arrives(cls, server: Server, name: str) -> Person:
        person = cls(server, name)

        async def add(tx: Transaction) -> None:
            await users.add(tx, person.user_id, password_hash=None, is_admin=False, created_at=0)

        await server.db.write(add)
        return person

    async def log_in(self, device_id: str, *keys: int) -> Device:
        """A new device that uploads its keys, and as many one-time keys as have numbers."""
        await self.sessions.log_in(self.user_id, device_id=device_id, display_name=f"{device_id} of mine")
        device = self.devices[device_id] = Device(self.user_id, device_id)
        uploaded = new_keys(
            self.user_id,
            device_id,
            device_keys=device.keys(),
            one_time_keys=device.one_time_keys(*keys),
            fallback_keys={},
        )
        await self.encryption.uploads.upload(uploaded)
        return device

    async def log_out(self, device_id: str) -> None:
        await self.sessions.log_out(self.user_id, [device_id])

    async def cross_sign(self) -> None:
        contents = {usage: self.identity.key(usage) for usage in self.identity.keys}
        new = await self.encryption.cross_signing.check_keys(self.user_id, contents)
        await self.encryption.cross_signing.store_keys(self.user_id, new)

    async def query(self, *user_ids: str, timeout: float = 5) -> Any:
        wanted: dict[str, list[str]] = {user_id: [] for user_id in user_ids}
        return await self.encryption.queries.query(self.user_id, wanted, timeout)

    async def devices_of(self, other: Person) -> set[str]:
        """The devices of somebody, as a client is told of them."""
        found = await self.query(other.user_id)
        assert found["failures"] == {}
        return set(found["device_keys"][other.user_id])

    async def changed(self, since: int) -> set[str]:
        found: set[str] = await self.encryption.changes.since(self.user_id, since)
        return found


@pytest.fixture
async def alice(here: Server) -> Person:
    return await Person.arrives(here, "alice")


@pytest.fixture
async def bob(there: Server) -> Person:
    return await Person.arrives(there, "bob")


@pytest.fixture
async def room(alice: Person, bob: Person) -> str:
    """A room that both are in, and everybody knows."""
    await bob.log_in("PHONE")
    room_id = await alice.server.public_room(alice.user_id)
    await bob.server.join(bob.user_id, room_id, alice.server)
    await settle(alice.server.network)
    return room_id


def fetches(network: Network) -> int:
    return network.asked_for("/user/devices/")


async def test_a_list_is_fetched_once_and_then_kept_up_to_date(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    assert await alice.devices_of(bob) == {"PHONE"}
    assert fetches(network) == 1
    since = alice.server.notifier.position
    await bob.log_in("TABLET")
    await settle(network)
    assert await alice.changed(since) == {bob.user_id}
    assert await alice.devices_of(bob) == {"PHONE", "TABLET"}
    since = alice.server.notifier.position
    await bob.log_out("PHONE")
    await settle(network)
    assert await alice.changed(since) == {bob.user_id}
    assert await alice.devices_of(bob) == {"TABLET"}
    found = await alice.query(bob.user_id)
    assert found["device_keys"][bob.user_id]["TABLET"] == {**bob.devices["TABLET"].keys(), "unsigned": {}}
    assert fetches(network) == 1
    assert network.asked_for("/user/keys/query") == 0


async def test_names_of_devices_stay_at_home(network: Network, alice: Person, bob: Person, room: str) -> None:
    await alice.devices_of(bob)
    since = alice.server.notifier.position
    await bob.sessions.rename_device(bob.user_id, "PHONE", "Secret name")
    await settle(network)
    assert await alice.changed(since) == set()
    assert "ecret" not in str(await alice.query(bob.user_id))
    assert "of mine" not in str(await alice.query(bob.user_id))
    own = await bob.query(bob.user_id)
    assert own["device_keys"][bob.user_id]["PHONE"]["unsigned"] == {"device_display_name": "Secret name"}


async def test_cross_signing_keys_and_signatures_reach_the_other_server(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    await alice.devices_of(bob)
    since = alice.server.notifier.position
    await bob.cross_sign()
    await settle(network)
    assert await alice.changed(since) == {bob.user_id}
    keys = bob.devices["PHONE"].keys()
    signed = bob.identity.sign(keys, "self_signing")
    failures = await bob.encryption.cross_signing.add_signatures(
        bob.user_id, {bob.user_id: {"PHONE": signed}}
    )
    assert failures == {}
    await settle(network)
    found = await alice.query(bob.user_id)
    assert found["device_keys"][bob.user_id]["PHONE"]["signatures"] == signed["signatures"]
    assert found["master_keys"][bob.user_id] == bob.identity.key("master")
    assert found["self_signing_keys"][bob.user_id] == bob.identity.key("self_signing")
    assert found["user_signing_keys"] == {}
    assert fetches(network) == 1


async def test_verifying_somebody_elsewhere_is_seen_by_oneself_alone(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    await alice.cross_sign()
    await bob.cross_sign()
    await settle(network)
    signed = alice.identity.sign(bob.identity.key("master"), "user_signing")
    body = {bob.user_id: {bob.identity.public_key("master"): signed}}
    assert await alice.encryption.cross_signing.add_signatures(alice.user_id, body) == {}
    assert (await alice.query(bob.user_id))["master_keys"][bob.user_id] == signed
    await settle(network)
    assert (await bob.query(bob.user_id))["master_keys"][bob.user_id] == bob.identity.key("master")


async def test_a_missing_update_makes_the_list_be_fetched_anew(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    await alice.devices_of(bob)
    since = alice.server.notifier.position
    send = overhear(bob.server, lambda *_: False)
    await bob.log_in("TABLET")
    await settle(network)
    assert await alice.devices_of(bob) == {"PHONE"}
    bob.encryption.lists._edus = send
    await bob.log_in("WATCH")
    await settle(network)
    assert await alice.changed(since) == {bob.user_id}
    assert await alice.devices_of(bob) == {"PHONE", "TABLET", "WATCH"}
    fetched = fetches(network)
    assert fetched >= 2
    await bob.log_out("TABLET")
    await settle(network)
    assert await alice.devices_of(bob) == {"PHONE", "WATCH"}
    assert fetches(network) == fetched


async def test_what_changes_while_a_list_is_fetched_is_not_lost(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    fetch = alice.server.client.user_devices
    first = True

    async def fetch_slowly(*args: Any, **options: Any) -> Any:
        nonlocal first
        reply = await fetch(*args, **options)
        if first:
            first = False
            await bob.log_in("TABLET")
            await settle_servers(network)
        return reply

    alice.server.client.user_devices = fetch_slowly  # type: ignore[method-assign]
    await alice.query(bob.user_id)
    await settle(network)
    assert await alice.devices_of(bob) == {"PHONE", "TABLET"}
    await bob.log_out("PHONE")
    await settle(network)
    assert await alice.devices_of(bob) == {"TABLET"}


async def test_a_stale_list_is_fetched_when_its_server_is_back(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    await alice.devices_of(bob)
    network.down.add(bob.server.name)
    gap = {"user_id": bob.user_id, "device_id": "X", "stream_id": 9, "prev_id": [8]}
    await alice.encryption.remote_lists.receive_update(bob.server.name, gap)
    await settle(network)
    found = await alice.query(bob.user_id)
    assert bob.user_id not in found["device_keys"]
    assert set(found["failures"]) == {bob.server.name}
    network.down.clear()
    alice.encryption.remote_lists.fetching.tick()
    await settle(network)
    assert fetches(network) == 1  # it is left alone for a while
    network.clock.advance(60)
    alice.encryption.remote_lists.fetching.tick()
    await settle(network)
    assert fetches(network) == 2
    assert await alice.devices_of(bob) == {"PHONE"}


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": "@alice:here.example"},
        {"user_id": "@stranger:there.example"},
        {"user_id": "nobody"},
        {"stream_id": "7"},
        {"device_id": None},
        {"prev_id": ["x"]},
        {"keys": {"user_id": "@bob:there.example", "device_id": "OTHER"}},
    ],
)
async def test_updates_that_make_no_sense_are_passed_over(
    network: Network, alice: Person, bob: Person, room: str, change: dict[str, Any]
) -> None:
    await alice.devices_of(bob)
    await settle(network)
    since = alice.server.notifier.position
    device = Device(bob.user_id, "NEW")
    update = {"user_id": bob.user_id, "device_id": "NEW", "stream_id": 99, "keys": device.keys(), **change}
    await alice.encryption.remote_lists.receive_update(bob.server.name, update)
    await settle(network)
    assert await alice.changed(since) == set()
    assert await alice.devices_of(bob) == {"PHONE"}
    await alice.encryption.remote_lists.receive_update("evil.example", {**update, **change})
    assert await alice.devices_of(bob) == {"PHONE"}


async def test_signing_keys_are_taken_from_their_own_server_only(
    alice: Person, bob: Person, room: str
) -> None:
    await alice.devices_of(bob)
    forged = {"user_id": bob.user_id, "master_key": Identity(bob.user_id).key("master")}
    await alice.encryption.remote_lists.receive_signing_keys("evil.example", forged)
    assert (await alice.query(bob.user_id))["master_keys"] == {}
    broken = {"user_id": bob.user_id, "master_key": {"keys": 7}}
    await alice.encryption.remote_lists.receive_signing_keys(bob.server.name, broken)
    assert (await alice.query(bob.user_id))["master_keys"] == {}


async def test_with_the_last_shared_room_the_list_is_forgotten(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    await alice.devices_of(bob)
    await bob.server.membership.leave(bob.user_id, room)
    await settle(network)
    await bob.log_in("TABLET")
    await settle(network)
    assert network.servers["here.example"].edus == []
    assert await alice.devices_of(bob) == {"PHONE", "TABLET"}
    assert fetches(network) == 1  # what is not kept is asked for each time
    assert network.asked_for("/user/keys/query") == 1
    await bob.server.join(bob.user_id, room, alice.server)
    await settle(network)
    await bob.log_out("PHONE")
    await settle(network)
    assert await alice.devices_of(bob) == {"TABLET"}


async def test_who_leaves_the_room_forgets_those_who_stay(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    await bob.devices_of(alice)
    await bob.server.membership.leave(bob.user_id, room)
    await settle(network)
    assert await remote_devices.lists(bob.server.db.read, [alice.user_id]) == {}


async def test_a_list_that_outlived_its_rooms_is_forgotten_at_the_next_start(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    await alice.devices_of(bob)
    kept = remote_devices.RemoteList("@carol:there.example", 3, stale=False)
    await alice.server.db.write(lambda tx: remote_devices.put_list(tx, kept))
    await alice.server.restarted()
    lists = await remote_devices.lists(alice.server.db.read, [bob.user_id, "@carol:there.example"])
    assert set(lists) == {bob.user_id}


async def test_servers_that_share_no_room_are_not_told(
    network: Network, start: StartServer, alice: Person, bob: Person, room: str
) -> None:
    third = await start("third.example")
    carol = await Person.arrives(third, "carol")
    other = await third.public_room(carol.user_id)
    await bob.server.join(bob.user_id, other, third)
    await settle(network)
    before = sum(each[:2] == ("here.example", "third.example") for each in network.asked)
    await alice.log_in("PHONE")
    await settle(network)
    assert sum(each[:2] == ("here.example", "third.example") for each in network.asked) == before


async def test_joining_tells_the_servers_that_did_not_know_the_user(
    network: Network, alice: Person, bob: Person
) -> None:
    told: list[dict[str, Any]] = []

    def note(destination: str, edu_type: str, content: dict[str, Any]) -> bool:
        assert (destination, edu_type) == (alice.server.name, "m.device_list_update")
        told.append(content)
        return True

    overhear(bob.server, note)
    await bob.log_in("PHONE")
    first = await alice.server.public_room(alice.user_id)
    second = await alice.server.public_room(alice.user_id)
    await bob.server.join(bob.user_id, first, alice.server)
    await settle(network)
    keys = bob.devices["PHONE"].keys()
    newest = {"user_id": bob.user_id, "device_id": "PHONE", "stream_id": 2, "prev_id": [1], "keys": keys}
    assert told == [newest]
    await bob.server.join(bob.user_id, second, alice.server)
    name = {"membership": "join", "displayname": "B"}
    await bob.server.set_state(first, bob.user_id, "m.room.member", name, bob.user_id)
    await settle(network)
    assert told == [newest]


async def test_updates_survive_a_restart_of_their_sender(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    await alice.devices_of(bob)
    network.down.add(alice.server.name)
    await bob.log_in("TABLET")
    await bob.cross_sign()
    await settle(network)
    network.clock.advance(1)
    await bob.server.restarted()
    network.down.clear()
    network.clock.advance(3600)
    network.servers["there.example"].sender.tick()
    await settle(network)
    assert await alice.devices_of(bob) == {"PHONE", "TABLET"}
    assert (await alice.query(bob.user_id))["master_keys"][bob.user_id] == bob.identity.key("master")
    assert fetches(network) == 1


async def test_a_change_that_was_recorded_and_not_sent_is_sent_after_a_restart(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    await alice.devices_of(bob)
    lists = bob.encryption.lists
    lists._tell_servers = lambda: None  # the process dies at this point
    await bob.log_in("TABLET")
    await settle(network)
    assert await alice.devices_of(bob) == {"PHONE"}
    network.clock.advance(1)
    await bob.server.restarted()
    await settle(network)
    assert await alice.devices_of(bob) == {"PHONE", "TABLET"}


async def test_of_very_many_changes_the_gap_is_filled_by_fetching(
    network: Network, alice: Person, bob: Person, room: str
) -> None:
    await alice.devices_of(bob)
    lists = bob.encryption.lists
    tell, lists._tell_servers = lists._tell_servers, lambda: None
    for number in range(30):
        await bob.sessions.log_in(bob.user_id, device_id=f"D{number}")
    await bob.log_in("LAST")
    lists._tell_servers = tell
    tell()
    await settle(network)
    assert await alice.devices_of(bob) == {"PHONE", "LAST"}
    assert fetches(network) == 2


async def test_two_servers_and_fifty_claims_give_out_each_key_once(
    start: StartServer, alice: Person, bob: Person
) -> None:
    third = await start("third.example")
    carol = await Person.arrives(third, "carol")
    device = await alice.log_in("PHONE", *range(40))
    wanted = {alice.user_id: {"PHONE": CURVE}}
    replies = await asyncio.gather(
        *(person.encryption.claims.claim(wanted, 5) for person in (bob, carol) for _ in range(25))
    )
    given = [reply["one_time_keys"].get(alice.user_id, {}).get("PHONE", {}) for reply in replies]
    named = [name for key in given for name in key]
    assert len(named) == len(set(named)) == 40
    assert {name: key for one in given for name, key in one.items()} == device.one_time_keys(*range(40))


async def test_servers_that_are_away_are_named(network: Network, alice: Person, bob: Person) -> None:
    network.down.add(bob.server.name)
    found = await alice.query(bob.user_id, "@nobody:nowhere.example", alice.user_id)
    assert set(found["failures"]) == {"there.example", "nowhere.example"}
    assert found["device_keys"] == {alice.user_id: {}}
    claimed = await alice.encryption.claims.claim({bob.user_id: {"X": CURVE}}, 5)
    assert set(claimed["failures"]) == {"there.example"}
    assert claimed["one_time_keys"] == {}


async def test_a_slow_server_does_not_hold_up_the_answer(alice: Person, bob: Person, room: str) -> None:
    release = asyncio.Event()
    exchange = bob.server.exchange

    async def slowly(*args: Any) -> tuple[int, bytes]:
        await release.wait()
        return await exchange(*args)

    bob.server.exchange = slowly  # type: ignore[method-assign]
    found = await alice.query(bob.user_id, timeout=0.01)
    assert found["failures"] == {bob.server.name: {"status": 504, "message": "No answer in time"}}
    release.set()
    assert await alice.devices_of(bob) == {"PHONE"}


async def test_a_server_is_not_believed_more_than_it_was_asked(
    alice: Person, bob: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"key": "abc", "signatures": {}}

    async def claimed(*_: Any, **__: Any) -> Any:
        phone = {f"{CURVE}:a": key}
        return {
            "one_time_keys": {
                bob.user_id: {
                    "PHONE": phone,
                    "OTHER": phone,
                    "TABLET": {"x:y": key},
                    "WATCH": {f"{CURVE}:b": 7},
                },
                alice.user_id: {"PHONE": phone},
            }
        }

    async def queried(*_: Any, **__: Any) -> Any:
        keys = Device(bob.user_id, "PHONE").keys()
        return {
            "device_keys": {bob.user_id: {"PHONE": keys, "TABLET": keys, "X": 7}, alice.user_id: {"Y": keys}},
            "master_keys": {bob.user_id: {"keys": []}, alice.user_id: Identity(alice.user_id).key("master")},
            "user_signing_keys": {bob.user_id: bob.identity.key("user_signing")},
        }

    monkeypatch.setattr(alice.server.client, "claim_user_keys", claimed)
    monkeypatch.setattr(alice.server.client, "query_user_keys", queried)
    wanted = {bob.user_id: dict.fromkeys(("PHONE", "TABLET", "WATCH"), CURVE)}
    reply = await alice.encryption.claims.claim(wanted, 5)
    assert reply["one_time_keys"] == {bob.user_id: {"PHONE": {f"{CURVE}:a": key}}}
    found = await alice.query(bob.user_id)
    assert set(found["device_keys"]) == {bob.user_id}
    assert set(found["device_keys"][bob.user_id]) == {"PHONE"}
    assert found["master_keys"] == found["user_signing_keys"] == {}


async def test_what_other_servers_are_told_of_devices(alice: Person, bob: Person) -> None:
    await alice.log_in("PHONE")
    await alice.sessions.log_in(alice.user_id, device_id="PLAIN")
    await alice.cross_sign()
    client = bob.server.client
    reply = await client.user_devices(alice.server.name, alice.user_id)
    assert reply == {
        "user_id": alice.user_id,
        "stream_id": 3,
        "devices": [{"device_id": "PHONE", "keys": alice.devices["PHONE"].keys()}],
        "master_key": alice.identity.key("master"),
        "self_signing_key": alice.identity.key("self_signing"),
    }
    with pytest.raises(RemoteError) as refused:
        await client.user_devices(alice.server.name, bob.user_id)
    assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM")
    asked = await client.query_user_keys(alice.server.name, {alice.user_id: [], bob.user_id: []})
    assert asked == {
        "device_keys": {alice.user_id: {"PHONE": {**alice.devices["PHONE"].keys(), "unsigned": {}}}},
        "master_keys": {alice.user_id: alice.identity.key("master")},
        "self_signing_keys": {alice.user_id: alice.identity.key("self_signing")},
    }
