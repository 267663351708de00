"""Sealing: a template of this server's own hashed, signed and checked, each byte encoded once.

It gives what ``parse_event(sign_event(template))`` gives, and refuses what that refuses; it is
apart because every message sent here goes through it.  What it relies on: the signature and the
event id are both of the redacted event without its signatures, and what the hashes and the
signatures add to a PDU whose form was checked is strings.  Specification: server-server API,
"Signing Events"; room versions, "Event IDs".
"""

from __future__ import annotations

import hashlib
from typing import Any

from homeserver.protocol.canonical_json import InvalidJSON, encode_again
from homeserver.protocol.event_format import (
    InvalidEvent,
    check_again,
    check_form,
    check_size,
    encode_pdu,
    event_of,
    parse_event,
)
from homeserver.protocol.events import Event
from homeserver.protocol.redaction import redact
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing import SigningKey, encode_base64, event_id_from, sign_event

#: What no template has: sealing puts it there.
_SEALS = frozenset({"hashes", "signatures", "unsigned"})


def seal_event(
    pdu: dict[str, Any], rules: RoomVersion, server_name: str, key: SigningKey, *, again: bool = False
) -> Event:
    """A template as an event of this server; in v1 and v2 it has its id already.

    ``again``: it is like another one that was sealed before, but for what ``check_again`` looks at.
    Raises ``InvalidEvent`` when it breaks the event format, a size limit for one.
    """
    if not rules.strict_canonical_json or not _SEALS.isdisjoint(pdu):
        # Until v5 there may be floats, which only the slow encoder writes as everybody does.
        return _step_by_step(pdu, rules, server_name, key)
    (check_again if again else check_form)(pdu, rules)
    # Whatever has no canonical JSON is found here; what is encoded below is made of the same parts.
    hashed = encode_pdu(pdu, rules, unknown=pdu["content"] if again else None)
    sealed = pdu | {"hashes": {"sha256": encode_base64(hashlib.sha256(hashed).digest())}}
    signed = encode_again(redact(sealed, rules))
    sealed["signatures"] = {server_name: {key.key_id: key.sign(signed)}}
    encoded = encode_again(sealed)
    check_size(encoded)
    event_id = event_id_from(hashlib.sha256(signed).digest(), rules)
    return event_of(pdu, rules, event_id, encoded)


def _step_by_step(pdu: dict[str, Any], rules: RoomVersion, server_name: str, key: SigningKey) -> Event:
    try:
        signed = sign_event(pdu, rules, server_name, key)
    except InvalidJSON as error:
        raise InvalidEvent(f"not canonical JSON: {error}") from error
    return parse_event(signed, rules)
