"""``python -m bench.growth.fill``: puts many messages into a room of a server that is stopped.

They go the way that every message goes, checked, signed and stored; only HTTP is left out.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from homeserver.clock import SystemClock
from homeserver.core import open_core
from homeserver.protocol.signing import parse_signing_key_file
from homeserver.rooms.send import Draft
from homeserver.storage import open_database

#: Queued before they are waited for.
_AT_ONCE = 500


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
            for start in range(0, self.count, _AT_ONCE):
                async with core.rooms.lock(self.room_id) as room:
                    for number in range(start, min(self.count, start + _AT_ONCE)):
                        content = {"msgtype": "m.text", "body": f"Message {number} of those put in"}
                        draft = Draft(self.sender, "m.room.message", content)
                        written = await core.send.stage(room, draft)
                await written
            await core.background.close()
        finally:
            await db.close()


if __name__ == "__main__":
    filling = Filling(**json.loads(sys.argv[1]))
    asyncio.run(filling.fill(Path(filling.key_file).read_text()))
