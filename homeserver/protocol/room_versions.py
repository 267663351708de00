"""Room versions as data: what each version of the rules changes.

A version is the one before it plus the named differences, so that code asks
``rules.knocking`` and never compares version numbers.  Specification: the
"Room versions" pages, v1 to v12.
"""

from __future__ import annotations

from enum import Enum

import msgspec


class EventIdFormat(Enum):
    """How an event gets its id."""

    SERVER_CHOSEN = "server"  # v1, v2: "$opaque:domain", carried in the PDU
    HASH_BASE64 = "base64"  # v3: "$" + reference hash, standard unpadded base64
    HASH_URL_SAFE = "url-safe"  # since v4: the same, URL-safe alphabet


class StateResolution(Enum):
    """Which state resolution algorithm a room uses."""

    V1 = "1"
    V2 = "2"
    V2_1 = "2.1"  # since v12: starts from empty state, adds the conflicted subgraph


class RoomVersion(msgspec.Struct, frozen=True):
    """The rules of one room version; every flag is named for what it turns on."""

    id: str
    event_id_format: EventIdFormat = EventIdFormat.SERVER_CHOSEN
    state_resolution: StateResolution = StateResolution.V1
    #: Keys are only trusted until their ``valid_until_ts`` (v5).
    enforce_key_validity: bool = False
    #: ``m.room.aliases`` has auth and redaction rules of its own (until v6).
    special_case_aliases: bool = True
    #: Canonical JSON is enforced: no floats, ints within 2**53 (v6).
    strict_canonical_json: bool = False
    #: ``notifications`` in power levels is protected like ``events`` (v6).
    limit_notifications_power_levels: bool = False
    #: ``knock`` as membership and join rule (v7).
    knocking: bool = False
    #: The ``restricted`` join rule (v8).
    restricted_joins: bool = False
    #: Redaction keeps ``join_authorised_via_users_server`` (v9).
    restricted_joins_redaction_fix: bool = False
    #: The ``knock_restricted`` join rule (v10).
    knock_restricted_joins: bool = False
    #: Power levels must be JSON integers (v10).
    integer_power_levels: bool = False
    #: ``redacts`` lives in the content; redaction keeps all of create, and so on (v11).
    updated_redaction_rules: bool = False
    #: The creator is the create event's sender; ``content.creator`` is gone (v11).
    implicit_room_creator: bool = False
    #: The room id is the hash of the create event, creators have unbounded power (v12).
    hash_room_ids: bool = False

    def __hash__(self) -> int:
        # Versions are keys of memos that every event asks: not all the flags each time.
        return hash(self.id)

    @property
    def event_id_is_hash(self) -> bool:
        """Whether the event id is computed from the event rather than carried in it."""
        return self.event_id_format is not EventIdFormat.SERVER_CHOSEN

    @property
    def redaction_needs_power(self) -> bool:
        """Whether the auth rules themselves check ``m.room.redaction`` (v1, v2)."""
        return not self.event_id_is_hash


V1 = RoomVersion("1")
V2 = msgspec.structs.replace(V1, id="2", state_resolution=StateResolution.V2)
V3 = msgspec.structs.replace(V2, id="3", event_id_format=EventIdFormat.HASH_BASE64)
V4 = msgspec.structs.replace(V3, id="4", event_id_format=EventIdFormat.HASH_URL_SAFE)
V5 = msgspec.structs.replace(V4, id="5", enforce_key_validity=True)
V6 = msgspec.structs.replace(
    V5,
    id="6",
    special_case_aliases=False,
    strict_canonical_json=True,
    limit_notifications_power_levels=True,
)
V7 = msgspec.structs.replace(V6, id="7", knocking=True)
V8 = msgspec.structs.replace(V7, id="8", restricted_joins=True)
V9 = msgspec.structs.replace(V8, id="9", restricted_joins_redaction_fix=True)
V10 = msgspec.structs.replace(V9, id="10", knock_restricted_joins=True, integer_power_levels=True)
V11 = msgspec.structs.replace(V10, id="11", updated_redaction_rules=True, implicit_room_creator=True)
V12 = msgspec.structs.replace(V11, id="12", state_resolution=StateResolution.V2_1, hash_room_ids=True)

#: Every version this server can take part in, by id.
ROOM_VERSIONS: dict[str, RoomVersion] = {
    version.id: version for version in (V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12)
}

#: What ``/createRoom`` makes when the client names no version (the spec's recommendation).
DEFAULT_ROOM_VERSION = V12
