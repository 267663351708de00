"""A picture that was redacted is gone from the server that keeps it, not from its messages alone."""

from __future__ import annotations

import asyncio

from tests.flows.conftest import Register
from tests.processes import Server


async def test_a_redacted_picture_is_gone(server: Server, register: Register) -> None:
    alice = await register("alice")
    room_id = await alice.create_room()
    mxc = await alice.upload(b"a picture", "text/plain")
    event_id = await alice.send(room_id, "m.room.message", {"msgtype": "m.file", "body": "x", "url": mxc})
    folder = server.folder / "media" / "local"

    def files() -> int:
        return sum(path.is_file() for path in folder.rglob("*"))

    assert files() == 1
    await alice.redact(room_id, event_id)
    for _ in range(300):
        if not files():
            break
        await asyncio.sleep(0.2)

    assert files() == 0, "still there after a minute"
