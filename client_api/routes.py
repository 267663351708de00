"""The client-server API as a table, in the specification's order of paths.

Each row: method, path as the specification writes it, handler, who may call, rate limit.
"""

from __future__ import annotations

from client_api.account_routes import (
    account_rows,
    address_rows,
    contact_rows,
    key_backup_rows,
    login_rows,
    pusher_rows,
    user_rows,
)
from client_api.apis import ClientApi
from client_api.guests import open_to_guests
from client_api.media_routes import media_rows, preview_rows
from client_api.proposed_routes import (
    account_data_deletion_rows,
    call_rows,
    dehydrated_device_rows,
    live_rows,
    rendezvous_rows,
    sliding_sync_rows,
    thread_rows,
)
from client_api.room_routes import appservice_rows, event_stream_rows, relation_rows, room_rows, search_rows
from homeserver.web import Route


def client_routes(api: ClientApi) -> list[Route]:
    """Every row."""
    rows = [
        *account_rows(api),
        *login_rows(api),
        *address_rows(api),
        *user_rows(api),
        *key_backup_rows(api.key_backup),
        *dehydrated_device_rows(api.dehydrated),
        *room_rows(api),
        *event_stream_rows(api),
        *relation_rows(api),
        *thread_rows(api.threads),
        *pusher_rows(api),
        *media_rows(api.media),
        *preview_rows(api.previews),
        *appservice_rows(api),
        *contact_rows(api),
        *search_rows(api.search),
        *account_data_deletion_rows(api.account_data),
        *rendezvous_rows(api.rendezvous, api.etag_rendezvous),
        *sliding_sync_rows(api.sliding_sync),
        *live_rows(api.event_source, api.web_socket),
        *call_rows(api.calls, api.delayed_events),
    ]
    return open_to_guests(rows)
