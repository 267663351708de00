"""What clients ask over a WebSocket, as the requests of the client-server API that it stands for.

Only the words are changed here: whether something may be done, and how, is the business of the endpoint
that the request goes to.  Specification: the WebSockets draft, "Client-initiated operations".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec

from homeserver.bodies import decode_struct
from homeserver.errors import MatrixError, bad_json, invalid_param, missing_param

_V3 = "/_matrix/client/v3"
_MAX_ID_BYTES = 255


class _Frame(msgspec.Struct, frozen=True):
    id: Any = None
    method: Any = None
    #: COMPAT: the draft calls them by one name in its table, by the other in its example.
    param: msgspec.Raw = msgspec.Raw(b"{}")
    params: msgspec.Raw = msgspec.Raw(b"")


class Call(msgspec.Struct, frozen=True):
    """A request to make for a client; without a ``path`` there is nothing to do.

    Calls of the same ``lane`` are made one after the other, in the order they came.
    """

    id: str
    method: str = "GET"
    path: str | None = None
    body: bytes = b""
    lane: str | None = None


class Misunderstood(Exception):
    """A message that asks for nothing there is, with its id if it has one."""

    def __init__(self, call_id: str | None, refusal: MatrixError) -> None:
        super().__init__(refusal.message)
        self.call_id = call_id
        self.refusal = refusal


def read_call(message: str, user_id: str) -> Call:
    """What a user asks for with a message.  Raises ``Misunderstood``."""
    try:
        frame = decode_struct(message.encode(), _Frame, storable=False)
    except MatrixError as refusal:
        raise Misunderstood(None, refusal) from None
    if not isinstance(frame.id, str) or not 0 < len(frame.id.encode()) <= _MAX_ID_BYTES:
        raise Misunderstood(None, bad_json(f"'id' must be a text of 1 to {_MAX_ID_BYTES} bytes"))
    try:
        make = _METHODS.get(frame.method) if isinstance(frame.method, str) else None
        if make is None:
            raise MatrixError(404, "M_UNRECOGNIZED", "There is no such method")
        return make(_Ask(frame.id, user_id, _members(frame.params or frame.param)))
    except MatrixError as refusal:
        raise Misunderstood(frame.id, refusal) from None


class _Ask(msgspec.Struct, frozen=True):
    """A message with its parameters, still as they are written."""

    id: str
    user_id: str
    given: Mapping[str, msgspec.Raw]

    def text(self, name: str) -> str:
        """A parameter that must be there, percent-encoded for a path."""
        if name not in self.given:
            raise missing_param(f"Missing parameter: {name}")
        try:
            return quote(msgspec.json.decode(self.given[name], type=str), safe="")
        except (msgspec.MsgspecError, UnicodeError):
            raise bad_json(f"'{name}' must be a text") from None

    def content(self) -> bytes:
        if "content" not in self.given:
            raise missing_param("Missing parameter: content")
        return bytes(self.given["content"])

    def body(self, *names: str) -> bytes:
        """An object of these parameters, as far as they are there."""
        return msgspec.json.encode({name: self.given[name] for name in names if name in self.given})


def _members(params: msgspec.Raw) -> Mapping[str, msgspec.Raw]:
    try:
        members: dict[str, msgspec.Raw] = msgspec.json.decode(params, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeError):
        raise bad_json("'param' must be an object") from None
    return members


def _ping(ask: _Ask) -> Call:
    return Call(ask.id)


def _send(ask: _Ask) -> Call:
    room = ask.text("room_id")
    path = f"{_V3}/rooms/{room}/send/{ask.text('event_type')}/{quote(ask.id, safe='')}"
    return Call(ask.id, "PUT", path, ask.content(), room)


def _state(ask: _Ask) -> Call:
    room = ask.text("room_id")
    path = f"{_V3}/rooms/{room}/state/{ask.text('event_type')}/{ask.text('state_key')}"
    return Call(ask.id, "PUT", path, ask.content(), room)


def _typing(ask: _Ask) -> Call:
    room = ask.text("room_id")
    path = f"{_V3}/rooms/{room}/typing/{quote(ask.user_id, safe='')}"
    return Call(ask.id, "PUT", path, ask.body("typing", "timeout"), room)


def _receipt(ask: _Ask) -> Call:
    room = ask.text("room_id")
    kind = ask.text("receipt_type") if "receipt_type" in ask.given else "m.read"
    path = f"{_V3}/rooms/{room}/receipt/{kind}/{ask.text('event_id')}"
    return Call(ask.id, "POST", path, ask.body("thread_id"), room)


def _read_markers(ask: _Ask) -> Call:
    room = ask.text("room_id")
    body = ask.body("m.fully_read", "m.read", "m.read.private")
    if body == b"{}":
        raise invalid_param("There is no marker among the parameters")
    return Call(ask.id, "POST", f"{_V3}/rooms/{room}/read_markers", body, room)


def _presence(ask: _Ask) -> Call:
    path = f"{_V3}/presence/{quote(ask.user_id, safe='')}/status"
    return Call(ask.id, "PUT", path, ask.body("presence", "status_msg"), "")


_Make: TypeAlias = Callable[[_Ask], Call]
_METHODS: Mapping[str, _Make] = {
    "ping": _ping,
    "send": _send,
    "state": _state,
    "typing": _typing,
    "receipt": _receipt,
    "read_markers": _read_markers,
    "presence": _presence,
}
