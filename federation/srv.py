"""SRV records, and the order in which to try them (RFC 2782)."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Protocol

import msgspec


class SrvRecord(msgspec.Struct, frozen=True):
    """One record; ``target`` is without the final dot, so the root (RFC: "no service") is empty."""

    priority: int
    weight: int
    port: int
    target: str
    ttl_seconds: int


class LookUpSrv(Protocol):
    """Asks DNS."""

    async def __call__(self, name: str) -> list[SrvRecord]:
        """The SRV records of a name, none if there are none; raises ``OSError`` when DNS fails."""
        ...


def in_order_of_trial(records: Iterable[SrvRecord], random: Random) -> list[SrvRecord]:
    """Lowest priority number first; within one, drawn at random by weight (RFC 2782, "Weight")."""
    waiting = sorted(records, key=lambda record: (record.priority, record.weight))
    ordered: list[SrvRecord] = []
    while waiting:
        peers = [record for record in waiting if record.priority == waiting[0].priority]
        chosen = _draw(peers, random)
        waiting.remove(chosen)
        ordered.append(chosen)
    return ordered


def _draw(records: list[SrvRecord], random: Random) -> SrvRecord:
    mark = random.uniform(0, sum(record.weight for record in records))
    for record in records:
        mark -= record.weight
        if mark <= 0:
            return record
    return records[-1]
