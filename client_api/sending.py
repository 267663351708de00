"""What requests that send events, now or later, say in the same way."""

from __future__ import annotations

from homeserver.errors import invalid_param
from homeserver.protocol.ids import is_room_id
from homeserver.protocol.sticky import MAX_STICKY_MS
from homeserver.web import Request

STICKY_DURATION = "org.matrix.msc4354.sticky_duration_ms"
#: The largest integer of canonical JSON.
_LATEST = 2**53 - 1


def time_of(request: Request) -> int | None:
    """When an application service says that its event was sent (spec: "Timestamp massaging")."""
    if request.requester.appservice is None or "ts" not in request.query:
        return None
    ts = request.query_int("ts", 0, maximum=_LATEST + 1)
    if ts > _LATEST:
        raise invalid_param("'ts' is not a time that an event may have")
    return ts


def sticky_duration(request: Request) -> int | None:
    """How long the event is to stick (MSC4354), in milliseconds; ``None`` for not at all."""
    if STICKY_DURATION not in request.query:
        return None
    duration = request.query_int(STICKY_DURATION, 0, maximum=MAX_STICKY_MS + 1)
    if duration > MAX_STICKY_MS:
        raise invalid_param(f"Events stick for {MAX_STICKY_MS} milliseconds at most")
    return duration


def check_type(request: Request) -> str:
    """The type of the event, which a client may send."""
    type_ = request.params["eventType"]
    if type_ == "m.room.create":
        raise invalid_param("A room is created only once")
    return type_


def room_of(request: Request) -> str:
    """The room that is meant, which need not be one that there is."""
    room_id = request.params["roomId"]
    if not is_room_id(room_id):
        raise invalid_param("That is not a room id")
    return room_id
