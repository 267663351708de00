"""Keys for end-to-end encryption: what a server checks of them, and whose signatures it shows to whom.

Whether a key may be trusted is for clients to judge; a server makes sure that what it keeps
and hands on has the shape the specification gives it, belongs to whom it says, and is bounded.
Specification: client-server API, "End-to-End Encryption", "Cross-signing"; server-server API,
"Device Management".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final, Literal, TypeAlias

import msgspec

from homeserver.protocol.canonical_json import InvalidJSON, NotCanonical, encode_strict
from homeserver.protocol.signing import BadSignature, verify_json

Usage: TypeAlias = Literal["master", "self_signing", "user_signing"]
USAGES: Final[tuple[Usage, ...]] = ("master", "self_signing", "user_signing")

SIGNED_CURVE25519: Final = "signed_curve25519"

MAX_KEY_BYTES: Final = 65_536
_MAX_NAME_BYTES: Final = 255
#: A key object needs four; what nests deeper is nothing that a reply should have to carry.
_MAX_DEPTH: Final = 16
_MAX_PREV_IDS: Final = 100


class BadKey(ValueError):
    """What is no key, or not the key it should be; the message says why."""


class CrossSigningKey(msgspec.Struct, frozen=True, gc=False):
    """A user's cross-signing key; ``content`` is the object as clients exchange it."""

    usage: Usage
    public_key: str
    content: dict[str, Any]

    @property
    def key_id(self) -> str:
        """What its signatures stand under."""
        return f"ed25519:{self.public_key}"


class Signature(msgspec.Struct, frozen=True, gc=False):
    """A signature of somebody's key: ``target_key`` is a device id or the public key of a master key."""

    target_user: str
    target_key: str
    signer: str
    signing_key: str
    signature: str


class DeviceUpdate(msgspec.Struct, frozen=True, gc=False):
    """An ``m.device_list_update``: what another server says of one device of its user."""

    user_id: str
    device_id: str
    stream_id: int
    prev_id: tuple[int, ...] = ()
    deleted: bool = False
    #: As JSON; ``None`` for a device that does not encrypt.
    keys: str | None = None
    display_name: str | None = None


class Verdict(Enum):
    """What to do with an update of a device list."""

    APPLY = "apply"
    #: Something before it is missing: the whole list has to be fetched.
    GAP = "gap"
    #: It, or something newer, has been seen.
    SEEN = "seen"


def judge(known_stream_id: int, update: DeviceUpdate) -> Verdict:
    """Whether an update follows upon a list that is known up to a change.

    Specification: server-server API, "Device Management".
    """
    if update.stream_id <= known_stream_id:
        return Verdict.SEEN
    if all(before <= known_stream_id for before in update.prev_id):
        return Verdict.APPLY
    return Verdict.GAP


def is_name(value: object) -> bool:
    """Whether something can be the id of a device or of a key: text of 1 to 255 bytes without NUL."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= _MAX_NAME_BYTES
        and "\x00" not in value
        and len(value.encode("utf-8", "surrogatepass")) <= _MAX_NAME_BYTES
    )


def key_json(value: Any) -> str:
    """A key as canonical JSON; ``BadKey`` for what is too large or cannot be signed at all."""
    if _is_too_deep(value):
        raise BadKey("it is nested too deeply")
    try:
        encoded = encode_strict(value)
    except (InvalidJSON, NotCanonical) as error:
        raise BadKey(str(error)) from error
    if len(encoded) > MAX_KEY_BYTES:
        raise BadKey(f"it is larger than {MAX_KEY_BYTES} bytes")
    return encoded.decode()


def check_device_keys(keys: Mapping[str, Any], user_id: str, device_id: str) -> str:
    """A device's identity keys as JSON; ``BadKey`` for keys of another device or shape.

    Signatures may be missing: clients reject such keys, and say so better than a server could.
    """
    if keys.get("user_id") != user_id or keys.get("device_id") != device_id or not is_name(device_id):
        raise BadKey("'user_id' and 'device_id' must be those of the device")
    algorithms = keys.get("algorithms")
    if not isinstance(algorithms, list) or not all(isinstance(each, str) for each in algorithms):
        raise BadKey("'algorithms' must be a list of strings")
    if not _is_texts(keys.get("keys")):
        raise BadKey("'keys' must be an object of strings")
    if not is_signatures(keys.get("signatures", {})):
        raise BadKey("'signatures' must map user IDs to objects of strings")
    return key_json({name: value for name, value in keys.items() if name != "unsigned"})


def split_key_id(name: str) -> tuple[str, str]:
    """Algorithm and id of ``algorithm:id``; ``BadKey`` for anything else."""
    algorithm, separator, key_id = name.partition(":")
    if not separator or not is_name(algorithm) or not is_name(key_id):
        raise BadKey(f"'{name[:50]}' is not of the form algorithm:key_id")
    return algorithm, key_id


def check_one_time_key(key: object) -> str:
    """A one-time or fallback key as JSON: text, or an object with ``key``; ``BadKey`` otherwise."""
    if isinstance(key, dict):
        if not isinstance(key.get("key"), str) or not is_signatures(key.get("signatures", {})):
            raise BadKey("a signed key must have 'key' and 'signatures'")
    elif not isinstance(key, str):
        raise BadKey("a key must be a string or an object")
    return key_json(key)


def cross_signing_key(content: object, user_id: str, usage: Usage) -> CrossSigningKey:
    """A cross-signing key as a client or another server gives it; ``BadKey``.

    Only its owner's signatures are kept: those of others are theirs to publish.
    """
    if not isinstance(content, dict) or content.get("user_id") != user_id:
        raise BadKey("'user_id' must be that of the key's owner")
    usages = content.get("usage")
    if not isinstance(usages, list) or usage not in usages:
        raise BadKey(f"'usage' must hold '{usage}'")
    keys = content.get("keys")
    if not isinstance(keys, dict) or len(keys) != 1:
        raise BadKey("'keys' must hold exactly one key")
    key_id, public_key = next(iter(keys.items()))
    if not is_name(public_key) or key_id != f"ed25519:{public_key}":
        raise BadKey("'keys' must be of the form {'ed25519:KEY': 'KEY'}")
    if not is_signatures(content.get("signatures", {})):
        raise BadKey("'signatures' must map user IDs to objects of strings")
    kept = only_signatures_of(content, user_id)
    key_json(kept)
    return CrossSigningKey(usage, public_key, kept)


def same_key(old: Any, new: Any) -> bool:
    """Whether two one-time keys are one; signing the same key twice may give two signatures."""
    return bool(without_signatures(old) == without_signatures(new))


def without_signatures(key: Any) -> Any:
    """What a signature of a key covers."""
    if not isinstance(key, dict):
        return key
    return {name: value for name, value in key.items() if name not in ("signatures", "unsigned")}


def is_signed(key: Mapping[str, Any], signer: str, key_id: str, public_key: str) -> bool:
    """Whether a user signed an object with one of their keys."""
    try:
        verify_json(dict(key), signer, key_id, public_key)
    except (BadSignature, InvalidJSON):
        return False
    return True


def ed25519_key_of(device_keys: Mapping[str, Any]) -> tuple[str, str] | None:
    """Id and public half of the key a device signs with, if it has one."""
    key_id = f"ed25519:{device_keys.get('device_id')}"
    keys = device_keys.get("keys")
    key = keys.get(key_id) if isinstance(keys, dict) else None
    return (key_id, key) if isinstance(key, str) else None


def only_signatures_of(key: Mapping[str, Any], user_id: str) -> dict[str, Any]:
    """The key with the signatures of one user only, and nothing that no signature covers."""
    kept = {name: value for name, value in key.items() if name not in ("signatures", "unsigned")}
    own = key.get("signatures", {}).get(user_id)
    return {**kept, "signatures": {user_id: own}} if own else kept


def with_signatures(key: Mapping[str, Any], added: Iterable[Signature]) -> dict[str, Any]:
    """The key with signatures added to those it has."""
    signatures = {user: dict(by_key) for user, by_key in key.get("signatures", {}).items()}
    for each in added:
        signatures.setdefault(each.signer, {})[each.signing_key] = each.signature
    return {**key, "signatures": signatures} if signatures else dict(key)


def shown_to(signatures: Iterable[Signature], reader: str | None) -> list[Signature]:
    """Those of the signatures that a user (``None``: another server) may see.

    Everybody sees what owners say of their own keys; whom else somebody has verified is
    nobody's business but theirs.  Specification: "Key and signature security".
    """
    return [each for each in signatures if each.signer in (each.target_user, reader)]


def device_update(content: Mapping[str, Any]) -> DeviceUpdate:
    """The content of an ``m.device_list_update``; ``BadKey``."""
    user_id, device_id, stream_id = (content.get(name) for name in ("user_id", "device_id", "stream_id"))
    if not isinstance(user_id, str) or not is_name(device_id) or not isinstance(device_id, str):
        raise BadKey("'user_id' or 'device_id' is missing")
    if not is_stream_id(stream_id):
        raise BadKey("'stream_id' is not a whole number")
    prev_id = content.get("prev_id", [])
    if not isinstance(prev_id, list) or len(prev_id) > _MAX_PREV_IDS or not all(map(is_stream_id, prev_id)):
        raise BadKey("'prev_id' is not a list of whole numbers")
    deleted, keys = content.get("deleted") is True, content.get("keys")
    has_keys = bool(keys) and not deleted
    return DeviceUpdate(
        user_id=user_id,
        device_id=device_id,
        stream_id=int(stream_id),  # type: ignore[arg-type]
        prev_id=tuple(prev_id),
        deleted=deleted,
        keys=check_device_keys(keys, user_id, device_id) if has_keys and isinstance(keys, dict) else None,
        display_name=display_name(content.get("device_display_name")),
    )


def display_name(value: object) -> str | None:
    """What another server calls a device, cut to a bearable length."""
    return value.replace("\x00", "")[:100] if isinstance(value, str) and value else None


def is_stream_id(value: object) -> bool:
    """Whether something can be the number of a change: an integer that JSON carries everywhere."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(text, str) for text in value.values())


def is_signatures(value: object) -> bool:
    """Whether something has the shape of ``signatures``: users to keys to text."""
    return isinstance(value, dict) and all(_is_texts(by_key) for by_key in value.values())


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return bool(level)
