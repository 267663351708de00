"""Which servers an access list lets in (client-server API, "Server Access Control Lists")."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.rooms.server_acl import acl_allows


@pytest.mark.parametrize(
    ("content", "server_name", "allowed"),
    [
        (None, "any.example", True),
        ({}, "any.example", False),
        ({"allow": ["*"]}, "any.example", True),
        ({"allow": ["*"], "deny": ["evil.example"]}, "evil.example", False),
        ({"allow": ["*"], "deny": ["evil.example"]}, "evil.example:8448", False),
        ({"allow": ["*"], "deny": ["*.evil.example"]}, "a.evil.example", False),
        ({"allow": ["*"], "deny": ["*.evil.example"]}, "evil.example", True),
        ({"allow": ["*"], "deny": ["EVIL.example"]}, "evil.EXAMPLE", False),
        ({"allow": ["good.example"]}, "other.example", False),
        ({"allow": ["g??d.example"]}, "good.example", True),
        ({"allow": ["*"], "allow_ip_literals": False}, "192.0.2.1", False),
        ({"allow": ["*"], "allow_ip_literals": False}, "[2001:db8::1]:8448", False),
        ({"allow": ["*"], "allow_ip_literals": True}, "192.0.2.1:80", True),
        ({"allow": ["*"], "allow_ip_literals": "false"}, "192.0.2.1", True),
        ({"allow": ["*"], "deny": ["[2001:db8::*"]}, "[2001:db8::1]:8448", False),
        ({"allow": "*"}, "any.example", False),
        ({"allow": ["*", 3, None], "deny": [{}, "evil.example"]}, "any.example", True),
    ],
)
def test_an_access_list(content: dict[str, Any] | None, server_name: str, allowed: bool) -> None:
    assert acl_allows(content, server_name) is allowed


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["allow", "deny", "allow_ip_literals"]), anything))
def test_odd_content_is_judged_too(content: dict[str, Any]) -> None:
    assert acl_allows({**content, "deny": ["*"]}, "any.example") is False
    assert acl_allows(content, "any.example") in (True, False)
