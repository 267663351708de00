"""What a search costs: statements, however many messages and rooms there are."""

from __future__ import annotations

from typing import Any, cast

from homeserver.storage.database import Database
from tests.rooms.counting import Counting
from tests.search.library import library_over

ALICE = "@alice:here.example"
ROOMS, MESSAGES = 60, 300
#: For everything but the events that are looked at, a hundred at once.
_MOST = 25


async def test_a_search_takes_few_statements_in_many_rooms(database: Database) -> None:
    counting = cast("Any", Counting(database))
    async with library_over(counting) as library:
        rooms = [await library.room(ALICE) for _ in range(ROOMS)]
        for number in range(MESSAGES):
            rare = "pelican" if number % 100 == 0 else "sparrow"
            await rooms[number % ROOMS].send(ALICE, f"a {rare}, number {number}")
        assert (await library.search(ALICE, "pelican"))["count"] == 3
        counting.reads = counting.rows = 0
        assert (await library.search(ALICE, "pelican"))["count"] == 3
        assert counting.reads <= _MOST
        assert counting.rows <= 3 * _MOST + ROOMS
        counting.reads = 0
        in_one = await library.search(ALICE, "sparrow", filter={"rooms": [rooms[1].room_id], "limit": 50})
        assert in_one["count"] == MESSAGES // ROOMS
        assert counting.reads <= _MOST
