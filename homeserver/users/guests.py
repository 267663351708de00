"""Guests: accounts without a password, on one device, that may become full ones.

What a guest may call is said by the routes, which rooms a guest may join by the rooms.
Specification: client-server API, "Guest Access".
"""

from __future__ import annotations

import secrets

from homeserver.clock import Clock
from homeserver.errors import MatrixError, forbidden, guest_access_forbidden, missing_param
from homeserver.storage import guests, registration_tokens
from homeserver.storage.address_validations import Validation
from homeserver.storage.database import Database, Transaction
from homeserver.users.passwords import Passwords
from homeserver.users.sessions import Login, Sessions
from homeserver.users.third_party_ids import add_validated

#: The only device of a guest.
GUEST_DEVICE = "guest_device"


class Guests:
    """Makes guests and full users of them; ``allowed`` is whether there are any."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        sessions: Sessions,
        passwords: Passwords,
        server_name: str,
        *,
        allowed: bool,
    ) -> None:
        self._db = db
        self._clock = clock
        self._sessions = sessions
        self._passwords = passwords
        self._server_name = server_name
        self._allowed = allowed

    async def register(self, device_name: str | None) -> Login:
        """A new guest's session.  ``M_GUEST_ACCESS_FORBIDDEN`` where guests are not wanted."""
        if not self._allowed:
            raise guest_access_forbidden("This server has no guest accounts")
        user_id = f"@guest-{secrets.token_hex(8)}:{self._server_name}"
        if not await self._db.write(lambda tx: guests.add(tx, user_id, self._clock.now_ms())):
            raise MatrixError(500, "M_UNKNOWN", "No name was found for the guest")
        return await self._sessions.log_in(user_id, device_id=GUEST_DEVICE, display_name=device_name)

    async def to_upgrade(self, access_token: str, username: str | None) -> str:
        """The id of the guest who registers as a full user, keeping their name.

        Raises ``M_UNKNOWN_TOKEN`` for no access token, ``M_FORBIDDEN`` for one of somebody who is
        no guest, ``M_MISSING_PARAM`` and ``M_INVALID_USERNAME`` where the name is not the guest's.
        """
        requester = await self._sessions.authenticate({"Authorization": f"Bearer {access_token}"}, {})
        if not requester.is_guest:
            raise forbidden("The guest access token is not a guest's")
        if username is None:
            raise missing_param("'username' is missing")
        if f"@{username.lower()}:{self._server_name}" != requester.user_id:
            raise MatrixError(400, "M_INVALID_USERNAME", "The user name is not the guest's")
        return requester.user_id

    async def upgrade(
        self,
        user_id: str,
        password: str,
        *,
        validated: Validation | None = None,
        registration_token: str | None = None,
    ) -> None:
        """Make a guest a full user; ``registration_token`` and ``validated`` as for a new account.

        ``M_FORBIDDEN`` for who is no guest any more, or a token that has no uses left.
        """
        self._passwords.check_new(password)
        password_hash = await self._passwords.hash(password)
        now = self._clock.now_ms()

        async def store(tx: Transaction) -> None:
            if registration_token and not await registration_tokens.use(tx, registration_token, now):
                raise forbidden("The registration token has no uses left")
            if not await guests.upgrade(tx, user_id, password_hash):
                raise forbidden("This guest is none any more")
            if validated is not None:
                await add_validated(tx, user_id, validated, now)

        await self._db.write(store)
