"""The keys that other servers sign with."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.storage.database import Reader, Transaction


class RemoteKey(msgspec.Struct, frozen=True, gc=False):
    """A server's public key in unpadded base64, and until when it counts (ms since the epoch)."""

    server_name: str
    key_id: str
    key: str
    valid_until: int


async def of_server(r: Reader, server_name: str) -> list[RemoteKey]:
    """All keys known of a server."""
    rows = await r.fetch(
        "SELECT server_name, key_id, key, valid_until FROM remote_keys WHERE server_name = $1", server_name
    )
    return [RemoteKey(*row) for row in rows]


async def put(tx: Transaction, keys: Iterable[RemoteKey]) -> None:
    """Add keys, replacing those of the same server and key id."""
    await tx.execute_many(
        """INSERT INTO remote_keys (server_name, key_id, key, valid_until) VALUES ($1, $2, $3, $4)
           ON CONFLICT (server_name, key_id)
           DO UPDATE SET key = excluded.key, valid_until = excluded.valid_until""",
        [(key.server_name, key.key_id, key.key, key.valid_until) for key in keys],
    )
