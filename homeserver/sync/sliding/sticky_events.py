"""Events that stick, of all rooms the user is in: the ``org.matrix.msc4354.sticky_events`` extension.

A room's sticky events are told once, and again when the room is told anew: clients drop those of rooms that
they do not know yet.  What is in a timeline of the same response is left out.
Specification: MSC4354.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from homeserver.errors import invalid_param
from homeserver.rooms.rooms import Rooms
from homeserver.sync.client_events import Form
from homeserver.sync.sliding.extension import SlidingReading
from homeserver.sync.sticky_section import MAX_NEWS, StickySections

_NAME = "org.matrix.msc4354.sticky_events"
_DEFAULT_LIMIT = 100
_MAX_DIGITS = 18
_FORM = Form(room_id=False)


class StickyEventsExtension:
    """Tells which events stick."""

    names = (_NAME,)

    def __init__(self, sections: StickySections, rooms: Rooms) -> None:
        self._sections = sections
        self._rooms = rooms

    async def collect(
        self, asked: Mapping[str, Any], reading: SlidingReading
    ) -> tuple[dict[str, Any] | None, bool]:
        """See ``Extension``; ``M_INVALID_PARAM`` for a ``limit`` or ``since`` that is none."""
        joined, upto = reading.memberships.joined, reading.now.pos
        # What the connection remembers goes further than what the client has been given to say.
        after = reading.memory.get(_NAME, _since(asked))
        found, last = self._sections.news(joined, after, upto, _limit(asked))
        for nid in self._new(reading, after) if after else ():
            found[nid] = self._sections.all_of(nid, upto)
        reading.memory[_NAME] = upto if last is None else last
        told: dict[str, dict[str, Any]] = {}
        for nid, event_nids in found.items():
            if not event_nids:
                continue
            room = await self._rooms.by_nid(nid)
            events = await self._sections.write(
                room,
                reading.user_id,
                reading.device_id,
                event_nids,
                ignored=reading.ignored,
                form=_FORM,
                timeline=reading.timelines.get(nid),
            )
            if events:
                told[room.room_id] = {"events": events}
        if not told:
            return None, last is not None
        return {"rooms": told, "next_batch": str(reading.memory[_NAME])}, True

    @staticmethod
    def _new(reading: SlidingReading, after: int) -> set[int]:
        """Rooms that are new to the client, or to the user since the client was told everything."""
        joined, by_room = reading.memberships.joined, reading.memberships.by_room
        goes_on = reading.since is not None
        since = reading.since.pos if reading.since is not None else after
        return {
            nid
            for nid, is_new in reading.sent_rooms.items()
            if nid in joined and ((is_new and goes_on) or by_room[nid].pos > since)
        }


def _limit(asked: Mapping[str, Any]) -> int:
    limit = asked.get("limit", _DEFAULT_LIMIT)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise invalid_param("'limit' must be a number above 0")
    return min(limit, MAX_NEWS)


def _since(asked: Mapping[str, Any]) -> int:
    since = asked.get("since", "0")
    if not (isinstance(since, str) and since.isascii() and since.isdigit() and len(since) <= _MAX_DIGITS):
        raise invalid_param("'since' is not a token of this list")
    return int(since)
