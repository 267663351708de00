"""Glob matching agrees with the obvious definition, and takes no time an attacker can choose."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.globs import (
    Glob,
    compile_glob,
    glob_found_in_words,
    glob_matches,
    phrase_found_in_words,
)

PATTERNS = st.text(alphabet="ab_ -*?", max_size=6)
TEXTS = st.text(alphabet="ab_ -\n", max_size=10)


def as_regex(pattern: str) -> str:
    return "".join({"*": "(?s:.*)", "?": "(?s:.)"}.get(c, re.escape(c)) for c in pattern)


def is_boundary(text: str, position: int) -> bool:
    around = text[max(position - 1, 0) : position + 1]
    inside = 0 < position < len(text)
    return not (inside and re.fullmatch("[A-Za-z0-9_]{2}", around))


@given(PATTERNS, TEXTS)
def test_whole_text(pattern: str, text: str) -> None:
    assert glob_matches(pattern, text) == bool(re.fullmatch(as_regex(pattern), text))


@given(PATTERNS, TEXTS)
def test_between_word_boundaries(pattern: str, text: str) -> None:
    expected = any(
        is_boundary(text, start)
        and is_boundary(text, end)
        and re.fullmatch(as_regex(pattern), text[start:end])
        for start in range(len(text) + 1)
        for end in range(start, len(text) + 1)
    )
    assert glob_found_in_words(pattern, text) == bool(expected)


@given(st.text(alphabet="ab_*?(", max_size=4), TEXTS)
def test_a_phrase_has_no_wildcards(phrase: str, text: str) -> None:
    expected = any(
        text[start : start + len(phrase)] == phrase
        and is_boundary(text, start)
        and is_boundary(text, start + len(phrase))
        for start in range(len(text) + 1 - len(phrase))
    )
    assert phrase_found_in_words(phrase, text) == expected


def test_question_mark_can_be_literal() -> None:
    assert Glob("a?*", question_mark=False).matches("a?b")
    assert not Glob("a?*", question_mark=False).matches("abb")


def test_a_pattern_too_long_matches_nothing() -> None:
    assert compile_glob("*" * 513) is None
    assert not glob_matches("*" * 513, "")


@pytest.mark.parametrize(
    "pattern", ["*a" * 200 + "*b", "a?" * 200 + "b", "?" * 400 + "*b", "*?a" * 150 + "b"]
)
def test_hostile_patterns_finish_quickly(pattern: str) -> None:
    text = "a" * 65_000
    started = time.process_time()
    assert not glob_matches(pattern, text)
    assert not glob_found_in_words(pattern, text)
    assert time.process_time() - started < 2
