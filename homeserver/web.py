"""HTTP for both APIs: route rows, requests, and the one place where errors become replies.

``Dispatcher`` is handed to ``aiohttp.web.Server``.  For each request it finds the
route, asks who is calling, checks the rate limit, reads the body within its bound,
calls the route's handler and writes the reply.  It decides nothing about Matrix
itself: authentication is a callable given to it, and handlers are the APIs' business.
Specification: "API Standards", "Web Browser Clients" and "Rate limiting".
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from enum import Enum
from typing import Any, TypeAlias

import msgspec
import structlog
from aiohttp import hdrs

from homeserver import aiohttp_web as web
from homeserver.bodies import T, decode_object, decode_struct
from homeserver.errors import (
    MatrixError,
    guest_access_forbidden,
    invalid_param,
    missing_param,
    user_locked,
    user_suspended,
)
from homeserver.origins import Cors, Origins
from homeserver.queries import parse_query
from homeserver.ratelimit import RateLimiter
from homeserver.refusals import internal_error, refusal_of
from homeserver.replies import CLIENT_CLOSED_REQUEST, Reply, Stream, error_response, response_to, send_stream
from homeserver.routing import Router
from homeserver.users.requester import Requester

log = structlog.get_logger(__name__)
_level = logging.getLogger(__name__)

#: Told of every answered request: method, the route's path, status and seconds.
Observe: TypeAlias = Callable[[str, str, int, float], None]

#: How long the next piece of a body may take to arrive, in seconds.
_BODY_PATIENCE = 60.0
#: Bytes a second that a body has to bring after that, or one byte a minute would do.
_SLOWEST_BODY = 8 * 1024

#: Characters of a reason that are logged: some repeat what the caller sent.
_MAX_REASON = 200


class Access(Enum):
    """Who may call a route."""

    PUBLIC = "public"
    USER = "user"
    USER_OR_NOBODY = "user or nobody"  # an access token is looked at when there is one
    SERVER = "server"  # another homeserver, by its X-Matrix signature


class Request:
    """A request on its way to a handler."""

    __slots__ = ("_dispatcher", "_first", "_http", "_max_body", "_origin", "_query", "_requester", "body",
                 "headers", "method", "params", "path", "remote_ip")  # fmt: skip

    def __init__(
        self,
        http: web.BaseRequest,
        *,
        path: str,
        params: Mapping[str, str],
        query: Mapping[str, list[str]],
        remote_ip: str,
        max_body: int,
        dispatcher: Dispatcher,
    ) -> None:
        self._http = http
        self._dispatcher = dispatcher
        self._query = query
        self._first: dict[str, str] | None = None
        self._max_body = max_body
        self._requester: Requester | None = None
        self._origin: str | None = None
        self.method = http.method
        #: As it was sent, still percent-encoded, without the query string.
        self.path = path
        #: The path's parameters, percent-decoded.
        self.params = params
        self.headers: Mapping[str, str] = http.headers
        self.remote_ip = remote_ip
        self.body = b""

    @property
    def http(self) -> web.BaseRequest:
        """The request as aiohttp has it, for handlers that prepare a stream of their own."""
        return self._http

    @property
    def requester(self) -> Requester:
        """Who is asking.  ``LookupError`` where the route let nobody in particular ask."""
        if self._requester is None:
            raise LookupError("this request carries no access token")
        return self._requester

    @property
    def requester_if_any(self) -> Requester | None:
        """Who is asking, if they said so."""
        return self._requester

    @property
    def origin(self) -> str:
        """The server that signed the request.  ``LookupError`` on routes not for servers."""
        if self._origin is None:
            raise LookupError("this request was not made by a server")
        return self._origin

    @property
    def max_body(self) -> int:
        """The most bytes that one body, or one message in its place, may have."""
        return self._max_body

    @property
    def cors_headers(self) -> Mapping[str, str]:
        """For handlers that prepare a stream of their own."""
        return self._dispatcher.cors_headers(self._http)

    async def check_caller(self) -> Requester:
        """Who is asking, as of now; raises what the request would be refused with if it came now."""
        return await self._dispatcher.check_caller(self)

    async def ask(self, method: str, path: str, body: bytes) -> Reply:
        """The reply to a request that comes inside this one, by the same caller.

        It is admitted, limited and counted like one that came by itself; raises what it is refused with.
        """
        return await self._dispatcher.ask(self, method, path, body)

    @property
    def query(self) -> dict[str, str]:
        """The query parameters; the first value where one is repeated."""
        if self._first is None:
            self._first = {name: values[0] for name, values in self._query.items()}
        return self._first

    def query_all(self, name: str) -> list[str]:
        """Every value of a query parameter, in order."""
        return list(self._query.get(name, ()))

    def query_text(self, name: str) -> str:
        """A query parameter that must be there; ``M_MISSING_PARAM`` otherwise."""
        if name not in self._query:
            raise missing_param(f"The query parameter '{name}' is missing")
        return self._query[name][0]

    def query_int(self, name: str, default: int, minimum: int = 0, maximum: int = 2**53 - 1) -> int:
        """A whole number, lowered to ``maximum``; ``M_INVALID_PARAM`` for others or below ``minimum``."""
        text = self._query[name][0] if name in self._query else None
        if text is None:
            return default
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            raise invalid_param(f"The query parameter '{name}' is not a whole number")
        value = int(text)
        if value < minimum:
            raise invalid_param(f"The query parameter '{name}' is less than {minimum}")
        return min(value, maximum)

    def query_bool(self, name: str, default: bool = False) -> bool:
        """``true`` or ``false``; ``M_INVALID_PARAM`` for anything else."""
        return self.query_choice(name, "true" if default else "false", ("true", "false")) == "true"

    def query_choice(self, name: str, default: str, choices: Iterable[str]) -> str:
        """One of ``choices``; ``M_INVALID_PARAM`` for anything else."""
        value = self._query[name][0] if name in self._query else default
        if value != default and value not in choices:
            raise invalid_param(f"The query parameter '{name}' has no value '{value[:50]}'")
        return value

    def json(self, *, empty_ok: bool = False) -> dict[str, Any]:
        """The body, which must be a JSON object (``M_NOT_JSON``, ``M_BAD_JSON``).

        ``empty_ok`` takes an empty body for ``{}``.  From a client, values that no reply
        and no table could hold (NULs, integers past 64 bits, nesting past 100) are
        refused; a peer's body is taken as it is, for one bad event must not cost the others.
        """
        if empty_ok and not self.body:
            return {}
        return decode_object(self.body, storable=self._origin is None)

    def decode(self, kind: type[T], *, empty_ok: bool = False) -> T:
        """The body as a ``msgspec.Struct``; ``M_BAD_JSON`` names the field that does not fit."""
        body = b"{}" if empty_ok and not self.body else self.body
        return decode_struct(body, kind, storable=self._origin is None)

    def body_at_hand(self) -> bytes | None:
        """The whole body if it is here already, as those that come with their head are; else ``None``."""
        content = self._http.content
        if not content.is_eof():
            return None
        body = content.read_nowait()
        if len(body) > self._max_body:
            raise _too_large(self._max_body)
        return body

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body in pieces, for routes that stream; ``M_TOO_LARGE`` past the route's bound."""
        if (self._http.content_length or 0) > self._max_body:
            raise _too_large(self._max_body)
        at_hand = self.body_at_hand()
        if at_hand is not None:
            if at_hand:
                yield at_hand
            return
        size, started = 0, asyncio.get_running_loop().time()
        while not self._http.content.at_eof():
            earned = started + size / _SLOWEST_BODY - asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(_BODY_PATIENCE + min(earned, 0)):
                    chunk = await self._http.content.readany()
            except TimeoutError:
                raise MatrixError(408, "M_UNKNOWN", "The body did not arrive in time") from None
            size += len(chunk)
            if size > self._max_body:
                raise _too_large(self._max_body)
            if chunk:
                yield chunk


Handler: TypeAlias = Callable[[Request], Awaitable[Reply]]
AuthenticateUser: TypeAlias = Callable[[Mapping[str, str], Mapping[str, str]], Awaitable[Requester]]
#: Whether rate limits are not for who makes a request, by its headers and query.
IsUnlimited: TypeAlias = Callable[[Mapping[str, str], Mapping[str, str]], bool]
AuthenticateServer: TypeAlias = Callable[[str, str, Mapping[str, str], bytes], Awaitable[str]]


NoteUse: TypeAlias = Callable[[Requester, str, "str | None"], None]


def _nobody_notes(_requester: Requester, _ip: str, _user_agent: str | None) -> None:
    """Where nobody asks who was here."""


class Route(msgspec.Struct, frozen=True):
    """A row of an API's table.

    ``path`` is as the specification writes it, ``limit`` the name of a rate limit,
    ``max_body`` in bytes (the dispatcher's bound by default).  A route that ``streams``
    finds ``body`` empty and reads ``Request.chunks()``.  ``guests``: they may call it too.
    """

    method: str
    path: str
    handler: Handler
    access: Access = Access.USER
    limit: str | None = None
    max_body: int | None = None
    streams: bool = False
    guests: bool = False
    #: Whether accounts may call it that are locked, or suspended (``users.moderation``).
    for_locked: bool = False
    for_suspended: bool = True


class Dispatcher:
    """Answers requests from a table of routes; call it with an aiohttp request.

    ``authenticate_user(headers, query)`` gives the requester behind an access token,
    ``authenticate_server(method, raw_path_and_query, headers, body)`` the signing server's
    name; both raise ``MatrixError`` to refuse.  ``trust_forwarded_for`` believes the last
    entry of ``X-Forwarded-For``: only behind a reverse proxy that writes it.  ``observe`` is
    told of every answer, ``note_use(requester, ip, user_agent)`` of every user who is admitted;
    ``is_unlimited`` names clients that no rate limit is for; ``origins`` are those of web pages.
    ``ValueError`` for a table that contradicts itself or names an unknown rate limit.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        authenticate_user: AuthenticateUser,
        authenticate_server: AuthenticateServer,
        rate_limiter: RateLimiter,
        max_body: int = 1024 * 1024,
        trust_forwarded_for: bool = False,
        observe: Observe | None = None,
        is_unlimited: IsUnlimited | None = None,
        note_use: NoteUse = _nobody_notes,
        origins: Origins | None = None,
    ) -> None:
        table = list(routes)
        for route in table:
            if route.limit is not None and route.limit not in rate_limiter:
                raise ValueError(f"{route.method} {route.path} names the unknown limit '{route.limit}'")
        self._router = Router(table)
        self._authenticate_user = authenticate_user
        self._authenticate_server = authenticate_server
        self._rate_limiter = rate_limiter
        self._max_body = max_body
        self._trust_forwarded_for = trust_forwarded_for
        self._observe = observe
        self._is_unlimited = is_unlimited
        self._note_use = note_use
        self._origins = origins or Origins()

    async def __call__(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; whatever goes wrong becomes a reply."""
        started = time.perf_counter()
        path, _, raw_query = _origin_form(http).partition("?")
        if http.method == "OPTIONS":
            _log_access(http, path, 200, started, None)
            return web.Response(headers=self._cors(http).headers)
        route: Route | None = None
        request: Request | None = None
        refusal: Exception | None = None
        cut_off = False
        try:
            route, params = self._router.find(http.method, path)
            request = Request(
                http,
                path=path,
                params=params,
                query=parse_query(raw_query),
                remote_ip=self._remote_ip(http),
                max_body=self._max_body if route.max_body is None else route.max_body,
                dispatcher=self,
            )
            reply = await self._answer(route, request)
            cors = self._cors(http)
            response = (
                await send_stream(http, reply, cors)
                if isinstance(reply, Stream)
                else response_to(reply, http, cors)
            )
        except asyncio.CancelledError:
            _log_access(http, path, CLIENT_CLOSED_REQUEST, started, request)
            raise
        except Exception as error:
            refusal = error
            response = error_response(error, http, path, self._cors(http))
            cut_off = http.writer.output_size > 0
        _log_access(http, path, response.status, started, request, refusal=refusal)
        if self._observe is not None:
            seconds = time.perf_counter() - started
            self._observe(http.method, route.path if route else "none", response.status, seconds)
        if cut_off:
            raise ConnectionResetError("failed in the middle of a reply, whose head is out already")
        return response

    async def _answer(self, route: Route, request: Request) -> Reply:
        """Admit the caller, read the body, call the handler.

        A server's signature covers the body, which is therefore read first; everyone
        else is admitted before we spend anything on what they send.
        """
        if route.access is Access.SERVER:
            request.body = b"" if route.streams else await _whole_body(request)
            request._origin = await self._authenticate_server(
                request.method, _origin_form(request.http), request.headers, request.body
            )
            self._check_limit(route, request._origin)
        else:
            await self._admit_client(route, request)
            request.body = b"" if route.streams else await _whole_body(request)
        return await route.handler(request)

    async def _admit_client(self, route: Route, request: Request) -> None:
        wants_user = route.access is Access.USER or (
            route.access is Access.USER_OR_NOBODY and has_access_token(request.headers, request.query)
        )
        if wants_user:
            request._requester = requester = await self._user(route, request)
            self._note_use(requester, request.remote_ip, request.headers.get(hdrs.USER_AGENT))
        if route.limit is None or not self._rate_limiter.enabled:
            return
        if self._is_unlimited is None or not self._is_unlimited(request.headers, request.query):
            self._check_limit(route, request._requester.user_id if request._requester else request.remote_ip)

    async def _user(self, route: Route, request: Request) -> Requester:
        requester = await self._authenticate_user(request.headers, request.query)
        if requester.is_locked and not route.for_locked:
            raise user_locked()
        if requester.is_suspended and not route.for_suspended:
            raise user_suspended()
        if requester.is_guest and route.access is Access.USER and not route.guests:
            raise guest_access_forbidden("Guests may not do this")
        return requester

    def cors_headers(self, http: web.BaseRequest) -> Mapping[str, str]:
        """What tells a browser whether the page that asks may see the answer."""
        return self._cors(http).headers

    def _cors(self, http: web.BaseRequest) -> Cors:
        return self._origins.cors(http.headers.get(hdrs.ORIGIN))

    async def check_caller(self, request: Request) -> Requester:
        """See ``Request.check_caller``."""
        route, _ = self._router.find(request.method, request.path)
        return await self._user(route, request)

    async def ask(self, outer: Request, method: str, path: str, body: bytes) -> Reply:
        """See ``Request.ask``."""
        started = time.perf_counter()
        route, params = self._router.find(method, path)
        request = Request(
            outer.http,
            path=path,
            params=params,
            query=outer._query,
            remote_ip=outer.remote_ip,
            max_body=outer.max_body,
            dispatcher=self,
        )
        request.method, request.body = method, body
        status = 200
        try:
            await self._admit_client(route, request)
            return await route.handler(request)
        except Exception as error:
            status = (refusal_of(error) or internal_error()).status
            raise
        finally:
            if self._observe is not None:
                self._observe(method, route.path, status, time.perf_counter() - started)

    def _check_limit(self, route: Route, key: str) -> None:
        if route.limit is not None:
            self._rate_limiter.check(route.limit, key)

    def _remote_ip(self, http: web.BaseRequest) -> str:
        forwarded = http.headers.get("X-Forwarded-For") if self._trust_forwarded_for else None
        return forwarded.rsplit(",", 1)[-1].strip() if forwarded else http.remote or ""


def has_access_token(headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
    """Whether a client says who it is (spec: "Using access tokens")."""
    return hdrs.AUTHORIZATION in headers or "access_token" in query


def _origin_form(http: web.BaseRequest) -> str:
    """The request's target from its path on; clients of proxies send the whole URL."""
    target = http.raw_path
    if target.startswith(("http://", "https://")):
        return "/" + target.split("/", 3)[3] if target.count("/") > 2 else "/"
    return target


async def _whole_body(request: Request) -> bytes:
    if not request.http.body_exists:
        return b""
    body = request.body_at_hand()
    return b"".join([chunk async for chunk in request.chunks()]) if body is None else body


def _too_large(bound: int) -> MatrixError:
    return MatrixError(413, "M_TOO_LARGE", f"The body is larger than {bound} bytes")


def _log_access(
    http: web.BaseRequest,
    path: str,
    status: int,
    started: float,
    request: Request | None,
    *,
    refusal: Exception | None = None,
) -> None:
    """One line a request, with what was refused.  Never the query string: it may hold an access token."""
    if status < 400 and not _level.isEnabledFor(logging.DEBUG):
        return  # making a line that nobody reads would be a good part of the request's cost
    requester = request.requester_if_any if request else None
    write = log.debug if status < 400 else log.info
    write(
        "request",
        method=http.method,
        path=path,
        status=status,
        ms=round((time.perf_counter() - started) * 1000, 1),
        remote_ip=request.remote_ip if request else http.remote,
        caller=requester.user_id if requester else request._origin if request else None,
        **({"reason": str(refusal)[:_MAX_REASON]} if isinstance(refusal, MatrixError) else {}),
    )
