"""What the core says beside events: to other servers, and to the people who wait for news here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from homeserver.rooms.room import Room
from homeserver.storage.database import Transaction
from homeserver.storage.receipts import Receipt


class DurableEdus(Protocol):
    """EDUs that are stored together with what they are about."""

    async def store(self, tx: Transaction) -> None:
        """Store them, as part of a transaction."""
        ...

    def send(self) -> None:
        """They are on disk, and may be sent."""
        ...


class RemoteEdus(Protocol):
    """Sends ephemeral data to other servers; ``federation/`` fulfils it."""

    def send_edu(self, destination: str, edu_type: str, content: dict[str, Any], durable: bool) -> None:
        """Queue one EDU; returns at once.  A ``durable`` one is kept until the server has it."""
        ...

    def durable(self, edus: Iterable[tuple[str, str, Mapping[str, Any]]]) -> DurableEdus:
        """EDUs, each with its destination and type, to be stored with something else and then sent."""
        ...

    def send_typing(self, room: Room, user_id: str, typing: bool) -> None:
        """Tell the servers in a room that a user here types, or does not any more."""
        ...

    def send_presence(self, servers: Collection[str], update: Mapping[str, Any]) -> None:
        """Tell servers of a user's presence, as ``m.presence`` lists it."""
        ...

    def send_receipts(self, room: Room, receipts: Sequence[Receipt]) -> None:
        """Tell the servers in a room of receipts of users here, which are on disk."""
        ...


class News(Protocol):
    """Wakes those who wait; ``sync/notifier.py`` fulfils it."""

    def announce(self, pos: int, *, rooms: Iterable[int] = (), users: Iterable[str] = ()) -> None:
        """Something at a stream position is on disk."""
        ...

    def wake(self, *, rooms: Iterable[int] = (), users: Iterable[str] = ()) -> int:
        """There is news that no stream position stands for; how many were woken."""
        ...
