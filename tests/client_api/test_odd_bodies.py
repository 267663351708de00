"""Bodies of any shape are answered with the client's mistake, never with ours."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client_api.account_server import AccountServer, password_auth, segment

ODD: list[Any] = [None, True, 0, -1, 2**63 - 1, 1.5, "", "x" * 5000, "\ud7ff", [], [None], {}, {"": {}}]

ROOM = f"/user/@alice:a.org/rooms/{segment('!r:a.org')}"
RULE = {"actions": ["notify"], "pattern": "x", "conditions": [{"kind": "event_match"}]}
REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/register", {"username": "new", "password": "long enough", "auth": {"type": "m.login.dummy"}}),
    ("POST", "/register", {"device_id": "D", "initial_device_display_name": "N", "refresh_token": True}),
    ("POST", "/login", {"type": "m.login.password", "identifier": {"user": "alice"}, "password": "x"}),
    ("POST", "/refresh", {"refresh_token": "x"}),
    ("POST", "/account/password", {"new_password": "long enough", "auth": {"type": "m.login.password"}}),
    ("POST", "/account/deactivate", {"erase": True, "auth": {"type": "m.login.password"}}),
    ("PUT", "/devices/D", {"display_name": "x"}),
    ("DELETE", "/devices/D", {"auth": {"type": "m.login.password"}}),
    ("POST", "/delete_devices", {"devices": ["D"], "auth": {"type": "m.login.password"}}),
    ("PUT", "/profile/@alice:a.org/displayname", {"displayname": "A"}),
    ("PUT", "/profile/@alice:a.org/avatar_url", {"avatar_url": "mxc://a/b"}),
    ("PUT", "/profile/@alice:a.org/org.example.x", {"org.example.x": "A"}),
    ("PUT", "/user/@alice:a.org/account_data/x", {"a": 1}),
    ("PUT", f"{ROOM}/tags/x", {"order": 1}),
    ("POST", "/user/@alice:a.org/filter", {"room": {"timeline": {}}, "presence": {}, "event_fields": []}),
    ("PUT", "/pushrules/global/content/x", RULE),
    ("PUT", "/pushrules/global/override/x", RULE),
    ("PUT", "/pushrules/global/underride/.m.rule.message/actions", {"actions": []}),
    ("PUT", "/pushrules/global/underride/.m.rule.message/enabled", {"enabled": False}),
]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
async def test_odd_values_in_each_field(
    server: AccountServer, method: str, path: str, body: dict[str, Any]
) -> None:
    token = await server.user("alice", device_id="D")
    for field in body:
        for odd in ODD:
            status, reply = await server.call(method, path, {**body, field: odd}, token=token)
            assert status < 500, (field, odd, reply)


@pytest.mark.parametrize("field", ["type", "session", "identifier", "password", "token"])
async def test_odd_values_in_the_auth_of_a_request(server: AccountServer, field: str) -> None:
    token = await server.user("alice", device_id="D")
    for odd in ODD:
        body = {"auth": {**password_auth("alice"), field: odd}}
        status, reply = await server.call("DELETE", "/devices/NONE", body, token=token)
        assert status < 500, (odd, reply)


async def test_names_in_paths_may_be_odd_too(server: AccountServer) -> None:
    token = await server.user("alice")
    for name in ("", "x" * 3000, "ä", "a/b", "%00", "%ed%a0%80", "..", "."):
        quoted = name if name.startswith("%") else segment(name)
        for method, path in (
            ("GET", f"/profile/{quoted}"),
            ("GET", f"/profile/@alice:a.org/{quoted}"),
            ("PUT", f"/user/@alice:a.org/account_data/{quoted}"),
            ("PUT", f"/user/@alice:a.org/rooms/{quoted}/tags/x"),
            ("GET", f"/user/@alice:a.org/filter/{quoted}"),
            ("GET", f"/devices/{quoted}"),
            ("PUT", f"/pushrules/global/room/{quoted}/enabled"),
            ("GET", f"/register/available?username={quoted}"),
        ):
            status, reply = await server.call(method, path, {}, token=token)
            assert status < 500, (method, path, reply)
