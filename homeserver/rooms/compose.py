"""Building and signing this server's own events, from what they build on."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.protocol.event_format import check_short
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.sealing import seal_event
from homeserver.protocol.signing import SigningKey, encode_base64, reference_hash
from homeserver.protocol.sticky import STICKY
from homeserver.storage.events import StoredEvent

#: As many as the specification allows.
MAX_PREV_EVENTS = 20

_MAX_DEPTH = (1 << 53) - 1


def choose_prev_events(tips: Sequence[StoredEvent]) -> tuple[StoredEvent, ...]:
    """The forward extremities a new event refers to: when there are too many, those that merge most.

    One of every state first, so that as a rule the states of those chosen are the states of all;
    among those of one state, and among states, the deepest.
    """
    if len(tips) <= MAX_PREV_EVENTS:
        return tuple(tips)
    deepest = sorted(tips, key=lambda tip: (-tip.event.depth, tip.nid))
    of_state: dict[int | None, StoredEvent] = {}
    for tip in deepest:
        of_state.setdefault(tip.state_after, tip)
    firsts = {tip.nid for tip in of_state.values()}
    others = [tip for tip in deepest if tip.nid not in firsts]
    return tuple([*of_state.values(), *others][:MAX_PREV_EVENTS])


def references(events: Sequence[Event], rules: RoomVersion) -> list[Any]:
    """Events as ``prev_events`` and ``auth_events`` name them in this room version."""
    if rules.event_id_is_hash:
        return [event.event_id for event in events]
    return [[event.event_id, {"sha256": encode_base64(reference_hash(event.pdu, rules))}] for event in events]


def template(
    *,
    rules: RoomVersion,
    room_id: str | None,
    sender: str,
    type: str,  # the spec's word
    state_key: str | None,
    content: Mapping[str, Any],
    prev_events: Sequence[Event],
    auth_events: Sequence[Event],
    now_ms: int,
    redacts: str | None = None,
    sticky_ms: int | None = None,
) -> dict[str, Any]:
    """An event that lacks its hashes and signatures: what ``make_join`` and its like answer with.

    ``room_id`` is ``None`` for the create event of a room whose id is that event's hash.
    """
    pdu: dict[str, Any] = {
        "auth_events": references(auth_events, rules),
        "content": dict(content),
        "depth": min(max((event.depth for event in prev_events), default=0) + 1, _MAX_DEPTH),
        "origin_server_ts": now_ms,
        "prev_events": references(prev_events, rules),
        "sender": sender,
        "type": type,
    }
    if room_id is not None:
        pdu["room_id"] = room_id
    if state_key is not None:
        pdu["state_key"] = state_key
    if sticky_ms is not None:
        pdu[STICKY] = {"duration_ms": sticky_ms}
    if redacts is not None:
        if rules.updated_redaction_rules:
            pdu["content"]["redacts"] = redacts
        else:
            pdu["redacts"] = redacts
    return pdu


def seal(
    pdu: dict[str, Any], rules: RoomVersion, server_name: str, key: SigningKey, *, again: bool = False
) -> Event:
    """Hash and sign a template; in v1 and v2 give it an id as well.

    ``again`` as for ``seal_event``.  Raises ``InvalidEvent`` when it breaks the event format, a size
    limit for one.
    """
    if not rules.event_id_is_hash:
        pdu = {**pdu, "event_id": f"${secrets.token_urlsafe(18)}:{server_name}"}
    event = seal_event(pdu, rules, server_name, key, again=again)
    if not again:
        check_short(event)
    return event
