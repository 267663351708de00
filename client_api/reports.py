"""Reporting rooms, events and users (client-server API, "Reporting Content")."""

from __future__ import annotations

import msgspec

from homeserver.replies import Reply
from homeserver.rooms.reports import Reports
from homeserver.web import Request


class _Report(msgspec.Struct, frozen=True):
    reason: str


class _EventReport(msgspec.Struct, frozen=True):
    #: COMPAT: some clients send null for no reason.
    reason: str | None = None


class ReportsApi:
    """Endpoints that take reports."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    async def room(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/report``."""
        reason = request.decode(_Report).reason
        await self._reports.report_room(request.requester.user_id, request.params["roomId"], reason)
        return {}

    async def event(self, request: Request) -> Reply:
        """``POST /rooms/{roomId}/report/{eventId}``."""
        reason = request.decode(_EventReport).reason or ""
        room_id, event_id = request.params["roomId"], request.params["eventId"]
        await self._reports.report_event(request.requester.user_id, room_id, event_id, reason)
        return {}

    async def user(self, request: Request) -> Reply:
        """``POST /users/{userId}/report``."""
        reason = request.decode(_Report).reason
        await self._reports.report_user(request.requester.user_id, request.params["userId"], reason)
        return {}
