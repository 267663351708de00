"""Bad requests of other servers: unsigned, signed wrongly, or asking for what is not theirs to know.

Paths are below ``/_matrix``; ``by`` is the stranger, a server that can prove who it is, or nobody.
"""

from __future__ import annotations

from typing import Any

from tests.flows.bad import (
    FORBIDDEN,
    MISSING,
    NO_SUCH_METHOD,
    NO_SUCH_PATH,
    NOT_FOUND,
    UNKNOWN_ROOM,
    Bad,
    bad,
)

_UNSIGNED = ("401 M_UNAUTHORIZED", "401 M_FORBIDDEN", "401 M_MISSING_TOKEN")
_BAD_QUERY = ("400 M_INVALID_PARAM", "400 M_MISSING_PARAM")
_BAD_BODY = ("400 M_BAD_JSON", "400 M_INVALID_PARAM", "400 M_MISSING_PARAM")
_NOT_JSON = ("400 M_NOT_JSON",)
_REFUSED = (*FORBIDDEN, *_BAD_BODY)
_VERSION = "GET /_matrix/federation/v1/query/directory?room_alias=$alias"

_FOR_SERVERS = (
    "GET /_matrix/federation/v1/event/$event",
    "GET /_matrix/federation/v1/state/$room?event_id=$event",
    "GET /_matrix/federation/v1/state_ids/$room?event_id=$event",
    "GET /_matrix/federation/v1/backfill/$room?v=$event&limit=10",
    "GET /_matrix/federation/v1/event_auth/$room/$event",
    "GET /_matrix/federation/v1/make_join/$room/@eve:$stranger?ver=11",
    "GET /_matrix/federation/v1/make_leave/$room/@eve:$stranger",
    "GET /_matrix/federation/v1/query/directory?room_alias=$alias",
    "GET /_matrix/federation/v1/query/profile?user_id=$alice",
    "POST /_matrix/federation/v1/get_missing_events/$room",
    "PUT /_matrix/federation/v1/invite/$room/$event",
    "PUT /_matrix/federation/v2/invite/$room/$event",
    "PUT /_matrix/federation/v2/send_join/$room/$event",
    "PUT /_matrix/federation/v2/send_leave/$room/$event",
    "PUT /_matrix/federation/v1/send/1",
)

_GARBLED = (
    ("Bearer token", "an access token"),
    ("", "an empty header"),
    ("X-Matrix", "only the scheme"),
    ("X-Matrix origin=", "an origin without a value"),
    ('X-Matrix origin="$stranger"', "no key and no signature"),
    ('X-Matrix origin="$stranger",key="ed25519:1",sig="not base64 at all!"', "a signature that is no base64"),
    ('X-Matrix origin="$stranger",key="ed25519:1",sig="AAAA"', "a signature that is too short"),
    ('X-Matrix origin="$stranger",key="rsa:1",sig="AAAA"', "another algorithm"),
    ('X-Matrix origin="$stranger",key="nonsense",sig="AAAA"', "no key's id"),
    ('X-Matrix origin="$stranger",key="ed25519:1",sig="AAAA",origin="$stranger"', "the origin twice"),
    ('X-Matrix origin="$stranger",destination="c.example",key="ed25519:1",sig="AAAA"', "another destination"),
    ('X-Matrix origin="not a name",key="ed25519:1",sig="AAAA"', "an origin that is no name"),
    ('X-Matrix origin="\u00e4\u20ac",key="ed25519:1",sig="AAAA"', "an origin of other letters"),
    ('X-Matrix origin="$server_name",key="ed25519:1",sig="AAAA"', "our own name"),
    ('X-Matrix origin="localhost:1",key="ed25519:1",sig="' + "A" * 86 + '"', "a server that is not there"),
    ('X-Matrix origin="a\\"b,key="ed25519:1",sig="AAAA"', "quotes that do not end"),
    ("X-Matrix " + 'origin="a",' * 500, "five thousand characters"),
)

_STRANGERS: tuple[Bad, ...] = (
    *(bad("no signature", request, *_UNSIGNED, body={}, by="") for request in _FOR_SERVERS),
    *(
        bad(what, _VERSION, *_UNSIGNED, *FORBIDDEN, by="", headers={"Authorization": header})
        for header, what in _GARBLED
    ),
    bad(
        "words instead of JSON",
        "PUT /_matrix/federation/v1/send/1",
        *_UNSIGNED,
        *_NOT_JSON,
        body=b"hi",
        by="",
    ),
)

_JOIN = "GET /_matrix/federation/v1/make_join"
_EVE = "@eve:$stranger"
_INCOMPATIBLE = ("400 M_INCOMPATIBLE_ROOM_VERSION",)
_SEND = "PUT /_matrix/federation/v1/send"
_NOTHING: dict[str, Any] = {"origin": "$stranger", "origin_server_ts": 1, "pdus": []}
_UNKNOWN_EVENT = (*NOT_FOUND, *FORBIDDEN)


def _asked(what: str, request: str, *answers: str, body: Any = None) -> Bad:
    return bad(what, request, *answers, body=body, by="stranger")


_MEMBERSHIPS = (
    _asked("an unknown room", f"{_JOIN}/$no_room/{_EVE}?ver=11", *NOT_FOUND),
    _asked("no room", f"{_JOIN}/lobby/{_EVE}?ver=11", *_BAD_QUERY, *NOT_FOUND),
    _asked("a version that it does not know", f"{_JOIN}/$room/{_EVE}?ver=1&ver=9", *_INCOMPATIBLE),
    _asked("no version, which is version 1", f"{_JOIN}/$room/{_EVE}", *_INCOMPATIBLE),
    _asked("another server's user", f"{_JOIN}/$room/@eve:c.example?ver=11", *FORBIDDEN, *_BAD_QUERY),
    _asked("one of our users", f"{_JOIN}/$room/$carol?ver=11", *FORBIDDEN, *_BAD_QUERY),
    _asked("no user", f"{_JOIN}/$room/eve?ver=11", *FORBIDDEN, *_BAD_QUERY),
    _asked("nobody invited them", f"{_JOIN}/$private/{_EVE}?ver=11", *FORBIDDEN),
    _asked("leaving without being there", f"GET /_matrix/federation/v1/make_leave/$room/{_EVE}", *FORBIDDEN),
    _asked("leaving an unknown room", f"GET /_matrix/federation/v1/make_leave/$no_room/{_EVE}",
           *UNKNOWN_ROOM),
    _asked("an empty join", "PUT /_matrix/federation/v2/send_join/$room/$event", *_BAD_BODY, body={}),
    _asked("a list for a join", "PUT /_matrix/federation/v2/send_join/$room/$event", *_BAD_BODY, body=[]),
    _asked("a join to an unknown room", "PUT /_matrix/federation/v2/send_join/$no_room/$event", *NOT_FOUND,
           *_REFUSED, body={}),
    _asked("a join that is a message", "PUT /_matrix/federation/v2/send_join/$room/$event", *_REFUSED,
           body={"type": "m.room.message", "sender": _EVE, "room_id": "$room", "content": {}}),
    _asked("a join of the wrong types", "PUT /_matrix/federation/v2/send_join/$room/$event", *_REFUSED,
           body={"type": 5, "sender": 5, "room_id": 5, "content": 5, "state_key": 5}),
    _asked("an empty leave", "PUT /_matrix/federation/v2/send_leave/$room/$event", *_BAD_BODY, body={}),
    _asked("an empty invite", "PUT /_matrix/federation/v2/invite/$room/$event", *_BAD_BODY, body={}),
    _asked("an invite of a version nobody knows", "PUT /_matrix/federation/v2/invite/$room/$event",
           *_INCOMPATIBLE, "400 M_UNSUPPORTED_ROOM_VERSION",
           body={"room_version": "99", "event": {}, "invite_room_state": []}),
    _asked("an invite of the wrong types", "PUT /_matrix/federation/v2/invite/$room/$event", *_REFUSED,
           body={"room_version": "11", "event": [], "invite_room_state": {}}),
    _asked("an empty invite of the first version", "PUT /_matrix/federation/v1/invite/$room/$event",
           *_BAD_BODY,
           body={}),
)  # fmt: skip

_READING = (
    _asked("an unknown event", "GET /_matrix/federation/v1/event/$no_event", *NOT_FOUND),
    _asked("no event's id", "GET /_matrix/federation/v1/event/hello", *NOT_FOUND, *_BAD_QUERY),
    _asked("an event of a room it is not in", "GET /_matrix/federation/v1/event/$secret", *_UNKNOWN_EVENT),
    _asked("the state of an unknown room", "GET /_matrix/federation/v1/state/$no_room?event_id=$event",
           *UNKNOWN_ROOM),
    _asked("the state of a room it is not in", "GET /_matrix/federation/v1/state/$room?event_id=$event",
           *FORBIDDEN),
    _asked("the state's ids of a room it is not in",
           "GET /_matrix/federation/v1/state_ids/$room?event_id=$event", *FORBIDDEN),
    _asked("state at no event", "GET /_matrix/federation/v1/state/$room", *_BAD_QUERY, *FORBIDDEN),
    _asked("the past of a room it is not in", "GET /_matrix/federation/v1/backfill/$room?v=$event&limit=10",
           *FORBIDDEN),
    _asked("the past from nowhere", "GET /_matrix/federation/v1/backfill/$room?limit=10", *_BAD_QUERY,
           *FORBIDDEN),
    _asked("less than nothing of the past", "GET /_matrix/federation/v1/backfill/$room?v=$event&limit=-1",
           *_BAD_QUERY, *FORBIDDEN),
    _asked("what authorises an event of a room it is not in",
           "GET /_matrix/federation/v1/event_auth/$room/$event", *_UNKNOWN_EVENT),
    _asked("missing events of a room it is not in", "POST /_matrix/federation/v1/get_missing_events/$room",
           *FORBIDDEN, body={"latest_events": ["$event"], "earliest_events": [], "limit": 10}),
    _asked("missing events, a string for a list", "POST /_matrix/federation/v1/get_missing_events/$room",
           *_REFUSED,
           body={"latest_events": "$event", "earliest_events": []}),
    _asked("missing events, a word for a limit", "POST /_matrix/federation/v1/get_missing_events/$room",
           *_REFUSED,
           body={"latest_events": ["$event"], "earliest_events": [], "limit": "many"}),
    _asked("no alias", "GET /_matrix/federation/v1/query/directory", *_BAD_QUERY),
    _asked("an unknown alias", "GET /_matrix/federation/v1/query/directory?room_alias=$no_alias", *NOT_FOUND),
    _asked("a word for an alias", "GET /_matrix/federation/v1/query/directory?room_alias=lobby", *_BAD_QUERY,
           *NOT_FOUND),
    _asked("no user", "GET /_matrix/federation/v1/query/profile", *_BAD_QUERY),
    _asked("an unknown user", "GET /_matrix/federation/v1/query/profile?user_id=$nobody", *NOT_FOUND),
    _asked("another server's user", "GET /_matrix/federation/v1/query/profile?user_id=@a:c.example",
           *NOT_FOUND,
           *FORBIDDEN, *_BAD_QUERY),
    _asked("an unknown question", "GET /_matrix/federation/v1/query/weather", *NO_SUCH_PATH, *NOT_FOUND,
           *_BAD_QUERY),
)  # fmt: skip

_HIERARCHY = "GET /_matrix/federation/v1/hierarchy"
_BY_TIME = "GET /_matrix/federation/v1/timestamp_to_event"
_EXCHANGE = "PUT /_matrix/federation/v1/exchange_third_party_invite/$room"
_ONBIND = "PUT /_matrix/federation/v1/3pid/onbind"
_LIST = "/_matrix/federation/v1/publicRooms"

_FINDING = (
    _asked("an unknown space", f"{_HIERARCHY}/$no_room", *NOT_FOUND),
    _asked("a space that is closed to it", f"{_HIERARCHY}/$private", *NOT_FOUND),
    _asked("perhaps only the suggested", f"{_HIERARCHY}/$room?suggested_only=perhaps", *_BAD_QUERY),
    _asked("a time in an unknown room", f"{_BY_TIME}/$no_room?ts=1&dir=f", *UNKNOWN_ROOM),
    _asked("a time in a room it is not in", f"{_BY_TIME}/$room?ts=1&dir=f", *FORBIDDEN),
    _asked("no time", f"{_BY_TIME}/$room?dir=f", *_BAD_QUERY, *FORBIDDEN),
    _asked("no direction", f"{_BY_TIME}/$room?ts=1", *_BAD_QUERY, *FORBIDDEN),
    _asked("a list from somewhere", f"GET {_LIST}?since=here", *_BAD_QUERY),
    _asked("less than nothing of a list", f"GET {_LIST}?limit=-1", *_BAD_QUERY),
    _asked("a search that is a word", f"POST {_LIST}", *_REFUSED, body={"filter": "gardens"}),
    _asked("an empty exchange", _EXCHANGE, *_BAD_BODY, body={}),
    _asked("an exchange of the wrong types", _EXCHANGE, *_REFUSED,
           body={"type": 5, "room_id": 5, "sender": 5, "state_key": 5, "content": 5}),
    _asked("an exchange for somebody else", _EXCHANGE, *_REFUSED,
           body={"type": "m.room.member", "room_id": "$room", "sender": "$alice", "state_key": "$carol",
                 "content": {"membership": "invite", "third_party_invite": {"signed": {}}}}),
    bad("nothing bound", _ONBIND, *_BAD_BODY, body={}, by=""),
    bad("an address bound to nobody", _ONBIND, *NOT_FOUND, by="",
        body={"medium": "email", "address": "a@b.example", "mxid": "$nobody", "invites": []}),
    bad("words for invites", _ONBIND, *_BAD_BODY, by="",
        body={"medium": "email", "address": "a@b.example", "mxid": "$alice", "invites": "many"}),
    bad("no OpenID token", "GET /_matrix/federation/v1/openid/userinfo", *_BAD_QUERY, by=""),
    bad("a made-up OpenID token", "GET /_matrix/federation/v1/openid/userinfo?access_token=x",
        "401 M_UNKNOWN_TOKEN", by=""),
)  # fmt: skip

_TRANSACTIONS = (
    _asked("more than 50 events", f"{_SEND}/too-many-events", *_BAD_BODY, "413 M_TOO_LARGE",
        "400 M_TOO_LARGE",
           body={**_NOTHING, "pdus": [{}] * 51}),
    _asked("more than 100 ephemeral events", f"{_SEND}/too-many-edus", *_BAD_BODY, "413 M_TOO_LARGE",
           "400 M_TOO_LARGE", body={**_NOTHING, "edus": [{"edu_type": "m.typing", "content": {}}] * 101}),
    _asked("an object for events", f"{_SEND}/object", *_BAD_BODY, body={**_NOTHING, "pdus": {}}),
    _asked("a string for ephemeral events", f"{_SEND}/string", *_BAD_BODY,
        body={**_NOTHING, "edus": "typing"}),
    _asked("a list for a transaction", f"{_SEND}/list", *_BAD_BODY, body=[]),
)  # fmt: skip

_KEYS = (
    bad("a list for servers", "POST /_matrix/key/v2/query", *_BAD_BODY, body={"server_keys": []}, by=""),
    bad("no servers", "POST /_matrix/key/v2/query", *MISSING, body={}, by=""),
    bad("words instead of JSON", "POST /_matrix/key/v2/query", *_NOT_JSON, body=b"keys", by=""),
    bad("no such endpoint", "GET /_matrix/federation/v1/weather", *NO_SUCH_PATH, *_UNSIGNED, by=""),
    bad("the wrong method", "POST /_matrix/federation/v1/version", *NO_SUCH_METHOD, body={}, by=""),
    bad("an endpoint of clients on the servers' port", "GET /_matrix/client/v3/account/whoami", *NO_SUCH_PATH,
        by=""),
)  # fmt: skip

SERVERS: tuple[Bad, ...] = (*_STRANGERS, *_MEMBERSHIPS, *_READING, *_FINDING, *_TRANSACTIONS, *_KEYS)
