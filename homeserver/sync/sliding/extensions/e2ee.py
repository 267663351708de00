"""What end-to-end encryption needs beside messages: the ``e2ee`` extension.

Device lists as ``/sync`` has them; key counts when they are others than were told.
Specification: MSC3884.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from homeserver.e2e.key_counts import KeyCounts
from homeserver.sync.sliding.extension import SlidingReading

_NAME = "e2ee"


class DeviceLists(Protocol):
    """Knows whose devices changed; ``sync/sync.py`` fulfils it."""

    async def device_lists(self, user_id: str, since: int, upto: int) -> tuple[list[str], list[str]]:
        """Users whose devices changed between two positions, and those no room is shared with any more."""
        ...


class EncryptionExtension:
    """Tells a device whose devices changed, and what keys of its own are left."""

    names = (_NAME,)

    def __init__(self, device_lists: DeviceLists, key_counts: KeyCounts) -> None:
        self._device_lists = device_lists
        self._key_counts = key_counts

    async def collect(
        self, asked: Mapping[str, Any], reading: SlidingReading
    ) -> tuple[dict[str, Any] | None, bool]:
        """See ``Extension``."""
        told: dict[str, Any] = {}
        if reading.since is not None:
            changed, left = await self._device_lists.device_lists(
                reading.user_id, reading.since.pos, reading.now.pos
            )
            if changed or left:
                told["device_lists"] = {"changed": changed, "left": left}
        counts = await self._key_counts.of(reading.user_id, reading.device_id)
        before = reading.memory.get(_NAME)
        if before is None or before.one_time_keys != counts.one_time_keys:
            told["device_one_time_keys_count"] = counts.one_time_keys
        if before is None or before.unused_fallback_types != counts.unused_fallback_types:
            told["device_unused_fallback_key_types"] = counts.unused_fallback_types
        reading.memory[_NAME] = counts
        return told or None, bool(told)
