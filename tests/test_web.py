"""The dispatcher over real HTTP: routing, bodies, admission, errors, logs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import RawTestServer, TestClient
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from yarl import URL

from homeserver.clock import FakeClock
from homeserver.errors import MatrixError, RemoteError, forbidden
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.ratelimit import Limit, RateLimiter
from homeserver.replies import Json, Reply, Stream
from homeserver.routing import Router
from homeserver.users.requester import Requester
from homeserver.web import Access, Dispatcher, Request, Route


class Name(msgspec.Struct):
    name: str
    age: int = 0


async def echo_params(request: Request) -> Reply:
    return {"params": dict(request.params), "query": request.query, "path": request.path}


async def echo_body(request: Request) -> Reply:
    return {"body": request.json()}


async def echo_struct(request: Request) -> Reply:
    return {"name": request.decode(Name).name}


async def echo_caller(request: Request) -> Reply:
    user = request.requester_if_any
    return {"user": user.user_id if user else None}


async def echo_origin(request: Request) -> Reply:
    return {"origin": request.origin, "nul": request.json()["a"] == "\x00"}


async def echo_query(request: Request) -> Reply:
    return {
        "limit": request.query_int("limit", 10, 1, 100),
        "full": request.query_bool("full"),
        "dir": request.query_choice("dir", "f", ("f", "b")),
        "via": request.query_all("via"),
    }


async def count_bytes(request: Request) -> Reply:
    return {"size": sum([len(chunk) async for chunk in request.chunks()]), "body": len(request.body)}


async def half_a_stream(request: Request) -> Reply:
    stream = web.StreamResponse()
    await stream.prepare(request.http)
    await stream.write(b"half")
    raise RuntimeError("broken on the way")


async def stream_of(*pieces: bytes | Exception) -> AsyncGenerator[bytes, None]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


async def in_pieces(request: Request) -> Reply:
    return Stream(stream_of(b"one ", b"two"), 7, {"Content-Type": "text/plain"})


async def not_found_at_once(request: Request) -> Reply:
    return Stream(stream_of(forbidden("gone")), 7, {})


async def breaks_later(request: Request) -> Reply:
    return Stream(stream_of(b"one ", RuntimeError("broken on the way")), 7, {})


async def more_than_anybody_reads(request: Request) -> Reply:
    return Stream(stream_of(*[bytes(1_000_000)] * 100), 100_000_000, {})


def failing(error: BaseException) -> Callable[[Request], Awaitable[Reply]]:
    async def fail(request: Request) -> Reply:
        raise error

    return fail


async def raw_json(request: Request) -> Reply:
    return Json(b'{"session":"x"}', status=401)


def peer_error(status: int | None = None, errcode: str | None = None) -> RemoteError:
    reachable = status is not None
    return RemoteError("b.org", "no", reachable=reachable, transient=True, status=status, errcode=errcode)


PUBLIC = Access.PUBLIC
ROUTES = [
    Route("GET", "/_matrix/client/v3/params/{one}", echo_params, PUBLIC),
    Route("GET", "/_matrix/client/v3/params/{one}/{two}", echo_params, PUBLIC),
    Route("GET", "/_matrix/client/v3/params/fixed/", echo_params, PUBLIC),
    Route("PUT", "/_matrix/client/v3/params/fixed", echo_body, PUBLIC),
    Route("POST", "/body", echo_body, PUBLIC),
    Route("POST", "/struct", echo_struct, PUBLIC),
    Route("GET", "/query", echo_query, PUBLIC),
    Route("GET", "/user", echo_caller),
    Route("GET", "/perhaps", echo_caller, Access.USER_OR_NOBODY),
    Route("PUT", "/server", echo_origin, Access.SERVER),
    Route("GET", "/limited", echo_caller, Access.USER, limit="few"),
    Route("POST", "/stream", count_bytes, PUBLIC, max_body=100_000, streams=True),
    Route("GET", "/json", raw_json, PUBLIC),
    Route("GET", "/half", half_a_stream, PUBLIC),
    Route("GET", "/pieces", in_pieces, PUBLIC),
    Route("GET", "/pieces/gone", not_found_at_once, PUBLIC),
    Route("GET", "/pieces/broken", breaks_later, PUBLIC),
    Route("GET", "/pieces/many", more_than_anybody_reads, PUBLIC),
    Route("GET", "/fails/forbidden", failing(forbidden("No.", hint=1)), PUBLIC),
    Route("GET", "/fails/not_allowed", failing(NotAllowed("The sender is not in the room.")), PUBLIC),
    Route("GET", "/fails/bug", failing(ZeroDivisionError("secret detail")), PUBLIC),
    Route("GET", "/fails/peer_refused", failing(peer_error(403, "M_FORBIDDEN")), PUBLIC),
    Route("GET", "/fails/peer_unauthorised", failing(peer_error(401, "M_UNAUTHORIZED")), PUBLIC),
    Route("GET", "/fails/peer_broken", failing(peer_error(500)), PUBLIC),
    Route("GET", "/fails/peer_silent", failing(peer_error()), PUBLIC),
]


async def authenticate_user(headers: Mapping[str, str], query: Mapping[str, str]) -> Requester:
    if headers.get("Authorization") != "Bearer good" and query.get("access_token") != "good":
        raise MatrixError(401, "M_UNKNOWN_TOKEN", "Unknown token")
    return Requester("@alice:a.org", "DEV")


async def authenticate_server(method: str, target: str, headers: Mapping[str, str], body: bytes) -> str:
    if headers.get("Authorization") != f"signed {method} {target} {len(body)}":
        raise MatrixError(401, "M_UNAUTHORIZED", "Bad signature")
    return "b.org"


def dispatcher() -> Dispatcher:
    return Dispatcher(
        ROUTES,
        authenticate_user=authenticate_user,
        authenticate_server=authenticate_server,
        rate_limiter=RateLimiter({"few": Limit(0.4, 1)}, FakeClock()),
        max_body=10_000,
    )


@pytest.fixture
async def client() -> AsyncIterator[TestClient[Any, Any]]:
    test_client: TestClient[Any, Any]
    async with TestClient(RawTestServer(dispatcher())) as test_client:
        yield test_client


async def answer(client: TestClient[Any, Any], method: str, target: str, **options: Any) -> tuple[int, Any]:
    async with client.request(method, URL(target, encoded=True), **options) as response:
        return response.status, await response.json()


async def refused(client: TestClient[Any, Any], method: str, target: str, **options: Any) -> tuple[int, str]:
    status, body = await answer(client, method, target, **options)
    assert isinstance(body["error"], str)
    return status, body["errcode"]


V3 = "/_matrix/client/v3/params"


@pytest.mark.parametrize(
    ("target", "params"),
    [
        (f"{V3}/%21room%3Aa.org", {"one": "!room:a.org"}),
        (f"{V3}/a%2Fb", {"one": "a/b"}),
        (f"{V3}/a%2Fb/c+d", {"one": "a/b", "two": "c+d"}),
        (f"{V3}/a%252Fb", {"one": "a%2Fb"}),
        (f"{V3}/%E2%82%AC/", {"one": "€", "two": ""}),
        (f"{V3}/%66ixed/", {}),
        (f"{V3}/fixed", {"one": "fixed"}),
        ("/_matrix/client/r0/params/old", {"one": "old"}),
    ],
)
async def test_paths_are_split_before_they_are_decoded(
    client: TestClient[Any, Any], target: str, params: dict[str, str]
) -> None:
    status, body = await answer(client, "GET", target)
    assert (status, body["params"]) == (200, params)


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/_matrix/client/v3/nothing", (404, "M_UNRECOGNIZED")),
        ("GET", "/_matrix/client/v3/params/a/b/c", (404, "M_UNRECOGNIZED")),
        ("GET", "/", (404, "M_UNRECOGNIZED")),
        ("DELETE", f"{V3}/x", (405, "M_UNRECOGNIZED")),
        ("GET", "/body", (405, "M_UNRECOGNIZED")),
        ("GET", f"{V3}/%FF", (400, "M_INVALID_PARAM")),
        ("GET", f"{V3}/a%00b", (400, "M_INVALID_PARAM")),
        ("GET", f"{V3}/a?x=%FF", (400, "M_INVALID_PARAM")),
        ("GET", f"{V3}/a?x=%00", (400, "M_INVALID_PARAM")),
        ("GET", "/query?limit=ten", (400, "M_INVALID_PARAM")),
        ("GET", "/query?limit=0", (400, "M_INVALID_PARAM")),
        ("GET", "/query?limit=99999999999999999999", (400, "M_INVALID_PARAM")),
        ("GET", "/query?full=yes", (400, "M_INVALID_PARAM")),
        ("GET", "/query?dir=x", (400, "M_INVALID_PARAM")),
    ],
)
async def test_targets_that_are_refused(
    client: TestClient[Any, Any], method: str, target: str, expected: tuple[int, str]
) -> None:
    assert await refused(client, method, target) == expected


async def test_query_parameters_are_typed(client: TestClient[Any, Any]) -> None:
    _, defaults = await answer(client, "GET", "/query")
    assert defaults == {"limit": 10, "full": False, "dir": "f", "via": []}
    _, given_ = await answer(client, "GET", "/query?limit=1000&full=true&dir=b&via=a+b&via=c")
    assert given_ == {"limit": 100, "full": True, "dir": "b", "via": ["a b", "c"]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, "M_NOT_JSON")),
        (b"{", (400, "M_NOT_JSON")),
        (b'{"a": "\xff"}', (400, "M_NOT_JSON")),
        (b'{"a": NaN}', (400, "M_NOT_JSON")),
        (b'{"a": "\\ud800"}', (400, "M_NOT_JSON")),
        (b"[]", (400, "M_BAD_JSON")),
        (b"null", (400, "M_BAD_JSON")),
        (b'{"a": 1e999}', (400, "M_BAD_JSON")),
        (b'{"a": 18446744073709551615}', (400, "M_BAD_JSON")),
        (b'{"a": [-99999999999999999999999]}', (400, "M_BAD_JSON")),
        (b'{"a": ["\\u0000"]}', (400, "M_BAD_JSON")),
        (b'{"a\\u0000": 1}', (400, "M_BAD_JSON")),
        (b'{"a":' * 150 + b"1" + b"}" * 150, (400, "M_BAD_JSON")),
        (b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}", (400, "M_BAD_JSON")),
        (b'{"a": "' + b"x" * 10_000 + b'"}', (413, "M_TOO_LARGE")),
    ],
)
async def test_bodies_that_are_refused(
    client: TestClient[Any, Any], body: bytes, expected: tuple[int, str]
) -> None:
    assert await refused(client, "POST", "/body", data=body) == expected


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"a": 1, "a": 2}', {"a": 2}),
        (b'{"a": "\\\\u0000"}', {"a": "\\u0000"}),
        (b'{"a": 9223372036854775807, "b": "12345678901234567890"}',
         {"a": 2**63 - 1, "b": "12345678901234567890"}),
        (b'{"a": [' + b"{}," * 200 + b"{}]}", {"a": [{}] * 201}),
    ],
)  # fmt: skip
async def test_bodies_that_only_look_odd(client: TestClient[Any, Any], body: bytes, value: Any) -> None:
    assert await answer(client, "POST", "/body", data=body) == (200, {"body": value})


async def test_a_body_of_unknown_length_is_bounded_too(client: TestClient[Any, Any]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b" " * 4000

    assert await refused(client, "POST", "/body", data=pieces()) == (413, "M_TOO_LARGE")


async def test_struct_bodies_name_the_field_at_fault(client: TestClient[Any, Any]) -> None:
    assert await answer(client, "POST", "/struct", json={"name": "x", "more": 1}) == (200, {"name": "x"})
    status, body = await answer(client, "POST", "/struct", json={"name": "x", "age": "old"})
    assert (status, body["errcode"]) == (400, "M_BAD_JSON")
    assert "age" in body["error"]
    assert await refused(client, "POST", "/struct", data=b'{"name": "\\u0000"}') == (400, "M_BAD_JSON")


async def test_streams_get_past_the_general_bound_but_not_their_own(client: TestClient[Any, Any]) -> None:
    assert await answer(client, "POST", "/stream", data=b"x" * 50_000) == (200, {"size": 50_000, "body": 0})
    assert await refused(client, "POST", "/stream", data=b"x" * 100_001) == (413, "M_TOO_LARGE")


async def test_users_are_admitted_by_their_token(client: TestClient[Any, Any]) -> None:
    good = {"Authorization": "Bearer good"}
    assert await answer(client, "GET", "/user", headers=good) == (200, {"user": "@alice:a.org"})
    assert await answer(client, "GET", "/user?access_token=good") == (200, {"user": "@alice:a.org"})
    assert await refused(client, "GET", "/user") == (401, "M_UNKNOWN_TOKEN")
    assert await answer(client, "GET", "/perhaps") == (200, {"user": None})
    assert await answer(client, "GET", "/perhaps", headers=good) == (200, {"user": "@alice:a.org"})
    assert await refused(client, "GET", "/perhaps?access_token=bad") == (401, "M_UNKNOWN_TOKEN")


async def test_servers_are_admitted_by_their_signature_over_target_and_body(
    client: TestClient[Any, Any],
) -> None:
    body = b'{"a": "\\u0000"}'
    signed = {"Authorization": f"signed PUT /server?x=%21 {len(body)}"}
    status, reply = await answer(client, "PUT", "/server?x=%21", headers=signed, data=body)
    assert (status, reply) == (200, {"origin": "b.org", "nul": True})
    assert await refused(client, "PUT", "/server?x=%22", headers=signed, data=body) == (401, "M_UNAUTHORIZED")


async def test_a_caller_over_its_limit_is_told_when_to_come_back(client: TestClient[Any, Any]) -> None:
    good = {"Authorization": "Bearer good"}
    await answer(client, "GET", "/limited", headers=good)
    async with client.get("/limited", headers=good) as response:
        assert response.status == 429
        assert response.headers["Retry-After"] == "3"
        assert (await response.json())["retry_after_ms"] == 2500


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("forbidden", (403, "M_FORBIDDEN")),
        ("not_allowed", (403, "M_FORBIDDEN")),
        ("peer_refused", (403, "M_FORBIDDEN")),
        ("peer_unauthorised", (502, "M_UNKNOWN")),
        ("peer_broken", (502, "M_UNKNOWN")),
        ("peer_silent", (504, "M_UNKNOWN")),
    ],
)
async def test_errors_say_whose_fault_it_was(
    client: TestClient[Any, Any], name: str, expected: tuple[int, str]
) -> None:
    with capture_logs() as lines:
        assert await refused(client, "GET", f"/fails/{name}") == expected
    assert [line["event"] for line in lines] == ["request"]


async def test_a_bug_is_logged_once_and_not_shown_to_the_client(client: TestClient[Any, Any]) -> None:
    with capture_logs() as lines:
        status, body = await answer(client, "GET", "/fails/bug")
    assert (status, body) == (500, {"errcode": "M_UNKNOWN", "error": "Internal server error"})
    [failure] = [line for line in lines if line["log_level"] == "error"]
    assert isinstance(failure["exc_info"], ZeroDivisionError)


async def test_a_reply_that_breaks_halfway_is_cut_off(
    client: TestClient[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as lines:
        async with client.get("/half") as response:
            with pytest.raises(Exception, match="payload is not completed"):
                await response.read()
    assert [line["event"] for line in lines] == ["request failed", "request"]


async def test_a_reply_is_sent_in_pieces(client: TestClient[Any, Any]) -> None:
    async with client.get("/pieces") as response:
        assert (response.status, await response.read()) == (200, b"one two")
        assert response.headers["Content-Length"] == "7"
        assert response.headers["Access-Control-Allow-Origin"] == "*"
    async with client.head("/pieces") as response:
        assert (response.headers["Content-Length"], await response.read()) == ("7", b"")


async def test_an_error_before_the_first_piece_is_answered(client: TestClient[Any, Any]) -> None:
    assert await answer(client, "GET", "/pieces/gone") == (403, {"errcode": "M_FORBIDDEN", "error": "gone"})


async def test_an_error_between_pieces_cuts_the_reply_off(client: TestClient[Any, Any]) -> None:
    with capture_logs():
        async with client.get("/pieces/broken") as response:
            with pytest.raises(Exception, match="payload is not completed"):
                await response.read()


async def test_a_client_that_does_not_read_is_let_go(
    client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeserver.replies._PIECE_PATIENCE", 0.2)
    assert client.server.port is not None
    reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port, limit=1000)
    writer.write(b"GET /pieces/many HTTP/1.1\r\nHost: a\r\n\r\n")
    # Some is in buffers on the way; it reads on only when the server has given up.
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(0.5)
    received = 0
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1_000_000):
            received += len(piece)
    writer.close()
    assert received < 100_000_000


async def test_each_request_has_one_access_line_without_its_query(
    client: TestClient[Any, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with capture_logs() as lines:
        await answer(client, "GET", "/user?access_token=good")
    [line] = lines
    assert (line["path"], line["status"], line["caller"]) == ("/user", 200, "@alice:a.org")
    assert "good" not in json.dumps(line)


async def test_browsers_may_call_everything(client: TestClient[Any, Any]) -> None:
    async with client.options("/user") as response:
        assert response.status == 200
        assert "Authorization" in response.headers["Access-Control-Allow-Headers"]
    async with client.get("/user") as response:
        assert response.status == 401
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_encoded_replies_keep_their_status_and_head_has_no_body(client: TestClient[Any, Any]) -> None:
    assert await answer(client, "GET", "/json") == (401, {"session": "x"})
    async with client.head("/query") as response:
        assert (response.status, await response.read()) == (200, b"")


@pytest.mark.parametrize("cancels", [True, False])
async def test_a_client_that_leaves_is_not_an_error(cancels: bool) -> None:
    arrived, finished = asyncio.Event(), asyncio.Event()
    answer_request = dispatcher()

    async def observed(http: web.BaseRequest) -> web.StreamResponse:
        arrived.set()
        try:
            return await answer_request(http)
        finally:
            finished.set()

    runner = web.ServerRunner(web.Server(observed, handler_cancellation=cancels))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with capture_logs() as lines:
        _, writer = await asyncio.open_connection(*runner.addresses[0])
        writer.write(b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{")
        await arrived.wait()
        writer.close()
        await finished.wait()
    await runner.cleanup()
    [line] = lines
    assert (line["event"], line["log_level"], line["status"]) == ("request", "info", 499)


def test_a_table_that_contradicts_itself_is_refused() -> None:
    routes = [Route("GET", "/a/{x}", echo_body), Route("GET", "/a/{y}", echo_body)]
    with pytest.raises(ValueError, match="two routes"):
        Router(routes)
    with pytest.raises(ValueError, match="unknown limit"):
        Dispatcher(
            [Route("GET", "/", echo_body, limit="nope")],
            authenticate_user=authenticate_user,
            authenticate_server=authenticate_server,
            rate_limiter=RateLimiter({}, FakeClock()),
        )


no_nul = st.text(st.characters(exclude_characters="\x00", codec="utf-8"))


@given(st.lists(no_nul, min_size=2, max_size=2))
def test_whatever_is_quoted_into_a_path_comes_out_again(values: list[str]) -> None:
    router = Router([Route("GET", "/rooms/{roomId}/state/{type}", echo_body)])
    room_id, type_ = values
    _, params = router.find("GET", f"/rooms/{quote(room_id, safe='')}/state/{quote(type_, safe='')}")
    assert params == {"roomId": room_id, "type": type_}
