"""Whom users do not want to hear from (client-server API, "Ignoring Users")."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import orjson

from homeserver.storage import account_data
from homeserver.storage.account_data import GLOBAL
from homeserver.storage.database import Database

_TYPE = "m.ignored_user_list"
_REMEMBERED = 10_000


def ignored_users_in(content: Any) -> frozenset[str]:
    """The users that the content of an ``m.ignored_user_list`` names."""
    users = content.get("ignored_users") if isinstance(content, dict) else None
    return frozenset(users) if isinstance(users, dict) else frozenset()


class IgnoredUsers:
    """Reads the lists of ignored users, and remembers those of users who are active."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._reading: dict[str, object] = {}

    async def by(self, user_id: str) -> frozenset[str]:
        """The users somebody ignores, themselves never among them."""
        known = self._known.get(user_id)
        if known is None:
            mark = self._reading[user_id] = object()
            text = await account_data.content(self._db.read, user_id, GLOBAL, _TYPE)
            known = ignored_users_in(orjson.loads(text) if text else None) - {user_id}
            if self._reading.get(user_id) is mark:  # nothing changed while it was read
                del self._reading[user_id]
                self._known[user_id] = known
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return known

    def forget(self, users: Iterable[str]) -> None:
        """The account data of these users changed."""
        for user_id in users:
            self._known.pop(user_id, None)
            self._reading.pop(user_id, None)
