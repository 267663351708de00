"""What somebody looks for in messages, and how well a text fits it, as plain functions over integers.

A query is a number of phrases, all of which a text has to have.  What is typed without a space is
one phrase, and so is what stands in quotation marks; nothing else has a meaning of its own.  The
words of a phrase follow each other.  A single word is also found in its plural and singular
(English) and with its article (Arabic), unless it is quoted.  A word with accents is not found
with others, but without any; one without accents is found with all.

Texts are given as ``segmentation.write_words`` writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec

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
_ENGLISH = re.compile("[a-z]{3,}")
_PLURAL = re.compile("(?:s|x|z|ch|sh)$")
_ARTICLE = "ال"


class Phrase(msgspec.Struct, frozen=True):
    """Tokens that follow each other; each row of ``forms`` are the words one of them may be."""

    tokens: tuple[Token, ...]
    forms: tuple[tuple[str, ...], ...]

    @property
    def pattern(self) -> str:
        """A regular expression that finds it in the words of a text."""
        last = len(self.tokens) - 1
        return "".join(
            _pattern(token, forms, is_first=at == 0, is_last=at == last)
            for at, (token, forms) in enumerate(zip(self.tokens, self.forms, strict=True))
        )


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
        tokens = tokens_of(found["quoted"] or found["plain"] or "")[:left]
        left -= len(tokens)
        if tokens:
            phrases.append(_phrase(tokens, is_quoted=found["quoted"] is not None))
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


def _phrase(tokens: Sequence[Token], *, is_quoted: bool) -> Phrase:
    loose = len(tokens) == 1 and not is_quoted
    return Phrase(tuple(tokens), tuple(_forms(token) if loose else (token.bare,) for token in tokens))


def _forms(token: Token) -> tuple[str, ...]:
    """The words that somebody who looks for a word means too, itself first."""
    word = token.bare
    if token.kind != "word" or token.exact != word:
        return (word,)
    if _ENGLISH.fullmatch(word):
        singular = _singular(word)
        return tuple(dict.fromkeys((word, singular, _plural(singular))))
    if "\u0620" <= word[0] <= "\u064a":
        other = word.removeprefix(_ARTICLE) if word.startswith(_ARTICLE) else _ARTICLE + word
        return (word, other) if len(other) > 2 else (word,)
    return (word,)


def _singular(word: str) -> str:
    if len(word) < 4 or word.endswith(("ss", "us", "is", "news")) or not word.endswith("s"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


def _plural(word: str) -> str:
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if _PLURAL.search(word) else "s")


def _pattern(token: Token, forms: Sequence[str], *, is_first: bool, is_last: bool) -> str:
    if token.kind == "run":
        run = run_pattern(token.bare)
        if is_first and is_last:
            return run
        if is_first:
            return f"{run}(?= )"
        return f" {run}" if is_last else f" {run}(?= )"
    words = "|".join(map(re.escape, forms))
    if token.exact == token.bare:
        return f" (?:{words})(?=[ {re.escape(EXACT)}])(?:{re.escape(EXACT)}[^ ]+)?"
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
    groups: dict[tuple[str, ...], None] = {}
    for phrase in phrases:
        for token, forms in zip(phrase.tokens, phrase.forms, strict=True):
            if token.kind != "run":
                groups[forms] = None
                continue
            units = units_of(token.bare)
            pairs = ["".join(pair) for pair in pairwise(units)]
            groups |= dict.fromkeys((term,) for term in pairs or units)
    return tuple(sorted(groups, key=lambda group: -len(group[0]))[:MAX_TERMS])
