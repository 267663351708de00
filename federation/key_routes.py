"""The endpoints for keys: publishing this server's, and vouching for those of others (as a notary).

Specification: server-server API, "Publishing keys", "Querying Keys Through Another Server".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from federation.notary import Notary
from federation.published_keys import is_time
from federation.server_keys import OldKey, server_keys_response
from homeserver.clock import Clock
from homeserver.errors import bad_json
from homeserver.protocol.canonical_json import encode
from homeserver.protocol.signing import SigningKey
from homeserver.replies import Json, Reply
from homeserver.web import Request

_MAX_SERVERS: Final = 100
_MAX_KEYS: Final = 100


class KeyRoutes:
    """The endpoints for keys."""

    def __init__(
        self,
        *,
        server_name: str,
        keys: Sequence[SigningKey],
        old_keys: Sequence[OldKey],
        notary: Notary,
        clock: Clock,
    ) -> None:
        self._server_name = server_name
        self._keys = keys
        self._old_keys = old_keys
        self._notary = notary
        self._clock = clock

    async def own(self, request: Request) -> Reply:
        """``GET /_matrix/key/v2/server``, also with a ``{keyId}``, which makes no difference.

        In canonical JSON: the signature is over these very bytes, but for itself.
        """
        return Json(encode(self._own()))

    async def query_one(self, request: Request) -> Reply:
        """``GET /_matrix/key/v2/query/{serverName}``."""
        until = request.query_int("minimum_valid_until_ts", self._clock.now_ms())
        server, key_id = request.params["serverName"], request.params.get("keyId")
        return await self._vouched({server: {key_id: until} if key_id else {}}, until)

    async def query(self, request: Request) -> Reply:
        """``POST /_matrix/key/v2/query``."""
        server_keys = request.json().get("server_keys")
        if not isinstance(server_keys, dict) or len(server_keys) > _MAX_SERVERS:
            raise bad_json(f"'server_keys' must be an object of at most {_MAX_SERVERS} servers")
        wanted = {server: self._criteria(criteria) for server, criteria in server_keys.items()}
        return await self._vouched(wanted, self._clock.now_ms())

    async def _vouched(self, wanted: Mapping[str, Mapping[str, int]], until_ms: int) -> Reply:
        own = [self._own()] if self._server_name in wanted else []
        others = await self._notary.vouched(wanted, until_ms)
        # Other servers' answers may hold what only the encoder of signed JSON takes.
        return Json(b'{"server_keys":[' + b",".join(map(encode, own + others)) + b"]}")

    def _own(self) -> dict[str, Any]:
        return server_keys_response(self._server_name, self._keys, self._old_keys, self._clock.now_ms())

    def _criteria(self, criteria: Any) -> dict[str, int]:
        """The keys asked for and the time each should be valid at, the present where nothing is said."""
        if not isinstance(criteria, dict) or len(criteria) > _MAX_KEYS:
            raise bad_json(f"The criteria of a server must be an object of at most {_MAX_KEYS} keys")
        return {key_id: self._wanted_until(key) for key_id, key in criteria.items()}

    def _wanted_until(self, criteria: Any) -> int:
        until = criteria.get("minimum_valid_until_ts") if isinstance(criteria, dict) else criteria
        if until is None:
            return self._clock.now_ms()
        if not is_time(until):
            raise bad_json("'minimum_valid_until_ts' must be a time in milliseconds since the epoch")
        return until
