"""Whom users do not want to hear from (client-server API, "Ignoring Users")."""

from __future__ import annotations

import orjson

from homeserver.storage import account_data
from homeserver.storage.account_data import GLOBAL
from homeserver.storage.database import Database

_TYPE = "m.ignored_user_list"


class IgnoredUsers:
    """Reads the lists of ignored users."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def by(self, user_id: str) -> frozenset[str]:
        """The users somebody ignores, themselves never among them."""
        text = await account_data.content(self._db.read, user_id, GLOBAL, _TYPE)
        users = orjson.loads(text).get("ignored_users") if text else None
        return frozenset(users) - {user_id} if isinstance(users, dict) else frozenset()
