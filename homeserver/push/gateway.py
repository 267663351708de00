"""Pushing over HTTP: one request an event, to the gateway that the pusher names.

Specification: push gateway API; client-server API, "Push Notifications".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from homeserver.push.badge import Badges
from homeserver.push.line import Line, Work
from homeserver.push.notification import badge_notification, event_notification, is_rejected
from homeserver.push.waiting import Waiting

_TIMEOUT_SECONDS: Final = 30.0
_MAX_ANSWER: Final = 65_536
#: Requests at the same time, and to one gateway, so that a slow one keeps nobody else waiting.
_MAX_AT_ONCE: Final = 200
_MAX_PER_GATEWAY: Final = 20


class PushFailed(Exception):
    """A push did not arrive; it is to be tried again."""


class PusherRejected(Exception):
    """The pusher leads nowhere, and is to be removed."""


class Posts(Protocol):
    """Asks HTTP servers; ``egress.py`` fulfils it."""

    async def post_json(
        self,
        url: str,
        body: Any,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float = ...,
        max_bytes: int = ...,
    ) -> tuple[int, Any]:
        """Status and JSON of the answer; raises ``RemoteError``."""
        ...


class Advances(Protocol):
    """Stores how far a pusher is."""

    async def __call__(self, line: Line, pos: int) -> None: ...


class GatewayPush:
    """Pushes to gateways."""

    def __init__(self, *, posts: Posts, waiting: Waiting, badges: Badges, advance: Advances) -> None:
        self._posts = posts
        self._waiting = waiting
        self._badges = badges
        self._advance = advance
        self._free = asyncio.Semaphore(_MAX_AT_ONCE)
        self._gateways: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def work(self, line: Line, work: Work, upto: int) -> int | None:
        """Push what waits, each event once.  Raises ``PushFailed`` and ``PusherRejected``."""
        user_id = line.pusher.user_id
        has_pushed = False
        for told in await self._waiting.of(user_id, work, line.pos, upto):
            if line.gone:
                return None
            unread = await self._badges.of(user_id)
            await self._post(line, event_notification(line.pusher, line.data, told, unread))
            line.told = unread
            has_pushed = True
            await self._advance(line, told.pos)
        if work.badge and not has_pushed:
            unread = await self._badges.of(user_id)
            if line.told is None or unread < line.told:
                await self._post(line, badge_notification(line.pusher, line.data, unread))
                line.told = unread
        return None

    async def _post(self, line: Line, body: Mapping[str, Any]) -> None:
        url = str(line.data.get("url"))
        host = urlsplit(url).netloc
        gateway = self._gateways.get(host)
        if gateway is None:
            gateway = self._gateways[host] = asyncio.Semaphore(_MAX_PER_GATEWAY)
        async with gateway, self._free:
            status, answer = await self._posts.post_json(
                url, body, timeout=_TIMEOUT_SECONDS, max_bytes=_MAX_ANSWER
            )
        if not 200 <= status < 300:
            raise PushFailed(f"{host} answered {status}")
        line.worked()
        if is_rejected(line.pusher, answer):
            raise PusherRejected(host)
