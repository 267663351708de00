"""Sessions: a device of a user with the tokens that speak for it.

Access tokens are random, stored as their SHA-256, and remembered in a bounded cache
for a short while.  Refresh tokens are replaced at each use; the old one ends with the
first use of the new one or of its access token, so that a client that never received
the reply can ask again.  Specification: client-server API, "Using access tokens" and
"Refreshing access tokens".
"""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Protocol

import msgspec

from homeserver.clock import Clock
from homeserver.errors import MatrixError, forbidden, invalid_param, not_found, user_locked
from homeserver.storage import cross_signing, devices, moderation
from homeserver.storage.database import Database, Transaction
from homeserver.storage.devices import AccessToken, Device
from homeserver.users.requester import Requester
from homeserver.users.token_cache import TokenCache

#: The lifetime of an access token that can be refreshed; others do not expire.
ACCESS_TOKEN_LIFETIME_MS = 60 * 60 * 1000

_MAX_DEVICE_ID_BYTES = 255
_MAX_DEVICE_NAME_CHARS = 100


class DeviceObserver(Protocol):
    """Told of devices that came, changed or went.

    Both methods are given ids of a local user's devices: those new or renamed, and those gone.
    """

    async def record(
        self, tx: Transaction, user_id: str, changed: Collection[str], removed: Collection[str]
    ) -> None:
        """Part of the transaction: what else has to be stored, or deleted with devices that are gone."""
        ...

    async def devices_changed(self, user_id: str, changed: Collection[str], removed: Collection[str]) -> None:
        """The same, once it is on disk."""
        ...


class Login(msgspec.Struct, frozen=True):
    """What a login or refresh gives the client; times in milliseconds."""

    user_id: str
    device_id: str
    access_token: str
    refresh_token: str | None = None
    expires_in_ms: int | None = None


class Sessions:
    """The devices of local users and the tokens that speak for them."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        *,
        observers: Sequence[DeviceObserver] = (),
        access_token_lifetime_ms: int = ACCESS_TOKEN_LIFETIME_MS,
        cache_size: int = 10_000,
    ) -> None:
        self._db = db
        self._clock = clock
        self._observers = tuple(observers)
        self._lifetime_ms = access_token_lifetime_ms
        self._cache = TokenCache(clock, cache_size)
        #: Told of users some of whose tokens have ended, or do not mean any more what they did.
        self.listeners: list[Callable[[str], None]] = []

    async def authenticate(self, headers: Mapping[str, str], query: Mapping[str, str]) -> Requester:
        """The user and device behind a request.

        Raises 401 ``M_MISSING_TOKEN``, or ``M_UNKNOWN_TOKEN`` for tokens that never
        were, have ended, or have expired (these with ``soft_logout``).
        """
        token_hash = _hash(_access_token(headers, query))
        requester = self._cache.get(token_hash)
        if requester is not None:
            return requester
        generation = self._cache.generation
        stored = await devices.access_token(self._db.read, token_hash)
        now = self._clock.now_ms()
        if stored is None:
            raise _unknown_token("The access token is not known")
        if stored.expires_at is not None and stored.expires_at <= now:
            raise _unknown_token("The access token has expired", soft_logout=True)
        await self._end_replaced(stored)
        requester = Requester(
            stored.user_id,
            stored.device_id,
            stored.is_admin,
            stored.is_guest,
            token_id=stored.token_id,
            is_locked=stored.is_locked,
            is_suspended=stored.is_suspended,
        )
        self._cache.put(token_hash, requester, stored.expires_at, generation)
        return requester

    async def log_in(
        self,
        user_id: str,
        *,
        device_id: str | None = None,
        display_name: str | None = None,
        refreshable: bool = False,
    ) -> Login:
        """Give a user a new session, on a new device or one they name.

        Tokens the device had before end.  ``refreshable`` makes an access token that
        expires, with a refresh token.  ``M_INVALID_PARAM`` for an unusable device id,
        ``M_FORBIDDEN`` for that of a cross-signing key, ``M_USER_LOCKED`` for an account that is locked.
        """
        device = _new_device_id() if device_id is None else _checked_device_id(device_id)
        name = None if display_name is None else display_name[:_MAX_DEVICE_NAME_CHARS]
        access, refresh = _new_token(), _new_token() if refreshable else None
        now = self._clock.now_ms()

        async def store(tx: Transaction) -> bool:
            await _check_not_locked(tx, user_id)
            if await _is_signing_key(tx, user_id, device):
                raise forbidden("One of your cross-signing keys has that ID")
            is_new = await devices.add(tx, user_id, device, display_name=name, now=now)
            if is_new:
                await self._record(tx, user_id, [device], [])
            await devices.remove_tokens(tx, user_id, device)
            await self._store_tokens(tx, user_id, device, access=access, refresh=refresh, now=now)
            return is_new

        is_new = await self._db.write(store)
        self._forget(user_id, device)
        if is_new:
            await self._tell(user_id, [device], [])
        return Login(user_id, device, access, refresh, self._lifetime_ms if refreshable else None)

    async def refresh(self, token: str) -> Login:
        """New tokens for a session's refresh token; 401 ``M_UNKNOWN_TOKEN`` for others.

        ``M_USER_LOCKED`` while the account is locked: the token stays good for later.
        """
        access, refresh = _new_token(), _new_token()
        now = self._clock.now_ms()

        async def store(tx: Transaction) -> tuple[str, str] | None:
            old = await devices.refresh_token(tx, _hash(token))
            if old is None:
                return None
            await _check_not_locked(tx, old.user_id)
            if old.replaces_nid is not None:
                await devices.end_replaced(tx, old.refresh_nid, old.replaces_nid)
            await devices.remove_unused_successors(tx, old.refresh_nid)
            await self._store_tokens(
                tx, old.user_id, old.device_id,
                access=access, refresh=refresh, replaces_nid=old.refresh_nid, now=now,
            )  # fmt: skip
            return old.user_id, old.device_id

        session = await self._db.write(store)
        if session is None:
            raise _unknown_token("The refresh token is not known, or was used before")
        user_id, device_id = session
        self._forget(user_id, device_id)
        return Login(user_id, device_id, access, refresh, self._lifetime_ms)

    async def devices(self, user_id: str) -> list[Device]:
        """All devices of a user."""
        return await devices.devices(self._db.read, user_id)

    async def device(self, user_id: str, device_id: str) -> Device:
        """One device of a user, or ``M_NOT_FOUND``."""
        device = await devices.device(self._db.read, user_id, device_id)
        if device is None:
            raise not_found("There is no such device")
        return device

    async def put_device(self, user_id: str, device_id: str, display_name: str | None) -> bool:
        """Give a user a device without a session, or a device they have another name; whether it is new.

        ``M_TOO_LARGE``, ``M_INVALID_PARAM`` and ``M_FORBIDDEN`` as for ``rename_device`` and ``log_in``.
        """
        device = _checked_device_id(device_id)
        if await devices.device(self._db.read, user_id, device) is not None:
            if display_name is not None:
                await self.rename_device(user_id, device, display_name)
            return False
        _check_device_name(display_name)
        now = self._clock.now_ms()

        async def store(tx: Transaction) -> bool:
            if await _is_signing_key(tx, user_id, device):
                raise forbidden("One of your cross-signing keys has that ID")
            is_new = await devices.add(tx, user_id, device, display_name=display_name, now=now)
            if is_new:
                await self._record(tx, user_id, [device], [])
            return is_new

        is_new = await self._db.write(store)
        if is_new:
            await self._tell(user_id, [device], [])
        return is_new

    async def rename_device(self, user_id: str, device_id: str, display_name: str) -> None:
        """Give a device another name; ``M_NOT_FOUND``, or ``M_TOO_LARGE`` past 100 characters."""
        _check_device_name(display_name)

        async def rename(tx: Transaction) -> None:
            if not await devices.rename(tx, user_id, device_id, display_name):
                raise not_found("There is no such device")
            await self._record(tx, user_id, [device_id], [])

        await self._db.write(rename)
        await self._tell(user_id, [device_id], [])

    async def log_out(self, user_id: str, device_ids: Collection[str]) -> None:
        """Delete devices and end their sessions; unknown ids are passed over."""
        wanted = list(dict.fromkeys(device_ids))

        async def remove(tx: Transaction) -> list[str]:
            removed = await devices.remove(tx, user_id, wanted)
            await self._record(tx, user_id, [], removed)
            return removed

        removed = await self._db.write(remove)
        for device_id in removed:
            self._forget(user_id, device_id)
        await self._tell(user_id, [], removed)

    async def log_out_everywhere(self, user_id: str, *, keep: str | None = None) -> None:
        """Delete all devices of a user, except the one to ``keep``."""

        async def remove(tx: Transaction) -> list[str]:
            doomed = [each for each in await devices.device_ids(tx, user_id) if each != keep]
            removed = await devices.remove(tx, user_id, doomed)
            await self._record(tx, user_id, [], removed)
            return removed

        removed = await self._db.write(remove)
        self._forget(user_id)
        await self._tell(user_id, [], removed)

    def look_again(self, user_id: str) -> None:
        """What is remembered of a user's tokens does not hold any more."""
        self._forget(user_id)

    def _forget(self, user_id: str, device_id: str | None = None) -> None:
        """What is remembered of the tokens of a user, or of one device, does not hold any more."""
        if device_id is None:
            self._cache.forget_user(user_id)
        else:
            self._cache.forget_device(user_id, device_id)
        for listener in self.listeners:
            listener(user_id)

    async def _record(
        self, tx: Transaction, user_id: str, changed: Collection[str], removed: Collection[str]
    ) -> None:
        for observer in self._observers:
            await observer.record(tx, user_id, changed, removed)

    async def _tell(self, user_id: str, changed: Collection[str], removed: Collection[str]) -> None:
        if changed or removed:
            for observer in self._observers:
                await observer.devices_changed(user_id, changed, removed)

    async def _store_tokens(
        self,
        tx: Transaction,
        user_id: str,
        device_id: str,
        *,
        access: str,
        refresh: str | None,
        now: int,
        replaces_nid: int | None = None,
    ) -> None:
        if refresh is None:
            await devices.add_access_token(tx, _hash(access), user_id, device_id)
            return
        refresh_nid = await devices.add_refresh_token(
            tx, _hash(refresh), user_id, device_id, replaces_nid=replaces_nid
        )
        await devices.add_access_token(
            tx, _hash(access), user_id, device_id, expires_at=now + self._lifetime_ms, refresh_nid=refresh_nid
        )

    async def _end_replaced(self, token: AccessToken) -> None:
        """A new token is in use: end what it replaces."""
        if token.refresh_nid is None or token.replaces_nid is None:
            return
        await self._db.write(
            partial(devices.end_replaced, refresh_nid=token.refresh_nid, replaces_nid=token.replaces_nid)
        )
        self._forget(token.user_id, token.device_id)


async def _check_not_locked(tx: Transaction, user_id: str) -> None:
    standing = await moderation.standing(tx, user_id)
    if standing is not None and standing.locked:
        raise user_locked()


async def _is_signing_key(tx: Transaction, user_id: str, device_id: str) -> bool:
    keys = await cross_signing.keys_of(tx, [user_id])
    return any(key.public_key == device_id for key in keys.get(user_id, {}).values())


def _access_token(headers: Mapping[str, str], query: Mapping[str, str]) -> str:
    """The token, from the header or (deprecated) the query string."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if query.get("access_token"):
        return query["access_token"]
    raise MatrixError(401, "M_MISSING_TOKEN", "The access token is missing")


def _unknown_token(message: str, *, soft_logout: bool = False) -> MatrixError:
    return MatrixError(401, "M_UNKNOWN_TOKEN", message, soft_logout=soft_logout)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _new_device_id() -> str:
    return "".join(secrets.choice(string.ascii_uppercase) for _ in range(10))


def _checked_device_id(device_id: str) -> str:
    if not device_id or len(device_id.encode()) > _MAX_DEVICE_ID_BYTES:
        raise invalid_param(f"A device ID has 1 to {_MAX_DEVICE_ID_BYTES} bytes")
    return device_id


def _check_device_name(name: str | None) -> None:
    if name is not None and len(name) > _MAX_DEVICE_NAME_CHARS:
        raise MatrixError(400, "M_TOO_LARGE", "The device's name is too long")
