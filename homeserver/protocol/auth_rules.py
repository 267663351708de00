"""The auth rules: whether an event may be in a room, judged by its auth events or by a state.

Two entrances, as the checks on receipt of a PDU need them: ``check_auth_events`` looks at
what the event cites (rules 2 and 3), ``check_against_state`` at everything else.  Rules
are numbered as in v12; a version without a rule skips it by its flag in ``RoomVersion``.
Nothing here checks hashes or signatures of servers (``signing``) or the format of an
event (``event_format``).  Content may be any JSON: the one exception is ``NotAllowed``.
Specification: "Authorisation rules" of each room version; "Auth events selection".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.protocol import ids
from homeserver.protocol.auth_membership import check_membership
from homeserver.protocol.auth_state import (
    NotAllowed,
    NotAllowedToAnybody,
    StateLookup,
    content_of,
    membership_of,
)
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.power_levels import (
    DEFAULTS,
    PowerLevels,
    creators_of,
    level_of,
    levels_in,
    power_levels_from,
)
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion

__all__ = [
    "NotAllowed",
    "NotAllowedToAnybody",
    "StateLookup",
    "auth_types_for",
    "check_against_state",
    "check_auth_events",
    "says_nothing_of_itself",
]


def auth_types_for(
    rules: RoomVersion, *, type: str, sender: str, state_key: str | None, content: Mapping[str, Any]
) -> list[StateKey]:
    """The state an event of this kind cites as ``auth_events``, without repetition.

    Specification: "Auth events selection".  Whatever is odd in ``content`` selects nothing.
    """
    if type == "m.room.create":
        return []
    keys = [("m.room.power_levels", ""), ("m.room.member", sender)]
    if not rules.hash_room_ids:  # since v12 the room id stands for the create event
        keys.insert(0, ("m.room.create", ""))
    if type == "m.room.member" and state_key is not None:
        keys += _auth_types_for_membership(rules, state_key, content)
    return list(dict.fromkeys(keys))


def _auth_types_for_membership(rules: RoomVersion, target: str, content: Mapping[str, Any]) -> list[StateKey]:
    membership = content.get("membership")
    keys = [("m.room.member", target)]
    if membership in ("join", "invite", "knock"):
        keys.append(("m.room.join_rules", ""))
    if membership == "invite":
        invite = content.get("third_party_invite")
        signed = invite.get("signed") if isinstance(invite, dict) else None
        token = signed.get("token") if isinstance(signed, dict) else None
        if isinstance(token, str):
            keys.append(("m.room.third_party_invite", token))
    if membership == "join" and rules.restricted_joins:
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str):
            keys.append(("m.room.member", authoriser))
    return keys


def auth_types_of(rules: RoomVersion, event: Event) -> list[StateKey]:
    """``auth_types_for`` an event that is there; ``NotAllowed`` for content that cannot be read."""
    return auth_types_for(
        rules, type=event.type, sender=event.sender, state_key=event.state_key, content=content_of(event)
    )


#: Types that ``auth_types_for`` names: an accepted event cites no others.
CITED_TYPES = frozenset(
    {
        "m.room.create",
        "m.room.power_levels",
        "m.room.member",
        "m.room.join_rules",
        "m.room.third_party_invite",
    }
)

#: Types of which the rules read more than who sends them.
_READ_FURTHER = frozenset(
    {
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.third_party_invite",
        "m.room.redaction",
        "m.room.aliases",
    }
)


def says_nothing_of_itself(type: str, state_key: str | None) -> bool:
    """Whether all that the rules ask of such an event is its room, its sender and its type.

    What is allowed once is allowed as long as the state stays the same, then; and its
    ``auth_events`` are the same too.
    """
    return state_key is None and type not in _READ_FURTHER


def check_auth_events(
    rules: RoomVersion, event: Event, auth_events: Sequence[Event], create: Event | None
) -> None:
    """Rules 2 and 3: is what the event cites fit to judge it by?

    2. The room id stands for an accepted create event (since v12).
    3. Its ``auth_events``
        1. do not hold two events for one ``(type, state_key)``,
        2. hold nothing that the auth events selection does not ask for,
        3. hold no rejected event,
        4. hold the create event (until v11),
        5. are all of the same room.

    ``auth_events`` are all events cited, ``create`` the room's create event (only needed
    since v12).  A create event passes: rule 1 settles it.  Raises ``NotAllowed``.
    """
    if event.type == "m.room.create":
        return
    # 2
    if rules.hash_room_ids:
        _check_room_id(event, create)
    # 3.1
    keys = [(cited.type, cited.state_key) for cited in auth_events]
    if len(set(keys)) < len(keys):
        raise NotAllowed("Two of the auth events are for the same piece of state.")
    # 3.2
    selected = auth_types_of(rules, event)
    for key in keys:
        if key not in selected:
            raise NotAllowed(f"A {key[0]} event does not belong among the auth events.")
    # 3.3
    for cited in auth_events:
        if cited.rejected:
            raise NotAllowed(f"The auth event {cited.event_id} was rejected.")
    # 3.4
    if not rules.hash_room_ids and ("m.room.create", "") not in keys:
        raise NotAllowed("The create event is missing among the auth events.")
    # 3.5
    for cited in auth_events:
        if cited.room_id != event.room_id:
            raise NotAllowed(f"The auth event {cited.event_id} is of another room.")


def check_against_state(rules: RoomVersion, event: Event, state: StateLookup) -> None:
    """Every rule but those on ``auth_events``: may this event be added to this state?

    1. A create event is judged by itself.
    2. The room id stands for an accepted create event (since v12).
    3. The auth events: see ``check_auth_events``.
    4. A room that does not federate takes events from its own server only; then, until v5,
       ``m.room.aliases`` is settled by its ``state_key``.
    5. Membership: see ``auth_membership``.
    6. The sender is in the room.
    7. A third-party invite needs the *invite level*, and nothing more.
    8. The sender has the power the event's type requires.
    9. A ``state_key`` that is a user id is the sender's.
    10. Power levels are changed only within the sender's own power; then, in v1 and v2,
        redactions need the *redact level*.
    11. Everything else is allowed.

    ``state("m.room.create", "")`` must give the create event, also since v12, where no
    event cites it.  Raises ``NotAllowed``.
    """
    # 1
    if event.type == "m.room.create":
        _check_create(rules, event)
        return
    create = state("m.room.create", "")
    if create is None:
        raise NotAllowed("The room has no create event.")
    # 2
    if rules.hash_room_ids:
        _check_room_id(event, create)
    # 4
    _check_federates(event, create)
    if event.type == "m.room.aliases" and rules.special_case_aliases:
        _check_aliases(event)
        return
    # 5
    if event.type == "m.room.member":
        check_membership(rules, event, state)
        return
    # 6
    if membership_of(state, event.sender) != "join":
        raise NotAllowed(f"{event.sender} is not in the room.")
    levels = power_levels_from(state, rules)
    power = levels.of_user(event.sender)
    # 7
    if event.type == "m.room.third_party_invite":
        if power < levels.invite:
            raise NotAllowed(f"{event.sender} may not invite.")
        return
    # 8
    if power < levels.for_event(event.type, event.is_state):
        raise NotAllowed(f"{event.sender} has too little power to send {event.type}.")
    # 9
    if event.state_key is not None and event.state_key.startswith("@") and event.state_key != event.sender:
        raise NotAllowed("Only the user named in the state key may send this event.")
    # 10
    if event.type == "m.room.power_levels":
        _check_power_levels(rules, event, create, state)
    elif event.type == "m.room.redaction" and rules.redaction_needs_power:
        _check_redaction(event, levels)


def _check_create(rules: RoomVersion, event: Event) -> None:
    """Rule 1.

    1. It is the first event of the room.
    2. It has no ``room_id``; until v11 the room id is of the sender's server.
    3. The room version is one we know.
    4. ``additional_creators`` are user ids (since v12); until v10 there is a ``creator``.
    """
    content = content_of(event)
    # 1.1
    if event.prev_events:
        raise NotAllowed("A create event comes before every other event.")
    # 1.2
    if rules.hash_room_ids:
        if "room_id" in event.pdu:
            raise NotAllowed("A create event has no room id.")
    elif _domain(event.room_id) != _domain(event.sender):
        raise NotAllowed("The room id is not of the sender's server.")
    # 1.3
    if "room_version" in content:
        version = content["room_version"]
        if not isinstance(version, str) or version not in ROOM_VERSIONS:
            raise NotAllowed("The room version is unknown.")
    # 1.4
    if rules.hash_room_ids and "additional_creators" in content:
        creators = content["additional_creators"]
        if not isinstance(creators, list) or not all(_is_user_id(creator) for creator in creators):
            raise NotAllowed("The additional creators are not a list of user ids.")
    if not rules.implicit_room_creator and "creator" not in content:
        raise NotAllowed("The create event names no creator.")


def _check_room_id(event: Event, create: Event | None) -> None:
    """Rule 2 (since v12)."""
    if create is None or create.rejected:
        raise NotAllowed("The room has no accepted create event.")
    if event.room_id != "!" + create.event_id[1:] or create.type != "m.room.create":
        raise NotAllowed("The room id does not stand for the room's create event.")


def _check_federates(event: Event, create: Event) -> None:
    """Rule 4."""
    if _domain(event.sender) != _domain(create.sender) and content_of(create).get("m.federate") is False:
        raise NotAllowed("The room does not take events from other servers.")


def _check_aliases(event: Event) -> None:
    """Rule 4 of v1 to v5: each server keeps its own list of aliases."""
    if event.state_key is None or _domain(event.sender) != event.state_key:
        raise NotAllowed("The aliases are not those of the sender's server.")


def _check_redaction(event: Event, levels: PowerLevels) -> None:
    """Rule 11 of v1 and v2: the *redact level*, or an event of the same server."""
    if levels.of_user(event.sender) >= levels.redact:
        return
    if event.redacts is None or _domain(event.redacts) != _domain(event.event_id):
        raise NotAllowed(f"{event.sender} may not redact events of other servers.")


def _check_power_levels(rules: RoomVersion, event: Event, create: Event, state: StateLookup) -> None:
    """Rule 10.

    1.–3. Levels are levels, and users are users: see ``_check_are_levels``.
    4. Creators are not listed (since v12).
    5. The first power levels of a room may be anything.
    6.–10. Changes stay within the sender's power: see ``_check_changes``.
    """
    content = content_of(event)
    # 10.1–10.3
    _check_are_levels(rules, content)
    # 10.4
    if rules.hash_room_ids and not creators_of(create, rules).isdisjoint(content.get("users", {})):
        raise NotAllowedToAnybody("The power of the room's creators cannot be set.")
    # 10.5
    current = state("m.room.power_levels", "")
    if current is None:
        return
    # 10.6–10.10
    power = power_levels_from(state, rules).of_user(event.sender)
    _check_changes(rules, event.sender, power, content_of(current), content)


def _check_are_levels(rules: RoomVersion, content: dict[str, Any]) -> None:
    """Rules 10.1 to 10.3.

    Until v9 the rules ask it of ``users`` only, but leave open what a value would mean that
    is no level, so that it is refused everywhere in every version.
    """
    # 10.1
    for name in DEFAULTS:
        if name in content and level_of(content[name], rules) is None:
            raise NotAllowedToAnybody(f"The power level {name} is not an integer.")
    # 10.2, 10.3
    for name in ("events", "notifications", "users"):
        levels = content.get(name, {})
        if not isinstance(levels, dict) or len(levels_in(levels, rules)) != len(levels):
            raise NotAllowedToAnybody(f"The power levels in {name} are not an object of integers.")
    if not all(_is_user_id(user_id) for user_id in content.get("users", ())):
        raise NotAllowedToAnybody("The power levels are given to something that is no user.")


def _check_changes(
    rules: RoomVersion, sender: str, power: int, old: dict[str, Any], new: dict[str, Any]
) -> None:
    """Rules 10.6 to 10.10.

    6. Single levels: neither the old nor the new value is above the sender's power.
    7., 8. The same for the entries of ``events`` and (since v6) ``notifications``.
    9. Entries of other ``users`` change only if they are below the sender's power.
    10. No entry of ``users`` becomes higher than the sender's power.
    """
    # 10.6
    changes = _changes(_single_levels(old), _single_levels(new), rules)
    # 10.7, 10.8
    for name in ("events", "notifications") if rules.limit_notifications_power_levels else ("events",):
        changes += _changes(old.get(name), new.get(name), rules)
    for what, before, after in changes:
        if (before is not None and before > power) or (after is not None and after > power):
            raise NotAllowed(f"{sender} has too little power to change the level of {what}.")
    for user_id, before, after in _changes(old.get("users"), new.get("users"), rules):
        # 10.9
        if before is not None and before >= power and user_id != sender:
            raise NotAllowed(f"{sender} has too little power to change that of {user_id}.")
        # 10.10
        if after is not None and after > power:
            raise NotAllowed(f"{sender} cannot give {user_id} more power than their own.")


def _single_levels(content: dict[str, Any]) -> dict[str, Any]:
    return {name: content[name] for name in DEFAULTS if name in content}


def _changes(old: Any, new: Any, rules: RoomVersion) -> list[tuple[str, int | None, int | None]]:
    """What was added, changed or removed between two objects of levels: name, before, after."""
    before, after = levels_in(old, rules), levels_in(new, rules)
    return [
        (name, before.get(name), after.get(name))
        for name in before.keys() | after.keys()
        if before.get(name) != after.get(name)
    ]


def _is_user_id(value: Any) -> bool:
    return isinstance(value, str) and ids.is_user_id(value)


def _domain(identifier: str) -> str:
    try:
        return ids.server_name_of(identifier)
    except ValueError as error:
        raise NotAllowed(f"{identifier} names no server.") from error
