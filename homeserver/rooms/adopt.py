"""Taking over a room from a server that is in it: its state, and this server's join on top."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from homeserver.protocol.auth_rules import NotAllowed, check_against_state
from homeserver.protocol.events import Event
from homeserver.rooms.outliers import Outliers
from homeserver.rooms.room import Room
from homeserver.rooms.timeline import Change, Timeline
from homeserver.storage import rooms as room_storage
from homeserver.storage.append import Append
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.numbers import Sequence as NumberSequence


class Unacceptable(Exception):
    """What a server says of a room cannot be; the message says why."""


class Adoption:
    """Imports the state a ``send_join`` answers with."""

    def __init__(
        self,
        *,
        db: Database,
        keys: Keys,
        outliers: Outliers,
        timeline: Timeline,
        positions: NumberSequence,
        event_nids: NumberSequence,
    ) -> None:
        self._db = db
        self._keys = keys
        self._outliers = outliers
        self._timeline = timeline
        self._positions = positions
        self._event_nids = event_nids

    async def adopt(
        self, room: Room, join: Event, state: Sequence[Event], auth_chain: Sequence[Event]
    ) -> asyncio.Future[list[StoredEvent]]:
        """Make ``state`` the room's state, in a new epoch if it had one, and append ``join``.

        The events have passed the checks that need no state.  Returns as
        ``Timeline.stage`` does.  Raises ``Unacceptable``.  Caller holds the room lock.
        """
        await room.settle()
        room.check_sound()
        # Some servers count the join itself to the state; it gets its own place.
        state = [event for event in state if event.event_id != join.event_id]
        auth_chain = [event for event in auth_chain if event.event_id != join.event_id]
        create = _create_event(state)
        try:
            new, known = await self._outliers.judge(room.nid, room.rules, [*auth_chain, *state], create)
        except ValueError as error:
            raise Unacceptable(str(error)) from error
        by_key = _state_by_key([known[event.event_id] for event in state if event.event_id in known])
        _check_join(room, join, {key: stored.event for key, stored in by_key.items()})
        missing_auth = [event_id for event_id in join.auth_events if event_id not in known]
        if missing_auth:
            raise Unacceptable("auth events of the join are missing")
        join_key = await self._keys.intern(join.key)
        known_here = await room_storage.local_memberships_in(self._db.read, room.nid)

        # Nothing is awaited from here on: what follows happens at once.
        batch = Append(
            expected_last_pos=room.last_pos if room.stored else None,
            keys=self._outliers.unwritten_keys(new),
            new=new,
            clear_state=True,
            missing=[],
        )
        imported, joined = self._positions.next(2), self._positions.last
        _empty(room, imported)
        changes = [
            Change(key=key, key_nid=stored.key_nid or 0, new=stored, old=None)
            for key, stored in by_key.items()
        ]
        self._timeline.change_state(room, batch, changes, imported)
        stored_join = StoredEvent(
            nid=self._event_nids.next(),
            room_nid=room.nid,
            event=join,
            pos=joined,
            flags=0,  # the server it was sent to hands it on to the others
            state_before=imported,
            state_after=joined,
            auth_nids=tuple(known[event_id].nid for event_id in join.auth_events),
            key_nid=join_key,
        )
        old = by_key.get(join.key)
        self._timeline.change_state(
            room, batch, [Change(key=join.key, key_nid=join_key, new=stored_join, old=old)], joined
        )
        batch.entries = list({entry.key_nid: entry for entry in batch.entries}.values())
        newest = {membership.user_id: membership for membership in batch.local_memberships}
        # For those whose membership is what it was, nothing has happened, least of all to what they forgot.
        batch.local_memberships = [
            membership
            for user_id, membership in newest.items()
            if user_id == join.sender or known_here.get(user_id) != membership.membership
        ]
        batch.new.append(stored_join)
        batch.missing.extend((event_id, joined) for event_id in join.prev_events)
        room.tips = (stored_join,)
        room.depth = join.depth
        room.last_pos = joined
        room.recent.clear()
        room.recent_after = imported
        room.remember(stored_join)
        written = self._timeline.write(room, batch, [stored_join])
        # Until then the disk does not know them.
        written.add_done_callback(lambda _: _let_go_of_members(room))
        return written


def _create_event(state: Sequence[Event]) -> Event:
    creates = [event for event in state if event.type == "m.room.create" and event.state_key == ""]
    if len(creates) != 1:
        raise Unacceptable("the state has no create event, or several")
    return creates[0]


def _state_by_key(state: Sequence[StoredEvent]) -> dict[tuple[str, str], StoredEvent]:
    by_key: dict[tuple[str, str], StoredEvent] = {}
    for stored in state:
        if stored.event.state_key is None:
            raise Unacceptable("the state holds a message event")
        if stored.rejected:
            continue
        if by_key.setdefault(stored.event.key, stored) is not stored:
            raise Unacceptable("the state has two events for one key")
    return by_key


def _check_join(room: Room, join: Event, state: dict[tuple[str, str], Event]) -> None:
    try:
        check_against_state(room.rules, join, lambda type_, key: state.get((type_, key)))
    except NotAllowed as error:
        raise Unacceptable(f"the join is not allowed by the state: {error}") from error


def _let_go_of_members(room: Room) -> None:
    # Whoever holds the lock may rely on those it asked for.
    if not room.lock.locked():
        room.members.clear()


def _empty(room: Room, imported: int) -> None:
    """Forget the state of an earlier stay; the log of that stay remains, in its own epoch."""
    if room.last_pos:
        room.epoch += 1
        room.epoch_start = imported
    room.state = {}
    room.members = {}
    room.servers = {}
    room.joined_members = room.invited_members = 0
    room.checkpoint_ver = 0
    room.changes_since_checkpoint = 0
