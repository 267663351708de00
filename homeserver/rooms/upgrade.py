"""Replacing a room by one of another room version.

Specification: client-server API, "Room Upgrades"; the steps below have its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from homeserver.errors import MatrixError, forbidden
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.ids import is_user_id
from homeserver.protocol.power_levels import DEFAULTS, level_of, levels_in
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.create import CreateRoom
from homeserver.rooms.directory import CANONICAL_ALIAS
from homeserver.rooms.joining import PersonalSettings
from homeserver.rooms.new_room import (
    NewRoom,
    create_content,
    power_levels,
    supported_version,
    with_tombstone_level,
)
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, Send
from homeserver.rooms.shown_profile import Profiles, shown_profile
from homeserver.rooms.state_store import StateStore
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database, Transaction

_log = structlog.get_logger()

#: The largest integer that canonical JSON knows.
_HIGHEST_LEVEL = 2**53 - 1

_TOMBSTONE = "m.room.tombstone"
_POWER_LEVELS = "m.room.power_levels"

#: State that means the same whoever sends it; power levels are carried over apart.
_TRANSFERABLE = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
)


class UpgradeRoom:
    """Upgrades rooms for local users."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        states: StateStore,
        send: Send,
        create: CreateRoom,
        profiles: Profiles,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._states = states
        self._send = send
        self._create = create
        self._profiles = profiles
        #: Set once there is what keeps them.
        self.settings: PersonalSettings | None = None

    async def upgrade(
        self, user_id: str, room_id: str, new_version: str, additional_creators: Sequence[str] = ()
    ) -> str:
        """Replace a room; the id of the one that replaces it.

        1. The user must be allowed to send the tombstone.
        2. Create the replacement, whose ``m.room.create`` names its predecessor.
        3. Carry transferable state over.
        4. Move this server's aliases, and the place in the room directory.
        5. Send the tombstone.
        6. Raise the levels of the old room, so that it falls silent.

        Steps 2 to 4 are one transaction.  ``M_UNSUPPORTED_ROOM_VERSION``, ``M_FORBIDDEN``,
        and what ``CreateRoom.compose`` raises.
        """
        rules = supported_version(new_version)
        old = await self._rooms.get(room_id)
        await self._check_permission(old, user_id)  # 1
        content = create_content(rules, user_id, _kept_of_create(old, rules), additional_creators)  # 2
        aliases = await room_storage.aliases_of(self._db.read, room_id)
        drafts = [
            Draft(
                user_id,
                MEMBER,
                {**await shown_profile(self._profiles, user_id), "membership": "join"},
                user_id,
            ),
            *_transferred(old, user_id, aliases),
            Draft(user_id, _POWER_LEVELS, replacement_levels(old, rules, content, user_id), ""),
        ]  # 3
        new, events = self._create.compose(rules, user_id, content, drafts)
        published = (row := await room_storage.by_nid(self._db.read, old.nid)) is not None and row.published

        async def move(tx: Transaction) -> None:  # 4
            await room_storage.move_aliases(tx, room_id, new.room_id)
            if published:
                await room_storage.set_published(tx, old.nid, False)
                await room_storage.set_published(tx, new.nid, True)

        await self._create.store(new, events, move)
        tombstone = {"body": "This room has been replaced", "replacement_room": new.room_id}
        await self._send.send(room_id, Draft(user_id, _TOMBSTONE, tombstone, ""))  # 5
        await self._silence(old, user_id, aliases)  # 6
        if self.settings is not None:
            await self.settings.joined(user_id, new.room_id)
        return new.room_id

    async def _check_permission(self, old: Room, user_id: str) -> None:
        levels = old.power_levels
        joined = membership_of(await self._states.member(old, user_id)) == "join"
        if not joined or levels.of_user(user_id) < levels.for_event(_TOMBSTONE, is_state=True):
            raise forbidden("You cannot upgrade this room")

    async def _silence(self, old: Room, user_id: str, moved: Sequence[str]) -> None:
        """Take the moved aliases out of the old room's state and make it read-only, where the user may."""
        drafts = []
        aliases = old.state_event(CANONICAL_ALIAS)
        if aliases is not None and moved:
            left = _canonical(aliases.content, lambda alias: alias not in moved)
            drafts.append(Draft(user_id, CANONICAL_ALIAS, left, ""))
        levels = old.state_event(_POWER_LEVELS)
        if levels is not None:
            drafts.append(Draft(user_id, _POWER_LEVELS, silent_levels(levels.content, old.rules), ""))
        for draft in drafts:
            try:
                await self._send.send(old.room_id, draft)
            except (NotAllowed, MatrixError) as error:
                _log.info("old room not changed", room_id=old.room_id, type=draft.type, reason=str(error))


def replacement_levels(
    old: Room, rules: RoomVersion, create: Mapping[str, Any], user_id: str
) -> dict[str, Any]:
    """The power levels of the replacement, valid in its room version.

    ``create`` is the content of its ``m.room.create``.  Since v12 creators are not listed;
    who was one in the old room stays above everybody else where the new one has no creators.
    """
    event = old.state_event(_POWER_LEVELS)
    if event is None:
        return power_levels(rules, user_id, NewRoom())
    given = event.content
    singles = {name: level_of(given[name], old.rules) for name in DEFAULTS if name in given}
    content: dict[str, Any] = {name: level for name, level in singles.items() if level is not None}
    for name in ("events", "notifications", "users"):
        if name in given:
            content[name] = levels_in(given[name], old.rules)
    users = {name: level for name, level in content.get("users", {}).items() if is_user_id(name)}
    if rules.hash_room_ids:
        creators = {user_id, *create.get("additional_creators", ())}
        users = {name: level for name, level in users.items() if name not in creators}
    elif old.power_levels.unbounded:
        users = {name: min(level, _HIGHEST_LEVEL - 1) for name, level in users.items()}
        users |= dict.fromkeys(old.power_levels.unbounded, _HIGHEST_LEVEL)
    content["users"] = users
    needed = content.get("events", {}).get(_TOMBSTONE, -1)
    return with_tombstone_level(rules, content, replace=needed <= content.get("state_default", 50))


def silent_levels(content: Mapping[str, Any], rules: RoomVersion) -> dict[str, Any]:
    """Power levels under which ordinary members neither send nor invite."""

    def level(name: str) -> int:
        found = level_of(content.get(name), rules)
        return DEFAULTS[name] if found is None else found

    least = max(50, level("users_default") + 1)
    return {
        **content,
        "events_default": max(level("events_default"), least),
        "invite": max(level("invite"), least),
    }


def _kept_of_create(old: Room, rules: RoomVersion) -> dict[str, Any]:
    """Since v12 the predecessor's last event is not named: the room exists before the tombstone does."""
    create = old.create.event.content
    kept = {name: create[name] for name in ("type", "m.federate") if name in create}
    last = {} if rules.hash_room_ids else {"event_id": old.tips[-1].id}
    return kept | {"predecessor": {"room_id": old.room_id, **last}}


def _transferred(old: Room, user_id: str, aliases: Sequence[str]) -> list[Draft]:
    """The state that is carried over; of a space, what is in it too."""
    drafts = []
    for type_ in _TRANSFERABLE:
        event = old.state_event(type_)
        if event is not None:
            drafts.append(Draft(user_id, type_, event.content, ""))
    canonical = old.state_event(CANONICAL_ALIAS)
    if canonical is not None and aliases:
        moved = _canonical(canonical.content, lambda alias: alias in aliases)
        drafts.append(Draft(user_id, CANONICAL_ALIAS, moved, ""))
    if old.create.event.content.get("type") == "m.space":
        drafts += [
            Draft(user_id, type_, stored.event.content, child)
            for (type_, child), stored in old.state.items()
            if type_ == "m.space.child" and stored.event.content.get("via")
        ]
    return drafts


def _canonical(content: Mapping[str, Any], keep: Callable[[str], bool]) -> dict[str, Any]:
    """The content of an ``m.room.canonical_alias`` with only some of its aliases."""
    kept: dict[str, Any] = {}
    alias, others = content.get("alias"), content.get("alt_aliases")
    if isinstance(alias, str) and keep(alias):
        kept["alias"] = alias
    if isinstance(others, list):
        kept["alt_aliases"] = [other for other in others if isinstance(other, str) and keep(other)]
    return kept
