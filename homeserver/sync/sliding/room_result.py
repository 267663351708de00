"""One room in a response of sliding sync: all of it, or what has changed since it was told.

Specification: MSC4186, ``RoomResult``, "Changing room configs", "Lazy loaded memberships".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from homeserver.protocol.event_format import stripped
from homeserver.protocol.events import StateKey
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.room import MEMBER
from homeserver.rooms.stripped_state import identifying_state
from homeserver.rooms.visibility import Visibility, only_events
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.sync.client_events import ClientEvents, Form, LookedUp
from homeserver.sync.positions import SyncToken
from homeserver.sync.sliding.connections import SentRoom
from homeserver.sync.sliding.request import RoomConfig
from homeserver.sync.sliding.room_about import RoomAbout, RoomReading, State
from homeserver.sync.state_changes import StateChanges
from homeserver.sync.timeline_window import TimelineWindows, Window
from homeserver.sync.unread import Unread

#: What counts as proper activity ("bump_stamp").
BUMPS = frozenset(
    {
        *("m.room.create", "m.room.message", "m.room.encrypted", "m.sticker", "m.call.invite"),
        *("m.poll.start", "org.matrix.msc3381.poll.start", "m.beacon_info"),
        "org.matrix.msc3672.beacon_info",
    }
)
_REMEMBERED_MEMBERS = 1000
_FORM = Form(room_id=False)
#: COMPAT: matrix-js-sdk looks for events it has already only where a timeline is limited.
_EXPANDED = {"unstable_expanded_timeline": True, "limited": True}


class RoomResults:
    """Writes rooms for sliding sync."""

    def __init__(
        self,
        *,
        db: Database,
        events: EventCache,
        visibility: Visibility,
        windows: TimelineWindows,
        changes: StateChanges,
        client_events: ClientEvents,
        unread: Unread,
    ) -> None:
        self._events = events
        self._about = RoomAbout(db, events)
        self._visibility = visibility
        self._windows = windows
        self._changes = changes
        self._client_events = client_events
        self._unread = unread

    async def write(self, reading: RoomReading) -> tuple[dict[str, Any] | None, SentRoom | None]:
        """The room as it is to be told, and what the connection knows of it then.

        ``None`` twice for a room that cannot be shown yet; once when there is nothing to tell.
        """
        if reading.membership.membership in {"invite", "knock"}:
            return await self._from_outside(reading)
        room, upto = reading.room, reading.upto
        if not _is_complete_enough(reading):
            return None, None
        since = reading.sent.upto if reading.sent is not None else 0
        if reading.joined and reading.membership.pos <= since:
            return await self._from_inside(reading, reading.membership.pos)
        joined_since = await self._visibility.joined_since(
            room, reading.user_id, upto if reading.joined else upto - 1
        )
        if joined_since is None:  # an invite or a knock came to nothing: they never saw the room
            return await self._turned_down(reading)
        return await self._from_inside(reading, joined_since)

    async def look_up(
        self, user_id: str, device_id: str | None, newest: Sequence[StoredEvent], *, bundled: bool
    ) -> LookedUp:
        """What telling any of these events takes, whatever rooms they are of."""
        return await self._client_events.look_up(user_id, device_id, newest, bundled=bundled)

    async def _from_outside(self, reading: RoomReading) -> tuple[dict[str, Any], SentRoom]:
        """An invite or a knock: what the room's servers tell of it."""
        membership, room = reading.membership, reading.room
        if membership.stripped_state is not None:
            told = orjson.loads(membership.stripped_state)
        else:
            own = await self._events.by_nids([membership.event_nid])
            told = [stripped(event) for event in identifying_state(room)]
            told += [stripped(stored.event) for stored in own.values()]
        result: dict[str, Any] = {"initial": True, "bump_stamp": membership.pos}
        if reading.stable:
            result |= {"membership": membership.membership, "stripped_state": told}
        else:
            result |= {"invite_state": told, "required_state": [], "timeline": []}
        if reading.is_dm:
            result["is_dm"] = True
        return result, self._sent(reading, 0, shown_all=True)

    async def _turned_down(self, reading: RoomReading) -> tuple[dict[str, Any], SentRoom]:
        """An invite or a knock that came to nothing: how, and no more."""
        membership = reading.membership
        found = await self._events.by_nids([membership.event_nid]) if membership.event_nid else {}
        own = list(found.values())
        result: dict[str, Any] = {"initial": True, "bump_stamp": membership.pos}
        if reading.stable:
            told = [stripped(stored.event) for stored in own]
            result |= {"membership": membership.membership, "stripped_state": told}
        else:
            result |= {"required_state": self._client_events.write_state(own, _FORM), "timeline": []}
        return result, self._sent(reading, 0, shown_all=True)

    async def _from_inside(
        self, reading: RoomReading, joined_since: int
    ) -> tuple[dict[str, Any] | None, SentRoom]:
        """A room the user is in, or was in up to some point."""
        known = _known(reading, joined_since)
        expanded = known is not None and _is_expanded(reading.config, known)
        window = await self._window(reading, 0 if known is None or expanded else known.upto, joined_since)
        changed = await self._changed(reading, known)
        required = await self._required(reading, known, changed)
        members = await self._lazy_members(reading, known, window, changed, required)
        about = await self._about.write(reading, known, changed)
        stored = [*required.values(), *members]
        sent = self._sent_from(reading, known, window, anew=known is None or expanded, state=stored)
        sent = msgspec.structs.replace(sent, unread=await self._counts(reading))
        gone = [] if known is None else _gone(reading.config, changed)
        news = window.events or window.limited or required or members or about or gone
        if known is not None and not news and _is_the_same(known, sent):
            return None, sent
        result: dict[str, Any] = {"initial": True} if known is None else {}
        result |= about
        if reading.stable:
            result["membership"] = reading.membership.membership
        result["required_state"] = await self._client_events.write_much_state(stored, _FORM)
        if reading.stable:
            result["required_state"] += [{"type": type_, "state_key": key} for type_, key in gone]
        result |= await self._timeline(reading, window, anew=known is None or expanded)
        if expanded:
            result |= {"expanded_timeline": True} if reading.stable else _EXPANDED
        if known is None or known.bump_stamp != sent.bump_stamp:
            result["bump_stamp"] = sent.bump_stamp
        if sent.unread is not None:
            result["notification_count"], result["highlight_count"] = sent.unread
        return result, sent

    async def _counts(self, reading: RoomReading) -> tuple[int, int] | None:
        """What is unread, which the proposed form tells no more."""
        if reading.stable or not reading.joined:
            return None
        total = (await self._unread.counts(reading.room, reading.user_id, reading.now)).total
        return total.notifications, total.highlights

    async def _window(self, reading: RoomReading, after: int, joined_since: int) -> Window:
        ignored = reading.ignored

        def accept(stored: StoredEvent) -> bool:
            return stored.event.is_state or stored.event.sender not in ignored

        window = await self._windows.read(
            reading.room,
            reading.user_id,
            after=after,
            upto=reading.upto,
            limit=reading.config.timeline_limit,
            accept=accept,
            joined_since=joined_since,
        )
        if after == 0 and not window.limited and not window.from_the_beginning:
            # What came before this server joined has to be fetched from others: there is more.
            return Window(window.events, True, window.start, False)
        return window

    async def _changed(self, reading: RoomReading, known: SentRoom | None) -> State:
        """The state that changed; all of it (without the members nobody asked for) for a new room."""
        if known is None:
            return await self._whole(reading, reading.config)
        return await self._changes.after(reading.room, known.upto, reading.upto)

    async def _whole(self, reading: RoomReading, config: RoomConfig) -> dict[StateKey, StoredEvent | None]:
        room, upto = reading.room, reading.upto
        whole = await self._changes.whole(room, upto, upto, (), members=config.all_members)
        named = [] if config.all_members else await self._changes.members(room, upto, config.members, ())
        return {stored.event.key: stored for stored in (*whole.events, *named)}

    async def _required(
        self, reading: RoomReading, known: SentRoom | None, changed: State
    ) -> dict[StateKey, StoredEvent]:
        """What is wanted of the changed state, and what is wanted now that was not before."""
        config = reading.config
        required = {
            key: stored for key, stored in changed.items() if stored is not None and config.wants(*key)
        }
        if known is None or config.required <= known.config.required:
            return required
        whole = await self._whole(reading, config)
        for key, stored in whole.items():
            if stored is not None and config.wants(*key) and not known.config.wants(*key):
                required[key] = stored
        return required

    async def _lazy_members(
        self,
        reading: RoomReading,
        known: SentRoom | None,
        window: Window,
        changed: State,
        required: Mapping[StateKey, StoredEvent],
    ) -> list[StoredEvent]:
        """The members that the timeline needs, and without a gap also those that changed."""
        if not reading.config.lazy_members:
            return []
        members: dict[str, StoredEvent] = {}
        if known is not None and not window.limited:
            members = {
                key[1]: stored for key, stored in changed.items() if key[0] == MEMBER and stored is not None
            }
        told = only_events(window.events)
        needed = {stored.event.sender for stored in told}
        needed |= {stored.event.state_key or "" for stored in told if stored.event.type == MEMBER}
        needed -= {user_id for type_, user_id in required if type_ == MEMBER} | set(members)
        found = await self._changes.members(reading.room, reading.upto, needed, told)
        before = known.members if known is not None and not window.limited else {}
        for stored in found:
            if before.get(stored.event.state_key or "") != stored.nid:
                members[stored.event.state_key or ""] = stored
        return [stored for stored in members.values() if stored.event.key not in required]

    async def _timeline(self, reading: RoomReading, window: Window, *, anew: bool) -> dict[str, Any]:
        events = await self._client_events.write(
            reading.room,
            reading.user_id,
            reading.device_id,
            window.events,
            _FORM,
            # Whoever was told all events before is told their children too, one by one.
            bundled=anew or window.limited,
            looked_up=reading.looked_up,
        )
        live = sum((one.stored.pos or 0) > reading.since for one in window.events) if reading.since else 0
        timeline: dict[str, Any] = {"timeline": events, "limited": window.limited, "num_live": live}
        if anew or window.events or window.limited:
            timeline["prev_batch"] = str(SyncToken(window.start, reading.ephemeral))
        return timeline

    def _sent_from(
        self,
        reading: RoomReading,
        known: SentRoom | None,
        window: Window,
        *,
        anew: bool,
        state: Sequence[StoredEvent],
    ) -> SentRoom:
        shown, shown_all = len(window.events), not window.limited
        before: Mapping[str, int] = {}
        if known is not None and not window.limited:
            before = known.members
            if not anew:
                shown, shown_all = shown + known.shown, known.shown_all
        told: dict[str, int] = {}
        if reading.config.lazy_members:
            told = {one.event.state_key or "": one.nid for one in state if one.event.type == MEMBER}
        now_known = {**before, **told} if told else before
        return self._sent(
            reading,
            shown,
            shown_all=shown_all,
            members=now_known if len(now_known) <= _REMEMBERED_MEMBERS else told,
        )

    def _sent(
        self, reading: RoomReading, shown: int, *, shown_all: bool, members: Mapping[str, int] | None = None
    ) -> SentRoom:
        return SentRoom(
            upto=reading.now,
            membership=reading.membership.membership,
            config=reading.config,
            shown=shown,
            shown_all=shown_all,
            bump_stamp=_bump_stamp(reading),
            is_dm=reading.is_dm,
            members=members or {},
        )


def _is_complete_enough(reading: RoomReading) -> bool:
    """Whether enough of the state is here, of a room that was joined with a part of it."""
    room = reading.room
    if not room.last_pos:
        return not reading.joined
    return not reading.config.all_members or (room.partial is None and room.full_since <= reading.now)


def _known(reading: RoomReading, joined_since: int) -> SentRoom | None:
    """What was told of this stay; ``None`` where the room is to be told anew."""
    sent = reading.sent
    if sent is None or joined_since > sent.upto:
        return None
    if sent.membership != "join" and (reading.joined or reading.membership.pos > sent.upto):
        return None
    if sent.upto < reading.room.full_since <= reading.now:
        return None
    return sent


def _is_the_same(known: SentRoom, sent: SentRoom) -> bool:
    """Whether nothing changed that is told of a room beside what happens in it."""
    return (known.membership, known.unread) == (sent.membership, sent.unread)


def _is_expanded(config: RoomConfig, known: SentRoom) -> bool:
    """Whether older events are wanted now than were told."""
    limit = config.timeline_limit
    return limit > known.config.timeline_limit and known.shown < limit and not known.shown_all


def _gone(config: RoomConfig, changed: State) -> list[StateKey]:
    """State that there is no more."""
    return [key for key, stored in changed.items() if stored is None and config.wants(*key)]


def _bump_stamp(reading: RoomReading) -> int:
    """The position of the last proper activity; among the newest events if there was any."""
    if not reading.joined:
        return reading.membership.pos
    for stored in reversed(reading.room.recent):
        if stored.event.type in BUMPS and (stored.pos or 0) <= reading.now:
            return stored.pos or 0
    before = reading.sent.bump_stamp if reading.sent is not None else None
    return before or reading.room.recent_after or 1
