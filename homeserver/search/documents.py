"""The searchable texts of events, and the documents an index has of them.

Specification: client-server API, "Server Side Search", "Search Categories".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from homeserver.protocol.segmentation import written
from homeserver.storage.events import StoredEvent
from homeserver.storage.search import BODY, NAME, TOPIC, Document

#: The key each field is searched by, and the type of its events.
KEYS: Mapping[str, int] = {"content.body": BODY, "content.name": NAME, "content.topic": TOPIC}
TYPES: Mapping[int, str] = {BODY: "m.room.message", NAME: "m.room.name", TOPIC: "m.room.topic"}

_FIELD_OF = {(type_, field != BODY): field for field, type_ in TYPES.items()}
_HASH_BYTES = 4
#: Hashes of frequent words are not made again and again.
_REMEMBERED = 1 << 13


class TermHashes:
    """Makes of words what stands in the index, and in no other database."""

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._known: dict[str, str] = {}

    def of(self, terms: Iterable[str]) -> list[str]:
        """The hashes of some terms: ASCII letters and digits."""
        if len(self._known) > _REMEMBERED:
            self._known.clear()
        known = self._known
        return [known.get(term) or self._hash(term) for term in terms]

    def _hash(self, term: str) -> str:
        digest = hashlib.blake2b(term.encode(), digest_size=_HASH_BYTES, key=self._key).hexdigest()
        self._known[term] = digest
        return digest


def room_term(room_nid: int) -> str:
    """What a room's documents are found by; no word begins so."""
    return f"!{room_nid}"


def field_term(field: int) -> str:
    """The same for a field."""
    return f"#{field}"


def field_of(stored: StoredEvent) -> int | None:
    """The field of an event that has a searchable text."""
    if stored.event.state_key:
        return None
    return _FIELD_OF.get((stored.event.type, stored.event.is_state))


def document(
    stored: StoredEvent, edit: StoredEvent | None, hashes: TermHashes, now_ms: int
) -> Document | None:
    """The document of an event and its newest edit; ``None`` where there is nothing to be found.

    A time in the future counts as ``now_ms``, so that nobody stays on top of everything new.
    """
    field = field_of(stored)
    if field is None or not stored.shown or stored.pos is None:
        return None
    content = stored.event.content
    words, terms = written(_text(field, content if edit is None else edit.event.content["m.new_content"]))
    if not words:
        return None
    terms |= {room_term(stored.room_nid), field_term(field)}
    return Document(
        event_nid=stored.nid,
        source_nid=stored.nid if edit is None else edit.nid,
        room_nid=stored.room_nid,
        sender=stored.event.sender,
        field=field,
        has_url="url" in content,
        ts=max(0, min(stored.event.origin_server_ts, now_ms)),
        words=words,
        terms=" ".join(sorted(set(hashes.of(terms)))),
    )


def _text(field: int, content: Mapping[str, Any]) -> str:
    if field == BODY:
        return _string(content.get("body"))
    if field == NAME:
        return _string(content.get("name"))
    plain = _string(content.get("topic"))
    return "\n".join(dict.fromkeys((plain, *_plain_texts(content.get("m.topic")))))


def _plain_texts(block: Any) -> list[str]:
    """The ``text/plain`` representations in an ``m.topic``."""
    texts = block.get("m.text") if isinstance(block, dict) else None
    return [
        _string(text.get("body"))
        for text in (texts if isinstance(texts, list) else ())
        if isinstance(text, dict) and text.get("mimetype", "text/plain") == "text/plain"
    ]


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
