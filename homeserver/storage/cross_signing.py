"""Cross-signing keys, and the signatures local users add to keys.  Keys are JSON text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import orjson

from homeserver.protocol.e2e_keys import CrossSigningKey, Signature
from homeserver.storage.database import Reader, Transaction


async def keys_of(r: Reader, user_ids: Sequence[str]) -> dict[str, dict[str, CrossSigningKey]]:
    """The cross-signing keys of some users, by user and usage."""
    rows = await r.fetch_in(
        "SELECT user_id, usage, public_key, key FROM cross_signing_keys WHERE user_id IN $1", list(user_ids)
    )
    found: defaultdict[str, dict[str, CrossSigningKey]] = defaultdict(dict)
    for row in rows:
        found[row[0]][row[1]] = CrossSigningKey(row[1], row[2], orjson.loads(row[3]))
    return found


async def put(tx: Transaction, user_id: str, keys: Iterable[CrossSigningKey]) -> None:
    """Store or replace keys of a user."""
    await tx.execute_many(
        """INSERT INTO cross_signing_keys (user_id, usage, public_key, key) VALUES ($1, $2, $3, $4)
           ON CONFLICT (user_id, usage)
           DO UPDATE SET public_key = excluded.public_key, key = excluded.key""",
        [(user_id, key.usage, key.public_key, msgspec.json.encode(key.content).decode()) for key in keys],
    )


async def remove_all(tx: Transaction, user_id: str) -> None:
    """Forget a user's keys."""
    await tx.execute("DELETE FROM cross_signing_keys WHERE user_id = $1", user_id)


async def signatures_of(r: Reader, user_ids: Sequence[str]) -> dict[tuple[str, str], list[Signature]]:
    """The signatures that were added to keys of some users, by user and key."""
    rows = await r.fetch_in(
        """SELECT target_user, target_key, signer, signing_key, signature FROM key_signatures
           WHERE target_user IN $1""",
        list(user_ids),
    )
    found: defaultdict[tuple[str, str], list[Signature]] = defaultdict(list)
    for row in rows:
        found[row[0], row[1]].append(Signature(*row))
    return found


async def add_signatures(tx: Transaction, signatures: Iterable[Signature], pos: int) -> None:
    """Add signatures, or replace those by the same key."""
    await tx.execute_many(
        """INSERT INTO key_signatures (target_user, target_key, signer, signing_key, signature, pos)
           VALUES ($1, $2, $3, $4, $5, $6)
           ON CONFLICT (target_user, target_key, signer, signing_key)
           DO UPDATE SET signature = excluded.signature, pos = excluded.pos""",
        [(s.target_user, s.target_key, s.signer, s.signing_key, s.signature, pos) for s in signatures],
    )


async def remove_signatures_by(tx: Transaction, signer: str, signing_keys: Iterable[str]) -> None:
    """Forget what a user signed with keys that are replaced."""
    await tx.execute_many(
        "DELETE FROM key_signatures WHERE signer = $1 AND signing_key = $2",
        [(signer, signing_key) for signing_key in signing_keys],
    )


async def signed_since(r: Reader, signer: str, after: int) -> list[str]:
    """Whose keys a user signed after a position."""
    rows = await r.fetch(
        "SELECT DISTINCT target_user FROM key_signatures WHERE signer = $1 AND pos > $2", signer, after
    )
    return [row[0] for row in rows]
