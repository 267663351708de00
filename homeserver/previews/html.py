"""What a page says of itself, read from its HTML.

The page comes from a stranger.  No tree is made of it: elements are looked at as they come,
and reading ends at a bound on their number and depth.  lxml is C, and so this runs in the
processes of ``homeserver.previews.workers``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from lxml import etree  # type: ignore[import-untyped]

#: Elements, and texts between them.
_MAX_PARTS: Final = 60_000
#: The parser looks through all open elements at each end of one.
_MAX_DEPTH: Final = 250
#: Given to the parser at once; in a single piece it would read on after the bounds are met.
_PIECE: Final = 16_384

_MAX_PROPERTIES: Final = 100
_MAX_NAME: Final = 64
_MAX_VALUE: Final = 20_000
_MAX_IMAGES: Final = 5
_MAX_LINKS: Final = 5
#: Characters of the page's own text that are collected; a paragraph shorter than so many is none.
_ENOUGH_TEXT: Final = 600
_SHORTEST_PARAGRAPH: Final = 25
#: An image that says it is smaller, in pixels, is an icon, or counts visitors.
_SMALLEST_SIDE: Final = 50

#: Elements in which the text and pictures that a page is about are not looked for.
_ASIDE: Final = frozenset(
    {
        *("aside", "audio", "button", "canvas", "dialog", "figcaption", "footer", "form", "head", "header"),
        *("iframe", "map", "math", "menu", "nav", "noscript", "object", "script", "select", "style", "svg"),
        *("template", "textarea", "video"),
    }
)
_INLINE: Final = frozenset(
    {
        *(
            "a",
            "abbr",
            "b",
            "bdi",
            "bdo",
            "cite",
            "code",
            "data",
            "dfn",
            "em",
            "font",
            "i",
            "kbd",
            "mark",
            "q",
        ),
        *("ruby", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "tt", "u", "var", "wbr"),
    }
)
_OEMBED: Final = {
    "application/json+oembed": "json",
    "text/json+oembed": "json",
    "application/xml+oembed": "xml",
    "text/xml+oembed": "xml",
}
_DIGITS = re.compile(r"\s*(\d{1,6})")


class Page(msgspec.Struct):
    """What was found; everything as the page has it, cut to a bounded length.

    ``meta`` holds the properties and names of ``meta`` elements in lower case, the first value of
    each; ``images`` are references, the likeliest first; ``oembed`` pairs of ``json`` or
    ``xml`` and a reference.
    """

    meta: dict[str, list[str]] = msgspec.field(default_factory=dict)
    title: str = ""
    heading: str = ""
    text: str = ""
    images: list[str] = msgspec.field(default_factory=list)
    oembed: list[tuple[str, str]] = msgspec.field(default_factory=list)
    base: str = ""


class _Enough(Exception):
    """No more of the page is read."""


def read_html(text: str) -> Page:
    """Read a page; of one that is too large or too deep, what comes before that."""
    reader = _Reader()
    parser = etree.HTMLParser(target=reader, encoding="utf-8", remove_comments=True, remove_pis=True)
    # Without NUL, which the parser takes for the end; lone surrogates cannot be encoded.
    data = text.replace("\x00", "").encode("utf-8", "replace")
    try:
        for start in range(0, len(data), _PIECE):
            parser.feed(data[start : start + _PIECE])
        if data:
            parser.close()
    except (_Enough, etree.LxmlError):
        # What was read so far is what there is: pages are rarely without mistakes.
        pass
    return reader.finished()


class _Reader:
    """Told by the parser of each element and text, in the order of the page."""

    def __init__(self) -> None:
        self._page = Page()
        self._parts = 0
        self._depth = 0
        self._aside = 0
        self._drawings = 0
        self._open: str | None = None  # "title" or "h1" while inside
        self._words: list[str] = []
        self._length = 0
        self._paragraph: list[str] = []
        self._paragraph_length = 0

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self._parts += 1
        self._depth += 1
        if self._parts > _MAX_PARTS or self._depth > _MAX_DEPTH:
            raise _Enough
        if tag == "meta":
            self._meta(attributes)
        elif tag == "link":
            self._link(attributes)
        elif tag == "base":
            self._page.base = self._page.base or attributes.get("href", "")[:_MAX_VALUE]
        elif tag == "img" and not self._aside:
            self._image(attributes)
        elif (tag == "title" and not self._page.title and not self._drawings) or (
            tag == "h1" and not self._page.heading
        ):
            self._open, self._words, self._length = tag, [], 0
        if tag in _ASIDE:
            self._aside += 1
            self._drawings += tag == "svg"
        if tag not in _INLINE:
            self._end_paragraph()

    def end(self, tag: str) -> None:
        self._depth -= 1
        if tag in _ASIDE:
            self._aside -= 1
            self._drawings -= tag == "svg"
        if tag == self._open:
            words = "".join(self._words)
            if tag == "title":
                self._page.title = words
            else:
                self._page.heading = words
            self._open = None
        if tag not in _INLINE:
            self._end_paragraph()

    def data(self, data: str) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise _Enough
        if self._open is not None and self._length < _MAX_VALUE:
            self._words.append(data[:_MAX_VALUE])
            self._length += len(data)
        # In a heading are the words of the title.
        if self._aside == 0 and self._open is None and self._paragraph_length < _ENOUGH_TEXT * 2:
            self._paragraph.append(data[:_MAX_VALUE])
            self._paragraph_length += len(data)

    def close(self) -> None:
        return None

    def finished(self) -> Page:
        """What was found until now."""
        if self._open == "title":
            self._page.title = "".join(self._words)
        self._end_paragraph()
        return self._page

    def _meta(self, attributes: Mapping[str, str]) -> None:
        content = attributes.get("content")
        if content is None:
            return
        for kind in ("property", "name", "itemprop"):
            # RDFa allows several names for one value.
            for name in attributes.get(kind, "")[:_MAX_VALUE].lower().split()[:4]:
                values = self._page.meta.get(name)
                if values is not None:
                    if len(values) < _MAX_IMAGES:
                        values.append(content[:_MAX_VALUE])
                elif len(name) <= _MAX_NAME and len(self._page.meta) < _MAX_PROPERTIES:
                    self._page.meta[name] = [content[:_MAX_VALUE]]

    def _link(self, attributes: Mapping[str, str]) -> None:
        relations = attributes.get("rel", "")[:_MAX_VALUE].lower().split()
        href = attributes.get("href", "")
        kind = _OEMBED.get(attributes.get("type", "").strip().lower())
        if "alternate" in relations and kind and href and len(self._page.oembed) < _MAX_LINKS:
            self._page.oembed.append((kind, href[:_MAX_VALUE]))
        elif "image_src" in relations and href:
            self._page.images.insert(0, href[:_MAX_VALUE])

    def _image(self, attributes: Mapping[str, str]) -> None:
        source = attributes.get("src", "").strip()
        if not source or source[:5].lower() == "data:" or len(self._page.images) >= _MAX_IMAGES:
            return
        sides = [_DIGITS.match(attributes.get(side, "")) for side in ("width", "height")]
        if all(side is None or int(side[1]) >= _SMALLEST_SIDE for side in sides):
            self._page.images.append(source[:_MAX_VALUE])

    def _end_paragraph(self) -> None:
        if not self._paragraph:
            return
        words = " ".join("".join(self._paragraph).split())[:_ENOUGH_TEXT]
        self._paragraph, self._paragraph_length = [], 0
        if len(words) >= _SHORTEST_PARAGRAPH and len(self._page.text) < _ENOUGH_TEXT:
            self._page.text = f"{self._page.text} {words}".strip()


def read_xml_values(body: bytes) -> dict[str, Any]:
    """The texts of the children of a document's root, by their names; empty for what is no such document."""
    # Entities are left alone and nothing is fetched: they could name files, or be gigabytes.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(body, parser)
    except (etree.LxmlError, ValueError):
        return {}
    values: dict[str, Any] = {}
    for child in root.iterchildren(etree.Element):
        if child.text is not None and len(values) < _MAX_PROPERTIES:
            values.setdefault(etree.QName(child).localname, str(child.text)[:_MAX_VALUE])
    return values
