"""What a new room starts from: the events that a ``/createRoom`` request asks for, as drafts.

Plain functions over the request; nothing here composes, signs or stores.
Specification: client-server API, "Creation".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from homeserver.errors import MatrixError, bad_json
from homeserver.protocol.power_levels import DEFAULTS, level_of
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.address_invites import InvitedAddress
from homeserver.rooms.room import MEMBER
from homeserver.rooms.send import Draft

Preset = Literal["private_chat", "public_chat", "trusted_private_chat"]


class InitialState(msgspec.Struct, frozen=True):
    """One entry of ``initial_state``."""

    type: str
    content: dict[str, Any]
    state_key: str = ""


class NewRoom(msgspec.Struct, frozen=True):
    """The body of ``POST /createRoom``; fields as the specification names them."""

    visibility: Literal["public", "private"] | None = None
    room_alias_name: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: list[str] = []
    invite_3pid: list[InvitedAddress] = []
    room_version: str | None = None
    creation_content: dict[str, Any] | None = None
    initial_state: list[InitialState] = []
    preset: Preset | None = None
    is_direct: bool = False
    power_level_content_override: dict[str, Any] | None = None

    @property
    def preset_in_force(self) -> Preset:
        """The preset; where none is given, the one that the visibility stands for."""
        return self.preset or ("public_chat" if self.visibility == "public" else "private_chat")


#: ``join_rules``, and whether guests may join; history is ``shared`` in all of them.
_PRESETS: Mapping[Preset, tuple[str, bool]] = {
    "private_chat": ("invite", True),
    "trusted_private_chat": ("invite", True),
    "public_chat": ("public", False),
}

_EVENT_LEVELS = {
    "m.room.avatar": 50,
    "m.room.canonical_alias": 50,
    "m.room.encryption": 100,
    "m.room.history_visibility": 100,
    "m.room.name": 50,
    "m.room.power_levels": 100,
    "m.room.server_acl": 100,
    "m.room.tombstone": 100,
}

#: Above ``state_default`` and every level of somebody who is no creator, where creators have no level.
_TOMBSTONE_LEVEL = 150


def supported_version(version: str) -> RoomVersion:
    """The rules of a room version; raises ``M_UNSUPPORTED_ROOM_VERSION``."""
    rules = ROOM_VERSIONS.get(version)
    if rules is None:
        raise MatrixError(
            400, "M_UNSUPPORTED_ROOM_VERSION", f"This server does not support room version {version[:50]!r}"
        )
    return rules


def create_content(
    rules: RoomVersion, creator: str, content: Mapping[str, Any], additional_creators: Sequence[str] = ()
) -> dict[str, Any]:
    """The content of ``m.room.create``: what the client wants in it, and what is not the client's to say.

    ``additional_creators`` are added to those in ``content`` (since v12).  ``M_BAD_JSON``
    where those are not a list.
    """
    whole = {name: value for name, value in content.items() if name != "creator"}
    whole["room_version"] = rules.id
    if not rules.implicit_room_creator:
        whole["creator"] = creator
    if rules.hash_room_ids:
        wanted = whole.pop("additional_creators", None) or []
        if not isinstance(wanted, list) or not all(isinstance(user_id, str) for user_id in wanted):
            raise bad_json("additional_creators is not a list of user ids")
        creators = [
            user_id for user_id in dict.fromkeys((*wanted, *additional_creators)) if user_id != creator
        ]
        if creators:
            whole["additional_creators"] = creators
    return whole


def power_levels(rules: RoomVersion, creator: str, wish: NewRoom) -> dict[str, Any]:
    """The content of the first ``m.room.power_levels``."""
    preset = wish.preset_in_force
    users = {}
    if not rules.hash_room_ids:  # since v12 creators have more power than any level
        equals = wish.invite if preset == "trusted_private_chat" else []
        users = dict.fromkeys((creator, *equals), 100)
    content: dict[str, Any] = {
        **DEFAULTS,
        "users": users,
        "events": dict(_EVENT_LEVELS),
        "invite": 50 if preset == "public_chat" else 0,
    }
    content |= wish.power_level_content_override or {}
    return with_tombstone_level(
        rules, content, replace="events" not in (wish.power_level_content_override or {})
    )


def with_tombstone_level(rules: RoomVersion, content: dict[str, Any], *, replace: bool) -> dict[str, Any]:
    """Power levels in which tombstones need more than ``state_default`` (since v12).

    An entry that is there already is left as it is unless ``replace`` is set.
    """
    events = content.get("events")
    if (
        not rules.hash_room_ids
        or not isinstance(events, dict)
        or ("m.room.tombstone" in events and not replace)
    ):
        return content
    state_default = level_of(content.get("state_default"), rules) or 0
    level = max(_TOMBSTONE_LEVEL, state_default + 1)
    return content | {"events": events | {"m.room.tombstone": level}}


def first_events(
    rules: RoomVersion, creator: str, wish: NewRoom, alias: str | None, profile: Mapping[str, Any]
) -> list[Draft]:
    """Every event after ``m.room.create`` and before the invites, in the specification's order.

    2. the creator's join  3. power levels  4. the canonical alias  5. the preset's state
    6. ``initial_state``  7. name and topic.

    What a later step sets again is left out of the earlier one; power levels among
    ``initial_state`` take the place of the default ones.  ``M_INVALID_ROOM_STATE`` for
    ``initial_state`` that only the server sets.
    """
    given = {(entry.type, entry.state_key) for entry in wish.initial_state}
    if any(type_ in {MEMBER, "m.room.create"} for type_, _ in given):
        raise invalid_room_state("initial_state cannot hold memberships or another m.room.create")
    last = [("m.room.name", {"name": wish.name})] if wish.name is not None else []
    if wish.topic is not None:
        last.append(("m.room.topic", topic_content(wish.topic)))
    overridden = {(type_, "") for type_, _ in last} | {("m.room.power_levels", "")}
    levels = [entry.content for entry in wish.initial_state if (entry.type, entry.state_key) == _LEVELS]
    state: list[tuple[str, str, Mapping[str, Any]]] = [
        (MEMBER, creator, {**profile, "membership": "join"}),  # 2
        (*_LEVELS, levels[-1] if levels else power_levels(rules, creator, wish)),  # 3
    ]
    if alias is not None:
        state.append(("m.room.canonical_alias", "", {"alias": alias}))  # 4
    preset = _preset_state(wish.preset_in_force)
    state += [(type_, "", content) for type_, content in preset if (type_, "") not in given]  # 5
    state += [
        (entry.type, entry.state_key, entry.content)
        for entry in wish.initial_state
        if (entry.type, entry.state_key) not in overridden
    ]  # 6
    state += [(type_, "", content) for type_, content in last]  # 7
    return [Draft(creator, type_, content, state_key=state_key) for type_, state_key, content in state]


def _preset_state(preset: Preset) -> list[tuple[str, dict[str, Any]]]:
    """``m.room.guest_access`` only where guests may join: without it they may not."""
    join_rule, guests_may_join = _PRESETS[preset]
    state: list[tuple[str, dict[str, Any]]] = [
        ("m.room.join_rules", {"join_rule": join_rule}),
        ("m.room.history_visibility", {"history_visibility": "shared"}),
    ]
    if guests_may_join:
        state.append(("m.room.guest_access", {"guest_access": "can_join"}))
    return state


_LEVELS = ("m.room.power_levels", "")


def topic_content(topic: str) -> dict[str, Any]:
    """``m.room.topic`` with its ``text/plain`` representation."""
    return {"topic": topic, "m.topic": {"m.text": [{"body": topic, "mimetype": "text/plain"}]}}


def invalid_room_state(message: str) -> MatrixError:
    """400 ``M_INVALID_ROOM_STATE``."""
    return MatrixError(400, "M_INVALID_ROOM_STATE", message)
