"""Who a request by an application service is made for.

A service speaks with one token for all its users, and says by the query which of them
it means, and which of their devices.  Specification: application service API, "Identity assertion".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from homeserver.appservices.services import AppService, AppServices
from homeserver.clock import Clock
from homeserver.errors import MatrixError, forbidden
from homeserver.lookups import Recent
from homeserver.storage import devices, moderation, users
from homeserver.storage.database import Database
from homeserver.storage.moderation import Standing
from homeserver.users.requester import Requester

#: Finds out who makes a request that carries another token than a service's.
Authenticate: TypeAlias = Callable[[Mapping[str, str], Mapping[str, str]], Awaitable[Requester]]

#: COMPAT: bridges that are older than v1.17 of the specification say it in the second way.
_DEVICE = ("device_id", "org.matrix.msc3202.device_id")

#: What is known of a user is believed for so long.
_BELIEVED_S = 30.0
_AS_ANYBODY = Standing(is_admin=False, locked=False, suspended=False)
_REMEMBERED = 20_000


class Authentication:
    """Recognises services, and leaves all other requests to ``others``."""

    def __init__(self, db: Database, clock: Clock, services: AppServices, others: Authenticate) -> None:
        self._db = db
        self._clock = clock
        self._services = services
        self._others = others
        #: Users who may act, and until when that is believed.
        self._known: Recent[str, tuple[Standing, float]] = Recent(_REMEMBERED)
        self._changes = 0

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Requester:
        """The user and device that are meant.

        Raises 403 ``M_EXCLUSIVE`` for a user who is not the service's, ``M_FORBIDDEN`` for one
        who is not there yet, ``M_USER_DEACTIVATED``, 400 ``M_UNKNOWN_DEVICE``, and what ``others`` does.
        """
        service = self._services.identified(headers, query)
        if service is None:
            return await self._others(headers, query)
        user_id = query.get("user_id") or service.user_id
        standing = await self._standing(service, user_id)
        device_id = next((query[name] for name in _DEVICE if query.get(name)), None)
        if device_id is not None and await devices.device(self._db.read, user_id, device_id) is None:
            raise MatrixError(400, "M_UNKNOWN_DEVICE", "The user has no such device")
        return Requester(
            user_id,
            device_id,
            appservice=service.id,
            is_locked=standing.locked,
            is_suspended=standing.suspended,
        )

    def look_again(self, user_id: str) -> None:
        """What is believed of a user does not hold any more, nor what is just being read."""
        self._known.forget(user_id)
        self._changes += 1

    async def _standing(self, service: AppService, user_id: str) -> Standing:
        if not service.owns_user(user_id):
            raise MatrixError(403, "M_EXCLUSIVE", "The application service may not act for that user")
        now = self._clock.monotonic()
        known = self._known.get(user_id)
        if known is not None and now < known[1]:
            return known[0]
        changes = self._changes
        user = await users.user(self._db.read, user_id)
        if user is None:
            raise forbidden("The application service has not registered that user")
        if user.deactivated:
            raise MatrixError(403, "M_USER_DEACTIVATED", "That user is deactivated")
        standing = await moderation.standing(self._db.read, user_id) or _AS_ANYBODY
        if changes == self._changes:
            self._known.put(user_id, (standing, now + _BELIEVED_S))
        return standing
