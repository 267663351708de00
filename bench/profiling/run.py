"""Has our server do one kind of work for a while, and py-spy look where it is."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.generator.process import Generator, generators
from bench.profiling.folded import Shares, shares
from bench.scenarios.scenario import Round, Scenario
from bench.scenarios.size import Size
from bench.servers import running

#: Samples a second.  The server is not stopped for one: what it costs stays what it is.
_RATE = 400
#: Parts of rounds that are not measured, such as logging in, are on other stacks than these.
_WITHIN = {
    "initial_sync": "client_api/sync.py",
    "initial_sync_many": "client_api/sync.py",
    "sliding_few": "client_api/sliding_sync.py",
    "sliding_many": "client_api/sliding_sync.py",
}


class SpyFailed(Exception):
    """py-spy did not do its work: it needs leave to look into other processes (as root has)."""


@dataclass(frozen=True)
class Profile:
    """``cpu_ms`` of the server for each operation, measured without py-spy, and where it goes."""

    key: str
    engine: str
    cpu_ms: float
    shares: Shares


def profile(
    scenario: Scenario, engine: str, size: Size, *, seconds: float, tell: Callable[[str], None], kept: Path
) -> Profile:
    """Profile a scenario; the folded stacks, of which flame graphs are made, go to ``kept``.

    Raises ``SpyFailed``.
    """
    with (
        tempfile.TemporaryDirectory(prefix="profile-") as folder,
        running(Path(folder), engine, ["inglenook"]) as [(_, site)],
        generators([site], "bench.scenarios.programme", size) as [generator],
    ):
        tell(f"{scenario.key}: preparing")
        generator.do("prepare", scenario.key)
        tell(f"{scenario.key}: measuring")
        list(_rounds(generator, scenario, seconds / 4))
        alone = list(_rounds(generator, scenario, seconds / 4))
        tell(f"{scenario.key}: profiling")
        with _spying(site.pid, kept):
            list(_rounds(generator, scenario, seconds))
    done = sum(one.count for one in alone)
    return Profile(
        key=scenario.key,
        engine=engine,
        cpu_ms=1000 * sum(one.server_cpu for one in alone) / done,
        shares=shares(kept.read_text().splitlines(), within=_WITHIN.get(scenario.key, "")),
    )


def _rounds(generator: Generator, scenario: Scenario, seconds: float) -> Iterator[Round]:
    """Rounds until the time is up, one at least."""
    end = time.monotonic() + seconds
    while True:
        yield generator.do("round", scenario.key)
        if time.monotonic() > end:
            return


@contextmanager
def _spying(pid: int, kept: Path) -> Iterator[None]:
    py_spy = str(Path(sys.executable).with_name("py-spy"))
    command = [py_spy, "record", "--pid", str(pid), "--output", str(kept), "--format", "raw"]
    how = ["--threads", "--nonblocking", "--rate", str(_RATE), "--duration", "3600"]
    with tempfile.TemporaryFile("w+") as said:
        spy = subprocess.Popen([*command, *how], stdout=said, stderr=said)
        try:
            yield
        finally:
            spy.send_signal(signal.SIGINT)
            if spy.wait(60) or not kept.exists():
                said.seek(0)
                raise SpyFailed(f"py-spy could not look into the server: {said.read()[-500:]}")
