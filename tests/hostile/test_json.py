"""JSON at its edges, in bodies and in events: what it costs, and that all read it alike."""

from __future__ import annotations

import time
from typing import Any

import pytest

from federation.signatures import authorization_header
from homeserver.protocol.canonical_json import decode, encode
from homeserver.protocol.signing import event_id_of
from tests.hostile.conftest import Set
from tests.hostile.harm import Scene, refused
from tests.hostile.peer import Pdu

_TEN_MIB = 10 * 1024 * 1024


async def puts(scene: Scene, body: bytes, signed: bytes | None = None) -> tuple[int, Any]:
    """A transaction whose body are these bytes; signed is their canonical form, or whatever is given."""
    uri = f"/_matrix/federation/v1/send/raw{time.monotonic_ns()}"
    header = authorization_header(
        method="PUT",
        uri=uri,
        origin=scene.evil.name,
        destination=scene.here.name,
        body=body if signed is None else signed,
        key=scene.evil.key,
    )
    return await scene.here.answer("PUT", uri, {"Authorization": header}, body)


NO_JSON = {
    "NaN": b'{"edus":[NaN]}',
    "Infinity": b'{"edus":[-Infinity]}',
    "1e400": b'{"edus":[1e400]}',
    "a lone surrogate": b'{"edus":["\\ud800"]}',
    "half a pair": b'{"edus":["\\udc00\\ud800"]}',
    "a surrogate as a key": b'{"\\ud800":[]}',
    "bad UTF-8": b'{"edus":["\xff"]}',
    "an encoded surrogate": b'{"edus":["\xed\xa0\x80"]}',
    "an overlong form": b'{"edus":["\xc0\xaf"]}',
    "a byte order mark": b'\xef\xbb\xbf{"edus":[]}',
    "UTF-16": '{"edus":[]}'.encode("utf-16"),
    "a control character": b'{"edus":["\x01"]}',
    "a NUL byte": b'{"edus":["\x00"]}',
    "a trailing comma": b'{"edus":[],}',
    "two values": b'{"edus":[]}{"edus":[]}',
    "a comment": b'{"edus":[]/**/}',
    "single quotes": b"{'edus':[]}",
    "nothing but space": b"   ",
    "no end": b'{"edus":[',
    "a leading zero": b'{"edus":[01]}',
    "a hundred thousand levels": b'{"edus":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a hundred thousand objects deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a number of a million digits": b'{"edus":[' + b"9" * 1_000_000 + b"]}",
}


@pytest.mark.parametrize("name", NO_JSON)
async def test_a_body_that_is_no_json_is_refused(scene: Scene, name: str) -> None:
    async with refused(scene, rows=0, names="/send/"):
        status, answer = await puts(scene, NO_JSON[name])
        assert status in (400, 401)
        assert answer["errcode"] in ("M_NOT_JSON", "M_UNAUTHORIZED", "M_BAD_JSON")


BOMBS = {
    "arrays": b'{"pdus":[' + b"[]," * (_TEN_MIB // 3 - 10) + b"[]]}",
    "objects": b'{"pdus":[' + b"{}," * (_TEN_MIB // 3 - 10) + b"{}]}",
    "floats": b'{"pdus":[' + b"1.5," * (_TEN_MIB // 4 - 10) + b"1]}",
    "integers": b'{"pdus":[' + b"1," * (_TEN_MIB // 2 - 10) + b"1]}",
    "strings": b'{"pdus":[' + b'"ab",' * (_TEN_MIB // 5 - 10) + b"1]}",
    "keys": b"{"
    + b",".join(b'"%d":1' % n for n in range(_TEN_MIB // 12))
    + b',"a":['
    + b"[]," * 250_000
    + b"1]}",
}


@pytest.mark.parametrize("name", BOMBS)
async def test_ten_megabytes_of_small_values_are_not_even_parsed(scene: Scene, name: str) -> None:
    """Whoever sent them: the signature cannot be looked at before."""
    async with refused(scene, rows=0, names="/send/") as seen:
        started = time.process_time()
        status, answer = await puts(scene, BOMBS[name], b"{}")
        assert (status, answer["errcode"]) == (413, "M_TOO_LARGE")
        assert time.process_time() - started < 2
    assert seen.asked == []


async def test_of_duplicate_keys_everybody_reads_the_last(scene: Scene) -> None:
    body = b'{"pdus":[{"room_id":"!x:y"}],"edus":[],"pdus":[]}'
    canonical = encode(decode(body))
    assert canonical == b'{"edus":[],"pdus":[]}'
    assert await puts(scene, body, canonical) == (200, {"pdus": {}})
    async with refused(scene, rows=0):
        status, _ = await puts(scene, body, b'{"edus":[],"pdus":[{"room_id":"!x:y"}]}')
        assert status == 401


async def test_an_event_with_duplicate_keys_is_its_last_ones(scene: Scene) -> None:
    """The hash and the signature are over what was read, so that nobody can read it otherwise."""
    pdu = await scene.evil.message(scene.room_id, scene.mallory, "true")
    canonical = encode({"edus": [], "pdus": [pdu]})
    forged = canonical.replace(b'"body":"true"', b'"body":"false","body":"true"')
    assert forged != canonical
    status, answer = await puts(scene, forged, canonical)
    assert (status, list(answer["pdus"].values())) == (200, [{}])
    assert (await scene.here.bodies(scene.room_id))[-1] == "true"
    await scene.works()


def with_raw(pdu: Pdu, raw: bytes) -> tuple[bytes, bytes]:
    """A transaction in which a number of the event is written as ``raw``: its body, and what is signed."""
    body = encode({"edus": [], "pdus": [pdu]}).replace(b"4242", raw)
    try:
        return body, encode(decode(body))
    except ValueError:
        return body, body


@pytest.mark.parametrize("raw", [b"1.5", b"1.0", b"1e2", b"9007199254740992", b"-9007199254740992", b"1E+2"])
async def test_numbers_that_are_not_canonical_make_no_event_since_v6(scene: Scene, raw: bytes) -> None:
    pdu = await scene.evil.message(scene.room_id, scene.mallory, "x", number=4242)
    async with refused(scene, rows=1):
        status, answer = await puts(scene, *with_raw(pdu, raw))
        assert status == 200
        (result,) = answer["pdus"].values()
        assert "not canonical JSON" in result["error"]


@pytest.mark.parametrize("version", ["5", "11"])
async def test_minus_zero_is_zero(set_scene: Set, version: str) -> None:
    scene = await set_scene(version)
    rules = await scene.evil.rules(scene.room_id)
    zero = await scene.evil.message(scene.room_id, scene.mallory, "zero", number=0)
    body = encode({"edus": [], "pdus": [zero]}).replace(b'"number":0', b'"number":-0')
    status, answer = await puts(scene, body, encode({"edus": [], "pdus": [zero]}))
    assert (status, answer["pdus"]) == (200, {event_id_of(zero, rules): {}})
    await scene.works()


@pytest.mark.parametrize("raw", [b"1.5", b"9007199254740993", b"1e2", b"0.1"])
async def test_before_v6_any_number_may_be_in_an_event(set_scene: Set, raw: bytes) -> None:
    scene = await set_scene("5")
    rules = await scene.evil.rules(scene.room_id)
    template = await scene.evil.template(
        scene.room_id, scene.mallory, "m.room.message", {"body": raw.decode()}
    )
    pdu = scene.evil.signed({**template, "number": decode(raw)}, rules)
    body = encode({"edus": [], "pdus": [pdu]})
    status, answer = await puts(scene, body)
    assert (status, list(answer["pdus"].values())) == (200, [{}])
    assert (await scene.here.bodies(scene.room_id))[-1] == raw.decode()
    await scene.works()


async def test_a_nul_in_a_key_or_a_text_goes_through_unharmed(scene: Scene) -> None:
    pdu = await scene.evil.event(
        scene.room_id, scene.mallory, "m.room.message", {"body": "a\x00b", "k\x00": "\u2028\x7f"}
    )
    assert await scene.evil.sends_one(scene.here, pdu) == ""
    assert (await scene.here.room(scene.room_id)).recent[-1].event.content == {
        "body": "a\x00b",
        "k\x00": "\u2028\x7f",
    }
    await scene.works()
