"""From rounds to lines: what is read, what was aimed at, and when the generator is to be doubted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.figures import figures
from bench.run import Results
from bench.scenarios import SCENARIOS
from bench.scenarios.scenario import Round
from bench.scenarios.size import QUICK
from bench.targets import TARGETS

SEND = [scenario for scenario in SCENARIOS if scenario.key == "send_1"]
CALM = Round(count=100, seconds=1.0, server_cpu=0.5, database_cpu=0.0, generator_cpu=0.1)


def results(ours: list[Round], theirs: list[Round]) -> Results:
    mebibyte = 2**20
    memory = [(60 * mebibyte, 50 * mebibyte), (120 * mebibyte, 110 * mebibyte)]
    return Results({"send_1": [ours, theirs]}, idle_memory=memory, memory_after=memory)


def test_the_median_of_the_rounds_is_the_figure_and_their_ratios_its_spread() -> None:
    ours = [replace(CALM, seconds=seconds) for seconds in (1.0, 2.0, 4.0)]
    theirs = [replace(CALM, seconds=50.0)] * 3

    sent = {line.key: line for line in figures(results(ours, theirs), SEND, QUICK)}["send_1"]

    assert sent.values == (50.0, 2.0)
    assert sent.compared is not None
    assert (sent.compared.times, sent.compared.least, sent.compared.most) == (25.0, 12.5, 50.0)
    assert sent.reached


def test_half_the_memory_is_twice_as_good_and_enough() -> None:
    lines = {line.key: line for line in figures(results([CALM], [CALM]), SEND, QUICK)}

    assert lines["memory_idle"].values == (60.0, 120.0)
    assert lines["memory_idle"].reached
    assert lines["send_1"].reached is False


def test_what_postgresql_used_stands_apart() -> None:
    busy = replace(CALM, database_cpu=0.2)

    lines = {line.key: line for line in figures(results([busy], [busy]), SEND, QUICK)}

    assert lines["send_1_cpu"].values == (5.0, 5.0)
    assert lines["send_1_database_cpu"].values == (2.0, 2.0)


@pytest.mark.parametrize(
    ("one", "doubt"),
    [
        (CALM, ""),
        (replace(CALM, generator_cpu=0.8, server_cpu=9.0), "over 70% of a core in 1 of 2 rounds"),
        (replace(CALM, generator_cpu=0.3), "over 50% of the server's in 1 of 2 rounds"),
    ],
)
def test_a_generator_that_may_have_been_the_limit_is_told_of(one: Round, doubt: str) -> None:
    sent = {line.key: line for line in figures(results([one], [CALM]), SEND, QUICK)}["send_1"]

    assert sent.doubts.endswith(doubt)
    assert bool(sent.doubts) == bool(doubt)


def test_every_target_is_one_of_something_that_is_measured() -> None:
    read = {reading.key for scenario in SCENARIOS for reading in scenario.readings}

    assert read | {"memory_idle", "memory_after"} >= TARGETS.keys()


def test_no_two_readings_share_a_key() -> None:
    keys = [reading.key for scenario in SCENARIOS for reading in scenario.readings]

    assert len(keys) == len(set(keys))
