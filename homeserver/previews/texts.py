"""Texts and addresses that pages give, made fit to be shown: short, on one line, no control characters."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote, urljoin, urlsplit

MAX_TITLE: Final = 300
MAX_TEXT: Final = 1000
#: In bytes: what an index of the database takes is little more.
MAX_URL: Final = 2000

#: Control characters, and marks that turn the direction of everything after them.
_UNFIT = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")


def tidy(text: str, length: int = MAX_TEXT) -> str:
    """Text on one line, cut between words where it is longer than ``length`` characters."""
    # Only so much is looked at, however much whitespace there is.
    text = " ".join(_UNFIT.sub("", text[: length * 20]).split())
    if len(text) <= length:
        return text
    head = text[: length - 1]
    cut = head.rfind(" ")
    return (head[:cut] if cut > length // 2 else head).rstrip() + "…"


def web_address(reference: str, base: str) -> str | None:
    """The absolute ``http(s)`` address referred to; ``None`` for others, and for one with a password."""
    reference = reference.strip()
    if not reference or len(reference) > MAX_URL or _UNFIT.search(reference):
        return None
    try:
        address = urljoin(base, reference).partition("#")[0]
        parts = urlsplit(address)
        usable = parts.hostname and parts.port != 0
    except ValueError:
        return None
    if not usable or parts.scheme not in ("http", "https") or "@" in parts.netloc:
        return None
    return address if len(address.encode()) <= MAX_URL else None


def name_in(url: str) -> str:
    """The name of the file that an address ends in; empty where it ends in none."""
    return tidy(unquote(urlsplit(url).path.rpartition("/")[2]), MAX_TITLE)
