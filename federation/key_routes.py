"""Publishing this server's keys, and vouching for those of others (as a notary).

Specification: server-server API, "Publishing keys", "Querying keys through another server".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from federation.keyring import InvalidServerKeys, read_server_keys
from federation.lookups import InFlight, Recent
from federation.server_keys import OldKey, server_keys_response
from homeserver.clock import Clock
from homeserver.errors import RemoteError, bad_json
from homeserver.protocol.ids import is_server_name
from homeserver.protocol.signing import SigningKey, sign_json
from homeserver.web import Reply, Request

_REMEMBERED: Final = 1000
_MAX_SERVERS: Final = 50
_PARALLEL: Final = 10
#: A server is not asked more often, whatever callers want.
_ASK_AGAIN_SECONDS: Final = 300


class KeyRoutes:
    """The endpoints for keys.  ``fetch`` asks a server for what it publishes (``RemoteError``)."""

    def __init__(
        self,
        *,
        server_name: str,
        keys: Sequence[SigningKey],
        old_keys: Sequence[OldKey],
        fetch: Callable[[str], Awaitable[Mapping[str, Any]]],
        allows: Callable[[str], bool],
        clock: Clock,
    ) -> None:
        self._server_name = server_name
        self._keys = keys
        self._old_keys = old_keys
        self._fetch = fetch
        self._allows = allows
        self._clock = clock
        self._published: Recent[str, dict[str, Any]] = Recent(_REMEMBERED)
        self._asked_at: Recent[str, float] = Recent(_REMEMBERED)
        self._fetches: InFlight[str, None] = InFlight()

    async def own(self, request: Request) -> Reply:
        """``GET /_matrix/key/v2/server``."""
        return self._own()

    async def query_one(self, request: Request) -> Reply:
        """``GET /_matrix/key/v2/query/{serverName}``."""
        until = request.query_int("minimum_valid_until_ts", self._clock.now_ms())
        return {"server_keys": await self._vouched({request.params["serverName"]: until})}

    async def query(self, request: Request) -> Reply:
        """``POST /_matrix/key/v2/query``."""
        server_keys = request.json().get("server_keys")
        if not isinstance(server_keys, dict) or len(server_keys) > _MAX_SERVERS:
            raise bad_json(f"'server_keys' must be an object of at most {_MAX_SERVERS} servers")
        wanted = {server: self._wanted_until(criteria) for server, criteria in server_keys.items()}
        return {"server_keys": await self._vouched(wanted)}

    async def close(self) -> None:
        """Stop asking."""
        await self._fetches.close()

    def _own(self) -> dict[str, Any]:
        return server_keys_response(self._server_name, self._keys, self._old_keys, self._clock.now_ms())

    def _wanted_until(self, criteria: Any) -> int:
        """The latest time that one of the keys must be valid until; the present where nothing is said."""
        if not isinstance(criteria, dict):
            raise bad_json("The criteria of a server must be an object")
        times = (key.get("minimum_valid_until_ts") for key in criteria.values() if isinstance(key, dict))
        return max((time for time in times if isinstance(time, int)), default=self._clock.now_ms())

    async def _vouched(self, wanted: Mapping[str, int]) -> list[dict[str, Any]]:
        """What the servers publish, as far as it can be had, with this server's signatures."""
        free = asyncio.Semaphore(_PARALLEL)

        async def one(server_name: str, until: int) -> dict[str, Any] | None:
            async with free:
                return await self._published_by(server_name, until)

        found = await asyncio.gather(*(one(*each) for each in wanted.items()))
        return [self._signed(published) for published in found if published is not None]

    async def _published_by(self, server_name: str, until: int) -> dict[str, Any] | None:
        if server_name == self._server_name:
            return self._own()
        if not is_server_name(server_name) or not self._allows(server_name):
            return None
        known = self._published.get(server_name)
        if known is None or known["valid_until_ts"] < until:
            await self._fetches.run(server_name, lambda: self._ask(server_name))
        return self._published.get(server_name)

    async def _ask(self, server_name: str) -> None:
        now = self._clock.monotonic()
        asked_at = self._asked_at.get(server_name)
        if asked_at is not None and now < asked_at + _ASK_AGAIN_SECONDS:
            return
        self._asked_at.put(server_name, now)
        try:
            published = dict(await self._fetch(server_name))
            read_server_keys(server_name, published, self._clock.now_ms())
        except (RemoteError, InvalidServerKeys):
            return
        self._published.put(server_name, published)

    def _signed(self, published: dict[str, Any]) -> dict[str, Any]:
        for key in self._keys:
            published = sign_json(published, self._server_name, key)
        return published
