"""Sends what sticks in a room to the servers that have just come into it (MSC4354).

They get it at once, and again a little later: a server may not be ready yet for events of a room
that it is joining.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from typing import Final

from homeserver.clock import Clock
from homeserver.protocol.events import Event
from homeserver.protocol.ids import server_of
from homeserver.rooms.room import Room
from homeserver.rooms.sticky_events import StickyEvents
from homeserver.storage import stays
from homeserver.storage.database import Database

_AGAIN_SECONDS: Final = 10.0


class Greeting:
    """``give`` is told which events a server is to be sent, by ``event_nid``."""

    def __init__(
        self, sticky: StickyEvents, clock: Clock, give: Callable[[str, Iterable[int]], None]
    ) -> None:
        self._sticky = sticky
        self._clock = clock
        self._give = give
        #: When to send it again to whom: ``(time, server, room_nid)``.
        self._again: list[tuple[float, str, int]] = []

    async def start(self, db: Database) -> None:
        """Servers that joined while events stuck may not have been sent them before this one stopped."""
        rooms = self._sticky.rooms_with_own()
        for server_name, room_nid, joined_pos in await stays.current(db.scan, rooms) if rooms else ():
            earlier = [one.event_nid for one in self._sticky.own(room_nid) if (one.pos or 0) <= joined_pos]
            if earlier:
                self._give(server_name, earlier)

    def new_member(self, room: Room, event: Event) -> None:
        """Somebody's membership changed: perhaps theirs is the first of a server."""
        if event.content.get("membership") != "join":
            return
        server_name = server_of(event.state_key or "")
        if room.servers.get(server_name) == 1 and self._send(server_name, room.nid):
            heapq.heappush(self._again, (self._clock.monotonic() + _AGAIN_SECONDS, server_name, room.nid))

    def go_on(self) -> None:
        """Send again what is due."""
        while self._again and self._again[0][0] <= self._clock.monotonic():
            _, server_name, room_nid = heapq.heappop(self._again)
            self._send(server_name, room_nid)

    def _send(self, server_name: str, room_nid: int) -> bool:
        """Whether anything sticks in the room."""
        own = self._sticky.own(room_nid)
        if own:
            self._give(server_name, [one.event_nid for one in own])
        return bool(own)
