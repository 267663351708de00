"""An identity server, over HTTPS on a free port: what a homeserver asks of one, with real keys.

Whose an address is it believes whoever validated it; ``validate`` stands for the email that is
sent for that.  Specification: identity service API.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer
from canonicaljson import encode_canonical_json
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

TOKEN = "client-token_1.2~+/="
PEPPER = "matrixrocks"

#: Tells a homeserver (its name, the body of ``/3pid/onbind``) of what somebody was invited to.
Notify: TypeAlias = Callable[[str, dict[str, Any]], Awaitable[object]]


def unpadded(value: bytes) -> str:
    return base64.b64encode(value).decode().rstrip("=")


def hashed(address: str, medium: str = "email") -> str:
    digest = hashlib.sha256(f"{address} {medium} {PEPPER}".encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


@dataclass
class IdentityServer:
    """What it knows, and whom it trusts: ``homeservers`` are verify keys by server name."""

    notify: Notify | None = None
    homeservers: dict[str, bytes] = field(default_factory=dict)
    algorithms: list[str] = field(default_factory=lambda: ["none", "sha256"])
    name: str = ""
    key: SigningKey = field(default_factory=SigningKey.generate)
    #: User ids by medium and address.
    bound: dict[tuple[str, str], str] = field(default_factory=dict)
    #: Addresses by session and secret.
    validated: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    #: Invites that are kept, as they came, each with its token.
    invites: list[dict[str, Any]] = field(default_factory=list)
    #: Every lookup.
    asked: list[dict[str, Any]] = field(default_factory=list)
    can_unbind: bool = True

    @property
    def validity_url(self) -> str:
        return f"https://{self.name}/_matrix/identity/v2/pubkey/isvalid"

    def validate(self, address: str, sid: str = "sid", secret: str = "secret") -> dict[str, str]:
        """Somebody has shown that an address is theirs; their credentials."""
        self.validated[sid, secret] = ("email", address)
        return {"sid": sid, "client_secret": secret}

    def app(self) -> web.Application:
        app, v2 = web.Application(middlewares=[self._checked]), "/_matrix/identity/v2"
        app.router.add_get(f"{v2}/hash_details", self._hash_details)
        app.router.add_post(f"{v2}/lookup", self._lookup)
        app.router.add_post(f"{v2}/store-invite", self._store_invite)
        app.router.add_post(f"{v2}/3pid/bind", self._bind)
        app.router.add_post(f"{v2}/3pid/unbind", self._unbind)
        app.router.add_get(f"{v2}/pubkey/isvalid", self._is_valid)
        return app

    @web.middleware
    async def _checked(self, request: web.Request, handler: Any) -> web.StreamResponse:
        open_to_all = request.path.endswith(("/pubkey/isvalid", "/3pid/unbind"))
        if not open_to_all and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _refused(401, "M_UNAUTHORIZED")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _hash_details(self, request: web.Request) -> web.Response:
        return web.json_response({"algorithms": self.algorithms, "lookup_pepper": PEPPER})

    async def _lookup(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.asked.append(asked)
        if asked["algorithm"] not in self.algorithms or asked["pepper"] != PEPPER:
            return _refused(400, "M_INVALID_PEPPER")
        names = {hashed(address, medium): user for (medium, address), user in self.bound.items()}
        if asked["algorithm"] == "none":
            names = {f"{address} {medium}": user for (medium, address), user in self.bound.items()}
        mappings = {name: names[name] for name in asked["addresses"] if name in names}
        return web.json_response({"mappings": mappings})

    async def _store_invite(self, request: web.Request) -> web.Response:
        invite = await request.json()
        if (invite["medium"], invite["address"]) in self.bound:
            return _refused(400, "M_THREEPID_IN_USE")
        token = f"token{len(self.invites)}"
        self.invites.append({**invite, "token": token})
        public_key = unpadded(bytes(self.key.verify_key))
        keys = [{"public_key": public_key, "key_validity_url": self.validity_url}]
        name = re.sub(r"(?<=^.).*(?=@)|(?<=@.).*", "...", invite["address"])
        return web.json_response(
            {"token": token, "public_keys": keys, "public_key": public_key, "display_name": name}
        )

    async def _bind(self, request: web.Request) -> web.Response:
        asked = await request.json()
        found = self.validated.get((asked["sid"], asked["client_secret"]))
        if found is None:
            return _refused(404, "M_NO_VALID_SESSION")
        (medium, address), user_id = found, asked["mxid"]
        self.bound[found] = user_id
        kept = [each for each in self.invites if (each["medium"], each["address"]) == found]
        if kept and self.notify is not None:
            invites = [self._notification(each, user_id) for each in kept]
            body = {"medium": medium, "address": address, "mxid": user_id, "invites": invites}
            await self.notify(user_id.partition(":")[2], body)
        statement = {"medium": medium, "address": address, "mxid": user_id, "ts": 1, "not_before": 1}
        return web.json_response(self._signed({**statement, "not_after": 2**50}))

    async def _unbind(self, request: web.Request) -> web.Response:
        if not self.can_unbind:
            return _refused(501, "M_UNRECOGNIZED")
        asked, header = await request.json(), request.headers.get("Authorization", "")
        fields = dict(re.findall(r'(\w+)="([^"]*)"', header))
        signed = {
            "method": "POST",
            "uri": request.raw_path,
            "origin": fields["origin"],
            "destination": self.name,
            "content": asked,
        }
        try:
            signature = base64.b64decode(fields["sig"] + "==")
            VerifyKey(self.homeservers[fields["origin"]]).verify(encode_canonical_json(signed), signature)
        except (BadSignatureError, KeyError):
            return _refused(403, "M_FORBIDDEN")
        if asked["mxid"].partition(":")[2] != fields["origin"]:
            return _refused(403, "M_FORBIDDEN")
        address = (asked["threepid"]["medium"], asked["threepid"]["address"])
        if self.bound.get(address) == asked["mxid"]:
            del self.bound[address]
        return web.json_response({})

    async def _is_valid(self, request: web.Request) -> web.Response:
        valid = request.query["public_key"] == unpadded(bytes(self.key.verify_key))
        return web.json_response({"valid": valid})

    def _notification(self, invite: dict[str, Any], user_id: str) -> dict[str, Any]:
        statement = {"mxid": user_id, "token": invite["token"]}
        told = {name: invite[name] for name in ("medium", "address", "room_id", "sender")}
        return {**told, "mxid": user_id, "signed": self._signed(statement)}

    def _signed(self, statement: dict[str, Any]) -> dict[str, Any]:
        signature = unpadded(self.key.sign(encode_canonical_json(statement)).signature)
        return {**statement, "signatures": {self.name: {"ed25519:0": signature}}}


def _refused(status: int, errcode: str) -> web.Response:
    body = json.dumps({"errcode": errcode, "error": "The identity server says no"})
    return web.Response(status=status, text=body, content_type="application/json")


@asynccontextmanager
async def identity_server(
    authority: trustme.CA, notify: Notify | None = None
) -> AsyncIterator[IdentityServer]:
    """A running one, whose ``name`` is its address."""
    running = IdentityServer(notify)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    server = TestServer(running.app(), host="127.0.0.1", scheme="https")
    await server.start_server(ssl=tls)
    running.name = f"127.0.0.1:{server.port}"
    try:
        yield running
    finally:
        await server.close()


def ca_file(authority: trustme.CA, folder: Path) -> Path:
    """The authority's certificate as a file."""
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path
