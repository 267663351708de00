"""Searching for users (client-server API, "User Directory")."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.errors import forbidden, invalid_param
from homeserver.replies import Reply
from homeserver.storage.user_directory import Entry
from homeserver.users.directory import MAX_LIMIT, UserDirectory
from homeserver.web import Request


class _Search(msgspec.Struct, frozen=True):
    search_term: str
    limit: int = 10


class UserDirectoryApi:
    """The endpoint that finds users; without a ``directory`` it refuses to."""

    def __init__(self, directory: UserDirectory | None) -> None:
        self._directory = directory

    async def search(self, request: Request) -> Reply:
        """``POST /user_directory/search``."""
        wanted = request.decode(_Search)
        if self._directory is None:
            raise forbidden("This server has no user directory")
        if wanted.limit < 1:
            raise invalid_param("'limit' must be at least 1")
        limit = min(wanted.limit, MAX_LIMIT)
        found, limited = await self._directory.search(request.requester.user_id, wanted.search_term, limit)
        return {"results": [_shown(entry) for entry in found], "limited": limited}


def _shown(entry: Entry) -> dict[str, Any]:
    shown = {"display_name": entry.display_name, "avatar_url": entry.avatar_url}
    return {"user_id": entry.user_id} | {name: value for name, value in shown.items() if value is not None}
