"""What the stories of a faulty network have in common."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from tests.interop.client import Client
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


async def lacking(room: str, people: Sequence[Client], said: Sequence[str]) -> dict[str, set[str]]:
    """What is not in the history of some people though it was said, once all servers report the same state.

    Waits for them to have everything, as long as patience lasts.
    """
    histories = {person.user_id: await history_with(person, room, said) for person in people}
    await agree_on_state(room, *people, patience=PATIENCE)
    return {user_id: missing for user_id, history in histories.items() if (missing := {*said} - history)}


async def history_with(person: Client, room: str, event_ids: Sequence[str]) -> set[str]:
    """What the person can scroll back to, once all of the events are in it or patience is at its end."""
    deadline = time.monotonic() + PATIENCE
    while True:
        history = [event["event_id"] for event in await person.history(room, page=100)]
        if set(event_ids) <= set(history) or time.monotonic() > deadline:
            assert len(history) == len(set(history)), "an event is in the history twice"
            return set(history)
        await asyncio.sleep(0.5)
