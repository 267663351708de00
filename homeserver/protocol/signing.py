"""Hashes and Ed25519 signatures of JSON objects and of events.

Says what must be signed and whether a given key signed it.  It fetches no keys and
does not judge whether a key was valid at the time: ``federation`` does.
Specification: appendices, "Signing JSON"; server-server API, "Signing Events".

Every function leaves its argument as it is and returns a new dict.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import nacl.exceptions
from nacl.bindings import (
    crypto_sign,
    crypto_sign_BYTES,
    crypto_sign_open,
    crypto_sign_PUBLICKEYBYTES,
    crypto_sign_seed_keypair,
)

from homeserver.protocol.canonical_json import encode
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.protocol.redaction import redact
from homeserver.protocol.room_versions import EventIdFormat, RoomVersion

_ALGORITHM = "ed25519"


class BadSignature(Exception):
    """A signature that is missing, malformed or wrong; the message says which."""


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A server's own Ed25519 key; ``key_id`` as in ``ed25519:a_Ab12``, ``seed`` 32 bytes."""

    key_id: str
    seed: bytes = field(repr=False)

    @property
    def verify_key_base64(self) -> str:
        """The public half, as servers publish it."""
        return encode_base64(_key_pair(self.seed)[0])

    def sign(self, message: bytes) -> str:
        """The signature of these bytes, in unpadded base64."""
        signed: bytes = crypto_sign(message, _key_pair(self.seed)[1])
        return encode_base64(signed[:crypto_sign_BYTES])


def encode_base64(data: bytes) -> str:
    """Unpadded base64 in the standard alphabet."""
    return base64.b64encode(data).rstrip(b"=").decode("ascii")


def decode_base64(text: str) -> bytes:
    """The bytes of base64 in the standard alphabet, padded or not; ``ValueError`` for other text."""
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


def generate_signing_key(version: str) -> SigningKey:
    """A new random key with the id ``ed25519:version``."""
    return SigningKey(f"{_ALGORITHM}:{version}", secrets.token_bytes(32))


def parse_signing_key_file(text: str) -> SigningKey:
    """The first key of a signing key file: a line of ``ed25519 version seed``.

    Raises ``ValueError``, whose message never repeats the seed.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or len(lines[0]) != 3 or lines[0][0] != _ALGORITHM:
        raise ValueError("The signing key file must hold a line of 'ed25519', a version and a base64 seed")
    _, version, seed_base64 = lines[0]
    try:
        seed = decode_base64(seed_base64)
    except ValueError:
        raise ValueError("The signing key's seed is not base64") from None
    if len(seed) != 32:
        raise ValueError(f"The signing key's seed must be 32 bytes, not {len(seed)}")
    return SigningKey(f"{_ALGORITHM}:{version}", seed)


def format_signing_key_file(key: SigningKey) -> str:
    """The text of a signing key file, in the one-line format that Synapse uses."""
    version = key.key_id.partition(":")[2]
    return f"{_ALGORITHM} {version} {encode_base64(key.seed)}\n"


def sign_json(obj: dict[str, Any], server_name: str, key: SigningKey) -> dict[str, Any]:
    """The object with a signature added; ``signatures`` and ``unsigned`` are not covered by it."""
    return _with_signature(obj, server_name, key.key_id, key.sign(_signed_bytes(obj)))


def verify_json(obj: dict[str, Any], server_name: str, key_id: str, verify_key_base64: str) -> None:
    """Check one signature of an object.

    Raises ``BadSignature``, whatever is wrong with the object, the signature or the key.
    """
    signature = _signature_of(obj, server_name, key_id)
    try:
        signed = _signed_bytes(obj)
    except ValueError as error:
        raise BadSignature(f"What {server_name} signed has no canonical JSON: {error}") from error
    check_signature(signed, signature, server_name, key_id, verify_key_base64)


def check_signature(
    signed: bytes, signature: str, server_name: str, key_id: str, verify_key_base64: str
) -> None:
    """Check the signature of these bytes; raises ``BadSignature``, whatever is wrong with it or the key."""
    if not key_id.startswith(f"{_ALGORITHM}:"):
        raise BadSignature(f"The algorithm of key {key_id} is not supported")
    try:
        given = decode_base64(signature)
        if len(given) != crypto_sign_BYTES:
            raise ValueError(f"it has {len(given)} bytes")
        crypto_sign_open(given + signed, _public_key(verify_key_base64))
    except (nacl.exceptions.CryptoError, ValueError) as error:
        raise BadSignature(f"The signature of {server_name} with {key_id} is wrong: {error}") from error


def content_hash(pdu: dict[str, Any]) -> str:
    """The SHA-256 over the whole event, in unpadded base64, as it stands in ``hashes``."""
    return encode_base64(_content_digest(pdu))


def content_hash_matches(pdu: dict[str, Any]) -> bool:
    """Whether the event is as its sender made it; if not, it is to be taken as redacted."""
    claimed = _dict_or_empty(pdu.get("hashes")).get("sha256")
    if not isinstance(claimed, str):
        return False
    try:
        return decode_base64(claimed) == _content_digest(pdu)
    except ValueError:
        return False


def reference_hash(pdu: dict[str, Any], rules: RoomVersion) -> bytes:
    """The SHA-256 over the redacted event without its signatures."""
    return hashlib.sha256(_signed_bytes(redact(pdu, rules))).digest()


def event_id_of(pdu: dict[str, Any], rules: RoomVersion) -> str:
    """The event's id: carried in the PDU (v1, v2), else made of its reference hash.

    Raises ``KeyError`` for a PDU of v1 or v2 without one.
    """
    if not rules.event_id_is_hash:
        event_id: str = pdu["event_id"]
        return event_id
    return event_id_from(reference_hash(pdu, rules), rules)


def event_id_from(reference_hash: bytes, rules: RoomVersion) -> str:
    """The event id that a reference hash makes (since v3)."""
    url_safe = rules.event_id_format is EventIdFormat.HASH_URL_SAFE
    digest = base64.urlsafe_b64encode(reference_hash) if url_safe else base64.b64encode(reference_hash)
    return "$" + digest.rstrip(b"=").decode("ascii")


def sign_event(pdu: dict[str, Any], rules: RoomVersion, server_name: str, key: SigningKey) -> dict[str, Any]:
    """The event with its content hash and this server's signature added."""
    hashed = pdu | {"hashes": {"sha256": content_hash(pdu)}}
    return countersign_event(hashed, rules, server_name, key)


def countersign_event(
    pdu: dict[str, Any], rules: RoomVersion, server_name: str, key: SigningKey
) -> dict[str, Any]:
    """Another server's event with this server's signature beside it, its hashes untouched."""
    signature = key.sign(_signed_bytes(redact(pdu, rules)))
    return _with_signature(pdu, server_name, key.key_id, signature)


def verify_event_signature(
    pdu: dict[str, Any], rules: RoomVersion, server_name: str, key_id: str, verify_key_base64: str
) -> None:
    """Check one signature of an event, which may be whole or redacted; raises ``BadSignature``."""
    verify_json(redact(pdu, rules), server_name, key_id, verify_key_base64)


def required_signers(pdu: dict[str, Any], rules: RoomVersion) -> set[str]:
    """The names of the servers that must have signed a PDU whose format has been checked.

    Raises ``BadSignature`` when a signature is required of someone who cannot have a
    server.  Specification: "Validating hashes and signatures on received events", and
    since v8 the auth rule on ``join_authorised_via_users_server``.
    """
    signers = set()
    content = pdu["content"]
    sender_server = server_name_of(pdu["sender"])
    is_member = pdu["type"] == "m.room.member"
    # A third-party invite speaks for its sender and may be sent by another server.
    if not (is_member and content.get("membership") == "invite" and "third_party_invite" in content):
        signers.add(sender_server)
    if not rules.event_id_is_hash:
        event_id_server = server_name_of(pdu["event_id"])
        if event_id_server != sender_server:
            signers.add(event_id_server)
    if rules.restricted_joins and is_member and "join_authorised_via_users_server" in content:
        signers.add(_authorising_server(content["join_authorised_via_users_server"]))
    return signers


def _authorising_server(user_id: object) -> str:
    if not isinstance(user_id, str) or not is_user_id(user_id):
        raise BadSignature("join_authorised_via_users_server is not a user ID")
    return server_name_of(user_id)


@lru_cache(maxsize=8)
def _key_pair(seed: bytes) -> tuple[bytes, bytes]:
    """The public key, and the secret one as libsodium signs with it."""
    public, secret = crypto_sign_seed_keypair(seed)
    return public, secret


@lru_cache(maxsize=1024)
def _public_key(key_base64: str) -> bytes:
    """The 32 bytes of a server's key; ``ValueError`` for anything else."""
    key = decode_base64(key_base64)
    if len(key) != crypto_sign_PUBLICKEYBYTES:
        raise ValueError(f"a key has {crypto_sign_PUBLICKEYBYTES} bytes")
    return key


def _signed_bytes(obj: dict[str, Any]) -> bytes:
    """What a signature covers: the canonical JSON without ``signatures`` and ``unsigned``."""
    covered = obj.copy()
    covered.pop("signatures", None)
    covered.pop("unsigned", None)
    return encode(covered)


def _content_digest(pdu: dict[str, Any]) -> bytes:
    covered = pdu.copy()
    covered.pop("hashes", None)
    return hashlib.sha256(_signed_bytes(covered)).digest()


def _with_signature(obj: dict[str, Any], server_name: str, key_id: str, signature: str) -> dict[str, Any]:
    signatures = _dict_or_empty(obj.get("signatures"))
    ours = _dict_or_empty(signatures.get(server_name)) | {key_id: signature}
    return obj | {"signatures": signatures | {server_name: ours}}


def _dict_or_empty(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _signature_of(obj: dict[str, Any], server_name: str, key_id: str) -> str:
    """The signature as it stands in an object from anywhere; raises ``BadSignature``."""
    signature = _dict_or_empty(_dict_or_empty(obj.get("signatures")).get(server_name)).get(key_id)
    if not isinstance(signature, str):
        raise BadSignature(f"{server_name} has not signed with {key_id}")
    return signature
