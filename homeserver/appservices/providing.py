"""Asking application services for users and rooms of theirs that are not there, which they may make then.

While a service is asked, so is whoever wants the user or room kept waiting: each service
gets ten seconds.  An answer of "no", or none, is believed for a few seconds, so that nobody can
have a service asked at will.  Specification: application service API, "Querying".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeAlias

import structlog

from homeserver.appservices.client import Client
from homeserver.appservices.services import AppService, AppServices
from homeserver.clock import Clock
from homeserver.errors import MatrixError, RemoteError
from homeserver.lookups import InFlight, Recent

_log = structlog.get_logger()

_BELIEVED_SECONDS: Final = 5.0
_REMEMBERED: Final = 10_000
_MAX_AT_ONCE: Final = 100

_Ask: TypeAlias = Callable[[AppService, str], Awaitable[bool]]


class Providing:
    """Asks the services whose namespaces an id is in."""

    def __init__(self, services: AppServices, client: Client, clock: Clock) -> None:
        self._services = [service for service in services.all if service.registration.url is not None]
        self._client = client
        self._clock = clock
        self._in_flight: InFlight[str, bool] = InFlight()
        self._refused: Recent[str, float] = Recent(_REMEMBERED)

    async def provides_user(self, user_id: str) -> bool:
        """Whether a service says that a user of its own is there (now).

        Raises 408 when none says so and one of them did not answer.
        """
        services = [each for each in self._services if each.owns_user(user_id) and user_id != each.user_id]
        return await self._is_provided(user_id, services, self._client.has_user)

    async def provides_alias(self, room_alias: str) -> bool:
        """The same for an alias."""
        services = [service for service in self._services if service.owns_alias(room_alias)]
        return await self._is_provided(room_alias, services, self._client.has_alias)

    async def _is_provided(self, wanted: str, services: Sequence[AppService], ask: _Ask) -> bool:
        refused_until = self._refused.get(wanted)
        if not services or (refused_until is not None and self._clock.monotonic() < refused_until):
            return False
        if len(self._in_flight) >= _MAX_AT_ONCE:
            return False
        return await self._in_flight.run(wanted, lambda: self._ask(wanted, services, ask))

    async def _ask(self, wanted: str, services: Sequence[AppService], ask: _Ask) -> bool:
        answers = await asyncio.gather(*(ask(each, wanted) for each in services), return_exceptions=True)
        if any(answer is True for answer in answers):
            return True
        self._refused.put(wanted, self._clock.monotonic() + _BELIEVED_SECONDS)
        for service, answer in zip(services, answers, strict=True):
            if isinstance(answer, RemoteError):
                _log.info("application service does not answer", service=service.id, reason=str(answer))
            elif isinstance(answer, BaseException):
                raise answer
        if not any(answer is False for answer in answers):
            raise MatrixError(408, "M_UNKNOWN", "The application service did not answer in time")
        return False
