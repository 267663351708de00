"""What a push gateway is told, as JSON.

Specification: push gateway API, ``POST /_matrix/push/v1/notify``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.protocol.push_rules import Notice
from homeserver.storage.pushers import Pusher

#: The format that tells a gateway which event it is, and nothing of what it says.
EVENT_ID_ONLY = "event_id_only"

_ENCRYPTED = "m.room.encrypted"


class Told(msgspec.Struct, frozen=True, gc=False):
    """An event that notifies somebody, with what is told beside it."""

    #: Its stream position.
    pos: int
    room_nid: int
    #: In client format; an invite from another server may have no ``event_id``.
    event: Mapping[str, Any]
    notice: Notice
    sender_name: str | None = None
    room_name: str | None = None
    room_alias: str | None = None


def event_notification(pusher: Pusher, data: Mapping[str, Any], told: Told, unread: int) -> dict[str, Any]:
    """The body of a request about an event."""
    notification: dict[str, Any] = {
        "event_id": told.event.get("event_id"),
        "room_id": told.event.get("room_id"),
        "prio": priority(told),
        "counts": {"unread": unread} if unread else {},
        "devices": [_device(pusher, data, dict(told.notice.tweaks))],
    }
    if data.get("format") != EVENT_ID_ONLY:
        notification |= {
            "type": told.event.get("type"),
            "sender": told.event.get("sender"),
            "content": told.event.get("content"),
            "sender_display_name": told.sender_name,
            "room_name": told.room_name,
            "room_alias": told.room_alias,
        }
        if told.event.get("type") == "m.room.member":
            notification["user_is_target"] = told.event.get("state_key") == pusher.user_id
    return {"notification": {name: value for name, value in notification.items() if value is not None}}


def badge_notification(pusher: Pusher, data: Mapping[str, Any], unread: int) -> dict[str, Any]:
    """The body of a request that only tells how many events are unread.

    COMPAT: Sygnal leaves a badge alone that it is not told, so that zero is said here.
    """
    return {
        "notification": {"prio": "low", "counts": {"unread": unread}, "devices": [_device(pusher, data, {})]}
    }


def priority(told: Told) -> str:
    """``high`` for what makes a sound, highlights or may do so once it is decrypted."""
    tweaks = told.notice.tweaks
    is_loud = bool(tweaks.get("sound")) or told.notice.highlight
    return "high" if is_loud or told.event.get("type") == _ENCRYPTED else "low"


def is_rejected(pusher: Pusher, answer: Any) -> bool:
    """Whether a gateway's answer says that a pusher leads nowhere."""
    rejected = answer.get("rejected") if isinstance(answer, dict) else None
    return isinstance(rejected, list) and pusher.pushkey in rejected


def _device(pusher: Pusher, data: Mapping[str, Any], tweaks: dict[str, Any]) -> dict[str, Any]:
    device: dict[str, Any] = {
        "app_id": pusher.app_id,
        "pushkey": pusher.pushkey,
        "pushkey_ts": pusher.pushkey_ts,
        "data": {name: value for name, value in data.items() if name != "url"},
    }
    if tweaks:
        device["tweaks"] = tweaks
    return device
