"""The route tables against the specification's list of endpoints, and what must be served at all."""

from __future__ import annotations

import csv
import re
import typing
from pathlib import Path

import pytest

from homeserver.routing import Router
from homeserver.web import Access, Route
from tests.operations import client_table, federation_table, operations, shown

_SPECIFICATION = Path(__file__).parents[2] / "shared" / "spec" / "endpoints.tsv"
_CLIENT, _FEDERATION = "/_matrix/client/v3", "/_matrix/federation/v1"
_MEDIA = "/_matrix/media/v3"

#: Served though the specification's list does not have them, each with its reason.
BEYOND_THE_LIST = {
    ("GET", f"{_CLIENT}/rooms/{{roomId}}/state/{{eventType}}"): "the empty state key may be left out",
    ("PUT", f"{_CLIENT}/rooms/{{roomId}}/state/{{eventType}}"): "the empty state key may be left out",
    ("GET", f"{_CLIENT}/pushrules/global"): "older clients leave the last slash out",
    ("GET", f"{_CLIENT}/pushrules"): "older clients leave the last slash out",
    ("PUT", f"{_FEDERATION}/send_join/{{roomId}}/{{eventId}}"): "older servers; v1.0 of the specification",
    ("PUT", f"{_FEDERATION}/send_leave/{{roomId}}/{{eventId}}"): "older servers; v1.0 of the specification",
}
BEYOND_THE_LIST |= {
    ("GET", "/_inglenook/client/push/unsubscribe"): "where the link in mails about notifications leads",
    ("POST", "/_inglenook/client/push/unsubscribe"): "where the link in mails about notifications leads",
    (
        "GET",
        f"{_CLIENT}/auth/{{authType}}/fallback/web",
    ): "only in the text of the specification",
    ("POST", f"{_CLIENT}/auth/{{authType}}/fallback/web"): "what such a page sends",
    ("GET", "/_inglenook/client/email/submit_token"): "where the links in our emails lead",
    ("POST", "/_inglenook/client/email/submit_token"): "what the page there sends",
    ("POST", f"{_CLIENT}/rooms/{{roomId}}/send/{{eventType}}"): "as Synapse has it: without a transaction id",
    ("GET", "/_synapse/admin/v1/register"): "how tools made for Synapse register users",
    ("POST", "/_synapse/admin/v1/register"): "how tools made for Synapse register users",
    ("GET", "/_matrix/key/v2/server/{keyId}"): "older servers name a key",
    ("GET", "/_matrix/key/v2/query/{serverName}/{keyId}"): "older servers name a key",
}

_DEHYDRATED = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
BEYOND_THE_LIST |= {
    **{(method, _DEHYDRATED): "MSC3814, which is not in it yet" for method in ("PUT", "GET", "DELETE")},
    ("GET", f"{_DEHYDRATED}/{{device_id}}/events"): "MSC3814, which is not in it yet",
    ("POST", f"{_DEHYDRATED}/{{device_id}}/events"): "as MSC3814 had it before",
}
_UNSTABLE = "/_matrix/client/unstable"
BEYOND_THE_LIST |= {
    ("GET", "/_inglenook/sso/oidc/callback"): "where providers of single sign-on send people back to",
    ("POST", "/_inglenook/sso/confirm"): "the answer to a question that a page of single sign-on asks",
    ("GET", f"{_UNSTABLE}/uk.half-shot.msc2666/user/mutual_rooms"): "clients of before v1.19",
    **{
        (method, f"{_UNSTABLE}/uk.tcpip.msc4133/profile/{{userId}}/{{keyName}}"): "clients of before v1.16"
        for method in ("GET", "PUT", "DELETE")
    },
    ("GET", f"{_UNSTABLE}/uk.tcpip.msc4133/profile/{{userId}}"): "clients of before v1.16",
    ("POST", f"{_UNSTABLE}/org.matrix.simplified_msc3575/sync"): "MSC4186 as clients know it",
    ("POST", "/_matrix/client/v4/sync"): "MSC4186, which is not in it yet",
}
_SUBSCRIPTION = f"{_UNSTABLE}/io.element.msc4306/rooms/{{roomId}}/thread/{{threadRootId}}/subscription"
BEYOND_THE_LIST |= {
    **{(method, _SUBSCRIPTION): "MSC4306, which is not in it yet" for method in ("GET", "PUT", "DELETE")},
    ("GET", f"{_UNSTABLE}/io.element.msc4308/thread_subscriptions"): "MSC4308, which is not in it yet",
    ("GET", f"{_UNSTABLE}/io.element.msc4360/thread_updates"): "MSC4360, which is not in it yet",
}

for _method, _row in (
    ("PUT", "rooms/{roomId}/delayed_event/{eventType}/{txnId}"),
    ("GET", "delayed_events"),
    ("GET", "delayed_events/{delayId}"),
    ("POST", "delayed_events/{delayId}"),
    ("POST", "delayed_events/{delayId}/{action}"),
):
    BEYOND_THE_LIST[_method, f"{_UNSTABLE}/org.matrix.msc4140/{_row}"] = "MSC4140, which is not in it yet"
BEYOND_THE_LIST |= {
    ("PUT", f"{_CLIENT}/rooms/{{roomId}}/delayed_event/{{eventType}}/{{txnId}}"): "MSC4140, to be",
    ("GET", "/_matrix/client/v1/delayed_events"): "MSC4140, to be",
    ("GET", "/_matrix/client/v1/delayed_events/{delayId}"): "MSC4140, to be",
    ("POST", "/_matrix/client/v1/delayed_events/{delayId}/{action}"): "MSC4140, to be",
    ("GET", f"{_UNSTABLE}/org.matrix.msc4143/rtc/transports"): "MSC4143, which is not in it yet",
    ("GET", "/_matrix/client/v1/rtc/transports"): "MSC4143, to be",
}
_MSC3391 = f"{_UNSTABLE}/org.matrix.msc3391/user/{{userId}}"
_MSC4108, _MSC4388 = (
    f"{_UNSTABLE}/org.matrix.msc4108/rendezvous",
    f"{_UNSTABLE}/io.element.msc4388/rendezvous",
)
BEYOND_THE_LIST |= {
    ("DELETE", f"{_MSC3391}/account_data/{{type}}"): "MSC3391, which is not in it yet",
    ("DELETE", f"{_MSC3391}/rooms/{{roomId}}/account_data/{{type}}"): "MSC3391, which is not in it yet",
    **{(method, _MSC4388): "MSC4388, which is not in it yet" for method in ("GET", "POST")},
    ("POST", _MSC4108): "MSC4108 as it was before MSC4388",
    **{
        (method, f"{place}/{{rendezvousId}}"): "MSC4388, and MSC4108 as it was before"
        for method in ("GET", "PUT", "DELETE")
        for place in (_MSC4108, _MSC4388)
    },
}

_LIVE = "streams that clients of MSC2108 and of the WebSockets draft know"
BEYOND_THE_LIST |= {
    ("GET", f"{_CLIENT}/sync/sse"): _LIVE,
    ("GET", f"{_UNSTABLE}/org.matrix.msc2108/sync/sse"): _LIVE,
    ("GET", f"{_CLIENT}/stream"): _LIVE,
    ("GET", f"{_UNSTABLE}/stream"): _LIVE,
}

#: What a server cannot do without: accounts, rooms, sync.
FOR_CLIENTS = """
GET /.well-known/matrix/client
GET /_matrix/client/versions
GET /_matrix/client/v3/capabilities
GET /_matrix/client/v3/login
POST /_matrix/client/v3/login
POST /_matrix/client/v3/logout
POST /_matrix/client/v3/logout/all
POST /_matrix/client/v3/refresh
POST /_matrix/client/v3/register
GET /_matrix/client/v3/register/available
GET /_matrix/client/v1/register/m.login.registration_token/validity
GET /_matrix/client/v3/account/whoami
POST /_matrix/client/v3/account/password
POST /_matrix/client/v3/account/deactivate
GET /_matrix/client/v3/devices
GET /_matrix/client/v3/devices/{deviceId}
PUT /_matrix/client/v3/devices/{deviceId}
DELETE /_matrix/client/v3/devices/{deviceId}
POST /_matrix/client/v3/delete_devices
POST /_matrix/client/v3/createRoom
GET /_matrix/client/v3/joined_rooms
POST /_matrix/client/v3/join/{roomIdOrAlias}
POST /_matrix/client/v3/knock/{roomIdOrAlias}
POST /_matrix/client/v3/rooms/{roomId}/join
POST /_matrix/client/v3/rooms/{roomId}/leave
POST /_matrix/client/v3/rooms/{roomId}/forget
POST /_matrix/client/v3/rooms/{roomId}/invite
POST /_matrix/client/v3/rooms/{roomId}/kick
POST /_matrix/client/v3/rooms/{roomId}/ban
POST /_matrix/client/v3/rooms/{roomId}/unban
POST /_matrix/client/v3/rooms/{roomId}/upgrade
GET /_matrix/client/v3/rooms/{roomId}/state
GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}
PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}
PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}
PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}
GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}
GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}
GET /_matrix/client/v3/rooms/{roomId}/messages
GET /_matrix/client/v3/rooms/{roomId}/members
GET /_matrix/client/v3/rooms/{roomId}/joined_members
GET /_matrix/client/v3/rooms/{roomId}/aliases
GET /_matrix/client/v3/directory/room/{roomAlias}
PUT /_matrix/client/v3/directory/room/{roomAlias}
DELETE /_matrix/client/v3/directory/room/{roomAlias}
PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}
POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}
POST /_matrix/client/v3/rooms/{roomId}/read_markers
GET /_matrix/client/v3/user/{userId}/account_data/{type}
PUT /_matrix/client/v3/user/{userId}/account_data/{type}
GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}
PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}
GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags
PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}
DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}
GET /_matrix/client/v3/profile/{userId}
GET /_matrix/client/v3/profile/{userId}/{keyName}
PUT /_matrix/client/v3/profile/{userId}/{keyName}
DELETE /_matrix/client/v3/profile/{userId}/{keyName}
GET /_matrix/client/v3/presence/{userId}/status
PUT /_matrix/client/v3/presence/{userId}/status
POST /_matrix/client/v3/user/{userId}/filter
GET /_matrix/client/v3/user/{userId}/filter/{filterId}
GET /_matrix/client/v3/pushrules/
GET /_matrix/client/v3/pushers
POST /_matrix/client/v3/pushers/set
GET /_matrix/client/v3/notifications
GET /_matrix/client/v3/sync
PUT /_matrix/client/v3/sendToDevice/{eventType}/{txnId}
POST /_matrix/client/v3/keys/upload
POST /_matrix/client/v3/keys/query
POST /_matrix/client/v3/keys/claim
GET /_matrix/client/v3/keys/changes
POST /_matrix/client/v3/keys/device_signing/upload
POST /_matrix/client/v3/keys/signatures/upload
POST /_matrix/client/v3/room_keys/version
GET /_matrix/client/v3/room_keys/version
GET /_matrix/client/v3/room_keys/version/{version}
PUT /_matrix/client/v3/room_keys/version/{version}
DELETE /_matrix/client/v3/room_keys/version/{version}
PUT /_matrix/client/v3/room_keys/keys
GET /_matrix/client/v3/room_keys/keys
DELETE /_matrix/client/v3/room_keys/keys
PUT /_matrix/client/v3/room_keys/keys/{roomId}
GET /_matrix/client/v3/room_keys/keys/{roomId}
DELETE /_matrix/client/v3/room_keys/keys/{roomId}
PUT /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}
GET /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}
DELETE /_matrix/client/v3/room_keys/keys/{roomId}/{sessionId}
GET /_matrix/client/v1/media/config
GET /_matrix/client/v1/media/download/{serverName}/{mediaId}
GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}
GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}
POST /_matrix/media/v3/upload
PUT /_matrix/media/v3/upload/{serverName}/{mediaId}
POST /_matrix/media/v1/create
GET /_matrix/client/v3/publicRooms
POST /_matrix/client/v3/publicRooms
GET /_matrix/client/v3/directory/list/room/{roomId}
PUT /_matrix/client/v3/directory/list/room/{roomId}
GET /_matrix/client/v1/rooms/{roomId}/hierarchy
GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event
GET /_matrix/client/v1/room_summary/{roomIdOrAlias}
POST /_matrix/client/v3/user/{userId}/openid/request_token
GET /_matrix/client/v3/events
GET /_matrix/client/v3/events/{eventId}
GET /_matrix/client/v3/initialSync
GET /_matrix/client/v3/rooms/{roomId}/initialSync
POST /_matrix/client/v1/login/get_token
GET /_matrix/client/v3/login/sso/redirect
GET /_matrix/client/v3/login/sso/redirect/{idpId}
GET /_matrix/client/v1/auth_metadata
GET /.well-known/matrix/support
GET /_matrix/client/v3/voip/turnServer
GET /_matrix/client/v3/admin/whois/{userId}
GET /_matrix/client/v1/admin/lock/{userId}
PUT /_matrix/client/v1/admin/lock/{userId}
GET /_matrix/client/v1/admin/suspend/{userId}
PUT /_matrix/client/v1/admin/suspend/{userId}
GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}
GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}
GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}
GET /_matrix/client/v1/rooms/{roomId}/threads
"""

#: What it takes to share a room with another server.
FOR_SERVERS = """
GET /_matrix/federation/v1/version
GET /_matrix/key/v2/server
POST /_matrix/key/v2/query
GET /_matrix/key/v2/query/{serverName}
PUT /_matrix/federation/v1/send/{txnId}
GET /_matrix/federation/v1/make_join/{roomId}/{userId}
PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}
GET /_matrix/federation/v1/make_leave/{roomId}/{userId}
PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}
PUT /_matrix/federation/v1/invite/{roomId}/{eventId}
PUT /_matrix/federation/v2/invite/{roomId}/{eventId}
GET /_matrix/federation/v1/event/{eventId}
GET /_matrix/federation/v1/state/{roomId}
GET /_matrix/federation/v1/state_ids/{roomId}
GET /_matrix/federation/v1/backfill/{roomId}
POST /_matrix/federation/v1/get_missing_events/{roomId}
GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}
GET /_matrix/federation/v1/query/directory
GET /_matrix/federation/v1/query/profile
GET /_matrix/federation/v1/user/devices/{userId}
POST /_matrix/federation/v1/user/keys/claim
POST /_matrix/federation/v1/user/keys/query
GET /_matrix/federation/v1/media/download/{mediaId}
GET /_matrix/federation/v1/media/thumbnail/{mediaId}
GET /_matrix/federation/v1/publicRooms
POST /_matrix/federation/v1/publicRooms
GET /_matrix/federation/v1/hierarchy/{roomId}
GET /_matrix/federation/v1/timestamp_to_event/{roomId}
PUT /_matrix/federation/v1/exchange_third_party_invite/{roomId}
PUT /_matrix/federation/v1/3pid/onbind
GET /_matrix/federation/v1/openid/userinfo
"""


def wanted(text: str) -> set[tuple[str, str]]:
    return {(method, path) for method, path in (line.split() for line in text.strip().splitlines())}


def nameless(path: str) -> str:
    """The path without what its parameters are called."""
    return re.sub(r"\{[^}]*\}", "{}", path)


@pytest.fixture(scope="module")
def specified() -> dict[tuple[str, str], dict[str, str]]:
    """The specification's rows by method and path."""
    if not _SPECIFICATION.exists():
        pytest.skip(f"the specification's list of endpoints is not at {_SPECIFICATION}")
    with _SPECIFICATION.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {(row["method"], row["path"].strip()): row for row in rows}


TABLES = pytest.mark.parametrize("table", [client_table, federation_table], ids=["clients", "servers"])


@TABLES
def test_every_route_is_in_the_specification(
    table: typing.Callable[[], list[Route]], specified: dict[tuple[str, str], dict[str, str]]
) -> None:
    invented = {(row.method, row.path) for row in table()} - specified.keys() - BEYOND_THE_LIST.keys()

    assert not invented


@TABLES
def test_no_two_routes_answer_the_same_request(table: typing.Callable[[], list[Route]]) -> None:
    rows = [(row.method, nameless(row.path)) for row in table()]

    assert len(rows) == len(set(rows))
    Router(table())


def test_what_a_client_needs_is_routed() -> None:
    assert not wanted(FOR_CLIENTS) - {(row.method, row.path) for row in client_table()}


def test_what_another_server_needs_is_routed() -> None:
    assert not wanted(FOR_SERVERS) - {(row.method, row.path) for row in federation_table()}


#: Routes that others may call than the specification's list says, each with its reason.
OTHER_ACCESS = {
    ("GET", f"{_MEDIA}/download/{{serverName}}/{{mediaId}}"): "an access token gets more there",
    ("GET", f"{_MEDIA}/download/{{serverName}}/{{mediaId}}/{{fileName}}"): "an access token gets more there",
    ("GET", f"{_MEDIA}/thumbnail/{{serverName}}/{{mediaId}}"): "an access token gets more there",
    ("GET", "/_matrix/client/v3/publicRooms"): "which rooms there are is for those with an account",
    ("GET", "/_matrix/client/versions"): "the access token is optional there",
    ("GET", "/_matrix/client/v3/profile/{userId}"): "profiles may be for those with an account",
    ("GET", "/_matrix/client/v3/profile/{userId}/{keyName}"): "profiles may be for those with an account",
}


def test_who_may_call_is_what_the_specification_says(
    specified: dict[tuple[str, str], dict[str, str]],
) -> None:
    for row in client_table():
        key = (row.method, row.path)
        if key in specified and key not in OTHER_ACCESS:
            needs_token = specified[key]["auth"] == "auth"
            assert (row.access is Access.PUBLIC) == (not needs_token), key


def test_other_servers_sign_what_the_specification_wants_signed(
    specified: dict[tuple[str, str], dict[str, str]],
) -> None:
    for row in federation_table():
        if (row.method, row.path) in specified:
            needs_signature = specified[row.method, row.path]["auth"] == "auth"
            assert (row.access is Access.SERVER) == needs_signature, row.path


def test_the_readme_lists_the_operations_there_are() -> None:
    assert shown() == operations(), "`make readme` writes the table anew"


def test_what_is_beyond_the_list_is_beyond_it(specified: dict[tuple[str, str], dict[str, str]]) -> None:
    assert not BEYOND_THE_LIST.keys() & specified.keys()


def test_what_is_kept_from_suspended_and_locked_accounts_is_kept_from_them_on_every_path() -> None:
    by_handler: dict[int, set[tuple[bool, bool]]] = {}
    for row in client_table():
        by_handler.setdefault(id(row.handler), set()).add((row.for_locked, row.for_suspended))
    assert all(len(ways) == 1 for ways in by_handler.values())
    assert {row.path for row in client_table() if row.for_locked} == {
        f"{_CLIENT}/logout",
        f"{_CLIENT}/logout/all",
    }
