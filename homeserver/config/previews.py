"""Previews of links: the ``url_previews`` section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from homeserver.config.rules import Bytes, Port, number, text

UrlPatternText: TypeAlias = Annotated[
    str,
    text(
        r"(?!.*://)[^\s/]{1,255}(?:/\S{0,255})?",
        "a host, or a host and path, without https://, in which * is anything: *.a.org or a.org/private/*",
    ),
]
LanguageRange: TypeAlias = Annotated[
    str,
    text(
        r"(?:[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8}){0,3}|\*)(?:;q=(?:0(?:\.\d{1,3})?|1(?:\.0{1,3})?))?",
        "a language such as de or pt-BR, perhaps with a weight: en;q=0.7",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UrlPreviews:
    """Whether pages are looked at for people, and within what bounds; sizes in bytes."""

    enabled: bool = True
    denied_urls: tuple[UrlPatternText, ...] = ()
    ports: tuple[Port, ...] = (80, 443, 8080, 8443)
    #: Of a page so much is read, of a larger one its beginning.
    max_bytes: Bytes = 2_097_152
    max_image_bytes: Bytes = 10_485_760
    #: For one answer with all its redirects, in seconds.
    timeout: Annotated[float, number(float, 1, 120)] = 10.0
    #: How long a preview counts as new.
    cache_hours: Annotated[float, number(float, 0.01, 8_760)] = 24.0
    #: What all images together may take; the oldest go first.
    image_cache_bytes: Bytes = 2_147_483_648
    #: In the order in which they are liked.
    accept_language: tuple[LanguageRange, ...] = ("en", "*;q=0.5")
