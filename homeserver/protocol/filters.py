"""Filters: which events, rooms and fields a client asked for.

``parse`` checks a filter once; afterwards every question is a set lookup and, for
types with ``*``, a glob.  Limits are read as given: a server's own maximum is
the caller's.  Specification: client-server API, "Filtering".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from homeserver.protocol.globs import Glob, compile_glob
from homeserver.protocol.property_paths import ABSENT, look_up, parse_property_path

EventFormat = Literal["client", "federation"]


class InvalidFilter(ValueError):
    """A filter of the wrong shape; the message is a sentence for the client."""


class TypePatterns(msgspec.Struct, frozen=True):
    """A list of event types, some of them with ``*``."""

    exact: frozenset[str]
    globs: tuple[Glob, ...]

    def match(self, event_type: str) -> bool:
        """Whether the list names this type."""
        return event_type in self.exact or any(glob.matches(event_type) for glob in self.globs)


class EventFilter(msgspec.Struct, frozen=True):
    """Which events to include; an absent list (``None``) includes all, an empty one none."""

    limit: int | None = None
    types: TypePatterns | None = None
    not_types: TypePatterns | None = None
    senders: frozenset[str] | None = None
    not_senders: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, value: Any, where: str = "filter") -> EventFilter:
        """Read an ``EventFilter``; raises ``InvalidFilter`` with a sentence naming the field."""
        return cls(**_event_fields(_object(value, where), where))

    def allows(self, event_type: str, sender: str | None = None) -> bool:
        """Whether an event is included.  Account data has no sender: it is only kept by no list."""
        return self.allows_type(event_type) and self.allows_sender(sender)

    def allows_type(self, event_type: str) -> bool:
        """Whether events of this type are included."""
        if self.not_types is not None and self.not_types.match(event_type):
            return False
        return self.types is None or self.types.match(event_type)

    def allows_sender(self, sender: str | None) -> bool:
        """Whether events of this sender are included."""
        if sender is None:
            return True
        return sender not in self.not_senders and (self.senders is None or sender in self.senders)

    @property
    def chooses_types_or_senders(self) -> bool:
        """Whether any type or sender is left out."""
        lists = (self.types, self.not_types, self.senders)
        return any(each is not None for each in lists) or bool(self.not_senders)

    @property
    def allows_nothing(self) -> bool:
        """Whether no event can pass, so that none need be looked up."""
        return (
            self.limit == 0
            or self.senders == frozenset()
            or (self.types is not None and not self.types.exact and not self.types.globs)
            or (self.not_types is not None and self.not_types.match("*"))
        )


class RoomEventFilter(EventFilter, frozen=True):
    """Which events of rooms to include, and how members come with them."""

    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False

    @classmethod
    def parse(cls, value: Any, where: str = "filter") -> RoomEventFilter:
        """Read a ``RoomEventFilter``; raises ``InvalidFilter`` with a sentence naming the field."""
        fields = _object(value, where)
        return cls(
            **_event_fields(fields, where),
            **_room_lists(fields, where),
            contains_url=_boolean(fields, "contains_url", where, None),
            lazy_load_members=bool(_boolean(fields, "lazy_load_members", where, False)),
            include_redundant_members=bool(_boolean(fields, "include_redundant_members", where, False)),
            unread_thread_notifications=bool(_boolean(fields, "unread_thread_notifications", where, False)),
        )

    @property
    def chooses_events(self) -> bool:
        """Whether any event may be left out, so that each has to be looked at."""
        return (
            self.chooses_types_or_senders
            or self.rooms is not None
            or bool(self.not_rooms)
            or self.contains_url is not None
        )

    def allows_room(self, room_id: str) -> bool:
        """Whether events of this room are included."""
        return _allows_room(room_id, self.rooms, self.not_rooms)

    def allows_event(
        self,
        event_type: str,
        sender: str | None,
        room_id: str,
        content: Mapping[str, Any] | Callable[[], Any],
    ) -> bool:
        """Whether an event is included.

        ``content`` may be a function that gives it: it is only called when the
        filter looks at it (``contains_url``).
        """
        if not (self.allows(event_type, sender) and self.allows_room(room_id)):
            return False
        if self.contains_url is None:
            return True
        fields = content() if callable(content) else content
        return ("url" in fields) is self.contains_url


#: The spec gives the state section the same fields as any other part of a room.
StateFilter = RoomEventFilter


class RoomFilter(msgspec.Struct, frozen=True):
    """What to include of rooms; ``rooms`` and ``not_rooms`` come before the parts' own."""

    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    include_leave: bool = False
    ephemeral: RoomEventFilter = RoomEventFilter()
    state: RoomEventFilter = RoomEventFilter()
    timeline: RoomEventFilter = RoomEventFilter()
    account_data: RoomEventFilter = RoomEventFilter()

    @classmethod
    def parse(cls, value: Any, where: str = "room") -> RoomFilter:
        """Read a ``RoomFilter``; raises ``InvalidFilter`` with a sentence naming the field."""
        fields = _object(value, where)
        return cls(
            **_room_lists(fields, where),
            include_leave=bool(_boolean(fields, "include_leave", where, False)),
            ephemeral=RoomEventFilter.parse(fields.get("ephemeral", {}), f"{where}.ephemeral"),
            state=RoomEventFilter.parse(fields.get("state", {}), f"{where}.state"),
            timeline=RoomEventFilter.parse(fields.get("timeline", {}), f"{where}.timeline"),
            account_data=RoomEventFilter.parse(fields.get("account_data", {}), f"{where}.account_data"),
        )

    def allows_room(self, room_id: str) -> bool:
        """Whether anything of this room is included."""
        return _allows_room(room_id, self.rooms, self.not_rooms)


class Filter(msgspec.Struct, frozen=True):
    """A whole filter, as uploaded by a client or given inline to ``/sync``.

    ``event_fields`` are parsed property paths for ``project_fields``, or ``None`` for all.
    """

    event_fields: tuple[tuple[str, ...], ...] | None = None
    event_format: EventFormat = "client"
    presence: EventFilter = EventFilter()
    account_data: EventFilter = EventFilter()
    room: RoomFilter = RoomFilter()

    @classmethod
    def parse(cls, value: Any) -> Filter:
        """Read a filter; raises ``InvalidFilter`` with a sentence for the client.

        Fields the spec does not know are ignored.
        """
        fields = _object(value, "filter")
        paths = _strings(fields, "event_fields", "filter")
        return cls(
            event_fields=None if paths is None else tuple(map(parse_property_path, paths)),
            event_format=_event_format(fields),
            presence=EventFilter.parse(fields.get("presence", {}), "presence"),
            account_data=EventFilter.parse(fields.get("account_data", {}), "account_data"),
            room=RoomFilter.parse(fields.get("room", {})),
        )


def project_fields(event: Mapping[str, Any], fields: Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """A copy of an event with only the properties that ``fields`` (parsed paths) name.

    A path to an object keeps all of it; a path that leads nowhere adds nothing.
    """
    kept: dict[str, Any] = {}
    # Shortest first: what a longer path adds lies inside what a shorter one kept whole.
    for path in sorted(fields, key=len):
        value = look_up(event, path)
        if value is not ABSENT:
            _put(kept, event, path, value)
    return kept


def _put(kept: dict[str, Any], event: Mapping[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set ``value`` at ``path``, making the objects on the way, unless one of them is kept whole."""
    source: Any = event
    for name in path[:-1]:
        source = source[name]
        if kept.get(name) is source:
            return
        kept = kept.setdefault(name, {})
    kept[path[-1]] = value


def _allows_room(room_id: str, rooms: frozenset[str] | None, not_rooms: frozenset[str]) -> bool:
    return room_id not in not_rooms and (rooms is None or room_id in rooms)


def _event_fields(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields that every kind of event filter has."""
    return {
        "limit": _limit(fields, where),
        "types": _types(fields, "types", where),
        "not_types": _types(fields, "not_types", where),
        "senders": _ids(fields, "senders", where, "@", "user IDs"),
        "not_senders": _ids(fields, "not_senders", where, "@", "user IDs") or frozenset(),
    }


def _room_lists(fields: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {
        "rooms": _ids(fields, "rooms", where, "!", "room IDs"),
        "not_rooms": _ids(fields, "not_rooms", where, "!", "room IDs") or frozenset(),
    }


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidFilter(f"'{where}' must be an object")
    return value


def _limit(fields: Mapping[str, Any], where: str) -> int | None:
    """``limit``; 0 is taken to ask for no events, as clients do."""
    limit = fields.get("limit")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise InvalidFilter(f"'limit' of '{where}' must be a positive integer")
    return limit


def _boolean(fields: Mapping[str, Any], name: str, where: str, default: bool | None) -> bool | None:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise InvalidFilter(f"'{name}' of '{where}' must be true or false")
    return value


def _strings(fields: Mapping[str, Any], name: str, where: str) -> list[str] | None:
    values = fields.get(name)
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InvalidFilter(f"'{name}' of '{where}' must be a list of strings")
    return values


def _ids(fields: Mapping[str, Any], name: str, where: str, sigil: str, what: str) -> frozenset[str] | None:
    values = _strings(fields, name, where)
    if values is None:
        return None
    if not all(value.startswith(sigil) for value in values):
        raise InvalidFilter(f"'{name}' of '{where}' must be a list of {what}")
    return frozenset(values)


def _types(fields: Mapping[str, Any], name: str, where: str) -> TypePatterns | None:
    values = _strings(fields, name, where)
    if values is None:
        return None
    globs = (compile_glob(value, question_mark=False) for value in values if "*" in value)
    return TypePatterns(
        frozenset(value for value in values if "*" not in value),
        tuple(glob for glob in globs if glob is not None),
    )


_FORMATS: Final[Mapping[str, EventFormat]] = {"client": "client", "federation": "federation"}


def _event_format(fields: Mapping[str, Any]) -> EventFormat:
    value = fields.get("event_format", "client")
    if not isinstance(value, str) or value not in _FORMATS:
        raise InvalidFilter("'event_format' of 'filter' must be 'client' or 'federation'")
    return _FORMATS[value]
