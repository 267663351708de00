"""Which rooms one response of sliding sync is about: plain decisions over what is in memory.

Work grows with what changed and with what the client looks at anew, not with the rooms of the
user: a room that was told, did not change and is not wanted otherwise than before is not looked at.
Specification: MSC4186, "Lists and subscriptions", "Changing room configs".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set

import msgspec

from homeserver.sync.sliding.connections import Place, SeenList, SentRoom
from homeserver.sync.sliding.recency import RecencyList, RecencyWindow
from homeserver.sync.sliding.request import ListConfig, RoomConfig, SlidingRequest, combined
from homeserver.sync.sliding.user_rooms import UserRoomList

_GONE = frozenset({"leave", "ban"})


class View(msgspec.Struct, frozen=True):
    """What a request looks at: its lists and subscriptions, over a user's rooms."""

    rooms: UserRoomList
    lists: Mapping[str, ListConfig]
    chosen: Mapping[str, RecencyList]
    windows: Mapping[str, RecencyWindow]
    #: Subscribed rooms by number.
    subscriptions: Mapping[int, RoomConfig]

    @classmethod
    def of(cls, request: SlidingRequest, rooms: UserRoomList, chosen: Mapping[str, RecencyList]) -> View:
        """The view of a request, with the rooms that pass each list's filters."""
        windows = {name: RecencyWindow(chosen[name], one.ranges) for name, one in request.lists.items()}
        subscribed = {
            rooms.nids[room_id]: config
            for room_id, config in request.subscriptions.items()
            if room_id in rooms.nids and _is_shown(rooms, rooms.nids[room_id])
        }
        return cls(rooms, request.lists, chosen, windows, subscribed)

    def lists_of(self, room_nid: int) -> list[str]:
        """The lists in whose ranges a room is."""
        return [name for name, window in self.windows.items() if room_nid in window]

    def config(self, room_nid: int) -> RoomConfig | None:
        """What is wanted of a room; ``None`` for one that is not looked at."""
        configs = [self.lists[name].config for name in self.lists_of(room_nid)]
        if room_nid in self.subscriptions:
            configs.append(self.subscriptions[room_nid])
        return combined(configs)

    def seen(self) -> dict[str, SeenList]:
        """The lists as they are now, to compare with the next time."""
        return {
            name: SeenList(self.chosen[name], self.chosen[name].changes, one.ranges, one.config)
            for name, one in self.lists.items()
        }


def to_tell(
    view: View, place: Place | None, sent: Mapping[int, SentRoom], read: Set[int] = frozenset()
) -> dict[int, RoomConfig]:
    """The rooms to tell, latest activity first, and what is wanted of each.

    ``place`` is where the connection goes on; ``None`` at its beginning.  In the rooms ``read``
    the counts of what is unread may have changed.
    """
    found: dict[int, RoomConfig] = {}
    for nid in {*_candidates(view, place), *read}:
        config = view.config(nid) or _of_departed(view, nid, sent)
        if config is not None and (nid in read or _is_news(view, nid, config, sent.get(nid))):
            found[nid] = config
    return dict(sorted(found.items(), key=lambda item: view.rooms.position(item[0]), reverse=True))


def _candidates(view: View, place: Place | None) -> Iterator[int]:
    """Rooms that may have to be told, some of them more than once."""
    yield from view.subscriptions
    rooms = view.rooms
    if place is not None:
        yield from rooms.everything.after(place.token.pos)
        yield from rooms.departed.after(place.token.pos)
        if place.direct is not rooms.direct:
            yield from (rooms.nids[one] for one in place.direct ^ rooms.direct if one in rooms.nids)
    for name, window in view.windows.items():
        seen = place.lists.get(name) if place is not None else None
        wanted, chosen = view.lists[name], view.chosen[name]
        same = seen is not None and seen.rooms is chosen
        if seen is None or not same or seen.ranges != wanted.ranges or seen.config != wanted.config:
            yield from window
        elif seen.changes != chosen.changes:
            yield from window.near_the_ends(chosen.changes - seen.changes)


def _is_shown(rooms: UserRoomList, nid: int) -> bool:
    """Whether the user has to do with a room, or had and has not forgotten it."""
    membership = rooms.membership(nid)
    return bool(rooms.position(nid)) and not (membership is not None and membership.forgotten)


def _of_departed(view: View, nid: int, sent: Mapping[int, SentRoom]) -> RoomConfig | None:
    """A room that was left is told once more to who was told of it, though it is in no list."""
    before = sent.get(nid)
    if before is None or before.membership in _GONE or nid not in view.rooms.departed:
        return None
    return before.config


def _is_news(view: View, nid: int, config: RoomConfig, before: SentRoom | None) -> bool:
    if before is None or view.rooms.position(nid) > before.upto:
        return True
    if is_expansion(config, before):
        return True
    is_dm = view.rooms.ids[nid] in view.rooms.direct
    return before.membership not in _GONE and before.is_dm != is_dm


def is_expansion(config: RoomConfig, before: SentRoom) -> bool:
    """Whether more is wanted of a room than was told."""
    if not config.required <= before.config.required:
        return True
    more = config.timeline_limit > before.config.timeline_limit
    return more and before.shown < config.timeline_limit and not before.shown_all
