"""The access tokens in use, remembered so that a request need not look them up.

An entry is believed for half a minute at most: that bounds how long a token outlives
its end when another process ended it.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from homeserver.clock import Clock
from homeserver.users.requester import Requester

#: How long an entry is believed, in milliseconds.
MAX_AGE_MS = 30_000


class _Entry(msgspec.Struct, frozen=True):
    requester: Requester
    stale_at: int


class TokenCache:
    """Requesters by the hash of their token; the least recently used goes first."""

    def __init__(self, clock: Clock, size: int) -> None:
        self._clock = clock
        self._size = size
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._by_user: dict[str, set[bytes]] = {}
        #: Moves on whenever tokens end, so that a look-up begun before is not kept.
        self.generation = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token_hash: bytes) -> Requester | None:
        """The requester, while the entry is believed."""
        entry = self._entries.get(token_hash)
        if entry is None:
            return None
        if entry.stale_at <= self._clock.now_ms():
            self._remove(token_hash)
            return None
        self._entries.move_to_end(token_hash)
        return entry.requester

    def put(self, token_hash: bytes, requester: Requester, expires_at: int | None, generation: int) -> None:
        """Remember a token that was looked up when the cache was at ``generation``."""
        if generation != self.generation:
            return
        stale_at = self._clock.now_ms() + MAX_AGE_MS
        if expires_at is not None:
            stale_at = min(stale_at, expires_at)
        self._entries[token_hash] = _Entry(requester, stale_at)
        self._by_user.setdefault(requester.user_id, set()).add(token_hash)
        if len(self._entries) > self._size:
            self._remove(next(iter(self._entries)))

    def forget_user(self, user_id: str) -> None:
        """Forget all tokens of a user."""
        self.generation += 1
        for token_hash in list(self._by_user.get(user_id, ())):
            self._remove(token_hash)

    def forget_device(self, user_id: str, device_id: str) -> None:
        """Forget all tokens of a device."""
        self.generation += 1
        for token_hash in list(self._by_user.get(user_id, ())):
            if self._entries[token_hash].requester.device_id == device_id:
                self._remove(token_hash)

    def _remove(self, token_hash: bytes) -> None:
        user_id = self._entries.pop(token_hash).requester.user_id
        hashes = self._by_user[user_id]
        hashes.discard(token_hash)
        if not hashes:
            del self._by_user[user_id]
