"""What the load generator does for the suite: prepares scenarios and measures rounds of them."""

from __future__ import annotations

from bench.generator.meter import Meter
from bench.generator.prepared import Prepared
from bench.scenarios import SCENARIOS
from bench.scenarios.scenario import OneRound, Round, as_round
from bench.scenarios.size import Size


class Programme:
    """Orders are ``"prepare"`` or ``"round"`` and a scenario's key."""

    def __init__(self, prepared: Prepared, size: Size) -> None:
        self._prepared = prepared
        self._size = size
        self._scenarios = {scenario.key: scenario for scenario in SCENARIOS}
        self._ready: dict[str, OneRound] = {}

    async def do(self, what: str, key: str) -> Round | None:
        """A ``Round`` where one was ordered."""
        if what == "prepare":
            self._ready[key] = await self._scenarios[key].prepare(self._prepared, self._size)
            return None
        meter = Meter(self._prepared.site)
        return as_round(await self._ready[key](meter), meter)
