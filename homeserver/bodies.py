"""Request bodies: from bytes to JSON values, refusing what could only fail later.

JSON allows more than can be handed on: integers no column or reply can hold, NUL
characters that PostgreSQL's text refuses, nesting that exhausts an encoder.  Such
bodies are rare and are found by a look at the bytes; only a suspicious body is walked.
"""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from homeserver.errors import MatrixError, bad_json

#: Nesting that fits into a stored event, and that into a reply, within the encoders' 254.
MAX_DEPTH = 100

#: Objects and arrays, and values, in one body: far more than 50 events and 100 EDUs have.  Without a
#: bound ten megabytes of ``[],`` keep the server busy for seconds, before it is known who sent them.
MAX_CONTAINERS = 200_000
MAX_VALUES = 1_000_000

_LARGEST_INT = 2**63 - 1
_LONG_NUMBER = re.compile(rb"[0-9]{19}")

T = TypeVar("T")

#: Making a decoder costs more than using it; there is one for every kind of body the program knows.
_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def check_number_of_values(body: bytes) -> None:
    """Raises ``M_TOO_LARGE`` for JSON that would be made of too many values."""
    if has_too_many_values(body, MAX_CONTAINERS, MAX_VALUES):
        raise MatrixError(413, "M_TOO_LARGE", "The body holds too many values")


def has_too_many_values(body: bytes, max_containers: int, max_values: int) -> bool:
    """Whether JSON is made of more objects and arrays, or more values, than that.

    Only counts bytes: what stands inside strings is counted too.
    """
    if len(body) <= min(max_containers, max_values):
        return False  # as every small body: each of them takes a byte
    return body.count(b"{") + body.count(b"[") > max_containers or body.count(b",") > max_values


def decode_object(body: bytes, *, storable: bool) -> dict[str, Any]:
    """The JSON object in ``body``; the last of duplicate keys counts.

    Raises ``M_NOT_JSON`` for what is not JSON in UTF-8 (NaN and Infinity are not), and
    ``M_BAD_JSON`` for another kind of value, too deep nesting, or, if it has to be
    ``storable``, for strings with NULs and integers past 64 bits.
    """
    value = _decode(body, object)
    if not isinstance(value, dict):
        raise bad_json("The body is not a JSON object")
    if storable and _is_suspicious(body):
        _check_storable(value)
    return value


def decode_struct(body: bytes, kind: type[T], *, storable: bool) -> T:
    """``body`` as a ``msgspec.Struct``.  Raises as ``decode_object``; ``M_BAD_JSON`` names the field."""
    if storable and _is_suspicious(body):
        _check_storable(_decode(body, object))
    return _decode(body, kind)


def _decode(body: bytes, kind: type[T]) -> T:
    check_number_of_values(body)
    try:
        value: T = (_decoders.get(kind) or _new_decoder(kind)).decode(body)
    except msgspec.ValidationError as error:
        raise bad_json(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise MatrixError(400, "M_NOT_JSON", "The body is not valid JSON") from None
    except RecursionError:
        raise bad_json("The body is nested too deeply") from None
    return value


def _new_decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return _decoders.setdefault(kind, msgspec.json.Decoder(kind))


def _is_suspicious(body: bytes) -> bool:
    deep = len(body) > MAX_DEPTH and body.count(b"{") + body.count(b"[") > MAX_DEPTH
    return deep or b"\\u0000" in body or _LONG_NUMBER.search(body) is not None


def _check_storable(value: Any) -> None:
    """Walk the whole value without recursion; ``M_BAD_JSON`` for what cannot be kept."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise bad_json("The body is nested too deeply")
        below: list[Any] = []
        for item in level:
            _check_scalar(item)
            if isinstance(item, dict):
                for key in item:
                    _check_scalar(key)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        level = below


def _check_scalar(value: Any) -> None:
    if isinstance(value, str) and "\x00" in value:
        raise bad_json("The body holds a NUL character")
    if isinstance(value, int) and abs(value) > _LARGEST_INT:
        raise bad_json("The body holds an integer of more than 64 bits")
