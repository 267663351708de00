"""Asking an identity server about its key, at an address that anybody may have written."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import aiohttp
import pytest
import trustme

from federation.key_validity import MAX_BYTES, is_key_valid
from homeserver.addresses import DENIED_BY_DEFAULT, address_policy
from homeserver.egress import open_session
from tests.federation.peer import Answer, Peer, running_peer

LOOPBACK = "127.0.0.1"
PATH = "/_matrix/identity/v2/pubkey/isvalid"


@pytest.fixture
async def peer(authority: trustme.CA) -> AsyncIterator[Peer]:
    async with running_peer(authority, LOOPBACK) as running:
        yield running


@pytest.fixture
async def session(tls: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session(address_policy(allowed=[f"{LOOPBACK}/32"]), tls) as opened:
        yield opened


async def test_the_identity_server_has_the_word(peer: Peer, session: aiohttp.ClientSession) -> None:
    url = f"https://{LOOPBACK}:{peer.port}{PATH}?a=b"
    peer.answers(Answer(body={"valid": True}), Answer(body={"valid": False}), Answer(body={"valid": "yes"}))

    assert [await is_key_valid(session, url, "a+key/") for _ in range(3)] == [True, False, False]
    assert peer.asked[0].raw_path == f"{PATH}?a=b&public_key=a%2Bkey/"


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=404, body={"valid": True}),
        Answer(status=302, body={"valid": True}, headers={"Location": "https://example.org/"}),
        Answer(body=b"valid"),
        Answer(body=[True]),
        Answer(body={"valid": True, "more": "x" * MAX_BYTES}),
    ],
)
async def test_nothing_else_is_a_yes(peer: Peer, session: aiohttp.ClientSession, answer: Answer) -> None:
    peer.answers(answer)

    assert not await is_key_valid(session, f"https://{LOOPBACK}:{peer.port}{PATH}", "key")


async def test_only_https_is_spoken(peer: Peer, session: aiohttp.ClientSession) -> None:
    for url in (f"http://{LOOPBACK}:{peer.port}{PATH}", "file:///etc/passwd", "", "https://[", "https://"):
        assert not await is_key_valid(session, url, "key")
    assert not await is_key_valid(session, f"https://{LOOPBACK}:{peer.port}/{'x' * 2000}", "key")
    assert peer.asked == []


async def test_private_addresses_are_not_contacted(peer: Peer, tls: ssl.SSLContext) -> None:
    async with open_session(address_policy(denied=DENIED_BY_DEFAULT), tls) as session:
        assert not await is_key_valid(session, f"https://{LOOPBACK}:{peer.port}{PATH}", "key")
    assert peer.asked == []
