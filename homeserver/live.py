"""The streams that are open: how many there may be, and what operators see of them.

Knows who has how many, and nothing of what runs over them.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from homeserver.config.live import Live
from homeserver.errors import MatrixError, limit_exceeded
from homeserver.users.requester import Requester

log = structlog.get_logger(__name__)

EVENT_SOURCE: Final = "event_source"
WEB_SOCKET: Final = "web_socket"
TRANSPORTS: Final = (EVENT_SOURCE, WEB_SOCKET)

#: Streams end after their lifetime or up to so much less, so that not all clients come back at once.
_SPREAD = 0.2
_COME_BACK_MS = 10_000


@dataclass(slots=True)
class LiveStream:
    """An open stream: the seconds it may last, and why it ended, once it is known."""

    lifetime: float
    reason: str = "cut off"


class LiveStreams:
    """Counts the open streams of each transport."""

    def __init__(self, settings: Live | None = None) -> None:
        self.settings = settings or Live()
        #: How many are open, by transport.
        self.by_transport: Counter[str] = Counter()
        self._by_user: Counter[str] = Counter()
        self._by_device: Counter[tuple[str, str | None]] = Counter()

    @contextmanager
    def open(self, transport: str, requester: Requester) -> Iterator[LiveStream]:
        """A stream of a user's device, while the context lasts.

        ``M_UNRECOGNIZED`` where they are switched off, ``M_LIMIT_EXCEEDED`` for one too many.
        """
        user_id = requester.user_id
        device = (user_id, requester.device_id)
        self._check(user_id, device)
        self._count(transport, device, 1)
        lifetime = self.settings.lifetime
        stream = LiveStream(lifetime * (1 - _SPREAD * random.random()))
        started = time.monotonic()
        log.info("live stream opened", user=user_id, transport=transport)
        try:
            yield stream
        finally:
            self._count(transport, device, -1)
            seconds = round(time.monotonic() - started, 1)
            log.info(
                "live stream closed", user=user_id, transport=transport, reason=stream.reason, seconds=seconds
            )

    def check_enabled(self) -> None:
        """``M_UNRECOGNIZED`` where they are switched off."""
        if not self.settings.enabled:
            raise MatrixError(404, "M_UNRECOGNIZED", "This server has no live streams")

    def _check(self, user_id: str, device: tuple[str, str | None]) -> None:
        self.check_enabled()
        settings = self.settings
        if (
            self.by_transport.total() >= settings.max_streams
            or self._by_user[user_id] >= settings.max_streams_per_user
            or self._by_device[device] >= settings.max_streams_per_device
        ):
            raise limit_exceeded(_COME_BACK_MS)

    def _count(self, transport: str, device: tuple[str, str | None], change: int) -> None:
        self.by_transport[transport] += change
        self._by_user[device[0]] += change
        self._by_device[device] += change
        if not self._by_device[device]:
            del self._by_device[device]
        if not self._by_user[device[0]]:
            del self._by_user[device[0]]
