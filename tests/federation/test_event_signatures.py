"""Signatures of events, few and many, and the keys they need."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from federation.event_signatures import FEW, KeyringVerifier
from federation.keyring import Keyring
from federation.published_keys import VerifyKey
from federation.server_keys import OldKey, server_keys_response
from federation.signature_worker import Batch
from federation.signature_workers import SignatureWorkers
from homeserver.clock import FakeClock
from homeserver.errors import RemoteError
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import V4, V11, RoomVersion
from homeserver.protocol.signing import SigningKey, generate_signing_key, sign_event

DAY_MS = 24 * 3600 * 1000


class NoStore:
    """Keeps nothing."""

    async def load(self, server_names: Any) -> dict[str, list[VerifyKey]]:
        return {}

    async def store(self, server_name: str, keys: Any, answer: Any) -> None:
        return


class Peers:
    """Servers and the keys they publish."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.keys: dict[str, tuple[SigningKey, list[OldKey]]] = {}
        self.asked: list[str] = []

    def server(self, name: str, *old_keys: OldKey) -> SigningKey:
        key = generate_signing_key("a_1")
        self.keys[name] = (key, list(old_keys))
        return key

    async def fetch(self, name: str) -> dict[str, Any]:
        self.asked.append(name)
        if name not in self.keys:
            raise RemoteError(name, "gone", reachable=False, transient=True)
        key, old_keys = self.keys[name]
        return server_keys_response(name, [key], old_keys, self.clock.now_ms())

    async def query(self, notary: str, wanted: Any) -> list[dict[str, Any]]:
        raise AssertionError("there is no notary to ask")

    def verifier(self, processes: int = 0) -> KeyringVerifier:
        own = generate_signing_key("a_own")
        keyring = Keyring(
            server_name="here.example",
            own_keys=[own],
            store=NoStore(),
            fetch=self.fetch,
            query=self.query,
            clock=self.clock,
        )
        return KeyringVerifier(keyring, processes=processes)


def event(
    name: str, key: SigningKey, *, at: int, rules: RoomVersion = V11, body: str = "x"
) -> dict[str, Any]:
    pdu = {
        "type": "m.room.message",
        "room_id": "!room:here.example",
        "sender": f"@user:{name}",
        "content": {"body": body},
        "origin_server_ts": at,
        "depth": 1,
        "prev_events": [],
        "auth_events": [],
    }
    return sign_event(pdu, rules, name, key)


def are_good(verdicts: Sequence[Event | str]) -> list[bool]:
    return [isinstance(verdict, Event) for verdict in verdicts]


@pytest.fixture
def peers() -> Peers:
    return Peers()


async def test_each_event_has_its_own_verdict(peers: Peers) -> None:
    key, now = peers.server("a.example"), peers.clock.now_ms()
    good = event("a.example", key, at=now)
    unsigned = {name: value for name, value in good.items() if name != "signatures"}
    forged = {**good, "depth": 2}
    unreachable = event("gone.example", generate_signing_key("a_1"), at=now)

    verdicts = await peers.verifier().verified([good, unsigned, forged, unreachable], V11)

    assert isinstance(verdicts[0], Event)
    assert verdicts[1] == "a.example has not signed the event"
    assert "wrong" in str(verdicts[2])
    assert verdicts[3] == "gone.example signed with no key that is known and valid"


async def test_a_server_is_asked_once_for_all_its_events(peers: Peers) -> None:
    keys = {name: peers.server(name) for name in ("a.example", "b.example")}
    now = peers.clock.now_ms()
    events = [event(name, keys[name], at=now - number) for number in range(5) for name in keys]

    assert are_good(await peers.verifier().verified(events, V11)) == [True] * 10

    assert sorted(peers.asked) == ["a.example", "b.example"]


async def test_a_key_covers_what_was_signed_while_it_was_valid(peers: Peers) -> None:
    old, now = generate_signing_key("a_0"), peers.clock.now_ms()
    ended = now - DAY_MS
    peers.server("a.example", OldKey(old.key_id, old.verify_key_base64, ended))
    before = event("a.example", old, at=ended - 1)
    after = event("a.example", old, at=ended + 1)

    assert are_good(await peers.verifier().verified([before, after], V11)) == [True, False]


async def test_until_version_4_a_key_covers_everything(peers: Peers) -> None:
    old, now = generate_signing_key("a_0"), peers.clock.now_ms()
    peers.server("a.example", OldKey(old.key_id, old.verify_key_base64, now - DAY_MS))

    assert are_good(await peers.verifier().verified([event("a.example", old, at=now, rules=V4)], V4)) == [
        True
    ]


async def test_many_events_are_verified_by_another_process(peers: Peers) -> None:
    key, now = peers.server("a.example"), peers.clock.now_ms()
    events = [event("a.example", key, at=now, body=str(number)) for number in range(FEW + 10)]
    events[7] = {**events[7], "depth": 2}
    verifier = peers.verifier(processes=1)

    try:
        verdicts = await verifier.verified(events, V11)
    finally:
        await verifier.close()

    assert [index for index, is_good in enumerate(are_good(verdicts)) if not is_good] == [7]


async def test_an_event_whose_hash_is_wrong_is_redacted_here_and_there(peers: Peers) -> None:
    key, now = peers.server("a.example"), peers.clock.now_ms()
    events = [event("a.example", key, at=now, body=str(number)) for number in range(FEW + 1)]
    events[3] = {**events[3], "content": {"body": "changed on its way"}}
    verifier = peers.verifier(processes=1)

    try:
        many = await verifier.verified(events, V11)
    finally:
        await verifier.close()
    few = await verifier.verified(events[:4], V11)

    assert are_good(many) == [True] * (FEW + 1)
    assert [each.json for each in many[:4]] == [each.json for each in few]
    assert [each.content for each in few] == [{"body": "0"}, {"body": "1"}, {"body": "2"}, {}]


async def test_a_process_that_is_lost_costs_no_verdict_and_is_replaced(peers: Peers) -> None:
    key, now = peers.server("a.example"), peers.clock.now_ms()
    events = [event("a.example", key, at=now, body=str(number)) for number in range(FEW + 1)]
    verifier = peers.verifier(processes=1)
    workers = verifier.workers
    assert workers is not None

    try:
        await verifier.verified(events, V11)
        (lost,) = workers._idle
        lost._process.kill()
        await lost._process.wait()
        without = await verifier.verified(events, V11)
        running = workers.running
        after = await verifier.verified(events, V11)
    finally:
        await verifier.close()

    assert are_good(without) == are_good(after) == [True] * (FEW + 1)
    assert (running, workers.running) == (0, 0)


async def test_processes_end_when_there_is_nothing_to_verify(peers: Peers) -> None:
    workers = SignatureWorkers(2, idle_seconds=0.0)
    await workers.verdicts(Batch("11", []))
    (worker,) = workers._idle

    async with asyncio.timeout(10):
        status = await worker._process.wait()

    assert (status, workers.running) == (0, 0)


async def test_every_signature_with_a_known_key_must_be_good(peers: Peers) -> None:
    key, now = peers.server("a.example"), peers.clock.now_ms()
    second = generate_signing_key("a_2")
    peers.keys["a.example"] = (key, [OldKey(second.key_id, second.verify_key_base64, now - 1000)])
    good = event("a.example", key, at=now - DAY_MS)
    also_forged = event("a.example", key, at=now - DAY_MS)
    also_forged["signatures"]["a.example"] |= {
        second.key_id: good["signatures"]["a.example"][key.key_id],
    }
    unknown = event("a.example", key, at=now - DAY_MS)
    unknown["signatures"]["a.example"]["ed25519:unknown"] = "AAAA"

    verdicts = await peers.verifier().verified([good, also_forged, unknown], V11)

    assert are_good(verdicts) == [True, False, True]


async def test_a_policy_servers_signature_is_not_its_servers(peers: Peers) -> None:
    key, now = peers.server("a.example"), peers.clock.now_ms()
    also_recommended = event("a.example", key, at=now)
    also_recommended["signatures"]["a.example"]["ed25519:policy_server"] = "AAAA"
    only_recommended = event("a.example", SigningKey("ed25519:policy_server", bytes(32)), at=now)

    verdicts = await peers.verifier().verified([also_recommended, only_recommended], V11)

    assert are_good(verdicts) == [True, False]
    assert verdicts[1] == "a.example has not signed the event"
    assert peers.asked == ["a.example"]
