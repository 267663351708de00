"""What somebody looks for in messages, and how well a text fits it, as plain functions over integers.

A query is a number of phrases, all of which a text has to have.  What is typed without a space is
one phrase, and so is what stands in quotation marks; nothing else has a meaning of its own.  The
words of a phrase follow each other.  A single word is also found in its other forms
(``inflection.py``), unless it is quoted.  A word with accents is not found with others, but without
any; one without accents is found with all.

Texts are given as ``segmentation.write_words`` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

from homeserver.protocol.inflection import Form, Run, forms_of, run_of
from homeserver.protocol.segmentation import (
    EXACT,
    Token,
    run_pattern,
    tokens_of,
    units_of,
)

#: More of a query is not looked at.
MAX_QUERY_CHARS = 512
MAX_TOKENS = 32
#: Terms that an index is asked for; the words themselves are compared afterwards.
MAX_TERMS = 24
#: Occurrences of one phrase that count.
_MAX_OCCURRENCES = 5

#: Also what ends a phrase in scripts without spaces.
_PHRASE = re.compile(
    '["“„«「『](?P<quoted>[^"”“»」』]*)["”“»」』]|(?P<plain>[^\\s"“”„«»\u3000-\u3004\u3008-\u3020'
    "\uff01-\uff0f\uff1a-\uff1f\uff5b-\uff65]+)"
)
#: Words of a query that are looked for in all their forms.
_MAX_LOOSE = 6
#: What French and Italian write together with the next word.
_ELISION = re.compile(
    "(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|all|dall|dell|nell|sull|un)['’](?=\\w{3})", re.IGNORECASE
)


class Phrase(msgspec.Struct, frozen=True):
    """Tokens that follow each other; ``forms`` are those of a single word, ``run`` of a single run."""

    tokens: tuple[Token, ...]
    forms: tuple[Form, ...] = ()
    run: Run | None = None

    @property
    def pattern(self) -> str:
        """A regular expression that finds it in the words of a text."""
        if self.forms:
            return f" {_forms_pattern(self.forms)}"
        if self.run is not None and self.run.endings:
            return f"{re.escape(self.run.stem)}(?:{'|'.join(self.run.endings)})"
        if self.run is not None:
            return run_pattern(self.run.stem)
        last = len(self.tokens) - 1
        return "".join(
            _pattern(token, is_first=at == 0, is_last=at == last) for at, token in enumerate(self.tokens)
        )

    @property
    def terms(self) -> tuple[tuple[str, ...], ...]:
        """Of each of these groups of terms, a text that has it has one."""
        if self.forms:
            return (tuple(dict.fromkeys(form.bare for form in self.forms)),)
        groups: dict[tuple[str, ...], None] = {}
        for token in self.tokens:
            if token.kind != "run":
                groups[token.bare,] = None
                continue
            units = units_of(token.bare if self.run is None else self.run.stem)
            pairs = ["".join(pair) for pair in pairwise(units)]
            groups |= dict.fromkeys((term,) for term in pairs or units)
        return tuple(groups)


class Query(msgspec.Struct, frozen=True):
    """What is looked for; without ``phrases`` it finds nothing."""

    phrases: tuple[Phrase, ...]
    patterns: tuple[re.Pattern[str], ...]
    #: Finds all phrases next to each other, in their order; ``None`` where there is only one.
    together: re.Pattern[str] | None
    #: Of each of these groups of terms, a text has one.
    terms: tuple[tuple[str, ...], ...]


class Match(msgspec.Struct, frozen=True, gc=False):
    """How a text fits."""

    score: int
    #: The words it was found by, as the text has them.
    found: tuple[str, ...]


def parse_query(text: str) -> Query:
    """What a person typed."""
    phrases: list[Phrase] = []
    left = MAX_TOKENS
    for found in _PHRASE.finditer(text[:MAX_QUERY_CHARS]):
        plain = _ELISION.sub("", found["plain"] or "", count=1)
        tokens = tokens_of(found["quoted"] or plain)[:left]
        left -= len(tokens)
        if tokens:
            is_loose = found["quoted"] is None and len(phrases) < _MAX_LOOSE
            phrases.append(_phrase(tokens, is_loose=is_loose))
    phrases = list(dict.fromkeys(phrases))
    patterns = tuple(re.compile(phrase.pattern) for phrase in phrases)
    together = re.compile(" ?".join(p.pattern.removeprefix(" ") for p in patterns)) if phrases[1:] else None
    return Query(tuple(phrases), patterns, together, _terms(phrases))


def match(query: Query, words: str) -> Match | None:
    """How a text fits a query; ``None`` if it does not.

    The score prefers texts with the very words, with more of them, with the phrases next to each
    other, and short ones.
    """
    score = 0
    found: dict[str, None] = {}
    for phrase, pattern in zip(query.phrases, query.patterns, strict=True):
        first = pattern.search(words)
        if first is None:
            return None
        score += 8 + 2 * _count(pattern, words)
        if _is_exact(phrase, words):
            score += 6
        found |= dict.fromkeys(_written(first[0]))
    if not found:
        return None
    if query.together is not None and query.together.search(words):
        score += 12
    return Match(score + 8 // (1 + len(words) // 128), tuple(found))


def highlights_of(query: Query, matches: Iterable[Match], limit: int = 64) -> list[str]:
    """What a client is to highlight: the words that were typed, and those that were found instead."""
    typed = (token.exact for phrase in query.phrases for token in phrase.tokens)
    words = dict.fromkeys((*typed, *(word for one in matches for word in one.found)))
    return list(words)[:limit]


def _phrase(tokens: Sequence[Token], *, is_loose: bool) -> Phrase:
    if not is_loose or len(tokens) > 1:
        return Phrase(tuple(tokens))
    (token,) = tokens
    if token.kind == "run":
        return Phrase((token,), run=run_of(token.bare))
    return Phrase((token,), forms_of(token.exact))


def _forms_pattern(forms: Iterable[Form]) -> str:
    """Finds any of some words, after the space before it."""
    mark = re.escape(EXACT)
    kinds: dict[str, list[str]] = {f"(?:{mark}[^ ]+)?": [], "": []}
    for form in forms:
        word = re.escape(form.bare)
        if form.exact is None:
            kinds[f"(?:{mark}[^ ]+)?"].append(word)
        else:
            kinds[""].append(word if form.exact == form.bare else f"{word}{mark}{re.escape(form.exact)}")
    found = "|".join(f"(?:{'|'.join(words)}){after}" for after, words in kinds.items() if words)
    return f"(?:{found})(?= )"


def _pattern(token: Token, *, is_first: bool, is_last: bool) -> str:
    if token.kind == "run":
        run = run_pattern(token.bare)
        if is_first and is_last:
            return run
        if is_first:
            return f"{run}(?= )"
        return f" {run}" if is_last else f" {run}(?= )"
    if token.exact == token.bare:
        return f" {_forms_pattern([Form(token.bare, None)])}"
    return f" {re.escape(token.bare)}(?:{re.escape(EXACT + token.exact)})?(?= )"


def _is_exact(phrase: Phrase, words: str) -> bool:
    """Whether it stands there as it was typed; a run that does not begin after a Chinese character.

    So 京都 fits a text better that has 京都 than one that has 東京都.
    """
    if phrase.tokens[0].kind == "run":
        return re.search(rf"(?<![\u3400-\u9fff]){phrase.pattern}", words) is not None
    written = " ".join(t.bare if t.exact == t.bare else f"{t.bare}{EXACT}{t.exact}" for t in phrase.tokens)
    return f" {written} " in words


def _count(pattern: re.Pattern[str], words: str) -> int:
    count = 0
    for _ in pattern.finditer(words):
        count += 1
        if count == _MAX_OCCURRENCES:
            break
    return count


def _written(matched: str) -> list[str]:
    return [word.rpartition(EXACT)[2] for word in matched.split()]


def _terms(phrases: Sequence[Phrase]) -> tuple[tuple[str, ...], ...]:
    """The longest terms first: they say most."""
    groups = dict.fromkeys(group for phrase in phrases for group in phrase.terms)
    return tuple(sorted(groups, key=lambda group: -len(group[0]))[:MAX_TERMS])
