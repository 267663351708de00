"""Room state and auth chains as other servers are given them: PDUs straight from storage."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from homeserver.errors import not_found
from homeserver.rooms.auth_chain import auth_chain
from homeserver.rooms.room import Room
from homeserver.rooms.state_store import StateStore
from homeserver.storage import events
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent

#: PDUs read at once.
_CHUNK = 1000


class StateReplies:
    """Reads what replies about state are made of."""

    def __init__(self, db: Database, states: StateStore) -> None:
        self._db = db
        self._states = states

    async def state_before(self, room: Room, stored: StoredEvent) -> list[int]:
        """The ``event_nid``s of the state before an event; ``M_NOT_FOUND`` where it is not known."""
        if stored.state_before is None:
            raise not_found("The state at this event is not known")
        return list((await self._states.state_at(room, stored.state_before)).values())

    async def auth_chain(self, nids: Iterable[int]) -> list[int]:
        """The ``event_nid``s of the auth chains of events, authorising events first."""
        return sorted(await auth_chain(self._db.scan, nids))

    async def pdus(self, nids: Collection[int]) -> list[bytes]:
        """Events as canonical JSON, in the order asked for."""
        wanted, found = list(nids), {}
        for start in range(0, len(wanted), _CHUNK):
            found.update(await events.json_of(self._db.scan, wanted[start : start + _CHUNK]))
        return [found[nid] for nid in wanted]

    async def ids(self, nids: Collection[int]) -> list[str]:
        """Event ids, in the order asked for."""
        found = await events.ids_of(self._db.scan, list(nids))
        return [found[nid] for nid in nids]
