"""Bad requests about rooms as a whole: making and upgrading them, who is in them, what they are called."""

from __future__ import annotations

from typing import Any

from tests.flows.bad import BAD_QUERY, FORBIDDEN, MISSING, NOT_FOUND, UNKNOWN_ROOM, WRONG_VALUE, Bad, bad

_CREATE = "POST /createRoom"
_BAD_STATE = (*WRONG_VALUE, "400 M_INVALID_ROOM_STATE")
_UNSUPPORTED = ("400 M_UNSUPPORTED_ROOM_VERSION",)
_TOO_LARGE = ("413 M_TOO_LARGE", "400 M_TOO_LARGE", *_BAD_STATE)
_NO_3PID = ("403 M_THREEPID_DENIED", "400 M_THREEPID_NOT_FOUND", *MISSING)


def _wish(what: str, *answers: str, **body: Any) -> Bad:
    return bad(what, _CREATE, *answers, body=body)


_NEW_ROOMS = (
    _wish("an unknown preset", *WRONG_VALUE, preset="secret"),
    _wish("a number for a preset", *WRONG_VALUE, preset=5),
    _wish("an unknown visibility", *WRONG_VALUE, visibility="hidden"),
    _wish("an unknown version", *_UNSUPPORTED, room_version="99"),
    _wish("a version of many digits", *_UNSUPPORTED, room_version="1" * 300),
    _wish("a number for a version", *WRONG_VALUE, *_UNSUPPORTED, room_version=11),
    _wish("a number for a name", *WRONG_VALUE, name=5),
    _wish("a list for a topic", *WRONG_VALUE, topic=["hi"]),
    _wish("a word for a switch", *WRONG_VALUE, is_direct="yes"),
    _wish("a name of 70 kB", *_TOO_LARGE, name="x" * 70_000),
    _wish("a number for an alias", *WRONG_VALUE, room_alias_name=5),
    _wish("an alias that is taken", "400 M_ROOM_IN_USE", room_alias_name="$alias_localpart"),
    _wish("a colon in the alias", *WRONG_VALUE, room_alias_name="a:b"),
    _wish("a NUL in the alias", *WRONG_VALUE, room_alias_name="a\0b"),
    _wish("an alias of 300 characters", *WRONG_VALUE, room_alias_name="a" * 300),
    _wish("a string for invites", *WRONG_VALUE, invite="$bob"),
    _wish("a number for an invite", *WRONG_VALUE, invite=[5]),
    _wish("no user id for an invite", *WRONG_VALUE, invite=["bob"]),
    _wish("an object for third party invites", *WRONG_VALUE, invite_3pid={}),
    _wish("a third party invite of nothing", *WRONG_VALUE, *_NO_3PID, invite_3pid=[{}]),
    _wish("an object for state", *WRONG_VALUE, initial_state={}),
    _wish("a number for a state event", *WRONG_VALUE, initial_state=[5]),
    _wish("a state event without type", *MISSING, *_BAD_STATE, initial_state=[{"content": {}}]),
    _wish("a state event without content", *MISSING, *_BAD_STATE, initial_state=[{"type": "a"}]),
    _wish("a number for a state event's type", *_BAD_STATE, initial_state=[{"type": 5, "content": {}}]),
    _wish("a list for a state event's content", *_BAD_STATE, initial_state=[{"type": "a", "content": []}]),
    _wish("a number for a state key", *_BAD_STATE,
          initial_state=[{"type": "a", "state_key": 5, "content": {}}]),
    _wish("a fraction in a state event", *_BAD_STATE, initial_state=[{"type": "a", "content": {"n": 0.5}}]),
    _wish("2**70 in a state event", *_BAD_STATE, initial_state=[{"type": "a", "content": {"n": 2**70}}]),
    _wish("a state event of 70 kB", *_TOO_LARGE,
          initial_state=[{"type": "a", "content": {"s": "x" * 70_000}}]),
    _wish("a state event of a type of 300 characters", *_TOO_LARGE,
          initial_state=[{"type": "a" * 300, "content": {}}]),
    _wish("a member who did not ask for it", *_BAD_STATE, *FORBIDDEN,
          initial_state=[{"type": "m.room.member", "state_key": "$bob", "content": {"membership": "join"}}]),
    _wish("a list for the room's first content", *WRONG_VALUE, creation_content=[]),
    _wish("a fraction in the room's first content", *_BAD_STATE, creation_content={"n": 0.5}),
    _wish("creators who are no users", *_BAD_STATE, room_version="12",
          creation_content={"additional_creators": ["bob"]}),
    _wish("a string for creators", *_BAD_STATE, room_version="12",
          creation_content={"additional_creators": "$bob"}),
    _wish("a list for power levels", *WRONG_VALUE, power_level_content_override=[]),
    _wish("a word for a level", *_BAD_STATE, power_level_content_override={"users_default": "lots"}),
    _wish("a fraction for a level", *_BAD_STATE, power_level_content_override={"ban": 50.5}),
    _wish("2**70 for a level", *_BAD_STATE, power_level_content_override={"state_default": 2**70}),
    _wish("a list for levels by type", *_BAD_STATE, power_level_content_override={"events": []}),
    _wish("a level for nobody", *_BAD_STATE, power_level_content_override={"users": {"bob": 50}}),
    _wish("a creator with a level in a version that gives them none", *_BAD_STATE, room_version="12",
          power_level_content_override={"users": {"$alice": 100}}),
    _wish("a name that the creator may not set", "400 M_INVALID_ROOM_STATE", room_version="11", name="Mine",
          power_level_content_override={"users": {"$alice": 0}}),
)  # fmt: skip

_JOINS = (
    bad("an unknown room", "POST /join/$no_room", *UNKNOWN_ROOM, body={}),
    bad("an unknown room", "POST /rooms/$no_room/join", *UNKNOWN_ROOM, body={}),
    bad("an unknown room whose id has no server", "POST /join/$no_room_v12", *UNKNOWN_ROOM, body={}),
    bad("an unknown alias", "POST /join/$no_alias", *NOT_FOUND, body={}),
    bad("a word", "POST /join/lobby", *BAD_QUERY, body={}),
    bad("an event's id", "POST /join/$event", *BAD_QUERY, body={}),
    bad("a user's id for a room's", "POST /rooms/$alice/join", *BAD_QUERY, *NOT_FOUND, body={}),
    bad("an alias for a room's id", "POST /rooms/$alias/join", *BAD_QUERY, *NOT_FOUND, body={}),
    bad("only a sigil", "POST /join/%21", *BAD_QUERY, *UNKNOWN_ROOM, body={}),
    bad("a room id of 300 characters", "POST /join/%21" + "a" * 300 + ":example.org", *BAD_QUERY,
        *UNKNOWN_ROOM,
        body={}),
    bad("nobody invited them", "POST /join/$private", *FORBIDDEN, body={}),
    bad("nobody invited them", "POST /rooms/$private/join", *FORBIDDEN, body={}),
    bad("they are banned", "POST /join/$room", *FORBIDDEN, body={}, by="mallory"),
    bad("a number for a reason", "POST /join/$room", *WRONG_VALUE, body={"reason": 5}),
    bad("a string for a signature", "POST /join/$room", *WRONG_VALUE, body={"third_party_signed": "me"}),
    bad("a room without knocking", "POST /knock/$room", *FORBIDDEN, body={}, by="carol"),
    bad("knocking when banned", "POST /knock/$room", *FORBIDDEN, body={}, by="mallory"),
    bad("knocking from inside", "POST /knock/$room", *FORBIDDEN, body={}),
    bad("knocking at an unknown alias", "POST /knock/$no_alias", *NOT_FOUND, body={}),
    bad("knocking at an unknown room", "POST /knock/$no_room", *UNKNOWN_ROOM, body={}),
    bad("leaving an unknown room", "POST /rooms/$no_room/leave", *UNKNOWN_ROOM, body={}),
    bad("leaving a room they are not in", "POST /rooms/$room/leave", *FORBIDDEN, body={}, by="carol"),
    bad("leaving when banned", "POST /rooms/$room/leave", *FORBIDDEN, body={}, by="mallory"),
    bad("forgetting a room they are in", "POST /rooms/$room/forget", "400 M_UNKNOWN", body={}),
    bad("forgetting a room they never were in", "POST /rooms/$room/forget", "400 M_UNKNOWN", *UNKNOWN_ROOM,
        body={}, by="carol"),
    bad("forgetting an unknown room", "POST /rooms/$no_room/forget", "400 M_UNKNOWN", *UNKNOWN_ROOM, body={}),
)  # fmt: skip


def _about_others() -> list[Bad]:
    """What is wrong with inviting, kicking, banning and unbanning alike."""
    rows = []
    for verb in ("invite", "kick", "ban", "unban"):
        here = f"POST /rooms/$room/{verb}"
        rows += [
            bad("nobody named", here, *MISSING, body={"reason": "because"}),
            bad("a number for a user", here, *WRONG_VALUE, body={"user_id": 5}),
            bad("a null for a user", here, *WRONG_VALUE, *MISSING, body={"user_id": None}),
            bad("a word for a user", here, *WRONG_VALUE, body={"user_id": "bob"}),
            bad("a room for a user", here, *WRONG_VALUE, body={"user_id": "$room"}),
            bad("a number for a reason", here, *WRONG_VALUE, body={"user_id": "$carol", "reason": 5}),
            bad("from outside", here, *FORBIDDEN, body={"user_id": "$mallory"}, by="carol"),
            bad(
                "in an unknown room", f"POST /rooms/$no_room/{verb}", *UNKNOWN_ROOM, body={"user_id": "$bob"}
            ),
            bad(
                "in no room", f"POST /rooms/lobby/{verb}", *BAD_QUERY, *UNKNOWN_ROOM, body={"user_id": "$bob"}
            ),
        ]
    return rows


_OTHERS = (
    *_about_others(),
    bad("inviting who is banned", "POST /rooms/$room/invite", *FORBIDDEN, body={"user_id": "$mallory"}),
    bad("inviting who is there", "POST /rooms/$room/invite", *FORBIDDEN, body={"user_id": "$bob"}),
    bad("inviting by email", "POST /rooms/$room/invite", *_NO_3PID,
        body={"id_server": "a.example", "id_access_token": "x", "medium": "email", "address": "a@b.example"}),
    bad("a guest who may not invite", "POST /rooms/$strict/invite", *FORBIDDEN, body={"user_id": "$carol"},
        by="bob"),
    bad("kicking the creator", "POST /rooms/$room/kick", *FORBIDDEN, body={"user_id": "$alice"}, by="bob"),
    bad("kicking who is not there", "POST /rooms/$room/kick", *FORBIDDEN, body={"user_id": "$carol"}),
    bad("banning the creator", "POST /rooms/$room/ban", *FORBIDDEN, body={"user_id": "$alice"}, by="bob"),
    bad("unbanning without power", "POST /rooms/$room/unban", *FORBIDDEN,
        body={"user_id": "$mallory"}, by="bob"),
    bad("unbanning who is not banned", "POST /rooms/$room/unban", "400 M_BAD_STATE", "403 M_BAD_STATE",
        *FORBIDDEN,
        body={"user_id": "$bob"}),
)  # fmt: skip

_DIRECTORY = (
    bad("an unknown alias", "GET /directory/room/$no_alias", *NOT_FOUND, by=""),
    bad("no alias", "GET /directory/room/lobby", *BAD_QUERY, by=""),
    bad("a room's id", "GET /directory/room/$room", *BAD_QUERY, by=""),
    bad("a taken alias", "PUT /directory/room/$alias", "409 M_UNKNOWN", body={"room_id": "$room"}),
    bad("no alias", "PUT /directory/room/lobby", *BAD_QUERY, body={"room_id": "$room"}),
    bad(
        "another server's alias",
        "PUT /directory/room/%23a:b.example",
        *BAD_QUERY,
        *FORBIDDEN,
        body={"room_id": "$room"},
    ),
    bad(
        "an alias of 300 characters",
        "PUT /directory/room/%23" + "a" * 300 + ":$server_name",
        *BAD_QUERY,
        body={"room_id": "$room"},
    ),
    bad("no room", "PUT /directory/room/$free_alias", *MISSING, body={}),
    bad("a number for a room", "PUT /directory/room/$free_alias", *WRONG_VALUE, body={"room_id": 5}),
    bad(
        "a word for a room",
        "PUT /directory/room/$free_alias",
        *WRONG_VALUE,
        *NOT_FOUND,
        body={"room_id": "a"},
    ),
    bad(
        "an unknown room",
        "PUT /directory/room/$free_alias",
        *UNKNOWN_ROOM,
        "400 M_BAD_STATE",
        body={"room_id": "$no_room"},
    ),
    bad(
        "a room they are not in", "PUT /directory/room/$free_alias", *FORBIDDEN, body={"room_id": "$private"}
    ),
    bad("an unknown alias", "DELETE /directory/room/$no_alias", *NOT_FOUND),
    bad("another's alias", "DELETE /directory/room/$alias", *FORBIDDEN, by="bob"),
    bad("from outside", "GET /rooms/$private/aliases", *FORBIDDEN),
    bad("whether an unknown room is listed", "GET /directory/list/room/$no_room", *NOT_FOUND, by=""),
    bad("whether no room is listed", "GET /directory/list/room/lobby", *BAD_QUERY, *NOT_FOUND, by=""),
    bad(
        "listing an unknown room",
        "PUT /directory/list/room/$no_room",
        *NOT_FOUND,
        body={"visibility": "public"},
    ),
    bad(
        "an unknown visibility", "PUT /directory/list/room/$room", *WRONG_VALUE, body={"visibility": "hidden"}
    ),
    bad("a number for a visibility", "PUT /directory/list/room/$room", *WRONG_VALUE, body={"visibility": 5}),
    bad(
        "without power", "PUT /directory/list/room/$room", *FORBIDDEN, body={"visibility": "public"}, by="bob"
    ),
    bad("in an unknown room", "GET /rooms/$no_room/aliases", *UNKNOWN_ROOM),
)

_UPGRADES = (
    bad("no version", "POST /rooms/$room/upgrade", *MISSING, body={}),
    bad("a number for a version", "POST /rooms/$room/upgrade", *WRONG_VALUE, *_UNSUPPORTED,
        body={"new_version": 12}),
    bad("an unknown version", "POST /rooms/$room/upgrade", *_UNSUPPORTED, body={"new_version": "99"}),
    bad("without power", "POST /rooms/$room/upgrade", *FORBIDDEN, body={"new_version": "12"}, by="bob"),
    bad("from outside", "POST /rooms/$room/upgrade", *FORBIDDEN, body={"new_version": "12"}, by="carol"),
    bad("an unknown room", "POST /rooms/$no_room/upgrade", *UNKNOWN_ROOM, body={"new_version": "12"}),
)  # fmt: skip

ROOMS: tuple[Bad, ...] = (*_NEW_ROOMS, *_JOINS, *_OTHERS, *_DIRECTORY, *_UPGRADES)
