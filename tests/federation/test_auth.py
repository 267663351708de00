"""Who signed a request, with headers as servers of all ages send them."""

from __future__ import annotations

from typing import Any

import pytest
from multidict import CIMultiDict

from federation.signatures import authorization_header
from homeserver.errors import MatrixError
from homeserver.protocol.canonical_json import encode
from homeserver.protocol.signing import SigningKey, generate_signing_key
from tests.remote import Network, Server

URI = "/_matrix/federation/v1/send/1?x=%20y"
BODY = {"pdus": [], "ä": [1, {"b": None}]}


def header(server: Server, to: str, key: SigningKey | None = None, body: Any = None, name: str = "") -> str:
    """The header of a request of a server, in its name or another."""
    return authorization_header(
        method="PUT",
        uri=URI,
        origin=name or server.name,
        destination=to,
        body=encode(BODY if body is None else body),
        key=key or server.key,
    )


async def authenticate(here: Server, *headers: str, body: bytes | None = None) -> str:
    """Who sent a request with these ``Authorization`` headers; raises ``MatrixError``."""
    several = CIMultiDict([("Authorization", each) for each in headers])
    return await here.federation.authentication.authenticate_server(
        "PUT", URI, several, encode(BODY) if body is None else body
    )


async def refused(here: Server, *headers: str, body: bytes | None = None) -> tuple[int, str]:
    with pytest.raises(MatrixError) as error:
        await authenticate(here, *headers, body=body)
    return error.value.status, error.value.errcode


UNAUTHORIZED = (401, "M_UNAUTHORIZED")


async def test_the_body_is_covered_however_it_is_written(here: Server, there: Server) -> None:
    good = header(there, here.name)
    assert await authenticate(here, good) == there.name
    spaced = b'{ "\\u00e4": [1, {"b":null}], "pdus": [ ] }'
    assert await authenticate(here, good, body=spaced) == there.name
    assert await refused(here, good, body=b'{"pdus":[]}') == UNAUTHORIZED
    assert await refused(here, good, body=b"") == UNAUTHORIZED
    assert await refused(here, good, body=b"{") == (400, "M_NOT_JSON")


async def test_a_request_for_another_server_is_refused(here: Server, there: Server) -> None:
    assert await refused(here, header(there, "else.example")) == UNAUTHORIZED
    for_here = header(there, here.name)
    claimed = for_here.replace(f'destination="{here.name}"', 'destination="else.example"')
    assert await refused(here, claimed) == UNAUTHORIZED
    unnamed = for_here.replace(f',destination="{here.name}"', "")
    assert await authenticate(here, unnamed) == there.name


@pytest.mark.parametrize("signature", ["", "AAAA", "!!!", "ä", "A" * 5, "=", "A" * 86])
async def test_a_signature_that_is_none_is_refused(here: Server, there: Server, signature: str) -> None:
    head, _, _ = header(there, here.name).partition("sig=")
    assert await refused(here, f'{head}sig="{signature}"') == UNAUTHORIZED


@pytest.mark.parametrize("key_id", ["ed25519:unknown", "rsa:a_test", "ed25519:", "ed25519:policy_server"])
async def test_a_key_that_the_server_has_not_is_refused(here: Server, there: Server, key_id: str) -> None:
    assert await refused(here, header(there, here.name, SigningKey(key_id, there.key.seed))) == UNAUTHORIZED


async def test_nobody_signs_for_another(here: Server, there: Server, network: Network) -> None:
    assert await refused(here, header(there, here.name, name="gone.example")) == UNAUTHORIZED
    assert await refused(here, header(there, here.name, name=here.name)) == UNAUTHORIZED
    assert await refused(here, header(there, here.name, name="no server")) == UNAUTHORIZED


async def test_several_headers_are_several_signatures(here: Server, there: Server) -> None:
    good = header(there, here.name)
    unknown = header(there, here.name, generate_signing_key("unknown"))
    assert await authenticate(here, unknown, good) == there.name
    assert await refused(here, unknown) == UNAUTHORIZED
    assert await refused(here, good, header(there, here.name, name="else.example")) == UNAUTHORIZED
    assert await refused(here, good, "Bearer x") == UNAUTHORIZED
    assert await refused(here, *[good] * 11) == UNAUTHORIZED
    assert await refused(here) == UNAUTHORIZED
