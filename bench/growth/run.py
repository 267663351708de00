"""Goes along an axis, point by point, on our server and as far as can be on Synapse."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.generator.process import Generator, generators
from bench.generator.usage import cpu_seconds, memory_bytes, tree
from bench.growth.axes import Axis
from bench.growth.fill import Filling
from bench.growth.services import registration
from bench.numbers import median, percentile
from bench.scenarios.scenario import Round
from bench.servers import running
from tests.processes import Server

#: Rounds at a point, and operations in a round.
_ROUNDS = 5
_COUNTS = {"send": 40, "state": 20, "sync": 15, "join": 8, "page": 10, "resolution": 5, "delivery": 3}


#: A server that uses less of a core than this is at rest; how long that is waited for, in seconds.
_QUIET, _PATIENCE = 0.05, 180.0


@dataclass(frozen=True)
class Cost:
    """Of one operation at one point: latency and the server's processor time, in milliseconds.

    Both are medians of the rounds; of processor time the least and the most too.
    """

    point: int
    latency_ms: float
    cpu_ms: float
    least_cpu_ms: float
    most_cpu_ms: float


@dataclass
class Curve:
    """What was measured along an axis: ``costs[operation][software]``, and what waiting clients took."""

    axis: Axis
    costs: dict[str, dict[str, list[Cost]]] = field(default_factory=dict)
    #: By software: how many waited, and by how many bytes all of them let it grow.
    waiting: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


def along(axis: Axis, points: Sequence[int], software: Sequence[str], tell: Callable[[str], None]) -> Curve:
    """Measure an axis with servers of its own, on SQLite."""
    curve = Curve(axis)
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        folder = Path(name)
        settings = registration(folder)
        with running(folder, "sqlite", software, settings) as servers:
            sites = [site for _, site in servers]
            with generators(sites, "bench.growth.programme", axis.key) as started:
                _points(
                    axis,
                    points,
                    list(zip([server for server, _ in servers], started, strict=True)),
                    curve,
                    tell,
                )
    return curve


def _points(
    axis: Axis,
    points: Sequence[int],
    servers: Sequence[tuple[Server, Generator]],
    curve: Curve,
    tell: Callable[[str], None],
) -> None:
    events = {server.software: 0 for server, _ in servers}
    for point in points:
        taking_part = [
            (server, generator)
            for server, generator in servers
            if server.software == "inglenook" or point <= axis.theirs_upto
        ]
        for server, generator in taking_part:
            tell(f"{axis.title}: making {point:,} at {server.software}")
            room, speaker = generator.do("prepare", point)
            if axis.key == "events":
                _fill(server, generator, room, speaker, point - events[server.software])
                events[server.software] = point
            if axis.key == "waiting":
                _let_wait(generator, curve.waiting.setdefault(server.software, []))
        for server, _ in taking_part:
            tell(f"{axis.title}: {server.software} comes to rest at {point:,}")
            _until_quiet(server.pid)
        for operation in axis.operations:
            tell(f"{axis.title}: {operation} at {point:,}")
            _operation(operation, point, [generator for _, generator in taking_part], curve)


def _operation(operation: str, point: int, started: Sequence[Generator], curve: Curve) -> None:
    rounds: dict[str, list[Round]] = {generator.site.software: [] for generator in started}
    for _ in range(1 if operation == "remote_join" else _ROUNDS):
        for generator in started:
            one = generator.do("measure", operation, _COUNTS.get(operation, 1))
            rounds[generator.site.software].append(one)
    for software, measured in rounds.items():
        cpu_ms = [1000 * one.server_cpu / one.count for one in measured]
        latency_ms = [1000 * percentile(one.latencies, 50) for one in measured]
        cost = Cost(point, median(latency_ms), median(cpu_ms), min(cpu_ms), max(cpu_ms))
        curve.costs.setdefault(operation, {}).setdefault(software, []).append(cost)


def _fill(server: Server, generator: Generator, room: str, speaker: str, count: int) -> None:
    """Our room is filled while the server is stopped, Synapse's as a client can."""
    if server.software == "synapse":
        generator.do("talk", count)
        return
    server.stop()
    key_file = str(server.folder / "signing.key")
    Filling(generator.site.database_url, server.server_name, key_file, room, speaker, count).in_process()
    server.start()
    generator.moved(server.pid)


def _until_quiet(pid: int) -> None:
    """Wait until a server is at rest: what making a point left to do is no part of what is measured."""
    deadline = time.monotonic() + _PATIENCE
    before = cpu_seconds(tree(pid))
    while time.monotonic() < deadline:
        time.sleep(1)
        now = cpu_seconds(tree(pid))
        if now - before < _QUIET:
            return
        before = now


def _let_wait(generator: Generator, waiting: list[tuple[int, int]]) -> None:
    """Note how many wait, and by how much the server has grown since nobody did."""
    before, _ = memory_bytes(tree(generator.site.pid))
    clients = generator.do("wait")
    after, _ = memory_bytes(tree(generator.site.pid))
    grown = waiting[-1][1] if waiting else 0
    waiting.append((clients, grown + after - before))
