"""Reports of rooms, events and users: kept for those who run the server, and told to nobody else.

What becomes of a report is for people to decide: nothing is hidden or removed because of one.
Specification: client-server API, "Reporting Content".
"""

from __future__ import annotations

from functools import partial

import structlog

from homeserver.clock import Clock
from homeserver.errors import MatrixError, invalid_param, not_found
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.rooms.history import History
from homeserver.rooms.rooms import Rooms
from homeserver.storage import reports, users
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.reports import Report

_log = structlog.get_logger()

MAX_REASON_CHARS = 10_000


class Reports:
    """Takes reports of local users.  A reason may be empty; ``M_INVALID_PARAM`` for one that is too long."""

    def __init__(
        self, *, db: Database, rooms: Rooms, history: History, clock: Clock, server_name: str
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._history = history
        self._clock = clock
        self._server_name = server_name

    async def report_room(self, reporter: str, room_id: str, reason: str) -> None:
        """Report a room, whether or not the reporter is in it; ``M_NOT_FOUND`` for one not heard of here."""
        if await self._rooms.find(room_id) is None:
            raise not_found("The room was not found")
        await self._keep(reporter, reason, room_id=room_id)

    async def report_event(self, reporter: str, room_id: str, event_id: str, reason: str) -> None:
        """Report an event in a room that the reporter is joined to.

        ``M_NOT_FOUND`` for an event they cannot see, and wherever they are not joined.
        """
        refusal = not_found("The event was not found, or you are not joined to the room")
        room = await self._rooms.find(room_id)
        member = room and await room_storage.local_membership(self._db.read, reporter, room.nid)
        if not member or member.membership != "join":
            raise refusal
        try:
            _, seen = await self._history.event(reporter, room_id, event_id)
        except MatrixError as error:
            raise refusal from error
        await self._keep(
            reporter, reason, room_id=room_id, event_id=event_id, user_id=seen.stored.event.sender
        )

    async def report_user(self, reporter: str, user_id: str, reason: str) -> None:
        """Report a user; nothing tells whether there is one.  ``M_INVALID_PARAM`` for what is no user id."""
        if not is_user_id(user_id):
            raise invalid_param("That is not a user ID")
        is_local = server_name_of(user_id) == self._server_name
        if not is_local or await users.exists(self._db.read, user_id):
            await self._keep(reporter, reason, user_id=user_id)

    async def _keep(
        self, reporter: str, reason: str, *, room_id: str = "", event_id: str = "", user_id: str = ""
    ) -> None:
        if len(reason) > MAX_REASON_CHARS:
            raise invalid_param(f"A reason has at most {MAX_REASON_CHARS} characters")
        report = Report(reporter, room_id, event_id, user_id, reason, self._clock.now_ms())
        await self._db.write(partial(reports.put, report=report))
        _log.info("reported", reporter=reporter, room_id=room_id, event_id=event_id, user_id=user_id)
