"""Reading and editing push rules, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client_api.account_server import AccountServer

GLOBAL = "/pushrules/global"
RULE = {"actions": ["notify"], "pattern": "cake"}


async def own_content_rules(server: AccountServer, token: str) -> list[str]:
    _, ruleset = await server.call("GET", f"{GLOBAL}/", token=token)
    return [rule["rule_id"] for rule in ruleset["content"]]


async def test_everybody_starts_with_the_predefined_rules(server: AccountServer) -> None:
    token = await server.user("alice")
    _, reply = await server.call("GET", "/pushrules/", token=token)
    assert set(reply["global"]) == {"override", "content", "room", "sender", "underride"}
    _, rule = await server.call("GET", f"{GLOBAL}/override/.m.rule.invite_for_me", token=token)
    assert {"kind": "event_match", "key": "state_key", "pattern": "@alice:a.org"} in rule["conditions"]


async def test_a_new_rule_is_the_most_important_unless_placed(server: AccountServer) -> None:
    token = await server.user("alice")
    for name in ("one", "two", "three?before=one", "four?after=two"):
        assert await server.call("PUT", f"{GLOBAL}/content/{name}", RULE, token=token) == (200, {})
    assert await own_content_rules(server, token) == ["two", "four", "three", "one"]
    await server.call("PUT", f"{GLOBAL}/content/one?before=two", RULE, token=token)
    await server.call("PUT", f"{GLOBAL}/content/four", {**RULE, "pattern": "pie"}, token=token)
    assert await own_content_rules(server, token) == ["one", "two", "four", "three"]
    assert await server.call("DELETE", f"{GLOBAL}/content/two", token=token) == (200, {})
    assert await own_content_rules(server, token) == ["one", "four", "three"]
    assert len(server.witness.announced) == 7


async def test_own_rules_stand_before_the_predefined_but_after_the_master(server: AccountServer) -> None:
    token = await server.user("alice")
    await server.call("PUT", f"{GLOBAL}/override/mine", {"actions": [], "conditions": []}, token=token)
    _, ruleset = await server.call("GET", f"{GLOBAL}/", token=token)
    assert [rule["rule_id"] for rule in ruleset["override"]][:2] == [".m.rule.master", "mine"]
    assert ruleset["override"][1] == {
        "rule_id": "mine",
        "default": False,
        "enabled": True,
        "actions": [],
        "conditions": [],
    }


@pytest.mark.parametrize("rule_id", [".m.rule.message", "mine"])
async def test_rules_are_switched_off_and_given_other_actions(server: AccountServer, rule_id: str) -> None:
    token = await server.user("alice")
    await server.call("PUT", f"{GLOBAL}/underride/mine", {"actions": ["notify"]}, token=token)
    path = f"{GLOBAL}/underride/{rule_id}"
    assert await server.call("GET", f"{path}/enabled", token=token) == (200, {"enabled": True})
    assert await server.call("PUT", f"{path}/enabled", {"enabled": False}, token=token) == (200, {})
    actions = {"actions": ["notify", {"set_tweak": "sound", "value": "bing"}]}
    assert await server.call("PUT", f"{path}/actions", actions, token=token) == (200, {})
    assert await server.call("GET", f"{path}/enabled", token=token) == (200, {"enabled": False})
    assert await server.call("GET", f"{path}/actions", token=token) == (200, actions)
    _, other = await server.call("GET", f"{GLOBAL}/underride/.m.rule.call/enabled", token=token)
    assert other == {"enabled": True}


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("content/.mine", RULE, (400, "M_INVALID_PARAM")),
        ("content/a%2Fb", RULE, (400, "M_INVALID_PARAM")),
        ("content/a%5Cb", RULE, (400, "M_INVALID_PARAM")),
        ("nothing/x", RULE, (400, "M_INVALID_PARAM")),
        ("content/x", {"actions": []}, (400, "M_MISSING_PARAM")),
        ("content/x", {"pattern": "x"}, (400, "M_MISSING_PARAM")),
        ("content/x", {"pattern": "x", "actions": ["shout"]}, (400, "M_BAD_JSON")),
        ("content/x", {"pattern": "x", "actions": [{"set_tweak": 1}]}, (400, "M_BAD_JSON")),
        ("override/x", {"actions": [], "conditions": ["x"]}, (400, "M_BAD_JSON")),
        ("content/x?before=nobody", RULE, (400, "M_UNKNOWN")),
        ("override/x?after=.m.rule.master", {"actions": []}, (400, "M_UNKNOWN")),
        ("content/nobody/enabled", {"enabled": True}, (404, "M_NOT_FOUND")),
        ("content/nobody/actions", {"actions": []}, (404, "M_NOT_FOUND")),
        ("override/.m.rule.master/enabled", {"enabled": "yes"}, (400, "M_BAD_JSON")),
    ],
)
async def test_edits_that_are_refused(
    server: AccountServer, path: str, body: dict[str, Any], expected: tuple[int, str]
) -> None:
    token = await server.user("alice")
    assert await server.refused("PUT", f"{GLOBAL}/{path}", body, token=token) == expected
    assert server.witness.announced == []


async def test_predefined_and_unknown_rules_cannot_be_deleted(server: AccountServer) -> None:
    token = await server.user("alice")
    path = f"{GLOBAL}/override/.m.rule.master"
    assert await server.refused("DELETE", path, token=token) == (400, "M_INVALID_PARAM")
    assert await server.refused("DELETE", f"{GLOBAL}/content/x", token=token) == (404, "M_NOT_FOUND")
    assert await server.refused("GET", f"{GLOBAL}/content/x", token=token) == (404, "M_NOT_FOUND")


async def test_rules_are_bounded_in_size_and_number(server: AccountServer) -> None:
    token = await server.user("alice")
    rule = "/pushrules/global/content"
    long = {"pattern": "x" * 20_000, "actions": ["notify"]}
    many = {"pattern": "x", "actions": ["notify"] * 101}
    for path, body in ((f"{rule}/long", long), (f"{rule}/many", many)):
        assert await server.refused("PUT", path, body, token=token) == (413, "M_TOO_LARGE")
    path = f"{rule}/{'i' * 513}"
    body = {"pattern": "x", "actions": []}
    assert await server.refused("PUT", path, body, token=token) == (400, "M_INVALID_PARAM")
    assert await server.refused("PUT", f"{rule}/odd", {**body, "pattern": 1}, token=token) == (
        400,
        "M_BAD_JSON",
    )
    big = {"pattern": "x" * 16_000, "actions": []}
    statuses = [(await server.call("PUT", f"{rule}/{n}", big, token=token))[0] for n in range(40)]
    assert statuses[:30] == [200] * 30
    assert statuses[-1] == 413


@pytest.mark.parametrize("kind", ["postcontent", "io.element.msc4306.postcontent"])
async def test_nobody_makes_rules_about_threads(server: AccountServer, kind: str) -> None:
    token = await server.user("alice")
    rule = f"{GLOBAL}/{kind}/.io.element.msc4306.rule.subscribed_thread"
    status, reply = await server.call("GET", rule, token=token)
    assert (status, reply["errcode"]) == (404, "M_NOT_FOUND")
    status, reply = await server.call("PUT", f"{GLOBAL}/{kind}/mine", RULE, token=token)
    assert (status, reply["errcode"]) == (400, "M_INVALID_PARAM")
