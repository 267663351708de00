"""The format of events: from a PDU of anyone's making to an ``Event``, and to what clients see.

Checks form and size, nothing else: no signatures, hashes or auth rules.  Whatever a
peer sends, the answer is an ``Event`` or ``InvalidEvent``.  Specification: room
versions, "Event format"; client-server API, "Size limits".
"""

from __future__ import annotations

import re
from typing import Any

from homeserver.protocol.canonical_json import (
    MAX_DEPTH,
    InvalidJSON,
    NotCanonical,
    decode,
    encode,
    encode_strict,
)
from homeserver.protocol.events import Event
from homeserver.protocol.ids import (
    MAX_ID_BYTES,
    is_event_id,
    is_room_id,
    is_server_name,
    is_user_id,
    server_name_of,
)
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing import event_id_of
from homeserver.protocol.sticky import STICKY, sticky_of

#: The largest PDU, in bytes of canonical JSON with its signatures and without ``unsigned``.
MAX_EVENT_BYTES = 65_536
MAX_PREV_EVENTS = 20
MAX_AUTH_EVENTS = 10

#: Levels that what carries an event stands around it, as a signed transaction does.  They are left free, or
#: an event could be taken from one server and not be handed on to the next.
_LEVELS_AROUND = 10

_MAX_INT_BEFORE_V6 = 2**63 - 1
_MAX_INT_SINCE_V6 = 2**53 - 1

_hash_room_id = re.compile(r"![A-Za-z0-9_-]{43}").fullmatch


class InvalidEvent(ValueError):
    """A PDU that does not have the format of its room version; the message says how."""


def parse_event(json: bytes | dict[str, Any], rules: RoomVersion, *, event_id: str | None = None) -> Event:
    """The event in a PDU, given as JSON or decoded (and then left as it is).

    ``event_id`` is the id where the caller has it from a trusted place, which spares
    computing it; in v1 and v2 it must be the one in the PDU.  ``unsigned`` is dropped.
    Raises ``InvalidEvent`` and nothing else.
    """
    pdu, encoded = read_pdu(json, rules)
    return event_of(pdu, rules, _event_id(pdu, rules, event_id), encoded)


def read_pdu(json: bytes | dict[str, Any], rules: RoomVersion) -> tuple[dict[str, Any], bytes]:
    """A PDU as a new dict without ``unsigned``, and its canonical JSON; raises ``InvalidEvent``."""
    pdu = _pdu(json)
    check_form(pdu, rules)
    _check_hashes_and_signatures(pdu)
    return pdu, encode_pdu(pdu, rules)


def check_form(pdu: dict[str, Any], rules: RoomVersion) -> None:
    """The checks of single fields, hashes and signatures apart; raises ``InvalidEvent``."""
    largest_int = _largest_int(rules)
    event_type = _short_string(pdu, "type")
    if "state_key" in pdu:
        _short_string(pdu, "state_key")
    sender = pdu.get("sender")
    if not isinstance(sender, str) or not is_user_id(sender):
        raise InvalidEvent("sender is not a user ID")
    if not isinstance(pdu.get("content"), dict):
        raise InvalidEvent("content is not an object")
    _check_integer(pdu, "origin_server_ts", largest_int)
    _check_integer(pdu, "depth", largest_int)
    _check_references(pdu, "prev_events", MAX_PREV_EVENTS, rules)
    _check_references(pdu, "auth_events", MAX_AUTH_EVENTS, rules)
    if event_type == "m.room.redaction" and not rules.updated_redaction_rules and "redacts" in pdu:
        _check_redacts(pdu["redacts"])
    if not rules.event_id_is_hash:
        _check_event_id(pdu.get("event_id"))
    _check_room_id(pdu, rules)


def check_again(pdu: dict[str, Any], rules: RoomVersion) -> None:
    """The same for a PDU of which only the content, the times and the ``prev_events`` are new.

    One with the same sender, type, room and ``auth_events`` went through ``check_form``; its content is
    a dict and its ``prev_events`` are ids of stored events.  Not for redactions, nor for state.
    """
    _check_integer(pdu, "origin_server_ts", _largest_int(rules))


def _largest_int(rules: RoomVersion) -> int:
    return _MAX_INT_SINCE_V6 if rules.strict_canonical_json else _MAX_INT_BEFORE_V6


def event_of(pdu: dict[str, Any], rules: RoomVersion, event_id: str, encoded: bytes) -> Event:
    """The event of a PDU that was checked, with its id and what ``encode_pdu`` made of it."""
    event_type: str = pdu["type"]
    return Event(
        event_id=event_id,
        # Since v12 the room id is the id of the create event with another sigil.
        room_id=pdu["room_id"] if "room_id" in pdu else "!" + event_id[1:],
        sender=pdu["sender"],
        type=event_type,
        state_key=pdu.get("state_key"),
        origin_server_ts=pdu["origin_server_ts"],
        depth=pdu["depth"],
        prev_events=_referenced(pdu["prev_events"], rules),
        auth_events=_referenced(pdu["auth_events"], rules),
        redacts=_redacts(pdu, rules) if event_type == "m.room.redaction" else None,
        # A copy: what orjson returns holds on to four KiB, and events are kept by the ten thousand.
        json=b"%b" % encoded,
    )


def encode_pdu(pdu: dict[str, Any], rules: RoomVersion, *, unknown: Any = None) -> bytes:
    """The canonical JSON of a PDU; raises ``InvalidEvent`` where it has none or is too large.

    ``unknown`` as for ``encode_strict``, in room versions that are encoded by it.
    """
    encode_it = encode_strict if rules.strict_canonical_json else encode
    try:
        encoded = encode_it(pdu) if unknown is None else encode_strict(pdu, unknown=unknown)
        # It is no deeper than it has brackets, so that nearly none is encoded twice.
        if encoded.count(b"{") + encoded.count(b"[") > MAX_DEPTH - _LEVELS_AROUND:
            encode_it(_carried(pdu))
    except (InvalidJSON, NotCanonical) as error:
        raise InvalidEvent(f"not canonical JSON: {error}") from error
    check_size(encoded)
    return encoded


def _carried(pdu: dict[str, Any]) -> Any:
    """A PDU with as many levels around it as it has to leave free."""
    carried: Any = pdu
    for _ in range(_LEVELS_AROUND):
        carried = [carried]
    return carried


def check_size(encoded: bytes) -> None:
    """Raises ``InvalidEvent`` where an encoded PDU is larger than any may be."""
    if len(encoded) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"{len(encoded)} bytes are more than {MAX_EVENT_BYTES}")


def check_short(event: Event) -> None:
    """Raises ``InvalidEvent`` where the type or the state key has more bytes than a server may give it."""
    for field, value in (("type", event.type), ("state_key", event.state_key or "")):
        if len(value) * 4 > MAX_ID_BYTES and len(value.encode()) > MAX_ID_BYTES:
            raise InvalidEvent(f"{field} is longer than {MAX_ID_BYTES} bytes")


def client_event(
    event: Event, *, unsigned: dict[str, Any] | None = None, room_id: bool = True
) -> dict[str, Any]:
    """The event in the format of the client-server API.

    ``room_id`` is left out where the response already says it (``/sync``).  A redaction
    has ``redacts`` both in its content and at the top level, in every room version
    (room version 11, "Moving the redacts property").
    """
    content = event.content
    formatted: dict[str, Any] = {
        "event_id": event.event_id,
        "type": event.type,
        "sender": event.sender,
        "origin_server_ts": event.origin_server_ts,
        "content": content,
    }
    if event.state_key is not None:
        formatted["state_key"] = event.state_key
    if event.redacts is not None:
        formatted["redacts"] = content["redacts"] = event.redacts
    if isinstance(sticky := sticky_of(event), dict):
        formatted[STICKY] = sticky
    if room_id:
        formatted["room_id"] = event.room_id
    if unsigned:
        formatted["unsigned"] = unsigned
    return formatted


def stripped(event: Event) -> dict[str, Any]:
    """A state event as invites, knocks and room summaries show it ("Stripped state")."""
    return {
        "type": event.type,
        "state_key": event.state_key,
        "sender": event.sender,
        "content": event.content,
    }


def _pdu(json: bytes | dict[str, Any]) -> dict[str, Any]:
    """The PDU as a new dict, without ``unsigned``."""
    try:
        pdu = json if isinstance(json, dict) else decode(json)
    except InvalidJSON as error:
        raise InvalidEvent(f"not JSON: {error}") from error
    if not isinstance(pdu, dict):
        raise InvalidEvent("not an object")
    return {key: value for key, value in pdu.items() if key != "unsigned"}


def _short_string(pdu: dict[str, Any], field: str) -> str:
    value = pdu.get(field)
    if not isinstance(value, str):
        raise InvalidEvent(f"{field} is not a string")
    # COMPAT: Synapse counts characters here, and rooms have events that build on such; for our own events
    # see ``check_short``.
    if len(value) > MAX_ID_BYTES:
        raise InvalidEvent(f"{field} is longer than {MAX_ID_BYTES} bytes")
    # As in identifiers: not every store that servers use can hold it in a text.
    if "\x00" in value:
        raise InvalidEvent(f"{field} holds a NUL character")
    return value


def _check_integer(pdu: dict[str, Any], field: str, largest: int) -> None:
    value = pdu.get(field)
    if not isinstance(value, int) or isinstance(value, bool):
        raise InvalidEvent(f"{field} is not an integer")
    if not 0 <= value <= largest:
        raise InvalidEvent(f"{field} is out of range")


def _check_hashes_and_signatures(pdu: dict[str, Any]) -> None:
    """``signatures`` may be missing: an event is parsed before its server signs it."""
    if not isinstance(pdu.get("hashes"), dict):
        raise InvalidEvent("hashes is not an object")
    signatures = pdu.get("signatures", {})
    if not isinstance(signatures, dict):
        raise InvalidEvent("signatures is not an object")
    for of_server in signatures.values():
        if not isinstance(of_server, dict) or not all(isinstance(one, str) for one in of_server.values()):
            raise InvalidEvent("signatures has an entry that is not an object of strings")


def _check_references(pdu: dict[str, Any], field: str, most: int, rules: RoomVersion) -> None:
    """The event ids in ``prev_events`` or ``auth_events``; pairs with a hash in v1 and v2."""
    entries = pdu.get(field)
    if not isinstance(entries, list):
        raise InvalidEvent(f"{field} is not an array")
    if len(entries) > most:
        raise InvalidEvent(f"{field} has more than {most} entries")
    references = entries if rules.event_id_is_hash else [_paired_id(entry, field) for entry in entries]
    for reference in references:
        if not isinstance(reference, str) or not is_event_id(reference):
            raise InvalidEvent(f"{field} has an entry that is not an event ID")


def _paired_id(entry: object, field: str) -> object:
    if not isinstance(entry, list) or len(entry) != 2 or not isinstance(entry[1], dict):
        raise InvalidEvent(f"{field} has an entry that is not a pair of an event ID and hashes")
    return entry[0]


def _referenced(entries: list[Any], rules: RoomVersion) -> tuple[str, ...]:
    return tuple(entries) if rules.event_id_is_hash else tuple(entry[0] for entry in entries)


def _check_redacts(redacts: object) -> None:
    if not isinstance(redacts, str):
        raise InvalidEvent("redacts is not a string")
    if "\x00" in redacts:
        raise InvalidEvent("redacts holds a NUL character")


def _redacts(pdu: dict[str, Any], rules: RoomVersion) -> str | None:
    """What a redaction redacts: in its content since v11, where any shape of it is allowed."""
    if not rules.updated_redaction_rules:
        return pdu.get("redacts")
    redacts = pdu["content"].get("redacts")
    return redacts if isinstance(redacts, str) and "\x00" not in redacts else None


def _check_event_id(carried: object) -> None:
    if not isinstance(carried, str) or not is_event_id(carried) or ":" not in carried:
        raise InvalidEvent("event_id is not an event ID")
    if not is_server_name(server_name_of(carried)):
        raise InvalidEvent("event_id does not end in a server name")


def _event_id(pdu: dict[str, Any], rules: RoomVersion, known: str | None) -> str:
    if rules.event_id_is_hash:
        return event_id_of(pdu, rules) if known is None else known
    carried: str = pdu["event_id"]
    if known is not None and known != carried:
        raise InvalidEvent(f"event_id is not {known}")
    return carried


def _check_room_id(pdu: dict[str, Any], rules: RoomVersion) -> None:
    """A room id of this room version; since v12 a create event has none."""
    if rules.hash_room_ids and pdu["type"] == "m.room.create":
        if "room_id" in pdu:
            raise InvalidEvent("a create event must not have a room_id")
        return
    room_id = pdu.get("room_id")
    if not isinstance(room_id, str):
        raise InvalidEvent("room_id is not a string")
    valid = _hash_room_id(room_id) if rules.hash_room_ids else is_room_id(room_id) and ":" in room_id
    if not valid:
        raise InvalidEvent("room_id is not a room ID of this room version")
