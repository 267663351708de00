"""How long messages are kept: the ``retention`` section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from homeserver.config.rules import number
from homeserver.protocol.retention import Lifetimes

_DAY_MS = 24 * 3600 * 1000

Days: TypeAlias = Annotated[float, number(float, 0.001, 100_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """A shortest and a longest lifetime in days; ``None`` for no bound."""

    min: Days | None = None
    max: Days | None = None

    def __post_init__(self) -> None:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("min must not be more than max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Whether old messages are purged, and when."""

    enabled: bool = False
    #: For rooms that do not say.
    default: Bounds = Bounds()
    #: What rooms may ask for.
    allowed: Bounds = Bounds(min=1.0)
    #: In seconds.
    purge_interval: Annotated[float, number(float, 1, 30 * 24 * 3600)] = 3600.0

    def lifetimes(self) -> Lifetimes | None:
        """The policy; ``None`` where everything is kept for ever."""
        if not self.enabled:
            return None
        default, allowed = self.default, self.allowed
        return Lifetimes(_ms(default.min), _ms(default.max), _ms(allowed.min), _ms(allowed.max))


def _ms(days: float | None) -> int | None:
    return None if days is None else round(days * _DAY_MS)
