"""What is told of pages, by what stands in them: plain functions, no server."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.previews.charsets import decode
from homeserver.previews.describing import describe_html, describe_oembed, describe_text
from homeserver.previews.found import MAX_IMAGES, Found, Job, described_file
from homeserver.previews.images import identify
from homeserver.previews.texts import MAX_TEXT, MAX_TITLE, MAX_URL, tidy, web_address
from homeserver.previews.worker import work
from tests.media.pictures import picture

URL = "https://example.org/news/today"
LONG = "Every morning the baker opens his shop and sells bread to the people of the street."


def html(head: str = "", body: str = "", url: str = URL) -> Found:
    return describe_html(f"<html><head>{head}</head><body>{body}</body></html>".encode(), None, url)


def meta(**values: str) -> str:
    """``meta`` elements; two underscores stand for a colon."""
    return "".join(
        f'<meta property="{name.replace("__", ":")}" content="{value}">' for name, value in values.items()
    )


def test_open_graph_comes_before_twitter_and_both_before_the_page_itself() -> None:
    head = "<title>Window</title>" + meta(description="Of the page")
    twitter = meta(twitter__title="Card", twitter__description="Of the card", twitter__image="/card.png")
    graph = meta(og__title="Graph", og__description="Of the graph", og__image="/graph.png")

    assert html(head).told() == {"og:title": "Window", "og:description": "Of the page"}
    assert html(head + twitter).told() == {"og:title": "Card", "og:description": "Of the card"}
    assert html(twitter + graph + head).told() == {"og:title": "Graph", "og:description": "Of the graph"}
    assert html(twitter + graph).images == ["https://example.org/graph.png", "https://example.org/card.png"]


def test_names_of_properties_are_taken_from_any_attribute_in_any_case() -> None:
    found = html('<META NAME="OG:Title" CONTENT="Named"><meta itemprop="image" content="x.png">')
    assert found.told() == {"og:title": "Named"}
    assert found.images == ["https://example.org/news/x.png"]
    assert html('<meta property="og:title twitter:title" content="Both">').told() == {"og:title": "Both"}


def test_the_first_value_counts_and_an_empty_one_is_none() -> None:
    assert html(meta(og__title="One") + meta(og__title="Two")).told() == {"og:title": "One"}
    assert html("<title>Window</title>" + meta(og__title="  ")).told() == {"og:title": "Window"}


def test_a_page_without_a_word_on_itself_is_read() -> None:
    body = f"""<header><p>{LONG} Header</p><img src="/logo.png"></header><nav>{LONG} Menu</nav>
    <h1>The  baker</h1><p>Short.</p><script>var a = "{LONG}";</script><style>{LONG}</style>
    <div><p>{LONG} <a href="/x">He</a> is <em>never</em> late.</p><img src="/pixel.gif" width=1 height=1>
    <img src="data:image/png;base64,AAAA"><img src="/shop.jpg" width="640"></div><footer>{LONG}</footer>"""
    found = html("", body)

    assert found.told() == {"og:title": "The baker", "og:description": f"{LONG} He is never late."}
    assert found.images == ["https://example.org/shop.jpg"]


def test_paragraphs_are_joined_until_there_is_enough() -> None:
    found = html("<title>x</title>", f"<p>{LONG}</p>" * 50)
    description = found.told()["og:description"]
    assert description.startswith(f"{LONG} {LONG}")
    assert 400 < len(description) <= 500
    assert description.endswith("…")


def test_a_picture_has_no_title_but_the_page() -> None:
    found = html("", "<svg><title>An icon</title></svg><p>x</p>")
    assert "og:title" not in found.told()


def test_only_addresses_of_the_web_are_told() -> None:
    found = html(
        '<base href="https://cdn.example.org/a/">'
        + meta(og__url="../page#part", og__video="javascript:alert(1)", og__audio__url="data:audio/ogg,x")
        + meta(og__image="file:///etc/passwd")
        + meta(og__image="b.png")
    )
    assert found.told() == {"og:url": "https://cdn.example.org/page"}
    assert found.images == ["https://cdn.example.org/a/b.png"]


def test_what_the_page_says_of_its_image_is_left_out_and_other_properties_kept() -> None:
    head = meta(og__image__width="1", og__image__alt="x", og__locale="de_DE", article__author="Ann")
    assert html(head + meta(other__thing="x", ogx="y")).told() == {
        "og:locale": "de_DE",
        "article:author": "Ann",
    }


def test_text_is_cleared_of_what_has_no_place_in_it() -> None:
    assert html(meta(og__title="a\u202eb\x07c\n\td &lt;b&gt; &copy;")).told() == {"og:title": "abc d <b> ©"}
    assert tidy("word " * 100, 12) == "word word…"
    assert tidy("w" * 100, 12) == "w" * 11 + "…"


def test_mistakes_in_a_page_do_not_matter() -> None:
    assert describe_html(b"<title>No end", None, URL).told() == {"og:title": "No end"}
    broken = b"<TITLE>a</TITLE </b><p><meta name=og:type content"
    assert describe_html(broken, None, URL).told() == {"og:title": "a"}
    assert describe_html(b"", None, URL) == Found({})
    assert describe_html(b"\0\0<title>\0a\0</title>", None, URL).told() == {"og:title": "a"}


GREETING = "Grüße – „schön“"


@pytest.mark.parametrize(
    ("text", "codec", "label"),
    [
        (GREETING, "utf-8", "utf-8"),
        (GREETING, "cp1252", "iso-8859-1"),
        ("Zażółć gęślą jaźń", "iso8859-2", "ISO-8859-2"),
        ("Привет, мир", "koi8-r", "koi8-r"),
        ("Привет, мир", "cp1251", "windows-1251"),
        ("こんにちは世界", "cp932", "Shift_JIS"),
        ("こんにちは世界", "euc_jp", "EUC-JP"),
        ("こんにちは世界", "iso2022_jp", "iso-2022-jp"),
        ("你好，世界", "gb18030", "gb2312"),
        ("你好，世界", "big5hkscs", "Big5"),
        ("안녕하세요", "cp949", "ks_c_5601-1987"),
        ("שלום עולם", "cp1255", "windows-1255"),
        ("مرحبا بالعالم", "cp1256", "cp1256"),
        ("สวัสดีชาวโลก", "cp874", "TIS-620"),
        ("Γειά σου", "iso8859-7", "iso-8859-7"),
    ],
)
def test_pages_are_read_in_the_encoding_they_are_written_in(text: str, codec: str, label: str) -> None:
    page = f"<title>{text}</title>".encode(codec)
    declared = f'<meta http-equiv=content-type content="text/html; charset={label}">'.encode()

    assert describe_html(page, label, URL).told() == {"og:title": text}
    assert describe_html(declared + page, None, URL).told() == {"og:title": text}
    # The header is right where both say something.
    assert describe_html(b"<meta charset='cp866'>" + page, label, URL).told() == {"og:title": text}


def test_marks_go_before_headers_and_guesses_come_last() -> None:
    assert decode(GREETING.encode("utf-8-sig"), "koi8-r") == GREETING
    assert decode(GREETING.encode("utf-16"), None) == GREETING
    assert decode(GREETING.encode("utf-16-be"), "utf-16be") == GREETING
    assert decode(b"<?xml version='1.0' encoding='cp1251'?>\xcf", None).endswith("П")
    assert decode(GREETING.encode(), None) == decode(GREETING.encode(), "x-unknown") == GREETING
    assert decode(GREETING.encode()[:-1], None).startswith("Grüße – „schön")
    assert decode(GREETING.encode("cp1252"), None) == GREETING
    assert decode(b"<meta charset=utf-16>" + GREETING.encode(), None).endswith(GREETING)


@pytest.mark.parametrize(
    "label", ["zlib", "rot13", "hex", "unicode_escape", "utf-7", "idna", "punycode", "undefined"]
)
def test_what_is_no_encoding_of_pages_is_not_used(label: str) -> None:
    assert decode(b"\\x41+AGE-", label) == "\\x41+AGE-"


def test_oembed_answers_of_each_type() -> None:
    photo = {"type": "photo", "title": "Sea", "url": "/sea.jpg", "thumbnail_url": "/small.jpg"}
    film = {
        **{
            "type": "video",
            "title": "Film",
            "provider_name": "Cinema",
            "thumbnail_url": "https://c.org/t.jpg",
        },
        "html": "<iframe src='https://c.org'></iframe>",
    }
    rich = {"type": "rich", "html": f"<blockquote><p>{LONG}</p></blockquote><script>x</script>"}

    found = [describe_oembed(json.dumps(each).encode(), "json", URL) for each in (photo, film, rich)]
    assert found[0] == Found(
        {"og:title": "Sea"}, images=["https://example.org/sea.jpg", "https://example.org/small.jpg"]
    )
    assert found[1].told() == {"og:title": "Film", "og:site_name": "Cinema", "og:type": "video.other"}
    assert found[1].images == ["https://c.org/t.jpg"]
    assert found[2].told() == {"og:description": LONG}


def test_oembed_is_looked_for_where_something_is_missing_and_states_less_than_the_page() -> None:
    link = '<link rel="alternate" type="application/json+oembed" href="/o?format=json#x">'
    whole = meta(og__title="Graph", og__description="Of the graph", og__image="/graph.png")
    assert html(link + whole).oembed is None
    assert html(link).oembed == ("json", "https://example.org/o?format=json")
    assert html('<link rel=alternate type="text/xml+oembed" href=/x>').oembed == (
        "xml",
        "https://example.org/x",
    )

    page = html("<title>Window</title>" + meta(og__description="Of the graph"))
    more = describe_oembed(b'{"title": "Embedded", "type": "link"}', "json", URL)
    assert page.completed(more).told() == {"og:title": "Embedded", "og:description": "Of the graph"}


@pytest.mark.parametrize(
    "answer", [b"", b"[]", b"{", b'{"title": 5, "type": []}', b"<a>" * 1000, b"[" * 100_000, b"\xff"]
)
def test_what_is_no_oembed_answer_says_nothing(answer: bytes) -> None:
    for kind in ("json", "xml"):
        assert describe_oembed(answer, kind, URL) == Found({})


def test_entities_of_xml_are_not_followed() -> None:
    bomb = "<!DOCTYPE o [<!ENTITY a 'x'><!ENTITY f SYSTEM 'file:///etc/passwd'>]><o><title>&f;&a;</title></o>"
    assert describe_oembed(bomb.encode(), "xml", URL) == Found({})


def test_files_are_told_of_by_name_and_type() -> None:
    assert described_file("audio/mpeg", "https://a.org/%C3%A4.mp3").told() == {
        "og:title": "ä.mp3",
        "og:audio": "https://a.org/%C3%A4.mp3",
        "og:audio:type": "audio/mpeg",
    }
    assert described_file("application/zip", "https://a.org/a.zip") == Found({})
    assert describe_text(b"a\n\nb", None, "https://a.org/").told() == {"og:description": "a b"}


@pytest.mark.parametrize(
    ("reference", "address"),
    [
        ("a b", "https://example.org/news/a b"),
        ("//b.org", "https://b.org"),
        ("?q=1#x", "https://example.org/news/today?q=1"),
        *(
            (bad, None)
            for bad in ("", "mailto:a@b.org", "https://u:p@b.org/", "http://[", "http://a:0/", "http://")
        ),
        *((bad, None) for bad in ("https://b.org/" + "a" * MAX_URL, "https://b.org/" + "ä" * 1500, "x\x00")),
    ],
)
def test_addresses_are_made_absolute_or_refused(reference: str, address: str | None) -> None:
    assert web_address(reference, URL) == address


def test_images_are_known_by_their_bytes() -> None:
    for kind, name in (("PNG", "png"), ("JPEG", "jpeg"), ("GIF", "gif"), ("WEBP", "webp")):
        found = identify(picture(30, 20, kind))
        assert found is not None
        assert (found.content_type, found.width, found.height) == (f"image/{name}", 30, 20)
    assert identify(picture(30, 20, "BMP")) is None
    assert identify(b"<svg xmlns='http://www.w3.org/2000/svg'/>") is None


MARKUP = st.lists(
    st.sampled_from(
        [
            *(
                "<",
                ">",
                "</",
                "<!--",
                "-->",
                "<![CDATA[",
                "&#x110000;",
                "&amp",
                "\x00",
                "\ud800",
                "\ufeff",
                "ä",
            ),
            *("<title>", "</title>", "<p>", "</p>", "<b>", "</i>", "<h1>", "<svg>", "</svg>", "<template>"),
            *("<meta property='og:title' content='", "'>", "<meta charset=utf-7>", "<base href='http://[' >"),
            *(
                "<img src=",
                "<link rel='alternate image_src' type='application/json+oembed' href='x'>",
                "<script>",
            ),
            *(
                "http://a:b@c/",
                "x" * 3000,
                "<meta property='og:image' content=a.png>",
                " property",
                "</html>",
            ),
        ]
    )
).map(lambda pieces: "".join(pieces).encode("utf-8", "surrogatepass"))


@settings(max_examples=150, deadline=None)
@given(
    body=st.one_of(st.binary(), MARKUP), label=st.one_of(st.none(), st.text()), url=st.sampled_from([URL, ""])
)
def test_whatever_a_page_is_what_is_told_of_it_is_bounded(body: bytes, label: str | None, url: str) -> None:
    for task in ("html", "text", "oembed-json", "oembed-xml"):
        found = work(Job(task, label, url), body)  # type: ignore[arg-type]
        assert isinstance(found, Found)
        told = found.told()
        assert len(told) <= 50
        assert all(len(text) <= max(MAX_TEXT, MAX_TITLE, MAX_URL) for text in told.values())
        assert len(found.images) <= MAX_IMAGES
        assert all(address.startswith(("http://", "https://")) for address in found.images)
        json.dumps(told).encode()
        "".join([*told.values(), *found.images]).encode()
    assert identify(body) is None or body
