"""Callers who do not say who they are, paths that lead nowhere, and methods they do not have."""

from __future__ import annotations

from tests.flows.bad import BAD_QUERY, NO_SUCH_METHOD, NO_SUCH_PATH, Bad, bad

_MISSING_TOKEN = ("401 M_MISSING_TOKEN",)
_UNKNOWN_TOKEN = ("401 M_UNKNOWN_TOKEN",)
_EITHER = (*_MISSING_TOKEN, *_UNKNOWN_TOKEN)
_WHOAMI = "GET /account/whoami"

_FOR_USERS = (
    _WHOAMI,
    "GET /sync",
    "GET /joined_rooms",
    "GET /capabilities",
    "GET /devices",
    "GET /pushrules/",
    "GET /rooms/$room/state",
    "GET /rooms/$room/messages?dir=b",
    "GET /rooms/$room/event/$event",
    "GET /user/$alice/account_data/org.example",
    "POST /createRoom",
    "POST /join/$room",
    "POST /rooms/$room/invite",
    "POST /logout",
    "POST /logout/all",
    "PUT /rooms/$room/send/m.room.message/tokens",
    "PUT /rooms/$room/state/m.room.topic",
    "PUT /rooms/$room/typing/$alice",
    "PUT /profile/$alice/displayname",
    "PUT /directory/room/$free_alias",
    "DELETE /devices/$device",
)


def _with(authorization: str) -> dict[str, str]:
    return {"Authorization": authorization}


_TOKENS: tuple[Bad, ...] = (
    *(bad("no access token", request, *_MISSING_TOKEN, body={}, by="") for request in _FOR_USERS),
    bad("an empty Authorization header", _WHOAMI, *_EITHER, by="", headers=_with("")),
    bad("Bearer and nothing", _WHOAMI, *_EITHER, by="", headers=_with("Bearer")),
    bad("another scheme", _WHOAMI, *_EITHER, by="", headers=_with("Basic YWxpY2U6aGVsbG8=")),
    bad("a signature of a server", _WHOAMI, *_EITHER, by="",
        headers=_with('X-Matrix origin="a.example",key="ed25519:1",sig="AA"')),
    bad("an invented token", _WHOAMI, *_UNKNOWN_TOKEN, by="", headers=_with("Bearer nonsense")),
    bad("a token with letters of many bytes", _WHOAMI, *_UNKNOWN_TOKEN,
        by="", headers=_with("Bearer \u00e4\u20ac")),
    bad("a token of 7,000 characters", _WHOAMI, *_UNKNOWN_TOKEN,
        by="", headers=_with("Bearer " + "x" * 7_000)),
    bad("two tokens in a header", _WHOAMI, *_EITHER, by="", headers=_with("Bearer one two")),
    bad("an invented token in the query", f"{_WHOAMI}?access_token=nonsense", *_UNKNOWN_TOKEN, by=""),
    bad("an empty token in the query", f"{_WHOAMI}?access_token=", *_EITHER, by=""),
    bad("a NUL in the token", f"{_WHOAMI}?access_token=a%00b", *_UNKNOWN_TOKEN, *BAD_QUERY, by=""),
    bad("broken UTF-8 in the token", f"{_WHOAMI}?access_token=%ff%fe", *_UNKNOWN_TOKEN, *BAD_QUERY, by=""),
    bad("a token of a session that was ended", _WHOAMI, *_UNKNOWN_TOKEN, by="ended"),
    bad("a token of a session that was ended, writing", "PUT /rooms/$room/send/m.room.message/ended",
        *_UNKNOWN_TOKEN, body={}, by="ended"),
    bad("a token that was refreshed", _WHOAMI, *_UNKNOWN_TOKEN, by="refreshed"),
    bad("a token of somebody who is gone", _WHOAMI, *_UNKNOWN_TOKEN, by="gone"),
    bad("a refresh token", _WHOAMI, *_UNKNOWN_TOKEN, by="refresh_token"),
    bad("an invented token where none is needed for reading", "PUT /directory/list/room/$room",
        *_UNKNOWN_TOKEN, body={}, by="", headers=_with("Bearer nonsense")),
)  # fmt: skip

_PATHS = (
    bad("no such endpoint", "GET /nothing", *NO_SUCH_PATH),
    bad("no such endpoint, for nobody", "GET /nothing", *NO_SUCH_PATH, by=""),
    bad("no such version of the API", "GET /_matrix/client/v9/sync", *NO_SUCH_PATH),
    bad("no such API", "GET /_matrix/nothing/v1/hello", *NO_SUCH_PATH),
    bad("only the beginning", "GET /_matrix", *NO_SUCH_PATH),
    bad("only a room", "GET /rooms/$room", *NO_SUCH_PATH),
    bad("a slash too many at the end", "GET /sync/", *NO_SUCH_PATH),
    bad("a slash too many at the beginning", "GET //_matrix/client/versions", *NO_SUCH_PATH),
    bad("an encoded slash where a real one belongs", "GET /rooms%2F$room/messages", *NO_SUCH_PATH),
    bad("an encoded slash behind the room", "GET /rooms/$room%2Fmessages", *NO_SUCH_PATH),
    bad("two segments too many", "PUT /rooms/$room/send/m.room.message/1/2/3", *NO_SUCH_PATH, body={}),
    bad("encoded dots", "GET /_matrix/client/%2e%2e/%2e%2e/etc/passwd", *NO_SUCH_PATH),
    bad("a path of 6,000 characters", "GET /" + "x" * 6_000, *NO_SUCH_PATH),
    bad("a path of 2,000 segments", "GET " + "/x" * 2_000, *NO_SUCH_PATH),
    bad("broken UTF-8 in a room id", "GET /rooms/%ff%fe/state", *BAD_QUERY),
    bad("broken UTF-8 in an unknown path", "GET /%c3%28", *BAD_QUERY, *NO_SUCH_PATH),
    bad("a surrogate in a room id", "GET /rooms/%ed%a0%80/state", *BAD_QUERY),
    bad("broken UTF-8 in an event type", "PUT /rooms/$room/send/%ff/t1", *BAD_QUERY, body={}),
    bad("broken UTF-8 in a transaction id", "PUT /rooms/$room/send/m.room.message/%ff", *BAD_QUERY, body={}),
    bad("broken UTF-8 in a user id", "GET /profile/@%ff:example.org", *BAD_QUERY, by=""),
    bad("broken UTF-8 in the query", "GET /sync?since=%ff", *BAD_QUERY),
    bad("broken UTF-8 in a query's name", "GET /sync?%ff=1", *BAD_QUERY),
    bad("a NUL in a room id", "GET /rooms/%00/state", *BAD_QUERY),
    bad("a NUL in an event type", "PUT /rooms/$room/send/m.room%00/t1", *BAD_QUERY, body={}),
    bad("a NUL in a state key", "PUT /rooms/$room/state/org.example/a%00b", *BAD_QUERY, body={}),
    bad("a NUL in a transaction id", "PUT /rooms/$room/send/m.room.message/a%00b", *BAD_QUERY, body={}),
    bad("a NUL in a device id", "PUT /devices/a%00b", *BAD_QUERY, body={}),
    bad("a NUL in the query", "GET /rooms/$room/messages?dir=b&from=a%00b", *BAD_QUERY),
    bad("a hundred thousand parameters' worth of nothing", "GET /sync?" + "a&" * 3_000, *BAD_QUERY),
)

_METHODS = (
    bad("the wrong method", "GET /createRoom", *NO_SUCH_METHOD),
    bad("the wrong method, for nobody", "GET /createRoom", *NO_SUCH_METHOD, by=""),
    bad("the wrong method", "POST /sync", *NO_SUCH_METHOD, body={}),
    bad("the wrong method", "PUT /login", *NO_SUCH_METHOD, body={}, by=""),
    bad("the wrong method", "DELETE /rooms/$room/state", *NO_SUCH_METHOD),
    bad("the wrong method", "POST /rooms/$room/send/m.room.message/t1", *NO_SUCH_METHOD, body={}),
    bad("the wrong method", "DELETE /rooms/$room/event/$event", *NO_SUCH_METHOD),
    bad("the wrong method", "POST /_matrix/client/versions", *NO_SUCH_METHOD, body={}, by=""),
    bad("a method that HTTP has and we have not", "PATCH /profile/$alice/displayname", *NO_SUCH_METHOD,
        body={}),
    bad("an endpoint of other servers on the clients' port", "GET /_matrix/federation/v1/version",
        *NO_SUCH_PATH, by=""),
    bad("a server's write on the clients' port", "PUT /_matrix/federation/v1/send/t1", *NO_SUCH_PATH,
        body={}, by=""),
)  # fmt: skip

CALLERS: tuple[Bad, ...] = (*_TOKENS, *_PATHS, *_METHODS)
