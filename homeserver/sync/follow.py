"""What follows one client over time: the responses that it would get by syncing on and on.

For transports that are told news instead of asking for them.  Each response is what ``/sync`` answers
to the ``next_batch`` of the one before.  Nothing is queued: news are collected when the last ones have
been taken, so that whoever reads slowly is told more at once.  What was written to somebody has not
reached them yet: messages to a device stay until it comes back with a token that shows it to have them.
Specification: client-server API, "Syncing".
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias

import msgspec

from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.memberships import Memberships
from homeserver.sync.notifier import Notifier
from homeserver.sync.positions import SyncToken
from homeserver.sync.request import SyncRequest
from homeserver.sync.watch import Watches, Watching
from homeserver.users.presence import Presence

_KEY_COUNTS = ("device_one_time_keys_count", "device_unused_fallback_key_types")

#: The response to a request as of now, and whether it tells anything.
Collect: TypeAlias = Callable[[SyncRequest], Awaitable[tuple[dict[str, Any], bool]]]


class Follow:
    """Streams of responses."""

    def __init__(
        self,
        *,
        collect: Collect,
        memberships: Memberships,
        presence: Presence,
        lazy_members: LazyMembers,
        notifier: Notifier,
        watches: Watches,
    ) -> None:
        self._collect = collect
        self._memberships = memberships
        self._presence = presence
        self._lazy_members = lazy_members
        self._notifier = notifier
        self._watches = watches
        self._numbers = itertools.count()

    @property
    def closing(self) -> bool:
        """Whether streams end because the server stops."""
        return self._notifier.closing

    async def responses(
        self, request: SyncRequest, *, pause: float, lifetime: float
    ) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Every response there is, the first at once where the request has no token or wants the full state.

        ``None`` after each ``pause`` seconds without one, and where something happened that leaves nothing
        to tell: it may have been that the user was logged out.  Ends after ``lifetime`` seconds, or when the
        server stops; raises what the user's waiting is dismissed with.  ``timeout_ms`` counts for nothing.
        """
        # No device has an id with a NUL, which no JSON that is taken in may hold.
        request = msgspec.structs.replace(request, stream=f"\0{next(self._numbers)}")
        await self._presence.synced(request.user_id, request.set_presence, request.device_id)
        self._lazy_members.begin(*request.shown_to, None)
        stays = request.set_presence != "offline"
        if stays:
            self._presence.sync_begins(request.user_id, request.device_id)
        try:
            rooms = await self._memberships.of(request.user_id)
            with self._watches.watching(request.user_id, rooms.joined) as waiter:
                async with aclosing(self._news(request, waiter, pause, lifetime)) as news:
                    async for response in news:
                        yield response
        finally:
            self._lazy_members.forget(*request.shown_to)
            if stays:
                self._presence.sync_ends(request.user_id, request.device_id)

    async def _news(
        self, request: SyncRequest, waiter: Watching, pause: float, lifetime: float
    ) -> AsyncGenerator[dict[str, Any] | None, None]:
        """Register (done), read, wait, and register anew before reading again."""
        loop = asyncio.get_running_loop()
        deadline, quiet_until = loop.time() + lifetime, loop.time() + pause
        keys: object = None
        for is_first in itertools.chain((True,), itertools.repeat(False)):
            await self._notifier.senders.answered()
            response, has_news = await self._collect(request)
            had, keys = keys, [response[name] for name in _KEY_COUNTS]
            is_asked_for = is_first and (request.since is None or request.full_state)
            # Who asks again and again is told of keys that were taken when their time to wait is over.
            has_lost_keys = not is_first and keys != had
            if has_news or is_asked_for or has_lost_keys:
                yield response
                quiet_until = loop.time() + pause
            elif not is_first:
                yield None
            token = SyncToken.parse(response["next_batch"])
            request = msgspec.structs.replace(request, since=token, full_state=False, has_received=False)
            while not await waiter.wait(min(quiet_until, deadline) - loop.time()):
                if self._notifier.closing or loop.time() >= deadline:
                    return
                yield None
                quiet_until = loop.time() + pause
            if self._notifier.closing or loop.time() >= deadline:
                return
            waiter.reset((await self._memberships.of(request.user_id)).joined)
