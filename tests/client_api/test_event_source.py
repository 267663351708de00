"""Server-sent events: what ``/sync`` answers, as it comes; and how a stream ends and is gone on with."""

from __future__ import annotations

import json

import pytest

from tests.client_api.account_server import segment
from tests.client_api.live_room import LiveRoom, bodies, device_texts
from tests.followers import until

UNSTABLE = "/_matrix/client/unstable/org.matrix.msc2108/sync/sse"


@pytest.mark.parametrize("path", ["/sync/sse", "/_matrix/client/r0/sync/sse", UNSTABLE])
async def test_the_first_event_is_what_sync_answers(live_room: LiveRoom, path: str) -> None:
    await live_room.send("hello")
    _, synced = await live_room.server.call("GET", "/sync", token=live_room.alice)
    async with live_room.events(path) as stream:
        event = await stream.next_event()
        headers = stream.response.headers
    assert (event.name, event.id, event.data) == ("sync", synced["next_batch"], synced)
    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert "Content-Encoding" not in headers


async def test_what_the_stream_is_made_of(live_room: LiveRoom) -> None:
    await live_room.send("two\nlines")
    async with live_room.events(heartbeat_interval="1") as stream:
        content = stream.response.content
        lines = [await content.readline() for _ in range(8)]
    assert lines[:2] == [b"retry: 2000\n", b"\n"]
    assert lines[2] == b"event: sync\n"
    assert lines[3].startswith(b"id: s1_")
    assert bodies(json.loads(lines[4].removeprefix(b"data: ")), live_room.room) == ["two\nlines"]
    assert lines[5:] == [b"\n", b": \n", b"\n"], "a sign of life after a second of silence"


async def test_news_come_as_they_happen_and_each_once(live_room: LiveRoom) -> None:
    async with live_room.events(since=await live_room.token()) as stream:
        for text in ("one", "two", "three"):
            await live_room.send(text)
            assert bodies((await stream.next_event()).data, live_room.room) == [text]


async def test_the_last_event_id_wins_over_since(live_room: LiveRoom) -> None:
    before = await live_room.token()
    await live_room.send("first")
    after = await live_room.token()
    await live_room.send("second")
    async with live_room.events(since=before, headers={"Last-Event-ID": after}) as stream:
        event = await stream.next_event()
    assert bodies(event.data, live_room.room) == ["second"]


async def test_parameters_are_those_of_sync(live_room: LiveRoom) -> None:
    await live_room.send("hello")
    filter_ = json.dumps({"room": {"timeline": {"limit": 1}}, "event_fields": ["content.body"]})
    _, synced = await live_room.server.call(
        "GET", f"/sync?use_state_after=true&filter={segment(filter_)}", token=live_room.alice
    )
    async with live_room.events(filter=filter_, use_state_after="true") as stream:
        event = await stream.next_event()
    assert event.data == synced
    assert "state_after" in event.data["rooms"]["join"][live_room.room]


async def test_the_whole_state_comes_once_for_those_who_ask_for_it(live_room: LiveRoom) -> None:
    token = await live_room.token()
    async with live_room.events(since=token, full_state="true") as stream:
        first = (await stream.next_event()).data
        await live_room.send("later")
        second = (await stream.next_event()).data
    assert len(first["rooms"]["join"][live_room.room]["state"]["events"]) > 3
    assert second["rooms"]["join"][live_room.room]["state"]["events"] == []


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ({"since": "nonsense"}, {}),
        ({}, {"Last-Event-ID": "nonsense"}),
        ({"filter": "{"}, {}),
        ({"heartbeat_interval": "0"}, {}),
        ({"set_presence": "asleep"}, {}),
    ],
)
async def test_what_cannot_be_read_is_refused_before_the_stream(
    live_room: LiveRoom, query: dict[str, str], headers: dict[str, str]
) -> None:
    async with live_room.events(headers=headers, **query) as stream:
        reply = await stream.response.json()
    assert (stream.response.status, reply["errcode"]) == (400, "M_INVALID_PARAM")


async def test_a_stream_needs_a_token(live_room: LiveRoom) -> None:
    assert await live_room.server.refused("GET", "/sync/sse") == (401, "M_MISSING_TOKEN")
    assert await live_room.server.refused("GET", "/sync/sse?access_token=no") == (401, "M_UNKNOWN_TOKEN")


async def test_a_head_tells_what_a_stream_is_like_without_one(live_room: LiveRoom) -> None:
    async with live_room.server.client.head(
        f"/_matrix/client/v3/sync/sse?access_token={live_room.alice}"
    ) as head:
        assert (head.status, head.headers["Content-Type"]) == (200, "text/event-stream")


async def test_messages_to_a_device_stay_until_it_comes_back_with_a_token(live_room: LiveRoom) -> None:
    before = await live_room.token()
    await live_room.tell_device("one")
    async with live_room.events(since=before) as stream:
        first = await stream.next_event()
        await live_room.tell_device("two")
        second = await stream.next_event()
        assert (device_texts(first.data), device_texts(second.data)) == (["one"], ["two"])
    async with live_room.events(since=before) as stream:
        again = await stream.next_event()
    assert device_texts(again.data) == ["one", "two"], "neither is known to have arrived"
    async with live_room.events(headers={"Last-Event-ID": first.id or ""}) as stream:
        assert device_texts((await stream.next_event()).data) == ["two"]
    async with live_room.events(since=before) as stream:
        assert device_texts((await stream.next_event()).data) == ["two"], "the first one has arrived"


async def test_who_comes_back_is_shown_members_that_were_only_written(live_room: LiveRoom) -> None:
    lazy = json.dumps({"room": {"state": {"lazy_load_members": True}, "timeline": {"limit": 1}}})
    token = await live_room.token()
    for _ in range(2):
        async with live_room.events(since=token, filter=lazy) as stream:
            await live_room.send("hello")
            room = (await stream.next_event()).data["rooms"]["join"][live_room.room]
            assert "m.room.member" in {event["type"] for event in room["state"]["events"]}


async def until_open(room: LiveRoom) -> None:
    waiting = room.server.core.notifier._by_user
    await until(lambda: "@alice:a.org" in waiting, "the stream waits for news")


async def test_a_log_out_ends_the_stream_with_a_last_word(live_room: LiveRoom) -> None:
    # The next sign of life would come after the patience of this test.
    async with live_room.events(since=await live_room.token(), heartbeat_interval="120") as stream:
        await until_open(live_room)
        await live_room.server.call("POST", "/logout", token=live_room.alice)
        event = await stream.next_event()
        assert (event.name, event.data["errcode"], event.id) == ("error", "M_UNKNOWN_TOKEN", None)
        assert await stream.is_over()


async def test_a_lock_ends_the_stream_at_once(live_room: LiveRoom) -> None:
    admin = await live_room.server.admin()
    async with live_room.events(since=await live_room.token(), heartbeat_interval="120") as stream:
        await until_open(live_room)
        path = f"/_matrix/client/v1/admin/lock/{segment('@alice:a.org')}"
        await live_room.server.call("PUT", path, {"locked": True}, token=admin)
        event = await stream.next_event()
        assert (event.name, event.data["errcode"]) == ("error", "M_USER_LOCKED")
        assert event.data["soft_logout"] is True
        assert await stream.is_over()


async def test_a_server_that_stops_ends_the_stream_between_two_events(live_room: LiveRoom) -> None:
    async with live_room.events() as stream:
        await stream.next_event()
        live_room.server.core.notifier.close()
        assert await stream.is_over()


async def test_streams_of_one_device_are_each_told_everything(live_room: LiveRoom) -> None:
    token = await live_room.token()
    async with live_room.events(since=token) as one, live_room.events(since=token) as other:
        for text in ("one", "two"):
            await live_room.send(text)
            for stream in (one, other):
                assert bodies((await stream.next_event()).data, live_room.room) == [text]


async def test_a_client_that_is_gone_is_not_waited_for(live_room: LiveRoom) -> None:
    streams = live_room.server.settings.live.by_transport
    async with live_room.events(heartbeat_interval="1") as stream:
        await stream.next_event()
        assert streams["event_source"] == 1
    await until(lambda: not streams["event_source"], "the stream is given up")
    assert streams["event_source"] == 0


async def test_a_password_that_is_changed_ends_the_streams_of_other_devices_at_once(
    live_room: LiveRoom,
) -> None:
    await live_room.server.user("alice", device_id="LAPTOP")
    async with live_room.events(since=await live_room.token(), heartbeat_interval="120") as stream:
        await until_open(live_room)
        await live_room.server.people.sessions.log_out_everywhere("@alice:a.org", keep="LAPTOP")
        event = await stream.next_event()
        assert (event.name, event.data["errcode"]) == ("error", "M_UNKNOWN_TOKEN")


async def test_keys_that_are_taken_are_told_without_other_news(live_room: LiveRoom) -> None:
    keys = {"signed_curve25519:AAA": {"key": "x"}, "signed_curve25519:BBB": {"key": "y"}}
    call = live_room.server.call
    status, reply = await call("POST", "/keys/upload", {"one_time_keys": keys}, token=live_room.alice)
    assert status == 200, reply
    async with live_room.events(since=await live_room.token(), heartbeat_interval="120") as stream:
        await until_open(live_room)
        wanted = {"@alice:a.org": {"PHONE": "signed_curve25519"}}
        await call("POST", "/keys/claim", {"one_time_keys": wanted}, token=live_room.alice)
        event = await stream.next_event()
        assert event.data["device_one_time_keys_count"] == {"signed_curve25519": 1}
