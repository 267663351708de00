"""Where a server is: from its name to the addresses to connect to and what to expect there.

Follows the spec's steps and remembers what ``.well-known`` and DNS said.  It opens
no connections of its own: both are asked through functions it is given.
Specification: server-server API, "Resolving server names".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import Final, Protocol

import msgspec

from federation.srv import LookUpSrv, SrvRecord, in_order_of_trial
from federation.well_known import (
    MAX_CACHE_SECONDS,
    Delegation,
    NoDelegation,
    WellKnownResponse,
    read_well_known,
)
from homeserver.clock import Clock
from homeserver.lookups import InFlight, Recent
from homeserver.protocol.ids import ServerAddress, parse_server_name

DEFAULT_PORT: Final = 8448

#: The second is deprecated, and asked for only when the first has no records.
SRV_SERVICES: Final = ("_matrix-fed._tcp", "_matrix._tcp")

FIRST_FAILURE_SECONDS: Final = 2 * 60
MAX_FAILURE_SECONDS: Final = 3600

SRV_ABSENT_SECONDS: Final = 5 * 60
MIN_SRV_SECONDS: Final = 60
MAX_SRV_SECONDS: Final = 3600

_REMEMBERED: Final = 10_000


class NoService(Exception):
    """The name's owner says in DNS that there is no server behind it."""


class NotPermitted(Exception):
    """The configuration does not let this server talk with that one."""


class Destination(msgspec.Struct, frozen=True):
    """One way to reach a server.

    ``host`` (a name or an IP address without brackets) and ``port`` are connected
    to; ``host_header`` goes into the request; the certificate must be valid for
    ``tls_name``, which is also sent as SNI unless it is an IP address.
    """

    host: str
    port: int
    host_header: str
    tls_name: str


class WellKnownMemory(msgspec.Struct, frozen=True):
    """What is remembered of a host's ``.well-known``; times are seconds of the monotonic clock.

    After ``expires`` the host is asked again, but until ``usable_until`` the
    delegation still stands in for an answer the host fails to give.
    """

    delegate: ServerAddress | None
    expires: float
    usable_until: float
    failures: int = 0


class _SrvMemory(msgspec.Struct, frozen=True):
    records: list[SrvRecord]
    expires: float


class Discovery:
    """Finds servers.  ``fetch_well_known`` and ``look_up_srv`` raise ``OSError`` when they fail."""

    def __init__(
        self,
        *,
        fetch_well_known: Callable[[str], Awaitable[WellKnownResponse]],
        look_up_srv: LookUpSrv,
        clock: Clock,
        random: Random,
    ) -> None:
        self._fetch_well_known = fetch_well_known
        self._look_up_srv = look_up_srv
        self._clock = clock
        self._random = random
        self._delegates: Recent[str, WellKnownMemory] = Recent(_REMEMBERED)
        self._records: Recent[str, _SrvMemory] = Recent(_REMEMBERED)
        self._fetches: InFlight[str, ServerAddress | None] = InFlight()

    async def destinations(self, server_name: str) -> list[Destination]:
        """The ways to reach a server, best first, at least one.

        Raises ``ValueError`` for what is no server name, ``NoService`` when DNS says
        that there is no server.  Numbers are the steps of the specification.
        """
        address = parse_server_name(server_name)
        if address.is_ip_literal or address.port is not None:  # 1, 2
            return [direct(address)]
        delegate = await self._delegate_of(address.host)
        if delegate is None:
            return await self._by_srv(address.host)  # 4, 5, 6
        if delegate.is_ip_literal or delegate.port is not None:  # 3.1, 3.2
            return [direct(delegate)]
        return await self._by_srv(delegate.host)  # 3.3, 3.4, 3.5

    async def close(self) -> None:
        """Stop asking."""
        await self._fetches.close()

    async def _delegate_of(self, hostname: str) -> ServerAddress | None:
        """Step 3: the server a host delegates to, or ``None`` when it delegates to nobody."""
        known = self._delegates.get(hostname)
        if known is not None and self._clock.monotonic() < known.expires:
            return known.delegate
        return await self._fetches.run(hostname, lambda: self._ask(hostname, known))

    async def _ask(self, hostname: str, known: WellKnownMemory | None) -> ServerAddress | None:
        try:
            response = await self._fetch_well_known(hostname)
            delegation = read_well_known(response, self._clock.now_ms())
        except NoDelegation:
            memory = after_refusal(known, self._clock.monotonic())
        except OSError:
            memory = after_failure(known, self._clock.monotonic())
        else:
            memory = after_answer(delegation, self._clock.monotonic())
        self._delegates.put(hostname, memory)
        return memory.delegate

    async def _by_srv(self, hostname: str) -> list[Destination]:
        """The servers that DNS names for a host, else the host itself at the default port."""
        for service in SRV_SERVICES:
            records = await self._srv_records(f"{service}.{hostname}")
            if records:
                return _srv_destinations(hostname, in_order_of_trial(records, self._random))
        return [direct(ServerAddress(hostname, None, is_ip_literal=False))]

    async def _srv_records(self, name: str) -> list[SrvRecord]:
        """SRV records from memory or DNS; a failing DNS counts as none and is not remembered."""
        known = self._records.get(name)
        if known is not None and self._clock.monotonic() < known.expires:
            return known.records
        try:
            records = await self._look_up_srv(name)
        except OSError:
            return []
        expires = self._clock.monotonic() + _srv_seconds(records)
        self._records.put(name, _SrvMemory(records, expires))
        return records


def direct(address: ServerAddress) -> Destination:
    """The address as it is written, at the default port if it has none."""
    shown = f"[{address.host}]" if ":" in address.host else address.host
    header = shown if address.port is None else f"{shown}:{address.port}"
    return Destination(address.host, address.port or DEFAULT_PORT, header, address.host)


def after_answer(delegation: Delegation, now: float) -> WellKnownMemory:
    """What to remember of a valid answer."""
    return WellKnownMemory(delegation.address, now + delegation.cache_seconds, now + MAX_CACHE_SECONDS)


def after_refusal(known: WellKnownMemory | None, now: float) -> WellKnownMemory:
    """What to remember of an answer that delegates to nobody, whatever was said before."""
    failures = 1 if known is None else known.failures + 1
    return WellKnownMemory(None, now + _failure_seconds(failures), now, failures)


def after_failure(known: WellKnownMemory | None, now: float) -> WellKnownMemory:
    """What to remember when no answer came: the last one, as long as that may be used."""
    if known is None or now >= known.usable_until:
        return after_refusal(known, now)
    failures = known.failures + 1
    expires = min(now + _failure_seconds(failures), known.usable_until)
    return WellKnownMemory(known.delegate, expires, known.usable_until, failures)


def _failure_seconds(failures: int) -> float:
    doublings = min(failures - 1, 10)
    return min(FIRST_FAILURE_SECONDS * 2.0**doublings, MAX_FAILURE_SECONDS)


def _srv_seconds(records: list[SrvRecord]) -> float:
    if not records:
        return SRV_ABSENT_SECONDS
    ttl = min(record.ttl_seconds for record in records)
    return min(max(ttl, MIN_SRV_SECONDS), MAX_SRV_SECONDS)


def _srv_destinations(hostname: str, records: list[SrvRecord]) -> list[Destination]:
    """Connect to the targets, but speak to, and demand the certificate of, the host itself."""
    destinations = [
        Destination(record.target, record.port, hostname, hostname) for record in records if record.target
    ]
    if not destinations:
        raise NoService(f"DNS says that {hostname} has no server")
    return destinations


class Destinations(Protocol):
    """Finds servers (``Discovery``)."""

    async def destinations(self, server_name: str) -> list[Destination]:
        """The ways to reach a server, best first.

        Raises ``ValueError``, ``NoService`` or ``NotPermitted``.
        """
        ...


class PermittedServers:
    """Finds only the servers that the configuration lets this one talk with."""

    def __init__(self, discovery: Destinations, allows: Callable[[str], bool]) -> None:
        self._discovery = discovery
        self._allows = allows

    async def destinations(self, server_name: str) -> list[Destination]:
        """See ``Discovery.destinations``; ``NotPermitted`` for a server that is not permitted."""
        if not self._allows(server_name):
            raise NotPermitted("This server does not talk with that one")
        return await self._discovery.destinations(server_name)
