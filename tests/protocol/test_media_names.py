"""Which media an event names: wherever the name stands, and no other server's."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.canonical_json import encode
from homeserver.protocol.media_names import media_named

HERE = "here.example:8448"
media_ids = st.from_regex(r"[A-Za-z0-9_-]{1,255}", fullmatch=True)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def around(value: str) -> st.SearchStrategy[Any]:
    """JSON with a text somewhere in it."""
    return st.recursive(
        st.just(value),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=2),
            st.dictionaries(words, inner, min_size=1, max_size=2),
            st.tuples(inner, words).map(list),
        ),
        max_leaves=4,
    )


@given(st.data(), st.lists(media_ids, min_size=1, max_size=4))
def test_a_name_counts_wherever_it_stands(data: st.DataObject, ids: list[str]) -> None:
    content = [data.draw(around(f"mxc://{HERE}/{media_id}")) for media_id in ids]

    assert media_named(encode({"content": content}), HERE) == set(ids)


@given(media_ids, words)
def test_a_name_within_a_text_counts_too(media_id: str, after: str) -> None:
    json = encode({"formatted_body": f'<img src="mxc://{HERE}/{media_id}" alt="{after}">'})

    assert media_id in media_named(json, HERE)


@given(st.dictionaries(words, words, max_size=5))
def test_where_there_is_no_name_there_is_none(content: dict[str, str]) -> None:
    assert media_named(encode(content), HERE) == set()


@given(st.binary(max_size=300))
def test_there_are_never_more_names_than_fit(json: bytes) -> None:
    prefix = f"mxc://{HERE}/".encode()
    named = media_named(prefix.join([b"", json, json]), HERE)

    assert sum(len(prefix) + len(each) for each in named) <= 2 * (len(prefix) + len(json))


def test_other_servers_names_and_what_is_none() -> None:
    for other in (
        "mxc://elsewhere.example/abc",
        "mxc://here.example/abc",
        f"mxc://{HERE}.evil.example/abc",
        f"mxc://{HERE.upper()}/abc",
        f"mxc://{HERE}/",
        f"mxc://{HERE}/" + "x" * 256,
        f"https://{HERE}/abc",
    ):
        assert media_named(encode({"url": other}), HERE) == set()
