"""Events that are not what they claim: forged, altered, or signed with keys that do not count."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.protocol.signing import countersign_event, generate_signing_key
from tests.hostile.conftest import VERSIONS, Set
from tests.hostile.harm import Scene, refused


@pytest.mark.parametrize("version", VERSIONS)
async def test_an_event_signed_with_another_key_of_the_same_id_is_dropped(
    set_scene: Set, version: str
) -> None:
    scene = await set_scene(version)
    pdu = await scene.evil.template(scene.room_id, scene.mallory, "m.room.message", {"body": "x"})
    pdu = scene.evil.signed(pdu, await scene.evil.rules(scene.room_id), key=generate_signing_key("a_test"))
    async with refused(scene):
        assert "is wrong" in await scene.evil.sends_one(scene.here, pdu)


async def test_an_event_that_only_another_server_signed_is_dropped(scene: Scene) -> None:
    rules = await scene.evil.rules(scene.room_id)
    pdu = await scene.evil.template(scene.room_id, scene.alice, "m.room.message", {"body": "x"})
    async with refused(scene):
        error = await scene.evil.sends_one(scene.here, scene.evil.signed(pdu, rules))
        assert error == "here.example has not signed the event"


async def test_a_signature_made_up_in_our_name_is_dropped(scene: Scene) -> None:
    rules = await scene.evil.rules(scene.room_id)
    pdu = await scene.evil.template(scene.room_id, scene.alice, "m.room.message", {"body": "x"})
    async with refused(scene):
        error = await scene.evil.sends_one(scene.here, scene.evil.signed(pdu, rules, name="here.example"))
        assert "signed with no key" in error or "is wrong" in error


@pytest.mark.parametrize(
    "signatures",
    [
        None,
        {},
        {"evil.example": {}},
        {"evil.example": {"ed25519:a_test": ""}},
        {"evil.example": {"ed25519:a_test": "AAAA"}},
        {"evil.example": {"ed25519:a_test": "A" * 86}},
        {"evil.example": {"ed25519:a_test": "\u00e9" * 86}},
        {"evil.example": {"rot13:a_test": "A" * 86}},
        {"evil.example": {f"ed25519:{n}": "A" * 86 for n in range(500)}},
        {"evil.example": {"ed25519:a_test": ["A" * 86]}},
        {"evil.example": "A" * 86},
        ["A" * 86],
    ],
)
async def test_an_event_without_a_usable_signature_is_dropped(scene: Scene, signatures: Any) -> None:
    pdu = {**await scene.evil.message(scene.room_id, scene.mallory), "signatures": signatures}
    if signatures is None:
        del pdu["signatures"]
    async with refused(scene, requests=1):
        assert await scene.evil.sends_one(scene.here, pdu)


async def test_the_signature_of_another_event_is_dropped(scene: Scene) -> None:
    pdu = await scene.evil.message(scene.room_id, scene.mallory, "one")
    other = await scene.evil.message(scene.room_id, scene.mallory, "two")
    async with refused(scene):
        error = await scene.evil.sends_one(scene.here, {**pdu, "signatures": other["signatures"]})
        assert "is wrong" in error


@pytest.mark.parametrize("version", VERSIONS)
async def test_content_put_in_after_signing_is_redacted_and_not_dropped(set_scene: Set, version: str) -> None:
    """The hash tells; the rest is the sender's own (spec: "Checks performed on receipt of a PDU", 3)."""
    scene = await set_scene(version)
    pdu = await scene.evil.message(scene.room_id, scene.mallory, "true")
    forged = {**pdu, "content": {"msgtype": "m.text", "body": "forged"}, "injected": "x"}

    assert await scene.evil.sends_one(scene.here, forged) == ""

    stored = (await scene.here.room(scene.room_id)).recent[-1]
    assert stored.id == await scene.evil.id_of(scene.room_id, pdu)
    assert stored.event.content == {}
    assert "injected" not in stored.event.pdu


@pytest.mark.parametrize(
    "hashes", [{}, {"sha256": "AAAA"}, {"sha256": 1}, {"sha1": "AAAA"}, {"sha256": "\u00e9"}]
)
async def test_a_wrong_hash_leaves_nothing_of_the_content(scene: Scene, hashes: dict[str, Any]) -> None:
    rules = await scene.evil.rules(scene.room_id)
    pdu = await scene.evil.message(scene.room_id, scene.mallory, "x", hashes={})
    signed = scene.evil.signed(pdu, rules)
    redacted = {**signed, "content": {}, "hashes": hashes, "signatures": {}}
    forged = countersign_event({**redacted, "content": pdu["content"]}, rules, "evil.example", scene.evil.key)

    assert await scene.evil.sends_one(scene.here, forged) == ""

    assert (await scene.here.room(scene.room_id)).recent[-1].event.content == {}


async def test_an_event_changed_where_the_id_covers_it_is_dropped(scene: Scene) -> None:
    pdu = await scene.evil.message(scene.room_id, scene.mallory)
    for field, value in (("depth", 7), ("origin_server_ts", 7), ("sender", "@eve:evil.example")):
        async with refused(scene):
            assert "is wrong" in await scene.evil.sends_one(scene.here, {**pdu, field: value})
