"""Where operations are measured: a room, who speaks and who listens there, and who comes and goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.generator.meter import Meter
from bench.generator.person import Person
from bench.generator.prepared import Prepared
from bench.scenarios.scenario import Sample

Operation = Callable[[int, Meter], Awaitable[Sample]]

#: So many people join and leave again.
GUESTS = 8


@dataclass
class Scene:
    """One point of an axis on one server.

    ``own`` are operations that only this axis has; they come before those that all have, and
    ``before_common`` between the two.
    """

    room: str
    speaker: Person
    listener: Person
    #: Who joins what, and leaves it before the next round.
    joins: list[tuple[Person, str]] = field(default_factory=list)
    own: dict[str, Operation] = field(default_factory=dict)
    before_common: Callable[[], Awaitable[None]] | None = None


async def small_room(prepared: Prepared) -> Scene:
    """A new room of two."""
    speaker, listener, *guests = await prepared.people(2 + GUESTS)
    room = await speaker.create_room("Where it is measured")
    await listener.join(room)
    return Scene(room, speaker, listener, [(guest, room) for guest in guests])
