"""What the core says beside events: to other servers, and to the people who wait for news here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class RemoteEdus(Protocol):
    """Sends ephemeral data to other servers; ``federation/`` fulfils it."""

    def send_edu(self, destination: str, edu_type: str, content: dict[str, Any], durable: bool) -> None:
        """Queue one EDU; returns at once.  A ``durable`` one is kept until the server has it."""
        ...


class News(Protocol):
    """Wakes those who wait; ``sync/notifier.py`` fulfils it."""

    def announce(self, pos: int, *, rooms: Iterable[int] = (), users: Iterable[str] = ()) -> None:
        """Something at a stream position is on disk."""
        ...

    def wake(self, *, rooms: Iterable[int] = (), users: Iterable[str] = ()) -> None:
        """There is news that no stream position stands for."""
        ...
