"""The server-server API as a table, in the order of the specification."""

from __future__ import annotations

from typing import Final

from federation.device_keys import DeviceKeyEndpoints
from federation.events import Events
from federation.finding import FindingEndpoints
from federation.invites import InviteEndpoints
from federation.joins import Joins
from federation.key_routes import KeyRoutes
from federation.media_routes import MediaRoutes
from federation.openid import OpenIdEndpoint
from federation.queries import Queries
from federation.third_party_invites import ThirdPartyInviteEndpoints
from federation.transactions import Transactions
from homeserver.web import Access, Handler, Route

_V1: Final = "/_matrix/federation/v1"
_V2: Final = "/_matrix/federation/v2"
_KEY: Final = "/_matrix/key/v2"

#: 50 PDUs and 100 EDUs of 64 KiB.
_MAX_TRANSACTION_BYTES: Final = 10 * 1024 * 1024
_LIMIT: Final = "federation"


def routes(
    *,
    keys: KeyRoutes,
    transactions: Transactions,
    events: Events,
    joins: Joins,
    invites: InviteEndpoints,
    queries: Queries,
    media: MediaRoutes,
    third_party_invites: ThirdPartyInviteEndpoints,
    finding: FindingEndpoints,
    openid: OpenIdEndpoint,
    device_keys: DeviceKeyEndpoints,
) -> list[Route]:
    """Every endpoint for other servers."""
    return [
        # Server implementation
        _public("GET", f"{_V1}/version", queries.version),
        # Retrieving server keys
        _public("GET", f"{_KEY}/server", keys.own),
        _public("GET", f"{_KEY}/server/{{keyId}}", keys.own),
        _public("POST", f"{_KEY}/query", keys.query),
        _public("GET", f"{_KEY}/query/{{serverName}}", keys.query_one),
        _public("GET", f"{_KEY}/query/{{serverName}}/{{keyId}}", keys.query_one),
        # Transactions
        _server("PUT", f"{_V1}/send/{{txnId}}", transactions.receive_transaction, _MAX_TRANSACTION_BYTES),
        # PDUs
        _server("GET", f"{_V1}/event_auth/{{roomId}}/{{eventId}}", events.event_auth),
        # Backfilling and retrieving missing events
        _server("GET", f"{_V1}/backfill/{{roomId}}", events.backfill),
        _server("POST", f"{_V1}/get_missing_events/{{roomId}}", events.get_missing_events),
        _server("GET", f"{_V1}/timestamp_to_event/{{roomId}}", finding.timestamp_to_event),
        # Retrieving events
        _server("GET", f"{_V1}/event/{{eventId}}", events.event),
        _server("GET", f"{_V1}/state/{{roomId}}", events.state),
        _server("GET", f"{_V1}/state_ids/{{roomId}}", events.state_ids),
        # Joining rooms
        _server("GET", f"{_V1}/make_join/{{roomId}}/{{userId}}", joins.make_join),
        _server("PUT", f"{_V1}/send_join/{{roomId}}/{{eventId}}", joins.send_join_v1),
        _server("PUT", f"{_V2}/send_join/{{roomId}}/{{eventId}}", joins.send_join_v2),
        # Knocking upon a room
        _server("GET", f"{_V1}/make_knock/{{roomId}}/{{userId}}", joins.make_knock),
        _server("PUT", f"{_V1}/send_knock/{{roomId}}/{{eventId}}", joins.send_knock),
        # Inviting to a room
        _server("PUT", f"{_V1}/invite/{{roomId}}/{{eventId}}", invites.invite_v1),
        _server("PUT", f"{_V2}/invite/{{roomId}}/{{eventId}}", invites.invite_v2),
        # Leaving rooms
        _server("GET", f"{_V1}/make_leave/{{roomId}}/{{userId}}", joins.make_leave),
        _server("PUT", f"{_V1}/send_leave/{{roomId}}/{{eventId}}", joins.send_leave_v1),
        _server("PUT", f"{_V2}/send_leave/{{roomId}}/{{eventId}}", joins.send_leave_v2),
        # Third-party invites
        _server("PUT", f"{_V1}/exchange_third_party_invite/{{roomId}}", third_party_invites.exchange),
        _public("PUT", f"{_V1}/3pid/onbind", third_party_invites.on_bind),
        # Published room directory
        _server("GET", f"{_V1}/publicRooms", finding.public_rooms),
        _server("POST", f"{_V1}/publicRooms", finding.search_public_rooms),
        # Spaces
        _server("GET", f"{_V1}/hierarchy/{{roomId}}", finding.hierarchy),
        # Querying for information
        _server("GET", f"{_V1}/query/directory", queries.directory),
        _server("GET", f"{_V1}/query/profile", queries.profile),
        # Content repository
        _server("GET", f"{_V1}/media/download/{{mediaId}}", media.download),
        _server("GET", f"{_V1}/media/thumbnail/{{mediaId}}", media.thumbnail),
        _server("GET", f"{_V1}/query/{{queryType}}", queries.unknown),
        # OpenID
        _public("GET", f"{_V1}/openid/userinfo", openid.user_info),
        # Device management
        _server("GET", f"{_V1}/user/devices/{{userId}}", device_keys.devices),
        # End-to-end encryption
        _server("POST", f"{_V1}/user/keys/claim", device_keys.claim),
        _server("POST", f"{_V1}/user/keys/query", device_keys.query),
    ]


def _server(method: str, path: str, handler: Handler, max_body: int | None = None) -> Route:
    return Route(method, path, handler, Access.SERVER, _LIMIT, max_body)


def _public(method: str, path: str, handler: Handler) -> Route:
    return Route(method, path, handler, Access.PUBLIC, _LIMIT)
