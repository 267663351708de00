"""Servers that lie about their keys, and requests that are not signed by whom they claim."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from federation.server_keys import server_keys_response
from federation.signatures import authorization_header
from homeserver.protocol.canonical_json import encode
from homeserver.protocol.signing import generate_signing_key, sign_json
from tests.hostile.conftest import Start
from tests.hostile.harm import Scene, refused
from tests.hostile.peer import HostilePeer, Reply

_HOUR_MS = 3600 * 1000
_DAY_MS = 24 * _HOUR_MS
KEYS = "key/v2/server"
#: Lines about a server whose keys are not known: that they could not be had, and what it was refused.
UNKNOWN = 2


@pytest.fixture
async def liar(start: Start) -> HostilePeer:
    """A server nobody has heard of."""
    peer: HostilePeer = await start("liar.example", HostilePeer)
    return peer


def published(peer: HostilePeer, *, name: str = "", lifetime_ms: int = _DAY_MS) -> dict[str, Any]:
    """What a server would truthfully say of its keys."""
    now_ms = peer.network.clock.now_ms()
    return server_keys_response(name or peer.name, [peer.key], [], now_ms, lifetime_ms)


def unsigned(peer: HostilePeer) -> Any:
    return {name: value for name, value in published(peer).items() if name != "signatures"}


def of_another(peer: HostilePeer) -> Any:
    return published(peer, name="there.example")


def expired(peer: HostilePeer) -> Any:
    return published(peer, lifetime_ms=-_DAY_MS)


def not_its_own_signature(peer: HostilePeer) -> Any:
    return sign_json(unsigned(peer), peer.name, generate_signing_key("a_test"))


def signed_by_the_old_key_alone(peer: HostilePeer) -> Any:
    """Somebody who found an old key makes up a new one."""
    old = {"key": peer.key.verify_key_base64, "expired_ts": peer.network.clock.now_ms() - _HOUR_MS}
    new = generate_signing_key("b_test")
    keys = {
        **unsigned(peer),
        "verify_keys": {new.key_id: {"key": new.verify_key_base64}},
        "old_verify_keys": {peer.key.key_id: old},
    }
    return sign_json(keys, peer.name, peer.key)


def only_an_old_key(peer: HostilePeer) -> Any:
    new = generate_signing_key("b_test")
    old = {"key": peer.key.verify_key_base64, "expired_ts": peer.network.clock.now_ms() - _HOUR_MS}
    keys = {
        **unsigned(peer),
        "verify_keys": {new.key_id: {"key": new.verify_key_base64}},
        "old_verify_keys": {peer.key.key_id: old},
    }
    return sign_json(keys, peer.name, new)


def far_too_many(peer: HostilePeer) -> Any:
    keys = {f"ed25519:{n}": {"key": peer.key.verify_key_base64} for n in range(5000)}
    return sign_json({**unsigned(peer), "verify_keys": {**keys}}, peer.name, peer.key)


def deeply_nested(peer: HostilePeer) -> Any:
    return Reply(b'{"verify_keys":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


def strange(peer: HostilePeer) -> Any:
    return {**published(peer), "verify_keys": {"ed25519:a_test": [1]}, "valid_until_ts": True}


LIES: list[Callable[[HostilePeer], Any]] = [
    unsigned,
    of_another,
    expired,
    not_its_own_signature,
    signed_by_the_old_key_alone,
    only_an_old_key,
    far_too_many,
    deeply_nested,
    strange,
    lambda peer: [],
    lambda peer: Reply(b"NaN"),
    lambda peer: Reply({"errcode": "M_UNKNOWN", "error": "x\r\n" * 10_000}, 500),
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
async def test_keys_that_cannot_be_believed_authenticate_nobody(
    scene: Scene, liar: HostilePeer, lie: Callable[[HostilePeer], Any]
) -> None:
    liar.lies_about(KEYS, lie(liar))
    async with refused(scene, requests=1, rows=3, lines=UNKNOWN, names="liar.example"):
        answer = await liar.asks(scene.here, "GET", "v1", "state_ids", scene.room_id, query="?event_id=$x")
        assert (answer[0], answer[1]["errcode"]) == (401, "M_UNAUTHORIZED")


async def test_a_server_without_good_keys_is_not_asked_for_them_each_time(
    scene: Scene, liar: HostilePeer
) -> None:
    liar.lies_about(KEYS, unsigned(liar))
    async with refused(scene, requests=1, lines=51, names="liar.example"):
        for n in range(50):
            status, _ = await liar.asks(scene.here, "GET", "v1", "event", f"$x{n}")
            assert status == 401


async def test_another_key_under_an_id_that_is_known_is_not_looked_for(scene: Scene) -> None:
    """While the key that is known counts, a signature it did not make is wrong."""
    evil = scene.evil
    true_key, evil.key = evil.key, generate_signing_key("a_test")
    assert evil.key.key_id == true_key.key_id
    async with refused(scene):
        status, answer = await evil.asks(scene.here, "GET", "v1", "event", "$x")
        assert (status, answer["errcode"]) == (401, "M_UNAUTHORIZED")
        evil.key = true_key


async def test_events_signed_after_a_key_has_expired_are_dropped(scene: Scene) -> None:
    """By the event's time, since v5 (room version 5, "Signing key validity period")."""
    pdu = await scene.evil.message(
        scene.room_id, scene.mallory, origin_server_ts=scene.here.network.clock.now_ms() + 30 * _DAY_MS
    )
    async with refused(scene, requests=1, rows=3):
        assert "no key that is known and valid" in await scene.evil.sends_one(scene.here, pdu)


async def test_an_old_key_does_not_count_because_it_expires_in_the_future(
    scene: Scene, liar: HostilePeer
) -> None:
    """A key counts for a week without being published anew; as an old one it would for ever."""
    new = generate_signing_key("b_test")
    old = {"key": liar.key.verify_key_base64, "expired_ts": 2**53 - 1}
    keys = {
        **unsigned(liar),
        "verify_keys": {new.key_id: {"key": new.verify_key_base64}},
        "old_verify_keys": {liar.key.key_id: old},
    }
    liar.lies_about(KEYS, sign_json(keys, liar.name, new))
    async with refused(scene, requests=1, rows=3, lines=UNKNOWN, names="liar.example"):
        status, _ = await liar.asks(scene.here, "GET", "v1", "event", "$x")
        assert status == 401


CLAIMS: dict[str, dict[str, Any]] = {
    "for another server": {"destination": "there.example"},
    "another path": {"signed_uri": "/_matrix/federation/v1/version"},
    "another query": {"signed_uri": "/_matrix/federation/v1/event/$x?a=b"},
    "another method": {"signed_method": "PUT"},
    "another body": {"signed_body": b'{"limit":2}'},
    "no body": {"signed_body": None},
    "another origin": {"origin": "third.example"},
    "ourselves": {"origin": "here.example"},
    "an address": {"origin": "127.0.0.1"},
    "an address with a port": {"origin": "[::1]:8448"},
    "no server name": {"origin": "evil.example/../x"},
    "credentials": {"origin": "user:pass@evil.example"},
    "percent-encoding": {"origin": "evil%2eexample"},
    "a line break": {"origin": "evil.example\r\nX-Evil: 1"},
    "nobody": {"origin": ""},
}


@pytest.mark.parametrize("claim", CLAIMS)
async def test_a_request_signed_for_something_else_is_unauthorised(scene: Scene, claim: str) -> None:
    evil, changed = scene.evil, CLAIMS[claim]
    uri = f"/_matrix/federation/v1/get_missing_events/{scene.room_id.replace('!', '%21')}"
    body = encode({"earliest_events": [], "latest_events": [], "limit": 1})
    header = authorization_header(
        method=changed.get("signed_method", "POST"),
        uri=changed.get("signed_uri", uri),
        origin=changed.get("origin", evil.name),
        destination=changed.get("destination", scene.here.name),
        body=changed.get("signed_body", body),
        key=evil.key,
    )
    async with refused(scene, requests=1, lines=UNKNOWN, names="get_missing_events"):
        status, answer = await scene.here.answer("POST", uri, {"Authorization": header}, body)
        assert (status, answer["errcode"]) == (401, "M_UNAUTHORIZED")


HEADERS = [
    None,
    "",
    "X-Matrix",
    "X-Matrix origin",
    'Bearer origin="evil.example",key="ed25519:a_test",sig="x"',
    'X-Matrix key="ed25519:a_test",sig="x"',
    'X-Matrix origin="evil.example",origin="evil.example",key="ed25519:a_test",sig="x"',
    'X-Matrix origin="evil.example",key="ed25519:a_test",sig="x',
    'X-Matrix origin="evil.example",key="ed25519:a_test",sig="\u00e9"',
    'X-Matrix origin="evil.example",key="ed25519:' + "a" * 129 + '",sig="x"',
    "X-Matrix " + "a=b," * 100_000,
    'X-Matrix origin="' + "\\" * 4000,
]


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
async def test_a_header_that_is_no_signature_is_unauthorised(scene: Scene, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    async with refused(scene, requests=1, names="/event/"):
        status, answer = await scene.here.answer("GET", "/_matrix/federation/v1/event/$x", headers, None)
        assert (status, answer["errcode"]) == (401, "M_UNAUTHORIZED")


async def test_a_signed_request_counts_for_its_own_endpoint_alone(scene: Scene) -> None:
    """What is signed is the request as it was sent: other spellings of the path are other requests."""
    evil = scene.evil
    uri = "/_matrix/federation/v1/event/%24x"
    header = authorization_header(
        method="GET", uri=uri, origin=evil.name, destination=scene.here.name, body=None, key=evil.key
    )
    for other in (f"{uri}?", f"{uri}?a=b", uri.replace("%24", "$"), f"{uri}/", f"/{uri}"):
        async with refused(scene, names="event"):
            status, _ = await scene.here.answer("GET", other, {"Authorization": header}, None)
            assert status in (401, 404)
