"""Whether events are signed by given keys: arithmetic that another process can do.

Imports nothing but the rules, so that a worker process starts quickly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing import BadSignature, verify_event_signature


class Signer(NamedTuple):
    """A server that must have signed, and those of its keys (id, base64) that count: one at least."""

    server_name: str
    keys: tuple[tuple[str, str], ...]


class Check(NamedTuple):
    """A PDU and everyone who must have signed it."""

    pdu: Mapping[str, Any]
    signers: tuple[Signer, ...]


def verdicts(room_version: str, checks: Sequence[Check]) -> list[str | None]:
    """For each check ``None`` when all its signers signed, else a sentence."""
    return [verdict(room_version, check) for check in checks]


def verdict(room_version: str, check: Check) -> str | None:
    """The verdict on one PDU."""
    for signer in check.signers:
        failure = _failure(room_version, check.pdu, signer)
        if failure is not None:
            return failure
    return None


def _failure(room_version: str, pdu: Mapping[str, Any], signer: Signer) -> str | None:
    if not signer.keys:
        return f"{signer.server_name} signed with no key that is known and valid"
    for key_id, key in signer.keys:
        try:
            verify_event_signature(dict(pdu), ROOM_VERSIONS[room_version], signer.server_name, key_id, key)
        except BadSignature as error:
            return str(error)
    return None
