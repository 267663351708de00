"""Asking DNS for SRV records.

Loaded with the first question, together with c-ares.
"""

from __future__ import annotations

import re
from typing import Final

import aiodns
import pycares

from federation.srv import LookUpSrv, SrvRecord

#: DNS says that there is no such record, as opposed to not saying anything.
_ABSENT: Final = frozenset((aiodns.error.ARES_ENOTFOUND, aiodns.error.ARES_ENODATA))

#: DNS can hold any bytes, and a target becomes part of a URL.
_HOST_NAME = re.compile(r"[0-9A-Za-z._-]{0,253}")


def open_srv_lookup() -> LookUpSrv:
    """SRV lookup with the machine's DNS servers."""

    resolver = aiodns.DNSResolver()

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
