"""Asking identity servers: whose an address is, that it is somebody's, or nobody's any more.

Only servers that the configuration trusts are asked, because a client names them.  An
identity server's refusal is the client's answer.  What was told them is remembered, so
that it can be taken back.
Specification: identity service API; client-server API, "Adding Account Administrative
Contact Information".
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Final, Protocol, TypeAlias
from urllib.parse import quote

import structlog

from homeserver.errors import MatrixError, RemoteError
from homeserver.protocol.canonical_json import encode
from homeserver.protocol.ids import is_user_id
from homeserver.storage import third_party_ids
from homeserver.storage.database import Database
from homeserver.storage.third_party_ids import Binding
from homeserver.users.third_party_ids import canonical

_log = structlog.get_logger()

_TIMEOUT_SECONDS: Final = 10.0
_MAX_MESSAGE: Final = 500
#: What servers answer that do not know how to take a binding back.
_UNSUPPORTED: Final = (400, 404, 405, 501)

#: Signs a request in this server's name: method, URI, destination and body to an ``Authorization`` header.
Sign: TypeAlias = Callable[[str, str, str, bytes], str]


class JsonOverHttp(Protocol):
    """Asks web servers (``egress.Egress``); raises ``RemoteError``."""

    async def get_json(
        self, url: str, *, headers: Mapping[str, str] | None = None, timeout: float = ...
    ) -> tuple[int, Any]:
        """``GET`` a URL."""
        ...

    async def post_json(
        self, url: str, body: Any, *, headers: Mapping[str, str] | None = None, timeout: float = ...
    ) -> tuple[int, Any]:
        """``POST`` a value."""
        ...


class IdentityServers:
    """The identity servers that are trusted, and what they can be asked.

    Each question raises 400 ``M_SERVER_NOT_TRUSTED`` for another server, ``RemoteError`` for
    one that fails, and the server's own refusal.  ``token`` is what the client got from it.
    """

    def __init__(self, http: JsonOverHttp, trusted: Collection[str], sign: Sign) -> None:
        self._http = http
        self._trusted = frozenset(trusted)
        self._sign = sign

    def trusts(self, id_server: str) -> bool:
        """Whether an identity server may be asked."""
        return id_server in self._trusted

    async def bind(
        self, id_server: str, token: str, *, sid: str, client_secret: str, user_id: str
    ) -> tuple[str, str]:
        """Have a validated address be a user's; its medium and address."""
        content = {"sid": sid, "client_secret": client_secret, "mxid": user_id}
        bound = await self._post(id_server, "/3pid/bind", content, token)
        medium, address = bound.get("medium"), bound.get("address")
        if not isinstance(medium, str) or not isinstance(address, str):
            raise _malformed(id_server)
        return medium, address

    async def unbind(self, id_server: str, user_id: str, medium: str, address: str) -> bool:
        """Have an address be a user's no more; ``False`` where the server does not support that."""
        path = _path("/3pid/unbind")
        content = {"mxid": user_id, "threepid": {"medium": medium, "address": address}}
        self._check_trusted(id_server)
        signature = self._sign("POST", path, id_server, encode(content))
        status, answer = await self._http.post_json(
            f"https://{id_server}{path}",
            content,
            headers={"Authorization": signature},
            timeout=_TIMEOUT_SECONDS,
        )
        if status in _UNSUPPORTED:
            return False
        _content(id_server, status, answer)
        return True

    async def look_up(self, id_server: str, token: str, medium: str, address: str) -> str | None:
        """The user whose address it is, if the server knows; the address leaves hashed where it can."""
        self._check_trusted(id_server)
        url = f"https://{id_server}{_path('/hash_details')}"
        details = _content(
            id_server, *await self._http.get_json(url, headers=_bearer(token), timeout=_TIMEOUT_SECONDS)
        )
        pepper, algorithms = details.get("lookup_pepper"), details.get("algorithms")
        if not isinstance(pepper, str) or not isinstance(algorithms, list):
            raise _malformed(id_server)
        if "sha256" in algorithms:
            algorithm, asked = "sha256", _hashed(f"{address} {medium} {pepper}")
        elif "none" in algorithms:
            algorithm, asked = "none", f"{address} {medium}"
        else:
            raise _malformed(id_server)
        content = {"algorithm": algorithm, "pepper": pepper, "addresses": [asked]}
        found = (await self._post(id_server, "/lookup", content, token)).get("mappings")
        user_id = found.get(asked) if isinstance(found, dict) else None
        if user_id is not None and (not isinstance(user_id, str) or not is_user_id(user_id)):
            raise _malformed(id_server)
        return user_id

    async def store_invite(self, id_server: str, token: str, invite: Mapping[str, Any]) -> dict[str, Any]:
        """Have an invite kept until its address is somebody's; the server's whole answer."""
        return await self._post(id_server, "/store-invite", invite, token)

    async def _post(self, id_server: str, path: str, content: Any, token: str) -> dict[str, Any]:
        self._check_trusted(id_server)
        url = f"https://{id_server}{_path(path)}"
        answer = await self._http.post_json(url, content, headers=_bearer(token), timeout=_TIMEOUT_SECONDS)
        return _content(id_server, *answer)

    def _check_trusted(self, id_server: str) -> None:
        if not self.trusts(id_server):
            raise MatrixError(400, "M_SERVER_NOT_TRUSTED", "That identity server is not trusted here")


class IdentityBindings:
    """What identity servers were told of local users, and taking it back."""

    def __init__(self, db: Database, servers: IdentityServers) -> None:
        self._db = db
        self._servers = servers

    async def bind(self, user_id: str, id_server: str, token: str, *, sid: str, client_secret: str) -> None:
        """Have an identity server know an address as a user's; raises as ``IdentityServers``."""
        medium, address = await self._servers.bind(
            id_server, token, sid=sid, client_secret=client_secret, user_id=user_id
        )
        binding = Binding(medium, canonical(medium, address), id_server)
        await self._db.write(lambda tx: third_party_ids.bind(tx, user_id, binding))

    async def unbind(self, user_id: str, medium: str, address: str, id_server: str | None) -> bool:
        """Take a binding back, from this server or all that were told; whether every one did.

        ``False`` also where no server is known.  Raises ``M_INVALID_PARAM``, and as ``IdentityServers``.
        """
        kept = canonical(medium, address)
        if id_server is None:
            told = await third_party_ids.bindings(self._db.read, user_id)
            bindings = [each for each in told if (each.medium, each.address) == (medium, kept)]
        else:
            bindings = [Binding(medium, kept, id_server)]
        undone = await asyncio.gather(*(self._undo(user_id, binding) for binding in bindings))
        return bool(undone) and all(undone)

    async def unbind_all(self, user_id: str, id_server: str | None) -> bool:
        """Take all bindings of a user back as far as that goes; whether none is left."""
        told = await third_party_ids.bindings(self._db.read, user_id)
        bindings = {Binding(each.medium, each.address, id_server or each.id_server) for each in told}
        return all(await asyncio.gather(*(self._tried(user_id, binding) for binding in bindings)))

    async def _undo(self, user_id: str, binding: Binding) -> bool:
        done = await self._servers.unbind(binding.id_server, user_id, binding.medium, binding.address)
        if done:
            await self._db.write(lambda tx: third_party_ids.unbind(tx, user_id, binding))
        return done

    async def _tried(self, user_id: str, binding: Binding) -> bool:
        try:
            return await self._undo(user_id, binding)
        except (MatrixError, RemoteError) as error:
            _log.info("address not unbound", id_server=binding.id_server, reason=str(error))
            return False


def _path(path: str) -> str:
    return f"/_matrix/identity/v2{quote(path)}"


def _bearer(token: str) -> dict[str, str]:
    # A header may not hold what a client could otherwise put into it.
    return {"Authorization": f"Bearer {quote(token, safe='-._~+/=')}"}


def _hashed(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _content(id_server: str, status: int, answer: Any) -> dict[str, Any]:
    """What a server answered; its refusal is passed on, but a 401, which would log the client out here."""
    if not isinstance(answer, dict):
        raise _malformed(id_server)
    if status == 200:
        return answer
    errcode, message = answer.get("errcode"), answer.get("error")
    if not 400 <= status < 500 or not isinstance(errcode, str):
        raise _malformed(id_server)
    text = message if isinstance(message, str) else "The identity server refuses"
    raise MatrixError(403 if status == 401 else status, errcode[:_MAX_MESSAGE], text[:_MAX_MESSAGE])


def _malformed(id_server: str) -> RemoteError:
    return RemoteError(
        id_server, "The identity server did not answer as it should", reachable=True, transient=False
    )
