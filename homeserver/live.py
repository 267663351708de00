"""The streams that are open: how many there may be, and what operators see of them.

Knows who has how many, and nothing of what runs over them.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

import msgspec
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


_Device: TypeAlias = tuple[str, "str | None"]


class LiveStream(msgspec.Struct, eq=False):
    """An open stream: the seconds it may last, and why it ended, once it is known."""

    transport: str
    lifetime: float
    reason: str = "cut off"
    is_replaced: bool = False
    _end: Callable[[], None] | None = None

    def ends_by(self, end: Callable[[], None] | None) -> None:
        """``end`` is called, once at most, when a newer stream takes this one's place."""
        self._end = end
        if self.is_replaced and end is not None:
            end()

    def replace(self) -> None:
        """A newer stream takes this one's place."""
        self.is_replaced = True
        if self._end is not None:
            self._end()


class LiveStreams:
    """Counts the open streams of each transport.

    A device that has one too many loses its oldest: a client that comes back often, before the server has
    noticed that its last connections are gone, is not locked out by them.
    """

    def __init__(self, settings: Live | None = None) -> None:
        self.settings = settings or Live()
        #: How many are open, by transport.
        self.by_transport: Counter[str] = Counter()
        self._by_user: Counter[str] = Counter()
        #: The oldest first.
        self._by_device: defaultdict[_Device, dict[LiveStream, None]] = defaultdict(dict)

    @contextmanager
    def open(self, transport: str, requester: Requester) -> Iterator[LiveStream]:
        """A stream of a user's device, while the context lasts.

        ``M_UNRECOGNIZED`` where they are switched off, ``M_LIMIT_EXCEEDED`` for one too many of a device
        that has none.
        """
        user_id = requester.user_id
        device = (user_id, requester.device_id)
        self.check_enabled()
        self._make_room(device)
        stream = LiveStream(transport, self.settings.lifetime * (1 - _SPREAD * random.random()))
        self._add(device, stream)
        started = time.monotonic()
        log.info("live stream opened", user=user_id, transport=transport)
        try:
            yield stream
        finally:
            self._remove(device, stream)
            seconds = round(time.monotonic() - started, 1)
            log.info(
                "live stream closed", user=user_id, transport=transport, reason=stream.reason, seconds=seconds
            )

    def check_enabled(self) -> None:
        """``M_UNRECOGNIZED`` where they are switched off."""
        if not self.settings.enabled:
            raise MatrixError(404, "M_UNRECOGNIZED", "This server has no live streams")

    def _make_room(self, device: _Device) -> None:
        while self._is_full(device):
            oldest = next(iter(self._by_device.get(device, ())), None)
            if oldest is None:
                raise limit_exceeded(_COME_BACK_MS)
            self._remove(device, oldest)
            oldest.replace()

    def _is_full(self, device: _Device) -> bool:
        settings = self.settings
        return (
            self.by_transport.total() >= settings.max_streams
            or self._by_user[device[0]] >= settings.max_streams_per_user
            or len(self._by_device.get(device, ())) >= settings.max_streams_per_device
        )

    def _add(self, device: _Device, stream: LiveStream) -> None:
        self._by_device[device][stream] = None
        self._by_user[device[0]] += 1
        self.by_transport[stream.transport] += 1

    def _remove(self, device: _Device, stream: LiveStream) -> None:
        """Count a stream no more, unless that was done when it was replaced."""
        if stream not in self._by_device.get(device, ()):
            return
        del self._by_device[device][stream]
        self.by_transport[stream.transport] -= 1
        self._by_user[device[0]] -= 1
        if not self._by_device[device]:
            del self._by_device[device]
        if not self._by_user[device[0]]:
            del self._by_user[device[0]]
