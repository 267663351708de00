"""The one way into a room: every event that becomes part of one goes through ``Timeline.append``.

The caller has checked the event; this module gives it its place (number, stream
position, state references), works out what it changes, moves the room in memory
on, queues one transaction, and announces once that is on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import msgspec

from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.ids import server_of
from homeserver.rooms.announcement import Announce, NewEvents
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.extremities import MAX_EXTREMITIES, states_to_resolve
from homeserver.rooms.redactions import Redactions, emptied
from homeserver.rooms.resolution import Resolution
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.state_store import Difference, StateStore
from homeserver.rooms.sticky_events import StickyEvents
from homeserver.storage import append as append_storage
from homeserver.storage import events as event_storage
from homeserver.storage import partial_joins
from homeserver.storage import state as state_storage
from homeserver.storage.append import Also, Append, Redacted
from homeserver.storage.database import Database
from homeserver.storage.event_media import names_in
from homeserver.storage.events import REDACTED, StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.storage.rooms import MEMBERSHIPS, LocalMembership
from homeserver.storage.state import NO_EVENT, CurrentEntry, Overlay, StateChange
from homeserver.tasks import Background

#: How far an event is looked behind for extremities it takes the place of.
MAX_BEHIND_HIDDEN = 200


class Addition(msgspec.Struct, frozen=True, gc=False, eq=False):
    """An event that passed its checks, and what the checks found out."""

    event: Event
    #: Its auth events that are stored; those staged together with it need not be named.
    auth_nids: tuple[int, ...]
    #: The state before it; ``None``: the room's current one when its turn comes.
    state_before: int | None
    #: ``REJECTED``, ``SOFT_FAILED``, ``SENT_HERE`` of ``storage/events.py``.
    flags: int = 0
    #: The outlier it was stored as, when it was.
    outlier: StoredEvent | None = None
    #: Those of its ``prev_events`` that are not stored here.
    missing: tuple[str, ...] = ()
    #: What ``state_before`` refers to, when that may not be stored yet.
    overlay: Overlay | None = None
    #: Who can tell the state before it, where that is a guess (in a room with a part of its state).
    origin: str | None = None
    #: The room's policy server does not recommend it: it is soft-failed for good.
    unwanted: bool = False


class Change(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A change of one key of the current state."""

    key: StateKey
    key_nid: int
    new: StoredEvent | None
    old: StoredEvent | None


class _Placement(msgspec.Struct, frozen=True, gc=False, eq=False):
    """What becoming part of a room means for an event and for the room."""

    stored: StoredEvent
    #: The forward extremities that the event does not build on.
    other_tips: tuple[StoredEvent, ...]
    is_tip: bool
    #: It is the only extremity from now on.
    alone: bool
    changes: list[Change]
    #: The event it empties, being a redaction; or whether that is still to come.
    redacts: StoredEvent | None
    redacts_early: bool
    #: The ``event_nid`` of a redaction that came before it.
    redacted_by: int | None


class Timeline:
    """Appends events to rooms."""

    def __init__(
        self,
        *,
        db: Database,
        keys: Keys,
        events: EventCache,
        states: StateStore,
        resolution: Resolution,
        positions: NumberSequence,
        event_nids: NumberSequence,
        server_name: str,
        announce: Announce,
        background: Background,
        sticky: StickyEvents,
        forget_on_leave: bool = False,
        keep_redacted_until: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._db = db
        self._keys = keys
        self._events = events
        self._states = states
        self._resolution = resolution
        self._redactions = Redactions(db, events)
        self._positions = positions
        self._event_nids = event_nids
        self._server_name = server_name
        self._announce = announce
        self._background = background
        self._sticky = sticky
        self._forget_on_leave = forget_on_leave
        self._keep_redacted_until = keep_redacted_until

    async def append(self, room: Room, addition: Addition, also: Also | None = None) -> StoredEvent:
        """Store one event and announce it; the event is on disk when this returns.

        Caller holds the room lock.  Raises ``StaleRoomError`` when another process
        has moved the room on.
        """
        return (await (await self.stage(room, [addition], also)))[0]

    async def stage(
        self, room: Room, additions: Sequence[Addition], also: Also | None = None
    ) -> asyncio.Future[list[StoredEvent]]:
        """Queue events for one transaction, in order; the future ends when they are on disk and announced.

        The room in memory has moved on when this returns, so the caller may let go of
        the room lock before awaiting the future: writes of one room are stored in the
        order they were queued, and when one fails those behind it fail too.
        Several at once are for events this server makes one upon the other: nothing may
        be awaited for between the first one's position and the write.
        Caller holds the room lock.  Raises ``StaleRoomError`` when an earlier write of the room failed.
        """
        batch = Append(expected_last_pos=room.last_pos if room.stored else None)
        if also is not None:
            batch.also.append(also)
        if len(additions) > 1:
            await self._prefetch(room, [addition.event for addition in additions])
        before = room.last_pos
        try:
            placed = [await self._place(room, addition, batch) for addition in additions]
            return self.write(room, batch, placed)
        except BaseException:
            # What has moved on in memory only must not be built upon.
            room.broken = room.broken or room.last_pos != before
            raise

    async def stage_in_turn(
        self,
        room: Room,
        events: Sequence[Event],
        judge: Callable[[Event, Mapping[str, StoredEvent]], Addition | None],
    ) -> asyncio.Future[list[StoredEvent]] | None:
        """``stage`` for events of which each is judged when those before it have their place.

        ``judge`` finds the room as those left it, and is given them by id; where it returns
        ``None`` the row ends.  So it does at an event that a redaction came before.  The auth events
        of additions are all named, and nothing of what ``judge`` needs may have to be read.
        Returns ``None`` when nothing was staged.
        """
        await self._prefetch(room, events)
        early = await self._redactions.early([event.event_id for event in events])
        batch = Append(expected_last_pos=room.last_pos if room.stored else None)
        staged: dict[str, StoredEvent] = {}
        before = room.last_pos
        try:
            for event in events:
                addition = judge(event, staged) if event.event_id not in early else None
                if addition is None:
                    break
                staged[event.event_id] = await self._place(room, addition, batch, unredacted=True)
            return self.write(room, batch, list(staged.values())) if staged else None
        except BaseException:
            room.broken = room.broken or room.last_pos != before
            raise

    async def _prefetch(self, room: Room, events: Sequence[Event]) -> None:
        keys = [event.key for event in events if event.state_key is not None]
        for key in keys:
            await self._keys.intern(key)
        members = [key[1] for key in keys if key[0] == MEMBER]
        if room.stored:
            await self._states.load_members(room, members)
        else:  # nobody is in a room of which nothing is stored
            room.members = dict.fromkeys(members) | room.members

    def write(
        self, room: Room, batch: Append, placed: list[StoredEvent]
    ) -> asyncio.Future[list[StoredEvent]]:
        """Queue a finished batch whose effects are in ``room`` already."""
        if room.partial is not None and not room.servers.get(self._server_name):
            # Nobody is left here to need the rest, and nobody there would give it.
            batch.also.append(partial(partial_joins.remove, room_nid=room.nid))
            room.partial.over.set()
            room.partial = None
        batch.room = room.row()
        stored_here = [*batch.new, *batch.placed]
        key_nids = {change.key_nid for change in batch.changes}
        key_nids.update([one.key_nid for one in stored_here if one.key_nid is not None], batch.keys)
        batch.keys = self._keys.unwritten(key_nids)
        batch.names = names_in(stored_here, self._server_name)
        if batch.redacted:
            batch.keep_redacted_until = self._keep_redacted_until()
            batch.names_left = names_in([emptied.stored for emptied in batch.redacted], self._server_name)
        pos = room.last_pos
        room.stored = True
        self._states.hold(batch.overlays)
        written = self._db.write(append_storage.Store(batch))
        # Not the write itself: who waits for this may be cancelled, which the write must not be.
        done: asyncio.Future[list[StoredEvent]] = asyncio.get_running_loop().create_future()
        room.unsettled.add(written)

        def finish(write: asyncio.Future[None]) -> None:
            error = asyncio.CancelledError() if write.cancelled() else write.exception()
            room.broken = room.broken or error is not None
            self._states.let_go(batch.overlays)
            try:
                if error is None:
                    self._keys.written(batch.keys)
                    self._remember(room, batch, placed)
                    visible = tuple([stored for stored in placed if not stored.hidden])
                    users = frozenset([membership.user_id for membership in batch.local_memberships])
                    self._announce(NewEvents(pos=pos, room=room, events=visible, users=users))
            finally:
                # Whatever a listener does, those who wait for the write are told how it ended.
                room.unsettled.discard(write)
                if not done.cancelled():
                    if error is None:
                        done.set_result(placed)
                    else:
                        done.set_exception(error)

        # The first to be called: whoever waits for the room to settle finds this done.
        written.add_done_callback(finish)
        return done

    def _remember(self, room: Room, batch: Append, placed: list[StoredEvent]) -> None:
        if batch.sticky:
            self._sticky.note(batch.sticky)
        for stored in (*batch.new, *batch.placed):
            self._events.put(stored)
        for redacted in batch.redacted:
            self._events.put(redacted.stored)
        if room.changes_since_checkpoint >= max(1024, room.joined_members // 8):
            room.changes_since_checkpoint = 0
            self._background.start(self._checkpoint(room, room.epoch, room.state_ver), "state checkpoint")

    async def _checkpoint(self, room: Room, epoch: int, ver: int) -> None:
        whole = await self._states.state_at(room, ver)
        await self._db.write(
            partial(state_storage.add_checkpoint, room_nid=room.nid, epoch=epoch, ver=ver, state=whole)
        )
        if room.epoch == epoch:
            room.checkpoint_ver = ver

    async def _place(
        self, room: Room, addition: Addition, batch: Append, *, unredacted: bool = False
    ) -> StoredEvent:
        """Give one event its place and move the room in memory on.

        ``unredacted``: it is known that no redaction of it came before it.
        """
        stored = await self._numbered(room, addition, batch)
        if addition.overlay is not None:
            batch.overlays.append(addition.overlay)
        if not stored.rejected:
            decided = await self._decide(room, stored, batch, unredacted=unredacted)
            stored = decided if isinstance(decided, StoredEvent) else self._carry_out(room, batch, decided)
        (batch.placed if addition.outlier else batch.new).append(stored)
        if not addition.unwanted and (sticky := self._sticky.judge(stored)) is not None:
            batch.sticky.append(sticky)
        if not stored.sent_here:
            batch.arrived.append(stored.id)
        if addition.missing:
            batch.missing.extend((event_id, stored.pos or 0) for event_id in addition.missing)
        if room.partial is not None:
            batch.also.append(room.partial.note(stored, addition.origin))
        return stored

    async def _numbered(self, room: Room, addition: Addition, batch: Append) -> StoredEvent:
        """The event with its number and the state before it, as yet without a position."""
        event, flags, outlier = addition.event, addition.flags, addition.outlier
        if outlier is not None and outlier.flags & REDACTED:
            event = msgspec.structs.replace(outlier.event, rejected=event.rejected)
            flags |= REDACTED
        before = room.state_ver if addition.state_before is None else addition.state_before
        staged: list[int] = []
        if len(addition.auth_nids) < len(event.auth_events):
            staged = [other.nid for other in batch.new if other.id in event.auth_events]
        return StoredEvent(
            nid=outlier.nid if outlier else self._event_nids.next(),
            room_nid=room.nid,
            event=event,
            pos=None,
            flags=flags,
            state_before=before,
            state_after=before,
            auth_nids=tuple(dict.fromkeys((*addition.auth_nids, *staged))) if staged else addition.auth_nids,
            redacted_by=outlier.redacted_by if outlier else None,
            key_nid=await self._keys.intern(event.key) if event.state_key is not None else None,
        )

    async def _decide(
        self, room: Room, stored: StoredEvent, batch: Append, *, unredacted: bool
    ) -> StoredEvent | _Placement:
        """What an accepted event does to the room; just the event where it is soft-failed."""
        event, before = stored.event, stored.state_before or 0
        tips = tuple([tip for tip in room.tips if tip.id not in event.prev_events])
        if tips and not stored.hidden:
            behind = await self._behind_hidden(event)
            tips = tuple(tip for tip in tips if tip.id not in behind)
        # One that was missing has others built upon it already.
        is_tip = not (stored.hidden or (tips and await self.missing_among(room, [stored.id])))
        is_tip = is_tip and len(tips) < MAX_EXTREMITIES
        # The one thing everything leads to: what is so after it is the room's current state.
        alone = is_tip and not tips
        straight = alone and before == room.state_ver
        if stored.key_nid is not None and not straight:
            overlay = await self._states.overlay_on(room, before, {stored.key_nid: stored.nid})
            if not alone:  # else a version will say the same
                batch.overlays.append(overlay)
            stored = msgspec.structs.replace(stored, state_after=-overlay.nid)
        if stored.hidden:
            return stored
        if straight:
            difference = {stored.key_nid: stored.nid} if stored.key_nid is not None else {}
        else:
            difference = await self._new_state(room, stored, (*tips, stored) if is_tip else tips)
        target, is_early = await self._redactions.target(room, event)
        return _Placement(
            stored=stored,
            other_tips=tips,
            is_tip=is_tip,
            alone=alone,
            changes=await self._changes(room, difference, stored) if difference else [],
            redacts=target,
            redacts_early=is_early,
            redacted_by=None if unredacted else await self._redactions.pending(room, stored),
        )

    def _carry_out(self, room: Room, batch: Append, placement: _Placement) -> StoredEvent:
        """Take the next position and do what was decided, all at once: nothing is awaited here."""
        room.check_sound()
        pos = self._positions.next()
        after = placement.stored.state_after
        if placement.alone:
            after = pos if placement.changes else room.state_ver
        stored = msgspec.structs.replace(placement.stored, pos=pos, state_after=after)
        if placement.redacted_by is not None:
            stored = emptied(room, stored, placement.redacted_by)
            batch.redacted.append(Redacted(stored, placement.redacted_by))
        room.tips = (*placement.other_tips, stored) if placement.is_tip else placement.other_tips
        room.last_pos = pos
        room.depth = max(room.depth, stored.event.depth)
        room.remember(stored)
        changes = [
            msgspec.structs.replace(change, new=stored)
            if change.new and change.new.nid == stored.nid
            else change
            for change in placement.changes
        ]
        self.change_state(room, batch, changes, pos)
        if placement.redacts is not None:
            target = emptied(room, placement.redacts, stored.nid)
            room.replace(target)
            batch.redacted.append(Redacted(target, stored.nid))
        elif placement.redacts_early:
            batch.pending_redactions.append((stored.event.redacts or "", stored.nid))
        return stored

    async def _behind_hidden(self, event: Event) -> set[str]:
        """Events that an event builds on by way of refused ones, which took no extremity's place."""
        behind: set[str] = set()
        wanted = set(event.prev_events)
        while wanted and len(behind) < MAX_BEHIND_HIDDEN:
            found = (await self._events.by_ids(sorted(wanted))).values()
            wanted = {prev for stored in found if stored.hidden for prev in stored.event.prev_events} - behind
            behind |= wanted
        return behind

    async def missing_among(self, room: Room, event_ids: Sequence[str]) -> set[str]:
        """Those of the events that the timeline's events refer to and that are not part of it."""
        return await event_storage.missing_among(self._db.read, room.nid, event_ids)

    async def _new_state(self, room: Room, stored: StoredEvent, tips: Sequence[StoredEvent]) -> Difference:
        """What an event on a fork, or one that ends a fork, changes in the room's current state."""
        refs = states_to_resolve(room, tips, stored)
        if refs == {room.state_ver}:
            return {}
        return await self._resolution.resolve(room, refs, {stored.nid: stored})

    async def _changes(self, room: Room, difference: Difference, stored: StoredEvent) -> list[Change]:
        """A difference as changes, each with the events it puts in and takes out."""
        names = await self._keys.names(list(difference))
        others = [nid for nid in difference.values() if nid not in {NO_EVENT, stored.nid}]
        events = await self._events.by_nids(others) | {stored.nid: stored}
        await self._states.load_members(room, [key[1] for key in names.values() if key[0] == MEMBER])
        return [
            Change(
                key=names[key_nid],
                key_nid=key_nid,
                new=events[nid] if nid != NO_EVENT else None,
                old=room.current(names[key_nid]),
            )
            for key_nid, nid in difference.items()
        ]

    def change_state(self, room: Room, batch: Append, changes: Sequence[Change], pos: int) -> None:
        """Put changes of the current state into the room in memory and into the batch, as version ``pos``."""
        for change in changes:
            nid = change.new.nid if change.new else NO_EVENT
            batch.changes.append(
                StateChange(change.key_nid, pos, nid, change.old.nid if change.old else NO_EVENT)
            )
            membership = None
            if change.key[0] == MEMBER:
                membership = MEMBERSHIPS[membership_of(change.new)]
                self._change_member(room, batch, change, pos)
            elif change.new is not None:
                room.state[change.key] = change.new
            else:
                room.state.pop(change.key, None)
            batch.entries.append(CurrentEntry(change.key_nid, nid, membership))
        if changes:
            room.state_ver = pos
            room.state_changes.note(batch.changes[-len(changes) :])
            room.changes_since_checkpoint += len(changes)

    def _change_member(self, room: Room, batch: Append, change: Change, pos: int) -> None:
        user_id = change.key[1]
        old, new = membership_of(change.old), membership_of(change.new)
        room.members[user_id] = change.new
        room.invited_members += (new == "invite") - (old == "invite")
        joined = (new == "join") - (old == "join")
        server = server_of(user_id)
        if joined:
            room.joined_members += joined
            count = room.servers.get(server, 0) + joined
            if count > 0:
                room.servers[server] = count
            else:
                room.servers.pop(server, None)
            batch.servers[server] = count
        if server == self._server_name:
            # State resolution may leave nothing of a membership: then the user is not in the room any more.
            nid, sender = (change.new.nid, change.new.event.sender) if change.new else (NO_EVENT, user_id)
            forgotten = self._forget_on_leave and old == "join" and new in {"leave", "ban"}
            batch.local_memberships.append(
                LocalMembership(user_id, room.nid, new, nid, sender, pos, forgotten=forgotten)
            )
