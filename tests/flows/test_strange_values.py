"""Every field of every body, every query parameter and every part of an event with every strange value.

What is answered is not told here, only what never is: nothing is a mistake of the server's own.  The
exact answers to the most telling of such requests are in ``tests/flows/bad``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import pytest

from tests.flows.bad import Bad, bad
from tests.flows.world import World

pytestmark = [pytest.mark.xdist_group("strange-values"), pytest.mark.asyncio(loop_scope="module")]

STRANGE: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    2**53,
    2**63,
    2**70,
    "",
    "x",
    "\0",
    "\U0001f600" * 300,
    "@a:b",
    "!a:b",
    "$$a",
    "#a:b",
    "2",
    [],
    [None],
    ["x"],
    [[[]]],
    {},
    {"x": None},
    {"": {"": {"": 0.5}}},
    {"$bob": 5},
    {"@a:b": {"*": {}}},
)

#: Fewer for what is deeper inside.
STRANGE_INSIDE: tuple[Any, ...] = (None, True, -1, 2**63, "x", [], [None], {}, {"x": None})

_PROOF = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "nobody"}, "password": "x"}
_RULE = {"conditions": [{"kind": "event_match", "key": "type", "pattern": "x"}], "actions": ["notify"]}
_FILTER = {
    "limit": 5, "types": ["x"], "not_types": ["x"], "senders": ["@a:b"], "not_senders": [], "rooms": [],
    "not_rooms": [], "contains_url": True, "lazy_load_members": True, "include_redundant_members": True,
    "unread_thread_notifications": True,
}  # fmt: skip

#: Requests that are fine but for what is put into them; dora makes them, in a room of her own.
BODIES: dict[str, dict[str, Any]] = {
    "POST /createRoom": {
        "name": "x", "topic": "x", "preset": "private_chat", "visibility": "private", "room_version": "11",
        "room_alias_name": "x", "invite": ["$bob"], "is_direct": True,
        "creation_content": {"m.federate": True},
        "initial_state": [{"type": "x", "state_key": "", "content": {"a": 1}}], "invite_3pid": [],
        "power_level_content_override": {"users": {"$dora": 100}, "events": {"x": 1}, "ban": 50,
                                         "notifications": {"room": 50}},
    },
    "POST /join/$playground": {"reason": "x", "third_party_signed": {}},
    "POST /rooms/$playground/invite": {"user_id": "$bob", "reason": "x"},
    "POST /rooms/$playground/kick": {"user_id": "$bob", "reason": "x"},
    "POST /rooms/$playground/ban": {"user_id": "$bob", "reason": "x"},
    "POST /rooms/$playground/unban": {"user_id": "$bob", "reason": "x"},
    "POST /rooms/$playground/read_markers": {"m.fully_read": "$event", "m.read": "$event"},
    "POST /rooms/$playground/receipt/m.read/$said": {"thread_id": "main"},
    "POST /rooms/$playground/upgrade": {"new_version": "99", "additional_creators": ["$bob"]},
    "PUT /rooms/$playground/send/m.room.message/*": {
        "msgtype": "m.text", "body": "x", "m.mentions": {"user_ids": ["$bob"], "room": True},
        "m.relates_to": {"rel_type": "m.thread", "event_id": "$said", "m.in_reply_to": {"event_id": "$said"}},
    },
    "PUT /rooms/$playground/send/m.room.redaction/*": {"redacts": "$said", "reason": "x"},
    "PUT /rooms/$playground/redact/$said/*": {"reason": "x"},
    "PUT /rooms/$playground/typing/$dora": {"typing": True, "timeout": 1000},
    "PUT /rooms/$playground/state/m.room.name": {"name": "x"},
    "PUT /rooms/$playground/state/m.room.topic": {"topic": "x", "m.topic": {"m.text": [{"body": "x"}]}},
    "PUT /rooms/$playground/state/m.room.canonical_alias": {"alias": "", "alt_aliases": []},
    "PUT /rooms/$playground/state/m.room.member/$dora": {
        "membership": "join", "displayname": "x", "avatar_url": "x",
        "join_authorised_via_users_server": "$bob",
        "third_party_invite": {"signed": {}}, "is_direct": True, "reason": "x",
    },
    "PUT /rooms/$playground/state/m.room.join_rules": {
        "join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": "$room"}],
    },
    "PUT /rooms/$playground/state/m.room.history_visibility": {"history_visibility": "joined"},
    "PUT /rooms/$playground/state/m.room.guest_access": {"guest_access": "can_join"},
    "PUT /rooms/$playground/state/m.room.server_acl": {
        "allow": ["*"], "deny": ["x.example"], "allow_ip_literals": True,
    },
    "PUT /rooms/$playground/state/m.room.encryption": {"algorithm": "x", "rotation_period_ms": 5},
    "PUT /rooms/$playground/state/m.room.avatar": {"url": "mxc://a/b", "info": {"w": 1}},
    "PUT /rooms/$playground/state/m.room.third_party_invite/x": {"public_key": "x", "public_keys": [{}]},
    "PUT /rooms/$playground/state/m.room.power_levels": {
        "users": {"$dora": 100}, "events": {"x": 1}, "ban": 50, "kick": 50, "redact": 50, "invite": 0,
        "events_default": 0, "state_default": 50, "users_default": 0, "notifications": {"room": 50},
    },
    "PUT /directory/list/room/$playground": {"visibility": "public"},
    "PUT /directory/room/$free_alias": {"room_id": "$playground"},
    "PUT /profile/$dora/displayname": {"displayname": "x"},
    "PUT /profile/$dora/avatar_url": {"avatar_url": "mxc://a/b"},
    "PUT /profile/$dora/org.example.x": {"org.example.x": "x"},
    "PUT /presence/$dora/status": {"presence": "online", "status_msg": "x"},
    "PUT /user/$dora/account_data/org.example": {"x": {"y": "z"}},
    "PUT /user/$dora/account_data/m.ignored_user_list": {"ignored_users": {"@a:b": {}}},
    "PUT /user/$dora/account_data/m.invite_permission_config": {
        "default_action": "block", "enabled": True, "allowed_users": ["x"], "blocked_servers": ["y"],
    },
    "POST /user_directory/search": {"search_term": "x", "limit": 5},
    "POST /search": {"search_categories": {"room_events": {
        "search_term": "x", "keys": ["content.body"], "filter": _FILTER, "order_by": "recent",
        "event_context": {"before_limit": 1, "after_limit": 1, "include_profile": True},
        "include_state": True, "groupings": {"group_by": [{"key": "room_id"}]},
    }}},
    "POST /rooms/$playground/report": {"reason": "x"},
    "POST /rooms/$playground/report/$said": {"reason": "x", "score": -100},
    "POST /users/$bob/report": {"reason": "x"},
    "PUT /user/$dora/account_data/m.direct": {"$bob": ["$playground"]},
    "PUT /user/$dora/rooms/$playground/account_data/m.marked_unread": {"unread": True},
    "PUT /user/$dora/rooms/$playground/account_data/m.tag": {"tags": {"u.x": {"order": 0.5}}},
    "PUT /user/$dora/rooms/$playground/tags/u.x": {"order": 0.5},
    "POST /user/$dora/filter": {
        "event_fields": ["type"], "event_format": "client", "presence": _FILTER, "account_data": _FILTER,
        "room": {"rooms": [], "not_rooms": [], "include_leave": True, "state": _FILTER, "timeline": _FILTER,
                 "ephemeral": _FILTER, "account_data": _FILTER},
    },
    "PUT /pushrules/global/override/mine": _RULE,
    "PUT /pushrules/global/content/mine": {"pattern": "x", "actions": [{"set_tweak": "sound", "value": "x"}]},
    "PUT /pushrules/global/override/mine/enabled": {"enabled": True},
    "PUT /pushrules/global/override/mine/actions": {"actions": ["notify"]},
    "PUT /devices/NOWHERE": {"display_name": "x"},
    "POST /delete_devices": {"devices": ["x"], "auth": _PROOF},
    "PUT /sendToDevice/m.custom/*": {"messages": {"$bob": {"*": {"x": "y"}}}},
    "POST /keys/upload": {
        "device_keys": {"user_id": "$dora", "device_id": "x", "algorithms": ["x"], "keys": {"ed25519:x": "x"},
                        "signatures": {"$dora": {"ed25519:x": "x"}}},
        "one_time_keys": {"signed_curve25519:x": {"key": "x", "signatures": {"$dora": {"ed25519:x": "x"}}}},
        "fallback_keys": {"signed_curve25519:x": {"key": "x", "fallback": True}},
    },
    "POST /keys/query": {"device_keys": {"$bob": ["x"], "$dora": []}, "timeout": 1},
    "POST /keys/claim": {"one_time_keys": {"$bob": {"x": "signed_curve25519"}}, "timeout": 1},
    "POST /keys/device_signing/upload": {
        "master_key": {"user_id": "$dora", "usage": ["master"], "keys": {"ed25519:x": "x"}},
        "self_signing_key": {"user_id": "$dora", "usage": ["self_signing"], "keys": {"ed25519:y": "y"},
                             "signatures": {"$dora": {"ed25519:x": "x"}}},
        "auth": _PROOF,
    },
    "POST /keys/signatures/upload": {
        "$dora": {"x": {"user_id": "$dora", "signatures": {"$dora": {"ed25519:x": "x"}}}},
        "$bob": {"x": {"user_id": "$bob", "usage": ["master"], "keys": {"ed25519:x": "x"}}},
    },
    "POST /login": {**_PROOF, "device_id": "x", "initial_device_display_name": "x", "refresh_token": True},
    "POST /register": {
        "username": "x y", "password": "x", "device_id": "x", "initial_device_display_name": "x",
        "inhibit_login": True, "refresh_token": True, "auth": {"type": "m.login.dummy", "session": "x"},
    },
    "POST /refresh": {"refresh_token": "x"},
    "POST /account/password": {"new_password": "another password", "logout_devices": False, "auth": _PROOF},
    "POST /account/deactivate": {"erase": True, "id_server": "x", "auth": _PROOF},
}  # fmt: skip

QUERIES: dict[str, tuple[str, ...]] = {
    "GET /sync": ("since", "timeout", "full_state", "filter", "set_presence", "use_state_after"),
    "GET /rooms/$playground/messages": ("from", "to", "dir", "limit", "filter"),
    "GET /rooms/$playground/context/$said": ("limit", "filter"),
    "GET /rooms/$playground/members": ("at", "membership", "not_membership"),
    "GET /rooms/$playground/state/m.room.name": ("format",),
    "POST /join/$playground": ("via", "server_name"),
    "POST /register": ("kind",),
    "GET /register/available": ("username",),
    "GET /keys/changes": ("from", "to"),
    "PUT /pushrules/global/override/mine": ("before", "after"),
}

PATHS: tuple[str, ...] = (
    "GET /rooms/*/state",
    "GET /rooms/*/messages?dir=b",
    "GET /rooms/*/members",
    "GET /rooms/$playground/event/*",
    "GET /rooms/$playground/context/*",
    "GET /rooms/$playground/state/*/*",
    "PUT /rooms/*/send/m.room.message/1",
    "PUT /rooms/$playground/send/*/*",
    "PUT /rooms/$playground/state/*/*",
    "PUT /rooms/$playground/redact/*/*",
    "PUT /rooms/$playground/typing/*",
    "POST /rooms/$playground/receipt/*/*",
    "POST /rooms/*/join",
    "POST /rooms/*/leave",
    "POST /rooms/*/forget",
    "POST /rooms/*/upgrade",
    "POST /join/*",
    "POST /knock/*",
    "GET /directory/room/*",
    "PUT /directory/room/*",
    "DELETE /directory/room/*",
    "GET /directory/list/room/*",
    "GET /profile/*",
    "GET /profile/$dora/*",
    "PUT /profile/$dora/*",
    "DELETE /profile/$dora/*",
    "GET /presence/*/status",
    "GET /user/$dora/account_data/*",
    "PUT /user/$dora/account_data/*",
    "PUT /user/$dora/rooms/*/account_data/*",
    "PUT /user/$dora/rooms/*/tags/*",
    "DELETE /user/$dora/rooms/$playground/tags/*",
    "GET /user/$dora/filter/*",
    "GET /pushrules/global/*/*",
    "PUT /pushrules/global/override/*",
    "DELETE /pushrules/global/*/*",
    "GET /devices/*",
    "PUT /devices/*",
    "PUT /sendToDevice/*/1",
)


def changed(value: Any, strange: Sequence[Any] = STRANGE) -> Iterator[Any]:
    """The value with one thing in it replaced by something strange, or left out, in every way."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        for replacement in (*strange, *changed(inner, STRANGE_INSIDE)):
            copy = value.copy()
            copy[key] = replacement
            yield copy
    if isinstance(value, dict):
        for key in value:
            yield {name: inner for name, inner in value.items() if name != key}


#: A name that leads to another server may end with that server's silence.
ELSEWHERE = {"502 M_UNKNOWN", "504 M_UNKNOWN"}


async def mistakes(world: World, rows: Iterator[Bad], base_url: str) -> list[str]:
    """Ask everything; the requests that the server made a mistake of its own with."""
    await playground(world)
    found = []
    asked = 0
    for number, row in enumerate(rows):
        request = row.request.replace("/*", f"/{number}")
        got, answer, _ = await world.ask(Bad(row.what, request, (), row.body, row.by), base_url)
        asked += 1
        trouble = world.new_trouble()
        if trouble or (got.startswith("5") and got not in ELSEWHERE):
            found.append(f"{request} {str(row.body)[:300]}\n{got} {answer}\n{trouble[-1500:]}")
    assert asked
    return found


async def playground(world: World) -> None:
    """dora's own room, made for each test; what happens in it is nobody's concern."""
    base = f"{world.server.client_url}/_matrix/client/v3"
    headers = {"Authorization": f"Bearer {world.town.tokens['dora']}"}
    wish = {"room_version": "11", "invite": [world.town.names["bob"]]}
    async with world.http.post(f"{base}/createRoom", json=wish, headers=headers) as reply:
        world.town.names["playground"] = (await reply.json())["room_id"]
    send = f"{base}/rooms/{quote(world.town.names['playground'])}/send/m.room.message/first"
    async with world.http.put(send, json={"msgtype": "m.text", "body": "hi"}, headers=headers) as reply:
        world.town.names["said"] = (await reply.json())["event_id"]


@pytest.mark.parametrize("request_line", BODIES, ids=str)
async def test_strange_values_in_bodies(world: World, request_line: str) -> None:
    rows = (bad("strange", request_line, body=body, by="dora") for body in changed(BODIES[request_line]))
    assert not await mistakes(world, rows, world.server.client_url)


async def test_a_sync_is_possible_after_all_this(world: World) -> None:
    rows = iter([bad("all", "GET /sync", by="dora"), bad("all", "GET /sync?full_state=true", by="bob")])
    assert not await mistakes(world, rows, world.server.client_url)


def _body(request: str) -> Any:
    return None if request.startswith("GET") else {}


async def test_strange_values_in_queries(world: World) -> None:
    values = [quote(value if isinstance(value, str) else json.dumps(value), safe="") for value in STRANGE]
    rows = (
        bad("strange", f"{request}?{name}={value}", body=_body(request), by="dora")
        for request, names in QUERIES.items()
        for name in names
        for value in values
    )
    assert not await mistakes(world, rows, world.server.client_url)


async def test_strange_values_in_paths(world: World) -> None:
    values = [quote(value, safe="") for value in STRANGE if isinstance(value, str)]
    rows = (
        bad("strange", path.replace("*", value), body=_body(path), by="dora")
        for path in PATHS
        for value in (*values, "a" * 3_000, "%F0%9F%98%80", ".", "..", "%2F", "%3F", "%20", "@a:localhost:1")
    )
    assert not await mistakes(world, rows, world.server.client_url)


_PDU = {
    "type": "m.room.message", "room_id": "$room", "sender": "@eve:$stranger", "content": {"body": "x"},
    "origin_server_ts": 1, "depth": 5, "prev_events": ["$event"], "auth_events": ["$event"],
    "hashes": {"sha256": "x"}, "signatures": {"$stranger": {"ed25519:1": "x"}},
    "unsigned": {"age": 1},
}  # fmt: skip
_EDUS: dict[str, dict[str, Any]] = {
    "m.typing": {"room_id": "$room", "user_id": "@eve:$stranger", "typing": True},
    "m.receipt": {"$room": {"m.read": {"@eve:$stranger": {"data": {"ts": 1}, "event_ids": ["$event"]}}}},
    "m.presence": {
        "push": [{"user_id": "@eve:$stranger", "presence": "online", "last_active_ago": 1, "status_msg": "x",
                  "currently_active": True}],
    },
    "m.direct_to_device": {
        "sender": "@eve:$stranger", "type": "x", "message_id": "x", "messages": {"$bob": {"*": {"x": "y"}}},
    },
    "m.device_list_update": {
        "user_id": "@eve:$stranger", "device_id": "x", "stream_id": 5, "prev_id": [4], "deleted": False,
        "device_display_name": "x", "keys": {},
    },
    "m.signing_key_update": {
        "user_id": "@eve:$stranger",
        "master_key": {"user_id": "@eve:$stranger", "usage": ["master"], "keys": {"ed25519:x": "x"}},
        "self_signing_key": {"user_id": "@eve:$stranger", "usage": ["self_signing"], "keys": {}},
    },
    "org.example": {"x": "y"},
}  # fmt: skip


def transaction(**parts: Any) -> dict[str, Any]:
    return {"origin": "$stranger", "origin_server_ts": 1, "pdus": [], "edus": [], **parts}


async def test_strange_events_of_another_server(world: World) -> None:
    assert not await mistakes_with_strange_events(world)


async def test_strange_events_of_another_server_on_postgresql(postgres_world: World) -> None:
    assert not await mistakes_with_strange_events(postgres_world)


async def mistakes_with_strange_events(world: World) -> list[str]:
    """The strange server is not in the room, and nothing it says is signed."""
    bodies = [
        *changed(transaction()),
        *(transaction(pdus=[pdu]) for pdu in (*STRANGE, *changed(_PDU))),
        *(transaction(pdus=[{**pdu, "type": "m.room.member", "state_key": "@eve:$stranger"}])
          for pdu in changed({**_PDU, "content": {"membership": "join"}})),
    ]  # fmt: skip
    rows = (bad("strange", "PUT /_matrix/federation/v1/send/*", body=body, by="stranger") for body in bodies)
    return await mistakes(world, rows, f"https://{world.server.server_name}")


async def test_strange_ephemeral_events_of_another_server(world: World) -> None:
    bodies = [
        transaction(edus=[edu])
        for type_, content in _EDUS.items()
        for edu in (*STRANGE, *changed({"edu_type": type_, "content": content}))
    ]
    rows = (bad("strange", "PUT /_matrix/federation/v1/send/*", body=body, by="stranger") for body in bodies)
    assert not await mistakes(world, rows, f"https://{world.server.server_name}")


_INVITE = {**_PDU, "type": "m.room.member", "state_key": "$alice", "content": {"membership": "invite"}}
_FEDERATION_BODIES: dict[str, dict[str, Any]] = {
    "PUT /_matrix/federation/v2/send_join/$room/$event": {
        **_PDU, "type": "m.room.member", "state_key": "@eve:$stranger", "content": {"membership": "join"},
    },
    "PUT /_matrix/federation/v2/send_leave/$room/$event": {
        **_PDU, "type": "m.room.member", "state_key": "@eve:$stranger", "content": {"membership": "leave"},
    },
    "PUT /_matrix/federation/v1/send_knock/$room/$event": {
        **_PDU, "type": "m.room.member", "state_key": "@eve:$stranger", "content": {"membership": "knock"},
    },
    "PUT /_matrix/federation/v2/invite/$no_room/$event": {
        "room_version": "11", "invite_room_state": [{"type": "x"}],
        "event": {**_INVITE, "room_id": "$no_room"},
    },
    "PUT /_matrix/federation/v1/invite/$no_room/$event": {**_INVITE, "room_id": "$no_room"},
    "POST /_matrix/federation/v1/get_missing_events/$room": {
        "earliest_events": ["$event"], "latest_events": ["$event"], "limit": 5, "min_depth": 1,
    },
    "POST /_matrix/federation/v1/user/keys/query": {"device_keys": {"$bob": ["x"], "$dora": []}},
    "POST /_matrix/federation/v1/user/keys/claim": {"one_time_keys": {"$bob": {"x": "signed_curve25519"}}},
    "POST /_matrix/key/v2/query": {
        "server_keys": {"$server_name": {"ed25519:1": {"minimum_valid_until_ts": 1}}},
    },
}  # fmt: skip


@pytest.mark.parametrize("request_line", _FEDERATION_BODIES, ids=str)
async def test_strange_bodies_of_another_server(world: World, request_line: str) -> None:
    bodies = changed(_FEDERATION_BODIES[request_line])
    rows = (bad("strange", request_line, body=body, by="stranger") for body in bodies)
    assert not await mistakes(world, rows, f"https://{world.server.server_name}")
