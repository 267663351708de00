"""What several scenarios need of a server, made once: people, and rooms somebody is in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from bench.generator.person import Person
from bench.generator.site import Site

S = TypeVar("S")
T = TypeVar("T")
R = TypeVar("R")

#: Messages in each room that two share.
TALK = 5
#: As many at once as keep a server busy.
_AT_ONCE = 4


@dataclass
class Prepared:
    """Grows with what is asked for; ``closing`` ends with the generator."""

    site: Site
    closing: AsyncExitStack
    _people: list[Person] = field(default_factory=list)
    _creator: list[Person] = field(default_factory=list)
    _rooms: list[str] = field(default_factory=list)
    _members: dict[int, Person] = field(default_factory=dict)

    async def people(self, count: int) -> list[Person]:
        """The same first ``count`` people each time."""
        missing = max(0, count - len(self._people))
        self._people += await shared_out([self.site] * _AT_ONCE, range(missing), _registered)
        return self._people[:count]

    async def creator_of(self, rooms: int) -> tuple[Person, Sequence[str]]:
        """Somebody who made at least ``rooms`` rooms, and all of theirs."""
        if not self._creator:
            self._creator = await _devices(await Person.register(self.site))
        self._rooms += await shared_out(self._creator, range(len(self._rooms), rooms), _room_made)
        return self._creator[0], self._rooms

    async def member_of(self, rooms: int) -> tuple[Person, Sequence[str]]:
        """Somebody in exactly ``rooms`` rooms, each of two people and with some talk."""
        _, made = await self.creator_of(rooms)
        if rooms not in self._members:
            devices = await _devices(await Person.register(self.site))
            await shared_out(devices, made[:rooms], _joined_and_talked)
            self._members[rooms] = devices[0]
        return self._members[rooms], made[:rooms]


async def shared_out(
    workers: Sequence[S], items: Sequence[T], work: Callable[[S, T], Awaitable[R]]
) -> list[R]:
    """``work`` for every item, each worker doing one after another; results in the order of the items."""
    waiting = list(enumerate(items))[::-1]
    results: dict[int, R] = {}

    async def one_worker(worker: S) -> None:
        while waiting:
            number, item = waiting.pop()
            results[number] = await work(worker, item)

    await asyncio.gather(*map(one_worker, workers))
    return [results[number] for number in range(len(items))]


async def _devices(person: Person) -> list[Person]:
    return [person, *[await person.on_a_new_device() for _ in range(_AT_ONCE - 1)]]


async def _registered(site: Site, _: int) -> Person:
    return await Person.register(site)


async def _room_made(creator: Person, number: int) -> str:
    return await creator.create_room(f"Room {number}")


async def _joined_and_talked(member: Person, room: str) -> None:
    await member.join(room)
    for line in range(TALK):
        await member.send(room, f"Line {line}")
