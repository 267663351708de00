"""Headers of media: its type, and what is to be done with it under which name.

Both come from strangers, at upload or from another server, and go out again in our own
headers, so that nothing passes here which is not what it claims to be.  Specification:
client-server API, "Serving inline content"; RFC 6266 and RFC 8187 for file names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from homeserver.errors import invalid_param

DEFAULT_TYPE = "application/octet-stream"
#: In characters.  At twelve bytes each, percent-encoded, it stays below the 8 KiB that most take of a header.
MAX_FILENAME = 512

#: Types that a browser shows without running anything in them.
INLINE_TYPES = frozenset(
    {
        *("text/css", "text/plain", "text/csv", "application/json", "application/ld+json"),
        *("image/jpeg", "image/gif", "image/png", "image/apng", "image/webp", "image/avif"),
        *("video/mp4", "video/webm", "video/ogg", "video/quicktime"),
        *("audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav"),
        *("audio/x-wav", "audio/x-pn-wav", "audio/flac", "audio/x-flac"),
    }
)

#: With every file: it runs nothing, is never taken for another type, and any site's client may show it.
SECURITY_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf;"
        " style-src 'unsafe-inline'; object-src 'self';"
    ),
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_CONTENT_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(?:[ \t]*;[\x20-\x7e\t]*)?")
_PARAMETER = re.compile(
    rf';[ \t]*(?P<name>{_TOKEN})[ \t]*=[ \t]*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^;"]*))'
)
#: What ends lines, leads to other folders, or shows a name in another order than it has ("gpj.exe"
#: as "exe.jpg").
_HARMFUL = re.compile(
    r"[\x00-\x1f\x7f-\x9f/\\\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_ATTR_CHAR = "!#$&+-.^_`|~"


def content_type(value: str | None) -> str:
    """A ``Content-Type`` as it was sent, or the default for one that is missing or malformed."""
    if value is None or len(value) > 255 or not _CONTENT_TYPE.fullmatch(value.strip()):
        return DEFAULT_TYPE
    return value.strip()


def essence(value: str) -> str:
    """The type alone, without parameters, in lower case."""
    return value.partition(";")[0].strip().lower()


def upload_filename(value: str | None) -> str | None:
    """The name an upload gives itself; ``M_INVALID_PARAM`` for one that is too long."""
    if value is not None and len(value) > MAX_FILENAME:
        raise invalid_param(f"The file name is longer than {MAX_FILENAME} characters")
    return _harmless(value) if value else None


def content_disposition(media_type: str, filename: str | None) -> str:
    """``inline`` or ``attachment``, and the file's name unless it is too long."""
    kind = "inline" if essence(media_type) in INLINE_TYPES else "attachment"
    if not filename or len(filename) > MAX_FILENAME:
        return kind
    name = _harmless(filename)
    if re.fullmatch(_TOKEN, name):
        return f"{kind}; filename={name}"
    if name.isascii():
        escaped = name.replace('"', r"\"")
        return f'{kind}; filename="{escaped}"'
    return f"{kind}; filename*=utf-8''{quote(name, safe=_ATTR_CHAR)}"


def disposition_filename(value: str | None) -> str | None:
    """The file name in another server's ``Content-Disposition``; ``None`` where there is none to use."""
    if value is None:
        return None
    parameters = _parameters(value)
    name = _extended(parameters.get("filename*", "")) or parameters.get("filename")
    return _harmless(name) if name and len(name) <= MAX_FILENAME else None


def boundary(value: str | None) -> bytes | None:
    """What separates the parts of ``multipart/mixed``; ``None`` for any other type."""
    if value is None or essence(value) != "multipart/mixed":
        return None
    found = _parameters(value).get("boundary", "")
    # RFC 2046, 5.1.1: up to 70 characters.
    return found.encode() if re.fullmatch(r"[A-Za-z0-9'()+_,./:=? -]{1,70}", found) else None


def _parameters(value: str) -> dict[str, str]:
    """The parameters of a header, names in lower case; the first counts where one is repeated."""
    parameters: dict[str, str] = {}
    for found in _PARAMETER.finditer(value):
        quoted = found["quoted"]
        text = found["plain"].strip() if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        parameters.setdefault(found["name"].lower(), text)
    return parameters


def _extended(value: str) -> str | None:
    """A value that names its character set (RFC 8187); ``None`` for what is not one."""
    charset, _, rest = value.partition("'")
    _, quote_mark, encoded = rest.partition("'")
    if not quote_mark or charset.lower() not in ("utf-8", "iso-8859-1"):
        return None
    return unquote_to_bytes(encoded).decode(charset, "replace")


def _harmless(name: str) -> str:
    """A name that is one name of one file, and shown as what it is."""
    harmless = _HARMFUL.sub("_", name)
    # "." and ".." are folders.
    return harmless if harmless.strip(". ") else harmless.replace(".", "_")
