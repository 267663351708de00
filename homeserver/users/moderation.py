"""Locking and suspending accounts, by this server's administrators.

A locked account can do nothing but log out, a suspended one only what nobody else
notices; both stay as they are, with their sessions, for the day the measure ends.
What each may still do is said by the routes (``web.Route``) and, where that depends on what is
asked for, by their handlers.  Specification: client-server API, "Account moderation".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from homeserver.errors import MatrixError, forbidden, invalid_param, not_found, user_locked
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.storage import moderation
from homeserver.storage.database import Database
from homeserver.storage.moderation import Standing
from homeserver.users.requester import Requester


class TokensInUse(Protocol):
    """Remembers whom access tokens stand for (``Sessions``)."""

    def look_again(self, user_id: str) -> None:
        """What is remembered of a user's tokens does not hold any more."""
        ...


class Moderation:
    """What administrators may do to accounts.

    ``dismiss(user_id, refusal)`` ends the waiting of a user's clients with an error of their own.
    """

    def __init__(
        self,
        db: Database,
        server_name: str,
        tokens: TokensInUse,
        dismiss: Callable[[str, Callable[[], MatrixError]], None],
    ) -> None:
        self._db = db
        self._server_name = server_name
        self._dismiss = dismiss
        #: Told of a user whose standing has changed, at once.
        self.listeners: list[Callable[[str], None]] = [tokens.look_again]

    async def standing(self, requester: Requester, user_id: str) -> Standing:
        """How an account stands, for an administrator.

        ``M_FORBIDDEN`` for others, and about another administrator; ``M_INVALID_PARAM`` for a user of another
        server, ``M_NOT_FOUND`` for one who does not exist or is deactivated.
        """
        if not requester.is_admin:
            raise forbidden("You are not an administrator of this server")
        if not is_user_id(user_id) or server_name_of(user_id) != self._server_name:
            raise invalid_param("That is not a user of this server")
        standing = await moderation.standing(self._db.read, user_id)
        if standing is None:
            raise not_found("There is no such user")
        if standing.is_admin and user_id != requester.user_id:
            raise forbidden("That user is an administrator, too")
        return standing

    async def set_locked(self, requester: Requester, user_id: str, locked: bool) -> None:
        """Lock or unlock an account.  Raises as ``standing``, and ``M_FORBIDDEN`` about oneself."""
        await self._check_other(requester, user_id)
        await self.change(user_id, locked=locked)

    async def set_suspended(self, requester: Requester, user_id: str, suspended: bool) -> None:
        """Suspend an account or end that.  Raises as ``standing``, and ``M_FORBIDDEN`` about oneself."""
        await self._check_other(requester, user_id)
        await self.change(user_id, suspended=suspended)

    async def change(
        self, user_id: str, *, locked: bool | None = None, suspended: bool | None = None
    ) -> None:
        """What is given becomes so, at once, for every session there is; nobody is asked whether they may."""
        if locked is not None:
            await self._db.write(partial(moderation.set_locked, user_id=user_id, locked=locked))
        if suspended is not None:
            await self._db.write(partial(moderation.set_suspended, user_id=user_id, suspended=suspended))
        for listener in self.listeners:
            listener(user_id)
        if locked:
            self._dismiss(user_id, user_locked)

    async def _check_other(self, requester: Requester, user_id: str) -> None:
        await self.standing(requester, user_id)
        if user_id == requester.user_id:
            raise forbidden("That is your own account")


async def check_not_locked(db: Database, user_id: str) -> None:
    """``M_USER_LOCKED`` for an account that is locked."""
    standing = await moderation.standing(db.read, user_id)
    if standing is not None and standing.locked:
        raise user_locked()
