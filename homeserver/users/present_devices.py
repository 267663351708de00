"""How present each device of a user is; the most present one counts for the user."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

PresenceState: TypeAlias = Literal["online", "unavailable", "offline"]
#: The more present before the less.
STATES: tuple[PresenceState, ...] = ("online", "unavailable", "offline")

#: Milliseconds without a sync after which a device is offline.
OFFLINE_AFTER_MS = 30_000
#: More devices of a user are not told apart.
_MAX_DEVICES = 50


class _Device(msgspec.Struct):
    state: PresenceState
    #: Milliseconds since the epoch.
    seen_at: int
    #: Long polls that wait for it.
    syncing: int = 0

    def is_there(self, now: int) -> bool:
        return self.syncing > 0 or now - self.seen_at <= OFFLINE_AFTER_MS


class PresentDevices:
    """The devices of local users that are not offline."""

    def __init__(self) -> None:
        self._of_user: dict[str, dict[str | None, _Device]] = {}

    def said(self, user_id: str, device_id: str | None, state: PresenceState, now: int) -> None:
        """A device says how present it is, at a time in milliseconds since the epoch."""
        device = self._device(user_id, device_id, now)
        device.state, device.seen_at = state, now

    def sync_begins(self, user_id: str, device_id: str | None, now: int) -> None:
        """A long poll waits for a device."""
        self._device(user_id, device_id, now).syncing += 1

    def sync_ends(self, user_id: str, device_id: str | None, now: int) -> None:
        """That long poll has ended."""
        device = self._device(user_id, device_id, now)
        device.syncing, device.seen_at = max(0, device.syncing - 1), now

    def all_become(self, user_id: str, state: PresenceState) -> None:
        """Those of a user's devices that are not offline change their state."""
        for device in self._of_user.get(user_id, {}).values():
            if device.state != "offline":
                device.state = state

    def state(self, user_id: str, now: int) -> PresenceState:
        """How present a user is; devices that have not been heard of are forgotten."""
        devices = self._of_user.get(user_id, {})
        for device_id in [each for each, device in devices.items() if not device.is_there(now)]:
            del devices[device_id]
        if not devices:
            self._of_user.pop(user_id, None)
        return min((device.state for device in devices.values()), key=STATES.index, default="offline")

    def _device(self, user_id: str, device_id: str | None, now: int) -> _Device:
        devices = self._of_user.setdefault(user_id, {})
        if device_id not in devices and len(devices) >= _MAX_DEVICES:
            device_id = None
        return devices.setdefault(device_id, _Device("offline", now))
