"""What becomes of delayed events, whatever is done with them: against a model of a few lines."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeserver.calls import wire_calls
from homeserver.errors import MatrixError
from homeserver.rooms.delayed_events import Action, DelayedEvents
from homeserver.rooms.send import Draft
from homeserver.storage import open_database
from homeserver.storage.database import Database
from tests.sync.server import SyncServer

_STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 20)),
    st.tuples(st.sampled_from(["cancel", "restart", "send"]), st.integers(0, 5)),
    st.tuples(st.just("pass"), st.integers(0, 15)),
    st.tuples(st.just("stop"), st.integers(0, 30)),
)


@dataclass
class Model:
    """What should be: the delay and time of each, what was sent in order, what was cancelled."""

    now: int = 0
    due: dict[int, tuple[int, int]] = field(default_factory=dict)
    sent: list[int] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    count: int = 0

    def add(self, delay: int) -> int:
        self.due[self.count] = (self.now + delay, delay)
        self.count += 1
        return self.count - 1

    def manage(self, number: int, action: str) -> bool:
        """Whether that is accepted."""
        if number not in self.due:
            return action == ("send" if number in self.sent else "cancel")
        _, delay = self.due.pop(number)
        if action == "restart":
            self.due[number] = (self.now + delay, delay)
        elif action == "cancel":
            self.cancelled.add(number)
        else:
            self.sent.append(number)
        return True

    def passes(self, seconds: int) -> None:
        self.now += seconds
        overdue = [(at, at - delay, number) for number, (at, delay) in self.due.items() if at <= self.now]
        for _, _, number in sorted(overdue):
            del self.due[number]
            self.sent.append(number)


class Story:
    """A server that is stopped now and then, with a room."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.ids: list[str] = []

    async def start(self, now_ms: int | None = None) -> None:
        self.server = await SyncServer.open(self.db)
        self.world = self.server.world
        if now_ms is not None:
            self.world.clock.advance((now_ms - self.world.clock.now_ms()) / 1000)
        self.delayed: DelayedEvents = wire_calls(
            self.world.core, self.world.actions, self.server.reading
        ).delayed
        await self.delayed.load()
        await self.delayed.send_due()

    async def add(self, room_id: str, number: int, delay: int) -> None:
        draft = Draft(self.world.user("alice"), "m.x", {"number": number})
        # Whole seconds would make times equal, of which the order does not matter.
        self.ids.append(await self.delayed.schedule(draft, room_id, delay * 1000))

    async def manage(self, number: int, action: Action) -> bool:
        try:
            await self.delayed.manage(self.ids[number], action, None)
        except MatrixError:
            return False
        return True

    async def sent(self, room_id: str) -> list[int]:
        room = await self.world.rooms.get(room_id)
        return [one.event.content["number"] for one in room.recent if one.event.type == "m.x"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_STEPS, max_size=20))
async def test_each_is_sent_once_or_cancelled(sqlite_template: Path, steps: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        db = await open_database(str(shutil.copy(sqlite_template, folder)))
        try:
            sent = await _play(db, steps)
        finally:
            await db.close()
    assert len(sent) == len(set(sent))


async def _play(db: Database, steps: list[tuple[str, int]]) -> list[int]:
    """Do the steps, comparing with the model after each; what was sent in the end."""
    story, model = Story(db), Model()
    await story.start()
    room_id = (await story.world.public_room(story.world.user("alice"))).room_id
    for what, number in steps:
        if what == "add":
            await story.add(room_id, model.add(number), number)
        elif what == "pass":
            model.passes(number)
            story.world.clock.advance(number)
            await story.delayed.send_due()
        elif what == "stop":
            model.passes(number)
            await story.start(story.world.clock.now_ms() + number * 1000)
        elif number < model.count:
            action: Action = "cancel" if what == "cancel" else "restart" if what == "restart" else "send"
            assert await story.manage(number, action) == model.manage(number, action)
        sent = await story.sent(room_id)
        assert sorted(sent) == sorted(model.sent)
        waiting = await story.delayed.scheduled(story.world.user("alice"))
        assert {one.delay_id for one in waiting} == {story.ids[number] for number in model.due}
        # One reader's view of what is due next is never later than it.
        assert all(one.due_at > story.world.clock.now_ms() for one in waiting)
    return model.sent
