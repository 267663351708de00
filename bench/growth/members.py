"""A room of another server, with ever more members: joined, spoken in, and forked by its server."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from bench.generator.connection import Unexpected
from bench.generator.meter import Meter
from bench.generator.peer import Peer, running_peer
from bench.generator.person import Person
from bench.generator.prepared import Prepared
from bench.growth.scene import GUESTS, Scene
from bench.scenarios.federation import until_seen
from bench.scenarios.scenario import Sample
from homeserver.protocol.events import Event
from tests.resident import BigRoom

_TOPIC, _MEMBER = "m.room.topic", "m.room.member"
#: So many people on each side of a fork, those who have been in the room for longest.
_ON_A_SIDE = 20


class Members:
    """Rooms of one peer, so that what it costs to tell other servers stays small beside the rest."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._peer: Peer | None = None
        self._numbers = itertools.count()

    async def scene(self, members: int) -> Scene:
        """A room of so many, which nobody here has joined yet: ``remote_join`` has to come first."""
        if self._peer is None:
            self._peer = await self._prepared.closing.enter_async_context(running_peer(self._prepared.site))
            # What a server does only once, at its first join of all, is no part of a join's cost.
            (first,) = await self._prepared.people(1)
            await first.join(self._peer.room(5).room_id, through=self._peer.name)
        peer, room = self._peer, self._peer.room(members)
        speaker, listener, *guests = await self._prepared.people(2 + GUESTS)

        async def remote_join(_: int, meter: Meter) -> Sample:
            return await _joined(peer, room, speaker, listener, meter)

        async def resolution(count: int, meter: Meter) -> Sample:
            return await self._resolved(peer, room, speaker, count, meter)

        return Scene(
            room.room_id,
            speaker,
            listener,
            [(guest, room.room_id) for guest in guests],
            {"remote_join": remote_join, "resolution": resolution},
        )

    async def _resolved(self, peer: Peer, room: BigRoom, speaker: Person, count: int, meter: Meter) -> Sample:
        """Two branches, each with a topic and new names of members, and a message that has seen both."""
        times = []
        for _ in range(count):
            transaction = peer.transaction(self._fork(peer, room))
            with meter:
                start = time.perf_counter()
                await peer.deliver(transaction)
                await until_seen(speaker, room.room_id, transaction.events[-1].event_id, start)
                times.append(time.perf_counter() - start)
        return Sample(count, times)

    def _fork(self, peer: Peer, room: BigRoom) -> list[Event]:
        base = [event.event_id for event in room.newest]
        people = peer.senders(room, 2 * _ON_A_SIDE)
        sides = [self._side(peer, room, base, people[index::2]) for index in range(2)]
        content = {"msgtype": "m.text", "body": f"Both, {next(self._numbers)}"}
        draft = room.draft(people[0], "m.room.message", content, None)
        draft["prev_events"] = [side[-1].event_id for side in sides]
        merge = peer.sealed(room, draft)
        room.add(merge)
        return [*sides[0], *sides[1], merge]

    def _side(self, peer: Peer, room: BigRoom, base: Sequence[str], people: Sequence[str]) -> list[Event]:
        """One branch: the first one's topic, and everybody's new name."""
        drafts = [room.draft(people[0], _TOPIC, {"topic": f"Topic {next(self._numbers)}"}, "")]
        for person in people:
            name = {"membership": "join", "displayname": f"Name {next(self._numbers)}"}
            drafts.append(room.draft(person, _MEMBER, name, person))
        events: list[Event] = []
        prev = base
        for draft in drafts:
            draft["prev_events"] = prev
            events.append(peer.sealed(room, draft))
            prev = [events[-1].event_id]
        for event in events:
            room.add(event)
        return events


async def _joined(peer: Peer, room: BigRoom, speaker: Person, listener: Person, meter: Meter) -> Sample:
    members = sum(type_ == "m.room.member" for type_, _ in room.state)
    with meter:
        start = time.perf_counter()
        await speaker.join(room.room_id, through=peer.name)
        usable = speaker.connection.arrived - start
        known = await speaker.members(room.room_id)
        complete = speaker.connection.arrived - start
    if len(known) != members + 1 or speaker.user_id not in known:
        raise Unexpected(f"{len(known)} members in a room of {members} and the one who joined")
    await listener.join(room.room_id)
    return Sample(1, [usable], [complete])
