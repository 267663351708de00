"""What other servers say of rooms this one is not in, remembered for a minute.

Only what has the spec's shape is kept, and of a space no more children than anybody
would look at.  Refusals are not remembered: whoever joins a space may then see what is in it.
Specification: server-server API, ``GET /hierarchy/{roomId}``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from homeserver.clock import Clock
from homeserver.errors import RemoteError
from homeserver.protocol.ids import is_room_id
from homeserver.protocol.spaces import CHILD, SPACE

_log = structlog.get_logger()

_REMEMBERED_S = 60.0
_REMEMBERED = 2_000
#: Servers asked about one room, and how long that may take.
_MAX_SERVERS = 3
_PATIENCE_S = 15.0

MAX_CHILDREN = 500

_TEXTS = ("name", "topic", "avatar_url", "canonical_alias", "room_type", "encryption", "room_version")


class RemoteHierarchies(Protocol):
    """Asks other servers about spaces."""

    async def hierarchy(
        self, server_name: str, room_id: str, *, suggested_only: bool = False
    ) -> dict[str, Any]:
        """``GET /hierarchy``: the body of the answer; raises ``RemoteError``."""
        ...


class RemoteRoom(msgspec.Struct, frozen=True, gc=False):
    """A room as another server describes it."""

    room_id: str
    version: str
    join_rule: str
    world_readable: bool
    allowed_room_ids: tuple[str, ...]
    #: ``RoomSummary`` as clients are shown it.
    described: dict[str, Any]
    #: The ``m.space.child`` events with ``origin_server_ts``; ``None`` where they were not told.
    children: tuple[dict[str, Any], ...] | None
    #: What was said along with it of the rooms it holds, ``None`` for those that cannot be seen from here.
    #: It counts for nothing elsewhere: anybody can say anything of a room by putting it into a space.
    told: Mapping[str, RemoteRoom | None] = {}


class RemoteSpaces:
    """Asks about rooms through servers that may know them."""

    def __init__(self, remote: RemoteHierarchies, clock: Clock, server_name: str) -> None:
        self._remote = remote
        self._clock = clock
        self._server_name = server_name
        #: By room and whether only suggested children are told: until when it holds, and what was said.
        self._known: OrderedDict[tuple[str, bool], tuple[float, RemoteRoom]] = OrderedDict()

    async def describe(
        self, room_id: str, servers: Sequence[str], *, suggested_only: bool = False
    ) -> RemoteRoom | None:
        """What the first of the servers that knows a room says of it; ``None`` when none does."""
        until, known = self._known.get((room_id, suggested_only), (0.0, None))
        if known is not None and until > self._clock.monotonic():
            return known
        others = [server for server in dict.fromkeys(servers) if server != self._server_name]
        try:
            async with asyncio.timeout(_PATIENCE_S):
                for server in others[:_MAX_SERVERS]:
                    room = await self._asked(server, room_id, suggested_only=suggested_only)
                    if room is not None:
                        self._remember(room, suggested_only=suggested_only)
                        return room
        except TimeoutError:
            _log.info("room not described in time", room_id=room_id)
        return None

    async def _asked(self, server: str, room_id: str, *, suggested_only: bool) -> RemoteRoom | None:
        try:
            reply = await self._remote.hierarchy(server, room_id, suggested_only=suggested_only)
        except RemoteError as error:
            _log.info("room not described", room_id=room_id, server=server, reason=error.message)
            return None
        room = remote_room(reply.get("room"))
        if room is None or room.room_id != room_id:
            return None
        return msgspec.structs.replace(room, told=_told(reply))

    def _remember(self, room: RemoteRoom, *, suggested_only: bool) -> None:
        key = (room.room_id, suggested_only)
        self._known[key] = (self._clock.monotonic() + _REMEMBERED_S, room)
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def _told(reply: Mapping[str, Any]) -> dict[str, RemoteRoom | None]:
    """What an answer says of the room's children, but for spaces whose own children it leaves out."""
    told: dict[str, RemoteRoom | None] = dict.fromkeys(_room_ids(reply.get("inaccessible_children")))
    children = reply.get("children")
    for entry in children[:MAX_CHILDREN] if isinstance(children, list) else ():
        child = remote_room(entry)
        if child is not None and (child.children is not None or child.described.get("room_type") != SPACE):
            told[child.room_id] = child
    return told


def remote_room(entry: object) -> RemoteRoom | None:
    """A room's description, as far as it has the spec's shape; ``None`` for what describes no room."""
    if not isinstance(entry, dict) or not isinstance(entry.get("room_id"), str):
        return None
    room_id, joined = entry["room_id"], entry.get("num_joined_members")
    if not is_room_id(room_id):
        return None
    # Where it is not told, the room is public.
    join_rule = entry["join_rule"] if isinstance(entry.get("join_rule"), str) else "public"
    allowed = _room_ids(entry.get("allowed_room_ids"))
    described: dict[str, Any] = {
        "room_id": room_id,
        "num_joined_members": joined if isinstance(joined, int) else 0,
        "world_readable": entry.get("world_readable") is True,
        "guest_can_join": entry.get("guest_can_join") is True,
        "join_rule": join_rule,
        **{name: entry[name] for name in _TEXTS if isinstance(entry.get(name), str)},
    }
    if allowed:
        described["allowed_room_ids"] = allowed
    return RemoteRoom(
        room_id=room_id,
        version=described.get("room_version", ""),
        join_rule=join_rule,
        world_readable=described["world_readable"],
        allowed_room_ids=tuple(allowed) if join_rule in ("restricted", "knock_restricted") else (),
        described=described,
        children=_children(entry.get("children_state")),
    )


def _children(events: object) -> tuple[dict[str, Any], ...] | None:
    if not isinstance(events, list):
        return None
    fields = {"type": str, "state_key": str, "sender": str, "content": dict, "origin_server_ts": int}
    return tuple(
        {name: event[name] for name in fields}
        for event in events[:MAX_CHILDREN]
        if isinstance(event, dict)
        and event.get("type") == CHILD
        and all(isinstance(event.get(name), kind) for name, kind in fields.items())
    )


def _room_ids(values: object) -> list[str]:
    if not isinstance(values, list):
        return []
    return [value for value in values[:MAX_CHILDREN] if isinstance(value, str) and is_room_id(value)]
