"""The keys that other servers sign with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from homeserver.storage.database import Reader, Transaction


class RemoteKey(msgspec.Struct, frozen=True, gc=False):
    """A server's public key in unpadded base64, and until when it counts (ms since the epoch)."""

    server_name: str
    key_id: str
    key: str
    valid_until: int
    #: The server no longer uses it; ``valid_until`` is when it stopped.
    expired: bool = False


class PublishedKeys(msgspec.Struct, frozen=True, gc=False):
    """What a server published while it used a key, and when it gave it (0: another server did)."""

    server_name: str
    key_id: str
    fetched_at: int
    #: Canonical JSON.
    answer: bytes


async def of_servers(r: Reader, server_names: Sequence[str]) -> list[RemoteKey]:
    """All keys known of some servers."""
    rows = await r.fetch_in(
        "SELECT server_name, key_id, key, valid_until, expired FROM remote_keys WHERE server_name IN $1",
        server_names,
    )
    return [
        RemoteKey(server, key_id, key, until, bool(expired)) for server, key_id, key, until, expired in rows
    ]


async def put(tx: Transaction, keys: Iterable[RemoteKey]) -> None:
    """Add keys; of one that is known only how long it counts can change."""
    await tx.execute_many(
        """INSERT INTO remote_keys (server_name, key_id, key, valid_until, expired)
           VALUES ($1, $2, $3, $4, $5)
           ON CONFLICT (server_name, key_id)
           DO UPDATE SET valid_until = excluded.valid_until, expired = excluded.expired
           WHERE remote_keys.key = excluded.key""",
        [(key.server_name, key.key_id, key.key, key.valid_until, int(key.expired)) for key in keys],
    )


async def published_by(r: Reader, server_names: Sequence[str]) -> list[PublishedKeys]:
    """What is kept of what some servers published, the newest first."""
    rows = await r.fetch_in(
        """SELECT server_name, key_id, fetched_at, answer FROM published_keys
           WHERE server_name IN $1 ORDER BY fetched_at DESC""",
        server_names,
    )
    return [PublishedKeys(*row) for row in rows]


async def put_published(tx: Transaction, published: Iterable[PublishedKeys]) -> None:
    """Keep what servers published, in place of what is older."""
    await tx.execute_many(
        """INSERT INTO published_keys (server_name, key_id, fetched_at, answer) VALUES ($1, $2, $3, $4)
           ON CONFLICT (server_name, key_id)
           DO UPDATE SET fetched_at = excluded.fetched_at, answer = excluded.answer
           WHERE published_keys.fetched_at <= excluded.fetched_at""",
        [(one.server_name, one.key_id, one.fetched_at, one.answer) for one in published],
    )


async def forget_published(tx: Transaction, keep: int) -> int:
    """Forget the oldest of what servers published, but for the ``keep`` newest; how many that were."""
    return await tx.execute(
        """DELETE FROM published_keys WHERE fetched_at <
           (SELECT fetched_at FROM published_keys ORDER BY fetched_at DESC LIMIT 1 OFFSET $1)""",
        keep - 1,
    )
