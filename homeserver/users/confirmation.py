"""Proving once more that an account is one's own, before something that must not happen by a stolen token.

The ways are those that the account has: its password, an account at a provider of
single sign-on.  Specification: client-server API, "User-Interactive Authentication API".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.storage import sso_subjects, users
from homeserver.storage.database import Database
from homeserver.users.interactive_auth import PASSWORD, InteractiveAuth, Operation

SSO = "m.login.sso"

#: Stages that yield the id of the user who completed them.
PROOFS = (PASSWORD, SSO)


class Confirmation:
    """Leads clients through one of the ways that an account has.

    ``providers`` are the ids of the providers that can be asked now; without ``passwords`` nobody
    is asked for one who has another way.
    """

    def __init__(
        self,
        db: Database,
        interactive_auth: InteractiveAuth,
        *,
        providers: Sequence[str] = (),
        passwords: bool = True,
    ) -> None:
        self._db = db
        self._interactive_auth = interactive_auth
        self._providers = tuple(providers)
        self._passwords = passwords

    async def flows(self, user_id: str | None) -> list[list[str]]:
        """The flows that prove who somebody is; of whom nothing is known yet, the password does."""
        if user_id is None or not await self.providers(user_id):
            return [[PASSWORD]]
        user = await users.user(self._db.read, user_id)
        has_password = self._passwords and user is not None and user.password_hash is not None
        return [[PASSWORD], [SSO]] if has_password else [[SSO]]

    async def providers(self, user_id: str) -> list[str]:
        """The providers of single sign-on that can tell whether somebody is this user."""
        if not self._providers:
            return []
        known = await sso_subjects.providers_of(self._db.read, user_id)
        return [provider for provider in known if provider in self._providers]

    async def confirm(self, operation: Operation, body: Mapping[str, Any]) -> str:
        """The id of the user who proved to be the one the operation is about.

        Raises as ``InteractiveAuth.authorise``.
        """
        flows = await self.flows(operation.user_id)
        yielded = await self._interactive_auth.authorise(operation, body, flows)
        return next(yielded[stage] for stage in PROOFS if stage in yielded)


def proven_user(yielded: Mapping[str, str]) -> str | None:
    """The id of the user who completed one of ``PROOFS``, of what completed stages yielded."""
    return next((yielded[stage] for stage in PROOFS if stage in yielded), None)
