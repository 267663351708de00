"""The keys that other servers sign with: from memory, from storage, else from the server.

Says which key a server had and until when it counts; what must be signed is
``homeserver.protocol.signing``'s.  A key is only taken from an answer that the
server signed itself.  Specification: server-server API, "Retrieving server keys";
room version 5, "Signing key validity period".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeGuard

from federation.lookups import InFlight, Recent
from homeserver.clock import Clock
from homeserver.errors import RemoteError
from homeserver.protocol.signing import BadSignature, SigningKey, decode_base64, verify_json

#: A server's word on how long its keys are valid counts for no longer than this.
MAX_VALIDITY_MS: Final = 7 * 24 * 3600 * 1000

#: A server that did not give the key wanted is not asked again for so long.
RETRY_SECONDS: Final = 60

_MAX_KEYS: Final = 100
_REMEMBERED_SERVERS: Final = 10_000
_FOREVER_MS: Final = 2**53 - 1

_KEY_ID = re.compile(r"ed25519:[A-Za-z0-9_]{1,128}")


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key in unpadded base64; what was signed after ``valid_until_ms`` it does not cover."""

    key_id: str
    key_base64: str
    valid_until_ms: int


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A server's key as it is stored.

    For a key the server no longer uses ``valid_until_ms`` is when it stopped
    (``expired_ts``); for one in use, the last time it was known to be valid.
    """

    server_name: str
    key_id: str
    key_base64: str
    valid_until_ms: int


class KeyStore(Protocol):
    """Where keys survive a restart."""

    async def load(self, server_name: str) -> list[StoredKey]:
        """All keys known of a server."""
        ...

    async def store(self, keys: Sequence[StoredKey]) -> None:
        """Add keys, replacing those of the same server and key id."""
        ...


class InvalidServerKeys(Exception):
    """What a server published as its keys cannot be believed; the message is a sentence."""


class Keyring:
    """Knows servers' keys.  ``fetch`` asks a server for what it publishes (``RemoteError``)."""

    def __init__(
        self,
        *,
        server_name: str,
        own_keys: Iterable[SigningKey],
        store: KeyStore,
        fetch: Callable[[str], Awaitable[Mapping[str, Any]]],
        clock: Clock,
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._clock = clock
        self._server_name = server_name
        self._own_keys = {
            key.key_id: VerifyKey(key.key_id, key.verify_key_base64, _FOREVER_MS) for key in own_keys
        }
        self._known: Recent[str, dict[str, VerifyKey]] = Recent(_REMEMBERED_SERVERS)
        self._asked_at: Recent[str, float] = Recent(_REMEMBERED_SERVERS)
        self._loads: InFlight[str, dict[str, VerifyKey]] = InFlight()
        self._fetches: InFlight[str, dict[str, VerifyKey]] = InFlight()

    async def verify_json(
        self, server_name: str, obj: dict[str, Any], *, min_valid_until_ms: int | None = None
    ) -> None:
        """Check that the server signed the object, with a key valid until then (default: now).

        One good signature is enough; those by keys that are unknown or no longer valid
        are passed over.  Raises ``BadSignature``.
        """
        key_ids = _signing_key_ids(obj, server_name)
        if not key_ids:
            raise BadSignature(f"{server_name} has not signed with a supported key")
        at = self._clock.now_ms() if min_valid_until_ms is None else min_valid_until_ms
        keys = await self.keys_for(server_name, key_ids, at)
        if not keys:
            raise BadSignature(f"None of the keys that {server_name} signed with is known and valid")
        failure: BadSignature | None = None
        for key in keys.values():
            try:
                verify_json(obj, server_name, key.key_id, key.key_base64)
            except BadSignature as error:
                failure = error
            else:
                return
        if failure is not None:
            raise failure

    async def keys_for(
        self, server_name: str, key_ids: Collection[str], min_valid_until_ms: int
    ) -> dict[str, VerifyKey]:
        """Those of the keys that could be had and are valid until then at least.

        For an event of a room version with ``enforce_key_validity`` that is its
        ``origin_server_ts``, for older versions 0, for a request the present.
        The server is asked when a key is missing or not known to be valid for so long.
        """
        if server_name == self._server_name:
            return _usable(self._own_keys, key_ids, min_valid_until_ms)
        known = self._known.get(server_name)
        if known is None:
            known = await self._loads.run(server_name, lambda: self._load(server_name))
        usable = _usable(known, key_ids, min_valid_until_ms)
        if len(usable) == len(set(key_ids)):
            return usable
        known = await self._fetches.run(server_name, lambda: self._refresh(server_name))
        return _usable(known, key_ids, min_valid_until_ms)

    async def close(self) -> None:
        """Stop asking."""
        await self._fetches.close()
        await self._loads.close()

    async def _load(self, server_name: str) -> dict[str, VerifyKey]:
        stored = await self._store.load(server_name)
        known = {key.key_id: VerifyKey(key.key_id, key.key_base64, key.valid_until_ms) for key in stored}
        self._known.put(server_name, known)
        return known

    async def _refresh(self, server_name: str) -> dict[str, VerifyKey]:
        """All keys known after asking the server, unless it was asked just now."""
        known = self._known.get(server_name) or {}
        now = self._clock.monotonic()
        asked_at = self._asked_at.get(server_name)
        if asked_at is not None and now < asked_at + RETRY_SECONDS:
            return known
        self._asked_at.put(server_name, now)
        try:
            response = await self._fetch(server_name)
            published = read_server_keys(server_name, response, self._clock.now_ms())
        except (RemoteError, InvalidServerKeys):
            return known
        known = known | {key.key_id: key for key in published}
        self._known.put(server_name, known)
        await self._store.store(
            [StoredKey(server_name, key.key_id, key.key_base64, key.valid_until_ms) for key in published]
        )
        return known


def read_server_keys(server_name: str, response: Mapping[str, Any], now_ms: int) -> list[VerifyKey]:
    """The keys in a server's answer to ``/_matrix/key/v2/server``, in use and old.

    Raises ``InvalidServerKeys`` unless the answer is of the server and signed by the
    keys in it.  Keys of unknown algorithms are left out.
    """
    if response.get("server_name") != server_name:
        raise InvalidServerKeys(f"The keys are not those of {server_name}")
    valid_until = response.get("valid_until_ts")
    if not _is_time(valid_until):
        raise InvalidServerKeys("'valid_until_ts' is not a time")
    capped = min(valid_until, now_ms + MAX_VALIDITY_MS)
    current = [
        VerifyKey(key_id, key["key"], capped) for key_id, key in _entries(response, "verify_keys").items()
    ]
    _check_self_signed(server_name, response, current)
    in_use = {key.key_id for key in current}
    old = [
        VerifyKey(key_id, key["key"], key["expired_ts"])
        for key_id, key in _entries(response, "old_verify_keys").items()
        if key_id not in in_use and _is_time(key.get("expired_ts"))
    ]
    return current + old


def _check_self_signed(server_name: str, response: Mapping[str, Any], keys: Sequence[VerifyKey]) -> None:
    """At least one of the keys signed the answer, and none of them did so wrongly."""
    signed_with = _signing_key_ids(response, server_name)
    signers = [key for key in keys if key.key_id in signed_with]
    if not signers:
        raise InvalidServerKeys(f"The keys of {server_name} are not signed by any of them")
    for key in signers:
        try:
            verify_json(dict(response), server_name, key.key_id, key.key_base64)
        except BadSignature as error:
            raise InvalidServerKeys(str(error)) from error


def _entries(response: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """The usable keys of ``verify_keys`` or ``old_verify_keys``."""
    keys = response.get(name, {})
    if not isinstance(keys, dict) or len(keys) > _MAX_KEYS:
        raise InvalidServerKeys(f"'{name}' is not an object of at most {_MAX_KEYS} keys")
    return {
        key_id: key
        for key_id, key in keys.items()
        if _KEY_ID.fullmatch(key_id) and isinstance(key, dict) and _is_verify_key(key.get("key"))
    }


def _is_verify_key(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(decode_base64(value)) == 32
    except ValueError:
        return False


def _is_time(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _FOREVER_MS


def _signing_key_ids(obj: Mapping[str, Any], server_name: str) -> list[str]:
    """The ids of the Ed25519 keys that the server's signatures on an object name."""
    signatures = obj.get("signatures")
    of_server = signatures.get(server_name) if isinstance(signatures, dict) else None
    if not isinstance(of_server, dict) or len(of_server) > _MAX_KEYS:
        return []
    return [key_id for key_id in of_server if _KEY_ID.fullmatch(key_id)]


def _usable(
    keys: Mapping[str, VerifyKey], key_ids: Iterable[str], min_valid_until_ms: int
) -> dict[str, VerifyKey]:
    return {
        key_id: key
        for key_id in key_ids
        if (key := keys.get(key_id)) is not None and key.valid_until_ms >= min_valid_until_ms
    }
