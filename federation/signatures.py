"""The ``Authorization: X-Matrix`` header: writing it, and reading what others wrote.

Makes and takes apart signed requests; whose keys are valid is the keyring's to say.
Specification: server-server API, "Request Authentication".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import msgspec

from homeserver.protocol.canonical_json import encode
from homeserver.protocol.signing import SigningKey

SCHEME: Final = "X-Matrix"

_MAX_HEADER_LENGTH: Final = 4096

#: RFC 9110, 5.6.2 and 5.6.4, and a colon as older servers leave it unquoted.
_PARAMETER = re.compile(
    r"""
    (?P<name>[!#$%&'*+\-.^_`|~0-9A-Za-z]+) [ \t]* = [ \t]*
    (?: " (?P<quoted> (?: [^"\\] | \\. )* ) " | (?P<token> [!#$%&'*+\-.^_`|~0-9A-Za-z:/=\[\]]+ ) )
    """,
    re.VERBOSE | re.DOTALL,
)
_SEPARATOR = re.compile(r"[ \t]*(?:,[ \t]*)+")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class InvalidAuthorization(ValueError):
    """A header that is no X-Matrix authorisation; the message is a sentence for the sender."""


class RequestSignature(msgspec.Struct, frozen=True):
    """What a header says; ``destination`` is ``None`` from servers older than v1.3."""

    origin: str
    destination: str | None
    key_id: str
    signature: str


def authorization_header(
    *, method: str, uri: str, origin: str, destination: str, body: bytes | None, key: SigningKey
) -> str:
    """The header for a request.

    ``uri`` is the path with its query exactly as sent, ``body`` the content as
    canonical JSON or ``None`` without content.
    """
    signature = key.sign(signed_bytes(method, uri, origin, destination, body))
    return f'{SCHEME} origin="{origin}",destination="{destination}",key="{key.key_id}",sig="{signature}"'


def parse_authorization(header: str) -> RequestSignature:
    """Read a header, however its sender spaces, quotes and orders it.

    Unknown parameters are ignored.  Raises ``InvalidAuthorization``.
    """
    scheme, _, rest = header.strip(" \t").partition(" ")
    if scheme.lower() != SCHEME.lower() or len(header) > _MAX_HEADER_LENGTH:
        raise InvalidAuthorization(f"The Authorization header must use the scheme {SCHEME}")
    parameters = _parameters(rest.strip(" \t"))
    # The specification writes it both ways.
    parameters.setdefault("sig", parameters.get("signature", ""))
    missing = [name for name in ("origin", "key", "sig") if not parameters.get(name)]
    if missing:
        raise InvalidAuthorization(f"The Authorization header has no '{missing[0]}'")
    return RequestSignature(
        parameters["origin"], parameters.get("destination"), parameters["key"], parameters["sig"]
    )


def signed_forms(
    *, method: str, uri: str, origin: str, destination: str, body: bytes, content: Callable[[], Any]
) -> Iterator[bytes]:
    """What a request's signature may be of: first as if the body was canonical JSON, as it nearly always is.

    ``content`` reads the body, for its canonical form.  ``destination`` is the receiving server's
    name, which is signed even where a header leaves it out: checking it against the header's is the
    caller's.  That the body stands among what else is signed leaves no doubt about either: all
    before and after it is known, and no string in there holds a quotation mark.
    """
    signed = partial(signed_bytes, method, uri, origin, destination)
    if not body:
        yield signed(None)
        return
    yield signed(body)
    yield signed(encode(content()))


def _parameters(text: str) -> dict[str, str]:
    parameters: dict[str, str] = {}
    position = 0
    while position < len(text):
        found = _PARAMETER.match(text, position)
        if found is None:
            raise InvalidAuthorization("The Authorization header is malformed")
        name = found["name"].lower()
        if name in parameters:
            raise InvalidAuthorization(f"The Authorization header has '{name}' twice")
        quoted = found["quoted"]
        parameters[name] = found["token"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = _after_separator(text, found.end())
    return parameters


def _after_separator(text: str, position: int) -> int:
    if position == len(text):
        return position
    separator = _SEPARATOR.match(text, position)
    if separator is None:
        raise InvalidAuthorization("The Authorization header is malformed")
    return separator.end()


def signed_bytes(method: str, uri: str, origin: str, destination: str, body: bytes | None) -> bytes:
    """The canonical JSON of the signed object; "content" sorts first, so the body is put in as it is."""
    rest = encode({"destination": destination, "method": method, "origin": origin, "uri": uri})
    return rest if body is None else b'{"content":' + body + b"," + rest[1:]
