"""A client of sliding sync that asks for extensions, always the same ones unless it says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.sync.server import SyncServer
from tests.sync.sliding_client import SlidingClient, extended, top

ENABLED = {"enabled": True}


@dataclass
class ExtensionClient(SlidingClient):
    """Asks for the latest rooms, and for ``extensions``."""

    extensions: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, server: SyncServer, user_id: str, *names: str, **fields: Any) -> ExtensionClient:
        """A client that has switched on some extensions."""
        extensions = {name: dict(ENABLED) for name in names}
        return cls(extended(server), user_id, extensions=extensions, **fields)

    async def told(self, last: int = 19, *, timeout: float = 0, **body: Any) -> dict[str, Any]:
        """What the next response tells beside rooms."""
        body = {"lists": {"all": top(last, limit=5)}, "extensions": self.extensions, **body}
        response = await self.sync(timeout=timeout, **body)
        extensions: dict[str, Any] = response["extensions"]
        return extensions
