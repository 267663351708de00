"""How long a client may take to read what it is written, and how a silent one is found out."""

from __future__ import annotations

import socket
from asyncio import Transport

#: Bytes a second that a client takes at least, beside the patience there is for everybody.
SLOWEST_READER = 8 * 1024
#: Seconds that the system goes on sending to a client that acknowledges nothing.
_UNACKNOWLEDGED = 60


def patience_for(size: int, write_timeout: float) -> float:
    """Seconds that a client may take to read ``size`` bytes."""
    return write_timeout + size / SLOWEST_READER


def notice_silence(transport: Transport | None) -> None:
    """Let the system close the connection to a client that has vanished, where it can."""
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED * 1000)
