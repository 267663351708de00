"""Requests to application services.

Each goes to the path that the specification has now, and where the service does not know that, to
the one of earlier drafts.  Specification: application service API, "Homeserver -> Application Service API".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import quote, urlencode

import orjson

from homeserver.appservices.services import AppService
from homeserver.errors import RemoteError

#: A bridge may do a good deal before it acknowledges a transaction.
TRANSACTION_SECONDS: Final = 60.0
#: Somebody waits for the answers to all others.
QUERY_SECONDS: Final = 10.0

_MAX_BYTES: Final = 1024 * 1024
#: What a server says that does not know a path.
_UNKNOWN_PATH: Final = frozenset({404, 405, 501})


class Http(Protocol):
    """Makes HTTP requests (``homeserver/egress.py``)."""

    async def get_json(
        self, url: str, *, headers: Mapping[str, str] | None, timeout: float, max_bytes: int
    ) -> tuple[int, Any]:
        """Status and JSON of an answer, ``None`` where it is no JSON; raises ``RemoteError``."""
        ...

    async def put_json(
        self, url: str, body: Any, *, headers: Mapping[str, str] | None, timeout: float, max_bytes: int
    ) -> tuple[int, Any]:
        """The same."""
        ...

    async def post_json(
        self, url: str, body: Any, *, headers: Mapping[str, str] | None, timeout: float, max_bytes: int
    ) -> tuple[int, Any]:
        """The same."""
        ...


class Client:
    """Asks services; every method raises ``RemoteError`` for one that does not answer.

    A service without a URL is never to be asked.
    """

    def __init__(self, http: Http) -> None:
        self._http = http
        #: Services that have answered at a path of the specification: their 404 is an answer.
        self._modern: set[str] = set()

    async def send(self, service: AppService, txn_id: int, body: bytes) -> bool:
        """``PUT /transactions/{txnId}``; whether the service has taken it."""

        async def put(path: str) -> tuple[int, Any]:
            return await self._http.put_json(
                path,
                orjson.Fragment(body),
                headers=_headers(service),
                timeout=TRANSACTION_SECONDS,
                max_bytes=_MAX_BYTES,
            )

        status, answer = await put(_url(service, f"/_matrix/app/v1/transactions/{txn_id}"))
        if self._does_not_know(service, status, answer):
            status, answer = await put(_legacy_url(service, f"/transactions/{txn_id}"))
        return 200 <= status < 300

    async def has_user(self, service: AppService, user_id: str) -> bool:
        """``GET /users/{userId}``: whether the user is there, made by the service if need be."""
        path = f"/users/{quote(user_id, safe='')}"
        status, _ = await self._get(service, f"/_matrix/app/v1{path}", path)
        return status == 200

    async def has_alias(self, service: AppService, alias: str) -> bool:
        """``GET /rooms/{roomAlias}``: the same for a room."""
        path = f"/rooms/{quote(alias, safe='')}"
        status, _ = await self._get(service, f"/_matrix/app/v1{path}", path)
        return status == 200

    async def third_party(self, service: AppService, path: str, fields: Mapping[str, str]) -> Any:
        """``GET /thirdparty/...``: the JSON of a 200, otherwise ``None``."""
        query = f"?{urlencode(fields)}" if fields else ""
        path = f"/thirdparty/{path}{query}"
        status, answer = await self._get(service, f"/_matrix/app/v1{path}", f"/_matrix/app/unstable{path}")
        return answer if status == 200 else None

    async def ping(self, service: AppService, transaction_id: str | None) -> tuple[int, Any]:
        """``POST /ping``: status and JSON of the answer."""
        return await self._http.post_json(
            _url(service, "/_matrix/app/v1/ping"),
            {} if transaction_id is None else {"transaction_id": transaction_id},
            headers=_headers(service),
            timeout=QUERY_SECONDS,
            max_bytes=_MAX_BYTES,
        )

    async def _get(self, service: AppService, path: str, legacy_path: str) -> tuple[int, Any]:
        status, answer = await self._get_json(service, _url(service, path))
        if self._does_not_know(service, status, answer):
            status, answer = await self._get_json(service, _legacy_url(service, legacy_path))
        return status, answer

    async def _get_json(self, service: AppService, url: str) -> tuple[int, Any]:
        return await self._http.get_json(
            url, headers=_headers(service), timeout=QUERY_SECONDS, max_bytes=_MAX_BYTES
        )

    def _does_not_know(self, service: AppService, status: int, answer: Any) -> bool:
        """Whether an answer is that of a service to which the path means nothing."""
        if status not in _UNKNOWN_PATH:
            if status == 200:
                self._modern.add(service.id)
            return False
        errcode = answer.get("errcode") if isinstance(answer, dict) else None
        return service.id not in self._modern and errcode in (None, "M_UNRECOGNIZED")


def _headers(service: AppService) -> dict[str, str]:
    return {"Authorization": f"Bearer {service.registration.hs_token}"}


def _url(service: AppService, path: str) -> str:
    return f"{service.registration.url}{path}"


def _legacy_url(service: AppService, path: str) -> str:
    """COMPAT: services older than v1.4 of the specification look for the token in the query."""
    token = urlencode({"access_token": service.registration.hs_token})
    return f"{service.registration.url}{path}{'&' if '?' in path else '?'}{token}"


def did_not_answer_in_time(error: RemoteError) -> bool:
    """Whether a request failed for want of time."""
    return isinstance(error.__cause__, TimeoutError)
