"""Deciding anew where what was decided from is not so any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from homeserver.storage.rooms import StaleRoomError

_TRIES = 3

P = ParamSpec("P")
R = TypeVar("R")


def again_when_stale(work: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Do work again when a write of the room failed that it was built upon, or another process was faster.

    Nothing of the work is stored then.  Raises ``StaleRoomError`` where that goes on.
    """

    @wraps(work)
    async def try_again(*args: P.args, **kwargs: P.kwargs) -> R:
        for _ in range(_TRIES - 1):
            try:
                return await work(*args, **kwargs)
            except StaleRoomError:
                continue
        return await work(*args, **kwargs)

    return try_again
