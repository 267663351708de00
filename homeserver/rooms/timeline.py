"""The one way into a room: every event that becomes part of one goes through ``Timeline.append``.

The caller has checked the event; this module gives it its place (number, stream
position, state references), works out what it changes, moves the room in memory
on, queues one transaction, and announces once that is on disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import msgspec

from homeserver.protocol.event_format import parse_event
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.ids import server_name_of
from homeserver.protocol.redaction import redact
from homeserver.rooms.announcement import Announce, NewEvents
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.resolution import Resolution
from homeserver.rooms.room import MEMBER, Room, membership_of
from homeserver.rooms.state_store import Difference, StateStore
from homeserver.storage import append as append_storage
from homeserver.storage import events as event_storage
from homeserver.storage import state as state_storage
from homeserver.storage.append import Also, Append, Redacted
from homeserver.storage.database import Database
from homeserver.storage.events import REDACTED, SENT_HERE, StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.storage.rooms import MEMBERSHIPS, LocalMembership
from homeserver.storage.state import NO_EVENT, CurrentEntry, Overlay, StateChange
from homeserver.tasks import Background


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


class Change(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A change of one key of the current state."""

    key: StateKey
    key_nid: int
    new: StoredEvent | None
    old: StoredEvent | None


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
    ) -> None:
        self._db = db
        self._keys = keys
        self._events = events
        self._states = states
        self._resolution = resolution
        self._positions = positions
        self._event_nids = event_nids
        self._server_name = server_name
        self._announce = announce
        self._background = background

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
        batch = Append(room=room.row(), expected_last_pos=room.last_pos if room.stored else None)
        if also is not None:
            batch.also.append(also)
        if len(additions) > 1:
            await self._prefetch(room, additions)
        before = room.last_pos
        try:
            placed = [await self._place(room, addition, batch) for addition in additions]
            return self.write(room, batch, placed)
        except BaseException:
            # What has moved on in memory only must not be built upon.
            room.broken = room.broken or room.last_pos != before
            raise

    async def _prefetch(self, room: Room, additions: Sequence[Addition]) -> None:
        keys = [addition.event.key for addition in additions if addition.event.state_key is not None]
        for key in keys:
            await self._keys.intern(key)
        await self._states.load_members(room, [key[1] for key in keys if key[0] == MEMBER])

    def write(
        self, room: Room, batch: Append, placed: list[StoredEvent]
    ) -> asyncio.Future[list[StoredEvent]]:
        """Queue a finished batch whose effects are in ``room`` already."""
        batch.room = room.row()
        stored_here = (*batch.new, *batch.placed)
        key_nids = {change.key_nid for change in batch.changes} | {one.key_nid or 0 for one in stored_here}
        batch.keys = self._keys.unwritten(key_nids | set(batch.keys))
        pos = room.last_pos
        room.stored = True
        written = self._db.write(partial(append_storage.store, append=batch))
        done: asyncio.Future[list[StoredEvent]] = asyncio.get_running_loop().create_future()
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        room.unsettled.add(settled)

        def finish(write: asyncio.Future[None]) -> None:
            error = asyncio.CancelledError() if write.cancelled() else write.exception()
            room.broken = room.broken or error is not None
            try:
                if error is None:
                    self._keys.written(batch.keys)
                    self._remember(room, batch, placed)
                    visible = tuple(stored for stored in placed if not stored.hidden)
                    users = frozenset(membership.user_id for membership in batch.local_memberships)
                    self._announce(NewEvents(pos=pos, room=room, events=visible, users=users))
            finally:
                # Whatever a listener does, those who wait for the write are told how it ended.
                room.unsettled.discard(settled)
                settled.set_result(None)
                if not done.cancelled():
                    if error is None:
                        done.set_result(placed)
                    else:
                        done.set_exception(error)

        written.add_done_callback(finish)
        return done

    def _remember(self, room: Room, batch: Append, placed: list[StoredEvent]) -> None:
        for stored in (*batch.new, *batch.placed):
            self._events.put(stored)
        for emptied in batch.redacted:
            self._events.put(emptied.stored)
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

    async def _place(self, room: Room, addition: Addition, batch: Append) -> StoredEvent:
        """Give one event its place and move the room in memory on."""
        event, flags = addition.event, addition.flags
        if addition.outlier is not None and addition.outlier.flags & REDACTED:
            emptied_event = addition.outlier.event
            event = msgspec.structs.replace(emptied_event, rejected=event.rejected)
            flags |= REDACTED
        key_nid = await self._keys.intern(event.key) if event.state_key is not None else None
        before = room.state_ver if addition.state_before is None else addition.state_before
        staged = (other.nid for other in batch.new if other.id in event.auth_events)
        stored = StoredEvent(
            nid=addition.outlier.nid if addition.outlier else self._event_nids.next(),
            room_nid=room.nid,
            event=event,
            pos=None,
            flags=flags,
            state_before=before,
            state_after=before,
            auth_nids=tuple(dict.fromkeys((*addition.auth_nids, *staged))),
            redacted_by=addition.outlier.redacted_by if addition.outlier else None,
            key_nid=key_nid,
        )
        if addition.overlay is not None:
            batch.overlays.append(addition.overlay)
        if stored.rejected:
            return self._add(batch, stored, addition)
        tips = tuple(tip for tip in room.tips if tip.id not in event.prev_events)
        # One that was missing has others built upon it already.
        is_tip = not (stored.hidden or (tips and await self.missing_among(room, [stored.id])))
        # The one thing everything leads to: what is so after it is the room's current state.
        alone = is_tip and not tips
        straight = alone and before == room.state_ver
        if key_nid is not None and not straight:
            overlay = await self._states.overlay_on(room, before, {key_nid: stored.nid})
            if not alone:  # else a version will say the same
                batch.overlays.append(overlay)
            stored = msgspec.structs.replace(stored, state_after=-overlay.nid)
        if stored.hidden:
            return self._add(batch, stored, addition)
        new_tips = (*tips, stored) if is_tip else tips
        difference = await self._new_state(room, stored, new_tips, straight=straight)
        changes = await self._changes(room, difference, stored)
        target, is_early = await self.redaction_target(room, event)
        own_redaction = await self.pending_redaction(room, stored)

        # Nothing is awaited from here on: what follows happens at once.
        room.check_sound()
        pos = self._positions.next()
        stored = msgspec.structs.replace(stored, pos=pos)
        if alone:
            stored = msgspec.structs.replace(stored, state_after=pos if changes else room.state_ver)
        if own_redaction is not None:
            stored = emptied(room, stored, own_redaction)
            batch.redacted.append(Redacted(stored, own_redaction))
        room.tips = (*tips, stored) if is_tip else tips
        room.last_pos = pos
        room.depth = max(room.depth, event.depth)
        room.remember(stored)
        self.change_state(
            room,
            batch,
            [
                msgspec.structs.replace(change, new=stored)
                if change.new and change.new.nid == stored.nid
                else change
                for change in changes
            ],
            pos,
        )
        if target is not None:
            target = emptied(room, target, stored.nid)
            room.replace(target)
            batch.redacted.append(Redacted(target, stored.nid))
        elif is_early:
            batch.pending_redactions.append((event.redacts or "", stored.nid))
        return self._add(batch, stored, addition)

    async def missing_among(self, room: Room, event_ids: Sequence[str]) -> set[str]:
        """Those of the events that the timeline's events refer to and that are not part of it."""
        return await event_storage.missing_among(self._db.read, room.nid, event_ids)

    def _add(self, batch: Append, stored: StoredEvent, addition: Addition) -> StoredEvent:
        (batch.placed if addition.outlier else batch.new).append(stored)
        if not stored.flags & SENT_HERE:
            batch.arrived.append(stored.id)
        batch.missing.extend((event_id, stored.pos or 0) for event_id in addition.missing)
        return stored

    async def _new_state(
        self, room: Room, stored: StoredEvent, tips: Sequence[StoredEvent], *, straight: bool
    ) -> Difference:
        """What the event changes in the room's current state."""
        if straight:
            return {stored.key_nid: stored.nid} if stored.key_nid is not None else {}
        refs = {tip.state_after for tip in tips if tip.state_after is not None}
        if refs == {room.state_ver}:
            return {}
        return await self._resolution.resolve(room, refs, {stored.nid: stored})

    async def _changes(self, room: Room, difference: Difference, stored: StoredEvent) -> list[Change]:
        """A difference as changes, each with the events it puts in and takes out."""
        if not difference:
            return []
        names = await self._keys.names(list(difference))
        others = [nid for nid in difference.values() if nid not in {NO_EVENT, stored.nid}]
        events = await self._events.by_nids(others) | {stored.nid: stored}
        await self._states.load_members(room, [key[1] for key in names.values() if key[0] == MEMBER])
        return [
            Change(
                key=names[key_nid],
                key_nid=key_nid,
                new=events[nid] if nid != NO_EVENT else None,
                old=_current(room, names[key_nid]),
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
            room.changes_since_checkpoint += len(changes)

    def _change_member(self, room: Room, batch: Append, change: Change, pos: int) -> None:
        user_id = change.key[1]
        old, new = membership_of(change.old), membership_of(change.new)
        room.members[user_id] = change.new
        room.invited_members += (new == "invite") - (old == "invite")
        joined = (new == "join") - (old == "join")
        server = _server_of(user_id)
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
            batch.local_memberships.append(LocalMembership(user_id, room.nid, new, nid, sender, pos))

    async def redaction_target(
        self, room: Room, event: Event, among: Mapping[str, StoredEvent] | None = None
    ) -> tuple[StoredEvent | None, bool]:
        """The event a redaction may empty, and whether that is still to come.

        ``among`` are events that are about to be stored.
        """
        if event.type != "m.room.redaction" or event.redacts is None:
            return None, False
        target = (among or {}).get(event.redacts)
        target = target or next((recent for recent in room.recent if recent.id == event.redacts), None)
        if target is None:
            await room.settle()
            target = await self._events.by_id(event.redacts)
        if target is None:
            return None, True
        if target.room_nid != room.nid or target.event.type == "m.room.redaction":
            return None, False
        return (target if _may_redact(room, event, target.event) else None), False

    async def pending_redaction(self, room: Room, stored: StoredEvent) -> int | None:
        """The first redaction that came before the event and was entitled to."""
        if stored.flags & (SENT_HERE | REDACTED):
            return None
        nids = await event_storage.pending_redactions_of(self._db.read, stored.id)
        redactions = await self._events.by_nids(nids)
        for nid in nids:
            redaction = redactions[nid]
            if redaction.room_nid == room.nid and _may_redact(room, redaction.event, stored.event):
                return nid
        return None


def emptied(room: Room, target: StoredEvent, redaction_nid: int) -> StoredEvent:
    """An event after its redaction."""
    event = parse_event(redact(target.event.pdu, room.rules), room.rules, event_id=target.id)
    if target.rejected:
        event = msgspec.structs.replace(event, rejected=True)
    return msgspec.structs.replace(
        target, event=event, flags=target.flags | REDACTED, redacted_by=redaction_nid
    )


def _may_redact(room: Room, redaction: Event, target: Event) -> bool:
    """Specification: room versions since v3, "Handling redactions"."""
    levels = room.power_levels
    return (
        _server_of(target.sender) == _server_of(redaction.sender)
        or levels.of_user(redaction.sender) >= levels.redact
    )


def _current(room: Room, key: StateKey) -> StoredEvent | None:
    return room.members.get(key[1]) if key[0] == MEMBER else room.state.get(key)


def _server_of(user_id: str) -> str:
    try:
        return server_name_of(user_id)
    except ValueError:  # a membership whose state key is not a user id: allowed in old rooms
        return ""
