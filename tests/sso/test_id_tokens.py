"""ID tokens, without any provider: which are believed, and why the others are not."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from homeserver.sso.id_tokens import (
    ALGORITHMS,
    Expected,
    TokenRefused,
    UnknownKey,
    usable_keys,
    verified_claims,
)

NOW = 1_700_000_000
EXPECTED = Expected("https://id.example.org", "us", "nonce")
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
OTHER_RSA = RSAKey.generate_key(2048, {"kid": "other"})
GOOD: dict[str, Any] = {
    "iss": EXPECTED.issuer,
    "aud": "us",
    "sub": "1",
    "nonce": "nonce",
    "iat": NOW,
    "exp": NOW + 300,
}


def token(key: Any = RSA, algorithm: str = "RS256", header: Any = None, **claims: Any) -> str:
    fields = {"alg": algorithm, "kid": key.kid, **(header or {})}
    return jwt.encode(fields, {**GOOD, **claims}, key, algorithms=[algorithm])


def verified(text: str, *keys: Any, algorithms: Any = tuple(ALGORITHMS)) -> dict[str, Any]:
    return verified_claims(text, keys or [RSA], EXPECTED, now_s=NOW, algorithms=algorithms)


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("RS256", RSA),
        ("PS512", RSA),
        ("ES256", ECKey.generate_key("P-256", {"kid": "ec"})),
        ("ES512", ECKey.generate_key("P-521", {"kid": "ec"})),
        ("Ed25519", OKPKey.generate_key("Ed25519", {"kid": "okp"})),
    ],
)
def test_every_kind_of_public_key_is_understood(algorithm: str, key: Any) -> None:
    [published] = usable_keys({"keys": [key.as_dict(private=False)]})
    assert verified(token(key, algorithm), published)["sub"] == "1"


def test_one_key_needs_no_name_and_two_do() -> None:
    nameless = jwt.encode({"alg": "RS256"}, GOOD, RSA)
    assert verified(nameless)["sub"] == "1"
    with pytest.raises(TokenRefused, match="which of several keys"):
        verified(nameless, RSA, OTHER_RSA)


def test_a_key_that_is_not_there_is_told_apart_from_a_bad_signature() -> None:
    with pytest.raises(UnknownKey):
        verified(token(OTHER_RSA))
    forged = token(OTHER_RSA, header={"kid": "rsa"})
    with pytest.raises(TokenRefused, match="cannot be verified"):
        verified(forged)


def test_a_nameless_key_may_have_been_replaced_by_another() -> None:
    nameless = jwt.encode({"alg": "RS256"}, GOOD, OTHER_RSA)
    with pytest.raises(UnknownKey):
        verified(nameless, RSA)
    assert verified(nameless, OTHER_RSA)["sub"] == "1"


def test_algorithms_the_provider_does_not_use_are_not_accepted() -> None:
    with pytest.raises(TokenRefused, match="in a way that is not accepted"):
        verified(token(algorithm="RS512"), algorithms=["RS256"])
    with pytest.raises(TokenRefused, match="in a way that is not accepted"):
        verified(
            token(OctKey.generate_key(256, {"kid": "rsa"}), "HS256"), algorithms=["RS256", "HS256", "none"]
        )


@pytest.mark.parametrize(
    "exp", [float("nan"), float("-inf"), NOW - 60, None, "9999999999", True, [NOW + 300]]
)
def test_an_end_that_is_over_or_is_no_time(exp: Any) -> None:
    with pytest.raises(TokenRefused, match="expired"):
        verified(token(exp=exp))


def test_clocks_may_differ_a_little() -> None:
    assert verified(token(exp=NOW - 59, iat=NOW + 59))


@pytest.mark.parametrize("claim", [{"iat": float("nan")}, {"nbf": NOW + 61}, {"iat": "now"}])
def test_a_token_from_the_future(claim: dict[str, Any]) -> None:
    with pytest.raises(TokenRefused, match="future"):
        verified(token(**claim))


@given(st.text(max_size=200))
def test_no_text_is_believed(text: str) -> None:
    with pytest.raises(TokenRefused):
        verified(text)


@given(st.recursive(st.none() | st.booleans() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_no_header_is_a_surprise(value: Any) -> None:
    header, payload = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": value, "kid": value}, GOOD)
    )
    with pytest.raises(TokenRefused):
        verified(f"{header}.{payload}.AAAA")


@pytest.mark.parametrize(
    "jwks",
    [
        None,
        [],
        {},
        {"keys": {}},
        {"keys": [None, 5, {}, {"kty": "RSA"}, {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "?"}]},
        {"keys": [{"kty": "oct", "k": "c2VjcmV0"}, {"kty": "EC", "crv": "P-256", "x": "", "y": ""}]},
        {"keys": [{**RSA.as_dict(private=False), "use": "enc"}]},
    ],
)
def test_what_holds_no_usable_key(jwks: Any) -> None:
    assert usable_keys(jwks) == []


def test_the_keys_taken_are_bounded_in_number() -> None:
    assert len(usable_keys({"keys": [RSA.as_dict(private=False)] * 500})) == 100
