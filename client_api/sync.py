"""``GET /sync`` (client-server API, "Syncing")."""

from __future__ import annotations

import orjson

from client_api.filter_parameter import parse_filter
from homeserver.errors import invalid_param
from homeserver.protocol.filters import Filter
from homeserver.replies import Reply
from homeserver.storage import filters
from homeserver.storage.database import Database
from homeserver.sync.positions import SyncToken
from homeserver.sync.request import SyncRequest
from homeserver.sync.sync import Sync
from homeserver.users.presence import STATES
from homeserver.web import Request

_MAX_TIMEOUT_MS = 120_000


class SyncParameters:
    """Reads what is asked of ``/sync``, over whatever transport."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def read(self, request: Request, since: str | None) -> SyncRequest:
        """What a request with a token asks for; ``M_INVALID_PARAM`` for what it cannot."""
        requester = request.requester
        presence = request.query_choice("set_presence", "online", STATES)
        return SyncRequest(
            user_id=requester.user_id,
            device_id=requester.device_id,
            filter=await self._filter(requester.user_id, request.query.get("filter")),
            since=SyncToken.parse(since) if since else None,
            full_state=request.query_bool("full_state"),
            set_presence=next(state for state in STATES if state == presence),
            timeout_ms=request.query_int("timeout", 0, maximum=_MAX_TIMEOUT_MS),
            use_state_after=request.query_bool("use_state_after"),
        )

    async def _filter(self, user_id: str, text: str | None) -> Filter:
        """A filter given as JSON, or by the id of one that was stored."""
        if not text:
            return Filter()
        if text.startswith("{"):
            return parse_filter(text, Filter.parse)
        definition = None
        if text.isascii() and text.isdigit() and len(text) < 19:
            definition = await filters.definition(self._db.read, user_id, int(text))
        if definition is None:
            raise invalid_param("There is no such filter")
        return Filter.parse(orjson.loads(definition))


class SyncApi:
    """The endpoint clients live on."""

    def __init__(self, parameters: SyncParameters, sync: Sync) -> None:
        self._parameters = parameters
        self._sync = sync

    async def sync(self, request: Request) -> Reply:
        """``GET /sync``."""
        asked = await self._parameters.read(request, request.query.get("since"))
        return await self._sync.wait_and_collect(asked)
