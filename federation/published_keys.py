"""What servers publish as their keys: whether to believe it, and what it changes in what is known.

Plain functions over answers; who is asked, and when, is the keyring's.
Specification: server-server API, "Publishing keys".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeGuard

import msgspec

from homeserver.protocol.canonical_json import InvalidJSON
from homeserver.protocol.signing import BadSignature, decode_base64, verify_json

#: A server's word on how long its keys are valid counts for no longer than this.
MAX_VALIDITY_MS: Final = 7 * 24 * 3600 * 1000

FOREVER_MS: Final = 2**53 - 1

_MAX_KEYS: Final = 100
_KEY_ID = re.compile(r"ed25519:[A-Za-z0-9_]{1,128}")


class VerifyKey(msgspec.Struct, frozen=True):
    """A public key in unpadded base64; what was signed after ``valid_until_ms`` it does not cover.

    For one the server no longer uses (``expired``) that is when it stopped (``expired_ts``),
    for one in use the latest time it is known to be valid at.
    """

    key_id: str
    key_base64: str
    valid_until_ms: int
    expired: bool = False


class Answer(msgspec.Struct, frozen=True):
    """What a server published, as it signed it; ``key_ids`` are those it had in use then."""

    server_name: str
    key_ids: tuple[str, ...]
    fetched_at_ms: int
    content: dict[str, Any]

    @property
    def valid_until_ms(self) -> int:
        """When the server wants to be asked again."""
        valid_until: int = self.content["valid_until_ts"]
        return valid_until

    def has(self, key_id: str) -> bool:
        """Whether a key is in it, in use or old."""
        return key_id in self.content["verify_keys"] or key_id in self.content.get("old_verify_keys", {})


class InvalidServerKeys(Exception):
    """What a server published as its keys cannot be believed; the message is a sentence."""


def read_server_keys(server_name: str, response: Mapping[str, Any], now_ms: int) -> list[VerifyKey]:
    """The keys in a server's answer to ``/_matrix/key/v2/server``, in use and old.

    Raises ``InvalidServerKeys`` unless the answer is of the server and signed by the
    keys in it.  Keys of unknown algorithms are left out.
    """
    if response.get("server_name") != server_name:
        raise InvalidServerKeys(f"The keys are not those of {server_name}")
    valid_until = response.get("valid_until_ts")
    if not is_time(valid_until):
        raise InvalidServerKeys("'valid_until_ts' is not a time")
    capped = min(valid_until, now_ms + MAX_VALIDITY_MS)
    current = [
        VerifyKey(key_id, key["key"], capped) for key_id, key in _entries(response, "verify_keys").items()
    ]
    check_self_signed(server_name, response, current)
    in_use = {key.key_id for key in current}
    old = [
        # A key that is no longer in use has expired before now, whatever its server says.
        VerifyKey(key_id, key["key"], min(key["expired_ts"], now_ms - 1), expired=True)
        for key_id, key in _entries(response, "old_verify_keys").items()
        if key_id not in in_use and is_time(key.get("expired_ts"))
    ]
    return current + old


def check_self_signed(server_name: str, response: Mapping[str, Any], keys: Iterable[VerifyKey]) -> None:
    """At least one of the keys signed the answer, and none of them did so wrongly (``InvalidServerKeys``)."""
    signed_with = signing_key_ids(response, server_name)
    signers = [key for key in keys if key.key_id in signed_with]
    if not signers:
        raise InvalidServerKeys(f"The keys of {server_name} are not signed by any of them")
    for key in signers:
        try:
            verify_json(dict(response), server_name, key.key_id, key.key_base64)
        except (BadSignature, InvalidJSON) as error:
            raise InvalidServerKeys(str(error)) from error


def answer_of(
    server_name: str, response: Mapping[str, Any], keys: Iterable[VerifyKey], now_ms: int
) -> Answer:
    """An answer that was read and believed, without the signatures of others."""
    return Answer(
        server_name,
        tuple(key.key_id for key in keys if not key.expired),
        now_ms,
        {**response, "signatures": {server_name: response["signatures"][server_name]}},
    )


def contradicted(known: Mapping[str, VerifyKey], published: Iterable[VerifyKey]) -> set[str]:
    """The ids by which keys are published that are known to be other keys."""
    return {
        key.key_id
        for key in published
        if key.key_id in known and not _same_key(known[key.key_id].key_base64, key.key_base64)
    }


def learned(
    known: Mapping[str, VerifyKey], published: Sequence[VerifyKey], *, first_hand: bool
) -> dict[str, VerifyKey]:
    """What an answer adds to or changes in what is known; an id never comes to mean another key.

    An answer that did not come from the server itself may be an old one: it neither
    takes a key into use again nor shortens what another answer promised.
    """
    disputed = contradicted(known, published)
    heard = {
        key.key_id: _believed(known.get(key.key_id), key, first_hand=first_hand)
        for key in published
        if key.key_id not in disputed
    }
    return {key_id: key for key_id, key in heard.items() if key != known.get(key_id)}


def _believed(before: VerifyKey | None, now: VerifyKey, *, first_hand: bool) -> VerifyKey:
    if before is None:
        return now
    if before.expired:
        return now if first_hand else before
    if now.expired:
        return now
    return msgspec.structs.replace(now, valid_until_ms=max(now.valid_until_ms, before.valid_until_ms))


def usable(keys: Mapping[str, VerifyKey], key_ids: Iterable[str], at_ms: int) -> dict[str, VerifyKey]:
    """Those of the keys that cover what was signed at a time (ms since the epoch)."""
    return {
        key_id: key
        for key_id in key_ids
        if (key := keys.get(key_id)) is not None and key.valid_until_ms >= at_ms
    }


def signing_key_ids(obj: Mapping[str, Any], server_name: str) -> list[str]:
    """The ids of the Ed25519 keys that the server's signatures on an object name."""
    signatures = obj.get("signatures")
    of_server = signatures.get(server_name) if isinstance(signatures, dict) else None
    if not isinstance(of_server, dict) or len(of_server) > _MAX_KEYS:
        return []
    return [key_id for key_id in of_server if is_key_id(key_id)]


def is_key_id(value: str) -> bool:
    """Whether this is the id of an Ed25519 key."""
    return _KEY_ID.fullmatch(value) is not None


def is_time(value: Any) -> TypeGuard[int]:
    """Whether this is a time in ms since the epoch."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= FOREVER_MS


def _entries(response: Mapping[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """The usable keys of ``verify_keys`` or ``old_verify_keys``."""
    keys = response.get(name, {})
    if not isinstance(keys, dict) or len(keys) > _MAX_KEYS:
        raise InvalidServerKeys(f"'{name}' is not an object of at most {_MAX_KEYS} keys")
    return {
        key_id: key
        for key_id, key in keys.items()
        if is_key_id(key_id) and isinstance(key, dict) and _is_verify_key(key.get("key"))
    }


def _is_verify_key(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(decode_base64(value)) == 32
    except ValueError:
        return False


def _same_key(one: str, other: str) -> bool:
    return one == other or decode_base64(one) == decode_base64(other)


def missing(
    wanted: Mapping[str, Mapping[str, int]], known: Mapping[str, Mapping[str, VerifyKey]]
) -> dict[str, dict[str, int]]:
    """What is wanted (servers to key ids to the time they must be valid at) and not known to be so."""
    lacking: dict[str, dict[str, int]] = {}
    for server_name, keys in wanted.items():
        of_server = known.get(server_name, {})
        for key_id, at_ms in keys.items():
            key = of_server.get(key_id)
            if key is None or key.valid_until_ms < at_ms:
                lacking.setdefault(server_name, {})[key_id] = at_ms
    return lacking
