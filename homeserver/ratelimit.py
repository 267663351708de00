"""Token buckets: how often one caller may do one kind of thing.

Every limit has a name, and within it every key (a user, an address, a server) a
bucket of its own.  Buckets are forgotten oldest first once there are too many, so
a flood of keys costs a bounded amount of memory.  Nothing here waits: a caller
over its limit is told when to come back.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

import msgspec

from homeserver.clock import Clock
from homeserver.errors import limit_exceeded


class Limit(msgspec.Struct, frozen=True):
    """``per_second`` on average, ``burst`` at once."""

    per_second: float
    burst: int

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst < 1:
            raise ValueError("a limit needs a positive rate and a burst of at least one")


class _Bucket(msgspec.Struct):
    tokens: float
    filled_at: float


class RateLimiter:
    """The buckets of every named limit."""

    def __init__(
        self, limits: Mapping[str, Limit], clock: Clock, *, enabled: bool = True, max_keys: int = 20_000
    ) -> None:
        self._limits = dict(limits)
        self._clock = clock
        #: Whether there is anything to check.
        self.enabled = enabled
        self._max_keys = max_keys
        self._buckets: OrderedDict[tuple[str, str], _Bucket] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        """Whether ``check`` may be called with this limit's name."""
        return not self.enabled or name in self._limits

    def check(self, name: str, key: str) -> None:
        """Take one token from the bucket of ``key``.

        Raises ``M_LIMIT_EXCEEDED`` with the milliseconds until a token is there;
        a refused call costs no token.  ``KeyError`` for a limit nobody configured.
        """
        if not self.enabled:
            return
        limit = self._limits[name]
        bucket = self._filled(name, key, limit)
        if bucket.tokens < 1:
            raise limit_exceeded(max(1, math.ceil((1 - bucket.tokens) / limit.per_second * 1000)))
        bucket.tokens -= 1

    def _filled(self, name: str, key: str, limit: Limit) -> _Bucket:
        now = self._clock.monotonic()
        bucket = self._buckets.get((name, key))
        if bucket is None:
            if len(self._buckets) >= self._max_keys:
                self._buckets.popitem(last=False)
            bucket = self._buckets[(name, key)] = _Bucket(float(limit.burst), now)
            return bucket
        self._buckets.move_to_end((name, key))
        gained = (now - bucket.filled_at) * limit.per_second
        bucket.tokens = min(float(limit.burst), bucket.tokens + gained)
        bucket.filled_at = now
        return bucket
