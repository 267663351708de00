"""Windows over rooms by their last activity."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from homeserver.sync.sliding.connections import SentRoom
from homeserver.sync.sliding.recency import RecencyList, RecencyWindow
from homeserver.sync.sliding.request import ListConfig, RoomConfig
from homeserver.sync.sliding.selection import View, to_tell
from homeserver.sync.sliding.user_rooms import UserRoomList

RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=8).map(
    lambda pairs: tuple((first, first + more) for first, more in pairs)
)


def rooms_by_activity(number: int) -> RecencyList:
    """Rooms 1 to ``number``, the last of them with the latest activity."""
    rooms = RecencyList()
    rooms.fill({nid: nid * 10 for nid in range(1, number + 1)})
    return rooms


@given(number=st.integers(0, 25), ranges=RANGES)
def test_a_window_has_the_rooms_whose_rank_is_in_a_range(
    number: int, ranges: tuple[tuple[int, int], ...]
) -> None:
    window = RecencyWindow(rooms_by_activity(number), ranges)
    expected = {
        nid for nid in range(1, number + 1) if any(first <= number - nid <= last for first, last in ranges)
    }
    assert {nid for nid in range(number + 2) if nid in window} == expected
    assert sorted(window) == sorted(expected)
    assert len(window) == len(expected)


def test_a_room_in_many_lists_is_looked_at_once() -> None:
    asked: list[int] = []

    class Counted(UserRoomList):
        def __init__(self) -> None:
            self.everything = self.departed = RecencyList()
            self.direct = frozenset()
            self.ids = {nid: f"!{nid}:here.example" for nid in range(1, 31)}

        def position(self, room_nid: int) -> int:
            asked.append(room_nid)
            return room_nid

    config = RoomConfig(1, frozenset())
    names = [f"list-{number}" for number in range(20)]
    rooms = rooms_by_activity(30)
    windows = {name: RecencyWindow(rooms, None) for name in names}
    lists = dict.fromkeys(names, ListConfig(config))
    view = View(Counted(), lists, dict.fromkeys(names, rooms), windows, {})
    known = SentRoom(upto=1000, membership="join", config=config, shown=1, shown_all=True)

    told = to_tell(view, None, dict.fromkeys(range(1, 31), known))

    assert told == {}
    assert sorted(asked) == list(range(1, 31))
