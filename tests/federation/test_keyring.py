"""Which keys are believed, for how long, and how often a server is asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from federation.keyring import (
    MAX_VALIDITY_MS,
    InvalidServerKeys,
    Keyring,
    StoredKey,
    VerifyKey,
    read_server_keys,
)
from federation.server_keys import OldKey, server_keys_response
from homeserver.clock import FakeClock
from homeserver.errors import RemoteError
from homeserver.protocol.signing import BadSignature, SigningKey, generate_signing_key, sign_json

PEER = "peer.example"
US = "us.example"
HOUR_MS = 3600 * 1000
OUR_KEY = generate_signing_key("ours")


class MemoryStore:
    """A ``KeyStore`` that counts."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], StoredKey] = {}
        self.loads = 0

    async def load(self, server_name: str) -> list[StoredKey]:
        self.loads += 1
        await asyncio.sleep(0)
        return [key for key in self.keys.values() if key.server_name == server_name]

    async def store(self, keys: Sequence[StoredKey]) -> None:
        self.keys.update({(key.server_name, key.key_id): key for key in keys})


class World:
    """A peer with a key, and our keyring."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        self.key = generate_signing_key("a")
        self.published: Mapping[str, Any] | None = None
        self.asked = 0
        self.publish(self.key)
        self.keyring = self.restarted()

    def restarted(self) -> Keyring:
        return Keyring(
            server_name=US, own_keys=[OUR_KEY], store=self.store, fetch=self.fetch, clock=self.clock
        )

    def publish(self, *keys: SigningKey, old: Sequence[OldKey] = (), lifetime_ms: int = 24 * HOUR_MS) -> None:
        self.published = server_keys_response(PEER, keys, old, self.clock.now_ms(), lifetime_ms)

    async def fetch(self, server_name: str) -> Mapping[str, Any]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.published is None or server_name != PEER:
            raise RemoteError(server_name, "down", reachable=False, transient=True)
        return self.published

    async def find(self, *key_ids: str, until: int = 0) -> set[str]:
        return set(await self.keyring.keys_for(PEER, key_ids, until))

    def signed(self, key: SigningKey | None = None) -> dict[str, Any]:
        return sign_json({"hello": "world"}, PEER, key or self.key)


@pytest.fixture
def world() -> World:
    return World()


async def test_a_servers_key_is_fetched_once_and_verifies(world: World) -> None:
    await world.keyring.verify_json(PEER, world.signed())
    await world.keyring.verify_json(PEER, world.signed())
    assert world.asked == 1
    assert world.store.loads == 1


async def test_the_key_itself_is_given(world: World) -> None:
    keys = await world.keyring.keys_for(PEER, ["ed25519:a"], 0)
    valid_until = world.clock.now_ms() + 24 * HOUR_MS
    assert keys == {"ed25519:a": VerifyKey("ed25519:a", world.key.verify_key_base64, valid_until)}


async def test_stored_keys_survive_a_restart(world: World) -> None:
    await world.find("ed25519:a")
    world.keyring = world.restarted()
    assert await world.find("ed25519:a") == {"ed25519:a"}
    assert world.asked == 1


async def test_own_keys_are_known_without_asking(world: World) -> None:
    await world.keyring.verify_json(US, sign_json({}, US, OUR_KEY))
    assert await world.keyring.keys_for(US, ["ed25519:other"], 0) == {}
    assert (world.asked, world.store.loads) == (0, 0)


async def test_askers_at_the_same_time_share_one_request(world: World) -> None:
    found = await asyncio.gather(*(world.find("ed25519:a") for _ in range(20)))
    assert found == [{"ed25519:a"}] * 20
    assert (world.asked, world.store.loads) == (1, 1)


async def test_an_asker_who_gives_up_does_not_take_the_answer_from_others(world: World) -> None:
    impatient = asyncio.create_task(world.find("ed25519:a"))
    patient = asyncio.create_task(world.find("ed25519:a"))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == {"ed25519:a"}


async def test_a_server_that_fails_is_left_alone_for_a_while(world: World) -> None:
    published, world.published = world.published, None
    assert await world.find("ed25519:a") == set()
    world.published = published
    assert await world.find("ed25519:a") == set()
    assert world.asked == 1
    world.clock.advance(61)
    assert await world.find("ed25519:a") == {"ed25519:a"}


async def test_made_up_key_ids_do_not_make_us_ask_again_and_again(world: World) -> None:
    for number in range(10):
        assert await world.find(f"ed25519:x{number}") == set()
    assert world.asked == 1


async def test_a_key_past_its_validity_is_asked_for_again(world: World) -> None:
    await world.find("ed25519:a")
    world.clock.advance(25 * 3600)
    assert await world.find("ed25519:a", until=0) == {"ed25519:a"}
    assert world.asked == 1
    world.publish(world.key)
    assert await world.find("ed25519:a", until=world.clock.now_ms()) == {"ed25519:a"}
    assert world.asked == 2


async def test_a_key_past_its_validity_does_not_verify_when_the_server_is_gone(world: World) -> None:
    await world.keyring.verify_json(PEER, world.signed())
    world.published = None
    world.clock.advance(25 * 3600)
    with pytest.raises(BadSignature, match="known and valid"):
        await world.keyring.verify_json(PEER, world.signed())
    await world.keyring.verify_json(PEER, world.signed(), min_valid_until_ms=0)


async def test_a_servers_word_counts_for_seven_days(world: World) -> None:
    world.publish(world.key, lifetime_ms=365 * 24 * HOUR_MS)
    limit = world.clock.now_ms() + MAX_VALIDITY_MS
    assert await world.find("ed25519:a", until=limit) == {"ed25519:a"}
    assert await world.find("ed25519:a", until=limit + 1) == set()


async def test_an_old_key_covers_what_was_signed_before_it_expired(world: World) -> None:
    old = generate_signing_key("old")
    expired = world.clock.now_ms() - HOUR_MS
    world.publish(world.key, old=[OldKey(old.key_id, old.verify_key_base64, expired)])
    assert await world.find("ed25519:old", until=expired) == {"ed25519:old"}
    assert await world.find("ed25519:old", until=expired + 1) == set()
    with pytest.raises(BadSignature):
        await world.keyring.verify_json(PEER, world.signed(old))


async def test_a_key_that_was_retired_is_no_longer_valid_now(world: World) -> None:
    await world.find("ed25519:a")
    fresh = generate_signing_key("b")
    retired = OldKey("ed25519:a", world.key.verify_key_base64, world.clock.now_ms())
    world.clock.advance(61)
    world.publish(fresh, old=[retired])
    await world.keyring.verify_json(PEER, world.signed(fresh))
    with pytest.raises(BadSignature):
        await world.keyring.verify_json(PEER, world.signed())
    assert world.store.keys[PEER, "ed25519:a"].valid_until_ms == retired.expired_ts


async def test_one_good_signature_is_enough(world: World) -> None:
    signed = world.signed()
    signed["signatures"][PEER]["ed25519:unknown"] = "AAAA"
    await world.keyring.verify_json(PEER, signed)


@pytest.mark.parametrize(
    "signatures",
    [None, {}, [], {PEER: []}, {PEER: {}}, {PEER: {"rsa:1": "x"}}, {"other.example": {"ed25519:a": "x"}}],
)
async def test_an_object_without_signature_asks_nobody(world: World, signatures: Any) -> None:
    with pytest.raises(BadSignature, match="not signed"):
        await world.keyring.verify_json(PEER, {"signatures": signatures})
    assert world.asked == 0


async def test_a_wrong_signature_is_refused(world: World) -> None:
    with pytest.raises(BadSignature):
        await world.keyring.verify_json(PEER, {**world.signed(), "hello": "moon"})
    with pytest.raises(BadSignature):
        await world.keyring.verify_json(PEER, world.signed(SigningKey("ed25519:a", bytes(32))))


def resigned(changes: dict[str, Any], key: SigningKey) -> dict[str, Any]:
    response = {**server_keys_response(PEER, [key], [], 0), **changes}
    response.pop("signatures", None)
    return sign_json(response, PEER, key)


@pytest.mark.parametrize(
    "changes",
    [
        {"server_name": "other.example"},
        {"valid_until_ts": "soon"},
        {"valid_until_ts": None},
        {"valid_until_ts": True},
        {"verify_keys": []},
        {"verify_keys": {}},
        {"verify_keys": {"ed25519:a": {"key": "short"}}},
        {"old_verify_keys": []},
        {"verify_keys": {f"ed25519:{n}": {"key": "A" * 43} for n in range(101)}},
    ],
)
def test_answers_that_are_not_believed(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidServerKeys):
        read_server_keys(PEER, resigned(changes, world.key), 0)


def test_an_answer_must_be_signed_by_a_key_in_it(world: World) -> None:
    response = server_keys_response(PEER, [world.key], [], 0)
    with pytest.raises(InvalidServerKeys):
        read_server_keys(PEER, {**response, "signatures": {}}, 0)
    with pytest.raises(InvalidServerKeys):
        read_server_keys(PEER, {**response, "valid_until_ts": 5}, 0)
    stranger = sign_json({**response, "signatures": {}}, PEER, SigningKey("ed25519:a", bytes(32)))
    with pytest.raises(InvalidServerKeys):
        read_server_keys(PEER, stranger, 0)


def test_keys_of_unknown_algorithms_are_left_out(world: World) -> None:
    changes = {
        "verify_keys": {
            "ed25519:a": {"key": world.key.verify_key_base64},
            "pq:1": {"key": "AAAA"},
            "ed25519:": {"key": world.key.verify_key_base64},
            "ed25519:b": {"key": 5},
        },
        "old_verify_keys": {"ed25519:c": {"key": world.key.verify_key_base64}},
    }
    keys = read_server_keys(PEER, resigned(changes, world.key), 0)
    assert [key.key_id for key in keys] == ["ed25519:a"]


async def test_an_answer_that_is_not_believed_leaves_known_keys_as_they_were(world: World) -> None:
    await world.find("ed25519:a")
    world.clock.advance(61)
    world.published = {"server_name": PEER}
    assert await world.find("ed25519:a", "ed25519:b") == {"ed25519:a"}
    assert world.asked == 2


def test_our_own_keys_as_we_publish_them() -> None:
    second = generate_signing_key("second")
    old = OldKey("ed25519:old", OUR_KEY.verify_key_base64, 1000)
    response = server_keys_response(US, [OUR_KEY, second], [old], 5000, HOUR_MS)
    assert response["valid_until_ts"] == 5000 + HOUR_MS
    assert response["old_verify_keys"] == {
        "ed25519:old": {"key": OUR_KEY.verify_key_base64, "expired_ts": 1000}
    }
    assert set(response["signatures"][US]) == {"ed25519:ours", "ed25519:second"}
    keys = read_server_keys(US, response, 5000)
    assert {(key.key_id, key.valid_until_ms) for key in keys} == {
        ("ed25519:ours", 5000 + HOUR_MS),
        ("ed25519:second", 5000 + HOUR_MS),
        ("ed25519:old", 1000),
    }
