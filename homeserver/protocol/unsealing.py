"""Unsealing: hashes and signatures of another server's PDU checked, each form of it encoded once.

It says what ``verify_event_signature``, ``content_hash_matches`` and ``event_id_of`` say one by one.
What it relies on: the signatures and the event id are both of the redacted event without its
signatures, and the PDU has been through ``read_pdu``, so that what is encoded here has a canonical
form.  Needs nothing but the rules: a process of its own can do it.  Specification: server-server API,
"Validating hashes and signatures on received events"; room versions, "Event IDs".
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from homeserver.protocol.canonical_json import encode, encode_again
from homeserver.protocol.event_format import event_of, parse_event
from homeserver.protocol.events import Event
from homeserver.protocol.redaction import redact
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing import BadSignature, check_signature, decode_base64, event_id_from


class Signer(NamedTuple):
    """A server that must have signed, and those of its keys (id, base64) that count: one at least."""

    server_name: str
    keys: Sequence[tuple[str, str]]


class Unsealed(NamedTuple):
    """What a PDU that everybody signed who must turns out to be."""

    event_id: str
    #: Else it is not as its sender made it, and counts as redacted.
    hash_is_good: bool


def unseal(pdu: dict[str, Any], rules: RoomVersion, signers: Sequence[Signer]) -> Unsealed:
    """Check that a PDU is signed with every key named; raises ``BadSignature``."""
    encode_part = encode_again if rules.strict_canonical_json else encode
    covered = redact(pdu, rules)
    covered.pop("signatures", None)
    signed = encode_part(covered)
    for signer in signers:
        _check_signed(pdu, signed, signer)
    hashed = encode_part({key: pdu[key] for key in pdu if key not in ("hashes", "signatures", "unsigned")})
    event_id: str
    if rules.event_id_is_hash:
        event_id = event_id_from(hashlib.sha256(signed).digest(), rules)
    else:
        event_id = pdu["event_id"]
    return Unsealed(event_id, _hash_claimed(pdu) == hashlib.sha256(hashed).digest())


def unsealed_event(pdu: dict[str, Any], encoded: bytes, rules: RoomVersion, unsealed: Unsealed) -> Event:
    """The event in a PDU, and in the canonical JSON of it: redacted where its hash says it is not whole."""
    if not unsealed.hash_is_good:
        return parse_event(redact(pdu, rules), rules, event_id=unsealed.event_id)
    return event_of(pdu, rules, unsealed.event_id, encoded)


def _check_signed(pdu: dict[str, Any], signed: bytes, signer: Signer) -> None:
    server_name, keys = signer
    if not keys:
        raise BadSignature(f"{server_name} signed with no key that is known and valid")
    for key_id, key in keys:
        check_signature(signed, pdu["signatures"][server_name][key_id], server_name, key_id, key)


def _hash_claimed(pdu: dict[str, Any]) -> bytes | None:
    claimed = pdu["hashes"].get("sha256")
    try:
        return decode_base64(claimed) if isinstance(claimed, str) else None
    except ValueError:
        return None
