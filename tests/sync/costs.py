"""What work costs: counted, never timed."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import pytest

from homeserver.storage.sqlite import SqliteScanner
from homeserver.storage.sqlite_connections import SqliteReader

T = TypeVar("T")


@contextmanager
def statements(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements that are executed meanwhile."""
    executed: list[str] = []

    def counted(kind: type, name: str) -> None:
        method = getattr(kind, name)

        async def call(self: Any, sql: str, *args: Any) -> Any:
            executed.append(sql)
            return await method(self, sql, *args)

        patched.setattr(kind, name, call)

    with monkeypatch.context() as patched:
        for kind in (SqliteReader, SqliteScanner):
            for name in ("fetch", "fetch_row", "fetch_value", "fetch_in"):
                counted(kind, name)
        yield executed


async def calls_of(work: Awaitable[T]) -> tuple[T, int]:
    """What comes of some work, and how many functions were called for it (C functions included)."""
    count = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        result = await work
    finally:
        sys.setprofile(None)
    return result, count
