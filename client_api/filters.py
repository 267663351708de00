"""Stored filters (client-server API, "Filtering")."""

from __future__ import annotations

import orjson

from homeserver.errors import bad_json, forbidden, not_found
from homeserver.protocol.filters import Filter, InvalidFilter
from homeserver.replies import Json, Reply
from homeserver.storage import filters
from homeserver.storage.database import Database
from homeserver.web import Request

_MAX_FILTER_BYTES = 64 * 1024


class FilterApi:
    """Endpoints that store filters and give them back."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def define(self, request: Request) -> Reply:
        """``POST /user/{userId}/filter``."""
        user_id, definition = _own(request), request.json()
        try:
            Filter.parse(definition)
        except InvalidFilter as error:
            raise bad_json(str(error)) from None
        text = orjson.dumps(definition, option=orjson.OPT_SORT_KEYS)
        if len(text) > _MAX_FILTER_BYTES:
            raise bad_json("The filter is too large")
        filter_id = await self._db.write(lambda tx: filters.add(tx, user_id, text.decode()))
        return {"filter_id": str(filter_id)}

    async def definition(self, request: Request) -> Reply:
        """``GET /user/{userId}/filter/{filterId}``."""
        user_id, filter_id = _own(request), request.params["filterId"]
        text = None
        if filter_id.isascii() and filter_id.isdigit() and len(filter_id) < 19:
            text = await filters.definition(self._db.read, user_id, int(filter_id))
        if text is None:
            raise not_found("There is no such filter")
        return Json(text.encode())


def _own(request: Request) -> str:
    if request.params["userId"] != request.requester.user_id:
        raise forbidden("The filters of another user cannot be seen or changed")
    return request.requester.user_id
