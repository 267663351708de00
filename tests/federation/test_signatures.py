"""The X-Matrix header as we write it, and as others do."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.signatures import (
    InvalidAuthorization,
    RequestSignature,
    authorization_header,
    parse_authorization,
    signed_forms,
)
from homeserver.protocol.canonical_json import encode
from homeserver.protocol.signing import BadSignature, SigningKey, check_signature, sign_json

KEY = SigningKey("ed25519:key1", bytes(range(32)))
EXPECTED = RequestSignature("origin.example:8448", "destination.example", "ed25519:key1", "ABC+/def")


def header_for(content: dict[str, Any] | None, method: str = "PUT", uri: str = "/_matrix/x?y=%24z") -> str:
    return authorization_header(
        method=method,
        uri=uri,
        origin="origin.example",
        destination="destination.example",
        body=None if content is None else encode(content),
        key=KEY,
    )


@pytest.mark.parametrize("content", [None, {}, {"b": [1, "ä"], "a": {}}])
def test_what_is_signed_is_what_the_spec_says(content: dict[str, Any] | None) -> None:
    request: dict[str, Any] = {
        "method": "PUT",
        "uri": "/_matrix/x?y=%24z",
        "origin": "origin.example",
        "destination": "destination.example",
    }
    if content is not None:
        request["content"] = content
    signature = sign_json(request, "origin.example", KEY)["signatures"]["origin.example"]["ed25519:key1"]
    assert header_for(content) == (
        'X-Matrix origin="origin.example",destination="destination.example",'
        f'key="ed25519:key1",sig="{signature}"'
    )


@pytest.mark.parametrize("body", [b"", b'{"a":1,"b":2}', b'{ "b": 2, "a": 1 }'])
def test_a_receiver_can_verify_what_was_written(body: bytes) -> None:
    content = json.loads(body) if body else None
    signature = parse_authorization(header_for(content)).signature

    def is_signed(uri: str, destination: str, body: bytes) -> bool:
        forms = signed_forms(
            method="PUT",
            uri=uri,
            origin="origin.example",
            destination=destination,
            body=body,
            content=lambda: json.loads(body),
        )
        return any(is_good(signed, signature) for signed in forms)

    assert is_signed("/_matrix/x?y=%24z", "destination.example", body)
    assert not is_signed("/_matrix/x?y=$z", "destination.example", body)
    assert not is_signed("/_matrix/x?y=%24z", "other.example", body)
    assert not is_signed("/_matrix/x?y=%24z", "destination.example", b'{"a":2}')


def test_a_body_in_canonical_form_is_not_read_to_be_verified() -> None:
    signature = parse_authorization(header_for({"a": 1, "b": 2})).signature
    first = next(
        signed_forms(
            method="PUT",
            uri="/_matrix/x?y=%24z",
            origin="origin.example",
            destination="destination.example",
            body=b'{"a":1,"b":2}',
            content=pytest.fail,
        )
    )

    assert is_good(first, signature)


def is_good(signed: bytes, signature: str) -> bool:
    try:
        check_signature(signed, signature, "origin.example", "ed25519:key1", KEY.verify_key_base64)
    except BadSignature:
        return False
    return True


@pytest.mark.parametrize(
    "parameters",
    [
        'origin="origin.example:8448",destination="destination.example",key="ed25519:key1",sig="ABC+/def"',
        "origin=origin.example:8448,destination=destination.example,key=ed25519:key1,sig=ABC+/def",
        'sig="ABC+/def", key="ed25519:key1" ,\torigin=origin.example:8448,destination="destination.example"',
        'ORIGIN="origin.example:8448",Destination="destination.example",KEY="ed25519:key1",sig="ABC+/def"',
        'origin="origin\\.example:8448",destination="destination.example",key="ed25519:\\key1",sig="ABC+/def"',
        'origin="origin.example:8448",destination="destination.example",key="ed25519:key1",sig="ABC+/def",x="a,b"',
        'origin="origin.example:8448",destination=destination.example,key="ed25519:key1",signature="ABC+/def"',
        '  origin = "origin.example:8448",key="ed25519:key1",sig="ABC+/def",destination=destination.example,',
    ],
)
def test_headers_of_many_styles_mean_the_same(parameters: str) -> None:
    assert parse_authorization(f"X-Matrix {parameters}") == EXPECTED
    assert parse_authorization(f"x-matrix   {parameters} ") == EXPECTED


def test_old_servers_name_no_destination() -> None:
    parsed = parse_authorization('X-Matrix origin=o.example,key="ed25519:1",sig="s"')
    assert parsed == RequestSignature("o.example", None, "ed25519:1", "s")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer abc",
        "X-Matrix",
        "X-Matrix origin=a,key=b",
        "X-Matrix origin=,key=b,sig=c",
        'X-Matrix origin="a,key=b,sig=c',
        "X-Matrix origin=a key=b sig=c",
        "X-Matrix origin=a,origin=b,key=b,sig=c",
        "X-Matrix ,origin=a,key=b,sig=c",
        "X-Matrix " + "a=b," * 2000 + "origin=a,key=b,sig=c",
    ],
)
def test_a_header_that_cannot_be_read_is_refused(header: str) -> None:
    with pytest.raises(InvalidAuthorization):
        parse_authorization(header)


@given(st.text(alphabet='X-Matrix origin=key,sig"\\:\t a1', max_size=60))
def test_no_header_does_worse_than_being_refused(tail: str) -> None:
    try:
        parsed = parse_authorization(f"X-Matrix {tail}")
    except InvalidAuthorization:
        return
    assert parsed.origin
    assert parsed.key_id
    assert parsed.signature
