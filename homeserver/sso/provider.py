"""An OpenID Connect provider, as this server talks with it.

What the provider publishes about itself is remembered for an hour, its keys until a
token names another; a provider that does not answer is left alone for a few seconds.
Specification: OpenID Connect Discovery 1.0; OpenID Connect Core 1.0, section 3.1;
RFC 6749, section 4.1; RFC 7636 (PKCE).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote_plus, urlencode, urlsplit

import msgspec

from homeserver.clock import Clock
from homeserver.config.login import Provider as Settings
from homeserver.errors import RemoteError
from homeserver.sso.failure import SignOnFailed
from homeserver.sso.id_tokens import (
    Expected,
    TokenRefused,
    UnknownKey,
    usable_keys,
    verified_claims,
)

_TIMEOUT_S = 10.0
_MAX_BYTES = 256 * 1024
_METADATA_LIFETIME_S = 3600.0
#: After a failure, and between two looks for keys that were not there.
_PATIENCE_S = 5.0
_KEYS_PATIENCE_S = 60.0


class Web(Protocol):
    """The way out over HTTP; each gives the status and the JSON of the answer, or raises ``RemoteError``."""

    async def get_json(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout: float, max_bytes: int
    ) -> tuple[int, Any]: ...

    async def post_form(
        self,
        url: str,
        fields: Mapping[str, str],
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float,
        max_bytes: int,
    ) -> tuple[int, Any]: ...


class _Metadata(msgspec.Struct, frozen=True):
    """What a provider publishes about itself, as far as it is used."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    id_token_signing_alg_values_supported: tuple[str, ...] = ("RS256",)
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    prompt_values_supported: tuple[str, ...] = ()


class _Tokens(msgspec.Struct, frozen=True):
    id_token: str
    access_token: str | None = None


class Provider:
    """One provider.  What goes wrong with it is ``SignOnFailed``."""

    def __init__(self, settings: Settings, web: Web, clock: Clock, redirect_uri: str) -> None:
        self.settings = settings
        self._web = web
        self._clock = clock
        self._redirect_uri = redirect_uri
        self._lock = asyncio.Lock()
        self._metadata: _Metadata | None = None
        self._keys: list[Any] = []
        self._metadata_ends_at = 0.0
        self._failed_until = 0.0
        self._keys_asked_until = 0.0

    async def authorization_url(self, *, state: str, nonce: str, verifier: str, prompt: str | None) -> str:
        """Where to send a browser; ``prompt`` (``login``, ``create``) if the provider knows it."""
        metadata = await self._discovered()
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": self._redirect_uri,
            "scope": " ".join(self.settings.scopes),
            "state": state,
            "nonce": nonce,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        if prompt == "login" or prompt in metadata.prompt_values_supported:
            query["prompt"] = prompt or ""
        endpoint = metadata.authorization_endpoint
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def identify(self, code: str, *, nonce: str, verifier: str) -> dict[str, Any]:
        """What the provider says of who came back with a code; ``sub`` is a text among it."""
        metadata = await self._discovered()
        tokens = await self._exchange(metadata, code, verifier)
        claims = await self._verified(metadata, tokens.id_token, nonce)
        if self.settings.userinfo:
            claims = {**await self._userinfo(metadata, tokens, claims["sub"]), **claims}
        return claims

    async def _discovered(self) -> _Metadata:
        now = self._clock.monotonic()
        if self._metadata is not None and now < self._metadata_ends_at:
            return self._metadata
        async with self._lock:
            if self._metadata is not None and now < self._metadata_ends_at:
                return self._metadata
            if self._clock.monotonic() < self._failed_until:
                raise self._out_of_order("it did not answer a moment ago")
            try:
                self._metadata = await self._discover()
            except SignOnFailed:
                self._failed_until = self._clock.monotonic() + _PATIENCE_S
                raise
            self._metadata_ends_at = self._clock.monotonic() + _METADATA_LIFETIME_S
            return self._metadata

    async def _discover(self) -> _Metadata:
        issuer = self.settings.issuer
        found = await self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        try:
            metadata = msgspec.convert(found, _Metadata)
        except msgspec.ValidationError as error:
            raise self._out_of_order(f"its discovery document is not one: {error}") from None
        if metadata.issuer != issuer:
            raise self._out_of_order("its discovery document names another issuer")
        endpoints = [metadata.authorization_endpoint, metadata.token_endpoint, metadata.jwks_uri]
        endpoints += [metadata.userinfo_endpoint] if metadata.userinfo_endpoint else []
        if not all(_is_as_safe_as(issuer, endpoint) for endpoint in endpoints):
            raise self._out_of_order("its discovery document names an endpoint that is not safe")
        return metadata

    async def _exchange(self, metadata: _Metadata, code: str, verifier: str) -> _Tokens:
        settings = self.settings
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }
        headers = {"Accept": "application/json"}
        if settings.client_secret is None:
            form["client_id"] = settings.client_id
        elif "client_secret_basic" in metadata.token_endpoint_auth_methods_supported:
            headers["Authorization"] = _basic(settings.client_id, settings.client_secret)
        else:
            form |= {"client_id": settings.client_id, "client_secret": settings.client_secret}
        try:
            status, answer = await self._web.post_form(
                metadata.token_endpoint, form, headers=headers, timeout=_TIMEOUT_S, max_bytes=_MAX_BYTES
            )
        except RemoteError as error:
            raise self._out_of_order(str(error)) from None
        if status >= 500:
            raise self._out_of_order(f"it answered {status}")
        if status != 200:
            said = answer.get("error") if isinstance(answer, dict) else None
            raise self._refused(f"it does not take the code: {status} {str(said)[:100]}")
        try:
            return msgspec.convert(answer, _Tokens)
        except msgspec.ValidationError as error:
            raise self._refused(f"it gave no tokens: {error}") from None

    async def _verified(self, metadata: _Metadata, token: str, nonce: str) -> dict[str, Any]:
        expected = Expected(self.settings.issuer, self.settings.client_id, nonce)
        algorithms = metadata.id_token_signing_alg_values_supported
        now_s = self._clock.now_ms() / 1000
        try:
            try:
                return verified_claims(token, self._keys, expected, now_s=now_s, algorithms=algorithms)
            except UnknownKey:
                await self._fetch_keys(metadata)
                return verified_claims(token, self._keys, expected, now_s=now_s, algorithms=algorithms)
        except TokenRefused as refused:
            raise self._refused(f"its ID token is refused: {refused}") from None

    async def _fetch_keys(self, metadata: _Metadata) -> None:
        """At most once a minute: a token may name a key that never will be there."""
        async with self._lock:
            if self._clock.monotonic() < self._keys_asked_until:
                return
            self._keys_asked_until = self._clock.monotonic() + _PATIENCE_S
            self._keys = usable_keys(await self._get(metadata.jwks_uri))
            self._keys_asked_until = self._clock.monotonic() + _KEYS_PATIENCE_S

    async def _userinfo(self, metadata: _Metadata, tokens: _Tokens, subject: str) -> dict[str, Any]:
        if metadata.userinfo_endpoint is None or tokens.access_token is None:
            raise self._out_of_order("it has no userinfo endpoint")
        claims = await self._get(
            metadata.userinfo_endpoint, {"Authorization": f"Bearer {tokens.access_token}"}
        )
        # OpenID Connect Core 1.0, section 5.3.2: what is about somebody else must not be used.
        if not isinstance(claims, dict) or claims.get("sub") != subject:
            raise self._refused("its userinfo is about somebody else")
        return claims

    async def _get(self, url: str, headers: Mapping[str, str] | None = None) -> Any:
        try:
            status, answer = await self._web.get_json(
                url, headers=headers, timeout=_TIMEOUT_S, max_bytes=_MAX_BYTES
            )
        except RemoteError as error:
            raise self._out_of_order(str(error)) from None
        if status != 200:
            raise self._out_of_order(f"it answered {status}")
        return answer

    def _out_of_order(self, detail: str) -> SignOnFailed:
        return SignOnFailed(
            f"{self.settings.name} cannot be asked at the moment. Please try again later.",
            status=502,
            detail=f"{self.settings.id}: {detail}",
        )

    def _refused(self, detail: str) -> SignOnFailed:
        return SignOnFailed(
            f"{self.settings.name} did not confirm who you are. Please begin again in your app.",
            detail=f"{self.settings.id}: {detail}",
        )


def _challenge(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def _basic(client_id: str, secret: str) -> str:
    """RFC 6749, section 2.3.1: both are form-encoded first."""
    both = f"{quote_plus(client_id)}:{quote_plus(secret)}"
    return "Basic " + base64.b64encode(both.encode()).decode()


def _is_as_safe_as(issuer: str, endpoint: str) -> bool:
    scheme = urlsplit(endpoint).scheme
    return scheme == "https" or (scheme == "http" and urlsplit(issuer).scheme == "http")
