"""What a mail about notifications says: rooms, and the newest of what is unread in each.

Of encrypted events nothing is told but that they are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec

from homeserver.push.notification import Told

_MAX_ROOMS: Final = 10
_MAX_EVENTS: Final = 5
_MAX_TEXT: Final = 500

_KINDS: Final[Mapping[str, str]] = {
    "m.image": "sent a picture",
    "m.video": "sent a video",
    "m.audio": "sent a recording",
    "m.file": "sent a file",
    "m.location": "sent a place",
}
_EVENTS: Final[Mapping[str, str]] = {
    "m.room.encrypted": "sent an encrypted message",
    "m.call.invite": "called",
    "m.room.tombstone": "replaced the room by another",
}


class DigestEvent(msgspec.Struct, frozen=True, gc=False):
    """One event as a mail shows it: what somebody says, or (``is_said`` false) does."""

    sender: str
    time: str
    text: str
    is_said: bool


class DigestRoom(msgspec.Struct, frozen=True, gc=False):
    """A room as a mail shows it."""

    name: str
    link: str
    events: list[DigestEvent]
    #: How many more there are.
    more: int


def digest(waiting: Sequence[Told]) -> list[DigestRoom]:
    """What a mail shows of what waits (oldest first): the rooms with the newest events first."""
    by_room: dict[int, list[Told]] = {}
    for told in reversed(waiting):
        by_room.setdefault(told.room_nid, []).append(told)
    return [_room(newest_first) for newest_first in list(by_room.values())[:_MAX_ROOMS]]


def subject(waiting: Sequence[Told], app_name: str) -> str:
    """The subject of a mail about what waits."""
    rooms = {told.room_nid: told.room_name for told in waiting}
    count = len(waiting)
    what = "an unread message" if count == 1 else f"{count} unread messages"
    names = [name for name in rooms.values() if name]
    where = f" in {names[0]}" if len(rooms) == 1 and names else ""
    return f"[{app_name}] You have {what}{where}"


def _room(newest_first: Sequence[Told]) -> DigestRoom:
    newest = newest_first[0]
    room_id = str(newest.event.get("room_id"))
    return DigestRoom(
        name=newest.room_name or room_id,
        link=f"https://matrix.to/#/{quote(newest.room_alias or room_id, safe='')}",
        events=[_event(told) for told in reversed(newest_first[:_MAX_EVENTS])],
        more=max(0, len(newest_first) - _MAX_EVENTS),
    )


def _event(told: Told) -> DigestEvent:
    event = told.event
    content = event.get("content")
    text, is_said = _text(str(event.get("type")), content if isinstance(content, dict) else {})
    when = event.get("origin_server_ts")
    return DigestEvent(
        sender=told.sender_name or str(event.get("sender")),
        time=_time(when) if isinstance(when, int) else "",
        text=text,
        is_said=is_said,
    )


def _text(event_type: str, content: Mapping[str, Any]) -> tuple[str, bool]:
    if event_type == "m.room.member":
        return "invited you", False
    if event_type != "m.room.message":
        return _EVENTS.get(event_type, "sent something"), False
    kind, body = content.get("msgtype"), content.get("body")
    if isinstance(kind, str) and kind in _KINDS:
        return _KINDS[kind], False
    if not isinstance(body, str):
        return "sent something", False
    cut = body if len(body) <= _MAX_TEXT else f"{body[:_MAX_TEXT]}…"
    return cut, kind != "m.emote"


def _time(ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
    except (ValueError, OverflowError, OSError):
        return ""
