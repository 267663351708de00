"""How long our server's event loop was held up, as it tells in its metrics."""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from dataclasses import dataclass

#: Nothing may hold the loop up for longer, in seconds; a bucket of the metric.
ALLOWED = 0.02

_SAMPLE = re.compile(r"^inglenook_event_loop_(\S+) (\S+)$", re.MULTILINE)


@dataclass(frozen=True)
class Stalls:
    """Turns of the loop since the server began, those too late, and the latest since the last look.

    ``held_ms`` is the longest since then that the loop was held up by work of its own.
    """

    turns: int
    late: int
    worst_ms: float
    held_ms: float


def stalls(client_url: str) -> Stalls | None:
    """What a server tells; None where it is none of ours."""
    try:
        with urllib.request.urlopen(f"{client_url}/_inglenook/metrics", timeout=30) as reply:
            return read(reply.read().decode())
    except urllib.error.HTTPError:
        return None


def read(metrics: str) -> Stalls:
    """From the text of the metrics."""
    values = dict(_SAMPLE.findall(metrics))
    turns = int(float(values["lag_seconds_count"]))
    in_time = int(float(values[f'lag_seconds_bucket{{le="{ALLOWED}"}}']))
    worst, held = (1000 * float(values[f"{what}_max_seconds"]) for what in ("lag", "held"))
    return Stalls(turns, turns - in_time, worst, held)
