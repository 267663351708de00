"""Whose account here it is that a provider speaks of; a new one where that is configured.

An account belongs to who has a provider's ``sub``, never to a name or an address, which
other people may have tomorrow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import structlog

from homeserver.clock import Clock
from homeserver.config.login import Provider as Settings
from homeserver.errors import MatrixError
from homeserver.protocol.third_party_ids import canonical_address
from homeserver.sso.claims import as_localpart, filled
from homeserver.sso.failure import SignOnFailed
from homeserver.storage import moderation, sso_subjects, third_party_ids
from homeserver.storage.database import Database, Transaction
from homeserver.storage.third_party_ids import ThirdPartyId
from homeserver.users.accounts import Accounts

_log = structlog.get_logger()

#: Names that are tried when the first is taken: alice, alice2, alice3 and so on.
_NAMES = 20
_MAX_DISPLAY_NAME_CHARS = 256


class Names(Protocol):
    """What people are called (``Profiles``)."""

    async def set_field(self, user_id: str, field: str, value: Any) -> None:
        """Set one field of a local user's profile."""
        ...


class _Linked(Exception):
    """Another request made the account at the same moment."""


class SsoAccounts:
    """Finds and makes the accounts of those whom providers know."""

    def __init__(self, db: Database, clock: Clock, accounts: Accounts, names: Names) -> None:
        self._db = db
        self._clock = clock
        self._accounts = accounts
        self._names = names

    async def known(self, provider: Settings, claims: Mapping[str, Any]) -> str | None:
        """The user whom a provider means, if the account is there and may be used.

        ``SignOnFailed`` for one that is deactivated or locked.
        """
        user_id = await sso_subjects.user_of(self._db.read, provider.id, claims["sub"])
        if user_id is None:
            return None
        standing = await moderation.standing(self._db.read, user_id)
        if standing is None:
            raise SignOnFailed(f"The account {user_id} is closed.")
        if standing.locked:
            raise SignOnFailed(f"The account {user_id} has been locked by the server's administrators.")
        return user_id

    async def make(self, provider: Settings, claims: Mapping[str, Any]) -> str:
        """A new account for somebody, linked with the provider's ``sub``; its user id."""
        if not provider.allow_registration:
            raise SignOnFailed(f"Nobody here has an account that belongs to your account at {provider.name}.")
        name = filled(provider.localpart, claims)
        if name is None:
            raise SignOnFailed(
                f"{provider.name} did not say what to call you, so no account can be made.",
                detail=f"{provider.id}: a claim of {provider.localpart!r} is missing",
            )
        localpart = as_localpart(name)

        email, now = _verified_email(provider, claims), self._clock.now_ms()

        async def link(tx: Transaction, user_id: str) -> None:
            if not await sso_subjects.add(tx, provider.id, claims["sub"], user_id):
                raise _Linked
            if email is not None:
                # An address that somebody else has here stays theirs.
                await third_party_ids.add(tx, user_id, ThirdPartyId("email", email, now, now))

        for number in range(1, _NAMES + 1):
            wanted = localpart if number == 1 else f"{localpart}{number}"
            try:
                user_id = await self._accounts.create_account(wanted, None, also=link)
            except _Linked:
                return await self.known(provider, claims) or await self.make(provider, claims)
            except MatrixError as error:
                if error.errcode in ("M_USER_IN_USE", "M_EXCLUSIVE"):
                    continue
                raise SignOnFailed(
                    f"No account can be made with the name that {provider.name} gives you: {error.message}.",
                    detail=f"{provider.id}: {wanted[:100]}",
                ) from None
            await self._call(user_id, provider, claims)
            return user_id
        raise SignOnFailed(f"The name {localpart} and those like it are taken.", status=409)

    async def _call(self, user_id: str, provider: Settings, claims: Mapping[str, Any]) -> None:
        name = filled(provider.display_name, claims) if provider.display_name else None
        if name is None:
            return
        try:
            await self._names.set_field(user_id, "displayname", name[:_MAX_DISPLAY_NAME_CHARS])
        except MatrixError as error:
            _log.info("display name refused", user_id=user_id, reason=error.message)


def _verified_email(provider: Settings, claims: Mapping[str, Any]) -> str | None:
    """The address to keep, which the provider says it has verified."""
    address = filled(provider.email, claims) if provider.email else None
    if address is None or claims.get("email_verified") is not True:
        return None
    try:
        return canonical_address("email", address)
    except ValueError:
        return None
