"""What previews need of the web; ``homeserver.egress`` fulfils it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol


class WebPage(Protocol):
    """An answer, and where it was found in the end."""

    @property
    def url(self) -> str: ...

    @property
    def status(self) -> int: ...

    @property
    def content_type(self) -> str: ...

    @property
    def charset(self) -> str | None: ...

    @property
    def body(self) -> bytes: ...

    @property
    def is_whole(self) -> bool: ...


class Web(Protocol):
    """Looks at pages."""

    async def get_page(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        timeout: float,
        max_bytes: Callable[[str], int],
        permits: Callable[[str, int, str], bool],
    ) -> WebPage:
        """The page at an address, or its beginning; raises ``RemoteError``."""
        ...
