"""Which application services there are, and which ids are theirs.

An id belongs to a namespace when the namespace's expression matches it from its beginning, as
other servers have it.  Specification: application service API, "Registration".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache

from homeserver.config.appservices import Namespace, Registration
from homeserver.errors import MatrixError
from homeserver.protocol.ids import server_of

#: Ids whose namespaces are remembered, for each service.
_REMEMBERED = 20_000


class AppService:
    """A service by its registration; ``user_id`` is its own user."""

    def __init__(self, registration: Registration, server_name: str) -> None:
        self.registration = registration
        self.id = registration.id
        self.user_id = f"@{registration.sender_localpart}:{server_name}"
        self._server_name = server_name
        spaces = registration.namespaces
        #: Whether a local user is one the service acts for.
        self.owns_user = lru_cache(_REMEMBERED)(self._owns_user)
        #: Whether a room alias, or a room, is in its namespaces.
        self.owns_alias = lru_cache(_REMEMBERED)(lambda alias: _matches(spaces.aliases, alias))
        self.owns_room = lru_cache(_REMEMBERED)(lambda room_id: _matches(spaces.rooms, room_id))

    def _owns_user(self, user_id: str) -> bool:
        if server_of(user_id) != self._server_name:
            return False
        return user_id == self.user_id or _matches(self.registration.namespaces.users, user_id)

    def reserves_user(self, user_id: str) -> bool:
        """Whether nobody else may make this user."""
        return user_id == self.user_id or _matches(
            self.registration.namespaces.users, user_id, exclusive=True
        )

    def reserves_alias(self, alias: str) -> bool:
        """Whether nobody else may make or remove this alias."""
        return _matches(self.registration.namespaces.aliases, alias, exclusive=True)


class AppServices:
    """All services."""

    def __init__(self, registrations: Iterable[Registration], server_name: str) -> None:
        self.all = tuple(AppService(registration, server_name) for registration in registrations)
        self.by_id = {service.id: service for service in self.all}
        self._by_token = {_hash(service.registration.as_token): service for service in self.all}
        self._server_name = server_name

    def with_token(self, token: str) -> AppService | None:
        """The service whose ``as_token`` this is."""
        # By its hash, so that the time a look-up takes tells nothing of the token.
        return self._by_token.get(_hash(token))

    def identified(self, headers: Mapping[str, str], query: Mapping[str, str]) -> AppService | None:
        """The service that makes a request, if it is one."""
        token = bearer_token(headers, query) if self.all else None
        return None if token is None else self.with_token(token)

    def is_unlimited(self, headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
        """Whether rate limits are not for whoever makes a request."""
        service = self.identified(headers, query)
        if service is None:
            return False
        is_own = query.get("user_id", service.user_id) == service.user_id
        return is_own or not service.registration.rate_limited

    def check_new_user(self, user_id: str, by: AppService | None = None) -> None:
        """400 ``M_EXCLUSIVE`` for a user that ``by`` (somebody who is no service: ``None``) may not make."""
        if by is not None and not by.owns_user(user_id):
            raise _exclusive("That user is in none of the application service's namespaces")
        if any(service.reserves_user(user_id) for service in self.all if service is not by):
            raise _exclusive("That user ID is reserved for an application service")

    def check_alias(self, alias: str, by: AppService | None = None) -> None:
        """400 ``M_EXCLUSIVE`` for an alias of this server that ``by`` may neither make nor remove."""
        if server_of(alias) != self._server_name:
            return
        if by is not None and not by.owns_alias(alias):
            raise _exclusive("That alias is in none of the application service's namespaces")
        if any(service.reserves_alias(alias) for service in self.all if service is not by):
            raise _exclusive("That alias is reserved for an application service")


def bearer_token(headers: Mapping[str, str], query: Mapping[str, str]) -> str | None:
    """The access token of a request, from its header or (deprecated) its query string."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return query.get("access_token") or None


def _matches(namespaces: Iterable[Namespace], value: str, *, exclusive: bool = False) -> bool:
    return any(
        namespace.regex.match(value) is not None
        for namespace in namespaces
        if namespace.exclusive or not exclusive
    )


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _exclusive(message: str) -> MatrixError:
    return MatrixError(400, "M_EXCLUSIVE", message)
