"""Clients that follow a room over each of the transports, and come back with their token whatever cuts them.

What a follower has is what it took whole: a response counts once its end is there, and its token with it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import aiohttp

V3 = "/_matrix/client/v3"
#: Wide enough that no test has a gap in a timeline.
FILTER = '{"room":{"timeline":{"limit":100}},"presence":{"types":[]}}'


async def until(is_so: Callable[[], bool], what: str, patience: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + patience
    while not is_so():
        assert time.monotonic() < deadline, f"waited {patience} s in vain until {what}"
        await asyncio.sleep(0.005)


@dataclass
class SyncEvent:
    """A server-sent event, as a browser would have it."""

    name: str
    data: Any
    id: str | None


async def sync_events(response: aiohttp.ClientResponse) -> AsyncIterator[SyncEvent | None]:
    """The events of a stream; ``None`` for a comment.  What is cut off before its end is no event."""
    fields: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode()
        if not line.endswith("\n"):
            return
        name, _, value = line.rstrip("\n").partition(":")
        if not line.strip():
            if "data" in fields:
                yield SyncEvent(fields.get("event", "message"), json.loads(fields["data"]), fields.get("id"))
            fields = {}
        elif not name:
            yield None
        else:
            fields[name] = value.removeprefix(" ")


@dataclass
class Follower:
    """A client of one transport; ``base_url`` may be that of a proxy."""

    http: aiohttp.ClientSession
    base_url: str
    access_token: str
    token: str | None = None
    #: Ids of events by room, in the order they came, and messages to the device.
    seen: dict[str, list[str]] = field(default_factory=dict)
    to_device: list[Any] = field(default_factory=list)
    connections: int = 0
    gaps: int = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.access_token}"}

    @property
    def parameters(self) -> dict[str, str]:
        return {"filter": FILTER, **({"since": self.token} if self.token else {})}

    def responses(self) -> AsyncIterator[dict[str, Any]]:
        """What one connection brings, until it ends."""
        raise NotImplementedError

    def take(self, response: dict[str, Any]) -> None:
        """Keep a response, and the token to come back with."""
        for room_id, room in response["rooms"].get("join", {}).items():
            timeline = room["timeline"]
            self.gaps += timeline["limited"] and self.token is not None
            self.seen.setdefault(room_id, []).extend(event["event_id"] for event in timeline["events"])
        self.to_device += response["to_device"]["events"]
        self.token = response["next_batch"]

    async def follow_until(self, is_enough: Callable[[], bool], patience: float = 60.0) -> None:
        """Come back again and again, until there is enough; fails after so many seconds."""
        async with asyncio.timeout(patience):
            while not is_enough():
                self.connections += 1
                try:
                    async with aclosing(self.responses()) as responses:  # type: ignore[type-var]
                        async for response in responses:
                            self.take(response)
                            if is_enough():
                                return
                except (aiohttp.ClientError, ConnectionError, json.JSONDecodeError):
                    await asyncio.sleep(0.01)


class LongPoll(Follower):
    """``GET /sync``."""

    async def responses(self) -> AsyncIterator[dict[str, Any]]:
        while True:
            query = {**self.parameters, "timeout": "30000"}
            async with self.http.get(
                f"{self.base_url}{V3}/sync", params=query, headers=self.headers
            ) as response:
                response.raise_for_status()
                yield await response.json()


class EventSource(Follower):
    """``GET /sync/sse``, with the last event's id as a browser gives it."""

    async def responses(self) -> AsyncIterator[dict[str, Any]]:
        headers = self.headers | ({"Last-Event-ID": self.token} if self.token else {})
        async with self.http.get(
            f"{self.base_url}{V3}/sync/sse", params={"filter": FILTER}, headers=headers
        ) as response:
            response.raise_for_status()
            async for event in sync_events(response):
                if event is not None and event.name == "sync":
                    assert event.id == event.data["next_batch"]
                    yield event.data


class Socket(Follower):
    """``GET /stream``, with the token in the query as a browser gives it."""

    async def responses(self) -> AsyncIterator[dict[str, Any]]:
        query = {**self.parameters, "access_token": self.access_token}
        async with self.http.ws_connect(
            f"{self.base_url}{V3}/stream", params=query, protocols=("m.json",), max_msg_size=0
        ) as socket:
            assert socket.protocol == "m.json"
            async for message in socket:
                update = json.loads(message.data)
                if "next_batch" in update:
                    yield update


MakeFollower: TypeAlias = Callable[[aiohttp.ClientSession, str, str], Follower]
TRANSPORTS: dict[str, MakeFollower] = {"long poll": LongPoll, "sse": EventSource, "web socket": Socket}
