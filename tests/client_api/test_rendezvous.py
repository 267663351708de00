"""Two devices that meet over HTTP: rendezvous sessions as MSC4388 and MSC4108 have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from homeserver.clock import FakeClock
from homeserver.config.rendezvous import Rendezvous
from homeserver.ratelimit import Limit, RateLimiter
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server, configured

NEW = "/_matrix/client/unstable/io.element.msc4388/rendezvous"
OLD = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"
TEXT = {"Content-Type": "text/plain"}


@pytest.fixture
async def public(server: AccountServer) -> AccountServer:
    """A server where everybody may begin a session, as they may by default."""
    return server


@pytest.fixture
async def members_only(sqlite_database: Database) -> AsyncIterator[AccountServer]:
    """A server where only its users may."""
    config = configured(rendezvous=Rendezvous(public=False))
    async with account_server(sqlite_database, config=config, allow_guests=True) as running:
        yield running


async def raw(
    server: AccountServer, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Mapping[str, str], bytes]:
    """Status, headers and body of a request that is not JSON; ``_`` in header names is ``-``."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with server.client.request(method, path, data=body, headers=named) as response:
        return response.status, response.headers, await response.read()


async def begun(server: AccountServer, data: str = "hello") -> dict[str, Any]:
    status, session = await server.call("POST", NEW, {"data": data})
    assert status == 200
    return dict(session)


async def test_two_devices_talk_in_turns(public: AccountServer) -> None:
    session = await begun(public, "from A")
    path = f"{NEW}/{session['id']}"
    assert session["expires_in_ms"] == 300_000
    status, seen = await public.call("GET", path)
    assert (status, seen["data"], seen["sequence_token"]) == (200, "from A", session["sequence_token"])
    answer = {"data": "from B", "sequence_token": seen["sequence_token"]}
    status, written = await public.call("PUT", path, answer)
    assert status == 200
    assert written["sequence_token"] != seen["sequence_token"]
    public.clock.advance(10)
    assert await public.call("GET", path) == (
        200,
        {"data": "from B", "sequence_token": written["sequence_token"], "expires_in_ms": 290_000},
    )
    assert await public.call("DELETE", path) == (200, {})
    for method, body in (("GET", None), ("PUT", answer), ("DELETE", None)):
        assert await public.refused(method, path, body) == (404, "M_NOT_FOUND")


async def test_who_saw_something_older_may_not_write(public: AccountServer) -> None:
    session = await begun(public)
    path, old = f"{NEW}/{session['id']}", session["sequence_token"]
    _, written = await public.call("PUT", path, {"data": "1", "sequence_token": old})
    assert await public.refused("PUT", path, {"data": "2", "sequence_token": old}) == (
        409,
        "IO_ELEMENT_MSC4388_CONCURRENT_WRITE",
    )
    again = await public.call("PUT", path, {"data": "1", "sequence_token": old})
    assert again == (200, written), "a request that is repeated changes nothing"
    _, same = await public.call("PUT", path, {"data": "1", "sequence_token": written["sequence_token"]})
    assert same != written, "the same data written anew is another payload"


async def test_of_many_writers_at_once_one_wins(public: AccountServer) -> None:
    session = await begun(public)
    path, token = f"{NEW}/{session['id']}", session["sequence_token"]
    replies = await asyncio.gather(
        *(public.call("PUT", path, {"data": str(n), "sequence_token": token}) for n in range(10))
    )
    winners = [n for n, (status, _) in enumerate(replies) if status == 200]
    assert len(winners) == 1
    assert (await public.call("GET", path))[1]["data"] == str(winners[0])


async def test_a_session_ends_by_itself(public: AccountServer) -> None:
    path = f"{NEW}/{(await begun(public))['id']}"
    public.clock.advance(299)
    assert (await public.call("GET", path))[0] == 200
    public.clock.advance(1)
    assert await public.refused("GET", path) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({"data": "x" * 4097}, (413, "M_TOO_LARGE")),
        ({"data": "\u20ac" * 1366}, (413, "M_TOO_LARGE")),
        ({"data": "x" * 40_000}, (413, "M_TOO_LARGE")),
        ({"data": 5}, (400, "M_BAD_JSON")),
        ({}, (400, "M_BAD_JSON")),
    ],
)
async def test_what_cannot_be_a_payload(
    public: AccountServer, body: dict[str, Any], refusal: tuple[int, str]
) -> None:
    assert await public.refused("POST", NEW, body) == refusal
    session = await begun(public)
    put = {**body, "sequence_token": session["sequence_token"]}
    assert await public.refused("PUT", f"{NEW}/{session['id']}", put) == refusal


async def test_the_largest_payload_fits(public: AccountServer) -> None:
    session = await begun(public, "\u0001" * 4096)
    assert (await public.call("GET", f"{NEW}/{session['id']}"))[1]["data"] == "\u0001" * 4096


async def test_half_a_character_is_no_text(public: AccountServer) -> None:
    status, _, body = await raw(public, "POST", NEW, b'{"data": "\\ud800"}', Content_Type="application/json")
    assert status == 400
    assert b"M_" in body


async def test_only_users_begin_sessions_where_it_is_not_open_to_all(members_only: AccountServer) -> None:
    server = members_only
    assert await server.call("GET", NEW) == (200, {"create_available": False})
    assert await server.refused("POST", NEW, {"data": ""}) == (403, "M_FORBIDDEN")
    token = await server.user("alice")
    assert await server.call("GET", NEW, token=token) == (200, {"create_available": True})
    status, session = await server.call("POST", NEW, {"data": ""}, token=token)
    assert status == 200
    assert (await server.call("GET", f"{NEW}/{session['id']}"))[0] == 200, "anybody may take part"
    assert (await raw(server, "POST", OLD, b"", **{"Content_Type": "text/plain"}))[0] == 403
    assert await server.refused("POST", NEW, {"data": ""}, token="wrong") == (401, "M_UNKNOWN_TOKEN")


async def test_guests_begin_none_there(members_only: AccountServer) -> None:
    _, guest = await members_only.call("POST", "/register?kind=guest", {})
    token = guest["access_token"]
    assert await members_only.call("GET", NEW, token=token) == (200, {"create_available": False})
    assert await members_only.refused("POST", NEW, {"data": ""}, token=token) == (403, "M_FORBIDDEN")


async def test_it_can_be_switched_off(sqlite_database: Database) -> None:
    config = configured(rendezvous=Rendezvous(enabled=False))
    async with account_server(sqlite_database, config=config) as server:
        for method, path in (
            ("GET", NEW),
            ("POST", NEW),
            ("PUT", f"{NEW}/x"),
            ("POST", OLD),
            ("GET", f"{OLD}/x"),
        ):
            assert await server.refused(method, path, {}) == (404, "M_UNRECOGNIZED"), path
        _, told = await server.call("GET", "/_matrix/client/versions")
        assert not told["unstable_features"]["io.element.msc4388"]
        assert not told["unstable_features"]["org.matrix.msc4108"]


async def test_payloads_are_not_shown_as_pages(public: AccountServer) -> None:
    session = await begun(public)
    _, _, created = await raw(public, "POST", OLD, b"<html>", Content_Type="text/plain")
    for path in (f"{NEW}/{session['id']}", path_of(created)):
        for header, value in (("Sec_Fetch_Mode", "navigate"), ("Sec_Fetch_Dest", "iframe")):
            status, _, body = await raw(public, "GET", path, **{header: value})
            assert (status, b"M_FORBIDDEN" in body) == (403, True)
        assert (await raw(public, "GET", path, Sec_Fetch_Mode="cors", Sec_Fetch_Dest="empty"))[0] == 200


async def test_beginning_sessions_counts_as_logging_in(sqlite_database: Database) -> None:
    slow = RateLimiter({name: Limit(0.01, 2) for name in configured().rate_limits.limits()}, FakeClock())
    config = configured(rendezvous=Rendezvous(public=True))
    async with account_server(sqlite_database, config=config, rate_limiter=slow) as server:
        session = await begun(server)
        await begun(server)
        assert await server.refused("POST", NEW, {"data": ""}) == (429, "M_LIMIT_EXCEEDED")
        path = f"{NEW}/{session['id']}"
        assert [(await server.call("GET", path))[0] for _ in range(3)] == [200, 200, 429]


# As MSC4108 had it.


def path_of(created: bytes) -> str:
    """The path of the session that a reply names by its URL."""
    url = created.decode().split('"')[3]
    assert url.startswith(f"https://a.org{OLD}/")
    return url.removeprefix("https://a.org")


async def test_older_clients_talk_in_turns(public: AccountServer) -> None:
    status, headers, created = await raw(public, "POST", OLD, b"from A", Content_Type="text/plain")
    assert status == 201
    assert headers["Content-Type"] == "application/json"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Pragma"] == "no-cache"
    assert headers["Access-Control-Expose-Headers"] == "ETag"
    assert headers["Access-Control-Allow-Origin"] == "*"
    lifetime = parsedate_to_datetime(headers["Expires"]) - parsedate_to_datetime(headers["Last-Modified"])
    assert lifetime.total_seconds() == 300
    path, first = path_of(created), headers["ETag"]

    status, headers, body = await raw(public, "GET", path)
    assert (status, headers["Content-Type"], headers["ETag"], body) == (200, "text/plain", first, b"from A")
    status, headers, body = await raw(public, "GET", path, If_None_Match=first)
    assert (status, headers["ETag"], body) == (304, first, b"")

    public.clock.advance(7)
    status, headers, body = await raw(
        public, "PUT", path, b"from B", Content_Type="text/plain", If_Match=first
    )
    assert (status, body) == (202, b"")
    second = headers["ETag"]
    assert second != first
    status, headers, body = await raw(public, "GET", path, If_None_Match=first)
    assert (status, headers["ETag"], body) == (200, second, b"from B")
    moved = parsedate_to_datetime(headers["Expires"]) - parsedate_to_datetime(headers["Last-Modified"])
    assert moved.total_seconds() == 293

    status, headers, body = await raw(public, "PUT", path, b"late", Content_Type="text/plain", If_Match=first)
    assert (status, headers["ETag"]) == (412, second)
    assert b'"errcode":"M_UNKNOWN","org.matrix.msc4108.errcode":"M_CONCURRENT_WRITE"' in body

    assert (await raw(public, "DELETE", path))[0] == 204
    for method in ("GET", "DELETE"):
        status, _, body = await raw(public, method, path)
        assert (status, b"M_NOT_FOUND" in body) == (404, True)
    status, _, body = await raw(public, "PUT", path, b"x", Content_Type="text/plain", If_Match=second)
    assert (status, b"M_NOT_FOUND" in body) == (404, True)


@pytest.mark.parametrize(
    ("headers", "errcode"),
    [
        ({"If-Match": '"x"', "Content-Type": "application/json"}, "M_INVALID_PARAM"),
        ({"Content-Type": "text/plain"}, "M_MISSING_PARAM"),
        ({"Content-Type": "text/plain", "If-Match": 'W/"x"'}, "M_INVALID_PARAM"),
        ({"Content-Type": "text/plain", "If-Match": '"x", "y"'}, "M_INVALID_PARAM"),
        ({"Content-Type": "text/plain", "If-Match": "*"}, "M_INVALID_PARAM"),
    ],
)
async def test_malformed_writes_of_older_clients(
    public: AccountServer, headers: dict[str, str], errcode: str
) -> None:
    _, _, created = await raw(public, "POST", OLD, b"", Content_Type="text/plain")
    async with public.client.put(path_of(created), data=b"y", headers=headers) as response:
        assert (response.status, (await response.json())["errcode"]) == (400, errcode)


async def test_payloads_of_older_clients_have_a_type_a_length_and_a_bound(public: AccountServer) -> None:
    async def chunked() -> AsyncIterator[bytes]:
        yield b"x"

    status, _, body = await raw(public, "POST", OLD, b"x", Content_Type="image/png")
    assert (status, b"M_INVALID_PARAM" in body) == (400, True)
    async with public.client.post(OLD, data=b"x", skip_auto_headers=["Content-Type"]) as response:
        assert (response.status, (await response.json())["errcode"]) == (400, "M_MISSING_PARAM")
    async with public.client.post(OLD, data=chunked(), headers=TEXT) as response:
        assert (response.status, (await response.json())["errcode"]) == (400, "M_MISSING_PARAM")
    status, _, body = await raw(public, "POST", OLD, b"x" * 4097, Content_Type="text/plain")
    assert (status, b"M_TOO_LARGE" in body) == (413, True)
    assert (await raw(public, "POST", OLD, b"\xff" * 4096, Content_Type="text/plain; charset=utf-8"))[
        0
    ] == 201


async def test_pages_of_other_origins_may_ask(public: AccountServer) -> None:
    status, headers, _ = await raw(public, "OPTIONS", f"{OLD}/x", Access_Control_Request_Method="PUT")
    assert status == 200
    allowed = headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert {"if-match", "if-none-match", "content-type"} <= {*allowed}
    assert {"GET", "PUT", "DELETE"} <= {*headers["Access-Control-Allow-Methods"].split(", ")}
