"""Connections of sliding sync: what each was told, at the last two positions it was given.

In memory: after a restart, or when a connection was long silent, its position is unknown
(``M_UNKNOWN_POS``) and the client begins anew, as the proposal has it.
Specification: MSC4186, "Connections".
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from homeserver.clock import Clock
from homeserver.errors import MatrixError
from homeserver.sync.positions import SyncToken
from homeserver.sync.sliding.recency import RecencyList
from homeserver.sync.sliding.request import RoomConfig

#: How long a connection is kept that nobody uses.
IDLE_S = 12 * 3600.0
#: Of one device; the one that was silent longest goes first.
MOST_OF_DEVICE = 10
#: Of the whole server; and what all of them together may remember, in rooms.
MOST = 20_000
MOST_ROOMS = 2_000_000

Device: TypeAlias = tuple[str, str | None]


class SentRoom(msgspec.Struct, frozen=True, gc=False):
    """What a connection was told of a room."""

    #: The position everything was told up to.
    upto: int
    membership: str
    config: RoomConfig
    #: How many of the newest events were told without a gap, and whether that is all there are.
    shown: int
    shown_all: bool
    bump_stamp: int | None = None
    is_dm: bool = False
    #: Unread notifications and highlights, where they were told.
    unread: tuple[int, int] | None = None
    #: The members that were told because the timeline needed them: user id to event number.
    members: Mapping[str, int] = {}


class SeenList(msgspec.Struct, frozen=True, gc=False):
    """A list as it was when its rooms were told."""

    rooms: RecencyList
    changes: int
    ranges: tuple[tuple[int, int], ...] | None
    config: RoomConfig


class Place(msgspec.Struct):
    """What a connection knows at one of its positions."""

    number: int
    token: SyncToken
    #: Lists all of whose rooms are told.
    lists: Mapping[str, SeenList] = msgspec.field(default_factory=dict)
    direct: frozenset[str] = frozenset()
    #: What extensions keep.
    memory: Mapping[str, Any] = msgspec.field(default_factory=dict)
    #: What was told on the way here.
    told: Mapping[int, SentRoom] = msgspec.field(default_factory=dict)


class Connection:
    """One loop of requests of one device.

    A request that names the position before the newest is answered as the one before it was:
    only a request that names the newest shows that its response arrived.
    """

    def __init__(self, device: Device, conn_id: str, now: float) -> None:
        self.device = device
        self.conn_id = conn_id
        self.used = now
        #: Held by the request that reads.
        self.lock = asyncio.Lock()
        #: Grows with every request: whoever finds a greater one than their own is too late.
        self.turn = 0
        #: What was told up to ``_arrived``, by room number.
        self.sent: dict[int, SentRoom] = {}
        #: How many rooms it was counted to remember.
        self.weight = 0
        self._mark = secrets.token_hex(6)
        self._arrived: Place | None = None
        self._given: Place | None = None

    def take_turn(self) -> int:
        """Begin a request: those before it are over."""
        self.turn += 1
        return self.turn

    def resume(self, pos: str | None) -> Place | None:
        """Go on from a position, with what was told up to it; ``None`` at the beginning.

        Raises ``M_UNKNOWN_POS``.
        """
        if pos is None:
            return None
        number = self._number(pos)
        if self._given is not None and number == self._given.number:
            self.sent.update(self._given.told)
            self._arrived, self._given = self._given, None
            self._arrived.told = {}
        elif self._arrived is None or number != self._arrived.number:
            raise unknown_pos()
        return self._arrived

    def give(self, place: Place) -> str:
        """The response that leads to a place is given; its position."""
        self._given = place
        return f"{place.token}~{self._mark}.{place.number}"

    def knows(self, pos: str) -> bool:
        """Whether a position is one of this connection's."""
        return pos.partition("~")[2].startswith(f"{self._mark}.")

    def _number(self, pos: str) -> int:
        digits = pos.rpartition(".")[2]
        if not self.knows(pos) or not digits.isascii() or not digits.isdecimal() or len(digits) > 18:
            raise unknown_pos()
        return int(digits)


class Connections:
    """All connections there are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: Those used last at the end.
        self._all: OrderedDict[tuple[Device, str], Connection] = OrderedDict()
        self._by_device: dict[Device, OrderedDict[str, Connection]] = {}
        self._weight = 0

    def open(self, device: Device, conn_id: str) -> Connection:
        """A new connection, in place of one of the same name."""
        self._close(device, conn_id)
        connection = Connection(device, conn_id, self._clock.monotonic())
        self._all[device, conn_id] = connection
        of_device = self._by_device.setdefault(device, OrderedDict())
        of_device[conn_id] = connection
        if len(of_device) > MOST_OF_DEVICE:
            self._close(device, next(iter(of_device)))
        self.clean_up()
        return connection

    def find(self, device: Device, conn_id: str, pos: str) -> Connection:
        """The connection that a position is of.  Raises ``M_UNKNOWN_POS``."""
        self.clean_up()
        connection = self._all.get((device, conn_id))
        if connection is None or not connection.knows(pos):
            raise unknown_pos()
        connection.used = self._clock.monotonic()
        self._all.move_to_end((device, conn_id))
        self._by_device[device].move_to_end(conn_id)
        return connection

    def weigh(self, connection: Connection) -> None:
        """Take into account what a connection remembers by now."""
        if self._all.get((connection.device, connection.conn_id)) is connection:
            self._weight += len(connection.sent) - connection.weight
            connection.weight = len(connection.sent)

    def clean_up(self) -> None:
        """Let go of what nobody uses any more."""
        eldest = self._clock.monotonic() - IDLE_S
        while self._all:
            (device, conn_id), connection = next(iter(self._all.items()))
            fits = len(self._all) <= MOST and self._weight <= MOST_ROOMS
            if connection.used >= eldest and fits:
                return
            self._close(device, conn_id)

    def _close(self, device: Device, conn_id: str) -> None:
        connection = self._all.pop((device, conn_id), None)
        if connection is None:
            return
        connection.take_turn()
        self._weight -= connection.weight
        of_device = self._by_device[device]
        del of_device[conn_id]
        if not of_device:
            del self._by_device[device]


def unknown_pos() -> MatrixError:
    """400 ``M_UNKNOWN_POS``."""
    return MatrixError(400, "M_UNKNOWN_POS", "The position is not known (any more): begin anew")
