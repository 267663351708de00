"""The stages of interactive authentication that this server checks by itself.

Each is one kind of proof, as ``interactive_auth.Stage`` has it.
Specification: client-server API, "Authentication types".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeserver.errors import MatrixError, bad_json, forbidden
from homeserver.users.accounts import Accounts
from homeserver.users.interactive_auth import PASSWORD, Operation, Stage
from homeserver.users.registration import DUMMY, REGISTRATION_TOKEN, Registration


class Dummy:
    """Proves nothing: for flows that need a stage and have nothing to ask."""

    async def check(self, auth: Mapping[str, Any], operation: Operation) -> str:
        """Always an empty text."""
        return ""

    def params(self, session: str) -> dict[str, Any]:
        """Nothing."""
        return {}


class PasswordStage:
    """The password of an account; yields the user id."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def check(self, auth: Mapping[str, Any], operation: Operation) -> str:
        """Whose password it is; ``M_FORBIDDEN`` for a wrong one, and for that of another user."""
        user, password = await self._accounts.identified(auth), auth.get("password")
        if user is None or not isinstance(password, str):
            raise bad_json("The user identifier or the password is missing")
        user_id = await self._accounts.authenticate(user, password)
        if operation.user_id not in (None, user_id):
            raise forbidden("That is another user than the one who is logged in")
        return user_id

    def params(self, session: str) -> dict[str, Any]:
        """Nothing."""
        return {}


class RegistrationTokenStage:
    """A token that lets one register; yields the token."""

    def __init__(self, registration: Registration) -> None:
        self._registration = registration

    async def check(self, auth: Mapping[str, Any], operation: Operation) -> str:
        """The token, if somebody could register with it now."""
        token = auth.get("token")
        if not isinstance(token, str) or not await self._registration.is_valid(token):
            raise MatrixError(401, "M_UNAUTHORIZED", "The registration token is not valid")
        return token

    def params(self, session: str) -> dict[str, Any]:
        """Nothing."""
        return {}


def basic_stages(accounts: Accounts, registration: Registration) -> dict[str, Stage]:
    """The stages that need nothing but this server's own records, by their types."""
    return {
        PASSWORD: PasswordStage(accounts),
        DUMMY: Dummy(),
        REGISTRATION_TOKEN: RegistrationTokenStage(registration),
    }
