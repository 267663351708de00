"""What follows one client over time tells what ``/sync`` would, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import orjson

from homeserver.protocol.filters import Filter
from homeserver.storage.database import Database
from homeserver.sync.request import SyncRequest
from tests.sync.server import SyncServer, bodies

Responses = list[dict[str, Any] | None]


def request(user_id: str, **filter_: Any) -> SyncRequest:
    return SyncRequest(user_id=user_id, device_id="PHONE", filter=Filter.parse(filter_))


def told(response: dict[str, Any] | None, room_id: str) -> list[str]:
    assert response is not None
    return bodies(orjson.loads(orjson.dumps(response))["rooms"]["join"][room_id])


async def test_news_that_come_while_the_last_ones_are_read_come_together(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    responses = server.reading.follow.responses(request(alice.user_id), pause=30, lifetime=60)
    async with aclosing(responses):
        await anext(responses)
        for text in ("one", "two", "three"):
            await room.send(alice.user_id, text)
        assert told(await anext(responses), room.room_id) == ["one", "two", "three"]


async def test_signs_of_life_come_in_time_also_while_there_is_much_that_is_not_told(
    sqlite_database: Database,
) -> None:
    server = await SyncServer.open(sqlite_database)
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    wanted = request(alice.user_id, room={"rooms": []})
    responses = server.reading.follow.responses(wanted, pause=0.2, lifetime=60)
    async with aclosing(responses):
        await anext(responses)
        sign = asyncio.ensure_future(anext(responses))
        while not sign.done():
            await room.send(alice.user_id, "not for her")
        assert sign.result() is None


async def test_a_stream_that_is_over_leaves_nothing_behind(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database, presence=True)
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    lazy = request(alice.user_id, room={"state": {"lazy_load_members": True}})
    responses = server.reading.follow.responses(lazy, pause=30, lifetime=60)
    async with aclosing(responses):
        await anext(responses)
        await room.send(alice.user_id, "hello")
        await anext(responses)
        server.world.clock.advance(60)
        server.presence.expire()
        assert (await server.presence.of(alice.user_id)).state == "online", "whoever is told news is there"
    assert server.notifier.wake(users=[alice.user_id]) == 0
    server.world.clock.advance(60)
    server.presence.expire()
    assert (await server.presence.of(alice.user_id)).state == "offline"


async def test_a_stream_ends_with_its_lifetime_also_in_a_busy_room(sqlite_database: Database) -> None:
    server = await SyncServer.open(sqlite_database)
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id)
    texts: Responses = []
    async for response in server.reading.follow.responses(request(alice.user_id), pause=30, lifetime=0.3):
        texts.append(response)
        await room.send(alice.user_id, "more")
    assert len(texts) > 1
