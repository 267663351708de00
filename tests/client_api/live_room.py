"""A room with Alice in it, and streams of hers that are open: for tests of the live transports."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

from tests.client_api.account_server import V3, AccountServer, segment
from tests.followers import SyncEvent, sync_events

PATIENCE = 30.0


class EventStream:
    """An open stream of server-sent events."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self._events: AsyncGenerator[SyncEvent | None, None] = sync_events(response)  # type: ignore[assignment]

    async def next(self) -> SyncEvent | None:
        """The next event, or ``None`` for a sign of life.  ``StopAsyncIteration`` at the stream's end."""
        async with asyncio.timeout(PATIENCE):
            return await anext(self._events)

    async def next_event(self) -> SyncEvent:
        """The next event."""
        while (event := await self.next()) is None:
            pass
        return event

    async def is_over(self) -> bool:
        """Whether the stream ends where an event ends, with nothing more."""
        try:
            while await self.next() is None:
                pass
        except StopAsyncIteration:
            return True
        return False


class Socket:
    """An open WebSocket."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse[Any]) -> None:
        self.socket = socket
        self.updates: list[dict[str, Any]] = []

    async def next(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = await self.socket.receive_json(timeout=PATIENCE)
        return message

    async def next_update(self) -> dict[str, Any]:
        """The next news; answers are passed over."""
        while "next_batch" not in (message := await self.next()):
            pass
        return message

    async def ask(self, method: str, call_id: str = "1", **param: Any) -> dict[str, Any]:
        """The answer to a request; news that come before it are kept."""
        await self.socket.send_json({"id": call_id, "method": method, "param": param})
        return await self.answer(call_id)

    async def answer(self, call_id: str | None) -> dict[str, Any]:
        """The answer to a request that was sent."""
        while True:
            message = await self.next()
            if "id" in message and message["id"] == call_id:
                return message
            self.updates.append(message)

    async def ending(self) -> tuple[int | None, str]:
        """The code and the words it is closed with."""
        while True:
            message = await self.socket.receive(timeout=PATIENCE)
            if message.type is aiohttp.WSMsgType.CLOSE:
                return message.data, message.extra or ""
            if message.type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR}:
                return self.socket.close_code, ""


class LiveRoom:
    """The server, a room, and Alice's streams."""

    def __init__(self, server: AccountServer, alice: str, room: str) -> None:
        self.server = server
        self.alice = alice
        self.room = room
        self._numbers = itertools.count()

    @classmethod
    async def found(cls, server: AccountServer) -> LiveRoom:
        alice = await server.user("alice", device_id="PHONE")
        status, reply = await server.call("POST", "/createRoom", {}, token=alice)
        assert status == 200, reply
        return cls(server, alice, reply["room_id"])

    @property
    def rooms(self) -> str:
        return f"/rooms/{segment(self.room)}"

    async def send(self, text: str) -> str:
        """Send a message over HTTP; its event id."""
        path = f"{self.rooms}/send/m.room.message/http{next(self._numbers)}"
        status, reply = await self.server.call(
            "PUT", path, {"msgtype": "m.text", "body": text}, token=self.alice
        )
        assert status == 200, reply
        return str(reply["event_id"])

    async def token(self) -> str:
        """A token up to now."""
        _, reply = await self.server.call("GET", "/sync", token=self.alice)
        return str(reply["next_batch"])

    async def tell_device(self, text: str) -> None:
        """Send a message to Alice's device."""
        messages = {"messages": {"@alice:a.org": {"PHONE": {"text": text}}}}
        status, _ = await self.server.call("PUT", f"/sendToDevice/m.x/{text}", messages, token=self.alice)
        assert status == 200

    @asynccontextmanager
    async def events(
        self, path: str = "/sync/sse", *, headers: dict[str, str] | None = None, **query: str
    ) -> AsyncIterator[EventStream]:
        """A stream of events, with the access token as a browser gives it."""
        url = URL(path if path.startswith("/_matrix") else V3 + path)
        query = {"access_token": self.alice, **query}
        async with self.server.client.get(url, params=query, headers=headers) as response:
            yield EventStream(response)

    @asynccontextmanager
    async def socket(
        self, path: str = f"{V3}/stream", *, headers: dict[str, str] | None = None, **query: str
    ) -> AsyncIterator[Socket]:
        """A WebSocket, with the access token as a browser gives it."""
        url = URL(path).with_query({"access_token": self.alice, **query})
        async with self.server.client.ws_connect(
            str(url), protocols=("m.json",), headers=headers, autoping=False
        ) as socket:
            yield Socket(socket)


def bodies(update: dict[str, Any], room: str) -> list[str]:
    """The texts in a room's timeline."""
    events = update["rooms"].get("join", {}).get(room, {"timeline": {"events": []}})["timeline"]["events"]
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


def device_texts(update: dict[str, Any]) -> list[str]:
    """The messages to the device."""
    return [event["content"]["text"] for event in update["to_device"]["events"]]
