"""Devices of people who use matrix-nio with encryption."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import nio

PASSWORD = "correct horse battery staple"
_PATIENCE_S = 20.0

T = TypeVar("T")


def expect(answer: object, kind: type[T]) -> T:
    """The answer, which must be of that kind."""
    assert isinstance(answer, kind), answer
    return answer


class Device:
    """A device, and all that came to it."""

    def __init__(self, server_url: str, user: str, store: Path) -> None:
        config = nio.AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True)
        store.mkdir()
        self.client = nio.AsyncClient(server_url, user, store_path=str(store), config=config)
        self.events: dict[str, nio.Event] = {}
        self.to_device: list[nio.ToDeviceEvent] = []
        self.client.add_event_callback(self._take_event, nio.Event)
        self.client.add_to_device_callback(self._take_message, nio.ToDeviceEvent)

    @property
    def id(self) -> str:
        return self.client.device_id or ""

    @property
    def user_id(self) -> str:
        return self.client.user_id

    def _take_event(self, _room: nio.MatrixRoom, event: nio.Event) -> None:
        self.events[event.event_id] = event

    def _take_message(self, event: nio.ToDeviceEvent) -> None:
        self.to_device.append(event)

    async def register(self) -> None:
        expect(await self.client.register(self.client.user, PASSWORD), nio.RegisterResponse)
        await self.sync()

    async def log_in(self) -> None:
        expect(await self.client.login(PASSWORD), nio.LoginResponse)
        await self.sync()

    async def sync(self, timeout: int = 0) -> None:
        """One sync, and what a client does about the keys it tells of."""
        expect(await self.client.sync(timeout=timeout, full_state=False), nio.SyncResponse)
        await self.client.send_to_device_messages()
        if self.client.should_upload_keys:
            expect(await self.client.keys_upload(), nio.KeysUploadResponse)
        if self.client.should_query_keys:
            expect(await self.client.keys_query(), nio.KeysQueryResponse)
        if self.client.should_claim_keys:
            wanted = self.client.get_users_for_key_claiming()
            expect(await self.client.keys_claim(wanted), nio.KeysClaimResponse)
            await self.client.send_to_device_messages()

    async def until(self, what: str, look: Callable[[], T | None]) -> T:
        """Sync on until ``look()`` finds something."""
        deadline = time.monotonic() + _PATIENCE_S
        while not (found := look()):
            assert time.monotonic() < deadline, f"{self.user_id} waited in vain for {what}"
            await self.sync(timeout=500)
        return found

    async def knows(self, *others: Device) -> None:
        """Wait until the keys of other devices are known."""
        await self.until(
            "the devices of others",
            lambda: all(other.id in self.client.device_store[other.user_id] for other in others),
        )

    async def say(self, room: str, text: str) -> str:
        """Send an encrypted message; its id."""
        content = {"msgtype": "m.text", "body": text}
        answer = await self.client.room_send(room, "m.room.message", content, ignore_unverified_devices=True)
        return expect(answer, nio.RoomSendResponse).event_id

    async def event(self, event_id: str) -> nio.Event:
        return await self.until(f"event {event_id}", lambda: self.events.get(event_id))

    async def text(self, event_id: str) -> str:
        """The text of a message, which must have come encrypted and be readable."""
        event = expect(await self.event(event_id), nio.RoomMessageText)
        assert event.decrypted
        return event.body

    async def message(self, kind: type[T]) -> T:
        """The first message to the device of a kind, which is taken away."""

        def look() -> T | None:
            return next((event for event in self.to_device if isinstance(event, kind)), None)

        found = await self.until(kind.__name__, look)
        self.to_device.remove(found)
        return found
