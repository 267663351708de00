"""Room state and auth chains as other servers are given them: PDUs straight from storage."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from homeserver.errors import not_found
from homeserver.rooms.auth_chain import auth_chain
from homeserver.rooms.heroes import heroes, is_named
from homeserver.rooms.room import MEMBER, Room
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

    async def state_of_few_members(self, room: Room, join: StoredEvent) -> list[int]:
        """The same without the members, but for those a joining server needs at once.

        Those are the joining user's own membership, and who can stand for the room's name
        where it has none.  Specification: server-server API, ``omit_members`` of ``send_join``.
        """
        if join.state_before is None:
            raise not_found("The state at this event is not known")
        state = list((await self._states.without_members(room, join.state_before)).values())
        needed = [join.event.sender]
        if not is_named(room):
            needed += [user_id for user_id, _ in await heroes(self._db.read, room, join.event.sender)]
        members = [
            await self._states.event_at(room, join.state_before, (MEMBER, user_id)) for user_id in needed
        ]
        return [*state, *(member.nid for member in members if member is not None)]

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


def with_commas(values: Sequence[bytes]) -> Iterator[bytes]:
    """JSON values as what stands between the brackets of an array, joined by whoever writes the rest."""
    for index, value in enumerate(values):
        if index:
            yield b","
        yield value
