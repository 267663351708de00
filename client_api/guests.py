"""What guests may call (client-server API, "Guest Access", "Client behaviour")."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.web import Route

_ROOM = "/_matrix/client/v3/rooms/{roomId}"
_UNSTABLE_DELAYED = "/_matrix/client/unstable/org.matrix.msc4140"
_MEDIA = "/_matrix/client/v1/media"

FOR_GUESTS = frozenset(
    {
        ("GET", f"{_ROOM}/state"),
        ("GET", f"{_ROOM}/context/{{eventId}}"),
        ("GET", f"{_ROOM}/event/{{eventId}}"),
        ("GET", f"{_ROOM}/state/{{eventType}}"),
        ("GET", f"{_ROOM}/state/{{eventType}}/{{stateKey}}"),
        ("GET", f"{_ROOM}/messages"),
        ("GET", f"{_ROOM}/members"),
        ("GET", f"{_ROOM}/initialSync"),
        ("GET", "/_matrix/client/v3/sync"),
        ("POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"),
        ("POST", "/_matrix/client/v4/sync"),
        ("GET", "/_matrix/client/v3/events"),
        ("GET", "/_matrix/client/v3/sync/sse"),
        ("GET", "/_matrix/client/unstable/org.matrix.msc2108/sync/sse"),
        ("GET", "/_matrix/client/v3/stream"),
        ("GET", "/_matrix/client/unstable/stream"),
        ("GET", f"{_MEDIA}/download/{{serverName}}/{{mediaId}}"),
        ("GET", f"{_MEDIA}/download/{{serverName}}/{{mediaId}}/{{fileName}}"),
        ("GET", f"{_MEDIA}/thumbnail/{{serverName}}/{{mediaId}}"),
        ("POST", f"{_ROOM}/join"),
        ("POST", f"{_ROOM}/leave"),
        ("PUT", f"{_ROOM}/send/{{eventType}}/{{txnId}}"),
        ("PUT", f"{_ROOM}/state/{{eventType}}"),
        ("PUT", f"{_ROOM}/state/{{eventType}}/{{stateKey}}"),
        ("PUT", "/_matrix/client/v3/sendToDevice/{eventType}/{txnId}"),
        ("PUT", "/_matrix/client/v3/profile/{userId}/{keyName}"),  # of which the display name only
        ("DELETE", "/_matrix/client/v3/profile/{userId}/{keyName}"),
        ("GET", "/_matrix/client/v3/devices"),
        ("GET", "/_matrix/client/v3/devices/{deviceId}"),
        ("PUT", "/_matrix/client/v3/devices/{deviceId}"),
        ("GET", "/_matrix/client/v3/account/whoami"),
        ("POST", "/_matrix/client/v3/keys/upload"),
        ("POST", "/_matrix/client/v3/keys/query"),
        ("POST", "/_matrix/client/v3/keys/claim"),
        ("PUT", f"{_ROOM}/delayed_event/{{eventType}}/{{txnId}}"),
        ("GET", "/_matrix/client/v1/delayed_events"),
        ("GET", "/_matrix/client/v1/delayed_events/{delayId}"),
        ("POST", "/_matrix/client/v1/delayed_events/{delayId}/{action}"),
        ("PUT", f"{_UNSTABLE_DELAYED}/rooms/{{roomId}}/delayed_event/{{eventType}}/{{txnId}}"),
        ("GET", f"{_UNSTABLE_DELAYED}/delayed_events"),
        ("GET", f"{_UNSTABLE_DELAYED}/delayed_events/{{delayId}}"),
    }
)


def open_to_guests(rows: Iterable[Route]) -> list[Route]:
    """The rows, those that guests may call marked so."""
    return [msgspec.structs.replace(row, guests=(row.method, row.path) in FOR_GUESTS) for row in rows]
