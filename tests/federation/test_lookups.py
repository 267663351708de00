"""The bounded memory, and questions that are asked once."""

from __future__ import annotations

import asyncio

import pytest

from homeserver.lookups import InFlight, Recent


def test_what_was_used_longest_ago_is_forgotten() -> None:
    recent: Recent[str, int] = Recent(2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert (recent.get("a"), recent.get("b"), recent.get("c")) == (1, None, 3)


async def test_all_askers_get_the_same_failure_and_the_next_one_asks_anew() -> None:
    questions: InFlight[str, int] = InFlight()
    asked = 0

    async def fail() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        raise OSError("no answer")

    results = await asyncio.gather(*(questions.run("q", fail) for _ in range(3)), return_exceptions=True)
    assert [str(result) for result in results] == ["no answer"] * 3
    assert asked == 1
    with pytest.raises(OSError, match="no answer"):
        await questions.run("q", fail)
    assert asked == 2


async def test_closing_cancels_what_is_going_on() -> None:
    questions: InFlight[str, bool] = InFlight()
    asker = asyncio.create_task(questions.run("q", asyncio.Event().wait))
    await asyncio.sleep(0)
    await questions.close()
    with pytest.raises(asyncio.CancelledError):
        await asker
