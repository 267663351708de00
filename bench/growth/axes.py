"""What grows, how far, what is measured on the way, and what shall not grow with it."""

from __future__ import annotations

from dataclasses import dataclass

#: By how much the dearest point may exceed the first one where cost shall be flat.
FLAT = 1.5
#: What so many idle long polls may take, in MiB.
IDLE_CLIENTS, IDLE_MIB = 5000, 150


@dataclass(frozen=True)
class Axis:
    """``theirs_upto``: Synapse is measured as far as its data can be made in reasonable time."""

    key: str
    title: str
    points: tuple[int, ...]
    quick_points: tuple[int, ...]
    theirs_upto: int
    operations: tuple[str, ...]


#: Titles of the operations.
OPERATIONS = {
    "remote_join": "join through another server",
    "resolution": "state resolution",
    "send": "send",
    "state": "state change",
    "sync": "incremental sync",
    "join": "local join",
    "page": "page of older messages",
    "delivery": "delivery of an event to a destination",
}

#: The others may grow, and their curves show how.
FLAT_OPERATIONS = ("send", "state", "sync", "resolution")

AXES = [
    Axis(
        "members",
        "members of the room",
        (100, 1_000, 10_000, 50_000),
        (100, 1_000),
        1_000,
        ("remote_join", "resolution", "send", "state", "sync", "join"),
    ),
    Axis(
        "rooms",
        "rooms of the account",
        (10, 100, 1_000, 5_000),
        (10, 100),
        100,
        ("send", "state", "sync", "join"),
    ),
    Axis(
        "events",
        "events in the room",
        (1_000, 10_000, 100_000, 1_000_000),
        (1_000, 10_000),
        1_000,
        ("send", "state", "sync", "join", "page"),
    ),
    Axis(
        "waiting",
        "clients that wait elsewhere",
        (10, 100, 1_000, 5_000),
        (10, 100),
        100,
        ("send", "state", "sync", "join"),
    ),
    Axis(
        "destinations",
        "servers in the room",
        (1, 10, 100, 1_000),
        (1, 10),
        10,
        ("delivery", "send", "state", "sync", "join"),
    ),
]
