"""A client of sliding sync: it keeps its position, and what it saw of each room."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from homeserver.sliding import wire_sliding
from homeserver.sliding_extensions import wire_extensions
from homeserver.sync.sliding import parsing
from homeserver.sync.sliding.extension import Extension
from homeserver.sync.sliding.request import SlidingRequest
from homeserver.sync.sliding.sliding_sync import SlidingSync
from tests.sync.server import SyncServer

#: What the Matrix Rust SDK asks for rooms of its list, but for types that do not matter here.
REQUIRED_STATE = [
    ["m.room.name", ""],
    ["m.room.encryption", ""],
    ["m.room.member", "$LAZY"],
    ["m.room.member", "$ME"],
    ["m.room.topic", ""],
    ["m.room.power_levels", ""],
    ["m.room.create", ""],
    ["m.space.child", "*"],
]


def top(last: int = 19, *, limit: int = 1, **fields: Any) -> dict[str, Any]:
    """A list of the rooms that were active last, as clients ask for it."""
    return {
        "ranges": [[0, last]],
        "timeline_limit": limit,
        "required_state": REQUIRED_STATE,
        **fields,
    }


def sliding_of(server: SyncServer, *extensions: Extension) -> SlidingSync:
    """Sliding sync of a server; made again it knows no connection, as after a restart."""
    return wire_sliding(server.world.core, server.ephemeral, server.reading, extensions)


def extended(server: SyncServer) -> SlidingSync:
    """Sliding sync of a server with all extensions there are."""
    extensions = wire_extensions(
        server.world.core, server.ephemeral, server.reading, server.people, server.encryption
    )
    return sliding_of(server, *extensions)


@dataclass
class SlidingClient:
    """A device of a person, or one connection of it."""

    sliding: SlidingSync
    user_id: str
    device: str = "PHONE"
    conn_id: str = "room-list"
    stable: bool = False
    pos: str | None = None
    seen: defaultdict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    def request(self, body: Mapping[str, Any], *, pos: str | None, timeout: float) -> SlidingRequest:
        """A request as the endpoint would read it."""
        return SlidingRequest(
            user_id=self.user_id,
            device_id=self.device,
            stable=self.stable,
            conn_id=self.conn_id,
            pos=pos,
            timeout_ms=round(timeout * 1000),
            txn_id=body.get("txn_id"),
            lists=parsing.lists(body, self.user_id, stable=self.stable),
            subscriptions=parsing.subscriptions(body, self.user_id, stable=self.stable),
            extensions=parsing.extensions(body, self.sliding.extension_names),
        )

    async def ask(self, *, pos: str | None, timeout: float = 0, **body: Any) -> dict[str, Any]:
        """The response to a request with a position, decoded; the client keeps nothing of it."""
        answer = await self.sliding.wait_and_collect(self.request(body, pos=pos, timeout=timeout))
        decoded: dict[str, Any] = orjson.loads(orjson.dumps(answer))
        return decoded

    async def sync(self, *, timeout: float = 0, **body: Any) -> dict[str, Any]:
        """The next response; the position moves on."""
        response = await self.ask(pos=self.pos, timeout=timeout, **body)
        self.pos = response["pos"]
        for room_id, room in response["rooms"].items():
            self.seen[room_id] += room.get("timeline", [])
        return response

    def wait(self, **body: Any) -> asyncio.Task[dict[str, Any]]:
        """A request that waits for news."""
        return asyncio.get_running_loop().create_task(self.sync(timeout=60, **body))


def bodies(room: Mapping[str, Any]) -> list[str]:
    """The texts in a room's timeline."""
    return [event["content"]["body"] for event in room["timeline"] if event["type"] == "m.room.message"]


def state_of(room: Mapping[str, Any]) -> set[tuple[str, str]]:
    """What a room's required state tells of."""
    return {(event["type"], event["state_key"]) for event in room["required_state"]}


def members(events: Sequence[Mapping[str, Any]]) -> set[str]:
    """Whose membership is among some events."""
    return {event["state_key"] for event in events if event["type"] == "m.room.member"}
