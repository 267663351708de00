"""Bad requests about events: sending and reading them, paging and syncing."""

from __future__ import annotations

from tests.flows.bad import (
    BAD_QUERY,
    FORBIDDEN,
    MISSING,
    NOT_FOUND,
    NOT_JSON,
    UNKNOWN_ROOM,
    WRONG_VALUE,
    Bad,
    bad,
)

_MESSAGE = {"msgtype": "m.text", "body": "hello"}
_UNKNOWN_EVENT = ("404 M_NOT_FOUND", "403 M_FORBIDDEN")
_REFUSED = (*FORBIDDEN, *WRONG_VALUE)
_TOO_LONG = (*WRONG_VALUE, "400 M_TOO_LARGE", "413 M_TOO_LARGE")
_LEVELS = "PUT /rooms/$room/state/m.room.power_levels"
_ALIAS = "PUT /rooms/$room/state/m.room.canonical_alias"

_SENDING = (
    bad("from outside", "PUT /rooms/$room/send/m.room.message/1", *FORBIDDEN, body=_MESSAGE, by="carol"),
    bad("when banned", "PUT /rooms/$room/send/m.room.message/1", *FORBIDDEN, body=_MESSAGE, by="mallory"),
    bad("when only invited", "PUT /rooms/$invited/send/m.room.message/1", *FORBIDDEN,
        body=_MESSAGE, by="carol"),
    bad("into an unknown room", "PUT /rooms/$no_room/send/m.room.message/1", *UNKNOWN_ROOM, body=_MESSAGE),
    bad("into no room", "PUT /rooms/lobby/send/m.room.message/1", *BAD_QUERY, *UNKNOWN_ROOM, body=_MESSAGE),
    bad("into a user", "PUT /rooms/$bob/send/m.room.message/1", *BAD_QUERY, *UNKNOWN_ROOM, body=_MESSAGE),
    bad("into an alias", "PUT /rooms/$alias/send/m.room.message/1", *BAD_QUERY, *UNKNOWN_ROOM, body=_MESSAGE),
    bad("into a room without id", "PUT /rooms//send/m.room.message/1", *BAD_QUERY, *UNKNOWN_ROOM,
        "404 M_UNRECOGNIZED", body=_MESSAGE),
    bad("without the power for it", "PUT /rooms/$strict/send/m.room.message/1", *FORBIDDEN,
        body=_MESSAGE, by="bob"),
    bad("a membership that is no state", "PUT /rooms/$room/send/m.room.member/1", *_REFUSED,
        body={"membership": "join"}),
    bad("a second beginning of a room", "PUT /rooms/$room/send/m.room.create/1", *_REFUSED, body={}),
    bad("power levels that are no state, without the power", "PUT /rooms/$room/send/m.room.power_levels/1",
        *_REFUSED, body={}, by="bob"),
    bad("a type of 300 characters", "PUT /rooms/$room/send/" + "a" * 300 + "/1", *_TOO_LONG, body=_MESSAGE),
    bad("a type of 300 bytes", "PUT /rooms/$room/send/" + "%E2%82%AC" * 100 + "/1", *_TOO_LONG,
        body=_MESSAGE),
)  # fmt: skip

_STATE = (
    bad("from outside", "PUT /rooms/$room/state/m.room.topic", *FORBIDDEN, body={"topic": "x"}, by="carol"),
    bad("without the power for it", "PUT /rooms/$room/state/m.room.topic", *FORBIDDEN,
        body={"topic": "x"}, by="bob"),
    bad("into an unknown room", "PUT /rooms/$no_room/state/m.room.topic", *UNKNOWN_ROOM, body={"topic": "x"}),
    bad("another beginning of the room", "PUT /rooms/$room/state/m.room.create", *_REFUSED, body={}),
    bad("a state key that is another user", "PUT /rooms/$room/state/org.example/$bob", *FORBIDDEN, body={}),
    bad("a type of 300 characters", "PUT /rooms/$room/state/" + "a" * 300, *_TOO_LONG, body={}),
    bad("a state key of 300 characters", "PUT /rooms/$room/state/org.example/" + "a" * 300, *_TOO_LONG,
        body={}),
    bad("joining for another", "PUT /rooms/$room/state/m.room.member/$carol", *FORBIDDEN,
        body={"membership": "join"}),
    bad("knocking for another", "PUT /rooms/$room/state/m.room.member/$carol", *FORBIDDEN,
        body={"membership": "knock"}),
    bad("an unknown membership", "PUT /rooms/$room/state/m.room.member/$alice", *_REFUSED,
        body={"membership": "dancing"}),
    bad("no membership", "PUT /rooms/$room/state/m.room.member/$alice", *_REFUSED, "400 M_MISSING_PARAM",
        body={"displayname": "Alice"}),
    bad("a number for a membership", "PUT /rooms/$room/state/m.room.member/$alice", *_REFUSED,
        body={"membership": 5}),
    bad("a membership of nobody", "PUT /rooms/$room/state/m.room.member/nobody", *_REFUSED,
        body={"membership": "invite"}),
    bad("inviting who is banned", "PUT /rooms/$room/state/m.room.member/$mallory", *FORBIDDEN,
        body={"membership": "invite"}),
    bad("joining when banned", "PUT /rooms/$room/state/m.room.member/$mallory", *FORBIDDEN,
        body={"membership": "join"}, by="mallory"),
    bad("banning the creator", "PUT /rooms/$room/state/m.room.member/$alice", *FORBIDDEN,
        body={"membership": "ban"}, by="bob"),
    bad("power without the power for it", _LEVELS, *FORBIDDEN, body={"users": {"$bob": 100}}, by="bob"),
    bad("more power than one has", _LEVELS, *FORBIDDEN, body={"users": {"$alice": 100, "$bob": 200}}),
    bad("a level that is a word", _LEVELS, *_REFUSED, body={"users": {"$alice": 100}, "ban": "lots"}),
    bad("a level that is a number in a string", _LEVELS, *_REFUSED, body={"users": {"$alice": "100"}}),
    bad("a level that is true", _LEVELS, *_REFUSED, body={"users": {"$alice": 100}, "kick": True}),
    bad("a level that is a fraction", _LEVELS, *_REFUSED, body={"users": {"$alice": 100.5}}),
    bad("a level of 2**70", _LEVELS, *_REFUSED, body={"users": {"$alice": 2**70}}),
    bad("a level for nobody", _LEVELS, *_REFUSED, body={"users": {"$alice": 100, "bob": 50}}),
    bad("a list of levels", _LEVELS, *_REFUSED, body={"users": []}),
    bad("a list of levels by type", _LEVELS, *_REFUSED, body={"users": {"$alice": 100}, "events": []}),
    bad("an alias that is none", _ALIAS, *BAD_QUERY, body={"alias": "lobby"}),
    bad("an alias that leads nowhere", _ALIAS, "400 M_BAD_ALIAS", body={"alias": "$no_alias"}),
    bad("an alias of another room", _ALIAS, "400 M_BAD_ALIAS", body={"alias": "$other_alias"}),
    bad("another alias that is none", _ALIAS, *BAD_QUERY, body={"alt_aliases": ["lobby"]}),
    bad("another alias of another room", _ALIAS, "400 M_BAD_ALIAS", body={"alt_aliases": ["$other_alias"]}),
    bad("a number for an alias", _ALIAS, *WRONG_VALUE, body={"alias": 5}),
    bad("a string for other aliases", _ALIAS, *WRONG_VALUE, body={"alt_aliases": "$alias"}),
)  # fmt: skip

_READING = (
    bad("no such state", "GET /rooms/$room/state/org.example.nothing", *NOT_FOUND),
    bad("no such state key", "GET /rooms/$room/state/m.room.member/$nobody", *NOT_FOUND),
    bad("state from outside", "GET /rooms/$private/state", *FORBIDDEN),
    bad("a state event from outside", "GET /rooms/$private/state/m.room.create", *FORBIDDEN),
    bad("the state of an unknown room", "GET /rooms/$no_room/state", *UNKNOWN_ROOM),
    bad("a state event of an unknown room", "GET /rooms/$no_room/state/m.room.create", *UNKNOWN_ROOM),
    bad("members from outside", "GET /rooms/$private/members", *FORBIDDEN),
    bad("members of an unknown room", "GET /rooms/$no_room/members", *UNKNOWN_ROOM),
    bad("an unknown membership", "GET /rooms/$room/members?membership=dancing", *BAD_QUERY),
    bad("an unknown membership to leave out", "GET /rooms/$room/members?not_membership=dancing", *BAD_QUERY),
    bad("members at an invented token", "GET /rooms/$room/members?at=yesterday", *BAD_QUERY, "400 M_UNKNOWN"),
    bad("joined members from outside", "GET /rooms/$private/joined_members", *FORBIDDEN),
    bad("joined members of an unknown room", "GET /rooms/$no_room/joined_members", *UNKNOWN_ROOM),
    bad("an unknown event", "GET /rooms/$room/event/$no_event", *NOT_FOUND),
    bad("no event's id", "GET /rooms/$room/event/hello", *NOT_FOUND, *BAD_QUERY),
    bad("an event of another room", "GET /rooms/$room/event/$secret", *NOT_FOUND),
    bad("an event from outside", "GET /rooms/$private/event/$secret", *_UNKNOWN_EVENT),
    bad("an event of an unknown room", "GET /rooms/$no_room/event/$event", *_UNKNOWN_EVENT),
    bad("around an unknown event", "GET /rooms/$room/context/$no_event", *NOT_FOUND),
    bad("around an event of another room", "GET /rooms/$room/context/$secret", *_UNKNOWN_EVENT),
    bad("around an event from outside", "GET /rooms/$private/context/$secret", *_UNKNOWN_EVENT),
    bad("less than nothing around an event", "GET /rooms/$room/context/$event?limit=-1", *BAD_QUERY),
    bad("a word for a limit", "GET /rooms/$room/context/$event?limit=many", *BAD_QUERY),
    bad("a filter that is not JSON", "GET /rooms/$room/context/$event?filter=all", *BAD_QUERY, *NOT_JSON,
        "400 M_BAD_JSON"),
    bad("redacting an unknown event", "PUT /rooms/$room/redact/$no_event/1", *_UNKNOWN_EVENT, body={}),
    bad("redacting no event", "PUT /rooms/$room/redact/hello/1", *_UNKNOWN_EVENT, *BAD_QUERY, body={}),
    bad("redacting an event of another room", "PUT /rooms/$room/redact/$secret/1", *_UNKNOWN_EVENT,
        *BAD_QUERY,
        body={}),
    bad("redacting another's event", "PUT /rooms/$room/redact/$event/1", *FORBIDDEN, body={}, by="bob"),
    bad("redacting from outside", "PUT /rooms/$room/redact/$event/1", *FORBIDDEN, body={}, by="carol"),
    bad("a number for a reason", "PUT /rooms/$room/redact/$event/1", *WRONG_VALUE, body={"reason": 5}),
)  # fmt: skip

_PAGE = "GET /rooms/$room/messages?dir=b"
_BAD_FILTER = (*BAD_QUERY, *NOT_JSON, "400 M_BAD_JSON")
_BAD_TOKEN = ("400 M_INVALID_PARAM", "400 M_UNKNOWN")
_PAGING = (
    bad("no direction", "GET /rooms/$room/messages", "400 M_MISSING_PARAM"),
    bad("an unknown direction", "GET /rooms/$room/messages?dir=up", *BAD_QUERY),
    bad("a limit below zero", f"{_PAGE}&limit=-5", *BAD_QUERY),
    bad("a word for a limit", f"{_PAGE}&limit=many", *BAD_QUERY),
    bad("a fraction for a limit", f"{_PAGE}&limit=1.5", *BAD_QUERY),
    bad("1e400 for a limit", f"{_PAGE}&limit=1e400", *BAD_QUERY),
    bad("a limit of 5,000 digits", f"{_PAGE}&limit=" + "9" * 5_000, *BAD_QUERY),
    bad("digits of another script for a limit", f"{_PAGE}&limit=%D9%A3", *BAD_QUERY),
    bad("an invented token", f"{_PAGE}&from=yesterday", *_BAD_TOKEN),
    bad("an invented last token", f"{_PAGE}&to=yesterday", *_BAD_TOKEN),
    bad("a token of 5,000 digits", f"{_PAGE}&from=s1_" + "9" * 5_000 + "_0", *_BAD_TOKEN),
    bad("a token of words", f"{_PAGE}&from=s1_a_b", *_BAD_TOKEN),
    bad("a filter that is not JSON", f"{_PAGE}&filter=all", *_BAD_FILTER),
    bad("a filter that is a list", f"{_PAGE}&filter=%5B%5D", *_BAD_FILTER),
    bad("a filter of the wrong type", f"{_PAGE}&filter=%7B%22types%22%3A5%7D", *_BAD_FILTER),
    bad("from outside", "GET /rooms/$private/messages?dir=b", *FORBIDDEN),
    bad("an unknown room", "GET /rooms/$no_room/messages?dir=b", *UNKNOWN_ROOM),
    bad("no room", "GET /rooms/lobby/messages?dir=b", *BAD_QUERY, *UNKNOWN_ROOM),
)

_SYNC = (
    bad("an invented token", "GET /sync?since=yesterday", *_BAD_TOKEN),
    bad("a token with a word for a number", "GET /sync?since=s1_a_b", *_BAD_TOKEN),
    bad("a token of 5,000 digits", "GET /sync?since=s1_" + "9" * 5_000 + "_0", *_BAD_TOKEN),
    bad("a token with more behind it", "GET /sync?since=s1_1_1_1_1_1_1_1", *_BAD_TOKEN),
    bad("a timeout below zero", "GET /sync?timeout=-1", *BAD_QUERY),
    bad("a word for a timeout", "GET /sync?timeout=soon", *BAD_QUERY),
    bad("1e400 for a timeout", "GET /sync?timeout=1e400", *BAD_QUERY),
    bad("a word for a switch", "GET /sync?full_state=maybe", *BAD_QUERY),
    bad("a word for another switch", "GET /sync?use_state_after=maybe", *BAD_QUERY),
    bad("an unknown status", "GET /sync?set_presence=asleep", *BAD_QUERY),
    bad("an unknown filter", "GET /sync?filter=4294967296", *BAD_QUERY, *NOT_FOUND),
    bad("a filter that is no number", "GET /sync?filter=first", *BAD_QUERY, *NOT_FOUND),
    bad("half a filter", "GET /sync?filter=%7B%22room%22", *_BAD_FILTER),
    bad("a filter of the wrong type", "GET /sync?filter=%7B%22room%22%3A%5B%5D%7D", *_BAD_FILTER),
    bad("a filter with a limit below zero",
        "GET /sync?filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A-1%7D%7D%7D", *_BAD_FILTER),
    bad("a filter of 1,000 brackets", "GET /sync?filter=%7B%22room%22%3A" + "%5B" * 1_000, *_BAD_FILTER),
)  # fmt: skip

_TYPING = "PUT /rooms/$room/typing/$alice"
_RECEIPT = "POST /rooms/$room/receipt/m.read/$event"
_SIGNS = (
    bad("typing for another", "PUT /rooms/$room/typing/$bob", *FORBIDDEN,
        body={"typing": True, "timeout": 1000}),
    bad("typing outside", "PUT /rooms/$private/typing/$alice", *FORBIDDEN,
        body={"typing": True, "timeout": 1000}),
    bad("typing in an unknown room", "PUT /rooms/$no_room/typing/$alice", *UNKNOWN_ROOM,
        body={"typing": True, "timeout": 1000}),
    bad("typing or not", _TYPING, *MISSING, body={"timeout": 1000}),
    bad("a word for a switch", _TYPING, *WRONG_VALUE, body={"typing": "yes", "timeout": 1000}),
    bad("a word for a timeout", _TYPING, *WRONG_VALUE, body={"typing": True, "timeout": "long"}),
    bad("2**70 for a timeout", _TYPING, *WRONG_VALUE, body={"typing": True, "timeout": 2**70}),
    bad("1e400 for a timeout", _TYPING, *WRONG_VALUE, *NOT_JSON, body=b'{"typing": true, "timeout": 1e400}'),
    bad("an unknown receipt", "POST /rooms/$room/receipt/m.seen/$event", *BAD_QUERY, body={}),
    bad("a receipt for no event", "POST /rooms/$room/receipt/m.read/hello", *BAD_QUERY, *NOT_FOUND, body={}),
    bad("a receipt outside", "POST /rooms/$private/receipt/m.read/$secret", *FORBIDDEN, body={}),
    bad("a receipt in an unknown room", "POST /rooms/$no_room/receipt/m.read/$event", *UNKNOWN_ROOM, body={}),
    bad("a number for a thread", _RECEIPT, *WRONG_VALUE, body={"thread_id": 5}),
    bad("an empty thread", _RECEIPT, *BAD_QUERY, body={"thread_id": ""}),
    bad("a thread of the read marker", "POST /rooms/$room/receipt/m.fully_read/$event", *BAD_QUERY,
        body={"thread_id": "main"}),
    bad("a number for a marker", "POST /rooms/$room/read_markers", *WRONG_VALUE, body={"m.fully_read": 5}),
    bad("a list for a receipt", "POST /rooms/$room/read_markers", *WRONG_VALUE, body={"m.read": []}),
    bad("a marker outside", "POST /rooms/$private/read_markers", *FORBIDDEN,
        body={"m.fully_read": "$secret"}),
    bad("a marker in an unknown room", "POST /rooms/$no_room/read_markers", *UNKNOWN_ROOM,
        body={"m.fully_read": "$event"}),
)  # fmt: skip

_DEVICES = "PUT /sendToDevice/m.custom"
_TO_DEVICES = (
    bad("no messages", f"{_DEVICES}/none", *MISSING, body={}),
    bad("a list of messages", f"{_DEVICES}/list", *WRONG_VALUE, body={"messages": []}),
    bad(
        "a string for a user's messages",
        f"{_DEVICES}/string",
        *WRONG_VALUE,
        body={"messages": {"$bob": "hi"}},
    ),
    bad("a number for a message", f"{_DEVICES}/number", *WRONG_VALUE, body={"messages": {"$bob": {"*": 5}}}),
    bad("a message to no user", f"{_DEVICES}/nobody", *WRONG_VALUE, body={"messages": {"bob": {"*": {}}}}),
)

EVENTS: tuple[Bad, ...] = (*_SENDING, *_STATE, *_READING, *_PAGING, *_SYNC, *_SIGNS, *_TO_DEVICES)
