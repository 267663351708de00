"""Which members each device was shown, so that it is not shown them again.

Specification: client-server API, "Lazy-loading room members".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from homeserver.storage.events import StoredEvent

_REMEMBERED_DEVICES = 10_000
_REMEMBERED_ROOMS = 500
_REMEMBERED_MEMBERS = 1000


class LazyMembers:
    """Remembers member events by device, room and user.  What it forgets is merely sent once more."""

    def __init__(self) -> None:
        self._devices: OrderedDict[tuple[str, str | None], _Device] = OrderedDict()

    def begin(self, user_id: str, device_id: str | None, since: str | None) -> None:
        """A device asks for what is after a token.

        One that asks for the same again may not have received the last answer; if that
        showed it members, nothing is taken for known.
        """
        known = self._devices.get((user_id, device_id))
        if known is None or since is None or (known.since == since and known.shown):
            known = self._devices[user_id, device_id] = _Device()
            if len(self._devices) > _REMEMBERED_DEVICES:
                self._devices.popitem(last=False)
        known.since, known.shown = since, False
        self._devices.move_to_end((user_id, device_id))

    def forget(self, user_id: str, device_id: str | None) -> None:
        """What a device was shown may not have reached it, or it will not ask again."""
        self._devices.pop((user_id, device_id), None)

    def not_sent(
        self, user_id: str, device_id: str | None, room_nid: int, members: Iterable[StoredEvent]
    ) -> list[StoredEvent]:
        """Those member events that the device was not shown yet."""
        known = self._room(user_id, device_id, room_nid)
        return [member for member in members if known.get(member.event.state_key or "") != member.nid]

    def sent(
        self, user_id: str, device_id: str | None, room_nid: int, members: Iterable[StoredEvent]
    ) -> None:
        """The device is shown these member events."""
        shown = {member.event.state_key or "": member.nid for member in members}
        if not shown:
            return
        known = self._room(user_id, device_id, room_nid)
        self._devices[user_id, device_id].shown = True
        known.update(shown)
        if len(known) > _REMEMBERED_MEMBERS:
            known.clear()

    def _room(self, user_id: str, device_id: str | None, room_nid: int) -> dict[str, int]:
        rooms = self._devices.setdefault((user_id, device_id), _Device()).rooms
        known = rooms.setdefault(room_nid, {})
        rooms.move_to_end(room_nid)
        if len(rooms) > _REMEMBERED_ROOMS:
            rooms.popitem(last=False)
        return known


class _Device:
    __slots__ = ("rooms", "shown", "since")

    def __init__(self) -> None:
        self.since: str | None = None
        #: Whether the answer to that token showed members.
        self.shown = False
        #: Room number to user id to the number of the member event.
        self.rooms: OrderedDict[int, dict[str, int]] = OrderedDict()
