"""What local users may not send because of what it relates to.

Of other servers' events the same is taken as it comes, and means nothing.  Specification:
client-server API, "Avoiding duplicate annotations", "Validation of m.thread relationships".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from homeserver.errors import MatrixError
from homeserver.protocol.relations import ANNOTATION, THREAD, Relation, annotation_slot
from homeserver.rooms.bundles import is_thread_root
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.send import Draft
from homeserver.storage import relations
from homeserver.storage.database import Database


class RelatedSends:
    """Refuses related events that should not be sent."""

    def __init__(self, db: Database, events: EventCache) -> None:
        self._db = db
        self._events = events
        #: By slot, held while its annotation is being sent; no other lock is taken before it.
        self._annotating: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def checked(self, room_id: str, draft: Draft, relation: Relation) -> AsyncIterator[None]:
        """An event with a relation is to be sent within, until it is on disk.

        Raises 400 ``M_DUPLICATE_ANNOTATION`` for an annotation the user has made already, and
        400 ``M_UNKNOWN`` for a thread that would begin at the child of another event.
        """
        if relation.rel_type == ANNOTATION and relation.key is not None:
            slot = annotation_slot(room_id, relation, draft.sender, draft.type)
            async with self._annotating.setdefault(slot, asyncio.Lock()):
                await self._check_annotation(slot)
                yield
        else:
            if relation.rel_type == THREAD:
                await self._check_thread(room_id, relation)
            yield

    async def _check_annotation(self, slot: str) -> None:
        if await relations.in_slot(self._db.read, slot, 1):
            raise MatrixError(400, "M_DUPLICATE_ANNOTATION", "You have annotated the event with that already")

    async def _check_thread(self, room_id: str, relation: Relation) -> None:
        root = await self._events.by_id(relation.parent_id)
        if root is not None and root.event.room_id == room_id and not is_thread_root(root.event):
            raise MatrixError(400, "M_UNKNOWN", "A thread cannot begin at an event that relates to another")
