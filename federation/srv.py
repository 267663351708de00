"""SRV records: asking DNS for them, and the order in which to try them (RFC 2782)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

import aiodns
import pycares

#: DNS says that there is no such record, as opposed to not saying anything.
_ABSENT: Final = frozenset((aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA))

#: DNS can hold any bytes, and a target becomes part of a URL.
_HOST_NAME = re.compile(r"[0-9A-Za-z._-]{0,253}")


@dataclass(frozen=True, slots=True)
class SrvRecord:
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


def srv_lookup(resolver: aiodns.DNSResolver) -> LookUpSrv:
    """SRV lookup with the machine's DNS servers."""

    async def look_up(name: str) -> list[SrvRecord]:
        try:
            result = await resolver.query_dns(name, "SRV")
        except aiodns.error.DNSError as error:
            if error.args[0] in _ABSENT:
                return []
            raise OSError(f"DNS lookup of {name} failed: {error.args[-1]}") from error
        return read_srv(result)

    return look_up


def read_srv(result: pycares.DNSResult) -> list[SrvRecord]:
    """The records of an answer whose targets are host names, or the root."""
    return [
        SrvRecord(data.priority, data.weight, data.port, target, record.ttl)
        for record in result.answer
        if isinstance(data := record.data, pycares.SRVRecordData)
        and _HOST_NAME.fullmatch(target := data.target.rstrip("."))
    ]


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
