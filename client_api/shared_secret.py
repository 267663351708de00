"""Registering by shared secret, as Synapse's admin API has it; see ``homeserver/users/shared_secret.py``."""

from __future__ import annotations

import msgspec

from client_api.accounts import login_reply
from homeserver.errors import invalid_param
from homeserver.replies import Reply
from homeserver.users.accounts import Accounts
from homeserver.users.profiles import Profiles
from homeserver.users.sessions import Sessions
from homeserver.users.shared_secret import SharedSecret
from homeserver.web import Request


class _Registration(msgspec.Struct):
    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    displayname: str | None = None
    user_type: str | None = None


class SharedSecretApi:
    """The endpoint for who knows the secret."""

    def __init__(
        self, secret: SharedSecret, accounts: Accounts, sessions: Sessions, profiles: Profiles
    ) -> None:
        self._secret = secret
        self._accounts = accounts
        self._sessions = sessions
        self._profiles = profiles

    async def nonce(self, request: Request) -> Reply:
        """``GET /_synapse/admin/v1/register``."""
        return {"nonce": self._secret.nonce()}

    async def register(self, request: Request) -> Reply:
        """``POST /_synapse/admin/v1/register``; ``M_BAD_JSON`` for a body that lacks anything."""
        wanted = request.decode(_Registration)
        if wanted.user_type is not None:
            raise invalid_param("This server has no types of users")
        self._secret.check(
            wanted.nonce,
            wanted.mac,
            username=wanted.username,
            password=wanted.password,
            admin=wanted.admin,
        )
        user_id = await self._accounts.create_account(wanted.username, wanted.password, wanted.admin)
        if wanted.displayname is not None:
            await self._profiles.set_field(user_id, "displayname", wanted.displayname)
        return login_reply(await self._sessions.log_in(user_id))
