"""Servers that do not agree on the time."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest

from tests.faults.conftest import Islands, MakeIslands, ours
from tests.faults.stories import lacking, room_of_all
from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

pytestmark = [pytest.mark.xdist_group("faults-wrong-clocks"), pytest.mark.timeout(300)]

_HOUR = 3600
_WRAPPER = Path(__file__).with_name("wrong_clock.py")


def off_by(seconds: int, folder: Path, authority: Authority, public_port: int) -> Server:
    """One of ours, with a clock that is ahead by so much."""
    server = inglenook(folder, authority, public_port=public_port)
    server.command = [sys.executable, str(_WRAPPER), str(seconds), *server.command[3:]]
    return server


@pytest.fixture(scope="module")
def islands(make_islands: MakeIslands) -> Islands:
    """One that is right, one hours ahead (but less than keys are valid for), one an hour behind."""
    return make_islands(ours, partial(off_by, 10 * _HOUR), partial(off_by, -_HOUR))


async def test_hours_ahead_and_an_hour_behind_still_talk(islands: Islands, people: list[Client]) -> None:
    right, ahead, _ = people
    room = await room_of_all(people, islands.servers[0])

    said = [await person.say(room, "What time is it?") for person in people]
    topics = [await person.set_topic(room, "Time") for person in people]

    assert not await lacking(room, people, [*said, *topics])
    told = [(await right.event(room, event_id))["origin_server_ts"] for event_id in said]
    assert told[1] - told[0] > 9 * _HOUR * 1000
    assert told[2] < told[0]
    late = await ahead.create_room(preset="public_chat", room_version="12")
    await right.join(late, islands.servers[1].server_name)
    await ahead.sees_membership(late, right.user_id, "join")
