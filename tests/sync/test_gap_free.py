"""Many write and many read at once: everybody sees everything, once, in one order."""

from __future__ import annotations

import asyncio
import random

import pytest

from homeserver.rooms.history import History
from homeserver.rooms.room import Room
from homeserver.storage.database import Database
from homeserver.sync.positions import SyncToken
from tests.sync.server import Client, SyncServer
from tests.world import WorldRoom

WRITERS, MESSAGES = 6, 25


class NoMoreHistory:
    async def fill(self, room: Room, low: int, high: int, limit: int) -> bool:
        return False


def history_of(server: SyncServer) -> History:
    world = server.world
    return History(
        db=world.db,
        rooms=world.rooms,
        keys=world.keys,
        events=world.events,
        states=world.states,
        visibility=server.visibility,
        backfill=NoMoreHistory(),
        retention=world.core.retention,
    )


async def write(client: Client, rooms: list[WorldRoom], chance: random.Random) -> list[str]:
    sent = []
    for number in range(MESSAGES):
        room = chance.choice(rooms)
        sent.append((await room.send(client.user_id, f"{client.user_id} {number}")).id)
        if chance.random() < 0.3:
            await asyncio.sleep(0)
    return sent


class Follower:
    """Reads everything by syncing, and fills the gaps of limited timelines from history."""

    def __init__(self, client: Client, history: History, limit: int) -> None:
        self.client = client
        self.history = history
        self.filter = {"room": {"timeline": {"limit": limit}}}
        self.seen: dict[str, list[str]] = {}

    async def step(self) -> int:
        """One sync; how many messages it brought."""
        since = self.client.token
        response = await self.client.sync(filter=self.filter, timeout=0.05)
        count = 0
        for room_id, section in response["rooms"].get("join", {}).items():
            events = [
                event["event_id"]
                for event in section["timeline"]["events"]
                if event["type"] == "m.room.message"
            ]
            if section["timeline"]["limited"] and since is not None:
                events = await self._gap(room_id, section["timeline"]["prev_batch"], since) + events
            self.seen.setdefault(room_id, []).extend(events)
            count += len(events)
        return count

    async def _gap(self, room_id: str, start: str, to: str) -> list[str]:
        view = await self.history.view(self.client.user_id, room_id)
        found: list[str] = []
        at: int | None = SyncToken.parse(start).pos
        while at is not None:
            page = await self.history.backward(view, at, SyncToken.parse(to).pos, 3, lambda _: True)
            found += [one.stored.id for one in page.events if one.stored.event.type == "m.room.message"]
            at = page.end
        return found[::-1]


@pytest.mark.parametrize("limit", [100, 2])
async def test_everybody_sees_everything_once_and_in_order(database: Database, limit: int) -> None:
    server = await SyncServer.open(database)
    chance = random.Random(limit)
    writers = [server.client(f"writer{number}") for number in range(WRITERS)]
    readers = [server.client(f"reader{number}") for number in range(4)]
    rooms = [await server.world.public_room(writers[0].user_id) for _ in range(3)]
    for room in rooms:
        for client in [*writers[1:], *readers]:
            await room.join(client.user_id)
    history = history_of(server)
    followers = [Follower(client, history, limit) for client in readers]
    for follower in followers:
        await follower.client.sync()
    writing = asyncio.gather(*(write(writer, rooms, chance) for writer in writers))

    async def follow(follower: Follower) -> None:
        all_written = False
        while await follower.step() or not all_written:
            all_written = writing.done()

    await asyncio.gather(*(follow(follower) for follower in followers))
    sent = {event_id for part in await writing for event_id in part}
    assert len(sent) == WRITERS * MESSAGES
    for room in rooms:
        view = await history.view(readers[0].user_id, room.room_id)
        page = await history.forward(view, None, None, 1000, lambda _: True)
        order = [one.stored.id for one in page.events if one.stored.event.type == "m.room.message"]
        for follower in followers:
            assert follower.seen.get(room.room_id, []) == order
    assert sum(len(follower.seen[room.room_id]) for follower in followers for room in rooms) == 4 * len(sent)


async def test_people_who_come_and_go_see_each_event_at_most_once(server: SyncServer) -> None:
    owner, guest = server.client("owner"), server.client("guest")
    room = await server.world.public_room(owner.user_id)
    await guest.sync()

    async def talk() -> None:
        for number in range(40):
            await room.send(owner.user_id, str(number))

    async def come_and_go() -> None:
        for _ in range(8):
            await room.join(guest.user_id)
            await asyncio.sleep(0.001)
            await room.leave(guest.user_id)

    doing = asyncio.gather(talk(), come_and_go())
    joined_at_end: dict[str, str] = {}
    while True:
        done = doing.done()
        response = await guest.sync(timeout=0.02, filter={"room": {"timeline": {"limit": 100}}})
        for kind in ("join", "leave"):
            if room.room_id in response["rooms"].get(kind, {}):
                joined_at_end[room.room_id] = kind
                events = response["rooms"][kind][room.room_id]["timeline"]["events"]
                ids = [event["event_id"] for event in events]
                assert len(ids) == len(set(ids))
        if done and not response["rooms"]:
            break
    await doing
    assert joined_at_end == {room.room_id: "leave"}
