"""A profile as tables, in microseconds of processor time for each operation, and as JSON."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.table import Table

from bench.profiling.run import Profile

#: Modules in the table; all of them are in the JSON.
_MODULES = 25


def table(profile: Profile) -> Table:
    """Threads, parts and the modules that take most."""
    drawn = Table("", title=f"{profile.key} on {profile.engine}: {profile.cpu_ms:.3g} ms for each")
    drawn.add_column("µs", justify="right")
    drawn.add_column("share", justify="right")
    counted = profile.shares
    for counter, most in (
        (counted.threads, None),
        (counted.parts, None),
        (counted.modules, _MODULES),
    ):
        drawn.add_section()
        for name, count in counter.most_common(most):
            share = count / counted.samples
            drawn.add_row(name, f"{1000 * profile.cpu_ms * share:,.0f}", f"{share:.1%}")
    return drawn


def as_json(profile: Profile) -> dict[str, Any]:
    """Milliseconds for each operation, all in all and by thread, part and module."""

    def of(counter: Counter[str]) -> dict[str, float]:
        return {
            name: profile.cpu_ms * count / profile.shares.samples for name, count in counter.most_common()
        }

    return {
        "scenario": profile.key,
        "engine": profile.engine,
        "samples": profile.shares.samples,
        "cpu_ms": profile.cpu_ms,
        "threads": of(profile.shares.threads),
        "parts": of(profile.shares.parts),
        "modules": of(profile.shares.modules),
    }
