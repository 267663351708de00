"""Backups of room keys: which version is current, and which key of a session is the better one.

What the keys say is encrypted, and nobody's business here.
Specification: client-server API, "Server-side key backups".
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from homeserver.errors import MatrixError, invalid_param, not_found
from homeserver.storage import key_backup
from homeserver.storage.database import Database, Reader, Transaction
from homeserver.storage.key_backup import BackedUpKey, Backup

#: Versions a user may keep at a time; clients delete the old one when they begin another.
_MAX_BACKUPS = 100
#: Keys in one backup: somebody in thousands of rooms for ten years has some 100 000.
MAX_KEYS = 1_000_000
_MAX_SESSION_DATA = 65_536
_MAX_AUTH_DATA = 65_536
_MAX_ID_BYTES = 255
_PAGE = 500


class Contents(msgspec.Struct, frozen=True):
    """How many keys a backup has; ``etag`` is another whenever they are others."""

    count: int
    etag: str


def is_better(new: BackedUpKey, old: BackedUpKey) -> bool:
    """Whether a key takes the place of one of the same session (the section's three rules)."""
    return _rank(new) < _rank(old)


def _rank(key: BackedUpKey) -> tuple[bool, int, int]:
    return not key.is_verified, key.first_message_index, key.forwarded_count


class KeyBackups:
    """The backups of local users.

    A ``version`` is a string as clients have it; whatever is none of the user's is
    answered ``M_NOT_FOUND``.
    """

    def __init__(self, db: Database, *, max_keys: int = MAX_KEYS) -> None:
        self._db = db
        self._max_keys = max_keys

    async def create(self, user_id: str, algorithm: str, auth_data: Mapping[str, Any]) -> str:
        """Begin a new backup, current from now on; its version.

        ``M_TOO_LARGE`` for much ``auth_data``, or with too many backups.
        """
        data = _auth_data(auth_data)
        _check_id(algorithm, "algorithm")

        async def work(tx: Transaction) -> int:
            if await key_backup.number_of_backups(tx, user_id) >= _MAX_BACKUPS:
                raise MatrixError(413, "M_TOO_LARGE", f"More than {_MAX_BACKUPS} backups; delete old ones")
            return await key_backup.create(tx, user_id, algorithm, data)

        return str(await self._db.write(work))

    async def current(self, user_id: str) -> Backup:
        """The newest backup."""
        backup = await key_backup.current(self._db.read, user_id)
        if backup is None:
            raise not_found("No current backup version")
        return backup

    async def backup(self, user_id: str, version: str) -> Backup:
        """One backup."""
        return await _existing(self._db.read, user_id, version)

    async def set_auth_data(
        self, user_id: str, version: str, algorithm: str, auth_data: Mapping[str, Any]
    ) -> None:
        """Change how a backup is signed; ``M_INVALID_PARAM`` if it has another algorithm."""
        data = _auth_data(auth_data)

        async def work(tx: Transaction) -> None:
            backup = await _existing(tx, user_id, version)
            if backup.algorithm != algorithm:
                raise invalid_param("The algorithm does not match that of the backup")
            await key_backup.set_auth_data(tx, user_id, backup.version, data)

        await self._db.write(work)

    async def delete(self, user_id: str, version: str) -> None:
        """Delete a backup with its keys; to delete it again does nothing."""

        async def work(tx: Transaction) -> None:
            number = _number(version)
            if number > await key_backup.last_version(tx, user_id):
                raise _unknown_version()
            await key_backup.remove(tx, user_id, number)

        await self._db.write(work)

    async def add(self, user_id: str, version: str, keys: Sequence[BackedUpKey]) -> Contents:
        """Store keys where they are better than what there is; what the backup has then.

        403 ``M_WRONG_ROOM_KEYS_VERSION`` for a version that is not current any more,
        ``M_TOO_LARGE`` for a large key or too many of them.
        """
        _check_keys(keys)

        async def work(tx: Transaction) -> Contents:
            backup = await _writable(tx, user_id, version)
            sessions = list({key.session_id for key in keys})
            known = await key_backup.keys_of_sessions(tx, user_id, backup.version, sessions)
            wanted = [
                key
                for key in keys
                if (old := known.get((key.room_id, key.session_id))) is None or is_better(key, old)
            ]
            more = sum((key.room_id, key.session_id) not in known for key in wanted)
            if more and backup.count + more > self._max_keys:
                raise MatrixError(413, "M_TOO_LARGE", f"A backup has at most {self._max_keys} keys")
            if not wanted:
                return _contents(backup)
            await key_backup.store_keys(tx, user_id, backup.version, wanted)
            return await _changed(tx, user_id, backup, more)

        return await self._db.write(work)

    async def remove(
        self, user_id: str, version: str, room_id: str | None = None, session_id: str | None = None
    ) -> Contents:
        """Delete one key, those of a room, or all; what the backup has then."""

        async def work(tx: Transaction) -> Contents:
            backup = await _existing(tx, user_id, version)
            removed = await key_backup.remove_keys(tx, user_id, backup.version, room_id, session_id)
            return await _changed(tx, user_id, backup, -removed) if removed else _contents(backup)

        return await self._db.write(work)

    async def key(self, user_id: str, version: str, room_id: str, session_id: str) -> BackedUpKey:
        """The key of one session."""
        backup = await self.backup(user_id, version)
        found = await key_backup.key(self._db.read, user_id, backup.version, room_id, session_id)
        if found is None:
            raise not_found("There is no key of this session in the backup")
        return found

    async def keys(
        self, user_id: str, backup: Backup, room_id: str | None = None
    ) -> AsyncIterator[list[BackedUpKey]]:
        """Every key of a backup, or of a room in it, in pages by room and session."""
        room, session = room_id or "", ""
        read = key_backup.keys_after if room_id is None else key_backup.keys_of_room_after
        while page := await read(self._db.scan, user_id, backup.version, room, session, limit=_PAGE):
            yield page
            room, session = page[-1].room_id, page[-1].session_id


async def _existing(r: Reader, user_id: str, version: str) -> Backup:
    backup = await key_backup.backup(r, user_id, _number(version))
    if backup is None:
        raise _unknown_version()
    return backup


async def _writable(r: Reader, user_id: str, version: str) -> Backup:
    number = _number(version)
    current = await key_backup.current(r, user_id)
    if current is None or number > current.version:
        raise _unknown_version()
    if number < current.version:
        raise MatrixError(
            403,
            "M_WRONG_ROOM_KEYS_VERSION",
            "Keys can only be written to the current backup",
            current_version=str(current.version),
        )
    return current


async def _changed(tx: Transaction, user_id: str, backup: Backup, more: int) -> Contents:
    await key_backup.keys_changed(tx, user_id, backup.version, more)
    return Contents(backup.count + more, str(backup.etag + 1))


def _contents(backup: Backup) -> Contents:
    return Contents(backup.count, str(backup.etag))


def _number(version: str) -> int:
    """The number a version string stands for; each has one spelling."""
    if not (version.isascii() and version.isdigit() and len(version) <= 15) or version.startswith("0"):
        raise _unknown_version()
    return int(version)


def _unknown_version() -> MatrixError:
    return not_found("Unknown backup version")


def _auth_data(auth_data: Mapping[str, Any]) -> str:
    data = orjson.dumps(auth_data)
    if len(data) > _MAX_AUTH_DATA:
        raise MatrixError(413, "M_TOO_LARGE", f"'auth_data' has at most {_MAX_AUTH_DATA} bytes")
    return data.decode()


def _check_keys(keys: Sequence[BackedUpKey]) -> None:
    for key in keys:
        _check_id(key.room_id, "room ID")
        _check_id(key.session_id, "session ID")
        if len(key.session_data) > _MAX_SESSION_DATA:
            raise MatrixError(413, "M_TOO_LARGE", f"'session_data' has at most {_MAX_SESSION_DATA} bytes")


def _check_id(text: str, what: str) -> None:
    if not 0 < len(text.encode()) <= _MAX_ID_BYTES:
        raise invalid_param(f"The {what} has 1 to {_MAX_ID_BYTES} bytes")
