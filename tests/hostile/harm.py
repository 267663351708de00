"""What an attack may cost, and what it must not change: measured around each attack."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from structlog.testing import capture_logs

from homeserver.storage import events as event_storage
from homeserver.storage import sqlite
from tests.hostile.peer import HostilePeer
from tests.remote import Server

#: In seconds; nothing that is refused takes longer, on a busy machine neither.
MOST_SECONDS = 10.0

#: Rows of an event that is kept although it is refused: itself, its edges, what its transaction was answered.
STORED = 16

_QUIET = ("debug",)
_numbers = itertools.count(1)


@dataclass(kw_only=True)
class Scene:
    """alice has a room here with mallory of the hostile server in it, and another one for herself."""

    here: Server
    evil: HostilePeer
    alice: str
    mallory: str
    room_id: str
    other_id: str

    async def works(self) -> None:
        """What is right still goes through, in both directions and in the other room."""
        body = f"good {next(_numbers)}"
        good = await self.evil.message(self.room_id, self.mallory, body)
        assert await self.evil.sends_one(self.here, good) == ""
        await self.here.say(self.room_id, self.alice, f"{body} too")
        await self.here.say(self.other_id, self.alice, body)
        assert (await self.here.bodies(self.room_id))[-2:] == [body, f"{body} too"]
        assert (await self.here.bodies(self.other_id))[-1] == body


@dataclass
class Seen:
    """What could be seen of an attack when it was over."""

    lines: list[Mapping[str, Any]] = field(default_factory=list)
    #: Paths this server asked others for, but for its own events going out.
    asked: list[str] = field(default_factory=list)
    #: Rows that were written, by table.
    rows: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


@asynccontextmanager
async def refused(
    scene: Scene,
    *,
    requests: int = 0,
    rows: int = 1,
    queries: int = 1000,
    lines: int = 1,
    names: str | None = None,
    reason: str = "",
) -> AsyncIterator[Seen]:
    """An attack that changes nothing, costs no more than this, and is logged.

    Rooms look as before and work; at most ``requests`` were made of others, ``queries`` of the
    database, and ``rows`` written (what a transaction was answered with is one); 1 to ``lines``
    lines say what happened, without a traceback, and one of them ``names`` it (the hostile
    server's name) and the ``reason``.  Lines 0: nothing to say.
    """
    before = await _looks(scene)
    rows_before = await _row_counts(scene.here)
    asked_before = len(scene.here.network.asked)
    seen, started = Seen(), time.monotonic()
    with capture_logs() as logged, counted_queries() as asked_for:
        yield seen
        await scene.here.network.settle()
    seen.seconds = time.monotonic() - started
    # What others log of this server's requests is theirs.
    seen.lines = [
        line for line in logged if line["log_level"] not in _QUIET and line.get("caller") != scene.here.name
    ]
    seen.asked = [
        path
        for origin, _, _, path in scene.here.network.asked[asked_before:]
        if origin == scene.here.name and "/v1/send/" not in path
    ]
    counts = await _row_counts(scene.here)
    seen.rows = {name: n - rows_before[name] for name, n in counts.items() if n > rows_before[name]}
    assert await _looks(scene) == before
    assert seen.seconds < MOST_SECONDS
    assert len(seen.asked) <= requests, seen.asked
    assert len(asked_for) <= queries
    assert sum(seen.rows.values()) <= rows, seen.rows
    check_lines(seen.lines, lines, scene.evil.name if names is None else names)
    assert not reason or any(reason in str(line.get("reason")) for line in seen.lines), seen.lines
    scene.evil.tells_the_truth()
    await scene.works()


def check_lines(found: list[Mapping[str, Any]], most: int, names: str) -> None:
    """1 to ``most`` lines, none with a traceback, one of which names somebody or something."""
    assert not [line for line in found if line.get("exc_info") or line["log_level"] in ("error", "critical")]
    assert len(found) <= most, found
    if most:
        assert any(names in str(value) for line in found for value in line.values()), found


@contextmanager
def counted_queries() -> Iterator[list[None]]:
    """What is as long as the number of queries that were made, by all servers of the test."""
    made: list[None] = []

    def counting(text: Callable[[str], str]) -> Callable[[str], str]:
        def counted(sql: str) -> str:
            made.append(None)
            return text(sql)

        return counted

    with (
        patch.object(sqlite, "sqlite_text", counting(sqlite.sqlite_text)),
        patch.object(sqlite, "sqlite_in_text", counting(sqlite.sqlite_in_text)),
    ):
        yield made


async def _looks(scene: Scene) -> list[Any]:
    """The state and the timeline of every room."""
    looks: list[Any] = []
    for room_id in (scene.room_id, scene.other_id):
        room = await scene.here.room(room_id)
        await room.settle()
        timeline = await event_storage.timeline_backward(scene.here.db.scan, room.nid, room.last_pos, 1000)
        shown = [(stored.id, stored.event.json) for stored in timeline if not stored.hidden]
        looks.append((await scene.here.state_ids(room_id), dict(room.servers), shown))
    return looks


async def _row_counts(server: Server) -> dict[str, int]:
    scan = server.db.scan
    tables = await scan.fetch("SELECT name FROM sqlite_master WHERE type = 'table'")
    names = [name for (name,) in tables if not name.startswith("sqlite_")]
    return {name: await scan.fetch_value(f"SELECT count(*) FROM {name}") for name in names}
