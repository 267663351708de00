"""What people do all day, each thing so many times a second."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

import orjson

from bench.generator.connection import Unexpected
from bench.generator.peer import PDUS_EACH, Peer
from bench.generator.person import Person
from tests.resident import BigRoom

_numbers = itertools.count()
_PICTURE = random.Random(6).randbytes(100_000)


class NobodyFree(Exception):
    """Everybody who could do it has something else to do: the server is behind."""


@dataclass
class Town:
    """Rooms and who is in which, whoever made it first; and a peer with a room that some are in too."""

    rooms: dict[str, list[Person]]
    spare: list[Person]
    peer: Peer
    peer_room: BigRoom
    #: Told of every message before it is sent: its room and its text.
    announced: Callable[[str, str], None]
    _busy: set[str] = field(default_factory=set)

    @contextmanager
    def one_of(self, people: Sequence[Person]) -> Iterator[Person]:
        """Somebody who does nothing else as long as the block lasts.  Raises ``NobodyFree``."""
        free = [person for person in people if person.user_id not in self._busy]
        if not free:
            raise NobodyFree
        person = random.choice(free)
        self._busy.add(person.user_id)
        try:
            yield person
        finally:
            self._busy.discard(person.user_id)

    @contextmanager
    def somebody(self) -> Iterator[tuple[Person, str]]:
        """Somebody in some room."""
        room, people = random.choice(list(self.rooms.items()))
        with self.one_of(people) as person:
            yield person, room


async def send(town: Town) -> None:
    """A message."""
    with town.somebody() as (person, room):
        text = f"Message {next(_numbers)} of a long day"
        town.announced(room, text)
        await person.send(room, text)


async def set_topic(town: Town) -> None:
    """Another topic, set by who made the room."""
    room, people = random.choice(list(town.rooms.items()))
    with town.one_of(people[:1]) as person:
        await person.set_state(room, "m.room.topic", {"topic": f"Topic {next(_numbers)}"})


async def begin_to_type(town: Town) -> None:
    """A notice that somebody types."""
    with town.somebody() as (person, room):
        path = f"/rooms/{quote(room)}/typing/{quote(person.user_id)}"
        await person.call("PUT", path, {"typing": True, "timeout": 5000})


async def read_newest(town: Town) -> None:
    """The newest event, and a receipt for it."""
    with town.somebody() as (person, room):
        events, _ = await person.page(room, limit=1)
        path = f"/rooms/{quote(room)}/receipt/m.read/{quote(events[0]['event_id'])}"
        await person.call("POST", path, {})


async def look_back(town: Town) -> None:
    """The newest page of a room, and the one before it."""
    with town.somebody() as (person, room):
        newest, before = await person.page(room)
        older, _ = await person.page(room, before) if before else ([], "")
        seen = {event["event_id"] for event in [*newest, *older]}
        if len(seen) != len(newest) + len(older):
            raise Unexpected("two pages share events")


async def begin_anew(town: Town) -> None:
    """A new device's first sync; it is logged out again."""
    with town.somebody() as (person, room):
        device = await person.on_a_new_device()
        if room not in orjson.loads(await device.sync())["rooms"]["join"]:
            raise Unexpected(f"{room} is not among the rooms of a first sync")
        await device.call("POST", "/logout", {})
        device.close()


async def look_through_window(town: Town) -> None:
    """A new device's first window of sliding sync; it is logged out again."""
    with town.somebody() as (person, _):
        device = await person.on_a_new_device()
        if not orjson.loads(await device.sliding_sync())["rooms"]:
            raise Unexpected("no room in the window")
        await device.call("POST", "/logout", {})
        device.close()


async def come_and_go(town: Town) -> None:
    """A room joined, and left."""
    with town.one_of(town.spare) as person:
        room = random.choice(list(town.rooms))
        await person.join(room)
        await person.leave(room)


async def make_room(town: Town) -> None:
    """A room that its only member leaves and forgets."""
    with town.one_of(town.spare) as person:
        room = await person.create_room(f"Room {next(_numbers)} of a long day")
        await person.leave(room)
        await person.call("POST", f"/rooms/{quote(room)}/forget", {})


async def share_picture(town: Town) -> None:
    """A file of 100 kB, uploaded and downloaded."""
    with town.somebody() as (person, _):
        reply = orjson.loads(await person.request("POST", "/_matrix/media/v3/upload", _PICTURE))
        path = reply["content_uri"].removeprefix("mxc://")
        if await person.request("GET", f"/_matrix/client/v1/media/download/{path}") != _PICTURE:
            raise Unexpected("another file came back")


async def hear_from_peer(town: Town) -> float:
    """A transaction of another server; how long its delivery took, in seconds."""
    events = []
    for _ in range(PDUS_EACH):
        events.append(town.peer.message(town.peer_room))
        # To sign them all at once would hold up those who wait for their answers here.
        await asyncio.sleep(0)
    transaction = town.peer.transaction(events)
    start = time.perf_counter()
    await town.peer.deliver(transaction)
    return time.perf_counter() - start


@dataclass(frozen=True)
class Deed:
    """What is done, and how often a second; its seconds, where not all of them are the server's."""

    do: Callable[[Town], Awaitable[float | None]]
    per_second: float


DEEDS = {
    "send": Deed(send, 15.0),
    "topic": Deed(set_topic, 0.2),
    "typing": Deed(begin_to_type, 1.0),
    "receipt": Deed(read_newest, 2.0),
    "older messages": Deed(look_back, 0.5),
    "first sync": Deed(begin_anew, 0.1),
    "sliding sync": Deed(look_through_window, 0.1),
    "join and leave": Deed(come_and_go, 0.3),
    "create and leave": Deed(make_room, 0.05),
    "upload and download": Deed(share_picture, 0.2),
    "50 events from a peer": Deed(hear_from_peer, 0.1),
}
