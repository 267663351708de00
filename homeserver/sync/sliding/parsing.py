"""The two forms a request to sliding sync comes in.

*Unstable*: what clients send to ``/unstable/org.matrix.simplified_msc3575/sync``, with ``pos``,
``timeout`` and ``set_presence`` in the query, ``ranges``, ``is_invite`` and required state as pairs
with ``*``, ``$ME`` and ``$LAZY``.  *Stable*: the proposal's ``/v4/sync``, all in the body, with
``range``, ``is_invited`` and required state as objects.
Raises ``M_BAD_JSON`` for what has the wrong type, ``M_INVALID_PARAM`` for what is out of bounds.
Specification: MSC4186, "API" and "Appendix".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from homeserver.errors import bad_json, invalid_param
from homeserver.rooms.room import MEMBER
from homeserver.sync.sliding.request import (
    Elements,
    Filters,
    ListConfig,
    Ranges,
    RequiredState,
    RoomConfig,
)

MAX_LISTS = 100
MAX_SUBSCRIPTIONS = 100
MAX_RANGES = 100
MAX_TIMELINE = 100
#: Elements of one required state, and values of one filter.
MAX_ELEMENTS = 1000
MAX_EXTENSIONS = 100
MAX_NAME = 255

_WILDCARD, _ME, _LAZY = "*", "$ME", "$LAZY"
#: "Opaque identifiers".
_OPAQUE = re.compile(r"[0-9A-Za-z._~-]{1,255}")

T = TypeVar("T")


def lists(body: Mapping[str, Any], user_id: str, *, stable: bool) -> dict[str, ListConfig]:
    """``lists`` by their names."""
    given = _object(body, "lists")
    _check_number(given, MAX_LISTS, "lists")
    for name in given:
        if len(name) > MAX_NAME or (stable and not _OPAQUE.fullmatch(name)):
            raise invalid_param("A list's name must be an opaque identifier")
    return {name: _list(_an_object(one, "A list"), user_id, stable=stable) for name, one in given.items()}


def subscriptions(body: Mapping[str, Any], user_id: str, *, stable: bool) -> dict[str, RoomConfig]:
    """``room_subscriptions`` by room id."""
    given = _object(body, "room_subscriptions")
    _check_number(given, MAX_SUBSCRIPTIONS, "room subscriptions")
    return {
        room_id: _config(_an_object(one, "A room subscription"), user_id, stable=stable)
        for room_id, one in given.items()
    }


def extensions(body: Mapping[str, Any], known: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """``extensions`` that are enabled; of those whose names are not ``known`` nothing is expected."""
    given = _object(body, "extensions")
    _check_number(given, MAX_EXTENSIONS, "extensions")
    objects = {name: _object(given, name) for name in given if name in known}
    return {name: one for name, one in objects.items() if _flag(one, "enabled")}


def text(body: Mapping[str, Any], name: str) -> str | None:
    """A short text that may be missing."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_json(f"'{name}' must be a string")
    if value is not None and len(value) > MAX_NAME:
        raise invalid_param(f"'{name}' is too long")
    return value


def _list(given: Mapping[str, Any], user_id: str, *, stable: bool) -> ListConfig:
    return ListConfig(
        config=_config(given, user_id, stable=stable),
        ranges=_ranges(given, stable=stable),
        filters=_filters(_object(given, "filters"), stable=stable),
    )


def _ranges(given: Mapping[str, Any], *, stable: bool) -> Ranges | None:
    value = given.get("range" if stable else "ranges")
    if value is None:
        return None
    ranges = [value] if stable else value
    if not isinstance(ranges, list):
        raise bad_json("Ranges must be a list")
    if len(ranges) > MAX_RANGES:
        raise invalid_param("Too many ranges")
    for one in ranges:
        if not isinstance(one, list) or len(one) != 2 or not all(map(_is_integer, one)):
            raise bad_json("A range must be a pair of integers")
        if not 0 <= one[0] <= one[1]:
            raise invalid_param("A range must go from a rank to one that is not before it")
    return tuple((one[0], one[1]) for one in ranges)


def _config(given: Mapping[str, Any], user_id: str, *, stable: bool) -> RoomConfig:
    limit = given.get("timeline_limit")
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise bad_json("'timeline_limit' must be an integer")
    if limit < 0:
        raise invalid_param("'timeline_limit' must not be negative")
    required = _stable_required(given) if stable else _unstable_required(given, user_id)
    return RoomConfig(min(limit, MAX_TIMELINE), frozenset([required]))


def _unstable_required(given: Mapping[str, Any], user_id: str) -> RequiredState:
    """Pairs of type and state key."""
    pairs: list[tuple[str | None, str | None]] = []
    lazy = False
    for pair in _bounded_list(given, "required_state"):
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(one, str) for one in pair):
            raise bad_json("Required state must be pairs of a type and a state key")
        type_, state_key = pair
        if state_key == _LAZY and type_ == MEMBER:
            lazy = True
            continue
        pairs.append(
            (
                None if type_ == _WILDCARD else type_,
                None if state_key == _WILDCARD else user_id if state_key == _ME else state_key,
            )
        )
    return RequiredState(include=_elements(pairs), lazy_members=lazy)


def _stable_required(given: Mapping[str, Any]) -> RequiredState:
    """Objects under ``include`` and ``exclude``."""
    wanted = _object(given, "required_state")
    sets: dict[str, Elements] = {}
    for name in ("include", "exclude"):
        elements = [_an_object(one, "Required state") for one in _bounded_list(wanted, name)]
        sets[name] = _elements(
            [(_state_text(one, "type"), _state_text(one, "state_key")) for one in elements]
        )
    return RequiredState(sets["include"], sets["exclude"], _flag(wanted, "lazy_members"))


def _state_text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and not isinstance(value, str):
        raise bad_json(f"'{name}' must be a string")
    return value


def _elements(pairs: list[tuple[str | None, str | None]]) -> Elements:
    """``None`` stands for any."""
    return Elements(
        everything=(None, None) in pairs,
        types=frozenset(type_ for type_, key in pairs if type_ is not None and key is None),
        state_keys=frozenset(key for type_, key in pairs if type_ is None and key is not None),
        exact=frozenset((type_, key) for type_, key in pairs if type_ is not None and key is not None),
    )


def _filters(given: Mapping[str, Any], *, stable: bool) -> Filters:
    return Filters(
        is_dm=_flag_if_any(given, "is_dm"),
        is_encrypted=_flag_if_any(given, "is_encrypted"),
        is_invited=_flag_if_any(given, "is_invited" if stable else "is_invite"),
        spaces=_texts(given, "spaces"),
        room_types=_types(given, "room_types"),
        not_room_types=_types(given, "not_room_types"),
        tags=_texts(given, "tags"),
        not_tags=_texts(given, "not_tags"),
    )


def _texts(given: Mapping[str, Any], name: str) -> frozenset[str] | None:
    return _values(given, name, lambda value: value if isinstance(value, str) else None)


def _types(given: Mapping[str, Any], name: str) -> frozenset[str | None] | None:
    """Room types; ``null`` stands for rooms that have none."""
    found = _values(given, name, lambda value: (value,) if value is None or isinstance(value, str) else None)
    return None if found is None else frozenset(one for (one,) in found)


def _values(given: Mapping[str, Any], name: str, read: Callable[[Any], T | None]) -> frozenset[T] | None:
    if given.get(name) is None:
        return None
    found = [read(value) for value in _bounded_list(given, name)]
    if any(value is None for value in found):
        raise bad_json(f"'{name}' must be a list of strings")
    return frozenset(value for value in found if value is not None)


def _bounded_list(given: Mapping[str, Any], name: str) -> list[Any]:
    value = given.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad_json(f"'{name}' must be a list")
    if len(value) > MAX_ELEMENTS:
        raise invalid_param(f"'{name}' is too long")
    return value


def _object(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = given.get(name)
    return {} if value is None else _an_object(value, f"'{name}'")


def _an_object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise bad_json(f"{what} must be an object")
    return value


def _flag(given: Mapping[str, Any], name: str) -> bool:
    return bool(_flag_if_any(given, name))


def _flag_if_any(given: Mapping[str, Any], name: str) -> bool | None:
    value = given.get(name)
    if value is not None and not isinstance(value, bool):
        raise bad_json(f"'{name}' must be true or false")
    return value


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_number(given: Mapping[str, Any], most: int, what: str) -> None:
    if len(given) > most:
        raise invalid_param(f"Too many {what}")
