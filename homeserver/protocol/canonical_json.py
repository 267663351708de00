"""Canonical JSON: the one byte form of a value that is hashed, signed and stored.

Encodes exactly as the reference encoder, ``canonicaljson``, does, and decodes what
peers and clients send.  It does not know what an event is.  Specification:
appendices, "Canonical JSON".

Two settings, by room version: before v6 any JSON number is let through; since v6
numbers are integers within ±(2**53 - 1).  In both, ``-0`` is read as ``0`` and the
last of duplicate keys counts, as every other homeserver reads them.
"""

from __future__ import annotations

from typing import Any

import canonicaljson
import msgspec
import orjson

#: How many objects and arrays may stand inside one another.  It is what the fast encoder
#: takes; the slow one is held to it, so that no answer depends on the depth of the call stack.
MAX_DEPTH = 254

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_STRICT_OPTIONS = _OPTIONS | orjson.OPT_STRICT_INTEGER
_CONTAINERS = (dict, list, tuple)
_decode = msgspec.json.Decoder().decode
_decode_parts = msgspec.json.Decoder(
    dict[str, msgspec.Raw] | list[msgspec.Raw] | str | float | bool | None
).decode


class InvalidJSON(ValueError):
    """Not JSON at all, or nested beyond ``MAX_DEPTH``."""


class NotCanonical(ValueError):
    """JSON with a float, or an integer beyond ±(2**53 - 1): not allowed since v6."""


def encode(value: Any) -> bytes:
    """The canonical JSON of a value, its numbers written as they are.

    Raises ``InvalidJSON`` for what has no JSON form: NaN, infinities, lone
    surrogates, other types, nesting beyond ``MAX_DEPTH``.
    """
    try:
        encoded = orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        return _encode_by_reference(value)
    # orjson writes some floats in another form than the reference, and NaN as null.
    if _holds_float(value):
        return _encode_by_reference(value)
    return encoded


def encode_strict(value: Any, *, unknown: Any = None) -> bytes:
    """The canonical JSON of a value by the rules since v6.

    ``unknown`` is the part of it, an object or an array, outside of which there are no floats for certain.
    Raises ``NotCanonical`` for a number they do not allow, otherwise as ``encode``.
    """
    try:
        encoded = orjson.dumps(value, option=_STRICT_OPTIONS)
    except TypeError as error:
        _encode_by_reference(value)
        raise NotCanonical("an integer is beyond the range of canonical JSON") from error
    if _holds_float(value if unknown is None else unknown):
        raise NotCanonical("a number is not an integer")
    return encoded


def encode_again(value: Any) -> bytes:
    """The same for a value made of parts that ``encode_strict`` took: nothing is looked for in it again."""
    return orjson.dumps(value, option=_STRICT_OPTIONS)


def decode(data: bytes | msgspec.Raw) -> Any:
    """The value of any JSON text; integers of any size stay integers.

    Raises ``InvalidJSON``, also for NaN, infinities and lone surrogates.
    """
    try:
        return _decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidJSON(str(error)) from error
    except RecursionError as error:
        raise InvalidJSON("nested too deeply") from error


def parts(data: bytes | msgspec.Raw) -> dict[str, msgspec.Raw] | list[msgspec.Raw] | None:
    """What is in an object or an array, still to be decoded one by one; ``None`` for any other value.

    Raises ``InvalidJSON`` as ``decode`` does, as far as it looks.
    """
    try:
        found = _decode_parts(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidJSON(str(error)) from error
    except RecursionError as error:
        raise InvalidJSON("nested too deeply") from error
    return found if isinstance(found, dict | list) else None


def decode_strict(data: bytes) -> Any:
    """The value of a JSON text whose numbers obey the rules since v6.

    White space and the order of keys are free: a value can be canonical, its text
    on the wire need not be.  Raises ``InvalidJSON`` or ``NotCanonical``.
    """
    value = decode(data)
    encode_strict(value)
    return value


def _holds_float(value: Any) -> bool:
    """Whether a float is in a value that ``orjson`` took, which is therefore of bounded depth.

    Costs more than the encoding itself, hence one flat loop, without a call for each container;
    looking for floats in the JSON text, or parsing it again, is no cheaper.
    """
    waiting: list[Any] = [(value,)]
    for container in waiting:
        for item in container.values() if isinstance(container, dict) else container:
            kind = type(item)
            # Nearly every item: not worth another look.
            if kind is str or kind is int:
                continue
            if kind is dict or kind is list:
                waiting.append(item)  # the loop comes to it
            elif isinstance(item, float):
                return True
            elif isinstance(item, _CONTAINERS):
                waiting.append(item)
    return False


def _encode_by_reference(value: Any) -> bytes:
    if _too_deep(value):
        raise InvalidJSON("nested too deeply")
    try:
        return canonicaljson.encode_canonical_json(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidJSON(str(error)) from error


def _too_deep(value: Any) -> bool:
    """Whether containers are nested beyond ``MAX_DEPTH``.

    Not recursive: a value nested deeper than the call stack allows is still judged.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for item in level
            if isinstance(item, _CONTAINERS)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
    return any(isinstance(item, _CONTAINERS) for item in level)
