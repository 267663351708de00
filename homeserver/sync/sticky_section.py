"""Sticky events that are not in the timelines a client is given (MSC4354), as a section of their own.

Whoever is in a room may see them, whatever its history visibility says; filters of timelines do not apply.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable

from homeserver.protocol.sticky import sticky_ms
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import Room
from homeserver.rooms.sticky_events import StickyEvents
from homeserver.rooms.visibility import SeenEvent
from homeserver.sync.client_events import ClientEvents, Encoded, Form
from homeserver.sync.request import Reading
from homeserver.sync.timeline_window import Window

#: In all rooms of one response; what is more comes with the next one.
MAX_NEWS = 200
#: In a room that is new to the client: all of them, unless there are more than anybody could use.
_MAX_OF_ROOM = 2000


class StickySections:
    """Finds the sticky events to tell, and writes them."""

    def __init__(self, sticky: StickyEvents, events: EventCache, client_events: ClientEvents) -> None:
        self._sticky = sticky
        self._events = events
        self._client_events = client_events

    def news(
        self, joined: Collection[int], after: int, upto: int, limit: int = MAX_NEWS
    ) -> tuple[dict[int, list[int]], int | None]:
        """Event numbers in ``(after, upto]`` by room, and up to where when these are not all."""
        found = self._sticky.between(joined, after, upto, limit + 1)
        by_room: defaultdict[int, list[int]] = defaultdict(list)
        for one in found[:limit]:
            by_room[one.room_nid].append(one.event_nid)
        return by_room, found[limit - 1].pos if len(found) > limit else None

    def all_of(self, room_nid: int, upto: int) -> list[int]:
        """Event numbers of everything that sticks in a room."""
        return [one.event_nid for one in self._sticky.between((room_nid,), 0, upto, _MAX_OF_ROOM)]

    async def of_room(self, reading: Reading, room: Room, window: Window, *, whole: bool) -> list[Encoded]:
        """The section of a joined room in ``/sync``."""
        upto, request = reading.now.pos, reading.request
        nids = self.all_of(room.nid, upto) if whole else reading.sticky.get(room.nid, ())
        if not nids:
            return []
        told = {one.stored.nid for one in window.events}
        nids = [nid for nid in nids if nid not in told]
        return await self.write(
            room, request.user_id, request.device_id, nids, ignored=reading.ignored, form=request.form
        )

    async def write(
        self,
        room: Room,
        user_id: str,
        device_id: str | None,
        nids: Iterable[int],
        *,
        ignored: Collection[str],
        form: Form,
        timeline: int | None = None,
    ) -> list[Encoded]:
        """Events by their numbers, without those that were redacted, or are of people who are ignored.

        Nor those after ``timeline``, where it is given: they are in the timeline that begins there.
        """
        wanted = list(nids)
        events = await self._events.by_nids(wanted)
        seen = [
            SeenEvent(stored, "join")
            for stored in (events[nid] for nid in wanted if nid in events)
            if sticky_ms(stored.event) is not None
            and (timeline is None or stored.pos is None or stored.pos <= timeline)
            and (stored.event.is_state or stored.event.sender not in ignored)
        ]
        return await self._client_events.write(room, user_id, device_id, seen, form, bundled=False)
