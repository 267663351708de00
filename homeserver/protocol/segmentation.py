"""Texts of any language as the words they are searched by, as plain functions.

Scripts with spaces between words (Latin, Cyrillic, Arabic, Devanagari, ...) give whole words.  Of
scripts without (Chinese, Japanese, Thai, Lao, Khmer, Burmese), and of Korean, whose particles stick
to the words, whole runs are kept: what is looked for may begin anywhere in a run, but not in the
middle of a syllable.  Symbols such as emoji are words of their own.  There are no dictionaries.

Words are compared in two forms: *exact*, without regard to case, width and other ways of writing
the same letter, and *bare*, also without accents and the optional vowel signs of Arabic and
Hebrew.  Marks that make another word of it, such as the vowel signs of Hindi and Thai and the
voicing marks of kana, stay in both.

The words of a text are stored as one string (``write_words``), which ``search_query.py`` looks
through; the terms of a text (``terms_of``) are what an index finds it by.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple

from homeserver.protocol.chinese import SIMPLIFIED

#: To be raised with every change to what a text is stored as: indexes are then made anew.
VERSION = 2

#: Longer words are cut; nobody types them.
MAX_WORD_CHARS = 64
#: Stands in a written word between its bare and its exact form, where those differ.
EXACT = "^"

Kind = Literal["word", "run", "symbol"]


class Token(NamedTuple):
    """A word, a run of a script without spaces, or a symbol."""

    kind: Kind
    bare: str
    exact: str


def _class_of_marks() -> str:
    """All combining marks as the inside of a character class."""
    ranges: list[list[int]] = []
    for start, end in (
        (0x300, 0x3100),
        (0xA600, 0xAC00),
        (0xFB1E, 0xFB1F),
        (0xFE20, 0xFE30),
        (0x10A00, 0x12000),
    ):
        for code in range(start, end):
            if unicodedata.category(chr(code))[0] != "M":
                continue
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


_MARKS = _class_of_marks()
_SOUTH_EAST = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"
_EAST = (
    r"\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3031-\u3035\u303b\u3041-\u3096\u309d-\u309f"
    r"\u30a1-\u30fa\u30fc-\u30ff\u3105-\u318e\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
_UNSPACED = _SOUTH_EAST + _EAST
_SYMBOLS = r"\u2190-\u23ff\u2460-\u2bff\U0001f000-\U0001f3fa\U0001f400-\U0001faff"

#: Thai and Lao: vowels written before their consonant, and those after it that are no marks.
_VOWELS_BEFORE = r"\u0e40-\u0e44\u0ec0-\u0ec4"
_VOWELS_AFTER = r"\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3"
#: Burmese and Khmer: puts the next consonant under the one before.
_STACKERS = r"\u1039\u17d2"

_FOUND = re.compile(f"(?:[^\\W_](?:[^\\W_]|[{_MARKS}])*)|(?P<symbol>[{_SYMBOLS}])")
_PART = re.compile(
    f"(?P<run>(?![{_MARKS}])[{_UNSPACED}][{_UNSPACED}{_MARKS}]*)|(?:[{_MARKS}]|[^{_UNSPACED}])+"
)
_RUN = re.compile(f"[{_UNSPACED}]")
_UNIT = re.compile(
    f"[{_VOWELS_BEFORE}]?.(?:[{_MARKS}{_VOWELS_AFTER}]|(?<=[{_STACKERS}]).)*",
    re.DOTALL,
)
_ASCII_WORD = re.compile("[a-z0-9]+")

#: Shown or not shown, they change nothing: joiners, directions, soft hyphens, variants, the Arabic stretch.
_INVISIBLE = re.compile(
    r"[\u00ad\u034f\u061c\u0640\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff"
    r"\U0001f3fb-\U0001f3ff\U000e0000-\U000e0fff]"
)

#: Letters that are written for each other: Chinese ones, those of Arabic script, and the dotless i
#: (its capital is I).
_ALIKE = SIMPLIFIED | str.maketrans({"ى": "ي", "ی": "ي", "ة": "ه", "ہ": "ه", "ک": "ك", "ٱ": "ا", "ı": "i"})
_HAS_ALIKE = re.compile("[ı\u0600-\u06ff\u4e00-\u9fff]")
#: Letters with accents that Unicode does not take apart.
_PLAIN = str.maketrans(
    {
        **{"đ": "d", "ð": "d", "ø": "o", "ł": "l", "ħ": "h", "ŧ": "t", "æ": "ae", "œ": "oe", "þ": "th"},
        "ŋ": "n",
    }
)
#: Marks that a bare word is without, whatever they stand on.
_ARABIC_MARKS = frozenset(map(chr, (*range(0x610, 0x61B), *range(0x64B, 0x660), 0x670, *range(0x6D6, 0x6EE))))
_HEBREW_MARKS = frozenset(map(chr, range(0x591, 0x5C8)))
#: й, ў and ї are letters; ё and the stress marks of Cyrillic are not.
_CYRILLIC_LETTERS = frozenset(("и\u0306", "у\u0306", "і\u0308"))

_DEVANAGARI = re.compile("[\u0900-\u097f]")
#: Hindi: the dots that stand for sounds of other languages, and the two signs for nasal vowels.
_HINDI = {0x093C: None, 0x0901: "\u0902"}
#: The nasal before a consonant of its row, which may as well be written as a sign.
_NASAL = re.compile("ङ्(?=[क-घ])|ञ्(?=[च-झ])|ण्(?=[ट-ढ])|न्(?=[त-ध])|म्(?=[प-भ])")
#: Vietnamese: the tone of a final oa, oe or uy may stand on either letter.
_TONES = re.compile("[òóỏõọ][ae](?!\\w)|[ùúủũụ]y(?!\\w)")
_TONED = {
    **{first + "a": f"o{last}" for first, last in zip("òóỏõọ", "àáảãạ", strict=True)},
    **{first + "e": f"o{last}" for first, last in zip("òóỏõọ", "èéẻẽẹ", strict=True)},
    **{first + "y": f"u{last}" for first, last in zip("ùúủũụ", "ỳýỷỹỵ", strict=True)},
}

#: Digits of other scripts.
_DIGIT = re.compile(r"[^\D0-9]")


def tokens_of(text: str) -> list[Token]:
    """The tokens of a text, in order; as many as there are."""
    if text.isascii():
        return [Token("word", word, word) for word in _ascii_words(text)]
    tokens: list[Token] = []
    text = folded(text)
    has_runs = _RUN.search(text) is not None
    for found in _FOUND.finditer(text):
        if found.lastgroup == "symbol":
            tokens.append(Token("symbol", found[0], found[0]))
            continue
        if not has_runs:
            exact = found[0][:MAX_WORD_CHARS]
            tokens.append(Token("word", bare(exact), exact))
            continue
        for part in _PART.finditer(found[0]):
            if part.lastgroup == "run":
                tokens.append(Token("run", part[0], part[0]))
            else:
                exact = part[0][:MAX_WORD_CHARS]
                tokens.append(Token("word", bare(exact), exact))
    return [token for token in tokens if token.bare]


def _ascii_words(text: str) -> list[str]:
    return [word[:MAX_WORD_CHARS] for word in _ASCII_WORD.findall(text.lower())]


def folded(text: str) -> str:
    """A text in the exact form of its words."""
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))
    if _HAS_ALIKE.search(text):
        text = text.translate(_ALIKE)
    if _DEVANAGARI.search(text):
        text = _NASAL.sub("\u0902", text.translate(_HINDI))
    text = _TONES.sub(_tone_last, text)
    text = text.replace("i\u0307", "i")
    return _DIGIT.sub(_ascii_digit, text) if not text.isascii() else text


def _tone_last(match: re.Match[str]) -> str:
    return _TONED[match[0]]


@lru_cache(maxsize=1 << 15)
def bare(word: str) -> str:
    """The bare form of a word in its exact form."""
    if word.isascii():
        return word
    kept: list[str] = []
    base = ""
    for char in unicodedata.normalize("NFD", word):
        if not unicodedata.combining(char):
            base = char
        elif _is_optional(char, base):
            continue
        kept.append(char)
    return unicodedata.normalize("NFC", "".join(kept)).translate(_PLAIN)


def _is_optional(mark: str, base: str) -> bool:
    if mark in _ARABIC_MARKS or mark in _HEBREW_MARKS:
        return True
    if not ("\u0300" <= mark <= "\u036f" or "\u1ab0" <= mark <= "\u1aff" or "\u1dc0" <= mark <= "\u20ff"):
        return False
    if "\u0400" <= base <= "\u052f":
        return base + mark not in _CYRILLIC_LETTERS
    return True


def _ascii_digit(match: re.Match[str]) -> str:
    return str(unicodedata.decimal(match[0]))


def units_of(run: str) -> list[str]:
    """The syllables or letters of a run, as far as the eye can tell them apart: nothing ends within one."""
    return _UNIT.findall(run)


def written(text: str) -> tuple[str, set[str]]:
    """A text as its words are stored, and its terms; both empty where there are no words."""
    if text.isascii():  # each word is its own bare and exact form, of which no tokens need to be made
        words = _ascii_words(text)
        return f" {' '.join(words)} " if words else "", set(words)
    tokens = tokens_of(text)
    return write_words(tokens) if tokens else "", terms_of(tokens)


def write_words(tokens: Iterable[Token]) -> str:
    """Tokens as one string: each stands between spaces, with its exact form where that is another."""
    written = (
        token.bare if token.exact == token.bare else f"{token.bare}{EXACT}{token.exact}" for token in tokens
    )
    return f" {' '.join(written)} "


def terms_of(tokens: Iterable[Token]) -> set[str]:
    """What an index finds a text by: its bare words, and the units and pairs of units of its runs."""
    terms: set[str] = set()
    for token in tokens:
        if token.kind == "run":
            units = units_of(token.bare)
            terms.update(units)
            terms.update(map("".join, pairwise(units)))
        else:
            terms.add(token.bare)
    return terms


def run_pattern(run: str) -> str:
    """A regular expression that finds a run within another, whole units only."""
    if not re.search(f"[{_SOUTH_EAST}{_MARKS}]", run):
        return re.escape(run)
    return f"(?<![{_VOWELS_BEFORE}{_STACKERS}]){re.escape(run)}(?![{_MARKS}{_VOWELS_AFTER}])"
