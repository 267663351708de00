"""What a request for media asks for: the parameters that both APIs have alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from homeserver.media.thumbnails import Wanted

#: How long to wait for content that is not uploaded yet, in ms: by default, and at most.
DEFAULT_WAIT_MS: Final = 20_000
MAX_WAIT_MS: Final = 60_000
_MAX_SIDE: Final = 100_000


class Query(Protocol):
    """Query parameters, as ``web.Request`` reads them."""

    def query_text(self, name: str) -> str: ...

    def query_int(self, name: str, default: int, minimum: int = 0, maximum: int = 2**53 - 1) -> int: ...

    def query_bool(self, name: str, default: bool = False) -> bool: ...

    def query_choice(self, name: str, default: str, choices: Iterable[str]) -> str: ...


def wait_ms(query: Query) -> int:
    """How long the caller waits for content that is not uploaded yet."""
    return query.query_int("timeout_ms", DEFAULT_WAIT_MS, 0, MAX_WAIT_MS)


def wanted_thumbnail(query: Query) -> Wanted:
    """The kind of thumbnail; ``M_MISSING_PARAM`` and ``M_INVALID_PARAM``."""
    for side in ("width", "height"):
        query.query_text(side)
    width, height = (query.query_int(side, 0, 1, _MAX_SIDE) for side in ("width", "height"))
    method = query.query_choice("method", "scale", ("scale", "crop"))
    animated = query.query_bool("animated")
    return Wanted.nearest(width, height, "crop" if method == "crop" else "scale", animated)
