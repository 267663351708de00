"""What headers say of media: types, file names, ranges."""

from __future__ import annotations

from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.errors import MatrixError
from homeserver.media.headers import (
    DEFAULT_TYPE,
    MAX_FILENAME,
    boundary,
    content_disposition,
    content_type,
    disposition_filename,
    upload_filename,
)
from homeserver.media.mxc import Mxc, new_media_id
from homeserver.media.ranges import Part, part_asked_for

ETAG = '"f"'


@pytest.mark.parametrize(
    ("kind", "disposition"),
    [
        ("image/png", "inline"),
        ("IMAGE/PNG; charset=x", "inline"),
        ("text/plain;charset=utf-8", "inline"),
        ("text/html", "attachment"),
        ("image/svg+xml", "attachment"),
        ("application/xhtml+xml", "attachment"),
        ("application/pdf", "attachment"),
        ("img/png", "attachment"),
    ],
)
def test_only_types_that_run_nothing_are_shown_inline(kind: str, disposition: str) -> None:
    assert content_disposition(kind, None) == disposition


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("ascii.png", "filename=ascii.png"),
        ("name with spaces", 'filename="name with spaces"'),
        ("name;with;semicolons", 'filename="name;with;semicolons"'),
        ('a "quoted" name', 'filename="a \\"quoted\\" name"'),
        ("../../etc/passwd", "filename=.._.._etc_passwd"),
        ("..\\..\\boot.ini", "filename=.._.._boot.ini"),
        ("..", "filename=__"),
        ("a\x00.png", "filename=a_.png"),
        ("annual\u202egpj.exe", "filename=annual_gpj.exe"),
        ("x'; filename*=utf-8''evil.exe", "filename=\"x'; filename*=utf-8''evil.exe\""),
        ("☕.txt", "filename*=utf-8''%E2%98%95.txt"),
        ("a\r\nSet-Cookie: b", 'filename="a__Set-Cookie: b"'),
    ],
)
def test_file_names_are_written_so_that_they_are_read_alike(name: str, parameter: str) -> None:
    assert content_disposition("image/png", name) == f"inline; {parameter}"


@given(
    st.text(
        st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"], exclude_characters="/\\."),
        min_size=1,
        max_size=200,
    )
)
def test_a_file_name_survives_the_way_through_another_server(name: str) -> None:
    disposition = content_disposition("image/png", name)

    assert disposition.isascii()
    assert disposition_filename(disposition) == name


@given(st.text(max_size=300))
def test_a_header_never_holds_more_than_one_line(name: str) -> None:
    header = content_disposition("a/b", name)

    assert header.isascii()
    assert header.isprintable()


@given(st.text(max_size=300))
def test_whatever_another_server_says_can_be_stored(value: str) -> None:
    name = disposition_filename(value)

    if name is not None:
        name.encode()
        assert "\x00" not in name


def test_other_ways_to_write_a_file_name_are_understood() -> None:
    assert disposition_filename('attachment; FileName="a;b"; size=3') == "a;b"
    assert disposition_filename("inline; filename*=UTF-8''%e2%98%95") == "☕"
    assert disposition_filename("inline; filename=\"plain\"; filename*=utf-8''%E2%98%95") == "☕"
    assert (
        disposition_filename("inline; filename*=klingon''a; filename=not quoted at all")
        == "not quoted at all"
    )
    assert disposition_filename("inline") is None
    assert disposition_filename(None) is None
    assert disposition_filename("inline; filename=" + "x" * (MAX_FILENAME + 1)) is None


def test_a_type_that_is_none_becomes_the_default() -> None:
    assert content_type("img/png") == "img/png"
    assert content_type(" text/plain; charset=utf-8 ") == "text/plain; charset=utf-8"
    for wrong in (None, "", "png", "a/b\r\nX: y", "a/b; \N{SNOWMAN}", "a/" + "b" * 300, "/", "text/"):
        assert content_type(wrong) == DEFAULT_TYPE


def test_uploads_with_endless_names_are_refused() -> None:
    assert upload_filename("☕") == "☕"
    assert upload_filename("") is None
    with pytest.raises(MatrixError):
        upload_filename("x" * (MAX_FILENAME + 1))


def test_a_boundary_is_found_in_multipart_mixed_alone() -> None:
    assert boundary('multipart/mixed; boundary="a b:c"') == b"a b:c"
    assert boundary("Multipart/Mixed; charset=x; BOUNDARY=abc") == b"abc"
    for wrong in (None, "multipart/mixed", "multipart/form-data; boundary=a", "multipart/mixed; boundary="):
        assert boundary(wrong) is None
    assert boundary("multipart/mixed; boundary=" + "x" * 71) is None


@pytest.mark.parametrize(
    ("headers", "part"),
    [
        ({}, Part(200, 0, 100)),
        ({"Range": "bytes=0-9"}, Part(206, 0, 10)),
        ({"Range": "bytes=90-"}, Part(206, 90, 10)),
        ({"Range": "bytes=-10"}, Part(206, 90, 10)),
        ({"Range": "bytes=-1000"}, Part(206, 0, 100)),
        ({"Range": "bytes=50-1000"}, Part(206, 50, 50)),
        ({"Range": "bytes=100-"}, Part(416, 0, 0)),
        ({"Range": "bytes=-0"}, Part(416, 0, 0)),
        ({"Range": "bytes=9-0"}, Part(200, 0, 100)),
        ({"Range": "bytes=0-0,5-6"}, Part(200, 0, 100)),
        ({"Range": "lines=1-2"}, Part(200, 0, 100)),
        ({"Range": "bytes=-"}, Part(200, 0, 100)),
        ({"Range": "bytes=0-9", "If-Range": ETAG}, Part(206, 0, 10)),
        ({"Range": "bytes=0-9", "If-Range": '"other"'}, Part(200, 0, 100)),
        ({"If-None-Match": ETAG}, Part(304, 0, 0)),
        ({"If-None-Match": f'"a", W/{ETAG}', "Range": "bytes=0-9"}, Part(304, 0, 0)),
        ({"If-None-Match": "*"}, Part(304, 0, 0)),
        ({"If-None-Match": '"other"'}, Part(200, 0, 100)),
    ],
)
def test_what_is_asked_for_is_what_is_sent(headers: dict[str, str], part: Part) -> None:
    assert part_asked_for(headers, ETAG, 100) == part


def test_of_nothing_there_is_no_part() -> None:
    assert part_asked_for({"Range": "bytes=0-"}, ETAG, 0) == Part(416, 0, 0)
    assert part_asked_for({}, ETAG, 0) == Part(200, 0, 0)


@given(st.text(max_size=40))
def test_every_range_header_gives_a_part_of_the_file(value: str) -> None:
    part = part_asked_for({"Range": value}, ETAG, 10)

    assert 0 <= part.start <= part.start + part.length <= 10


@pytest.mark.parametrize("media_id", ["", ".", "..", "../x", "a/b", "a.b", "a%2fb", "é", "a\n", "x" * 256])
def test_what_no_media_can_be_called_is_not_found(media_id: str) -> None:
    with pytest.raises(MatrixError) as refused:
        Mxc.parse("a.org", media_id)

    assert refused.value.errcode == "M_NOT_FOUND"


@pytest.mark.parametrize("server_name", ["", "../..", "a/b", "a.org/..", "a b", "a.org:x"])
def test_nor_can_its_server(server_name: str) -> None:
    with pytest.raises(MatrixError):
        Mxc.parse(server_name, "abc")


def test_our_own_ids_are_in_the_grammar() -> None:
    assert Mxc.parse("a.org", new_media_id())


def test_the_library_that_others_use_reads_our_names_as_we_do() -> None:
    message = Message()
    message["Content-Disposition"] = content_disposition("a/b", "☕ und Kuchen")

    assert message.get_filename() == "☕ und Kuchen"
