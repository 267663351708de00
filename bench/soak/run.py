"""Has a server work for a long time, and looks every few seconds how it is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.generator.process import generators
from bench.generator.usage import cpu_seconds, memory_bytes, tree
from bench.servers import running
from bench.soak.stalls import stalls
from bench.soak.verdict import Interval


def soak(
    software: str, engine: str, *, seconds: float, every: float, times: float, tell: Callable[[str], None]
) -> list[Interval]:
    """One interval after the other, ``every`` so many seconds; ``times`` the usual load."""
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as folder,
        running(Path(folder), engine, [software]) as [(_, site)],
        generators([site], "bench.soak.programme", times) as [generator],
    ):
        tell("building the town")
        generator.do("begin")
        start, intervals = time.monotonic(), list[Interval]()
        used, at = cpu_seconds(tree(site.pid)), 0.0
        while at < seconds:
            time.sleep(every)
            latencies, skipped = generator.do("collect")
            now = time.monotonic() - start
            processes = tree(site.pid)
            before, used = used, cpu_seconds(processes)
            memory, _ = memory_bytes(processes)
            held_up = stalls(site.client_url)
            intervals.append(
                Interval(
                    at=now,
                    memory=memory,
                    cpu_share=(used - before) / (now - at),
                    latencies=latencies,
                    skipped=skipped,
                    stalls=held_up,
                )
            )
            at = now
            tell(f"{now / 60:.1f} of {seconds / 60:.0f} minutes: {memory / 2**20:.0f} MiB")
        generator.do("end")
    return intervals
