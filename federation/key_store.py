"""The keyring's keys in the database."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from federation.keyring import StoredKey
from homeserver.storage import remote_keys
from homeserver.storage.database import Database
from homeserver.storage.remote_keys import RemoteKey


class DatabaseKeyStore:
    """A ``KeyStore`` over ``storage/remote_keys.py``."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def load(self, server_name: str) -> list[StoredKey]:
        """All keys known of a server."""
        found = await remote_keys.of_server(self._db.read, server_name)
        return [StoredKey(key.server_name, key.key_id, key.key, key.valid_until) for key in found]

    async def store(self, keys: Sequence[StoredKey]) -> None:
        """Add keys, replacing those of the same server and key id."""
        rows = [RemoteKey(key.server_name, key.key_id, key.key_base64, key.valid_until_ms) for key in keys]
        await self._db.write(partial(remote_keys.put, keys=rows))
