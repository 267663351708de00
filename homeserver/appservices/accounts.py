"""The users of application services: accounts that nobody has a password to.

Specification: application service API, "Server admin style permissions".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from homeserver.appservices.services import AppService, AppServices
from homeserver.clock import Clock
from homeserver.errors import MatrixError, forbidden
from homeserver.protocol.ids import is_user_id
from homeserver.storage import users
from homeserver.storage.database import Database, Transaction

#: The type of a registration or login by a service.
APPLICATION_SERVICE = "m.login.application_service"


_LOCALPART = re.compile(r"[!-9;-~]+").fullmatch


class ServiceAccounts:
    """Makes them, and says whose they are."""

    def __init__(self, db: Database, clock: Clock, services: AppServices, server_name: str) -> None:
        self._db = db
        self._clock = clock
        self._services = services
        self._server_name = server_name

    async def make_senders(self) -> None:
        """Make the user that each service is by itself, where it is not there."""
        await self._add(service.user_id for service in self._services.all)

    async def register(self, service: AppService, localpart: str) -> str:
        """Make a user of a service; the user id.

        ``M_INVALID_USERNAME``, ``M_EXCLUSIVE`` for one that is not the service's to make, ``M_USER_IN_USE``.
        """
        user_id = f"@{localpart}:{self._server_name}"
        # Names on other networks have capital letters too, so only what no user id may be is refused.
        if not _LOCALPART(localpart) or not is_user_id(user_id):
            raise MatrixError(400, "M_INVALID_USERNAME", "That is not the localpart of a user ID")
        self._services.check_new_user(user_id, service)
        if not await self._add([user_id]):
            raise MatrixError(400, "M_USER_IN_USE", "That user ID is taken")
        return user_id

    async def own_user(self, service: AppService, user: str) -> str:
        """The id of a service's user, given by id or localpart; ``M_EXCLUSIVE`` or ``M_FORBIDDEN``."""
        user_id = user if user.startswith("@") else f"@{user}:{self._server_name}"
        if not service.owns_user(user_id):
            raise MatrixError(403, "M_EXCLUSIVE", "That user is not the application service's")
        known = await users.user(self._db.read, user_id)
        if known is None or known.deactivated:
            raise forbidden("There is no such user")
        return user_id

    async def _add(self, user_ids: Iterable[str]) -> bool:
        """Whether any of them was new."""
        now, wanted = self._clock.now_ms(), list(user_ids)

        async def add(tx: Transaction) -> bool:
            added = [
                await users.add(tx, user_id, password_hash=None, is_admin=False, created_at=now)
                for user_id in wanted
            ]
            return any(added)

        return await self._db.write(add)
