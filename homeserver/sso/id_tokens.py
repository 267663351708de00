"""ID tokens: who a provider says somebody is, signed by it.

Nothing here asks the provider: keys and time are handed in.
Specification: OpenID Connect Core 1.0, sections 2 and 3.1.3.7; RFC 7515, RFC 7517 and RFC 8725.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from joserfc import jws, jwt
from joserfc.errors import BadSignatureError, JoseError
from joserfc.jwk import JWKRegistry, OctKey, RSAKey

from homeserver.sso.claims import text_claim

#: Made with a private key.  Not "none", and nothing symmetric: a public key must never be taken for a secret.
ALGORITHMS: Mapping[str, str] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    **dict.fromkeys(("EdDSA", "Ed25519"), "OKP"),
}

#: By how much the clocks of a provider and of this machine may differ, in seconds.
LEEWAY_S = 60
_MAX_TOKEN_CHARS = 64 * 1024
_MAX_KEYS = 100
_SMALLEST_RSA_BITS = 2048
#: Of a subject, which is kept.
_MAX_SUBJECT_CHARS = 255


class TokenRefused(Exception):
    """An ID token that proves nothing; the message says why."""


class UnknownKey(TokenRefused):
    """Signed with a key that is not among those of the provider that are known."""


class Expected(msgspec.Struct, frozen=True):
    """What an ID token has to say: from whom, for whom, and in answer to what."""

    issuer: str
    client_id: str
    nonce: str


def usable_keys(jwks: Any) -> list[Any]:
    """The public keys of a JWK set (``{"keys": […]}``) that sign; what cannot be used is passed over."""
    listed = jwks.get("keys") if isinstance(jwks, dict) else None
    keys = []
    for entry in listed[:_MAX_KEYS] if isinstance(listed, list) else ():
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        try:
            key = JWKRegistry.import_key(entry)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
        weak = isinstance(key, RSAKey) and key.raw_value.key_size < _SMALLEST_RSA_BITS
        if not isinstance(key, OctKey) and not weak:
            keys.append(key)
    return keys


def verified_claims(
    token: str, keys: Sequence[Any], expected: Expected, *, now_s: float, algorithms: Collection[str]
) -> dict[str, Any]:
    """The claims of an ID token that is what it should be; ``sub`` is a text among them.

    Raises ``UnknownKey`` if its key is not among ``keys``, ``TokenRefused`` for every other fault.
    """
    key, algorithm, is_named = _key_for(token, keys, algorithms)
    try:
        claims = jwt.decode(token, key, algorithms=[algorithm]).claims
    except BadSignatureError:
        refusal = "it cannot be verified: its signature is another key's"
        # The provider may have replaced its only key, which has no name that could tell.
        raise TokenRefused(refusal) if is_named else UnknownKey(refusal) from None
    except (JoseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TokenRefused(f"it cannot be verified: {type(error).__name__}") from None
    _check(claims, expected, now_s)
    return dict(claims)


def _key_for(token: str, keys: Sequence[Any], algorithms: Collection[str]) -> tuple[Any, str, bool]:
    """The key that a token is to be verified with, the algorithm, and whether the token names the key."""
    if len(token) > _MAX_TOKEN_CHARS:
        raise TokenRefused("it is too large")
    try:
        header = jws.extract_compact(token.encode()).headers()
    except (JoseError, ValueError, TypeError, RecursionError, AttributeError):
        raise TokenRefused("it is not a signed token") from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS or algorithm not in algorithms:
        raise TokenRefused("it is signed in a way that is not accepted")
    fitting = [key for key in keys if key.key_type == ALGORITHMS[algorithm] and kid in (None, key.kid)]
    if not fitting:
        raise UnknownKey("its key is not one of the provider's")
    if len(fitting) > 1:
        raise TokenRefused("it does not say which of several keys it is signed with")
    return fitting[0], algorithm, kid is not None


def _check(claims: Mapping[str, Any], expected: Expected, now_s: float) -> None:
    if claims.get("iss") != expected.issuer:
        raise TokenRefused("it is from another issuer")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if expected.client_id not in audiences:
        raise TokenRefused("it is for somebody else")
    if claims.get("azp", expected.client_id) != expected.client_id or (
        len(audiences) > 1 and "azp" not in claims
    ):
        raise TokenRefused("it was issued to somebody else")
    # Written so that what is not a number, or "not a number", is refused too.
    if not _is_number(claims.get("exp")) or not claims["exp"] > now_s - LEEWAY_S:
        raise TokenRefused("it has expired")
    for name in ("iat", "nbf"):
        if name in claims and not (_is_number(claims[name]) and claims[name] <= now_s + LEEWAY_S):
            raise TokenRefused("it is from the future")
    nonce = text_claim(claims, "nonce") or ""
    if not hmac.compare_digest(nonce.encode(), expected.nonce.encode()):
        raise TokenRefused("it answers another request")
    subject = text_claim(claims, "sub")
    if not subject or len(subject) > _MAX_SUBJECT_CHARS:
        raise TokenRefused("it names nobody")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
