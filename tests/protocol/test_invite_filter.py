"""Whose invites a configuration lets through."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.protocol.invite_filter import invite_verdict

_BOB = "@bob:good.example:8448"


@pytest.mark.parametrize(
    ("config", "verdict"),
    [
        ({}, "allow"),
        ({"default_action": "block"}, "block"),
        ({"default_action": "burn"}, "allow"),
        ({"default_action": ["block"]}, "allow"),
        ({"blocked_servers": ["*"]}, "block"),
        ({"blocked_servers": ["good.example"]}, "block"),
        ({"blocked_servers": ["good.example:8448"]}, "allow"),
        ({"blocked_servers": ["g??d.*"]}, "block"),
        ({"ignored_servers": ["good.example"], "blocked_servers": ["*"]}, "ignore"),
        ({"allowed_servers": ["good.example"], "ignored_servers": ["*"], "blocked_servers": ["*"]}, "allow"),
        ({"allowed_users": ["@bob:*"], "blocked_servers": ["*"]}, "allow"),
        ({"allowed_users": ["@bob:*"], "blocked_users": [_BOB]}, "allow"),
        ({"ignored_users": ["@b*"], "blocked_users": [_BOB]}, "ignore"),
        ({"blocked_users": [_BOB], "allowed_servers": ["*"]}, "block"),
        ({"enabled": False, "blocked_servers": ["*"]}, "allow"),
        ({"blocked_servers": ["*"], "allowed_users": None}, "block"),
        ({"blocked_servers": ["*"], "allowed_users": [5]}, "allow"),
        ({"blocked_servers": ["*"], "allowed_users": "@bob"}, "allow"),
        ({"allowed_users": [_BOB], "default_action": "block"}, "allow"),
    ],
)
def test_a_configuration_decides(config: dict[str, Any], verdict: str) -> None:
    assert invite_verdict(config, _BOB) == verdict


def test_patterns_are_bounded() -> None:
    patterns = ["@nobody:x"] * 1_000 + [_BOB]
    assert invite_verdict({"blocked_users": patterns}, _BOB) == "allow"
