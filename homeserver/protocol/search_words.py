"""The words that users are found by, and how well a user fits a search, as plain functions.

Words are compared without regard to case, accents and other ways of writing the same thing; each
word of a search has to begin a word of the user's name or id.  Nothing here knows languages.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TypeAlias

import msgspec

MAX_WORD_CHARS = 32
#: Of one user, and of one search; more are not looked at.
MAX_WORDS = 64
MAX_SEARCH_WORDS = 8
#: More of a text is not looked at.
_MAX_TEXT_CHARS = 512

_WORD = re.compile(r"[^\W_]+")
#: Scripts that are written without spaces: Thai and its neighbours, Chinese, Japanese and Korean.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\uac00-\ud7a3\uf900-\ufaff]")

#: Smaller fits better; what comes last makes the order a total one.
Rank: TypeAlias = tuple[int, bool, bool, str]


class Search(msgspec.Struct, frozen=True, gc=False):
    """What somebody looks for."""

    words: tuple[str, ...]
    #: The whole text, folded.
    text: str
    #: The beginning of the server's name, where the text is a user id or the beginning of one.
    server: str = ""


def folded(text: str) -> str:
    """A text as it is compared."""
    decomposed = unicodedata.normalize("NFKD", text[:_MAX_TEXT_CHARS].casefold()).casefold()
    kept = "".join(char for char in decomposed if unicodedata.category(char) not in ("Mn", "Mc", "Cf"))
    return unicodedata.normalize("NFKC", kept)


def words_of(text: str) -> tuple[str, ...]:
    """The words of a text, folded and cut to ``MAX_WORD_CHARS``, each once, in order."""
    return tuple(dict.fromkeys(word[:MAX_WORD_CHARS] for word in _WORD.findall(folded(text))))


def words_to_find(user_id: str, display_name: str | None) -> tuple[str, ...]:
    """The words a user is found by: those of the name, and of the id up to its server.

    In scripts without spaces a search may begin anywhere, so every ending of a word counts as one.
    """
    words: dict[str, None] = {}
    for word in (*words_of(_localpart(user_id)), *words_of(display_name or "")):
        words[word] = None
        if _UNSPACED.search(word):
            words |= dict.fromkeys(word[start:] for start in range(1, len(word)))
    return tuple(words)[:MAX_WORDS]


def parse_search(term: str) -> Search:
    """What a person typed; without any words it finds nobody."""
    localpart, server = term.strip(), ""
    if localpart.startswith("@"):
        localpart, _, server = localpart[1:].partition(":")
    return Search(words_of(localpart)[:MAX_SEARCH_WORDS], folded(term.strip()), server.casefold())


def fits(search: Search, user_id: str, display_name: str | None) -> bool:
    """Whether a user is one of those that are looked for."""
    words = words_to_find(user_id, display_name)
    return (
        bool(search.words)
        and user_id.partition(":")[2].casefold().startswith(search.server)
        and all(any(word.startswith(wanted) for word in words) for wanted in search.words)
    )


def rank(search: Search, user_id: str, display_name: str | None, *, is_remote: bool) -> Rank:
    """How well a user who fits does so: whole names, whole words, local users and those with names first."""
    localpart = folded(_localpart(user_id))
    if search.text in (folded(user_id), localpart, f"@{localpart}", folded(display_name or "")):
        closeness = 0
    else:
        words = words_to_find(user_id, display_name)
        closeness = 1 if all(wanted in words for wanted in search.words) else 2
    return closeness, is_remote, display_name is None, user_id


def _localpart(user_id: str) -> str:
    return user_id[1:].partition(":")[0]
