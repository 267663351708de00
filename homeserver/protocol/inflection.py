"""The words that somebody who looks for a word means too, as plain functions: rules, no dictionaries.

For English also verbs; for German, French, Spanish and their neighbours plurals and cases; for
Russian and Ukrainian endings of nouns, adjectives and verbs; for Arabic and Hebrew what is written
together with a noun; for Hindi plurals; for Japanese the endings of verbs and adjectives, for Korean
particles.  A rule may well give words that do not exist: nobody has written them.  Nothing is said
of the words of a text, which stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from homeserver.protocol.segmentation import bare


class Form(NamedTuple):
    """A word as a text may have it."""

    bare: str
    #: The exact form it has to have: ``None`` whatever it is, else with just these accents.
    exact: str | None


class Run(NamedTuple):
    """What a run of a script without spaces has to have: a stem, followed by one of some endings."""

    stem: str
    endings: tuple[str, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ENGLISH = re.compile("[a-z]{3,}")
_LATIN = re.compile("[a-z\u00df-\u024f\u1e00-\u1eff]{3,}")
_PLURAL = re.compile("(?:s|x|z|ch|sh)$")
#: A short word whose last letter is doubled before -ed and -ing.
_DOUBLING = re.compile("(?:^|[^aeiou])[aeiou][^aeiouwxy]$")
_VOWEL = re.compile("[aeiouy]")

#: Of longer words, in German and the Romance languages.
_ENDINGS = ("ern", "en", "er", "es", "em", "e", "n", "s")
_MIN_STEM = 5
_MIN_ACCENTED_STEM = 4
_UMLAUTS = {"ä": "ae", "ö": "oe", "ü": "ue"}
_UMLAUT = str.maketrans("aou", "äöü")

_NOUN = _words(
    "ами ями иями иях иям ием ию ии ие ия ий ов ев ей ой ою ею ом ем ам ям ах ях ью"
    " ів їв ією ії ію іям а я у ю е ы и і ь"
)
_ADJECTIVE = _words(
    "ыми ими ого его ому ему ый ий ой ая яя ое ее ые ие ую юю ою ею ым им ых их ом ем ей і ій ої а о ы"
)
_VERB = _words(
    "овать ывать ивать ать ять еть ить уть ти ала яла ела ила али яли ели или ало яло ело ило ал ял ел ил"
    " аешь яешь аете яете аем яем ает яет ают яют аю яю ешь ишь ете ите ует уют ую ет ит ут ют ат ят"
)

_ARABIC_BEFORE = ("", "ال", "و", "وال", "ب", "بال", "ل", "لل", "ف", "فال", "كال")
_ARABIC_STRIPPED = ("وال", "بال", "فال", "كال", "ال", "لل")
_ARABIC_AFTER = ("", "ه", "ها", "هم", "ي", "نا", "ات", "ين", "ون", "ان")
_HEBREW_BEFORE = ("", "ה", "ו", "ב", "ל", "מ", "ש", "כ", "וה", "שה", "מה", "וב", "ול")
_HEBREW_AFTER = ("", "ים", "ות", "י")
_HINDI = (("ा", "े", "ों"), ("ी", "ियां", "ियों"), ("", "ें", "ों"))

#: The rows of kana in which a verb's last syllable changes, by the one that it is looked up with.
_KANA_ROWS = {
    "う": "わいうえおっ",
    "く": "かきくけこいっ",
    "ぐ": "がぎぐげごい",
    "す": "さしすせそ",
    "つ": "たちつてとっ",
    "ぬ": "なにぬねのん",
    "ぶ": "ばびぶべぼん",
    "む": "まみむめもん",
    "る": "らりるれろっまたてなよさ",
    "い": "いくかけさ",
}
_JAPANESE = re.compile(
    f"(?P<stem>.*[\u3400-\u9fff][\u3041-\u3096]?)(?P<last>[{''.join(_KANA_ROWS)}])", re.DOTALL
)
_DONE = re.compile("(?P<stem>.*[\u3400-\u9fff]{2})する", re.DOTALL)
_LONG_VOWEL = re.compile("(?P<stem>.*[\u30a1-\u30fa\u30fc]{2})\u30fc", re.DOTALL)
_KOREAN = re.compile(
    "(?P<stem>[\uac00-\ud7a3]{2,}?)(?:에서|에게|한테|으로|까지|부터|(?P<after_consonant>을|은|과)|(?P<after_vowel>를|는|와)|에)"
)


def forms_of(word: str) -> tuple[Form, ...]:
    """The forms of a word in its exact form, itself first."""
    plain = bare(word)
    first = (Form(word, None),) if plain == word else (Form(plain, word), Form(plain, plain))
    return tuple(dict.fromkeys((*first, *_forms(word))))


def run_of(run: str) -> Run:
    """A run without the ending it was looked up with, and the endings it may have."""
    if (found := _DONE.fullmatch(run)) is not None:
        return Run(found["stem"], ("す", "し", "さ"))
    if (found := _JAPANESE.fullmatch(run)) is not None:
        return Run(found["stem"], tuple(_KANA_ROWS[found["last"]]))
    if (found := _LONG_VOWEL.fullmatch(run)) is not None:
        return Run(found["stem"], ())
    if (found := _KOREAN.fullmatch(run)) is not None:
        ends_in_consonant = (ord(found["stem"][-1]) - 0xAC00) % 28 > 0
        if found["after_vowel" if ends_in_consonant else "after_consonant"] is None:
            return Run(found["stem"], ())
    return Run(run, ())


def _forms(word: str) -> Iterator[Form]:
    if _ENGLISH.fullmatch(word):
        yield from (Form(one, None) for one in (*_english(word), *_longer(word, _MIN_STEM)))
        yield from _with_umlauts(word)
    elif _LATIN.fullmatch(word):
        for one in _longer(word, _MIN_ACCENTED_STEM):
            yield from (Form(bare(one), one), Form(bare(one), bare(one)))
        written_out = "".join(_UMLAUTS.get(letter, letter) for letter in word)
        yield Form(bare(written_out), bare(written_out))
    elif "\u0400" <= word[0] <= "\u052f":
        plain = bare(word)
        yield from (Form(one, None) for one in (plain, *_cyrillic(plain)))
    elif "\u0620" <= word[0] <= "\u064a":
        yield from (Form(one, None) for one in _arabic(bare(word)))
    elif "\u05d0" <= word[0] <= "\u05ea":
        yield from (Form(one, None) for one in _hebrew(bare(word)))
    elif "\u0904" <= word[0] <= "\u0939":
        yield from (Form(one, None) for one in _hindi(word))


def _english(word: str) -> Iterator[str]:
    for base in dict.fromkeys((_singular(word), *_infinitives(word))):
        yield base
        if base == "new":
            continue  # news
        yield base[:-1] + "ies" if base.endswith("y") and base[-2] not in "aeiou" else base + _s_of(base)
        if not _VOWEL.search(base) or base == "see":
            continue  # string, seed
        if base.endswith("e"):
            yield from (base + "d", base[:-1] + "ing")
        elif base.endswith("y") and base[-2] not in "aeiou":
            yield from (base[:-1] + "ied", base + "ing")
        else:
            is_doubling = _DOUBLING.search(base) is not None
            if is_doubling:
                yield from (base + base[-1] + ending for ending in ("ed", "ing", "ings"))
            if not is_doubling or len(base) > 4:
                yield from (base + "ed", base + "ing", base + "ings")


def _s_of(word: str) -> str:
    return "es" if _PLURAL.search(word) else "s"


def _singular(word: str) -> str:
    if len(word) < 4 or word.endswith(("ss", "us", "is", "news")) or not word.endswith("s"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


def _infinitives(word: str) -> Iterator[str]:
    """What a word ending in -ed or -ing may be a form of."""
    ending = next((one for one in ("ied", "ing", "ed") if word.endswith(one)), None)
    if ending is None or word.endswith("eed"):
        return
    base = word.removesuffix(ending)
    if len(base) < 3 or not _VOWEL.search(base):
        return
    if ending == "ied":
        yield base + "y"
    elif base[-1] == base[-2] and base[-1] not in "aeiou":
        yield from (base[:-1], base)
    else:
        if len(base) > 4 or not _DOUBLING.search(base):
            yield base
        yield base + "e"


def _longer(word: str, min_stem: int) -> Iterator[str]:
    """A word with other endings, where enough of it is left."""
    stems = [word, *(word.removesuffix(ending) for ending in _ENDINGS if word.endswith(ending))]
    for stem in dict.fromkeys(stems):
        if len(stem) >= min_stem:
            yield stem
            yield from (stem + ending for ending in _ENDINGS)


def _with_umlauts(word: str) -> Iterator[Form]:
    """A German word whose plural has an umlaut, or one that was typed without."""
    at = word.find("au") if "au" in word else max(map(word.rfind, "aou"))
    if at >= 0:
        changed = word[:at] + word[at].translate(_UMLAUT) + word[at + 1 :]
        for ending in ("", "e", "er", "en", "ern", "n"):
            yield Form(word + ending, changed + ending)
    written = word
    for umlaut, typed in _UMLAUTS.items():
        written = written.replace(typed, umlaut)
    if written != word:
        yield Form(bare(written), written)


def _cyrillic(word: str) -> Iterator[str]:
    for endings, is_noun in ((_NOUN, True), (_ADJECTIVE, False), (_VERB, False)):
        found = max((one for one in endings if word.endswith(one)), key=len, default="")
        stem = word.removesuffix(found)
        if len(stem) >= 3 and (found or is_noun):
            yield from (stem + ending for ending in endings)
            yield stem


def _arabic(word: str) -> Iterator[str]:
    before = next((one for one in _ARABIC_STRIPPED if word.startswith(one)), "")
    stem = word.removeprefix(before)
    if len(stem) < 3:
        return
    joined = stem[:-1] + "ت" if stem.endswith("ه") else stem
    plural = stem[:-1] if stem.endswith("ه") else stem
    for after in _ARABIC_AFTER:
        base = stem if not after else plural if after == "ات" else joined
        yield from (one + base + after for one in _ARABIC_BEFORE)


def _hebrew(word: str) -> Iterator[str]:
    stem = word
    for after in ("ים", "ות"):
        if len(word) > 4:
            stem = stem.removesuffix(after)
    if len(stem) > 3:
        stem = stem.removeprefix("ה")
    if len(stem) >= 3:
        plain = stem.translate(_HEBREW_FINAL)
        yield from (one + stem for one in _HEBREW_BEFORE)
        yield from (one + plain + after for one in _HEBREW_BEFORE for after in _HEBREW_AFTER[1:])
        final = stem[:-1] + stem[-1].translate(_TO_FINAL)
        yield from (one + final for one in _HEBREW_BEFORE)


_HEBREW_FINAL = str.maketrans("ךםןףץ", "כמנפצ")
_TO_FINAL = str.maketrans("כמנפצ", "ךםןףץ")


def _hindi(word: str) -> Iterable[str]:
    for endings in _HINDI:
        for ending in sorted(endings, key=len, reverse=True):
            stem = word.removesuffix(ending)
            if word.endswith(ending) and len(stem) >= 2:
                # What ends in a vowel sign belongs to the row of that sign.
                is_open = not ending and "\u093e" <= word[-1] <= "\u094c"
                return () if is_open else tuple(stem + one for one in endings)
    return ()
