"""PDUs that were answered before they were taken in, kept until they are."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.storage.database import Reader, Transaction


class InboundPdu(msgspec.Struct, frozen=True, gc=False):
    """A PDU on its way into a room."""

    #: Its place in the order in which they came.
    number: int
    #: The server that sent it.
    origin: str
    room_id: str
    #: Canonical JSON.
    pdu: bytes


async def add(tx: Transaction, pdus: Iterable[InboundPdu]) -> None:
    """Keep PDUs."""
    await tx.execute_many(
        "INSERT INTO inbound_pdus (number, origin, room_id, pdu) VALUES ($1, $2, $3, $4)",
        [(each.number, each.origin, each.room_id, each.pdu) for each in pdus],
    )


async def remove(tx: Transaction, number: int) -> None:
    """A PDU was taken in."""
    await tx.execute("DELETE FROM inbound_pdus WHERE number = $1", number)


async def everything(r: Reader) -> list[InboundPdu]:
    """All PDUs that are kept, in their order."""
    rows = await r.fetch("SELECT number, origin, room_id, pdu FROM inbound_pdus ORDER BY number")
    return [InboundPdu(*row) for row in rows]
