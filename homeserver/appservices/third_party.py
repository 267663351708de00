"""Third-party networks: what the application services know of them, put together.

A service that does not answer, or answers nonsense, has nothing to add.  Specification:
client-server API, "Third-party networks"; application service API, the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from homeserver.appservices.client import Client
from homeserver.appservices.services import AppService, AppServices
from homeserver.clock import Clock
from homeserver.errors import RemoteError, not_found
from homeserver.lookups import Recent

_PROTOCOL_BELIEVED_SECONDS: Final = 60.0
_MAX_RESULTS: Final = 1_000
_MAX_FIELDS: Final = 20
_REMEMBERED: Final = 1_000


class ThirdPartyNetworks:
    """Asks the services that provide a protocol."""

    def __init__(self, services: AppServices, client: Client, clock: Clock) -> None:
        self._services = [service for service in services.all if service.registration.url is not None]
        self._client = client
        self._clock = clock
        self._protocols: Recent[tuple[str, str], tuple[float, dict[str, Any]]] = Recent(_REMEMBERED)

    async def protocols(self) -> dict[str, dict[str, Any]]:
        """Every protocol by its name; one that several services provide has the instances of all."""
        names = dict.fromkeys(name for each in self._services for name in each.registration.protocols)
        found = await asyncio.gather(*(self._protocol(name) for name in names))
        return {name: protocol for name, protocol in zip(names, found, strict=True) if protocol is not None}

    async def protocol(self, name: str) -> dict[str, Any]:
        """One protocol; ``M_NOT_FOUND``."""
        protocol = await self._protocol(name)
        if protocol is None:
            raise not_found("There is no such protocol here")
        return protocol

    async def search(self, kind: str, protocol: str, fields: Mapping[str, str]) -> list[dict[str, Any]]:
        """The ``user``s or ``location``s of a protocol that match some fields; ``M_NOT_FOUND`` for none."""
        services = self._providing(protocol)
        if not services:
            raise not_found("There is no such protocol here")
        bounded = dict(list(fields.items())[:_MAX_FIELDS])
        return await self._results(services, kind, f"{kind}/{quote(protocol, safe='')}", bounded)

    async def about_user(self, user_id: str) -> list[dict[str, Any]]:
        """Who a Matrix user is in third-party networks; ``M_NOT_FOUND`` for nobody."""
        return await self._results(self._services, "user", "user", {"userid": user_id})

    async def about_alias(self, room_alias: str) -> list[dict[str, Any]]:
        """Which places of third-party networks a room alias leads to; ``M_NOT_FOUND`` for none."""
        return await self._results(self._services, "location", "location", {"alias": room_alias})

    def _providing(self, protocol: str) -> list[AppService]:
        return [service for service in self._services if protocol in service.registration.protocols]

    async def _protocol(self, name: str) -> dict[str, Any] | None:
        told = await asyncio.gather(*(self._told(service, name) for service in self._providing(name)))
        known = [each for each in told if each is not None]
        if not known:
            return None
        return {**known[0], "instances": [instance for each in known for instance in each["instances"]]}

    async def _told(self, service: AppService, name: str) -> dict[str, Any] | None:
        """What one service says of a protocol, its instances with the ids that clients use for them."""
        now = self._clock.monotonic()
        known = self._protocols.get((service.id, name))
        if known is not None and now < known[0]:
            return known[1]
        told = await self._asked(service, f"protocol/{quote(name, safe='')}", {})
        if not isinstance(told, dict):
            return None
        instances = told.get("instances")
        protocol = {**told, "instances": [
            {**instance, "instance_id": instance_id(service.id, instance["network_id"])}
            for instance in (instances if isinstance(instances, list) else ())
            if isinstance(instance, dict) and isinstance(instance.get("network_id"), str)
        ]}  # fmt: skip
        self._protocols.put((service.id, name), (now + _PROTOCOL_BELIEVED_SECONDS, protocol))
        return protocol

    async def _results(
        self, services: Sequence[AppService], kind: str, path: str, fields: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        told = await asyncio.gather(*(self._asked(service, path, fields) for service in services))
        needed = "userid" if kind == "user" else "alias"
        results = [
            result
            for answer in told
            for result in (answer if isinstance(answer, list) else ())
            if isinstance(result, dict)
            and isinstance(result.get(needed), str)
            and isinstance(result.get("protocol"), str)
            and isinstance(result.get("fields"), dict)
        ]
        if not results:
            raise not_found(f"No {kind} was found")
        return results[:_MAX_RESULTS]

    async def _asked(self, service: AppService, path: str, fields: Mapping[str, str]) -> Any:
        try:
            return await self._client.third_party(service, path, fields)
        except RemoteError:
            return None


def instance_id(service_id: str, network_id: str) -> str:
    """What clients call an instance of a protocol (``third_party_instance_id``)."""
    return f"{service_id}|{network_id}"
