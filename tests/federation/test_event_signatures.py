"""Signatures of events, few and many, and the keys they need."""

from __future__ import annotations

from typing import Any

import pytest

from federation.event_signatures import FEW, KeyringVerifier
from federation.keyring import Keyring
from federation.published_keys import VerifyKey
from federation.server_keys import OldKey, server_keys_response
from homeserver.clock import FakeClock
from homeserver.errors import RemoteError
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

    def verifier(self) -> KeyringVerifier:
        own = generate_signing_key("a_own")
        keyring = Keyring(
            server_name="here.example",
            own_keys=[own],
            store=NoStore(),
            fetch=self.fetch,
            query=self.query,
            clock=self.clock,
        )
        return KeyringVerifier(keyring)


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


@pytest.fixture
def peers() -> Peers:
    return Peers()


async def test_each_event_has_its_own_verdict(peers: Peers) -> None:
    key, now = peers.server("a.example"), peers.clock.now_ms()
    good = event("a.example", key, at=now)
    unsigned = {name: value for name, value in good.items() if name != "signatures"}
    forged = {**good, "depth": 2}
    unreachable = event("gone.example", generate_signing_key("a_1"), at=now)

    verdicts = await peers.verifier().verify([good, unsigned, forged, unreachable], V11)

    assert verdicts[0] is None
    assert verdicts[1] == "a.example has not signed the event"
    assert "wrong" in (verdicts[2] or "")
    assert verdicts[3] == "gone.example signed with no key that is known and valid"


async def test_a_server_is_asked_once_for_all_its_events(peers: Peers) -> None:
    keys = {name: peers.server(name) for name in ("a.example", "b.example")}
    now = peers.clock.now_ms()
    events = [event(name, keys[name], at=now - number) for number in range(5) for name in keys]

    assert await peers.verifier().verify(events, V11) == [None] * 10

    assert sorted(peers.asked) == ["a.example", "b.example"]


async def test_a_key_covers_what_was_signed_while_it_was_valid(peers: Peers) -> None:
    old, now = generate_signing_key("a_0"), peers.clock.now_ms()
    ended = now - DAY_MS
    peers.server("a.example", OldKey(old.key_id, old.verify_key_base64, ended))
    before = event("a.example", old, at=ended - 1)
    after = event("a.example", old, at=ended + 1)

    assert [verdict is None for verdict in await peers.verifier().verify([before, after], V11)] == [
        True,
        False,
    ]


async def test_until_version_4_a_key_covers_everything(peers: Peers) -> None:
    old, now = generate_signing_key("a_0"), peers.clock.now_ms()
    peers.server("a.example", OldKey(old.key_id, old.verify_key_base64, now - DAY_MS))

    assert await peers.verifier().verify([event("a.example", old, at=now, rules=V4)], V4) == [None]


async def test_many_events_are_verified_by_another_process(peers: Peers) -> None:
    key, now = peers.server("a.example"), peers.clock.now_ms()
    events = [event("a.example", key, at=now, body=str(number)) for number in range(FEW + 10)]
    events[7] = {**events[7], "depth": 2}
    verifier = peers.verifier()

    try:
        verdicts = await verifier.verify(events, V11)
    finally:
        await verifier.close()

    assert [index for index, verdict in enumerate(verdicts) if verdict is not None] == [7]


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

    verdicts = await peers.verifier().verify([good, also_forged, unknown], V11)

    assert [verdict is None for verdict in verdicts] == [True, False, True]


async def test_a_policy_servers_signature_is_not_its_servers(peers: Peers) -> None:
    key, now = peers.server("a.example"), peers.clock.now_ms()
    also_recommended = event("a.example", key, at=now)
    also_recommended["signatures"]["a.example"]["ed25519:policy_server"] = "AAAA"
    only_recommended = event("a.example", SigningKey("ed25519:policy_server", bytes(32)), at=now)

    verdicts = await peers.verifier().verify([also_recommended, only_recommended], V11)

    assert verdicts == [None, "a.example has not signed the event"]
    assert peers.asked == ["a.example"]
