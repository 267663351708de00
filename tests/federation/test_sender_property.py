"""Whatever the order of what people do, of failures, restarts and signs of life: nothing owed is lost.

A peer that may lose answers, be away or be spoken to is compared with what it was entitled to.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from federation.sender import Sender
from homeserver.errors import RemoteError
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.receipts import READ
from homeserver.storage import open_database
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.numbers import Sequence
from tests.federation.sending import PEER, written
from tests.sync.server import SyncServer
from tests.world import SERVER, World, WorldRoom

BOB = f"@bob:{PEER}"
ROOMS = 3

#: What may happen, and in which room.
DEEDS = st.tuples(
    st.sampled_from(
        ["say", "say", "say", "say", "join", "join", "leave", "kick", "to_device", "read", "crash", "contact"]
    ),
    st.integers(0, ROOMS - 1),
)
#: How the peer is for some time, and how long that is after what happened.
TIMES = st.tuples(
    st.sampled_from(["up", "down", "deaf"]),
    st.lists(DEEDS, min_size=3, max_size=15),
    st.sampled_from(["wait", "wait_long", "restart", "contact"]),
)
STEPS = st.lists(TIMES, min_size=3, max_size=6).map(
    lambda times: [
        step for how, deeds, end in times for step in ((how, 0), ("say", 0), ("wait", 0), *deeds, (end, 0))
    ]
)


@dataclass
class Peer:
    """Takes transactions; ``deaf``: and then its answers are lost."""

    up: bool = True
    deaf: bool = False
    pdus: set[str] = field(default_factory=set)
    #: To-device messages that were acknowledged, and those that came.
    acknowledged: list[str] = field(default_factory=list)
    came: set[str] = field(default_factory=set)
    receipts: dict[tuple[str, str], str] = field(default_factory=dict)

    async def send_transaction(
        self, server_name: str, transaction_id: str, transaction: Mapping[str, Any] | bytes
    ) -> dict[str, Any]:
        assert server_name == PEER
        assert isinstance(transaction, bytes)
        if not self.up:
            raise gone()
        content = json.loads(transaction)
        assert len(content["pdus"]) + len(content["edus"]) > 0
        assert len(content["pdus"]) <= 50
        assert len(content["edus"]) <= 100
        self.pdus.update(_key(pdu) for pdu in content["pdus"])
        messages = [edu["content"] for edu in content["edus"] if edu["edu_type"] == "m.direct_to_device"]
        assert not {each["message_id"] for each in messages} & set(self.acknowledged), "sent again"
        self.came.update(each["message_id"] for each in messages)
        for edu in content["edus"]:
            if edu["edu_type"] == "m.receipt":
                for room_id, by_type in edu["content"].items():
                    for user_id, said in by_type[READ].items():
                        self.receipts[room_id, user_id] = said["event_ids"][0]
        if self.deaf:
            raise gone()
        self.acknowledged += [each["message_id"] for each in messages]
        return {}


def gone() -> RemoteError:
    return RemoteError(PEER, "no answer", reachable=False, transient=True)


def _key(pdu: Mapping[str, Any]) -> str:
    """What tells events of these rooms apart without computing their ids."""
    return str(pdu["signatures"][SERVER])


class Story:
    """People in rooms here, a peer, and what the peer ought to have in the end."""

    def __init__(self, world: World, rooms: list[WorldRoom], alice: str, server: SyncServer) -> None:
        self.world = world
        self.rooms = rooms
        self.alice = alice
        self.server = server
        self.peer = Peer()
        self.sender: Sender
        self.inside: set[int] = set()
        self.owed: list[StoredEvent] = []
        self.everything: dict[str, StoredEvent] = {}
        self.own: set[str] = set()
        self.messages: set[str] = set()
        self.read: dict[tuple[str, str], str] = {}

    @classmethod
    async def open(cls, db: Database) -> Story:
        world = await World.open(db)
        server = SyncServer(world)
        alice = world.user("alice")
        rooms = [await world.public_room(alice) for _ in range(ROOMS)]
        story = cls(world, rooms, alice, server)
        world.core.notifier.listeners.append(story.new_events)
        await story.start()
        await story.step("join", 0)
        return story

    def new_events(self, news: NewEvents) -> None:
        """The sender of the time is told."""
        self.sender.new_events(news)

    async def start(self) -> None:
        self.sender = Sender(
            db=self.world.db,
            events=self.world.events,
            client=self.peer,
            outbox_positions=await Sequence.open(self.world.db, "outbox"),
            clock=self.world.clock,
            server_name=SERVER,
            allows=lambda name: True,
            sticky=self.world.core.sticky,
            max_caught_up=3,
        )
        await self.sender.start(self.world.core.notifier.position)
        self.server.ephemeral.receipts._edus = self.sender
        await self.sender.idle()

    async def step(self, what: str, number: int) -> None:
        room = self.rooms[number]
        match what:
            case "say":
                self._note(number, await room.send(self.alice, "hello"))
            case "join" if number not in self.inside:
                self._own(await room.set_state(BOB, "m.room.member", {"membership": "join"}, BOB))
                self.inside.add(number)
            case "leave" if number in self.inside:
                self._own(await room.set_state(BOB, "m.room.member", {"membership": "leave"}, BOB))
                self._out(number)
            case "kick" if number in self.inside:
                self._note(
                    number,
                    await room.set_state(self.alice, "m.room.member", {"membership": "leave"}, BOB),
                )
                self._out(number)
            case "to_device":
                message_id = f"m{len(self.messages)}"
                self.messages.add(message_id)
                self.sender.send_edu(PEER, "m.direct_to_device", {"message_id": message_id}, durable=True)
            case "read":
                await self._read(number)
            case "down" | "up" | "deaf":
                self.peer.up, self.peer.deaf = what != "down", what == "deaf"
            case "wait" | "wait_long":
                await self.wait(10 if what == "wait" else 7200)
            case "crash" | "restart":
                await self.restart(crash=what == "crash")
            case "contact":
                self.sender.peer_is_alive(PEER)
        await written(self.world.db)
        await self.sender.idle()

    def _note(self, number: int, stored: StoredEvent) -> None:
        self.everything[stored.id] = stored
        if number in self.inside:
            self.owed.append(stored)

    def _own(self, stored: StoredEvent) -> None:
        """The peer made this itself, and so knows what it builds on."""
        self.everything[stored.id] = stored
        self.own.add(stored.id)

    def _out(self, number: int) -> None:
        """The peer is out of a room: what was read there is no business of its any more."""
        self.inside.discard(number)
        self.read.pop((self.rooms[number].room_id, self.alice), None)

    async def _read(self, number: int) -> None:
        newest = (await self.rooms[number].timeline())[-1]
        room_id = self.rooms[number].room_id
        await self.server.receipts.read(self.alice, room_id, READ, newest.id)
        self.read.pop((room_id, self.alice), None)
        if number in self.inside:
            self.read[room_id, self.alice] = newest.id

    async def wait(self, seconds: float) -> None:
        self.world.clock.advance(seconds)
        self.sender.tick()
        await written(self.world.db)
        await self.sender.idle()

    async def restart(self, *, crash: bool) -> None:
        if not crash:
            await self.sender.close()
        elif self.sender._ticking is not None:
            self.sender._ticking.cancel()
        await self.start()

    @property
    def came(self) -> set[str]:
        return {one.id for one in self.everything.values() if _key(one.event.pdu) in self.peer.pdus}

    def reachable(self) -> set[str]:
        """The events that came, and those they lead to."""
        found: set[str] = set()
        waiting = [*self.came, *self.own]
        while waiting:
            event_id = waiting.pop()
            if event_id not in found:
                found.add(event_id)
                stored = self.everything.get(event_id)
                waiting += stored.event.prev_events if stored else ()
        return found


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_nothing_owed_is_lost_and_nothing_else_is_told(sqlite_template: Path, steps: Any) -> None:
    story = asyncio.run(told(sqlite_template, steps))

    assert story.came <= {one.id for one in story.owed}, "not for the peer"
    assert {one.id for one in story.owed} <= story.reachable(), "lost"
    assert story.peer.came == story.messages
    assert sorted(story.peer.acknowledged) == sorted(story.messages)
    assert {key: story.peer.receipts.get(key) for key in story.read} == story.read


async def told(template: Path, steps: list[tuple[str, int]]) -> Story:
    """The story of these steps, once the peer is back and was given time."""
    with tempfile.TemporaryDirectory() as folder:
        db = await open_database(str(shutil.copy(template, Path(folder) / "story.db")))
        story = await Story.open(db)
        for what, number in steps:
            await story.step(what, number)
        story.peer.up, story.peer.deaf = True, False
        for _ in range(5):
            await story.wait(48 * 3600)
        await story.sender.close()
        await story.world.background.close()
        await db.close()
        return story
