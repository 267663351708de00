"""How much work a run is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """Rounds of each scenario, and what a round of one holds."""

    name: str
    rounds: int
    #: Sent in a round, by 32 connections and by one.
    messages: int
    #: Messages that somebody waits for, one after another.
    pings: int
    #: Rooms of an account that has its fair share of them, of one with few, and of one with many.
    rooms: int
    few_rooms: int
    many_rooms: int
    initial_syncs: int
    incremental_syncs: int
    pages: int
    created_rooms: int
    local_joins: int
    #: People who all wait for one message, and how many messages they are told.
    audience: int
    announcements: int
    #: Received from another server; a multiple of 50.
    pdus: int
    #: Of another server's room.
    members: int
    membership_changes: int
    #: Waited after the start before the idle memory is read, in seconds.
    settling: float = 5.0


FULL = Size(
    name="full",
    rounds=5,
    messages=256,
    pings=40,
    rooms=150,
    few_rooms=100,
    many_rooms=1000,
    initial_syncs=2,
    incremental_syncs=60,
    pages=20,
    created_rooms=8,
    local_joins=20,
    audience=150,
    announcements=5,
    pdus=250,
    members=5000,
    membership_changes=100,
)

#: For ``make bench-quick``: all of the work, a little of each.
QUICK = Size(
    name="quick",
    rounds=3,
    messages=64,
    pings=15,
    rooms=20,
    few_rooms=20,
    many_rooms=50,
    initial_syncs=2,
    incremental_syncs=20,
    pages=5,
    created_rooms=3,
    local_joins=5,
    audience=30,
    announcements=3,
    pdus=100,
    members=300,
    membership_changes=50,
    settling=2.0,
)

#: For the tests of the benchmark itself.
TINY = Size(
    name="tiny",
    rounds=1,
    messages=32,
    pings=2,
    rooms=3,
    few_rooms=2,
    many_rooms=4,
    initial_syncs=1,
    incremental_syncs=4,
    pages=2,
    created_rooms=1,
    local_joins=2,
    audience=3,
    announcements=1,
    pdus=50,
    members=10,
    membership_changes=4,
    settling=0.0,
)
