"""The work both servers do, one topic a module."""

from __future__ import annotations

from bench.scenarios import federation, reading, rooms, sending, waiting, windows
from bench.scenarios.scenario import Scenario

SCENARIOS: list[Scenario] = [
    *sending.SCENARIOS,
    *waiting.SCENARIOS,
    *rooms.SCENARIOS,
    *reading.SCENARIOS,
    *windows.SCENARIOS,
    *federation.SCENARIOS,
]
