"""Giving out one-time keys: each once, here and at other servers.

Specification: client-server API, ``POST /keys/claim``; server-server API, ``POST /user/keys/claim``.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from homeserver.clock import Clock
from homeserver.e2e.key_counts import KeyCounts
from homeserver.e2e.remote import RemoteKeys
from homeserver.errors import MatrixError, RemoteError
from homeserver.protocol.e2e_keys import BadKey, check_one_time_key, is_name, split_key_id
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.storage import e2e_keys
from homeserver.storage.database import Database, Transaction

#: User id to device id to algorithm.
Wanted = Mapping[str, Mapping[str, str]]
#: User id to device id to the named key.
Claimed = dict[str, dict[str, dict[str, Any]]]

MAX_CLAIMED = 10_000
#: Keys given out in one transaction, so that others get their turn.
_AT_ONCE = 200
#: Other servers that are asked at the same time.
_SERVERS_AT_ONCE = 50


class KeyClaims:
    """Gives out keys of local devices, and fetches those of others."""

    def __init__(
        self, *, db: Database, counts: KeyCounts, remote: RemoteKeys, clock: Clock, server_name: str
    ) -> None:
        self._db = db
        self._counts = counts
        self._remote = remote
        self._clock = clock
        self._server_name = server_name

    async def claim(self, wanted: Wanted, timeout: float) -> dict[str, Any]:
        """One key for every device that has one, as ``one_time_keys``; ``failures`` by server.

        Each other server gets ``timeout`` seconds.  ``M_TOO_LARGE`` for too many at once.
        """
        local: dict[str, Mapping[str, str]] = {}
        remote: defaultdict[str, dict[str, Mapping[str, str]]] = defaultdict(dict)
        for user_id, devices in wanted.items():
            if is_user_id(user_id):
                server = server_name_of(user_id)
                (local if server == self._server_name else remote[server])[user_id] = devices
        failures: dict[str, Any] = {}
        keys = await self.claim_local(local)
        slots = asyncio.Semaphore(_SERVERS_AT_ONCE)

        async def ask(server: str, of_server: Wanted) -> Claimed:
            try:
                async with slots:
                    reply = await self._remote.claim_user_keys(server, of_server, timeout=timeout)
            except RemoteError as error:
                failures[server] = failure(error)
                return {}
            return _asked_for(reply["one_time_keys"], of_server)

        for found in await asyncio.gather(*(ask(server, of) for server, of in remote.items())):
            keys.update(found)
        return {"one_time_keys": keys, "failures": failures}

    async def claim_local(self, wanted: Wanted) -> Claimed:
        """Give out keys of local devices; those that have none are left out."""
        named = [(user, device, algorithm) for user, by in wanted.items() for device, algorithm in by.items()]
        if len(named) > MAX_CLAIMED:
            raise MatrixError(413, "M_TOO_LARGE", f"At most {MAX_CLAIMED} keys can be claimed at once")
        claimed: Claimed = {}
        for start in range(0, len(named), _AT_ONCE):
            for user_id, device_id, name, key in await self._give_out(named[start : start + _AT_ONCE]):
                claimed.setdefault(user_id, {})[device_id] = {name: orjson.loads(key)}
        return claimed

    async def _give_out(self, named: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str, str]]:
        now_ms = self._clock.now_ms()

        async def work(tx: Transaction) -> list[tuple[str, str, str, str]]:
            given = []
            for user_id, device_id, algorithm in named:
                if not (is_name(device_id) and is_name(algorithm)):
                    continue
                key = await e2e_keys.claim(
                    tx, user_id, device_id, algorithm, now_ms
                ) or await e2e_keys.use_fallback_key(tx, user_id, device_id, algorithm)
                if key is not None:
                    given.append((user_id, device_id, f"{algorithm}:{key[0]}", key[1]))
            return given

        given = await self._db.write(work)
        self._counts.forget((user_id, device_id) for user_id, device_id, _, _ in given)
        return given


def failure(error: RemoteError) -> dict[str, Any]:
    """What a client is told of a server that did not answer as it should."""
    return {"status": error.status or 503, "message": error.message}


def _asked_for(reply: object, wanted: Wanted) -> Claimed:
    """What of another server's answer was asked for and is a key."""
    claimed: Claimed = {}
    for user_id, device_id, name, key in _entries(reply):
        algorithm = wanted.get(user_id, {}).get(device_id)
        try:
            check_one_time_key(key)
            if split_key_id(name)[0] == algorithm:
                claimed.setdefault(user_id, {})[device_id] = {name: key}
        except BadKey:
            continue
    return claimed


def _entries(reply: object) -> Iterator[tuple[str, str, str, Any]]:
    for user_id, devices in reply.items() if isinstance(reply, dict) else ():
        for device_id, keys in devices.items() if isinstance(devices, dict) else ():
            for name, key in keys.items() if isinstance(keys, dict) else ():
                yield user_id, device_id, name, key
