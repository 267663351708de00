"""The WebSocket: news down, requests up, and the words and codes it ends with."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from client_api.live.conversation import MAX_IN_FLIGHT
from homeserver.clock import FakeClock
from homeserver.config import RateLimits
from homeserver.config.live import Live
from homeserver.ratelimit import Limit, RateLimiter
from homeserver.storage.database import Database
from tests.client_api.account_server import account_server, configured, segment
from tests.client_api.live_room import LiveRoom, bodies, device_texts
from tests.followers import until

V3 = "/_matrix/client/v3"
TEXT = {"msgtype": "m.text", "body": "hello"}


@pytest.mark.parametrize(
    "path", [f"{V3}/stream", "/_matrix/client/r0/stream", "/_matrix/client/unstable/stream"]
)
async def test_the_first_update_is_what_sync_answers(live_room: LiveRoom, path: str) -> None:
    await live_room.send("hello")
    _, synced = await live_room.server.call("GET", "/sync", token=live_room.alice)
    async with live_room.socket(path) as socket:
        assert socket.socket.protocol == "m.json"
        assert await socket.next() == synced


async def test_news_are_pushed_and_a_token_goes_on(live_room: LiveRoom) -> None:
    token = await live_room.token()
    async with live_room.socket(since=token) as socket:
        await live_room.send("one")
        first = await socket.next_update()
        assert bodies(first, live_room.room) == ["one"]
        await live_room.send("two")
        assert bodies(await socket.next_update(), live_room.room) == ["two"]
    async with live_room.socket(since=first["next_batch"]) as socket:
        assert bodies(await socket.next_update(), live_room.room) == ["two"]


async def test_messages_to_a_device_stay_until_it_comes_back_with_a_token(live_room: LiveRoom) -> None:
    before = await live_room.token()
    await live_room.tell_device("one")
    async with live_room.socket(since=before) as socket:
        first = await socket.next_update()
        await live_room.tell_device("two")
        assert [device_texts(each) for each in (first, await socket.next_update())] == [["one"], ["two"]]
    async with live_room.socket(since=before) as socket:
        assert device_texts(await socket.next_update()) == ["one", "two"]
    async with live_room.socket(since=first["next_batch"]) as socket:
        assert device_texts(await socket.next_update()) == ["two"]


async def test_a_message_is_sent_once_whichever_way_it_is_asked_for(live_room: LiveRoom) -> None:
    async with live_room.socket(since=await live_room.token()) as socket:
        message = {"room_id": live_room.room, "event_type": "m.room.message", "content": TEXT}
        first = await socket.ask("send", "txn", **message)
        again = await socket.ask("send", "txn", **message)
        # Who sends is answered before they are told.
        updates = [*socket.updates, *([] if socket.updates else [await socket.next_update()])]
    path = f"{live_room.rooms}/send/m.room.message/txn"
    _, over_http = await live_room.server.call("PUT", path, TEXT, token=live_room.alice)
    assert first["result"] == again["result"] == over_http
    seen = [
        event for update in updates for event in update["rooms"]["join"][live_room.room]["timeline"]["events"]
    ]
    assert [(event["event_id"], event["unsigned"]["transaction_id"]) for event in seen] == [
        (over_http["event_id"], "txn")
    ]


async def test_messages_sent_at_once_keep_their_order(live_room: LiveRoom) -> None:
    numbers = [str(number) for number in range(3 * MAX_IN_FLIGHT)]
    async with live_room.socket(since=await live_room.token()) as socket:
        for number in numbers:
            content = {"msgtype": "m.text", "body": number}
            param = {"room_id": live_room.room, "event_type": "m.room.message", "content": content}
            await socket.socket.send_json({"id": number, "method": "send", "params": param})
        told: list[str] = []
        while len(told) < len(numbers):
            message = await socket.next()
            assert "error" not in message
            told += bodies(message, live_room.room) if "next_batch" in message else []
    assert told == numbers


async def test_state_is_set(live_room: LiveRoom) -> None:
    async with live_room.socket(since=await live_room.token()) as socket:
        answer = await socket.ask(
            "state", room_id=live_room.room, event_type="m.room.topic", state_key="", content={"topic": "x"}
        )
    _, topic = await live_room.server.call(
        "GET", f"{live_room.rooms}/state/m.room.topic", token=live_room.alice
    )
    assert (list(answer["result"]), topic["topic"]) == (["event_id"], "x")


async def test_typing_receipts_markers_and_presence_are_those_of_the_endpoints(live_room: LiveRoom) -> None:
    event_id = await live_room.send("hello")
    room = {"room_id": live_room.room}
    async with live_room.socket(since=await live_room.token()) as socket:
        answers = [
            await socket.ask("typing", "1", **room, typing=True, timeout=30_000),
            await socket.ask("receipt", "2", **room, event_id=event_id),
            await socket.ask("read_markers", "3", **room, **{"m.fully_read": event_id}),
            await socket.ask("presence", "4", presence="online"),
            await socket.ask("ping", "5"),
        ]
    assert [answer.get("result") for answer in answers] == [{}] * 5, answers
    _, synced = await live_room.server.call("GET", "/sync", token=live_room.alice)
    joined = synced["rooms"]["join"][live_room.room]
    assert {event["type"] for event in joined["ephemeral"]["events"]} == {"m.typing", "m.receipt"}
    assert {"type": "m.fully_read", "content": {"event_id": event_id}} in joined["account_data"]["events"]


REFUSED: list[tuple[Any, str | None, str]] = [
    ("nonsense", None, "M_NOT_JSON"),
    ([], None, "M_BAD_JSON"),
    ({"method": "ping"}, None, "M_BAD_JSON"),
    ({"id": 1, "method": "ping"}, None, "M_BAD_JSON"),
    ({"id": "", "method": "ping"}, None, "M_BAD_JSON"),
    ({"id": "x" * 256, "method": "ping"}, None, "M_BAD_JSON"),
    ({"id": "a"}, "a", "M_UNRECOGNIZED"),
    ({"id": "a", "method": "fly"}, "a", "M_UNRECOGNIZED"),
    ({"id": "a", "method": {}}, "a", "M_UNRECOGNIZED"),
    ({"id": "a", "method": "send", "param": []}, "a", "M_BAD_JSON"),
    ({"id": "a", "method": "send", "param": {}}, "a", "M_MISSING_PARAM"),
    ({"id": "a", "method": "send", "param": {"room_id": 1}}, "a", "M_BAD_JSON"),
    (
        {"id": "a", "method": "send", "param": {"room_id": "!x:y", "event_type": "m.x"}},
        "a",
        "M_MISSING_PARAM",
    ),
    (
        {"id": "a", "method": "send", "param": {"room_id": "!x:y", "event_type": "m.x", "content": 1}},
        "a",
        "M_BAD_JSON",
    ),
    ({"id": "a\x00", "method": "typing", "param": {"room_id": "!x\x00:y"}}, "a\x00", "M_INVALID_PARAM"),
    ({"id": "a", "method": "typing", "param": {"room_id": "!x:y"}}, "a", "M_BAD_JSON"),
    ({"id": "a", "method": "read_markers", "param": {"room_id": "!x:y"}}, "a", "M_INVALID_PARAM"),
    ({"id": "a", "method": "presence", "param": {"presence": "asleep"}}, "a", "M_BAD_JSON"),
]


@pytest.mark.parametrize(("message", "call_id", "errcode"), REFUSED)
async def test_what_is_no_request_is_answered_with_an_error(
    live_room: LiveRoom, message: Any, call_id: str | None, errcode: str
) -> None:
    async with live_room.socket(since=await live_room.token()) as socket:
        text = message if isinstance(message, str) else json.dumps(message)
        await socket.socket.send_str(text)
        answer = await socket.answer(call_id)
        assert answer["error"]["errcode"] == errcode, answer
        assert (await socket.ask("ping", "after"))["result"] == {}, "the connection goes on"


async def test_endpoints_refuse_as_they_do_over_http(live_room: LiveRoom) -> None:
    bob = await live_room.server.user("bob")
    path = f"{live_room.rooms}/send/m.room.message/1"
    _, over_http = await live_room.server.call("PUT", path, TEXT, token=bob)
    async with live_room.socket(access_token=bob) as socket:
        answer = await socket.ask("send", room_id=live_room.room, event_type="m.room.message", content=TEXT)
    assert answer == {"id": "1", "error": over_http}
    assert over_http["errcode"] == "M_FORBIDDEN"


async def test_rate_limits_hold(sqlite_database: Database) -> None:
    limits = RateLimiter({**RateLimits().limits(), "message": Limit(0.01, 2)}, FakeClock())
    async with account_server(sqlite_database, rate_limiter=limits) as server:
        room = await LiveRoom.found(server)
        await room.send("one")
        message = {"room_id": room.room, "event_type": "m.room.message", "content": TEXT}
        async with room.socket() as socket:
            assert "result" in await socket.ask("send", "1", **message)
            answer = await socket.ask("send", "2", **message)
    assert answer["error"]["errcode"] == "M_LIMIT_EXCEEDED"
    assert answer["error"]["retry_after_ms"] > 0


@pytest.mark.parametrize(
    ("headers", "errcode"),
    [
        ({}, "M_UNRECOGNIZED"),
        ({"Sec-WebSocket-Protocol": "m.cbor"}, "M_INVALID_PARAM"),
        ({"Upgrade": "websocket", "Connection": "Upgrade"}, "M_UNRECOGNIZED"),
    ],
)
async def test_what_is_no_handshake_is_refused(
    live_room: LiveRoom, headers: dict[str, str], errcode: str
) -> None:
    url = f"{V3}/stream?access_token={live_room.alice}"
    async with live_room.server.client.get(url, headers=headers) as response:
        assert (response.status, (await response.json())["errcode"]) == (400, errcode)


async def test_a_header_will_do_and_no_token_will_not(live_room: LiveRoom) -> None:
    client = live_room.server.client
    async with client.ws_connect(
        f"{V3}/stream", headers={"Authorization": f"Bearer {live_room.alice}"}
    ) as socket:
        assert socket.protocol is None
        assert "next_batch" in await socket.receive_json(timeout=30)
    for query in ("", "?access_token=no"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect(f"{V3}/stream{query}")
        assert refused.value.status == 401


async def test_frames_that_are_not_text_end_it(live_room: LiveRoom) -> None:
    async with live_room.socket(since=await live_room.token()) as socket:
        await socket.socket.send_bytes(b"{}")
        assert await socket.ending() == (1003, "messages are text")


async def test_a_frame_that_is_too_large_ends_it(live_room: LiveRoom) -> None:
    async with live_room.socket(since=await live_room.token()) as socket:
        await socket.socket.send_str("x" * (1024 * 1024 + 1))
        assert (await socket.ending())[0] == 1009


async def test_text_that_is_not_utf_8_ends_it(live_room: LiveRoom) -> None:
    async with live_room.socket(since=await live_room.token()) as socket:
        await socket.socket.send_frame(b"\xff\xff", aiohttp.WSMsgType.TEXT)
        assert (await socket.ending())[0] == 1007


async def test_pings_are_answered_and_pongs_nobody_asked_for_are_passed_over(live_room: LiveRoom) -> None:
    async with live_room.socket(since=await live_room.token()) as socket:
        await socket.socket.pong(b"just so")
        await socket.socket.ping(b"are you there")
        message = await socket.socket.receive(timeout=30)
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"are you there")


async def test_a_log_out_ends_it_at_once_with_a_last_word(live_room: LiveRoom) -> None:
    async with live_room.socket(since=await live_room.token()) as socket:
        assert (await socket.ask("ping"))["result"] == {}
        await live_room.server.call("POST", "/logout", token=live_room.alice)
        assert (await socket.next())["error"]["errcode"] == "M_UNKNOWN_TOKEN"
        assert await socket.ending() == (4401, "M_UNKNOWN_TOKEN")


async def test_a_lock_ends_it_at_once_with_a_last_word(live_room: LiveRoom) -> None:
    admin = await live_room.server.admin()
    async with live_room.socket(since=await live_room.token()) as socket:
        assert (await socket.ask("ping"))["result"] == {}
        path = f"{V3.replace('v3', 'v1')}/admin/lock/{segment('@alice:a.org')}"
        await live_room.server.call("PUT", path, {"locked": True}, token=admin)
        last = await socket.next()
        assert (last["error"]["errcode"], last["error"]["soft_logout"]) == ("M_USER_LOCKED", True)
        assert await socket.ending() == (4401, "M_USER_LOCKED")


async def test_a_server_that_stops_says_so_and_answers_what_was_asked(live_room: LiveRoom) -> None:
    async with live_room.socket(since=await live_room.token()) as socket:
        assert (await socket.ask("ping"))["result"] == {}
        live_room.server.core.notifier.close()
        assert await socket.ending() == (1001, "server stops")


async def test_a_client_that_says_goodbye_is_answered(live_room: LiveRoom) -> None:
    async with live_room.socket() as socket:
        await socket.next_update()
        await socket.socket.close(code=1000)
        assert socket.socket.close_code == 1000
    open_streams = live_room.server.settings.live.by_transport
    await until(lambda: not open_streams["web_socket"], "the stream is over")
    assert open_streams["web_socket"] == 0


@pytest.fixture
async def hasty_room(sqlite_database: Database) -> AsyncIterator[LiveRoom]:
    """A room on a server that has little patience."""
    live = Live(web_socket_heartbeat=0.3, lifetime=2.0)
    async with account_server(sqlite_database, config=configured(live=live)) as server:
        yield await LiveRoom.found(server)


async def test_a_client_that_answers_no_ping_is_let_go(hasty_room: LiveRoom) -> None:
    async with hasty_room.socket(since=await hasty_room.token()) as socket:
        message = await socket.socket.receive(timeout=30)
        assert message.type is aiohttp.WSMsgType.PING
        assert await socket.ending() == (4409, "does not answer pings")


async def test_a_client_that_answers_pings_stays_until_its_time_is_over(hasty_room: LiveRoom) -> None:
    async with hasty_room.socket(since=await hasty_room.token()) as socket:
        pings = 0
        while (message := await socket.socket.receive(timeout=30)).type is aiohttp.WSMsgType.PING:
            pings += 1
            await socket.socket.pong(message.data)
        assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 4000)
        assert pings >= 2
