"""Accounts: who exists on this server, and with which password.

Decides which user names are taken or allowed, makes accounts and ends them.
Devices and tokens are ``sessions``' business, proving who one is to an endpoint
``interactive_auth``'s.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from homeserver.clock import Clock
from homeserver.errors import MatrixError, forbidden
from homeserver.protocol.ids import MAX_ID_BYTES, validate_new_localpart
from homeserver.protocol.third_party_ids import canonical_address
from homeserver.storage import (
    account_data,
    delayed_events,
    filters,
    key_backup,
    profile_changes,
    profiles,
    pushers,
    registration_tokens,
    third_party_ids,
    thread_subscriptions,
    users,
)
from homeserver.storage.address_validations import Validation
from homeserver.storage.database import Database, Transaction
from homeserver.storage.users import User
from homeserver.users.interactive_auth import identified_user
from homeserver.users.moderation import check_not_locked
from homeserver.users.passwords import Passwords
from homeserver.users.third_party_ids import add_validated


class RoomLeaver(Protocol):
    """Takes a user out of everything they are in."""

    async def leave_all(self, user_id: str) -> None:
        """Leave every room and reject every invite of a user who is gone."""
        ...


def reserved_for_none(_user_id: str) -> None:
    """For servers without application services."""


def no_limit(_user_id: str) -> None:
    """For servers that count password attempts nowhere."""


class Accounts:
    """The local users.

    ``check_attempt(user_id)`` is called before each password check and raises
    ``M_LIMIT_EXCEEDED`` when there were too many.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        passwords: Passwords,
        server_name: str,
        *,
        check_attempt: Callable[[str], None] = no_limit,
    ) -> None:
        self._db = db
        self._clock = clock
        self._passwords = passwords
        self._server_name = server_name
        self._check_attempt = check_attempt
        #: Raises ``M_EXCLUSIVE`` for a user that only an application service may make.
        self.check_reserved: Callable[[str], None] = reserved_for_none
        #: Called with users who are new, and with those whose account has been closed.
        self.listeners: list[Callable[[str], None]] = []

    async def user(self, user_id: str) -> User | None:
        """A local user, deactivated or not."""
        return await users.user(self._db.read, user_id)

    async def is_active(self, user_id: str) -> bool:
        """Whether this is a local user who is not deactivated."""
        user = await self.user(user_id)
        return user is not None and not user.deactivated

    async def available_user_id(self, name: str) -> str:
        """The user id that registering ``name`` would give.

        Capital letters are made small.  ``M_INVALID_USERNAME`` outside the grammar for
        new users, ``M_USER_IN_USE`` when it is taken, if only by a deactivated account,
        ``M_EXCLUSIVE`` when an application service keeps such names to itself.
        """
        user_id = self._new_user_id(name)
        self.check_reserved(user_id)
        if await users.exists(self._db.read, user_id):
            raise _in_use()
        return user_id

    async def create_account(
        self,
        name: str | None,
        password: str | None,
        admin: bool = False,
        *,
        registration_token: str | None = None,
        also: Callable[[Transaction, str], Awaitable[None]] | None = None,
        validated: Validation | None = None,
    ) -> str:
        """Make an account and return its user id; a name is chosen when none is given.

        Without a password nobody can log in with one.  ``registration_token`` is used up
        together with it, and so is ``validated``, whose address the account has from then on;
        ``also(tx, user_id)`` is part of the same transaction.
        Raises as ``available_user_id`` and ``Passwords.check_new``, ``M_FORBIDDEN`` when the
        token has no uses left, and as ``add_validated``.
        """
        user_id = self._new_user_id(name if name is not None else _random_name())
        self.check_reserved(user_id)
        if password is not None:
            self._passwords.check_new(password)
        password_hash = None if password is None else await self._passwords.hash(password)
        now = self._clock.now_ms()

        async def add(tx: Transaction) -> None:
            if registration_token and not await registration_tokens.use(tx, registration_token, now):
                raise forbidden("The registration token has no uses left")
            if not await users.add(tx, user_id, password_hash=password_hash, is_admin=admin, created_at=now):
                raise _in_use()
            if also is not None:
                await also(tx, user_id)
            if validated is not None:
                await add_validated(tx, user_id, validated, now)

        await self._db.write(add)
        self._tell(user_id)
        return user_id

    async def identified(self, fields: Mapping[str, Any]) -> str | None:
        """Whom a client names (spec: "Identifier types"), as ``authenticate`` takes it; ``None`` for nobody.

        An address that nobody has is somebody whom no password fits, as is an unknown user.
        COMPAT: ``medium`` and ``address`` beside ``type``, as older clients send them.
        """
        given = fields.get("identifier")
        named = given if isinstance(given, dict) else fields
        if isinstance(given, dict) and given.get("type") != "m.id.thirdparty":
            return identified_user(fields)
        medium, address = named.get("medium"), named.get("address")
        if not isinstance(medium, str) or not isinstance(address, str):
            return identified_user(fields)
        try:
            kept = canonical_address(medium, address)
        except ValueError:
            return None
        return await third_party_ids.owner(self._db.read, medium, kept) or f"@{medium}:{kept}"

    async def authenticate(self, user: str, password: str) -> str:
        """The id of the local user (given by id or localpart) whose password this is.

        Raises one and the same ``M_FORBIDDEN`` for a wrong password, an unknown user and
        a deactivated one, after the same time; ``M_USER_LOCKED`` to who knows the password of
        an account that is locked.
        """
        user_id = user if user.startswith("@") else f"@{user}:{self._server_name}"
        # One count for all ways to write a name.
        self._check_attempt(user_id.lower())
        found = await users.user(self._db.read, user_id) or await users.user(self._db.read, user_id.lower())
        password_hash = found.password_hash if found and not found.deactivated else None
        if not await self._passwords.matches(password, password_hash) or found is None:
            raise forbidden("Wrong user name or password")
        await check_not_locked(self._db, found.user_id)
        return found.user_id

    async def change_password(self, user_id: str, password: str) -> None:
        """Set a new password.  Raises as ``Passwords.check_new``."""
        self._passwords.check_new(password)
        password_hash = await self._passwords.hash(password)
        await self._db.write(lambda tx: users.set_password_hash(tx, user_id, password_hash))

    async def check_not_locked(self, user_id: str) -> None:
        """``M_USER_LOCKED`` for an account that is locked."""
        await check_not_locked(self._db, user_id)

    def check_password(self, password: str) -> None:
        """Whether a password may be chosen; raises as ``Passwords.check_new``."""
        self._passwords.check_new(password)

    async def deactivate(self, user_id: str, *, erase: bool = False) -> None:
        """End an account for good; ``erase`` also forgets what it kept on the server.

        The name stays taken.  Sessions have to be ended and rooms left by the caller.
        """

        async def end(tx: Transaction) -> None:
            await users.deactivate(tx, user_id)
            await profiles.remove_all(tx, user_id)
            await profile_changes.forget(tx, user_id)
            await third_party_ids.remove_all(tx, user_id)
            await pushers.remove_all(tx, user_id)
            await delayed_events.remove_all(tx, user_id)
            if erase:
                await account_data.remove_all(tx, user_id)
                await filters.remove_all(tx, user_id)
                await key_backup.remove_all(tx, user_id)
                await thread_subscriptions.remove_all(tx, user_id)

        await self._db.write(end)
        self._tell(user_id)

    def _tell(self, user_id: str) -> None:
        for listener in self.listeners:
            listener(user_id)

    def _new_user_id(self, name: str) -> str:
        localpart = name.lower()
        try:
            validate_new_localpart(localpart)
        except ValueError as error:
            raise MatrixError(400, "M_INVALID_USERNAME", str(error)) from None
        user_id = f"@{localpart}:{self._server_name}"
        if len(user_id) > MAX_ID_BYTES:
            raise MatrixError(400, "M_INVALID_USERNAME", f"User IDs have at most {MAX_ID_BYTES} characters")
        return user_id


def _in_use() -> MatrixError:
    return MatrixError(400, "M_USER_IN_USE", "That user ID is taken")


def _random_name() -> str:
    return f"user-{secrets.token_hex(6)}"
