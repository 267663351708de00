"""Stalls of the event loop and pauses of the collector are measured."""

from __future__ import annotations

import asyncio
import gc
import time

from homeserver.exposition import stall_seconds
from homeserver.memory import collect_rarely
from homeserver.stalls import Stalls


async def test_what_holds_the_loop_shows_as_lag_until_it_is_asked_for() -> None:
    stalls = Stalls()
    stalls.start()
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251  what must not happen in the loop
    # The timer that is late comes before this one.
    await asyncio.sleep(0.001)
    stalls.stop()

    first, second = samples(stalls), samples(stalls)
    assert first["inglenook_event_loop_lag_seconds_sum", ()] > 0.1
    assert first["inglenook_event_loop_lag_max_seconds", ()] > 0.1
    assert second["inglenook_event_loop_lag_max_seconds", ()] == 0


async def test_only_what_the_loop_worked_itself_counts_as_held() -> None:
    stalls = Stalls()
    stalls.start()
    await asyncio.sleep(0)
    time.sleep(0.2)  # noqa: ASYNC251  a wait for a processor, say
    await asyncio.sleep(0.001)
    waited = samples(stalls)
    done_with = time.thread_time() + 0.2
    while time.thread_time() < done_with:
        pass
    await asyncio.sleep(0.001)
    stalls.stop()

    worked, after = samples(stalls), samples(stalls)
    longest = "inglenook_event_loop_held_max_seconds", ()
    assert waited[longest] < 0.1 < worked[longest]
    assert after[longest] == 0


async def test_pauses_of_the_collector_are_counted_by_generation() -> None:
    stalls = Stalls()
    stalls.start()
    gc.collect(1)
    stalls.stop()
    gc.collect(1)

    assert samples(stalls)["inglenook_gc_pause_seconds_count", ("1",)] == 1


def test_what_is_there_when_the_server_has_started_is_not_looked_through_again() -> None:
    before = gc.get_threshold()
    kept = [["a container"]]
    try:
        collect_rarely()
        assert not any(one is kept for one in gc.get_objects())
        assert gc.get_threshold() > before
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


def samples(stalls: Stalls) -> dict[tuple[str, tuple[str, ...]], float]:
    """What Prometheus would be shown, by name and labels, buckets left out."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in stall_seconds(stalls)
        for sample in family.samples
        if "le" not in sample.labels
    }
