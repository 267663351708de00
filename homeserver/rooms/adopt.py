"""Taking over a room from a server that is in it: its state, and this server's join on top."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from homeserver.protocol.auth_rules import check_against_state
from homeserver.protocol.events import Event
from homeserver.rooms.outliers import BULK, Outliers
from homeserver.rooms.partial import Partial, PartialState, cited_members
from homeserver.rooms.recent_changes import RecentChanges
from homeserver.rooms.room import Room
from homeserver.rooms.timeline import Change, Timeline
from homeserver.storage import partial_joins
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
        server_name: str,
    ) -> None:
        self._db = db
        self._keys = keys
        self._outliers = outliers
        self._timeline = timeline
        self._positions = positions
        self._event_nids = event_nids
        self._server_name = server_name

    async def adopt(
        self,
        room: Room,
        join: Event,
        state: Sequence[Event],
        auth_chain: Sequence[Event],
        incomplete: PartialState | None = None,
    ) -> asyncio.Future[list[StoredEvent]]:
        """Make ``state`` the room's state, in a new epoch if it had one, and append ``join``.

        The events have passed the checks that need no state; ``incomplete`` where members are
        missing from it.  Returns as ``Timeline.stage`` does.  Raises ``Unacceptable``, and
        ``NotAllowed`` for a join that the state forbids.  Caller holds the room lock.
        """
        await room.settle()
        room.check_sound()
        # Some servers count the join itself to the state; it gets its own place.
        state = [event for event in state if event.event_id != join.event_id]
        auth_chain = [event for event in auth_chain if event.event_id != join.event_id]
        create = _create_event(state)
        new, known = await self._known(room, [*auth_chain, *state], create)
        by_key = state_by_key([known[event.event_id] for event in state if event.event_id in known])
        missing_auth = [event_id for event_id in join.auth_events if event_id not in known]
        if missing_auth:
            raise Unacceptable("auth events of the join are missing")
        allowing = {key: stored.event for key, stored in by_key.items()}
        if incomplete is not None:
            allowing = cited_members(known[event_id] for event_id in join.auth_events) | allowing
        check_against_state(room.rules, join, lambda type_, key: allowing.get((type_, key)))
        join_key = await self._keys.intern(join.key)
        known_here = await room_storage.local_memberships_in(self._db.read, room.nid)
        auth_nids = tuple(known[event_id].nid for event_id in join.auth_events)
        stored_join, batch = self._import(
            room, join, new, state=by_key, join_key=join_key, auth_nids=auth_nids
        )
        _leave_out_unchanged(batch, known_here, join.sender)
        if incomplete is not None:
            self._begin_partial(room, batch, stored_join, incomplete)
        written = self._timeline.write(room, batch, [stored_join])
        # Until then the disk does not know them.
        written.add_done_callback(lambda _: _let_go_of_members(room))
        return written

    def _import(
        self,
        room: Room,
        join: Event,
        new: list[StoredEvent],
        *,
        state: Mapping[tuple[str, str], StoredEvent],
        join_key: int,
        auth_nids: tuple[int, ...],
    ) -> tuple[StoredEvent, Append]:
        """Give the room in memory this state with the join on top; the join, and what to write.

        Awaits nothing, and nothing may be awaited until it is written: it happens at once.
        """
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
            for key, stored in state.items()
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
            auth_nids=auth_nids,
            key_nid=join_key,
        )
        old = state.get(join.key)
        self._timeline.change_state(
            room, batch, [Change(key=join.key, key_nid=join_key, new=stored_join, old=old)], joined
        )
        batch.entries = list({entry.key_nid: entry for entry in batch.entries}.values())
        batch.new.append(stored_join)
        batch.missing.extend((event_id, joined) for event_id in join.prev_events)
        room.tips = (stored_join,)
        room.depth = join.depth
        room.last_pos = joined
        room.recent.clear()
        room.recent_after = imported
        room.remember(stored_join)
        return stored_join, batch

    async def _known(
        self, room: Room, events: Sequence[Event], create: Event
    ) -> tuple[list[StoredEvent], dict[str, StoredEvent]]:
        """What is still to be stored of the events, and all that is known of them by id.

        Few are left to the transaction of the join.  Many are stored before it, in several
        transactions, so that other writers get their turn; they do no harm when the join fails.
        """
        try:
            if len(events) <= BULK:
                return await self._outliers.judge(room.nid, room.rules, events, create)
            if not room.stored:
                await self._db.write(partial(room_storage.insert, room=room.row()))
                room.stored = True
            return [], await self._outliers.store(room.nid, room.rules, events, create)
        except ValueError as error:
            raise Unacceptable(str(error)) from error

    def _begin_partial(self, room: Room, batch: Append, join: StoredEvent, incomplete: PartialState) -> None:
        """Note that members are missing; each server is counted for one that is not known."""
        room.partial = Partial(join.nid, incomplete.resident)
        batch.also += [
            partial(partial_joins.add, room_nid=room.nid, join_nid=join.nid, resident=incomplete.resident),
            room.partial.note(join, None),
        ]
        for server in {incomplete.resident, *incomplete.servers_in_room} - {self._server_name}:
            room.servers[server] = batch.servers[server] = room.servers.get(server, 0) + 1


def _create_event(state: Sequence[Event]) -> Event:
    creates = [event for event in state if event.type == "m.room.create" and event.state_key == ""]
    if len(creates) != 1:
        raise Unacceptable("the state has no create event, or several")
    return creates[0]


def state_by_key(state: Iterable[StoredEvent]) -> dict[tuple[str, str], StoredEvent]:
    """The accepted ones of state events by their keys; ``Unacceptable`` for what is no state."""
    by_key: dict[tuple[str, str], StoredEvent] = {}
    for stored in state:
        if stored.event.state_key is None:
            raise Unacceptable("the state holds a message event")
        if stored.rejected:
            continue
        if by_key.setdefault(stored.event.key, stored) is not stored:
            raise Unacceptable("the state has two events for one key")
    return by_key


def _leave_out_unchanged(batch: Append, known_here: Mapping[str, str], joined: str) -> None:
    """For those whose membership is what it was, nothing has happened, least of all to what they forgot."""
    newest = {membership.user_id: membership for membership in batch.local_memberships}
    batch.local_memberships = [
        membership
        for user_id, membership in newest.items()
        if user_id == joined or known_here.get(user_id) != membership.membership
    ]


def _let_go_of_members(room: Room) -> None:
    # Whoever holds the lock may rely on those it asked for.
    if not room.lock.locked():
        room.members.clear()


def _empty(room: Room, imported: int) -> None:
    """Forget the state of an earlier stay; the log of that stay remains, in its own epoch."""
    if room.last_pos:
        room.epoch += 1
        room.epoch_start = imported
        room.state_changes = RecentChanges(imported)
    room.state = {}
    room.members = {}
    room.servers = {}
    room.joined_members = room.invited_members = 0
    room.checkpoint_ver = 0
    room.changes_since_checkpoint = 0
