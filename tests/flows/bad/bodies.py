"""Bodies that are not JSON, not an object, or hold what no event may."""

from __future__ import annotations

from tests.flows.bad import BAD_JSON, NOT_JSON, TOO_LARGE, Bad, bad

_SEND = "PUT /rooms/$room/send/m.room.message/bodies"
_FILTER = "POST /user/$alice/filter"
_EITHER = (*NOT_JSON, *BAD_JSON)

#: Every endpoint that takes a body, with a path that is fine.  Not /leave: it has no field but a reason,
#: and servers let clients leave whatever they say.
_WITH_BODY = (
    "POST /createRoom",
    "POST /join/$room",
    "POST /rooms/$room/join",
    "POST /rooms/$room/invite",
    "POST /rooms/$room/kick",
    "POST /rooms/$room/ban",
    "POST /rooms/$room/unban",
    "PUT /rooms/$room/send/m.room.message/form",
    "PUT /rooms/$room/state/m.room.topic",
    "PUT /rooms/$room/state/m.room.topic/",
    "PUT /rooms/$room/redact/$event/form",
    "PUT /rooms/$room/typing/$alice",
    "POST /rooms/$room/read_markers",
    "POST /rooms/$room/receipt/m.read/$event",
    "POST /rooms/$room/upgrade",
    "PUT /directory/room/$free_alias",
    "PUT /profile/$alice/displayname",
    "PUT /user/$alice/account_data/org.example",
    "PUT /user/$alice/rooms/$room/account_data/org.example",
    "PUT /user/$alice/rooms/$room/tags/u.work",
    "POST /user/$alice/filter",
    "PUT /presence/$alice/status",
    "PUT /devices/$device",
    "POST /delete_devices",
    "POST /login",
    "POST /register",
    "POST /refresh",
    "POST /account/password",
    "POST /account/deactivate",
    "PUT /pushrules/global/override/mine",
    "PUT /pushrules/global/override/.m.rule.master/enabled",
    "PUT /pushrules/global/override/.m.rule.master/actions",
)

_FORMS: tuple[Bad, ...] = tuple(
    row
    for request in _WITH_BODY
    for row in (
        bad("words instead of JSON", request, *NOT_JSON, body=b"please"),
        bad("an array instead of an object", request, *BAD_JSON, body=[]),
    )
)

_SYNTAX = (
    bad("no body at all", _SEND, *NOT_JSON, *BAD_JSON, body=b""),
    bad("half an object", _SEND, *NOT_JSON, body=b'{"body": "hi"'),
    bad("a comma too many", _SEND, *NOT_JSON, body=b'{"body": "hi",}'),
    bad("single quotes", _SEND, *NOT_JSON, body=b"{'body': 'hi'}"),
    bad("two objects", _SEND, *NOT_JSON, body=b"{}{}"),
    bad("a comment", _SEND, *NOT_JSON, body=b"{} // hi"),
    bad("a raw NUL", _SEND, *NOT_JSON, body=b'{"body": "\x00"}'),
    bad("a raw line break in a string", _SEND, *NOT_JSON, body=b'{"body": "\n"}'),
    bad("an unknown escape", _SEND, *NOT_JSON, body=rb'{"body": "\x41"}'),
    bad("a form", _SEND, *NOT_JSON, body=b"body=hi&msgtype=m.text"),
    bad("broken UTF-8 in a value", _SEND, *_EITHER, body=b'{"body": "\xff\xfe"}'),
    bad("broken UTF-8 in a key", _SEND, *_EITHER, body=b'{"\xc3\x28": 1}'),
    bad("an overlong encoding", _SEND, *_EITHER, body=b'{"body": "\xc0\xaf"}'),
    bad("a surrogate encoded in UTF-8", _SEND, *_EITHER, body=b'{"body": "\xed\xa0\x80"}'),
    bad("half a character at the end", _SEND, *_EITHER, body=b'{"body": "\xe2\x82'),
    bad("UTF-16", _SEND, *_EITHER, body='{"body": "hi"}'.encode("utf-16")),
    bad("a lone high surrogate", _SEND, *_EITHER, body=rb'{"body": "\ud800"}'),
    bad("a lone low surrogate", _SEND, *_EITHER, body=rb'{"body": "\udc00 hi"}'),
    bad("a lone surrogate in a key", _SEND, *_EITHER, body=rb'{"\ud800": "hi"}'),
    bad("a lone surrogate in account data", "PUT /user/$alice/account_data/org.example", *_EITHER,
        body=rb'{"a": "\ud800"}'),
    bad("a lone surrogate in a display name", "PUT /profile/$alice/displayname", *_EITHER,
        body=rb'{"displayname": "\ud800"}'),
    bad("a lone surrogate in a filter", _FILTER, *_EITHER, body=rb'{"event_fields": ["\ud800"]}'),
    bad("NaN", _SEND, *NOT_JSON, body=b'{"n": NaN}'),
    bad("Infinity", _SEND, *NOT_JSON, body=b'{"n": -Infinity}'),
    bad("NaN in account data", "PUT /user/$alice/account_data/org.example", *NOT_JSON, body=b'{"n": NaN}'),
    bad("a number that begins with zero", _SEND, *NOT_JSON, body=b'{"n": 007}'),
    bad("10,000 opening brackets", _SEND, *_EITHER, body=b"[" * 10_000),
    bad("10,000 arrays in each other", _SEND, *_EITHER, body=b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
    bad("10,000 objects in each other", _SEND, *_EITHER, body=b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    bad("10,000 objects in each other as a filter", _FILTER, *_EITHER,
        body=b'{"a":' * 10_000 + b"1" + b"}" * 10_000),
    bad("10,000 arrays in each other as account data", "PUT /user/$alice/account_data/org.example", *_EITHER,
        body=b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}"),
)  # fmt: skip

_KINDS = (
    bad("null instead of an object", _SEND, *BAD_JSON, body=b"null"),
    bad("true instead of an object", _SEND, *BAD_JSON, body=b"true"),
    bad("a string instead of an object", _SEND, *BAD_JSON, body=b'"hi"'),
    bad("a number instead of an object", _SEND, *BAD_JSON, body=b"5"),
    bad("an array of objects", _SEND, *BAD_JSON, body=[{"body": "hi"}]),
)

#: Canonical JSON, which events are made of since room version 6, has whole numbers up to 2**53 - 1 only.
_NUMBERS = (
    bad("a fraction in an event", _SEND, *BAD_JSON, body={"n": 1.5}),
    bad("a fraction deep in an event", _SEND, *BAD_JSON, body={"n": [{"m": [0.1]}]}),
    bad("an exponent in an event", _SEND, *BAD_JSON, body=b'{"n": 2e-1}'),
    bad("1e400 in an event", _SEND, *_EITHER, body=b'{"n": 1e400}'),
    bad("-1e400 in an event", _SEND, *_EITHER, body=b'{"n": -1e400}'),
    bad("2**53 in an event", _SEND, *BAD_JSON, body={"n": 2**53}),
    bad("-2**53 in an event", _SEND, *BAD_JSON, body={"n": -(2**53)}),
    bad("2**63 in an event", _SEND, *BAD_JSON, body={"n": 2**63}),
    bad("2**70 in an event", _SEND, *BAD_JSON, body={"n": 2**70}),
    bad("a number of 5,000 digits in an event", _SEND, *_EITHER, body=b'{"n": ' + b"9" * 5000 + b"}"),
    bad("2**53 in a state event", "PUT /rooms/$room/state/org.example", *BAD_JSON, body={"n": 2**53}),
    bad("a fraction in a state event", "PUT /rooms/$room/state/org.example", *BAD_JSON, body={"n": 0.5}),
)

_SIZES = (
    bad("an event of 70 kB", _SEND, *TOO_LARGE, body={"body": "x" * 70_000}),
    bad("an event of 70 kB of small fields", _SEND, *TOO_LARGE,
        body={f"k{n}": "x" * 8 for n in range(4_000)}),
    bad("a state event of 70 kB", "PUT /rooms/$room/state/m.room.topic", *TOO_LARGE,
        body={"topic": "x" * 70_000}),
    bad("65,536 bytes that the rest of the event puts over the limit", _SEND, *TOO_LARGE,
        body={"body": "x" * 65_400}),
    bad("an event over the limit in characters of three bytes", _SEND, *TOO_LARGE,
        body={"body": "\u20ac" * 22_000}),
    bad("a reason of 70 kB", "POST /rooms/$room/kick", *TOO_LARGE,
        body={"user_id": "$bob", "reason": "x" * 70_000}),
    bad("a body of 11 MiB", _SEND, *TOO_LARGE, body=b'{"body": "' + b"x" * (11 * 1024 * 1024) + b'"}'),
    bad("a login of 11 MiB", "POST /login", *TOO_LARGE,
        body=b'{"type": "' + b"x" * (11 * 1024 * 1024) + b'"}', by=""),
)  # fmt: skip

BODIES: tuple[Bad, ...] = (*_FORMS, *_SYNTAX, *_KINDS, *_NUMBERS, *_SIZES)
