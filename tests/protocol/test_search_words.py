"""The words of names and searches, and whom a search fits best."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.search_words import (
    MAX_SEARCH_WORDS,
    MAX_WORD_CHARS,
    MAX_WORDS,
    fits,
    folded,
    parse_search,
    rank,
    words_of,
    words_to_find,
)

_NAMES = st.text(max_size=300)
_WORDS = st.text(alphabet=st.characters(whitelist_categories=("Ll", "Lu", "Nd")), min_size=1, max_size=20)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Alice Cooper", ("alice", "cooper")),
        ("  J. R. R.   Tolkien ", ("j", "r", "tolkien")),
        ("josé-maría", ("jose", "maria")),
        ("STRASSE Straße", ("strasse",)),
        ("under_score.dot", ("under", "score", "dot")),
        ("ﬁle ①", ("file", "1")),
        ("山田 太郎", ("山田", "太郎")),
        ("\u202eevil\u200b", ("evil",)),
        ("!?", ()),
    ],
)
def test_words_are_folded(text: str, words: tuple[str, ...]) -> None:
    assert words_of(text) == words


@given(_NAMES)
def test_words_stay_the_same_when_taken_again(text: str) -> None:
    words = words_of(text)
    assert words_of(" ".join(words)) == words or len(" ".join(words)) > 512
    assert all(0 < len(word) <= MAX_WORD_CHARS for word in words)


@given(_NAMES, _NAMES)
def test_what_is_kept_of_a_user_and_of_a_search_is_bounded(name: str, term: str) -> None:
    assert len(words_to_find(f"@{term}:x", name)) <= MAX_WORDS
    assert len(parse_search(term).words) <= MAX_SEARCH_WORDS


@given(st.lists(_WORDS, min_size=1, max_size=4), st.data())
def test_who_is_searched_by_beginnings_of_words_is_found(words: list[str], data: st.DataObject) -> None:
    name = " ".join(words)
    found_by = words_of(name)
    beginnings = [word[: data.draw(st.integers(1, len(word)))] for word in found_by]
    if folded(" ".join(beginnings)) == " ".join(beginnings):
        search = parse_search(" ".join(data.draw(st.permutations(beginnings))))
        assert fits(search, "@someone:example.org", name)
        # The directory looks a search up by the beginning of its longest word.
        longest = max(search.words, key=len)
        assert any(word.startswith(longest) for word in words_to_find("@someone:example.org", name))


@pytest.mark.parametrize(
    ("term", "is_found"),
    [
        ("alice", True),
        ("ALI", True),
        ("coop ali", True),
        ("lice", False),
        ("alice bob", False),
        ("@alice", True),
        ("@alice-cooper:exam", True),
        ("@alice:other", False),
        ("al1ce", True),
        ("example", False),
        (":", False),
    ],
)
def test_a_search_fits_names_and_ids(term: str, is_found: bool) -> None:
    assert fits(parse_search(term), "@alice-al1ce:example.org", "Alice Cooper") == is_found


def test_names_without_spaces_are_found_by_any_part() -> None:
    assert fits(parse_search("太郎"), "@y:x", "山田太郎")
    assert not fits(parse_search("花子"), "@y:x", "山田太郎")


def test_whole_names_come_before_whole_words_and_those_before_beginnings() -> None:
    people = [
        ("@ann:far.example", "Ann", True),
        ("@ann:here.example", None, False),
        ("@x:here.example", "Ann Lee", False),
        ("@x:far.example", "Ann Lee", True),
        ("@y:here.example", "Anna", False),
        ("@anna:here.example", None, False),
    ]
    search = parse_search("ann")
    ranked = sorted(people, key=lambda one: rank(search, one[0], one[1], is_remote=one[2]))

    assert [(user_id, name) for user_id, name, _ in ranked] == [
        ("@ann:here.example", None),
        ("@ann:far.example", "Ann"),
        ("@x:here.example", "Ann Lee"),
        ("@x:far.example", "Ann Lee"),
        ("@y:here.example", "Anna"),
        ("@anna:here.example", None),
    ]


@given(st.lists(st.tuples(_WORDS, _WORDS, st.booleans()), unique=True, max_size=8), _WORDS)
def test_the_order_is_the_same_whatever_the_order_before(
    people: list[tuple[str, str, bool]], term: str
) -> None:
    search = parse_search(term)

    def ranked(some: list[tuple[str, str, bool]]) -> list[object]:
        return sorted(rank(search, f"@{local}:x", name, is_remote=far) for local, name, far in some)

    assert ranked(people) == ranked(people[::-1])
