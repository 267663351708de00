"""Rows of the client-server API's table about rooms, and what application services have beside them."""

from __future__ import annotations

from client_api.apis import ClientApi
from client_api.search import SearchApi
from homeserver.web import Access, Route

_PUBLIC, _MAYBE = Access.PUBLIC, Access.USER_OR_NOBODY


def room_rows(api: ClientApi) -> list[Route]:
    """Rooms: finding, entering and leaving them, their events and state."""
    membership, messages, send, directory = api.membership, api.messages, api.send, api.directory
    room = "/_matrix/client/v3/rooms/{roomId}"
    alias = "/_matrix/client/v3/directory/room/{roomAlias}"
    return [
        Route(
            "POST", "/_matrix/client/v3/createRoom", api.rooms.create_room, limit="join", for_suspended=False
        ),
        Route("GET", "/_matrix/client/v3/joined_rooms", api.rooms.joined_rooms),
        Route("GET", alias, directory.alias, _PUBLIC),
        Route("PUT", alias, directory.add_alias, for_suspended=False),
        Route("DELETE", alias, directory.remove_alias, for_suspended=False),
        Route("GET", "/_matrix/client/v3/directory/list/room/{roomId}", directory.visibility, _PUBLIC),
        Route(
            "PUT",
            "/_matrix/client/v3/directory/list/room/{roomId}",
            directory.set_visibility,
            for_suspended=False,
        ),
        Route("GET", "/_matrix/client/v3/publicRooms", api.public_rooms.list),
        Route("POST", "/_matrix/client/v3/publicRooms", api.public_rooms.search),
        Route("GET", "/_matrix/client/v1/room_summary/{roomIdOrAlias}", api.spaces.summary, _MAYBE),
        Route("GET", "/_matrix/client/v1/rooms/{roomId}/hierarchy", api.spaces.hierarchy),
        Route("GET", "/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", api.moments.closest),
        Route(
            "POST",
            "/_matrix/client/v3/join/{roomIdOrAlias}",
            membership.join,
            limit="join",
            for_suspended=False,
        ),
        Route(
            "POST",
            "/_matrix/client/v3/knock/{roomIdOrAlias}",
            membership.knock,
            limit="join",
            for_suspended=False,
        ),
        Route("POST", f"{room}/join", membership.join_by_id, limit="join", for_suspended=False),
        Route("POST", f"{room}/leave", membership.leave),
        Route("POST", f"{room}/forget", membership.forget),
        Route("POST", f"{room}/invite", membership.invite, limit="invite", for_suspended=False),
        Route("POST", f"{room}/kick", membership.kick, for_suspended=False),
        Route("POST", f"{room}/ban", membership.ban, for_suspended=False),
        Route("POST", f"{room}/unban", membership.unban, for_suspended=False),
        Route("POST", f"{room}/upgrade", api.rooms.upgrade_room, limit="join", for_suspended=False),
        Route("GET", f"{room}/aliases", api.rooms.aliases),
        Route("GET", f"{room}/context/{{eventId}}", messages.context),
        Route("GET", f"{room}/event/{{eventId}}", messages.event),
        Route("GET", f"{room}/joined_members", messages.joined_members),
        Route("GET", f"{room}/members", messages.members),
        Route("GET", f"{room}/messages", messages.messages),
        Route("GET", f"{room}/state", messages.state),
        Route("GET", f"{room}/state/{{eventType}}", messages.state_event),
        Route("GET", f"{room}/state/{{eventType}}/{{stateKey}}", messages.state_event),
        Route("PUT", f"{room}/state/{{eventType}}", send.set_state, limit="message"),
        Route("PUT", f"{room}/state/{{eventType}}/{{stateKey}}", send.set_state, limit="message"),
        Route("PUT", f"{room}/send/{{eventType}}/{{txnId}}", send.send_message, limit="message"),
        Route("POST", f"{room}/send/{{eventType}}", send.send_message_anew, limit="message"),
        Route("PUT", f"{room}/redact/{{eventId}}/{{txnId}}", send.redact, limit="message"),
        Route("POST", f"{room}/read_markers", api.ephemeral.set_read_markers),
        Route("POST", f"{room}/receipt/{{receiptType}}/{{eventId}}", api.ephemeral.send_receipt),
        Route("PUT", f"{room}/typing/{{userId}}", api.ephemeral.set_typing),
    ]


def event_stream_rows(api: ClientApi) -> list[Route]:
    """``/events`` and ``/initialSync``, as clients had them before ``/sync``."""
    streams = api.event_streams
    return [
        Route("GET", "/_matrix/client/v3/events", streams.events),
        Route("GET", "/_matrix/client/v3/events/{eventId}", streams.event),
        Route("GET", "/_matrix/client/v3/initialSync", streams.initial_sync),
        Route("GET", "/_matrix/client/v3/rooms/{roomId}/initialSync", streams.room_initial_sync),
    ]


def relation_rows(api: ClientApi) -> list[Route]:
    """What relates to an event, and threads."""
    room, relations = "/_matrix/client/v1/rooms/{roomId}", api.relations
    children = f"{room}/relations/{{eventId}}"
    return [
        Route("GET", children, relations.children),
        Route("GET", f"{children}/{{relType}}", relations.children),
        Route("GET", f"{children}/{{relType}}/{{eventType}}", relations.children),
        Route("GET", f"{room}/threads", relations.threads),
    ]


def appservice_rows(api: ClientApi) -> list[Route]:
    """What application services ask, and the networks they speak for."""
    networks, services = "/_matrix/client/v3/thirdparty", api.appservices
    directory = "/_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}"
    return [
        Route("POST", "/_matrix/client/v1/appservice/{appserviceId}/ping", services.ping),
        Route("PUT", directory, services.set_visibility),
        Route("GET", f"{networks}/protocols", api.third_party.protocols),
        Route("GET", f"{networks}/protocol/{{protocol}}", api.third_party.protocol),
        Route("GET", f"{networks}/location", api.third_party.about_alias),
        Route("GET", f"{networks}/location/{{protocol}}", api.third_party.locations),
        Route("GET", f"{networks}/user", api.third_party.about_user),
        Route("GET", f"{networks}/user/{{protocol}}", api.third_party.users),
    ]


def search_rows(search: SearchApi) -> list[Route]:
    """Searching in rooms."""
    return [Route("POST", "/_matrix/client/v3/search", search.search, limit="search")]
