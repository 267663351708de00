"""What redacted events were, for those who moderate a room, and for as long as it is kept (MSC2815).

To be asked only for events that the user may see: what it adds is the content alone.
"""

from __future__ import annotations

from functools import partial

from homeserver.clock import Clock
from homeserver.errors import MatrixError, forbidden
from homeserver.protocol.events import Event
from homeserver.rooms.room import Room, membership_of
from homeserver.rooms.state_store import StateStore
from homeserver.storage import redacted_content
from homeserver.storage.database import Database
from homeserver.storage.events import REDACTED, StoredEvent, event_from_stored_json

#: Rows of one transaction.
_STEP = 500


class RedactedContent:
    """Finds it, and forgets it in time; it is kept for ``keep_ms`` milliseconds (0: not at all)."""

    def __init__(self, db: Database, states: StateStore, clock: Clock, keep_ms: int) -> None:
        self._db = db
        self._states = states
        self._clock = clock
        self._keep_ms = keep_ms

    @property
    def kept(self) -> bool:
        """Whether anything is kept at all."""
        return self._keep_ms > 0

    async def original(self, room: Room, stored: StoredEvent, user_id: str, *, is_admin: bool) -> Event:
        """An event as it was; one that is not redacted as it is.

        ``M_FORBIDDEN`` for a user who may not redact everybody's events in the room (and is no
        administrator of this server); 404 ``FI.MAU.MSC2815_UNREDACTED_CONTENT_NOT_RECEIVED`` if
        it was redacted before it came, ``…_DELETED`` if it is not kept any more.
        """
        if not is_admin:
            await self._check(room, user_id)
        if not stored.flags & REDACTED:
            return stored.event
        json = await redacted_content.json_of(self._db.read, stored.nid, self._clock.now_ms())
        if json is not None:
            return event_from_stored_json(json, stored.id, room.room_id, room.rules, rejected=stored.rejected)
        if stored.redacted_by is not None and stored.redacted_by < stored.nid:
            raise _gone("NOT_RECEIVED", "The event was redacted before it came here")
        keep = {"fi.mau.msc2815.content_keep_ms": self._keep_ms}
        raise _gone("DELETED", "The content of the event is not kept any more", **keep)

    async def forget_expired(self) -> None:
        """Forget what is over, also what was to be kept longer than is wanted by now."""
        now = self._clock.now_ms()
        forget = partial(redacted_content.forget_expired, now=now, latest=now + self._keep_ms, limit=_STEP)
        while await self._db.write(forget) == _STEP:
            pass

    async def _check(self, room: Room, user_id: str) -> None:
        joined = membership_of(await self._states.member(room, user_id)) == "join"
        await room.settle()
        levels = room.power_levels
        if not joined or levels.of_user(user_id) < levels.redact:
            raise forbidden("You may not see redacted content in this room")


def _gone(what: str, message: str, **fields: int) -> MatrixError:
    return MatrixError(404, f"FI.MAU.MSC2815_UNREDACTED_CONTENT_{what}", message, **fields)
