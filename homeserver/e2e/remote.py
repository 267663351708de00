"""What end-to-end encryption asks of other servers; ``federation/client.py`` fulfils it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol


class RemoteKeys(Protocol):
    """Asks other servers for keys of their users.  Every method raises ``RemoteError``.

    ``timeout`` is in seconds; answers are objects of the outer shape the specification
    gives them, whose contents are not to be relied on.
    """

    async def user_devices(self, server_name: str, user_id: str, *, timeout: float) -> dict[str, Any]:
        """``stream_id``, an integer, and ``devices``, a list of objects."""
        ...

    async def query_user_keys(
        self, server_name: str, device_keys: Mapping[str, Sequence[str]], *, timeout: float
    ) -> dict[str, Any]:
        """``device_keys``, an object of objects; perhaps ``master_keys`` and ``self_signing_keys``."""
        ...

    async def claim_user_keys(
        self, server_name: str, one_time_keys: Mapping[str, Mapping[str, str]], *, timeout: float
    ) -> dict[str, Any]:
        """``one_time_keys``: an object of users, of devices, of key objects."""
        ...
