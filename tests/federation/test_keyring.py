"""Which keys are believed, for how long, and how often a server is asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pytest

from federation.keyring import Keyring
from federation.notaries import BATCH, Wanted
from federation.published_keys import (
    MAX_VALIDITY_MS,
    Answer,
    InvalidServerKeys,
    VerifyKey,
    read_server_keys,
)
from federation.server_keys import OldKey, server_keys_response
from homeserver.clock import FakeClock
from homeserver.errors import RemoteError
from homeserver.protocol.signing import BadSignature, SigningKey, generate_signing_key, sign_json
from tests.federation.conftest import keys_of

PEER = "peer.example"
US = "us.example"
HOUR_MS = 3600 * 1000
OUR_KEY = generate_signing_key("ours")
OUR_OLD_KEY = VerifyKey("ed25519:ours_once", generate_signing_key("x").verify_key_base64, 5000, expired=True)


class MemoryStore:
    """A ``KeyStore`` that counts."""

    def __init__(self) -> None:
        self.keys: dict[tuple[str, str], VerifyKey] = {}
        self.answers: list[Answer] = []
        self.loads = 0

    async def load(self, server_names: Collection[str]) -> dict[str, list[VerifyKey]]:
        self.loads += 1
        await asyncio.sleep(0)
        return {
            name: [key for (server, _), key in self.keys.items() if server == name] for name in server_names
        }

    async def store(self, server_name: str, keys: Collection[VerifyKey], answer: Answer | None) -> None:
        self.keys.update({(server_name, key.key_id): key for key in keys})
        self.answers += [answer] if answer else []


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
            server_name=US,
            own_keys=[OUR_KEY],
            old_keys=[OUR_OLD_KEY],
            store=self.store,
            fetch=self.fetch,
            query=self.query,
            clock=self.clock,
        )

    def publish(self, *keys: SigningKey, old: Sequence[OldKey] = (), lifetime_ms: int = 24 * HOUR_MS) -> None:
        self.published = server_keys_response(PEER, keys, old, self.clock.now_ms(), lifetime_ms)

    async def fetch(self, server_name: str) -> Mapping[str, Any]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.published is None or server_name != PEER:
            raise RemoteError(server_name, "down", reachable=False, transient=True)
        return self.published

    async def query(self, notary: str, wanted: Wanted) -> list[Mapping[str, Any]]:
        raise AssertionError("there is no notary to ask")

    async def find(self, *key_ids: str, until: int = 0) -> set[str]:
        return set(await keys_of(self.keyring, PEER, key_ids, until))

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
    keys = await keys_of(world.keyring, PEER, ["ed25519:a"], 0)
    valid_until = world.clock.now_ms() + 24 * HOUR_MS
    assert keys == {"ed25519:a": VerifyKey("ed25519:a", world.key.verify_key_base64, valid_until)}


async def test_stored_keys_survive_a_restart(world: World) -> None:
    await world.find("ed25519:a")
    world.keyring = world.restarted()
    assert await world.find("ed25519:a") == {"ed25519:a"}
    assert world.asked == 1


async def test_own_keys_are_known_without_asking(world: World) -> None:
    await world.keyring.verify_json(US, sign_json({}, US, OUR_KEY))
    assert await keys_of(world.keyring, US, ["ed25519:other"], 0) == {}
    assert await keys_of(world.keyring, US, [OUR_OLD_KEY.key_id], 5000) == {OUR_OLD_KEY.key_id: OUR_OLD_KEY}
    assert await keys_of(world.keyring, US, [OUR_OLD_KEY.key_id], 5001) == {}
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


async def test_a_server_that_stays_away_is_asked_after_ever_longer_pauses(world: World) -> None:
    world.published = None
    seconds_when_asked = []
    for second in range(200):
        before = world.asked
        await world.find("ed25519:a")
        if world.asked > before:
            seconds_when_asked.append(second)
        world.clock.advance(1)

    assert seconds_when_asked == [0, 2, 6, 14, 30, 62, 122, 182]


async def test_made_up_key_ids_do_not_make_us_ask_again_and_again(world: World) -> None:
    for number in range(10):
        assert await world.find(f"ed25519:x{number}") == set()
    assert world.asked == 2
    world.clock.advance(61)
    assert await world.find("ed25519:x0") == set()
    assert world.asked == 3


async def test_a_key_that_was_made_just_now_is_looked_for_once_at_once(world: World) -> None:
    await world.find("ed25519:a")
    fresh = generate_signing_key("b")
    world.publish(fresh)
    await world.keyring.verify_json(PEER, world.signed(fresh))
    assert world.asked == 2


async def test_a_key_that_is_not_there_is_not_looked_for_twice(world: World) -> None:
    for _ in range(3):
        assert await world.find("ed25519:b") == set()
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
    assert await world.find("ed25519:a", until=0) == {"ed25519:a"}


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


async def test_a_known_key_is_never_replaced_by_another_of_its_id(world: World) -> None:
    await world.find("ed25519:a")
    impostor, fresh = SigningKey("ed25519:a", bytes(32)), generate_signing_key("b")
    world.clock.advance(61)
    world.publish(impostor)
    assert await world.find("ed25519:b") == set()
    world.clock.advance(61)
    world.publish(impostor, fresh)

    assert await world.find("ed25519:b") == {"ed25519:b"}

    assert world.store.keys[PEER, "ed25519:a"].key_base64 == world.key.verify_key_base64
    assert [answer.key_ids for answer in world.store.answers] == [("ed25519:a",)]
    with pytest.raises(BadSignature):
        await world.keyring.verify_json(PEER, world.signed(impostor))


async def test_a_key_may_be_taken_into_use_again(world: World) -> None:
    fresh = generate_signing_key("b")
    world.publish(fresh, old=[OldKey("ed25519:a", world.key.verify_key_base64, world.clock.now_ms() - 1)])
    await world.keyring.verify_json(PEER, world.signed(fresh))
    world.clock.advance(61)
    world.publish(world.key)
    await world.keyring.verify_json(PEER, world.signed())


NOTARY_KEY = generate_signing_key("notary")


class Town(World):
    """Many servers, some of which are gone, and notaries that know them all."""

    def __init__(self, *notaries: str, deadline: float = 60.0) -> None:
        self.notaries = notaries
        self.deadline = deadline
        self.gone: set[str] = set()
        self.silent = asyncio.Event()
        self.silent_servers: set[str] = set()
        self.keys: dict[str, SigningKey] = {}
        self.queries: list[tuple[str, Wanted]] = []
        self.asking = self.most_at_once = 0
        super().__init__()

    def restarted(self) -> Keyring:
        return Keyring(
            server_name=US,
            own_keys=[OUR_KEY],
            store=self.store,
            fetch=self.fetch,
            notaries=self.notaries,
            query=self.query,
            clock=self.clock,
            deadline=self.deadline,
        )

    def server(self, name: str) -> SigningKey:
        return self.keys.setdefault(name, generate_signing_key("a"))

    def answer(self, name: str) -> dict[str, Any]:
        key = NOTARY_KEY if name in self.notaries else self.server(name)
        return server_keys_response(name, [key], [], self.clock.now_ms())

    async def fetch(self, server_name: str) -> Mapping[str, Any]:
        self.asked += 1
        self.asking += 1
        self.most_at_once = max(self.most_at_once, self.asking)
        try:
            await (self.silent.wait() if server_name in self.silent_servers else asyncio.sleep(0))
        finally:
            self.asking -= 1
        if server_name in self.gone:
            raise RemoteError(server_name, "gone", reachable=False, transient=True)
        return self.answer(server_name)

    async def query(self, notary: str, wanted: Wanted) -> list[Mapping[str, Any]]:
        self.queries.append((notary, wanted))
        await asyncio.sleep(0)
        return [sign_json(self.answer(name), notary, NOTARY_KEY) for name in wanted]


async def test_the_keys_of_many_servers_are_asked_for_at_once_and_each_once() -> None:
    town = Town()
    wanted = {f"{number}.example": {"ed25519:a": 0} for number in range(500)}

    one, other = await asyncio.gather(town.keyring.keys_for_all(wanted), town.keyring.keys_for_all(wanted))

    assert one == other
    assert all(one[name]["ed25519:a"].key_base64 == town.keys[name].verify_key_base64 for name in wanted)
    assert town.asked == 500
    assert 100 <= town.most_at_once <= 200
    assert town.store.loads == 1


async def test_a_server_that_never_answers_holds_up_nobody_for_long() -> None:
    town = Town(deadline=1.0)
    town.silent_servers = {"silent.example"}

    found = await town.keyring.keys_for_all(
        {"silent.example": {"ed25519:a": 0}, "quick.example": {"ed25519:a": 0}}
    )

    assert set(found["quick.example"]) == {"ed25519:a"}
    assert found["silent.example"] == {}
    town.silent.set()
    assert await keys_of(town.keyring, "silent.example", ["ed25519:a"], 0)
    assert town.asked == 2
    await town.keyring.close()


async def test_notaries_are_asked_for_what_servers_do_not_give_many_at_a_time() -> None:
    town = Town("notary.example")
    town.gone = {f"{number}.gone.example" for number in range(BATCH + 50)}
    now = town.clock.now_ms()
    wanted = {name: {"ed25519:a": now} for name in (*town.gone, "here.example")}

    found = await town.keyring.keys_for_all(wanted)

    assert {name for name in wanted if "ed25519:a" in found[name]} == set(wanted)
    assert sorted(len(asked) for _, asked in town.queries) == [50, BATCH]
    assert all(keys == {"ed25519:a": now} for _, asked in town.queries for keys in asked.values())
    town.gone.add("notary.example")
    assert await town.keyring.keys_for_all(wanted) == found
    assert len(town.queries) == 2


async def test_the_next_notary_is_asked_when_one_does_not_help() -> None:
    town = Town("first.example", "second.example")
    town.gone = {"gone.example", "first.example"}  # the first one's own key cannot be had

    assert await keys_of(town.keyring, "gone.example", ["ed25519:a"], 0)

    assert [notary for notary, _ in town.queries] == ["first.example", "second.example"]


async def test_a_notary_is_not_asked_again_and_again() -> None:
    town = Town("notary.example")
    town.gone = {"gone.example", "notary.example"}
    for _ in range(3):
        assert await keys_of(town.keyring, "gone.example", ["ed25519:a"], 0) == {}
    assert len(town.queries) == 1
    town.clock.advance(61)
    assert await keys_of(town.keyring, "gone.example", ["ed25519:a"], 0) == {}
    assert len(town.queries) == 2


@pytest.mark.parametrize("lie", ["unsigned", "forged", "of another", "another's key"])
async def test_what_a_notary_makes_up_is_not_believed(lie: str) -> None:
    town = Town("notary.example")
    town.gone = {"gone.example"}
    forger = SigningKey("ed25519:a", bytes(32))
    answers: dict[str, dict[str, Any]] = {
        "unsigned": town.answer("gone.example"),
        "forged": sign_json(
            {**town.answer("gone.example"), "valid_until_ts": 1}, "notary.example", NOTARY_KEY
        ),
        "of another": sign_json(town.answer("else.example"), "notary.example", NOTARY_KEY),
        "another's key": sign_json(
            server_keys_response("gone.example", [forger], [], town.clock.now_ms()), "notary.example", forger
        ),
    }

    async def query(notary: str, wanted: Wanted) -> list[Mapping[str, Any]]:
        return [answers[lie]]

    town.query = query  # type: ignore[method-assign]
    town.keyring = town.restarted()

    assert await keys_of(town.keyring, "gone.example", ["ed25519:a"], 0) == {}
    assert await keys_of(town.keyring, "else.example", ["ed25519:b"], 0) == {}


async def test_an_old_answer_from_a_notary_brings_no_key_back_into_use() -> None:
    town = Town("notary.example")
    key, now = town.server(PEER), town.clock.now_ms()
    ended = OldKey("ed25519:a", key.verify_key_base64, now - HOUR_MS)
    replay = town.answer(PEER)

    async def fetch(server_name: str) -> Mapping[str, Any]:
        if server_name == PEER:
            return server_keys_response(PEER, [generate_signing_key("b")], [ended], now)
        return town.answer(server_name)

    town.fetch = fetch  # type: ignore[method-assign]
    town.answer = lambda name: replay if name == PEER else Town.answer(town, name)  # type: ignore[method-assign]
    town.keyring = town.restarted()

    assert await keys_of(town.keyring, PEER, ["ed25519:a"], now) == {}
    assert town.queries
    assert town.store.keys[PEER, "ed25519:a"].valid_until_ms == ended.expired_ts
