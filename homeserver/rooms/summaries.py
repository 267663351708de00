"""What rooms tell of themselves to people who are not in them: names, topics, how many are there.

Made for many rooms at once, from the current state that is stored: no room is loaded
for it.  What was made is kept until something happens in the room.  Who may be shown a
summary is not decided here but in ``rooms/accessible.py``.
Specification: client-server API, "Published room directory", "Spaces".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from homeserver.protocol.ids import is_room_id
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.visibility import WORLD_READABLE
from homeserver.rooms.event_cache import EventCache
from homeserver.storage import summaries as summary_storage
from homeserver.storage.database import Database
from homeserver.storage.keys import Keys
from homeserver.storage.summaries import SummaryRow

#: The pieces of state that a summary is made of; all have the empty state key.
_TYPES = (
    "m.room.create",
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.encryption",
)

_REMEMBERED = 10_000
_NOTHING: Mapping[str, Any] = {}


class RoomSummary(msgspec.Struct, frozen=True, gc=False):
    """A room as it is shown to those outside."""

    room_nid: int
    room_id: str
    version: str
    joined_members: int
    #: Whether this server is in the room, so that the rest is true now.
    resident: bool
    join_rule: str
    world_readable: bool
    guest_can_join: bool
    name: str | None = None
    topic: str | None = None
    avatar_url: str | None = None
    canonical_alias: str | None = None
    room_type: str | None = None
    encryption: str | None = None
    #: The rooms whose members may join, where the join rule has such conditions.
    allowed_room_ids: tuple[str, ...] = ()

    def published(self) -> dict[str, Any]:
        """As an entry of the list of published rooms (``PublishedRoomsChunk``)."""
        fields = {
            "room_id": self.room_id,
            "num_joined_members": self.joined_members,
            "world_readable": self.world_readable,
            "guest_can_join": self.guest_can_join,
            "join_rule": self.join_rule,
            "name": self.name,
            "topic": self.topic,
            "avatar_url": self.avatar_url,
            "canonical_alias": self.canonical_alias,
            "room_type": self.room_type,
        }
        return {name: value for name, value in fields.items() if value is not None}

    def described(self) -> dict[str, Any]:
        """As spaces and ``/room_summary`` show it (``RoomSummary``)."""
        entry = {**self.published(), "room_version": self.version}
        if self.encryption is not None:
            entry["encryption"] = self.encryption
        if self.allowed_room_ids:
            entry["allowed_room_ids"] = list(self.allowed_room_ids)
        return entry


class RoomSummaries:
    """Makes summaries; rooms nobody here was ever in have none."""

    def __init__(self, db: Database, keys: Keys, events: EventCache, server_name: str) -> None:
        self._db = db
        self._keys = keys
        self._events = events
        self._server_name = server_name
        #: By room, with the position of its newest event when the summary was made.
        self._made: OrderedDict[int, tuple[int, RoomSummary]] = OrderedDict()

    async def by_ids(self, room_ids: Sequence[str]) -> dict[str, RoomSummary]:
        """Summaries by room id."""
        rows = await summary_storage.by_ids(self._db.scan, room_ids, self._server_name)
        return {summary.room_id: summary for summary in await self._of(rows)}

    async def by_nids(self, nids: Sequence[int]) -> dict[int, RoomSummary]:
        """Summaries by the rooms' numbers."""
        rows = await summary_storage.by_nids(self._db.scan, nids, self._server_name)
        return {summary.room_nid: summary for summary in await self._of(rows)}

    async def _of(self, rows: Iterable[SummaryRow]) -> list[RoomSummary]:
        """A room without a newest event is known by an invite or knock alone, and left out."""
        found, unmade = [], []
        for row in rows:
            position, summary = self._made.get(row.nid, (None, None))
            if summary is not None and position == row.last_pos and summary.resident == row.resident:
                self._made.move_to_end(row.nid)
                found.append(msgspec.structs.replace(summary, joined_members=row.joined_members))
            elif row.last_pos:
                unmade.append(row)
        return [*found, *(await self._make(unmade) if unmade else ())]

    async def _make(self, rows: Sequence[SummaryRow]) -> list[RoomSummary]:
        found = [await self._keys.find((type_, "")) for type_ in _TYPES]
        keys = [key_nid for key_nid in found if key_nid is not None]
        values = await summary_storage.values(self._db.scan, [row.nid for row in rows], keys)
        events = await self._events.by_nids([event_nid for _, event_nid in values])
        contents: dict[int, dict[str, Mapping[str, Any]]] = {row.nid: {} for row in rows}
        for room_nid, event_nid in values:
            if event_nid in events:
                event = events[event_nid].event
                contents[room_nid][event.type] = event.content
        summaries = [summary_of(row, contents[row.nid]) for row in rows]
        for row, summary in zip(rows, summaries, strict=True):
            self._made[row.nid] = (row.last_pos, summary)
            self._made.move_to_end(row.nid)
        while len(self._made) > _REMEMBERED:
            self._made.popitem(last=False)
        return summaries


def summary_of(row: SummaryRow, contents: Mapping[str, Mapping[str, Any]]) -> RoomSummary:
    """The summary of a room from the contents of its state, by event type.

    What is not of the kind the spec says is left out, as it would be by clients.
    """

    def text(type_: str, name: str) -> str | None:
        value = contents.get(type_, _NOTHING).get(name)
        return value if isinstance(value, str) and value else None

    return RoomSummary(
        room_nid=row.nid,
        room_id=row.room_id,
        version=row.version,
        joined_members=row.joined_members,
        resident=row.resident,
        join_rule=text("m.room.join_rules", "join_rule") or "invite",
        world_readable=text("m.room.history_visibility", "history_visibility") == WORLD_READABLE,
        guest_can_join=text("m.room.guest_access", "guest_access") == "can_join",
        name=text("m.room.name", "name"),
        topic=_plain_topic(contents.get("m.room.topic", _NOTHING)) or text("m.room.topic", "topic"),
        avatar_url=text("m.room.avatar", "url"),
        canonical_alias=text("m.room.canonical_alias", "alias"),
        room_type=text("m.room.create", "type"),
        encryption=text("m.room.encryption", "algorithm"),
        allowed_room_ids=_allowed(row.version, contents.get("m.room.join_rules", _NOTHING)),
    )


def _plain_topic(content: Mapping[str, Any]) -> str | None:
    """The ``text/plain`` form of a topic that comes in several (``m.topic``, since v1.15)."""
    block = content.get("m.topic")
    forms = block.get("m.text") if isinstance(block, Mapping) else None
    for form in forms if isinstance(forms, list) else ():
        if isinstance(form, Mapping) and form.get("mimetype", "text/plain") == "text/plain":
            body = form.get("body")
            return body if isinstance(body, str) and body else None
    return None


def _allowed(version: str, join_rules: Mapping[str, Any]) -> tuple[str, ...]:
    rules, rule, allow = ROOM_VERSIONS[version], join_rules.get("join_rule"), join_rules.get("allow")
    conditional = (rule == "restricted" and rules.restricted_joins) or (
        rule == "knock_restricted" and rules.knock_restricted_joins
    )
    if not conditional or not isinstance(allow, list):
        return ()
    rooms = (
        entry.get("room_id")
        for entry in allow
        if isinstance(entry, Mapping) and entry.get("type") == "m.room_membership"
    )
    named = (room_id for room_id in rooms if isinstance(room_id, str) and is_room_id(room_id))
    return tuple(dict.fromkeys(named))
