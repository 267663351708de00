"""One room in the response to ``/sync``: what has happened in it for one user since their token."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from homeserver.protocol.filters import RoomEventFilter
from homeserver.protocol.sticky import STICKY
from homeserver.rooms.heroes import heroes, is_named
from homeserver.rooms.room import MEMBER, Room
from homeserver.rooms.visibility import Visibility, only_events
from homeserver.storage import account_data as account_data_storage
from homeserver.storage import receipts as receipt_storage
from homeserver.storage.account_data import AccountDatum
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.receipts import Receipt
from homeserver.storage.rooms import LocalMembership
from homeserver.sync.account_data import account_data_events
from homeserver.sync.client_events import ClientEvents
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.positions import SyncToken
from homeserver.sync.receipts import only_shown, receipt_events
from homeserver.sync.request import ReadAtOnce, Reading
from homeserver.sync.state_changes import NO_CHANGES, Changes, StateChanges
from homeserver.sync.sticky_section import StickySections
from homeserver.sync.timeline_window import TimelineWindows, Window
from homeserver.sync.typing import Typing
from homeserver.sync.unread import Unread, as_json

DEFAULT_LIMIT = 10
MAX_LIMIT = 100


class RoomSections:
    """Writes rooms for ``/sync``."""

    def __init__(
        self,
        *,
        db: Database,
        visibility: Visibility,
        windows: TimelineWindows,
        changes: StateChanges,
        client_events: ClientEvents,
        lazy_members: LazyMembers,
        unread: Unread,
        typing: Typing,
        sticky: StickySections,
    ) -> None:
        self._db = db
        self._visibility = visibility
        self._windows = windows
        self._changes = changes
        self._client_events = client_events
        self._lazy_members = lazy_members
        self._unread = unread
        self._typing = typing
        self._sticky = sticky

    async def joined(
        self, reading: Reading, room: Room, membership: LocalMembership
    ) -> dict[str, Any] | None:
        """A room the user is joined to; ``None`` when there is nothing to tell."""
        request, upto = reading.request, reading.now.pos
        lazy = request.filter.room.state.lazy_load_members
        if not lazy and (room.partial is not None or room.full_since > upto):
            return None  # its members are not all here: it is shown when they are
        joined_since, since = await self._where_to_begin(reading, room, membership, upto)
        is_whole_anew = since < room.full_since
        if is_whole_anew and not lazy:
            since = 0
        seen = since or await self._seen_before(reading, room, joined_since)
        window = await self._window(reading, room, seen, upto, joined_since, anew=since == 0)
        whole = since == 0 or request.full_state
        changes = await self._state(reading, room, window, since, upto, whole=whole)
        named_by, summary = await self._summary(reading, room, window, changes, whole=whole or is_whole_anew)
        also = [*named_by, reading.user_id] if whole else named_by
        state = await self._shown_state(reading, room, window, changes.events, upto=upto, also=also)
        ephemeral, own_receipt = await self._ephemeral(reading, room, whole=since == 0)
        account_data = await self._account_data(reading, room, whole=since == 0)
        sticky = await self._sticky.of_room(reading, room, window, whole=since == 0)
        nothing = not (window.events or window.limited or state or ephemeral or account_data or own_receipt)
        nothing = nothing and not sticky
        if nothing and not whole and not summary:
            return None
        section = await self._timeline_and_state(reading, room, window, state)
        section["ephemeral"] = {"events": ephemeral}
        section["account_data"] = {"events": account_data}
        section["summary"] = summary
        if sticky:
            section[STICKY] = {"events": sticky}
        section.update(await self._unread_counts(reading, room, upto))
        return section

    async def left(self, reading: Reading, room: Room, membership: LocalMembership) -> dict[str, Any]:
        """A room the user has left or been banned from: up to that point and never beyond."""
        upto = membership.pos
        if not room.last_pos:
            return await self._timeline_and_state(reading, room, Window([], False, upto, False), [])
        joined_since = await self._visibility.joined_since(room, reading.user_id, upto - 1)
        if joined_since is None:  # an invite or a knock came to nothing: they never saw the room
            window = await self._window(reading, room, upto - 1, upto, None)
            return await self._timeline_and_state(reading, room, window, [])
        since = reading.request.since_pos
        since = since if since >= joined_since else 0
        seen = since or await self._seen_before(reading, room, joined_since)
        window = await self._window(reading, room, seen, upto, joined_since, anew=since == 0)
        whole = since == 0 or reading.request.full_state
        changes = await self._state(reading, room, window, since, upto, whole=whole)
        also = [reading.user_id] if whole else []
        state = await self._shown_state(reading, room, window, changes.events, upto=upto, also=also)
        section = await self._timeline_and_state(reading, room, window, state)
        section["account_data"] = {"events": await self._account_data(reading, room, whole=False)}
        return section

    async def _where_to_begin(
        self, reading: Reading, room: Room, membership: LocalMembership, upto: int
    ) -> tuple[int, int]:
        """Since when the user has been joined, and the position to read from: 0 to tell the room anew."""
        since = reading.request.since_pos
        if membership.pos <= since:
            return membership.pos, since
        joined_since = await self._visibility.joined_since(room, reading.user_id, upto)
        if joined_since is None:
            return membership.pos, 0
        return joined_since, since if joined_since <= since else 0

    async def _seen_before(self, reading: Reading, room: Room, joined_since: int) -> int:
        """Up to where somebody who comes back to a room was shown it the last time; 0: never."""
        left = await self._visibility.left_at(room, reading.user_id, joined_since)
        return min(left, reading.request.since_pos) if left is not None else 0

    async def _window(
        self,
        reading: Reading,
        room: Room,
        since: int,
        upto: int,
        joined_since: int | None,
        *,
        anew: bool = False,
    ) -> Window:
        wanted = reading.request.filter.room.timeline
        ignored = reading.ignored

        def accept(stored: StoredEvent) -> bool:
            event = stored.event
            if event.sender in ignored and event.state_key is None:
                return False
            return wanted.allows_event(event.type, event.sender, event.room_id, lambda: event.content)

        window = await self._windows.read(
            room,
            reading.user_id,
            after=since,
            upto=upto,
            limit=_limit(reading),
            accept=accept if ignored or wanted.chooses_events else _accept_all,
            joined_since=joined_since,
        )
        if anew and not window.limited and not window.from_the_beginning:
            # What came before this server joined has to be fetched from others: there is more.
            return Window(window.events, True, window.start, False)
        return window

    async def _state(
        self, reading: Reading, room: Room, window: Window, since: int, upto: int, *, whole: bool
    ) -> Changes:
        wanted = reading.request.filter.room.state
        if wanted.allows_nothing:
            return NO_CHANGES
        start = upto if reading.request.use_state_after else window.start
        told = {one.stored.nid for one in window.events}
        if whole:
            members = not wanted.lazy_load_members and room.partial is None
            return await self._changes.whole(room, start, upto, told, members=members)
        return await self._changes.between(room, since, start, upto, told)

    async def _shown_state(
        self,
        reading: Reading,
        room: Room,
        window: Window,
        changed: Sequence[StoredEvent],
        *,
        upto: int,
        also: Iterable[str],
    ) -> list[StoredEvent]:
        """State through the client's filter, with the members it needs when it loads them lazily."""
        request = reading.request
        wanted = request.filter.room.state
        shown = list(changed)
        if wanted.lazy_load_members and not wanted.allows_nothing:
            shown += await self._lazily_loaded(reading, room, window, changed, upto=upto, also=also)
        if not wanted.chooses_events:
            return shown
        return [stored for stored in shown if _allows(wanted, stored)]

    async def _lazily_loaded(
        self,
        reading: Reading,
        room: Room,
        window: Window,
        changed: Sequence[StoredEvent],
        *,
        upto: int,
        also: Iterable[str],
    ) -> list[StoredEvent]:
        request = reading.request
        device = (*request.shown_to, room.nid)
        told = [stored for stored in changed if stored.event.type == MEMBER]
        needed = {one.stored.event.sender for one in window.events} | set(also)
        needed -= {stored.event.state_key for stored in told}
        pos = upto if request.use_state_after else window.start
        members = await self._changes.members(room, pos, needed, only_events(window.events))
        if not request.filter.room.state.include_redundant_members:
            members = self._lazy_members.not_sent(*device, members)
        in_timeline = [one for one in only_events(window.events) if one.event.type == MEMBER]
        self._lazy_members.sent(*device, [*told, *members, *in_timeline])
        return members

    async def _summary(
        self, reading: Reading, room: Room, window: Window, changes: Changes, *, whole: bool
    ) -> tuple[list[str], dict[str, Any]]:
        """The heroes, and the summary of a room whose members changed (or that is new to the client)."""
        members_changed = changes.members_changed or any(
            one.stored.event.type == MEMBER for one in window.events
        )
        if not (whole or members_changed):
            return [], {}
        summary: dict[str, Any] = {}
        if room.partial is None:
            summary["m.joined_member_count"] = room.joined_members
            summary["m.invited_member_count"] = room.invited_members
        if is_named(room):
            return [], summary
        found = [member for member, _ in await heroes(self._db.read, room, reading.user_id)]
        return found, {"m.heroes": found, **summary}

    async def _timeline_and_state(
        self, reading: Reading, room: Room, window: Window, state: Sequence[StoredEvent]
    ) -> dict[str, Any]:
        request = reading.request
        events = await self._client_events.write(
            room,
            request.user_id,
            request.device_id,
            window.events,
            request.form,
            # Whoever was told all events before is told their children too, one by one.
            bundled=window.limited or not request.since_pos,
            looked_up=reading.at_once.looked_up,
        )
        state_name = "state_after" if request.use_state_after else "state"
        return {
            "timeline": {
                "events": events,
                "limited": window.limited,
                "prev_batch": str(SyncToken(window.start, request.since_ephemeral)),
            },
            state_name: {"events": await self._client_events.write_much_state(state, request.form)},
        }

    async def _ephemeral(
        self, reading: Reading, room: Room, *, whole: bool
    ) -> tuple[list[dict[str, Any]], bool]:
        """Ephemeral events, and whether one of the user's own receipts moved."""
        wanted = reading.request.filter.room.ephemeral
        events: list[dict[str, Any]] = []
        own_receipt = False
        if whole or room.nid in reading.with_receipts:
            receipts = await self._receipts(reading, room, whole=whole)
            own_receipt = any(receipt.user_id == reading.user_id for receipt in receipts)
            events += receipt_events(only_shown(receipts, reading.user_id, reading.ignored))
        typing = self._typing.users(room.nid)
        if room.nid in reading.with_typing or (whole and typing):
            heard = [user_id for user_id in typing if user_id not in reading.ignored]
            events.append({"type": "m.typing", "content": {"user_ids": heard}})
        if not wanted.allows_room(room.room_id):
            return [], own_receipt
        return [event for event in events if wanted.allows(event["type"])], own_receipt

    async def _receipts(self, reading: Reading, room: Room, *, whole: bool) -> Sequence[Receipt]:
        if not whole:
            return await receipt_storage.changed(
                self._db.read, room.nid, reading.request.since_pos, reading.now.pos
            )
        if reading.at_once.receipts is not None:
            return reading.at_once.receipts.get(room.nid, ())
        return await receipt_storage.changed(self._db.scan, room.nid, 0, reading.now.pos)

    async def read_at_once(self, reading: Reading, rooms: Sequence[Room]) -> ReadAtOnce:
        """What a first sync has to read of some rooms, with a query for all of them."""
        limit = _limit(reading)
        newest = [stored for room in rooms for stored in room.recent_between(0, reading.now.pos, limit)]
        user_id, device_id = reading.user_id, reading.request.device_id
        receipts: defaultdict[int, list[Receipt]] = defaultdict(list)
        nids = [room.nid for room in rooms]
        for nid, receipt in await receipt_storage.of_rooms(self._db.scan, nids, reading.now.pos):
            receipts[nid].append(receipt)
        return ReadAtOnce(await self._client_events.look_up(user_id, device_id, newest), receipts)

    async def _account_data(self, reading: Reading, room: Room, *, whole: bool) -> list[dict[str, Any]]:
        """What the user keeps for the room: all of it where the room is new to the client."""
        wanted = reading.request.filter.room.account_data
        if not wanted.allows_room(room.room_id):
            return []
        data: Iterable[AccountDatum] = reading.account_data.get(room.room_id, ())
        if whole and reading.request.since_pos:
            kept = await account_data_storage.changed(
                self._db.read, reading.user_id, since=0, until=reading.now.pos
            )
            data = [datum for datum in kept if datum.room_id == room.room_id]
        return account_data_events(datum for datum in data if wanted.allows(datum.type))

    async def _unread_counts(self, reading: Reading, room: Room, upto: int) -> dict[str, Any]:
        counts = await self._unread.counts(room, reading.user_id, upto)
        if not reading.request.filter.room.timeline.unread_thread_notifications:
            return {"unread_notifications": as_json(counts.total)}
        return {
            "unread_notifications": as_json(counts.main),
            "unread_thread_notifications": {
                thread: as_json(count) for thread, count in counts.threads.items()
            },
        }


def _limit(reading: Reading) -> int:
    """How many events of a timeline are wanted."""
    limit = reading.request.filter.room.timeline.limit
    return DEFAULT_LIMIT if limit is None else min(limit, MAX_LIMIT)


def _accept_all(stored: StoredEvent) -> bool:
    return True


def _allows(wanted: RoomEventFilter, stored: StoredEvent) -> bool:
    event = stored.event
    return wanted.allows_event(event.type, event.sender, event.room_id, lambda: event.content)
