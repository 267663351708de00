"""Which application services an event is for.

An event is for a service that has its room, or one of its room's aliases, in a namespace; that acts
for its sender or for the user it is about; or that acts for somebody who is in the room, or was
until this event.  What is true of a room is worked out once and then kept up with the events that
go by, so that a message costs no look at the room's members.
Specification: application service API, "Registration" and "Pushing events".
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.appservices.services import AppService, AppServices
from homeserver.lookups import Recent
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore
from homeserver.storage import appservices as storage
from homeserver.storage import rooms as room_storage
from homeserver.storage import sharing
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent

_REMEMBERED_ROOMS = 5_000


class _RoomInterest(msgspec.Struct):
    #: Services for which everything in the room is, whoever is there.
    whole: set[str]
    #: By service, those of its users who are joined; services without any are left out.
    joined: dict[str, set[str]] = msgspec.field(default_factory=dict)

    def services(self) -> set[str]:
        return self.whole | self.joined.keys()

    def set_joined(self, service: AppService, user_id: str, joined: bool) -> None:
        users = self.joined.setdefault(service.id, set())
        (users.add if joined else users.discard)(user_id)
        if not users:
            del self.joined[service.id]


class Interest:
    """Knows which rooms services are interested in.

    ``of_event`` is to be asked about each room's events in their order.
    """

    def __init__(self, *, db: Database, rooms: Rooms, states: StateStore, services: AppServices) -> None:
        self._db = db
        self._rooms = rooms
        self._states = states
        self._services = services
        self._known: Recent[int, _RoomInterest | None] = Recent(_REMEMBERED_ROOMS)

    async def of_event(self, room: Room, stored: StoredEvent) -> set[str]:
        """The ids of the services that an event of a room is for."""
        known = self._known.get(room.nid)
        event = stored.event
        target = event.state_key if event.type == MEMBER else None
        interested = set() if known is None else known.services()
        if known is None:
            known = await self._load(room, stored)
            self._known.put(room.nid, known)
        elif target is not None:
            for service in self.acting_for([target]):
                known.set_joined(service, target, membership_of(stored) == "join")
        interested |= known.services()
        about = [event.sender] if target is None else [event.sender, target]
        return interested | {service.id for service in self.acting_for(about)}

    async def of_room(self, room: Room, pos: int) -> set[str]:
        """The ids of the services that are interested in all of a room, which has been read up to ``pos``."""
        known = self._known.get(room.nid)
        if known is None:
            whole = await self._whole(room.room_id)
            known = _RoomInterest(whole)
            members = await storage.local_members(self._db.scan, room.nid)
            for user_id, joined, _ in members:
                for service in self.acting_for([user_id]) if joined else ():
                    known.set_joined(service, user_id, True)
            if all(since <= pos for _, _, since in members):
                self._known.put(room.nid, known)
        return known.services()

    async def of_user(self, user_id: str, pos: int) -> set[str]:
        """The services that act for a user, or are interested in a room that the user is in."""
        found = {service.id for service in self.acting_for([user_id])}
        for nid in await sharing.rooms_of(self._db.scan, [user_id]):
            if len(found) == len(self._services.all):
                break
            found |= await self.of_room(await self._rooms.by_nid(nid), pos)
        return found

    def acting_for(self, user_ids: Iterable[str]) -> list[AppService]:
        """The services that one of these users belongs to."""
        users = tuple(user_ids)
        return [service for service in self._services.all if any(map(service.owns_user, users))]

    def forget(self, room_nid: int) -> None:
        """What was known of a room may not be so any more."""
        self._known.put(room_nid, None)

    def forget_members(self, room_nid: int, user_ids: Iterable[str]) -> None:
        """The same, where one of these users, who are services' own, came or went without an event."""
        if self.acting_for(user_ids):
            self.forget(room_nid)

    async def _load(self, room: Room, stored: StoredEvent) -> _RoomInterest:
        """What is so at an event; of later changes, which may be stored already, nothing is told."""
        known = _RoomInterest(await self._whole(room.room_id))
        pos = stored.pos or 0
        for user_id, is_joined, since in await storage.local_members(self._db.scan, room.nid):
            services = self.acting_for([user_id])
            if not services:
                continue
            was_joined = is_joined
            if since > pos:
                member = await self._states.event_at(room, stored.state_after or 0, (MEMBER, user_id))
                was_joined = membership_of(member) == "join"
            for service in services if was_joined else ():
                known.set_joined(service, user_id, True)
        return known

    async def _whole(self, room_id: str) -> set[str]:
        aliases = await room_storage.aliases_of(self._db.read, room_id)
        return {
            service.id
            for service in self._services.all
            if service.owns_room(room_id) or any(map(service.owns_alias, aliases))
        }
