"""What a provider says of somebody, made into names of this server."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Of a claim; longer ones say nothing that a name could be made of.
_MAX_CLAIM_CHARS = 512
_PLACE = re.compile(r"\{([^{}]+)\}")
_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._-/+")


def text_claim(claims: Mapping[str, Any], name: str) -> str | None:
    """A claim that is a text which can be kept; ``None`` for every other one."""
    value = claims.get(name)
    if not isinstance(value, str) or len(value) > _MAX_CLAIM_CHARS or "\x00" in value:
        return None
    return None if any("\ud800" <= character <= "\udfff" for character in value) else value


def filled(template: str, claims: Mapping[str, Any]) -> str | None:
    """A template with each ``{claim}`` replaced; ``None`` when one of them is missing or no text."""
    values = {name: text_claim(claims, name) for name in _PLACE.findall(template)}
    if not all(values.values()):
        return None
    return _PLACE.sub(lambda place: values[place[1]] or "", template).strip() or None


def as_localpart(text: str) -> str:
    """Any text in the characters of a user id (spec: "Mapping from other character sets")."""
    return "".join(
        chr(byte) if byte in _PLAIN else f"={byte:02x}"
        for byte in re.sub(r"[A-Z]", lambda letter: letter[0].lower(), text).encode()
    )
