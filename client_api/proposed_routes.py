"""Rows of the client-server API's table that proposals ask for, most of them under unstable prefixes."""

from __future__ import annotations

from client_api.account_data import AccountDataApi
from client_api.calls import CallsApi
from client_api.dehydration import DehydratedDeviceApi
from client_api.delayed_events import DelayedEventsApi
from client_api.etag_rendezvous import PATH as ETAG_RENDEZVOUS
from client_api.etag_rendezvous import EtagRendezvousApi
from client_api.live.event_source import EventSourceApi
from client_api.live.web_socket import WebSocketApi
from client_api.rendezvous import MAX_BODY as MAX_RENDEZVOUS_BODY
from client_api.rendezvous import RendezvousApi
from client_api.sliding_sync import SlidingSyncApi
from client_api.threads import ThreadsApi
from homeserver.users.rendezvous import MAX_PAYLOAD_BYTES
from homeserver.web import Access, Route

_PUBLIC, _MAYBE = Access.PUBLIC, Access.USER_OR_NOBODY


def account_data_deletion_rows(data: AccountDataApi) -> list[Route]:
    """Deleting account data (MSC3391)."""
    user = "/_matrix/client/unstable/org.matrix.msc3391/user/{userId}"
    return [
        Route("DELETE", f"{user}/account_data/{{type}}", data.delete),
        Route("DELETE", f"{user}/rooms/{{roomId}}/account_data/{{type}}", data.delete),
    ]


def rendezvous_rows(json: RendezvousApi, etag: EtagRendezvousApi) -> list[Route]:
    """Rendezvous sessions (MSC4388, MSC4108).  Creating one counts as an attempt to log in."""
    if not json.enabled:
        return []
    place, limit, text = (
        "/_matrix/client/unstable/io.element.msc4388/rendezvous",
        "rendezvous",
        MAX_PAYLOAD_BYTES,
    )
    session, etag_session = f"{place}/{{rendezvousId}}", f"{ETAG_RENDEZVOUS}/{{rendezvousId}}"
    return [
        Route("GET", place, json.discover, _MAYBE, limit),
        Route("POST", place, json.create, _MAYBE, "login", max_body=MAX_RENDEZVOUS_BODY),
        Route("GET", session, json.payload, _PUBLIC, limit),
        Route("PUT", session, json.replace, _PUBLIC, limit, max_body=MAX_RENDEZVOUS_BODY),
        Route("DELETE", session, json.remove, _PUBLIC, limit),
        Route("POST", ETAG_RENDEZVOUS, etag.create, _MAYBE, "login", max_body=text),
        Route("GET", etag_session, etag.payload, _PUBLIC, limit),
        Route("PUT", etag_session, etag.replace, _PUBLIC, limit, max_body=text),
        Route("DELETE", etag_session, etag.remove, _PUBLIC, limit),
    ]


def sliding_sync_rows(sliding: SlidingSyncApi) -> list[Route]:
    """Sliding sync, in both of its forms (MSC4186)."""
    return [
        Route("POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", sliding.unstable),
        Route("POST", "/_matrix/client/v4/sync", sliding.stable),
    ]


def dehydrated_device_rows(dehydrated: DehydratedDeviceApi) -> list[Route]:
    """Dehydrated devices (MSC3814)."""
    path = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
    return [
        Route("PUT", path, dehydrated.put),
        Route("GET", path, dehydrated.device),
        Route("DELETE", path, dehydrated.delete),
        Route("GET", f"{path}/{{device_id}}/events", dehydrated.events),
        Route("POST", f"{path}/{{device_id}}/events", dehydrated.events_as_before),
    ]


def live_rows(events: EventSourceApi, socket: WebSocketApi) -> list[Route]:
    """Streams that tell what ``/sync`` does (MSC2108, the WebSockets draft)."""
    unstable = "/_matrix/client/unstable"
    return [
        Route("GET", "/_matrix/client/v3/sync/sse", events.events, streams=True),
        Route("GET", f"{unstable}/org.matrix.msc2108/sync/sse", events.events, streams=True),
        Route("GET", "/_matrix/client/v3/stream", socket.stream, streams=True),
        Route("GET", f"{unstable}/stream", socket.stream, streams=True),
    ]


def call_rows(calls: CallsApi, delayed: DelayedEventsApi) -> list[Route]:
    """What MatrixRTC is made of; by the unstable path, knowing a delay id is enough to manage the event."""
    v1, unstable = "/_matrix/client/v1", "/_matrix/client/unstable"
    before = f"{unstable}/org.matrix.msc4140"
    rows = [
        Route("GET", f"{v1}/rtc/transports", calls.rtc_transports),
        Route("GET", f"{unstable}/org.matrix.msc4143/rtc/transports", calls.rtc_transports),
        Route("POST", f"{before}/delayed_events/{{delayId}}", delayed.manage_as_before, _MAYBE, "message"),
    ]
    for prefix, events, access in (
        ("/_matrix/client/v3", f"{v1}/delayed_events", Access.USER),
        (before, f"{before}/delayed_events", _MAYBE),
    ):
        schedule = f"{prefix}/rooms/{{roomId}}/delayed_event/{{eventType}}/{{txnId}}"
        rows += [
            Route("PUT", schedule, delayed.schedule, limit="message"),
            Route("GET", events, delayed.all),
            Route("GET", f"{events}/{{delayId}}", delayed.one),
            Route("POST", f"{events}/{{delayId}}/{{action}}", delayed.manage, access, "message"),
        ]
    return rows


def thread_rows(threads: ThreadsApi) -> list[Route]:
    """Thread subscriptions, and what changed in threads (MSC4306, MSC4308, MSC4360)."""
    unstable = "/_matrix/client/unstable"
    subscription = f"{unstable}/io.element.msc4306/rooms/{{roomId}}/thread/{{threadRootId}}/subscription"
    return [
        Route("GET", subscription, threads.subscription),
        Route("PUT", subscription, threads.subscribe),
        Route("DELETE", subscription, threads.unsubscribe),
        Route("GET", f"{unstable}/io.element.msc4308/thread_subscriptions", threads.changes),
        Route("GET", f"{unstable}/io.element.msc4360/thread_updates", threads.updates),
    ]
