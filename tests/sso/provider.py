"""An OpenID Connect provider as a process of its own, which can be told to misbehave.

It signs everybody on without asking, as the person whose claims it was given.  It
takes a code once, from the client and with the verifier that it was made for.
Run as ``python -m tests.sso.provider PORT``; ``PUT /behaviour`` says how it behaves.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import sys
import time
from typing import Any
from urllib.parse import unquote_plus, urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "inglenook", "s3cret: with/odd+characters"


class Provider:
    def __init__(self, port: int) -> None:
        self.issuer = f"http://127.0.0.1:{port}"
        self.keys = {"k1": RSAKey.generate_key(2048, {"kid": "k1", "use": "sig"})}
        self.behaviour: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.put("/behaviour", self.behave),
                web.get("/asked", self.what_was_asked),
                web.get("/.well-known/openid-configuration", self.discovery),
                web.get("/jwks", self.jwks),
                web.get("/authorize", self.authorize),
                web.post("/token", self.token),
                web.get("/userinfo", self.userinfo),
            ]
        )
        return app

    async def behave(self, request: web.Request) -> web.Response:
        self.behaviour = await request.json()
        if self.behaviour.get("new_key"):
            kid = str(self.behaviour["new_key"])
            self.keys = {kid: RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})}
        return web.json_response({})

    async def what_was_asked(self, _: web.Request) -> web.Response:
        return web.json_response(self.asked)

    async def discovery(self, request: web.Request) -> web.Response:
        document = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/jwks",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
            "prompt_values_supported": ["create"],
        }
        return await self.answer(request, {**document, **self.behaviour.get("metadata", {})})

    async def jwks(self, request: web.Request) -> web.Response:
        return await self.answer(
            request, {"keys": [key.as_dict(private=False) for key in self.keys.values()]}
        )

    async def authorize(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        if query["client_id"] != CLIENT_ID or query["code_challenge_method"] != "S256":
            return web.Response(status=400, text="not a client of mine")
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        answer = self.behaviour.get("refuse") or {"code": code}
        location = f"{query['redirect_uri']}?{urlencode({**answer, 'state': query['state']})}"
        return web.Response(status=302, headers={"Location": location})

    async def token(self, request: web.Request) -> web.Response:
        form = dict(await request.post())
        asked = self.codes.pop(str(form.get("code")), None)
        verifier = str(form.get("code_verifier")).encode()
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier).digest()).rstrip(b"=").decode()
        fits = (
            asked is not None
            and asked["code_challenge"] == challenge
            and asked["redirect_uri"] == form.get("redirect_uri")
            and _client(request.headers.get("Authorization", "")) == (CLIENT_ID, CLIENT_SECRET)
        )
        if asked is None or not fits:
            return web.json_response({"error": "invalid_grant"}, status=400)
        return await self.answer(
            request, {"id_token": self.id_token(asked), "access_token": "of-userinfo", "token_type": "Bearer"}
        )

    async def userinfo(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != "Bearer of-userinfo":
            return web.Response(status=401)
        return await self.answer(request, {"sub": "1", **self.behaviour.get("userinfo", {})})

    async def answer(self, request: web.Request, value: Any) -> web.Response:
        self.asked.append(request.path)
        fault = self.behaviour.get("faults", {}).get(request.path)
        if fault == "slow":
            await asyncio.sleep(3600)
        if fault == "huge":
            return web.Response(body=b" " * 10_000_000, content_type="application/json")
        if fault == "deep":
            return web.Response(body=b"[" * 100_000, content_type="application/json")
        if isinstance(fault, int):
            return web.json_response({"error": "fault"}, status=fault)
        if fault is not None:
            return web.json_response(fault["answer"])
        return web.json_response(value)

    def id_token(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": "1",
            "iat": now,
            "exp": now + 300,
            "nonce": asked["nonce"],
            **self.behaviour.get("claims", {}),
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        signed = self.behaviour.get("signed", "RS256")
        kid, key = next(iter(self.keys.items()))
        if signed == "none":
            return ".".join([_b64({"alg": "none"}), _b64(claims), ""])
        if signed == "HS256":
            # The public key as the secret of a symmetric signature: what a careless verifier believes.
            signed_text = f"{_b64({'alg': 'HS256', 'kid': kid})}.{_b64(claims)}"
            mac = hmac.digest(key.as_pem(private=False), signed_text.encode(), "sha256")
            return f"{signed_text}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        if signed == "stranger":
            key = RSAKey.generate_key(2048)
        return jwt.encode({"alg": "RS256", "kid": self.behaviour.get("kid", kid)}, claims, key)


def _client(authorization: str) -> tuple[str, str]:
    name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
    return unquote_plus(name), unquote_plus(secret)


def _b64(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


if __name__ == "__main__":
    _port = int(sys.argv[1])
    web.run_app(Provider(_port).app(), host="127.0.0.1", port=_port, print=None)
