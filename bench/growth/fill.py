"""``python -m bench.growth.fill``: puts many messages into a room of a server that is stopped.

One goes the way that every message goes; the others are made like it, numbered and stored by the write
path itself, so that what lies on disk is what as many messages sent would leave.  Only their ids and
signatures are made up, which nobody looks at again, and which would take an hour of a million.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from homeserver.clock import SystemClock
from homeserver.core import Core, open_core
from homeserver.protocol.events import Event
from homeserver.protocol.signing import parse_signing_key_file
from homeserver.rooms.room import Room
from homeserver.rooms.send import Draft
from homeserver.storage import open_database
from homeserver.storage.append import Append
from homeserver.storage.events import StoredEvent

#: In a transaction.
_AT_ONCE = 2000
_BODY = "Message that all are made like"


@dataclass(frozen=True)
class Filling:
    """Which room of which server, whose key is in ``key_file``, gets so many messages of one sender."""

    database: str
    server_name: str
    key_file: str
    room_id: str
    sender: str
    count: int

    def in_process(self) -> None:
        """Do it in a process of its own.  Raises ``CalledProcessError`` where it fails."""
        command = [sys.executable, "-m", "bench.growth.fill", json.dumps(asdict(self))]
        subprocess.run(command, cwd=Path(__file__).parents[2], check=True)

    async def fill(self, key: str) -> None:
        """Do it here; ``key`` is what the file holds."""
        db = await open_database(self.database)
        try:
            core = await open_core(db, SystemClock(), self.server_name, parse_signing_key_file(key))
            async with core.rooms.lock(self.room_id) as room:
                content = {"msgtype": "m.text", "body": _BODY}
                (pattern,) = await (
                    await core.send.stage(room, Draft(self.sender, "m.room.message", content))
                )
                for start in range(1, self.count, _AT_ONCE):
                    await _put(core, room, pattern, min(_AT_ONCE, self.count - start))
            await core.background.close()
        finally:
            await db.close()


async def _put(core: Core, room: Room, pattern: StoredEvent, count: int) -> None:
    """Messages like one, each built upon the last, by way of the write path's own transaction."""
    batch = Append(room.last_pos)
    for _ in range(count):
        before = room.tips[0].event
        made = _like(core, room, pattern, before)
        batch.new.append(made)
        room.tips, room.last_pos, room.depth = (made,), made.pos or 0, made.event.depth
        room.remember(made)
    await core.timeline.write(room, batch, batch.new)


def _like(core: Core, room: Room, pattern: StoredEvent, before: Event) -> StoredEvent:
    event_id = "$" + base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    depth = before.depth + 1
    json = pattern.event.json
    json = json.replace(_BODY.encode(), f"Message {depth} of those put in".encode())
    json = json.replace(b'"depth":%d,' % pattern.event.depth, b'"depth":%d,' % depth)
    json = json.replace(pattern.event.prev_events[0].encode(), before.event_id.encode())
    event = msgspec.structs.replace(
        pattern.event, event_id=event_id, depth=depth, prev_events=(before.event_id,), json=json
    )
    return msgspec.structs.replace(
        pattern,
        nid=core.event_nids.next(),
        event=event,
        pos=core.positions.next(),
        state_before=room.state_ver,
        state_after=room.state_ver,
    )


if __name__ == "__main__":
    filling = Filling(**json.loads(sys.argv[1]))
    asyncio.run(filling.fill(Path(filling.key_file).read_text()))
