"""A server where people search, reached over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from homeserver.protocol.retention import Lifetimes
from homeserver.storage.database import Database
from tests.client_api.room_server import RoomServer, room_server
from tests.world import World, WorldRoom


class Library:
    """The server, and what people find."""

    def __init__(self, server: RoomServer) -> None:
        self.server = server
        self.world: World = server.world

    async def call(self, user_id: str, criteria: dict[str, Any], **query: str) -> tuple[int, Any]:
        """Status and JSON of a search."""
        body = {"search_categories": {"room_events": criteria}}
        return await self.server.call(user_id, "POST", "/search", body, **query)

    async def search(self, user_id: str, term: str, *, batch: str | None = None, **criteria: Any) -> Any:
        """What is found, the newest first where nothing else is asked for."""
        query = {} if batch is None else {"next_batch": batch}
        wanted = {"search_term": term, "order_by": "recent", **criteria}
        status, reply = await self.call(user_id, wanted, **query)
        assert status == 200, reply
        return reply["search_categories"]["room_events"]

    async def bodies(self, user_id: str, term: str, **criteria: Any) -> list[str]:
        """The texts of the messages that are found."""
        found = await self.search(user_id, term, **criteria)
        return [one["result"]["content"].get("body", "") for one in found["results"]]

    async def room(self, creator: str, *others: str, **fields: Any) -> WorldRoom:
        """A room with people in it."""
        room = await self.world.public_room(creator, **fields)
        for other in others:
            await room.join(other)
        return room


@asynccontextmanager
async def library_over(db: Database, *, lifetimes: Lifetimes | None = None) -> AsyncIterator[Library]:
    """The server over a database; again over the same one, it is the server after a restart."""
    async with room_server(db, searching=True, lifetimes=lifetimes) as server:
        yield Library(server)
        await server.world.core.background.close()
