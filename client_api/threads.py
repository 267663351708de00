"""Subscriptions to threads (MSC4306), changes to them (MSC4308), and threads with something new (MSC4360)."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.errors import missing_param
from homeserver.replies import Reply
from homeserver.rooms.thread_subscriptions import ThreadSubscriptions
from homeserver.rooms.thread_updates import MAX_UPDATES, UpdatedThreads
from homeserver.sync.memberships import Memberships
from homeserver.sync.notifier import Notifier
from homeserver.sync.positions import SyncToken
from homeserver.sync.thread_subscriptions import MAX_CHANGES, changes_as_json
from homeserver.sync.thread_updates import ThreadUpdateWriter
from homeserver.web import Request


class _Subscribe(msgspec.Struct):
    #: The event for which a client subscribes its user; none where the user does.
    automatic: str | None = None


class ThreadsApi:
    """Endpoints about threads in all rooms of the user who asks."""

    def __init__(
        self,
        subscriptions: ThreadSubscriptions,
        threads: UpdatedThreads,
        writer: ThreadUpdateWriter,
        memberships: Memberships,
        notifier: Notifier,
    ) -> None:
        self._subscriptions = subscriptions
        self._threads = threads
        self._writer = writer
        self._memberships = memberships
        self._notifier = notifier

    async def subscription(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/thread/{threadRootId}/subscription``."""
        return {"automatic": (await self._subscriptions.get(*_named(request))).automatic}

    async def subscribe(self, request: Request) -> Reply:
        """``PUT /rooms/{roomId}/thread/{threadRootId}/subscription``."""
        cause_id = request.decode(_Subscribe, empty_ok=True).automatic
        await self._subscriptions.subscribe(*_named(request), cause_id)
        return {}

    async def unsubscribe(self, request: Request) -> Reply:
        """``DELETE /rooms/{roomId}/thread/{threadRootId}/subscription``."""
        await self._subscriptions.unsubscribe(*_named(request))
        return {}

    async def changes(self, request: Request) -> Reply:
        """``GET /thread_subscriptions``: a page of changes, the newest first."""
        start, to, limit = _backwards(request, self._notifier.position, MAX_CHANGES)
        changed = await self._subscriptions.changed(request.requester.user_id, to, start, limit)
        reply: dict[str, Any] = changes_as_json(changed)
        if changed.end is not None:
            reply["end"] = str(SyncToken(changed.end))
        return reply

    async def updates(self, request: Request) -> Reply:
        """``GET /thread_updates``: a page of threads, those spoken in last first."""
        start, to, limit = _backwards(request, self._notifier.position, MAX_UPDATES)
        requester = request.requester
        rooms = await self._memberships.at(requester.user_id, self._notifier.position)
        found = await self._threads.between(requester.user_id, rooms.joined, to, start, limit)
        reply: dict[str, Any] = {
            "chunk": await self._writer.write(requester.user_id, requester.device_id, found, roots=True)
        }
        if found.end is not None:
            reply["next_batch"] = str(SyncToken(found.end))
        return reply


def _backwards(request: Request, newest: int, most: int) -> tuple[int, int, int]:
    """Where a page that can only be asked for backwards begins and ends, and how much it holds.

    ``M_MISSING_PARAM`` without ``dir``, ``M_INVALID_PARAM`` for another one, and for what is no token.
    """
    if "dir" not in request.query:
        raise missing_param("'dir' is missing: it is always 'b'")
    request.query_choice("dir", "b", ("b",))
    start, to = request.query.get("from"), request.query.get("to")
    return (
        min(SyncToken.parse(start).pos, newest) if start else newest,
        SyncToken.parse(to).pos if to else 0,
        request.query_int("limit", most, minimum=1, maximum=most),
    )


def _named(request: Request) -> tuple[str, str, str]:
    return request.requester.user_id, request.params["roomId"], request.params["threadRootId"]
