"""Rows of the client-server API's table that proposals ask for, under their unstable prefixes."""

from __future__ import annotations

from client_api.account_data import AccountDataApi
from client_api.etag_rendezvous import PATH as ETAG_RENDEZVOUS
from client_api.etag_rendezvous import EtagRendezvousApi
from client_api.rendezvous import MAX_BODY as MAX_RENDEZVOUS_BODY
from client_api.rendezvous import RendezvousApi
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
