"""Servers that vouch for each other's keys, and servers that ask them to."""

from __future__ import annotations

import json
from typing import Any

import pytest

from federation.key_store import DatabaseKeyStore
from federation.notary import chosen, is_stale
from federation.published_keys import Answer, VerifyKey
from federation.server_keys import OldKey, server_keys_response
from homeserver.protocol.signing import generate_signing_key, sign_json, verify_json
from homeserver.storage.database import Database
from tests.federation.conftest import StartServer, keys_of
from tests.remote import Network, Server

HOUR_MS = 3600 * 1000
DAY_MS = 24 * HOUR_MS


async def get(server: Server, uri: str) -> Any:
    status, reply = await server.answer("GET", uri, {}, None)
    assert status == 200
    return reply


async def query(server: Server, server_keys: Any) -> tuple[int, Any]:
    return await server.answer(
        "POST", "/_matrix/key/v2/query", {}, json.dumps({"server_keys": server_keys}).encode()
    )


async def vouched(server: Server, name: str, parameters: str = "") -> list[dict[str, Any]]:
    """What a notary says of one server."""
    return list((await get(server, f"/_matrix/key/v2/query/{name}{parameters}"))["server_keys"])


async def test_the_original_is_given_with_both_signatures(here: Server, there: Server) -> None:
    original = await get(there, "/_matrix/key/v2/server")
    (answer,) = await vouched(here, there.name)

    verify_json(answer, there.name, there.key.key_id, there.key.verify_key_base64)
    verify_json(answer, here.name, here.key.key_id, here.key.verify_key_base64)
    assert {**answer, "signatures": None} == {**original, "signatures": None}


async def test_whatever_a_server_publishes_can_be_vouched_for(
    here: Server, there: Server, network: Network
) -> None:
    odd: Any = {"number": 10**30}
    for _ in range(60):
        odd = {"deep": odd}
    published = server_keys_response(there.name, [there.key], [], network.clock.now_ms())
    published = sign_json({**published, "odd": odd, "signatures": {}}, there.name, there.key)

    async def answers(*_: Any) -> tuple[int, bytes]:
        return 200, json.dumps(published).encode()

    there.exchange = answers  # type: ignore[method-assign]
    (answer,) = await vouched(here, there.name)
    verify_json(answer, there.name, there.key.key_id, there.key.verify_key_base64)


@pytest.mark.parametrize("path", ["server/ed25519:a_test", "query/there.example/ed25519:a_test"])
async def test_older_servers_may_name_a_key_in_the_path(here: Server, there: Server, path: str) -> None:
    reply = await get(here, f"/_matrix/key/v2/{path}")
    published = reply["server_keys"][0] if "server_keys" in reply else reply
    assert "ed25519:a_test" in published["verify_keys"]


async def test_a_restarted_notary_still_vouches_for_a_server_that_is_gone(
    here: Server, there: Server, network: Network
) -> None:
    before = await vouched(here, there.name)
    network.down.add(there.name)
    network.clock.advance(30 * 24 * 3600)
    here = await here.restarted()

    assert await vouched(here, there.name) == before


async def test_a_server_is_asked_again_when_its_answer_does_not_last(
    here: Server, there: Server, network: Network
) -> None:
    await vouched(here, there.name)
    network.clock.advance(3600)
    await vouched(here, there.name)
    assert network.asked_for("/key/v2/server") == 1

    until = network.clock.now_ms() + DAY_MS
    (answer,) = await vouched(here, there.name, f"?minimum_valid_until_ts={until}")
    assert answer["valid_until_ts"] >= until
    assert network.asked_for("/key/v2/server") == 2

    # More than the server promises is not to be had, however often one asks.
    far = until + 365 * DAY_MS
    for _ in range(3):
        status, reply = await query(here, {there.name: {there.key.key_id: {"minimum_valid_until_ts": far}}})
        assert (status, len(reply["server_keys"])) == (200, 1)
    assert network.asked_for("/key/v2/server") == 2


async def test_a_server_that_cannot_be_reached_is_left_out(here: Server) -> None:
    assert await vouched(here, "gone.example") == []
    assert await query(here, {"gone.example": {}, "not a server": {}}) == (200, {"server_keys": []})
    assert await query(here, {}) == (200, {"server_keys": []})


@pytest.mark.parametrize(
    "server_keys",
    [
        None,
        [],
        {"a.example": []},
        {"a.example": {"ed25519:a": {"minimum_valid_until_ts": "soon"}}},
        {"a.example": {"ed25519:a": {"minimum_valid_until_ts": True}}},
        {"a.example": {"ed25519:a": "x"}},
        {"a.example": {f"ed25519:{number}": {} for number in range(101)}},
        {f"{number}.example": {} for number in range(101)},
    ],
)
async def test_questions_that_make_no_sense(here: Server, network: Network, server_keys: Any) -> None:
    status, reply = await query(here, server_keys)
    assert (status, reply["errcode"]) == (400, "M_BAD_JSON")
    assert network.asked == []


async def test_a_notary_knows_the_keys_a_server_had_before(
    here: Server, start: StartServer, network: Network
) -> None:
    there = await start("there.example", key=generate_signing_key("old"))
    await vouched(here, there.name)
    await there.close()
    network.clock.advance(3600)
    await Server.open(network, there.name, there.db, key=generate_signing_key("new"))

    _, reply = await query(here, {there.name: {"ed25519:old": {}, "ed25519:new": {}}})

    assert [list(answer["verify_keys"]) for answer in reply["server_keys"]] == [
        ["ed25519:new"],
        ["ed25519:old"],
    ]
    assert [list(answer["verify_keys"]) for answer in await vouched(here, there.name)] == [
        ["ed25519:new"],
        ["ed25519:old"],
    ]


async def test_an_event_of_a_server_that_is_gone_is_verified_through_a_notary(
    start: StartServer, there: Server, network: Network
) -> None:
    notary = await start("notary.example")
    here = await start("here.example", trusted_key_servers=["notary.example"])
    await vouched(notary, there.name)
    network.down.add(there.name)

    keys = await keys_of(here.keyring, there.name, [there.key.key_id], network.clock.now_ms())

    assert keys[there.key.key_id].key_base64 == there.key.verify_key_base64
    here = await here.restarted()
    assert await keys_of(here.keyring, there.name, [there.key.key_id], network.clock.now_ms()) == keys
    # It vouches for it now, too, with the signature of the server itself and no other.
    (answer,) = await vouched(here, there.name)
    assert set(answer["signatures"]) == {there.name, here.name}


async def test_old_keys_of_ours_are_published(start: StartServer, there: Server, network: Network) -> None:
    old = OldKey("ed25519:old", generate_signing_key("old").verify_key_base64, network.clock.now_ms() - 5)
    here = await start("here.example", old_keys=[old])

    published = await get(here, "/_matrix/key/v2/server")
    assert published["old_verify_keys"] == {
        "ed25519:old": {"key": old.verify_key_base64, "expired_ts": old.expired_ts}
    }
    found = await keys_of(there.keyring, here.name, ["ed25519:old"], old.expired_ts)
    assert found["ed25519:old"].expired
    there = await there.restarted()
    assert await keys_of(there.keyring, here.name, ["ed25519:old"], old.expired_ts) == found
    assert await keys_of(there.keyring, here.name, ["ed25519:old"], old.expired_ts + 1) == {}


async def test_keys_and_answers_are_kept(database: Database) -> None:
    store = DatabaseKeyStore(database)
    current, old = generate_signing_key("a"), generate_signing_key("b")
    keys = [
        VerifyKey("ed25519:a", current.verify_key_base64, 900),
        VerifyKey("ed25519:b", old.verify_key_base64, 100, expired=True),
    ]
    content = server_keys_response("a.example", [current], [], 500)
    await store.store("a.example", keys, Answer("a.example", ("ed25519:a",), 500, content))
    # An older answer, had from elsewhere, does not take the place of a newer one.
    await store.store("a.example", [], Answer("a.example", ("ed25519:a",), 0, {**content, "x": 1}))
    large = Answer("large.example", ("ed25519:a",), 500, {**content, "x": "x" * 40_000})
    await store.store("large.example", keys, large)

    loaded = await store.load(["a.example", "unknown.example"])
    assert {name: {*of_server} for name, of_server in loaded.items()} == {"a.example": {*keys}}
    assert await store.answers(["a.example", "large.example", "unknown.example"]) == {
        "a.example": [Answer("a.example", ("ed25519:a",), 500, content)]
    }


def answer_with(key_id: str, fetched_at: int, *old: str) -> Answer:
    content = {
        "verify_keys": {key_id: {}},
        "old_verify_keys": {each: {} for each in old},
        "valid_until_ts": fetched_at + 100,
    }
    return Answer("a.example", (key_id,), fetched_at, content)


def test_answers_for_every_key_that_is_wanted() -> None:
    newest, older, oldest = answer_with("c", 30, "b"), answer_with("b", 20), answer_with("a", 10)
    answers = [newest, older, oldest]
    assert chosen(answers, []) == [newest, oldest]
    assert chosen(answers, ["c"]) == [newest]
    assert chosen(answers, ["b", "x"]) == [newest]
    assert chosen(answers, ["a"]) == [newest, oldest]
    assert chosen([], ["a"]) == []


def test_when_an_answer_is_stale() -> None:
    answers = [answer_with("c", 100, "b"), answer_with("a", 10)]
    assert not is_stale(answers, [], 200, 150)
    assert not is_stale(answers, ["a", "b", "c"], 120, 120)
    assert is_stale(answers, [], 151, 151)
    assert is_stale(answers, [], 201, 120)
    assert is_stale(answers, ["d"], 120, 120)
    assert is_stale([], [], 120, 120)
