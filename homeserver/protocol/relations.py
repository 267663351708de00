"""Relationships between events: what a child says of its parent, and which of them mean something.

Whether an event is related to another is read from the event alone; what needs both of
them is asked with both.  Specification: client-server API, "Forming relationships between
events" and the sections of each relationship type.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from homeserver.protocol.events import Event
from homeserver.protocol.ids import is_event_id

ANNOTATION = "m.annotation"
REFERENCE = "m.reference"
REPLACE = "m.replace"
THREAD = "m.thread"

#: Common namespaced identifiers are no longer (appendices).
_MAX_REL_TYPE = 255

_ENCRYPTED = "m.room.encrypted"


class Relation(msgspec.Struct, frozen=True, gc=False):
    """What a child event says of its parent."""

    rel_type: str
    parent_id: str
    #: What an annotation annotates with.
    key: str | None = None


def relation_of(content: Mapping[str, Any]) -> Relation | None:
    """The relation an event's content tells of; ``None`` for none, and for one of the wrong shape."""
    relation = content.get("m.relates_to")
    if not isinstance(relation, dict):
        return None
    rel_type, parent_id, key = (relation.get(name) for name in ("rel_type", "event_id", "key"))
    if not isinstance(rel_type, str) or not rel_type or len(rel_type) > _MAX_REL_TYPE or "\0" in rel_type:
        return None
    if not isinstance(parent_id, str) or not is_event_id(parent_id) or "\0" in parent_id:
        return None
    return Relation(rel_type, parent_id, key if isinstance(key, str) else None)


def relation_in(event: Event) -> Relation | None:
    """The same for an event; nearly all have none, which is seen without decoding them."""
    return relation_of(event.content) if b'"m.relates_to"' in event.json else None


def slot_of(event: Event, relation: Relation) -> str | None:
    """What several children of one sender compete for; ``None`` for those that do not.

    The replacements that may be valid for one event share a slot (its newest is the one that
    counts), and so do identical annotations (there should be only one).  "Validity of
    replacement events", "Avoiding duplicate annotations".
    """
    if relation.rel_type == ANNOTATION and relation.key is not None:
        return annotation_slot(event.room_id, relation, event.sender, event.type)
    if relation.rel_type != REPLACE or event.is_state:
        return None
    if event.type != _ENCRYPTED and not isinstance(event.content.get("m.new_content"), dict):
        return None
    return _slot(REPLACE, event.room_id, relation.parent_id, event.sender, event.type)


def annotation_slot(room_id: str, relation: Relation, sender: str, type_: str) -> str:
    """The slot of an annotation."""
    return _slot(ANNOTATION, room_id, relation.parent_id, sender, type_, relation.key or "")


def replacement_slot(original: Event) -> str | None:
    """The slot of the replacements of an event; ``None`` for one that cannot be replaced."""
    relation = relation_in(original)
    if original.is_state or (relation is not None and relation.rel_type == REPLACE):
        return None
    return _slot(REPLACE, original.room_id, original.event_id, original.sender, original.type)


def _slot(*names: str) -> str:
    return hashlib.blake2b(orjson.dumps(names), digest_size=16).hexdigest()
