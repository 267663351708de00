"""Glob-style matching, in time proportional to the text whatever the pattern.

Patterns come from users and peers, so they never become a regular expression
that can backtrack: a pattern is cut at its ``*`` into pieces of fixed length,
and each piece is looked for once, leftmost first.  Specification: appendices,
"Glob-style matching".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

#: Longer patterns with wildcards match nothing: no identifier or phrase needs them.
MAX_PATTERN_LENGTH = 512

#: A position that does not lie inside a run of ``[A-Za-z0-9_]``.
_WORD_BOUNDARY = r"(?:(?<![A-Za-z0-9_])|(?![A-Za-z0-9_]))"

_WILDCARDS = re.compile(r"[*?]")


class Glob:
    """A compiled pattern; matching is case-sensitive, so fold case on both sides first."""

    __slots__ = (
        "_ends_in_word",
        "_first",
        "_last",
        "_last_length",
        "_middle",
        "_minimum",
        "_starts_in_word",
        "_whole",
    )

    def __init__(self, pattern: str, *, question_mark: bool) -> None:
        pieces = pattern.split("*")
        first, *rest = (_escape(piece, question_mark) for piece in pieces)
        last = rest[-1] if rest else ""
        self._whole = not rest
        self._minimum = sum(map(len, pieces))
        self._first = _compile(first)
        self._middle = tuple(_compile(piece) for piece in rest[:-1] if piece)
        self._last = _compile(last)
        self._last_length = len(pieces[-1])
        self._starts_in_word = _compile(_WORD_BOUNDARY + first + (_WORD_BOUNDARY if self._whole else ""))
        self._ends_in_word = _compile(last + _WORD_BOUNDARY)

    def matches(self, text: str) -> bool:
        """Whether the whole of ``text`` matches."""
        if len(text) < self._minimum:
            return False
        if self._whole:
            return self._first.fullmatch(text) is not None
        start = self._first.match(text)
        if start is None:
            return False
        position = self._after_middle(text, start.end())
        ending = len(text) - self._last_length
        return position is not None and position <= ending and self._last.match(text, ending) is not None

    def found_in_words(self, text: str) -> bool:
        """Whether some part of ``text`` that starts and ends at a word boundary matches."""
        if len(text) < self._minimum:
            return False
        start = self._starts_in_word.search(text)
        if start is None or self._whole:
            return start is not None
        position = self._after_middle(text, start.end())
        return position is not None and self._ends_in_word.search(text, position) is not None

    def _after_middle(self, text: str, position: int) -> int | None:
        """Where the pieces between the outer ``*`` end at the earliest, or ``None``."""
        for piece in self._middle:
            found = piece.search(text, position)
            if found is None:
                return None
            position = found.end()
        return position


def has_wildcard(pattern: str) -> bool:
    """Whether the pattern is more than a literal string."""
    return _WILDCARDS.search(pattern) is not None


def compile_glob(pattern: str, *, question_mark: bool = True) -> Glob | None:
    """The compiled pattern, from a bounded cache; ``None`` for one too long to ever match.

    ``question_mark=False`` is for patterns that know only ``*`` (event types in filters).
    """
    if len(pattern) > MAX_PATTERN_LENGTH:
        return None
    return _compiled(pattern, question_mark)


def glob_matches(pattern: str, text: str) -> bool:
    """Whether all of ``text`` matches, case-sensitively."""
    if not has_wildcard(pattern):
        return pattern == text
    glob = compile_glob(pattern)
    return glob is not None and glob.matches(text)


def glob_found_in_words(pattern: str, text: str) -> bool:
    """Whether a part of ``text`` between two word boundaries matches, case-sensitively.

    A word boundary is the start or end of the text, or next to a character
    outside ``[A-Za-z0-9_]`` (client-server API, "Push rules").
    """
    glob = compile_glob(pattern)
    return glob is not None and glob.found_in_words(text)


def phrase_found_in_words(phrase: str, text: str) -> bool:
    """Whether the literal ``phrase`` occurs in ``text`` between two word boundaries."""
    return _phrase(phrase).search(text) is not None


@lru_cache(maxsize=4096)
def _phrase(phrase: str) -> re.Pattern[str]:
    return _compile(_WORD_BOUNDARY + re.escape(phrase) + _WORD_BOUNDARY)


@lru_cache(maxsize=4096)
def _compiled(pattern: str, question_mark: bool) -> Glob:
    return Glob(pattern, question_mark=question_mark)


def _escape(piece: str, question_mark: bool) -> str:
    return "".join(_escaped(piece, question_mark))


def _escaped(piece: str, question_mark: bool) -> Iterator[str]:
    for character in piece:
        yield "." if character == "?" and question_mark else re.escape(character)


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)
