"""What a client asks sliding sync for, whichever form it was written in.

Specification: MSC4186, "Request Body".  How the two forms are written is known to ``parsing.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from homeserver.rooms.room import MEMBER
from homeserver.users.presence import PresenceState


class Elements(msgspec.Struct, frozen=True, gc=False):
    """A set of state keys, some of them by type or by state key alone."""

    everything: bool = False
    types: frozenset[str] = frozenset()
    state_keys: frozenset[str] = frozenset()
    exact: frozenset[tuple[str, str]] = frozenset()

    def has(self, type_: str, state_key: str) -> bool:
        """Whether a piece of state is meant."""
        return self.everything or self.has_named(type_, state_key)

    def has_named(self, type_: str, state_key: str) -> bool:
        """The same, but for "everything": what is meant by name."""
        return type_ in self.types or state_key in self.state_keys or (type_, state_key) in self.exact


NOTHING = Elements()


class RequiredState(msgspec.Struct, frozen=True, gc=False):
    """Which state one rule wants."""

    include: Elements = NOTHING
    exclude: Elements = NOTHING
    #: Of the members only those that the timeline needs, and those who are named.
    lazy_members: bool = False

    def wants(self, type_: str, state_key: str) -> bool:
        """Whether a piece of state is wanted for itself."""
        lazily = self.lazy_members and type_ == MEMBER
        included = self.include.has_named if lazily else self.include.has
        return included(type_, state_key) and not self.exclude.has(type_, state_key)

    @property
    def all_members(self) -> bool:
        """Whether every member is wanted."""
        by_everything = self.include.everything and not self.lazy_members
        return by_everything or MEMBER in self.include.types

    @property
    def members(self) -> set[str]:
        """Users that are wanted by name."""
        return {key for type_, key in self.include.exact if type_ == MEMBER} | self.include.state_keys


class RoomConfig(msgspec.Struct, frozen=True, gc=False):
    """What is wanted of a room: the superset of what all rules that match it want."""

    timeline_limit: int
    required: frozenset[RequiredState]

    def combined(self, other: RoomConfig) -> RoomConfig:
        """What both want ("Combining room configs")."""
        return RoomConfig(
            max(self.timeline_limit, other.timeline_limit),
            self.required if self.required == other.required else self.required | other.required,
        )

    def wants(self, type_: str, state_key: str) -> bool:
        """Whether a piece of state is wanted for itself."""
        return any(one.wants(type_, state_key) for one in self.required)

    @property
    def all_members(self) -> bool:
        """Whether every member is wanted."""
        return any(one.all_members for one in self.required)

    @property
    def lazy_members(self) -> bool:
        """Whether members are loaded as the timeline needs them."""
        return any(one.lazy_members for one in self.required) and not self.all_members

    @property
    def members(self) -> set[str]:
        """Users whose membership is wanted by name."""
        return {user_id for one in self.required for user_id in one.members}


class Filters(msgspec.Struct, frozen=True, gc=False):
    """Which rooms a list is of; ``None`` where it does not matter ("SlidingRoomFilter")."""

    is_dm: bool | None = None
    is_encrypted: bool | None = None
    is_invited: bool | None = None
    spaces: frozenset[str] | None = None
    room_types: frozenset[str | None] | None = None
    not_room_types: frozenset[str | None] | None = None
    tags: frozenset[str] | None = None
    not_tags: frozenset[str] | None = None

    @property
    def needs_facts(self) -> bool:
        """Whether rooms' state has to be looked at."""
        return not (self.is_encrypted is None and self.room_types is None and self.not_room_types is None)


#: First and last rank, both of them included.
Ranges = tuple[tuple[int, int], ...]


class ListConfig(msgspec.Struct, frozen=True, gc=False):
    """One list; without ``ranges`` all rooms that pass the filters are wanted."""

    config: RoomConfig
    ranges: Ranges | None = None
    filters: Filters = Filters()


class SlidingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request of a connection."""

    user_id: str
    #: ``None`` for tokens that belong to no device.
    device_id: str | None
    #: Whether it came in the proposal's final form, and is answered in it.
    stable: bool
    conn_id: str = ""
    pos: str | None = None
    timeout_ms: int = 0
    set_presence: PresenceState = "online"
    txn_id: str | None = None
    lists: Mapping[str, ListConfig]
    #: By room id.
    subscriptions: Mapping[str, RoomConfig]
    #: By the extensions' names, only those that are enabled.
    extensions: Mapping[str, Mapping[str, Any]]


def combined(configs: Iterable[RoomConfig]) -> RoomConfig | None:
    """What all of them want; ``None`` for none."""
    found: RoomConfig | None = None
    for config in configs:
        found = config if found is None else found.combined(config)
    return found
