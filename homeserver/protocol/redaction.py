"""The redaction algorithm: what is left of an event when it is redacted.

Only the stripping; who may redact what is for the auth rules and for the room.
Hashes and signatures cover the redacted form, so what is kept here decides event
ids.  Specification: room versions, "Redactions" (v1, v6, v8, v9, v11).
"""

from __future__ import annotations

from typing import Any

from homeserver.protocol.room_versions import RoomVersion

_KEPT_SINCE_V11 = (
    "event_id",
    "type",
    "room_id",
    "sender",
    "state_key",
    "content",
    "hashes",
    "signatures",
    "depth",
    "prev_events",
    "auth_events",
    "origin_server_ts",
)
_KEPT_BEFORE_V11 = (*_KEPT_SINCE_V11, "prev_state", "origin", "membership")

_POWER_LEVELS = (
    "ban",
    "events",
    "events_default",
    "kick",
    "redact",
    "state_default",
    "users",
    "users_default",
)


def redact(pdu: dict[str, Any], rules: RoomVersion) -> dict[str, Any]:
    """The redacted form of a PDU, as a new dict that shares the values it keeps."""
    kept = _KEPT_SINCE_V11 if rules.updated_redaction_rules else _KEPT_BEFORE_V11
    redacted = {key: pdu[key] for key in kept if key in pdu}
    content = pdu.get("content")
    redacted["content"] = (
        _redact_content(pdu.get("type"), content, rules) if isinstance(content, dict) else {}
    )
    return redacted


def _redact_content(event_type: object, content: dict[str, Any], rules: RoomVersion) -> dict[str, Any]:
    if event_type == "m.room.create" and rules.updated_redaction_rules:
        return content
    kept = {key: content[key] for key in _kept_content(event_type, rules) if key in content}
    if event_type == "m.room.member" and rules.updated_redaction_rules:
        invite = content.get("third_party_invite")
        if isinstance(invite, dict):
            # COMPAT: other servers keep an object without "signed" too, as an empty one, and event ids
            # have to come out the same everywhere.
            kept["third_party_invite"] = {key: invite[key] for key in ("signed",) if key in invite}
    return kept


def _kept_content(event_type: object, rules: RoomVersion) -> tuple[str, ...]:
    """The keys of the content that this type of event keeps whole."""
    match event_type:
        case "m.room.member":
            since_v9 = rules.restricted_joins_redaction_fix
            return ("membership", "join_authorised_via_users_server") if since_v9 else ("membership",)
        case "m.room.create":
            return ("creator",)
        case "m.room.join_rules":
            return ("join_rule", "allow") if rules.restricted_joins else ("join_rule",)
        case "m.room.power_levels":
            return (*_POWER_LEVELS, "invite") if rules.updated_redaction_rules else _POWER_LEVELS
        case "m.room.history_visibility":
            return ("history_visibility",)
        case "m.room.aliases" if rules.special_case_aliases:
            return ("aliases",)
        case "m.room.redaction" if rules.updated_redaction_rules:
            return ("redacts",)
    return ()
