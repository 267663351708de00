"""An event as every layer passes it round: immutable, small, its content decoded on demand.

An event of a room version is its canonical JSON plus the handful of fields that
nearly every reader needs.  Decoding the content costs about a microsecond and
holding it decoded four times the memory, so it is decoded when asked for.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

#: What identifies a piece of room state: ``(type, state_key)``.
StateKey: TypeAlias = tuple[str, str]


class _Content(msgspec.Struct, gc=False):
    content: dict[str, Any]


class _RawContent(msgspec.Struct, gc=False):
    content: msgspec.Raw


_decode_content = msgspec.json.Decoder(_Content).decode
_decode_raw_content = msgspec.json.Decoder(_RawContent).decode
_decode_any = msgspec.json.Decoder().decode


class Event(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A PDU whose format has been checked (see ``event_format.parse_event``).

    Compared by identity; two events are the same event when their ``event_id``
    is the same.
    """

    event_id: str
    room_id: str
    sender: str
    type: str
    state_key: str | None
    origin_server_ts: int
    depth: int
    prev_events: tuple[str, ...]
    auth_events: tuple[str, ...]
    #: The event this one redacts, wherever the room version keeps it; ``None`` for other types.
    redacts: str | None
    #: The PDU as canonical JSON: what is stored, hashed and sent to peers (no ``unsigned``).
    json: bytes
    #: Refused by the auth rules: kept as a fact about the graph, never part of room state.
    rejected: bool = False

    @property
    def content(self) -> dict[str, Any]:
        """The content, decoded anew: hold on to it when it is needed more than once."""
        return _decode_content(self.json).content

    @property
    def content_json(self) -> bytes:
        """The content as JSON bytes, for responses that only pass it through."""
        return bytes(_decode_raw_content(self.json).content)

    @property
    def pdu(self) -> dict[str, Any]:
        """The whole PDU, decoded anew."""
        pdu: dict[str, Any] = _decode_any(self.json)
        return pdu

    @property
    def is_state(self) -> bool:
        """Whether this is a state event."""
        return self.state_key is not None

    @property
    def key(self) -> StateKey:
        """The ``(type, state_key)`` of a state event.

        Raises ``ValueError`` for a message event, which is never asked for its key.
        """
        if self.state_key is None:
            raise ValueError(f"{self.event_id} is not a state event")
        return (self.type, self.state_key)
