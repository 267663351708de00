"""Words of any language: what is always so, whatever the text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.protocol.search_query import MAX_TERMS, MAX_TOKENS, match, parse_query
from homeserver.protocol.segmentation import (
    MAX_WORD_CHARS,
    bare,
    folded,
    terms_of,
    tokens_of,
    units_of,
    write_words,
)

_SCRIPTS = "".join(
    (
        "abcXYZéÜßđłıİ ’'-_.,0129٣",
        "жёйЇαςΩ" + "अकखिा्ंதமி்বাং",
        "กขเแา่้ ກເ້ ကြ္မာ ក្ខុំ",
        "東京大学はがゴーﾀﾞ々、。ＡＢ１" + "한국어에서ᄒ",
        "كتابُأةى" + "שָׁלוֹם" + "🎉👍🏽\u200d\ufe0f",
    )
)
TEXTS = st.one_of(st.text(max_size=60), st.text(alphabet=_SCRIPTS, max_size=60))


@settings(deadline=None)
@given(TEXTS)
def test_a_text_in_its_exact_form_stays_as_it_is(text: str) -> None:
    once = [token.exact for token in tokens_of(text)]
    assert [token.exact for token in tokens_of(" ".join(once))] == once


@settings(deadline=None)
@given(TEXTS)
def test_a_bare_word_stays_as_it_is(text: str) -> None:
    for token in tokens_of(text):
        if token.kind == "word":
            assert bare(token.bare) == token.bare


@settings(deadline=None)
@given(TEXTS)
def test_words_are_bounded_and_hold_nothing_that_separates_them(text: str) -> None:
    for token in tokens_of(text):
        assert token.bare
        assert token.kind == "run" or len(token.exact) <= MAX_WORD_CHARS
        assert not {" ", "^", '"', "!", "#", "\0"} & {*token.bare, *token.exact}
    assert write_words(tokens_of(text)).encode()


@settings(deadline=None)
@given(TEXTS)
def test_the_units_of_a_run_are_all_of_it(text: str) -> None:
    for token in tokens_of(text):
        assert token.kind != "run" or "".join(units_of(token.bare)) == token.bare


@settings(deadline=None)
@given(TEXTS)
def test_a_text_is_found_by_each_of_its_own_words(text: str) -> None:
    tokens = tokens_of(text)
    words, terms = write_words(tokens), terms_of(tokens)
    for token in tokens:
        for typed in (token.exact, token.bare, f'"{token.exact}"'):
            query = parse_query(typed)
            assert match(query, words) is not None, (typed, words)
            assert all({*group} & terms for group in query.terms), (typed, terms)


@settings(deadline=None)
@given(TEXTS)
def test_a_text_is_found_by_each_syllable_of_its_runs(text: str) -> None:
    tokens = tokens_of(text)
    words, terms = write_words(tokens), terms_of(tokens)
    for token in tokens:
        for unit in units_of(token.bare) if token.kind == "run" else ():
            query = parse_query(unit)
            assert match(query, words) is not None, (unit, words)
            assert all({*group} & terms for group in query.terms)


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_whatever_fits_has_the_terms_that_an_index_is_asked_for(query_text: str, text: str) -> None:
    query, tokens = parse_query(query_text), tokens_of(text)
    if match(query, write_words(tokens)) is not None:
        assert all({*group} & terms_of(tokens) for group in query.terms)


@settings(deadline=None)
@given(st.text(alphabet=_SCRIPTS + '"“”', max_size=3_000))
def test_queries_are_bounded(text: str) -> None:
    query = parse_query(text)
    assert sum(len(phrase.tokens) for phrase in query.phrases) <= MAX_TOKENS
    assert len(query.terms) <= MAX_TERMS


def test_case_width_and_composition_make_no_difference() -> None:
    same = [("ＡＢＣ", "abc"), ("ﾃﾞｰﾀ", "データ"), ("e\u0301", "é"), ("STRASSE", "straße"), ("ΟΔΟΣ", "οδος")]
    assert [(folded(one), one) for one, other in same if folded(one) != folded(other)] == []


def test_what_nothing_can_be_found_by_is_no_word() -> None:
    assert tokens_of(" -- !?… \u200b ") == []
    assert parse_query('""').phrases == ()
