"""Profiles: display name, avatar and any further fields a user makes public.

Local profiles are stored, those of other servers are asked for each time.  A change
of name or avatar is passed on to the user's memberships.  Specification:
client-server API, "Profiles".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import orjson

from homeserver.errors import MatrixError, bad_json, forbidden, invalid_param, not_found
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.protocol.profile_fields import AVATAR_URL, DISPLAYNAME, MAX_NAME_BYTES, is_field_name
from homeserver.storage import profile_changes, profiles, users
from homeserver.storage.database import Database, Transaction

#: The whole profile as JSON stays below this, in bytes.
_MAX_PROFILE_BYTES = 64 * 1024
_MAX_DISPLAYNAME_CHARS = 256
_MAX_AVATAR_URL_CHARS = 1000


class MembershipUpdater(Protocol):
    """Brings a user's memberships up to date with their profile."""

    async def profile_changed(self, user_id: str, displayname: str | None, avatar_url: str | None) -> None:
        """Name and avatar as they are now."""
        ...


class RemoteProfiles(Protocol):
    """Asks other servers."""

    async def query_profile(self, server_name: str, user_id: str, field: str | None) -> dict[str, Any]:
        """A remote profile, or one field of it; raises ``RemoteError``, or ``M_NOT_FOUND``."""
        ...


class UserProvider(Protocol):
    """Somebody who may make users when they are asked for: application services."""

    async def provides_user(self, user_id: str) -> bool:
        """Whether a user of this server, who was not there, may be there now."""
        ...


class Positions(Protocol):
    """Hands out stream positions."""

    def next(self) -> int:
        """The next position; what is written at it must be queued before anything is awaited."""
        ...


class Profiles:
    """The profiles of this server's users, and the way to everybody else's.

    ``announce(pos, user_id)`` is called after each change is stored at stream position ``pos``.
    """

    def __init__(
        self,
        db: Database,
        server_name: str,
        positions: Positions,
        announce: Callable[[int, str], Awaitable[None]],
        *,
        memberships: MembershipUpdater | None = None,
        remote: RemoteProfiles | None = None,
    ) -> None:
        self._db = db
        self._server_name = server_name
        self._positions = positions
        self._announce = announce
        #: Where changes are passed on to; may be set once the parts that need each other exist.
        self.memberships = memberships
        self.remote = remote
        self.provider: UserProvider | None = None
        #: Called with users whose name or avatar has changed.
        self.listeners: list[Callable[[str], None]] = []

    async def profile(self, user_id: str, field: str | None = None) -> dict[str, Any]:
        """A user's profile, or the object of one field; ``M_NOT_FOUND``, or ``RemoteError``."""
        if not is_user_id(user_id):
            raise invalid_param("That is not a user ID")
        server_name = server_name_of(user_id)
        if server_name == self._server_name:
            return await self.local_profile(user_id, field)
        if self.remote is None:
            raise not_found("Profiles of other servers cannot be looked up")
        told = await self.remote.query_profile(server_name, user_id, field)
        # What is not set may be left out or null.
        found = {name: value for name, value in told.items() if value is not None}
        if field is None:
            return found
        if field not in found:
            raise not_found("The profile has no such field")
        return {field: found[field]}

    async def local_profile(self, user_id: str, field: str | None = None) -> dict[str, Any]:
        """As ``profile``, for a user of this server."""
        user = await users.user(self._db.read, user_id)
        if user is None and self.provider is not None and await self.provider.provides_user(user_id):
            user = await users.user(self._db.read, user_id)
        if user is None or user.deactivated:
            raise not_found("There is no such user")
        fields = _decoded(await profiles.fields(self._db.read, user_id))
        if field is None:
            return fields
        if field not in fields:
            raise not_found("The profile has no such field")
        return {field: fields[field]}

    async def name_and_avatar(self, user_id: str) -> tuple[str | None, str | None]:
        """What a membership event of a local user says of them."""
        fields = _decoded(await profiles.fields(self._db.read, user_id))
        return fields.get(DISPLAYNAME), fields.get(AVATAR_URL)

    async def set_field(self, user_id: str, field: str, value: Any) -> None:
        """Set one field of a local user's profile.

        Raises ``M_INVALID_PARAM`` for names and values a profile cannot have,
        ``M_KEY_TOO_LARGE`` and ``M_PROFILE_TOO_LARGE``.
        """
        check_field_name(field)
        _check_value(field, value)
        if value == "" and field in (DISPLAYNAME, AVATAR_URL):
            # COMPAT: clients older than v1.16 remove a name or avatar by setting it to nothing.
            await self.remove_field(user_id, field)
            return
        text = orjson.dumps(value).decode()
        pos = self._positions.next()

        async def store(tx: Transaction) -> None:
            others = await profiles.fields(tx, user_id)
            if _size({**others, field: text}) > _MAX_PROFILE_BYTES:
                raise MatrixError(400, "M_PROFILE_TOO_LARGE", "A profile has at most 64 KiB")
            await profiles.set_field(tx, user_id, field, text)
            await profile_changes.note(tx, user_id, field, pos)

        await self._db.write(store)
        await self._announce(pos, user_id)
        await self._pass_on(user_id, field)

    async def remove_field(self, user_id: str, field: str) -> None:
        """Remove one field, if it is there.  Raises as ``set_field`` for its name."""
        check_field_name(field)
        pos = self._positions.next()

        async def remove(tx: Transaction) -> bool:
            was_there = await profiles.remove_field(tx, user_id, field)
            if was_there:
                await profile_changes.note_removed(tx, user_id, field, pos)
            return was_there

        if await self._db.write(remove):
            await self._announce(pos, user_id)
            await self._pass_on(user_id, field)

    async def _pass_on(self, user_id: str, field: str) -> None:
        if field not in (DISPLAYNAME, AVATAR_URL):
            return
        for listener in self.listeners:
            listener(user_id)
        if self.memberships is not None:
            displayname, avatar_url = await self.name_and_avatar(user_id)
            await self.memberships.profile_changed(user_id, displayname, avatar_url)


class HiddenProfiles:
    """Stands for the profiles of local users where other servers are not to see them."""

    async def local_profile(self, user_id: str, field: str | None = None) -> dict[str, Any]:
        """Raises ``M_FORBIDDEN``, whoever is asked for."""
        raise forbidden("This server does not show profiles to other servers")


def check_field_name(field: str) -> None:
    """Whether a profile may have such a field: ``M_KEY_TOO_LARGE`` or ``M_INVALID_PARAM`` if not."""
    if len(field.encode()) > MAX_NAME_BYTES:
        raise MatrixError(400, "M_KEY_TOO_LARGE", f"A field's name has at most {MAX_NAME_BYTES} bytes")
    if not is_field_name(field):
        raise invalid_param("That is not the name of a profile field")


def _check_value(field: str, value: Any) -> None:
    if field == DISPLAYNAME:
        _check_text(field, value, _MAX_DISPLAYNAME_CHARS)
    elif field == AVATAR_URL:
        _check_text(field, value, _MAX_AVATAR_URL_CHARS)
        if value and not value.startswith("mxc://"):
            raise invalid_param("An avatar is an mxc:// URI")
    elif field == "m.tz" and not isinstance(value, str):
        raise bad_json("'m.tz' must be a string")


def _check_text(field: str, value: Any, max_chars: int) -> None:
    if not isinstance(value, str):
        raise bad_json(f"'{field}' must be a string")
    if len(value) > max_chars:
        raise invalid_param(f"'{field}' has at most {max_chars} characters")


def _decoded(fields: Mapping[str, str]) -> dict[str, Any]:
    return {name: orjson.loads(value) for name, value in fields.items()}


def _size(fields: Mapping[str, str]) -> int:
    """The bytes of the profile as one JSON object."""
    return 1 + sum(len(name.encode()) + len(value.encode()) + 4 for name, value in fields.items())
