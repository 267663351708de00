"""Multipart bodies, wherever they are cut: parts come out whole, and what is none is refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.multipart import MalformedMultipart, MultipartParser, PartHead

BOUNDARY = b"gc0p4Jq0M2Yt08j34c0p"
Part = tuple[dict[str, str], bytes]


def body(*parts: Part, boundary: bytes = BOUNDARY) -> bytes:
    """Parts as a sender puts them together."""
    text = b""
    for headers, content in parts:
        lines = b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
        text += b"\r\n--" + boundary + b"\r\n" + lines + b"\r\n" + content
    return text.removeprefix(b"\r\n") + b"\r\n--" + boundary + b"--\r\n"


def parsed(*pieces: bytes, boundary: bytes = BOUNDARY) -> list[Part]:
    """What the parser makes of a body that comes in pieces."""
    parser, parts = MultipartParser(boundary), list[Part]()
    for piece in pieces:
        for found in parser.feed(piece):
            if isinstance(found, PartHead):
                parts.append((dict(found.headers), b""))
            else:
                parts[-1] = (parts[-1][0], parts[-1][1] + found)
    parser.finish()
    return parts


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(text) + 1) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in itertools.pairwise(ends)]


#: Content that likes to look like a delimiter.
contents = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"--", b"-", BOUNDARY, b"\r\n--" + BOUNDARY[:-1], b"x", b" "])
    | st.binary(max_size=20),
    max_size=12,
).map(b"".join)


def holds_a_delimiter(content: bytes) -> bool:
    return b"\r\n--" + BOUNDARY in b"\r\n" + content


@given(contents.filter(lambda content: not holds_a_delimiter(content)), st.lists(st.integers(0), max_size=30))
def test_parts_come_out_whole_wherever_the_body_is_cut(content: bytes, places: list[int]) -> None:
    parts: list[Part] = [({"content-type": "application/json"}, b"{}"), ({"content-type": "a/b"}, content)]

    assert parsed(*cut(body(*parts), places)) == parts


@given(contents)
def test_a_body_fed_byte_by_byte_means_the_same_as_at_once(content: bytes) -> None:
    text = body(({}, b"{}"), ({}, content))

    assert parsed(text) == parsed(*(bytes([byte]) for byte in text))


def test_names_of_headers_are_in_lower_case_and_values_may_be_utf_8() -> None:
    text = body(({"Content-Type": "text/plain", "X-Name": "Frédéric: 1"}, b"hello"))

    assert parsed(text) == [({"content-type": "text/plain", "x-name": "Frédéric: 1"}, b"hello")]


def test_what_is_before_the_first_part_and_after_the_last_means_nothing() -> None:
    text = b"To whom it may concern\r\n" + body(({}, b"hello")) + b"\r\n--" + BOUNDARY + b"\r\nmore"

    assert parsed(text) == [({}, b"hello")]


def test_content_may_be_empty_without_a_line_of_its_own() -> None:
    text = b"--%s\r\nLocation: x\r\n\r\n--%s--" % (BOUNDARY, BOUNDARY)

    assert parsed(text) == [({"location": "x"}, b"")]


def test_a_boundary_may_be_followed_by_spaces_and_by_nothing_else() -> None:
    text = b"--%s \t\r\n\r\none\r\n--%sx\r\ntwo\r\n--%s--" % (BOUNDARY, BOUNDARY, BOUNDARY)

    assert parsed(text) == [({}, b"one\r\n--%sx\r\ntwo" % BOUNDARY)]


@pytest.mark.parametrize("missing", range(1, 30))
def test_a_body_that_ends_too_early_is_refused(missing: int) -> None:
    whole = body(({}, b"{}"), ({"Content-Type": "a/b"}, b"content"))[: -len("\r\n")]

    with pytest.raises(MalformedMultipart):
        parsed(whole[:-missing])


@pytest.mark.parametrize(
    "text",
    [
        b"--" + BOUNDARY + b"\r\n" + b"A: b\r\n" * 5000,
        b"--" + BOUNDARY + b"\r\nA: " + b"b" * 20_000 + b"\r\n\r\n",
        b"nothing of the kind " * 5000,
        b"--" + BOUNDARY + b"\r\nno colon\r\n\r\n",
        b"--" + BOUNDARY + b"\r\n: no name\r\n\r\n",
        b"--" + BOUNDARY + b"\r\nA: b\r\n folded\r\n\r\n",
    ],
    ids=["many headers", "long header", "no part", "no colon", "no name", "folded"],
)
def test_what_is_no_multipart_body_is_refused_before_it_ends(text: bytes) -> None:
    with pytest.raises(MalformedMultipart):
        MultipartParser(BOUNDARY).feed(text)


def test_content_that_nearly_ends_again_and_again_comes_in_one_piece() -> None:
    parser, nearly = MultipartParser(b"x"), b"\r\n--xy" * 20_000
    parser.feed(b"--x\r\n\r\n{}\r\n--x\r\n\r\n")

    assert parser.feed(nearly + b"last") == [nearly]


def test_what_the_parser_holds_does_not_grow_with_the_content() -> None:
    parser = MultipartParser(BOUNDARY)
    parser.feed(b"--" + BOUNDARY + b"\r\n\r\n")
    passed_on = sum(len(piece) for _ in range(100) for piece in parser.feed(b"\r\n--" * 10_000))  # type: ignore[arg-type]

    assert 100 * 40_000 - passed_on < 2 * len(BOUNDARY)
