"""Room aliases and the list of published rooms: who may change them, and where they lead.

Searching the published rooms is not done here.  Specification: client-server API,
"Room aliases" and "Published room directory".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

import structlog

from homeserver.errors import MatrixError, RemoteError, forbidden, invalid_param, not_found
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.ids import is_room_alias, server_name_of
from homeserver.rooms.room import Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, Send
from homeserver.rooms.state_store import StateStore
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database

_log = structlog.get_logger()

CANONICAL_ALIAS = "m.room.canonical_alias"


class RemoteAliases(Protocol):
    """Other servers' aliases."""

    async def resolve_alias(self, room_alias: str) -> tuple[str, list[str]]:
        """Room id and servers; raises ``RemoteError`` or ``MatrixError``."""
        ...


class AliasProvider(Protocol):
    """Somebody who may make rooms when they are asked for: application services."""

    async def provides_alias(self, room_alias: str) -> bool:
        """Whether an alias of this server, which led nowhere, may lead somewhere now."""
        ...


class Directory:
    """Finds rooms by alias and keeps this server's aliases and published rooms.

    ``provider`` is asked for aliases that lead nowhere; ``aliases_changed`` are told of rooms
    whose aliases are other ones than before.
    """

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        states: StateStore,
        send: Send,
        remote: RemoteAliases,
        server_name: str,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._states = states
        self._send = send
        self._remote = remote
        self._server_name = server_name
        self.provider: AliasProvider | None = None
        self.aliases_changed: list[Callable[[int], None]] = []

    async def resolve(self, room_alias: str) -> tuple[str, list[str]]:
        """The room an alias leads to, and servers that know it.

        ``M_INVALID_PARAM`` for what is no alias, ``M_NOT_FOUND`` for one that leads nowhere.
        """
        if not is_room_alias(room_alias):
            raise invalid_param("Room alias invalid")
        if server_name_of(room_alias) != self._server_name:
            return await self._resolve_elsewhere(room_alias)
        known = await room_storage.alias(self._db.read, room_alias)
        if known is None and self.provider is not None and await self.provider.provides_alias(room_alias):
            known = await room_storage.alias(self._db.read, room_alias)
        if known is None:
            raise _unknown(room_alias)
        room = await self._rooms.find(known[0])
        others = [] if room is None else [name for name in room.servers if name != self._server_name]
        return known[0], [self._server_name, *others]

    async def _resolve_elsewhere(self, room_alias: str) -> tuple[str, list[str]]:
        try:
            return await self._remote.resolve_alias(room_alias)
        except RemoteError as error:
            if error.status == 404:
                raise _unknown(room_alias) from error
            raise

    async def add_alias(self, user_id: str, room_alias: str, room_id: str) -> None:
        """Let a new alias of this server lead to a room the user is in.

        ``M_INVALID_PARAM``, ``M_FORBIDDEN``, and 409 ``M_UNKNOWN`` when it is taken.
        """
        if not is_room_alias(room_alias) or any(char.isspace() for char in room_alias):
            raise invalid_param("Room alias invalid")
        if server_name_of(room_alias) != self._server_name:
            raise invalid_param("Only aliases of this server can be made here")
        room = await self._rooms.get(room_id)
        if not await self._is_joined(room, user_id):
            raise forbidden("You are not in this room")
        if not await self._db.write(
            partial(room_storage.add_alias, room_alias=room_alias, room_id=room_id, creator=user_id)
        ):
            raise MatrixError(409, "M_UNKNOWN", f"Room alias {room_alias} already exists")
        self._tell(room)

    async def remove_alias(self, user_id: str, room_alias: str, *, is_admin: bool = False) -> None:
        """Remove an alias of this server, from the room's canonical aliases too where the user may.

        It is for its creator, for who may change the room's canonical alias, and for
        administrators.  ``M_NOT_FOUND``, ``M_FORBIDDEN``.
        """
        known = await room_storage.alias(self._db.read, room_alias)
        if known is None:
            raise _unknown(room_alias)
        room_id, creator = known
        room = await self._rooms.find(room_id)
        may = is_admin or creator == user_id or (room is not None and await self._may_change(room, user_id))
        if not may:
            raise forbidden("You may not remove this alias")
        await self._db.write(partial(room_storage.remove_alias, room_alias=room_alias))
        if room is not None and room.last_pos:
            self._tell(room)
            await self._take_out(user_id, room, room_alias)

    def _tell(self, room: Room) -> None:
        for listener in self.aliases_changed:
            listener(room.nid)

    async def _take_out(self, user_id: str, room: Room, room_alias: str) -> None:
        event = room.state_event(CANONICAL_ALIAS)
        content = event.content if event else {}
        if room_alias not in _aliases_in(content):
            return
        if content.get("alias") == room_alias:
            del content["alias"]
        if isinstance(content.get("alt_aliases"), list):
            content["alt_aliases"] = [alias for alias in content["alt_aliases"] if alias != room_alias]
        try:
            await self._send.send(room.room_id, Draft(user_id, CANONICAL_ALIAS, content, state_key=""))
        except (NotAllowed, MatrixError) as error:
            _log.info("canonical alias left as it is", room_id=room.room_id, reason=str(error))

    async def aliases_of(self, user_id: str, room_id: str) -> list[str]:
        """This server's aliases of a room, for its members, and for all where it is ``world_readable``."""
        room = await self._rooms.get(room_id)
        if room.history_visibility != "world_readable" and not await self._is_joined(room, user_id):
            raise forbidden("You are not in this room")
        return await room_storage.aliases_of(self._db.read, room_id)

    async def check_canonical_alias(self, room_id: str, content: Mapping[str, Any]) -> None:
        """Check the content of an ``m.room.canonical_alias`` that a client wants to send.

        Aliases that are not in the present one must be valid (``M_INVALID_PARAM``) and lead
        to the room (``M_BAD_ALIAS``).
        """
        if not isinstance(content.get("alt_aliases") or [], list):
            raise invalid_param("alt_aliases is not a list")
        room = await self._rooms.get(room_id)
        event = room.state_event(CANONICAL_ALIAS)
        present = _aliases_in(event.content) if event else []
        for room_alias in _aliases_in(content):
            if room_alias in present:
                continue
            if not isinstance(room_alias, str) or not is_room_alias(room_alias):
                raise invalid_param("m.room.canonical_alias holds something that is no room alias")
            if await self._leads_to(room_alias) != room_id:
                raise MatrixError(400, "M_BAD_ALIAS", f"The alias {room_alias!r} does not point to this room")

    async def _leads_to(self, room_alias: str) -> str | None:
        try:
            return (await self.resolve(room_alias))[0]
        except (MatrixError, RemoteError):
            return None

    async def is_published(self, room_id: str) -> bool:
        """Whether a room is in this server's room directory; ``M_NOT_FOUND`` for an unknown room."""
        row = await room_storage.by_id(self._db.read, room_id)
        if row is None:
            raise not_found("Room not found")
        return row.published

    async def publish(self, user_id: str, room_id: str, published: bool, *, is_admin: bool = False) -> None:
        """List a room in the room directory, or take it out.

        It is for who may change the room's canonical alias, and for administrators.
        """
        room = await self._rooms.get(room_id)
        if not is_admin and not await self._may_change(room, user_id):
            raise forbidden("You may not change whether this room is listed")
        await self._db.write(partial(room_storage.set_published, nid=room.nid, published=published))

    async def _may_change(self, room: Room, user_id: str) -> bool:
        levels = room.power_levels
        needed = levels.for_event(CANONICAL_ALIAS, is_state=True)
        return levels.of_user(user_id) >= needed and await self._is_joined(room, user_id)

    async def _is_joined(self, room: Room, user_id: str) -> bool:
        return membership_of(await self._states.member(room, user_id)) == "join"


def _aliases_in(content: Mapping[str, Any]) -> list[Any]:
    """Every alias that the content of an ``m.room.canonical_alias`` names, whatever it is."""
    others = content.get("alt_aliases")
    if others is not None and not isinstance(others, list):
        others = [others]
    return [alias for alias in (content.get("alias"), *(others or [])) if alias is not None and alias != ""]


def _unknown(room_alias: str) -> MatrixError:
    return not_found(f"Room alias {room_alias} not found")
