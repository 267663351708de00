"""What is told of a page: OpenGraph first, then Twitter cards, then oEmbed, then the page itself.

Plain functions over what ``html`` found.  Whatever they return is bounded, and of the page's
addresses only those of the web are left.  Specification: client-server API, ``GET
/media/preview_url``; the OpenGraph protocol; oEmbed 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from homeserver.previews.charsets import decode
from homeserver.previews.found import MAX_IMAGES, Found, Properties
from homeserver.previews.html import Page, read_html, read_xml_values
from homeserver.previews.texts import MAX_TEXT, MAX_TITLE, name_in, tidy, web_address

_MAX_PROPERTIES: Final = 40
_PROPERTY = re.compile(r"(?:og|article|book|profile|video|music):[a-z0-9_:-]{1,60}")
#: OpenGraph properties that are addresses, by the end of their names.
_ADDRESSES: Final = ("og:url", "og:video", "og:audio")
_ADDRESS_PARTS: Final = (":url", ":secure_url")


def describe_html(body: bytes, charset: str | None, url: str) -> Found:
    """What a page says; ``url`` is where it was found."""
    page = read_html(decode(body, charset))
    base = web_address(page.base, url) or url
    stated = _open_graph(page, base)
    images = _addresses(_image_references(page), base)
    links = [(kind, address) for kind, href in page.oembed if (address := web_address(href, base))]
    silent = not {"og:title", "og:description"} <= stated.keys() or not images
    return Found(
        properties={**_twitter(page, base), **stated},
        own_words=_own_words(page),
        images=images[:MAX_IMAGES],
        oembed=links[0] if links and silent else None,
    )


def describe_oembed(body: bytes, kind: str, url: str) -> Found:
    """What an oEmbed answer says; empty for what is none."""
    values = _oembed_values(body, kind)
    texts = {
        "og:title": tidy(_text(values, "title"), MAX_TITLE),
        "og:site_name": tidy(_text(values, "provider_name"), MAX_TITLE),
        "og:description": "",
    }
    images = [_text(values, "thumbnail_url")]
    sort = _text(values, "type")
    if sort == "photo":
        images.insert(0, _text(values, "url"))
    elif sort in ("rich", "video"):
        content = read_html(_text(values, "html"))
        texts["og:description"] = tidy(content.text)
        images += content.images
        if sort == "video":
            texts["og:type"] = "video.other"
    properties = {name: text for name, text in texts.items() if text}
    return Found(properties, images=_addresses(images, url)[:MAX_IMAGES])


def describe_text(body: bytes, charset: str | None, url: str) -> Found:
    """What can be told of a file of plain text."""
    properties = {"og:title": name_in(url), "og:description": tidy(decode(body[:20_000], charset))}
    return Found({name: text for name, text in properties.items() if text})


def _open_graph(page: Page, base: str) -> Properties:
    stated: Properties = {}
    for name, (value, *_) in page.meta.items():
        # Images are fetched, and described as they really are.
        if not _PROPERTY.fullmatch(name) or name.startswith("og:image") or len(stated) >= _MAX_PROPERTIES:
            continue
        if name in _ADDRESSES or name.endswith(_ADDRESS_PARTS):
            text = web_address(value, base)
        else:
            text = tidy(value, MAX_TITLE if name.endswith(":title") else MAX_TEXT)
        if text:
            stated[name] = text
    return stated


def _twitter(page: Page, base: str) -> Properties:
    title, description = (_first(page, f"twitter:{name}") for name in ("title", "description"))
    texts = {
        "og:title": tidy(title, MAX_TITLE),
        "og:description": tidy(description),
        "og:url": web_address(_first(page, "twitter:url"), base) or "",
    }
    return {name: text for name, text in texts.items() if text}


def _own_words(page: Page) -> Properties:
    texts = {
        "og:title": tidy(page.title, MAX_TITLE) or tidy(page.heading, MAX_TITLE),
        "og:description": tidy(_first(page, "description")) or tidy(page.text, 500),
    }
    return {name: text for name, text in texts.items() if text}


def _image_references(page: Page) -> list[str]:
    names = ("og:image:secure_url", "og:image", "og:image:url", "twitter:image", "twitter:image:src", "image")
    return [*(value for name in names for value in page.meta.get(name, ())), *page.images]


def _addresses(references: Iterable[str], base: str) -> list[str]:
    """Their addresses, each once."""
    found = (web_address(reference, base) for reference in references)
    return list(dict.fromkeys(address for address in found if address))


def _first(page: Page, name: str) -> str:
    return next(iter(page.meta.get(name, ())), "")


def _oembed_values(body: bytes, kind: str) -> Mapping[str, Any]:
    if kind == "xml":
        return read_xml_values(body)
    try:
        values = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value[:200_000] if isinstance(value, str) else ""
