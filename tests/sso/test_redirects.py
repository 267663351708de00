"""Where people are sent back to, and what their names are made of: plain rules."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.clock import FakeClock
from homeserver.protocol.ids import validate_new_localpart
from homeserver.sso.claims import as_localpart, filled
from homeserver.sso.redirects import check_redirect, described, is_trusted, with_login_token
from homeserver.sso.seals import Attempt, Goal, Question, Seals

TRUSTED = ("https://a.org", "https://b.org/app", "https://c.org:8443/x/", "element://connect", "io.app:/sso")


@pytest.mark.parametrize(
    "url",
    [
        "https://a.org", "https://a.org/", "https://A.ORG:443/any?x#y", "https://b.org/app",
        "https://b.org/app/", "https://b.org/app?x=1", "https://b.org/app/deep", "https://c.org:8443/x/y",
        "element://connect", "element://connect/x", "ELEMENT://connect?x=1", "io.app:/sso", "io.app:/sso/1",
    ],
)  # fmt: skip
def test_what_is_trusted(url: str) -> None:
    check_redirect(url)
    assert is_trusted(url, TRUSTED)


@pytest.mark.parametrize(
    "url",
    [
        "https://a.org.evil.org/", "https://a.orgevil/", "https://evil.org/https://a.org", "http://a.org/",
        "https://a.org:8443/", "https://a.org@evil.org/", "https://user@a.org/", "https://evil.org#@a.org/",
        "https://b.org/apple", "https://b.org/", "https://b.org/app/../evil", "https://b.org/app/%2e%2E/evil",
        "https://b.org/app/.%2e/evil", "https://c.org/x/y", "element://connected", "element://evil",
        "element:connect", "io.app:/ssoo", "io.app.evil:/sso", "https://evil.org?https://a.org/",
    ],
)  # fmt: skip
def test_what_only_looks_like_it(url: str) -> None:
    check_redirect(url)
    assert not is_trusted(url, TRUSTED)


@pytest.mark.parametrize(
    "url",
    ["", "x", "//a.org", "java\tscript:x", "JAVASCRIPT:x", " https://a.org", "https://a.org\n", "https:///x",
     "https://a.org\\@b.org", "https://a.org:x/", "https://a.org:99999/", "blob:https://a.org/x", "https:"],
)  # fmt: skip
def test_where_nobody_is_sent(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        check_redirect(url)


def test_people_are_told_where_it_leads() -> None:
    assert described("https://a.org:443/x") == "a.org"
    assert described("http://a.org:8080/x") == "a.org:8080"
    assert described("https://trusted.org@evil.org/") == "evil.org"
    assert described("io.app:/sso") == "the app that opens io.app: links"


_query = st.lists(
    st.tuples(st.sampled_from(["loginToken", "login%54oken", "a", "b", ""]), st.text("xyz%=", max_size=4)),
    max_size=5,
)


@given(_query, st.sampled_from(["", "#", "#/room?loginToken=x"]))
def test_there_is_one_token_and_the_rest_is_kept(pairs: list[tuple[str, str]], fragment: str) -> None:
    query = "&".join(f"{name}={value}" for name, value in pairs)
    url = with_login_token(f"https://a.org/?{query}{fragment}", "t0ken")
    got = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    kept = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] != "loginToken"]
    assert got == [*kept, ("loginToken", "t0ken")]
    assert url.endswith(fragment)


def test_a_token_is_added_to_any_kind_of_link() -> None:
    assert with_login_token("io.app:/sso", "t") == "io.app:/sso?loginToken=t"
    assert with_login_token("https://a.org#x", "t") == "https://a.org?loginToken=t#x"


@given(st.text(min_size=1, max_size=60))
def test_every_name_becomes_a_localpart(text: str) -> None:
    localpart = as_localpart(text)
    assert re.fullmatch(r"([a-z0-9._/+-]|=[0-9a-f]{2})+", localpart)
    if len(localpart) < 200:
        validate_new_localpart(localpart)


@pytest.mark.parametrize(
    ("template", "claims", "expected"),
    [
        ("{a}", {"a": "x"}, "x"),
        ("{a}.{b}", {"a": "{b}", "b": "y"}, "{b}.y"),
        ("{a} {b}", {"a": "x"}, None),
        ("{a}", {"a": "  "}, None),
        ("{a}", {"a": 5}, None),
        ("{a}", {"a": "\x00"}, None),
        ("{a}", {"a": "\ud800"}, None),
        ("{urn:x.y/z}", {"urn:x.y/z": "x"}, "x"),
        ("fixed", {}, "fixed"),
    ],
)
def test_templates(template: str, claims: dict[str, Any], expected: str | None) -> None:
    assert filled(template, claims) == expected


def test_what_a_browser_keeps_opens_once_in_time_and_here_alone() -> None:
    clock = FakeClock()
    seals, later = Seals(b"secret", clock), Seals(b"secret", clock)
    question = Question("1", clock.now_ms() + 1000, "@alice:a.org", Goal(session="s"))
    attempt = Attempt("2", clock.now_ms() + 1000, "p", "nonce", "verifier", Goal(redirect_url="x:y"))
    sealed = seals.seal(question)
    assert "alice" not in sealed
    assert seals.open(sealed) == question
    assert later.open(seals.seal(attempt)) == attempt
    assert Seals(b"another", clock).open(sealed) is None
    assert seals.open(sealed[:-2] + "AA") is None
    seals.use_up(question)
    assert seals.open(sealed) is None
    assert seals.open(seals.seal(attempt)) == attempt
    clock.advance(1)
    assert seals.open(seals.seal(attempt)) is None


@given(st.text(max_size=100))
def test_no_other_text_opens(text: str) -> None:
    assert Seals(b"secret", FakeClock()).open(text) is None
