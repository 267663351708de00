"""Whatever fails, and whenever the server ends: every interesting event arrives once, in its order."""

from __future__ import annotations

import asyncio
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.application_services import ApplicationServices, wire_application_services
from homeserver.config.appservices import Namespace, Namespaces, Registration
from homeserver.errors import RemoteError
from homeserver.storage import open_database
from tests.sync.server import SyncServer
from tests.world import SERVER, World

GHOST = f"@_g:{SERVER}"
SERVICE = Registration(
    id="fake",
    url="http://bridge.example",
    as_token="as token",
    hs_token="hs token",
    sender_localpart="_bot",
    namespaces=Namespaces(users=(Namespace(regex=re.compile("@_g:"), exclusive=True),)),
)

#: What happens, one after the other: something is said (``a``, ``b``: in which room), the ghost comes to a
#: room or leaves it, the service fails in one way or another or works, time goes by, the server ends and
#: starts anew, at once or with what it did not look at yet.
ACTIONS = st.lists(
    st.sampled_from(
        [
            "say a",
            "say b",
            "move a",
            "move b",
            "silent",
            "refusing",
            "lost",
            "works",
            "later",
            "restart",
            "crash",
        ]
    ),
    max_size=40,
)


class Door:
    """The service: what it received, and whether it answers."""

    def __init__(self) -> None:
        self.mood = "works"
        self.attempts: list[tuple[str, bytes]] = []
        self.events: list[str] = []
        self._taken: set[str] = set()

    async def put_json(self, url: str, body: Any, **_: Any) -> tuple[int, Any]:
        txn_id, content = url.rpartition("/")[2], orjson.dumps(body)
        if self.mood == "silent":
            raise RemoteError("bridge.example", "gone", reachable=False, transient=True)
        self.attempts.append((txn_id, content))
        if self.mood == "refusing":
            return 500, None
        if txn_id not in self._taken:
            self._taken.add(txn_id)
            self.events += [event["event_id"] for event in orjson.loads(content)["events"]]
        if self.mood == "lost":
            raise RemoteError("bridge.example", "no answer", reachable=False, transient=True)
        return 200, {}

    async def get_json(self, url: str, **_: Any) -> tuple[int, Any]:
        return 404, None

    async def post_json(self, url: str, body: Any, **_: Any) -> tuple[int, Any]:
        return 404, None


class Story:
    """A server with two rooms, and what should be told of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.door = Door()
        self.expected: list[str] = []
        self.inside: dict[str, bool] = {"a": False, "b": False}

    async def open(self) -> None:
        self.db = await open_database(str(self.folder / "inglenook.db"))
        self.world = await World.open(self.db)
        sync = SyncServer(self.world)
        self.services: ApplicationServices = wire_application_services(
            *(self.world.core, sync.people, sync.ephemeral, sync.reading, sync.encryption),
            http=self.door,
            registrations=[SERVICE],
        )
        await self.services.start(self.world.core, sync.people, self.world.actions)

    async def close(self) -> None:
        await self.world.background.close()
        await self.db.close()

    async def act(self, action: str, number: int) -> None:
        kind, _, name = action.partition(" ")
        if kind == "say":
            stored = await self.rooms[name].send(self.alice, f"message {number}")
            if self.inside[name]:
                self.expected.append(stored.id)
        elif kind == "move":
            await (self.rooms[name].leave if self.inside[name] else self.rooms[name].join)(GHOST)
            member = await self.world.states.member(await self.rooms[name].live(), GHOST)
            assert member is not None
            self.expected.append(member.id)
            self.inside[name] = not self.inside[name]
        elif kind == "later":
            self.world.clock.advance(400)
            await self.services.traffic.tick()
            await self.services.traffic.idle()
        elif kind in ("restart", "crash"):
            if kind == "restart":
                await self.services.traffic.idle()
            await self.close()
            await self.open()
            self.rooms = {each: type(room)(self.world, room.room_id) for each, room in self.rooms.items()}
        else:
            self.door.mood = kind

    async def tell(self, actions: Sequence[str]) -> None:
        await self.open()
        self.alice = self.world.user("alice")
        self.rooms = {name: await self.world.public_room(self.alice) for name in ("a", "b")}
        for number, action in enumerate(actions):
            await self.act(action, number)
        await self.act("works", 0)
        await self.act("later", 0)
        await self.close()


@settings(max_examples=15, deadline=None)
@given(ACTIONS)
def test_every_interesting_event_arrives_in_its_order(sqlite_template: Path, actions: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(sqlite_template, Path(folder) / "inglenook.db")
        story = Story(Path(folder))
        asyncio.run(story.tell(actions))

    assert story.door.events == story.expected
    assert len(set(story.door.attempts)) == len({txn_id for txn_id, _ in story.door.attempts})
    numbers = [int(txn_id) for txn_id, _ in story.door.attempts]
    assert numbers == sorted(numbers)
