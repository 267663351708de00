"""What devices upload: identity keys, one-time keys, fallback keys (client-server API, "Uploading keys")."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
import orjson

from homeserver.clock import Clock
from homeserver.e2e.device_lists import DeviceLists
from homeserver.e2e.key_counts import KeyCounts
from homeserver.errors import MatrixError, bad_json, forbidden, not_found
from homeserver.protocol.e2e_keys import (
    BadKey,
    check_device_keys,
    check_one_time_key,
    same_key,
    split_key_id,
)
from homeserver.storage import cross_signing, devices, e2e_keys
from homeserver.storage.database import Database, Transaction
from homeserver.storage.e2e_keys import NewKey

#: Keys a device may have waiting; clients keep some 50.
MAX_ONE_TIME_KEYS = 1000
_MAX_FALLBACK_KEYS = 16
#: A repeated upload of a key that was given out is recognised for so long.
_CLAIMED_KEPT_MS = 7 * 24 * 3600 * 1000


class NewKeys(msgspec.Struct, frozen=True, gc=False):
    """What a device uploads, checked; ``identity`` is JSON."""

    user_id: str
    device_id: str
    identity: str | None
    one_time: list[NewKey]
    fallback: list[NewKey]


def new_keys(
    user_id: str,
    device_id: str,
    *,
    device_keys: Mapping[str, Any] | None,
    one_time_keys: Mapping[str, Any],
    fallback_keys: Mapping[str, Any],
) -> NewKeys:
    """Check keys; ``M_BAD_JSON`` for what is not keys of this device, ``M_TOO_LARGE`` for too many."""
    try:
        return NewKeys(
            user_id,
            device_id,
            None if device_keys is None else check_device_keys(device_keys, user_id, device_id),
            _new_keys(one_time_keys, MAX_ONE_TIME_KEYS),
            _new_keys(fallback_keys, _MAX_FALLBACK_KEYS),
        )
    except BadKey as error:
        raise bad_json(f"Not a key: {error}") from error


class KeyUploads:
    """Stores the keys of local devices."""

    def __init__(self, db: Database, lists: DeviceLists, counts: KeyCounts, clock: Clock) -> None:
        self._db = db
        self._lists = lists
        self._counts = counts
        self._clock = clock

    async def upload(self, keys: NewKeys) -> dict[str, int]:
        """Store keys of a device; how many one-time keys of each algorithm it has then.

        Raises as ``store``.
        """
        user_id, device_id = keys.user_id, keys.device_id
        changed = await self._db.write(partial(self.store, keys=keys))
        self.stored(keys)
        if changed:
            await self._lists.devices_changed(user_id, [device_id], [])
        return (await self._counts.of(user_id, device_id)).one_time_keys

    async def store(self, tx: Transaction, keys: NewKeys) -> bool:
        """Part of a transaction: store keys; whether the identity keys are others than before.

        Raises 400 ``M_UNKNOWN`` for a key id that stands for another key already,
        ``M_TOO_LARGE`` for too many, ``M_FORBIDDEN`` for a device whose id is a
        cross-signing key, ``M_NOT_FOUND`` without the device.
        """
        user_id, device_id, identity = keys.user_id, keys.device_id, keys.identity
        if await devices.device(tx, user_id, device_id) is None:
            raise not_found("There is no such device")
        await _store_one_time_keys(tx, user_id, device_id, keys.one_time)
        await _store_fallback_keys(tx, user_id, device_id, keys.fallback)
        if identity is None or identity == await e2e_keys.device_keys(tx, user_id, device_id):
            return False
        await _check_device_id(tx, user_id, device_id)
        await e2e_keys.set_device_keys(tx, user_id, device_id, identity)
        await self._lists.record(tx, user_id, [device_id], [])
        return True

    def stored(self, keys: NewKeys) -> None:
        """What ``store`` wrote is on disk."""
        self._counts.forget([(keys.user_id, keys.device_id)])

    async def forget_claimed(self) -> None:
        """Forget which keys were given out long ago.  To be called now and then."""
        before_ms = self._clock.now_ms() - _CLAIMED_KEPT_MS
        await self._db.write(partial(e2e_keys.forget_claimed, before_ms=before_ms))


def _new_keys(keys: Mapping[str, Any], limit: int) -> list[NewKey]:
    if len(keys) > limit:
        raise MatrixError(413, "M_TOO_LARGE", f"More than {limit} keys")
    return [NewKey(*split_key_id(name), check_one_time_key(key)) for name, key in keys.items()]


async def _store_one_time_keys(tx: Transaction, user_id: str, device_id: str, keys: list[NewKey]) -> None:
    """Add those that are new; the same key again is no mistake, but one that was given out stays so."""
    if not keys:
        return
    known = await e2e_keys.one_time_keys(tx, user_id, device_id, [key.key_id for key in keys])
    claimed = await e2e_keys.claimed_ids(tx, user_id, device_id, [key.key_id for key in keys])
    new = []
    for key in keys:
        named = (key.algorithm, key.key_id)
        same = named in known and same_key(orjson.loads(known[named]), orjson.loads(key.key))
        if not same and named in known and named not in claimed:
            # COMPAT: clients of the Rust SDK recognise this error by its code and words.
            message = f"One time key {key.algorithm}:{key.key_id} already exists"
            raise MatrixError(400, "M_UNKNOWN", message)
        if not same:
            new.append(key)
    left = await e2e_keys.counts(tx, user_id, device_id)
    if sum(left.values()) + len(new) > MAX_ONE_TIME_KEYS:
        raise MatrixError(413, "M_TOO_LARGE", f"A device has at most {MAX_ONE_TIME_KEYS} one-time keys")
    await e2e_keys.add_one_time_keys(tx, user_id, device_id, new)


async def _store_fallback_keys(tx: Transaction, user_id: str, device_id: str, keys: list[NewKey]) -> None:
    """Replace those that are different: the same one again stays as used as it was."""
    if not keys:
        return
    known = await e2e_keys.fallback_keys(tx, user_id, device_id)
    new = [
        key
        for key in keys
        if key.algorithm not in known
        or known[key.algorithm][0].key_id != key.key_id
        or not same_key(orjson.loads(known[key.algorithm][0].key), orjson.loads(key.key))
    ]
    kinds = {key.algorithm for key in new} | known.keys()
    if len(kinds) > _MAX_FALLBACK_KEYS:
        raise MatrixError(413, "M_TOO_LARGE", f"A device has at most {_MAX_FALLBACK_KEYS} fallback keys")
    await e2e_keys.set_fallback_keys(tx, user_id, device_id, new)


async def _check_device_id(tx: Transaction, user_id: str, device_id: str) -> None:
    """Devices and cross-signing keys sign under the same names (spec: "Key and signature security")."""
    keys = (await cross_signing.keys_of(tx, [user_id])).get(user_id, {})
    if any(key.public_key == device_id for key in keys.values()):
        raise forbidden("The device's ID is the same as a cross-signing key")
