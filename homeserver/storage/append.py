"""Storing what the write path decided: one transaction, whatever kinds of rows it takes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from homeserver.protocol.events import StateKey
from homeserver.storage import (
    event_media,
    events,
    redacted_content,
    relations,
    rooms,
    search,
    state,
    sticky_events,
    transaction_ids,
)
from homeserver.storage.database import Transaction
from homeserver.storage.event_media import Naming
from homeserver.storage.events import StoredEvent
from homeserver.storage.rooms import LocalMembership, RoomRow
from homeserver.storage.rows import Rows, RowsWork
from homeserver.storage.state import CurrentEntry, Overlay, StateChange
from homeserver.storage.sticky_events import Sticky
from homeserver.storage.transaction_ids import SentAs

#: More work for the same transaction: the transaction id of a request, a room's alias.
Also: TypeAlias = Callable[[Transaction], Awaitable[object]]


class Redacted(msgspec.Struct):
    """An event to be emptied, by which redaction, and what is left of it."""

    stored: StoredEvent
    redaction_nid: int


class Append(msgspec.Struct, eq=False):
    """Rows to be written together; what has no value yet is made empty, each time anew."""

    #: ``last_pos`` before; ``None`` for a room that has no row yet.
    expected_last_pos: int | None
    #: The room's row after everything below; set when the batch is complete.
    room: RoomRow = msgspec.UNSET  # type: ignore[assignment]
    keys: Mapping[int, StateKey] = {}
    #: Events that are new here, auth events first.
    new: list[StoredEvent] = []
    #: Events that were outliers and get their place now.
    placed: list[StoredEvent] = []
    overlays: list[Overlay] = []
    #: The current state is replaced as a whole (a new epoch).
    clear_state: bool = False
    changes: list[StateChange] = []
    entries: list[CurrentEntry] = []
    local_memberships: list[LocalMembership] = []
    servers: dict[str, int] = {}
    arrived: list[str] = []
    missing: list[tuple[str, int]] = []
    redacted: list[Redacted] = []
    #: Until when what these were is kept, in milliseconds since the epoch; ``None``: it is not.
    keep_redacted_until: int | None = None
    pending_redactions: list[tuple[str, int]] = []
    sticky: list[Sticky] = []
    #: What the events above name of this server's media; and what the redacted ones still do.
    names: list[Naming] = []
    names_left: list[Naming] = []
    also: list[Also] = []


class Store(RowsWork):
    """An ``Append`` as a work; messages queued one behind the other are stored together."""

    __slots__ = ("append",)

    def __init__(self, append: Append) -> None:
        self.append = append

    async def __call__(self, tx: Transaction) -> None:
        await store(tx, self.append)

    def is_rows(self) -> bool:
        """True of what most appends are: a message or more, with their transaction ids."""
        append = self.append
        ids = {stored.id for stored in append.new} if append.also else ()
        return not (
            append.expected_last_pos is None
            or append.keys
            or append.placed
            or append.overlays
            or append.clear_state
            or append.changes
            or append.entries
            or append.local_memberships
            or append.servers
            or append.missing
            or append.redacted
            or append.pending_redactions
            or append.sticky
            or append.names
            or _out_of_turn(append)
            or not all(isinstance(more, SentAs) and more.event_id in ids for more in append.also)
            or not all(relations.is_rows(stored) for stored in append.new)
        )

    @classmethod
    def rows_of(cls, works: Sequence[Store]) -> list[Rows] | None:
        """See ``RowsWork``; those of one room have to follow upon each other."""
        appends = [work.append for work in works]
        moves = rooms.moves([(append.room, append.expected_last_pos or 0) for append in appends])
        if moves is None:
            return None
        new = [stored for append in appends for stored in append.new]
        nids = {stored.id: stored.nid for stored in new}
        sent = [more for append in appends for more in append.also if isinstance(more, SentAs)]
        statements = [
            moves,
            *events.rows(new),
            relations.rows(new),
            *transaction_ids.rows([(one, nids[one.event_id]) for one in sent]),
            events.no_longer_missing(
                [(append.room.nid, each) for append in appends for each in append.arrived]
            ),
        ]
        return [statement for statement in statements if statement.rows]


async def store(tx: Transaction, append: Append) -> None:
    """Write an ``Append``; raises ``StaleRoomError`` when the room has moved on since."""
    room = append.room
    if append.expected_last_pos is None:
        await rooms.insert(tx, room)
    else:
        await rooms.advance(tx, room, append.expected_last_pos)
    if append.keys:
        await state.add_keys(tx, append.keys.items())
    if append.new:
        await events.insert(tx, append.new)
        await relations.add(tx, append.new)
    for stored in append.placed:
        await events.place(tx, stored)
    await relations.replace(tx, append.placed)
    await search.look_again(tx, _out_of_turn(append))
    for overlay in append.overlays:
        await state.add_overlay(tx, overlay)
    await _store_state(tx, append)
    if append.local_memberships:
        await rooms.set_local_memberships(tx, append.local_memberships)
    if append.servers:
        await rooms.set_servers(tx, room.nid, append.servers, room.last_pos)
    if append.arrived:
        await events.remove_missing(tx, room.nid, append.arrived)
    for event_id, wanted_by in append.missing:
        await events.add_missing(tx, room.nid, [event_id], wanted_by)
    if append.names:
        await event_media.add(tx, append.names)
    if append.redacted:
        await event_media.remove(tx, [emptied.stored.nid for emptied in append.redacted])
        await event_media.add(tx, append.names_left)
    for emptied in append.redacted:
        if append.keep_redacted_until is not None:
            await redacted_content.keep(tx, emptied.stored.nid, append.keep_redacted_until)
        await events.redact(tx, emptied.stored.nid, emptied.stored.event.json, emptied.redaction_nid)
        await relations.remove(tx, emptied.stored.nid)
    if append.redacted:
        await search.forget(tx, [emptied.stored.nid for emptied in append.redacted])
    for redacts, nid in append.pending_redactions:
        await events.add_pending_redaction(tx, redacts, nid)
    if append.sticky:
        await sticky_events.put(tx, append.sticky)
    for more in append.also:
        await more(tx)


def _out_of_turn(append: Append) -> list[StoredEvent]:
    """Events that who follows the stream does not come by."""
    last = append.expected_last_pos or 0
    return [*append.placed, *[one for one in append.new if one.pos is not None and one.pos <= last]]


async def _store_state(tx: Transaction, append: Append) -> None:
    if append.clear_state:
        await state.clear_current(tx, append.room.nid)
        await rooms.clear_servers(tx, append.room.nid, append.room.last_pos)
    if append.changes:
        await state.log(tx, append.room.nid, append.room.epoch, append.changes)
    if append.entries:
        await state.set_current(tx, append.room.nid, append.entries)
