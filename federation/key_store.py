"""The keyring's keys in the database, and the answers that this server vouches for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Final

from federation.published_keys import Answer, VerifyKey
from homeserver.protocol.canonical_json import decode, encode
from homeserver.storage import remote_keys
from homeserver.storage.database import Database, Transaction
from homeserver.storage.remote_keys import PublishedKeys, RemoteKey

#: Servers whose keys are read at once in the event loop's own thread.
_FEW: Final = 50
#: Larger answers, and more keys in use than this, are not worth keeping whole.
_MAX_ANSWER_BYTES: Final = 32 * 1024
_MAX_KEYS_IN_USE: Final = 8


class DatabaseKeyStore:
    """``KeyStore`` and ``AnswerStore`` over ``storage/remote_keys.py``."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def load(self, server_names: Collection[str]) -> dict[str, list[VerifyKey]]:
        """All keys known of servers."""
        # A key or two for each server: few servers are a short read, a large room is a longer one.
        reader = self._db.read if len(server_names) < _FEW else self._db.scan
        found: defaultdict[str, list[VerifyKey]] = defaultdict(list)
        for key in await remote_keys.of_servers(reader, list(server_names)):
            found[key.server_name].append(VerifyKey(key.key_id, key.key, key.valid_until, key.expired))
        return found

    async def store(self, server_name: str, keys: Collection[VerifyKey], answer: Answer | None) -> None:
        """Add keys or what is new about them, and keep the answer they stood in."""
        rows = [
            RemoteKey(server_name, key.key_id, key.key_base64, key.valid_until_ms, key.expired)
            for key in keys
        ]
        published = [] if answer is None else _rows(answer)

        async def write(tx: Transaction) -> None:
            await remote_keys.put(tx, rows)
            await remote_keys.put_published(tx, published)

        await self._db.write(write)

    async def answers(self, server_names: Collection[str]) -> dict[str, list[Answer]]:
        """What servers published, the newest first."""
        found: defaultdict[str, dict[bytes, list[PublishedKeys]]] = defaultdict(lambda: defaultdict(list))
        for row in await remote_keys.published_by(self._db.scan, list(server_names)):
            found[row.server_name][row.answer].append(row)
        return {
            server_name: [_answer(rows) for rows in by_answer.values()]
            for server_name, by_answer in found.items()
        }


def _rows(answer: Answer) -> list[PublishedKeys]:
    encoded = encode(answer.content)
    if len(encoded) > _MAX_ANSWER_BYTES:
        return []
    return [
        PublishedKeys(answer.server_name, key_id, answer.fetched_at_ms, encoded)
        for key_id in answer.key_ids[:_MAX_KEYS_IN_USE]
    ]


def _answer(rows: list[PublishedKeys]) -> Answer:
    key_ids = tuple(row.key_id for row in rows)
    return Answer(rows[0].server_name, key_ids, rows[0].fetched_at, decode(rows[0].answer))
