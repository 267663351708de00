"""Who may look at whose profile, by the configuration.  Specification: client-server API, "Profiles"."""

from __future__ import annotations

from homeserver.config.people import Profiles
from homeserver.errors import MatrixError, forbidden
from homeserver.storage import user_directory
from homeserver.storage.database import Database
from homeserver.users.directory import Reader

_PATIENCE_S = 1.0


class ProfileAccess:
    """Decides about requests of clients."""

    def __init__(self, db: Database, settings: Profiles, reader: Reader) -> None:
        self._db = db
        self._settings = settings
        self._reader = reader

    async def check_may_see(self, requester: str | None, user_id: str) -> None:
        """Raises ``M_FORBIDDEN`` for a profile the requester may not see, whether or not there is one.

        401 ``M_MISSING_TOKEN`` for somebody who does not say who they are, where that is needed.
        """
        settings = self._settings
        if requester is None and (settings.require_auth or settings.limit_to_shared_rooms):
            raise MatrixError(401, "M_MISSING_TOKEN", "Profiles are shown to those with an account only")
        if requester is None or not settings.limit_to_shared_rooms or requester == user_id:
            return
        await self._reader.settled(_PATIENCE_S)
        if not await user_directory.visible_to(self._db.scan, [user_id], requester):
            raise forbidden("You share no room with this user")

    def check_may_change(self, field: str) -> None:
        """Raises ``M_FORBIDDEN`` for a field of their profile that people may not change themselves."""
        if not self._settings.may_change(field):
            raise forbidden(f"'{field}' cannot be changed here")
