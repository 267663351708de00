"""What the stories of a faulty network have in common."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.interop.client import Client, NotSeen
from tests.interop.stories import NEWEST, agree_on_state, public_room
from tests.processes import Server

#: A server that could not be reached is tried again after so long, at most (seconds).
PATIENCE = 60.0


async def room_of_all(people: Sequence[Client], host: Server, version: str = NEWEST) -> str:
    """A public room of the first of the people, which all are in and where all have power."""
    first, *others = people
    room = await public_room(first, version)
    for other in others:
        await other.join(room, host.server_name)
        await first.sees_membership(room, other.user_id, "join")
        granted = await first.set_power(room, other.user_id, 50)
        await other.hears(room, granted)
    for one in people:
        for other in people:
            await one.sees_membership(room, other.user_id, "join")
    return room


async def all_agree(room: str, people: Sequence[Client], said: Sequence[str]) -> None:
    """Wait until every server has every event in its history, and all report the same state."""
    for person in people:
        await has_all(person, room, said)
    await agree_on_state(room, *people, patience=PATIENCE)


async def has_all(person: Client, room: str, event_ids: Sequence[str]) -> None:
    """Wait until all of the events are in what the person can scroll back to."""
    deadline = time.monotonic() + PATIENCE
    while True:
        history = [event["event_id"] for event in await person.history(room, page=100)]
        missing = set(event_ids) - set(history)
        if not missing:
            assert len(history) == len(set(history)), "an event is in the history twice"
            return
        if time.monotonic() > deadline:
            raise NotSeen(f"{person.user_id} lacks {len(missing)} of {len(event_ids)} events: {missing}")
        await asyncio.sleep(0.5)
