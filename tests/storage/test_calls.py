"""Delayed and sticky events as they are stored, on both engines."""

from __future__ import annotations

from functools import partial

import msgspec

from homeserver.storage import delayed_events, sticky_events
from homeserver.storage.database import Database
from homeserver.storage.delayed_events import DelayedEvent
from homeserver.storage.sticky_events import Sticky

ALICE, BOB = "@alice:x", "@bob:x"


def delayed(
    name: str, user_id: str = ALICE, *, at: int = 100, delay: int = 10, key: str | None = None
) -> DelayedEvent:
    return DelayedEvent(name, user_id, "!r:x", "m.x", key, b"{}", delay, at, at + delay)


async def add(database: Database, *wanted: DelayedEvent) -> None:
    for one in wanted:
        await database.write(partial(delayed_events.add, one=one))


async def finalise(database: Database, name: str, now: int, keep: int = 100, **outcome: str | bytes) -> int:
    return await database.write(
        partial(delayed_events.finalise, delay_id=name, now=now, keep=keep, **outcome)  # type: ignore[arg-type]
    )


def names(found: list[DelayedEvent]) -> list[str]:
    return [one.delay_id for one in found]


async def test_what_is_scheduled_is_found_as_it_was_added(database: Database) -> None:
    whole = msgspec.structs.replace(
        delayed("whole", key=""), origin_server_ts=2**52, sticky_ms=5, content=b'{"a":1}'
    )
    await add(database, whole, delayed("second", at=90), delayed("bobs", BOB))
    assert await delayed_events.by_id(database.read, "whole") == whole
    assert await delayed_events.by_id(database.read, "nobodys") is None
    assert names(await delayed_events.scheduled(database.read, ALICE)) == ["second", "whole"]
    assert await delayed_events.load_of(database.read, ALICE) == (2, 100)
    assert await delayed_events.load_of(database.read, "@carol:x") == (0, None)
    assert await delayed_events.state_keys(database.read) == [("!r:x", "m.x", "", ALICE, "whole")]
    assert names(await delayed_events.by_ids(database.read, ALICE, ["whole", "bobs"])) == ["whole"]


async def test_what_is_due_comes_in_the_order_of_its_times(database: Database) -> None:
    await add(database, delayed("c", at=3), delayed("a", at=1), delayed("b", at=2, delay=11))
    assert await delayed_events.next_due(database.read) == 11
    assert names(await delayed_events.due(database.read, 12, 10)) == ["a"]
    assert names(await delayed_events.due(database.read, 13, 10)) == ["a", "b", "c"] or names(
        await delayed_events.due(database.read, 13, 10)
    ) == ["a", "c", "b"]
    assert len(await delayed_events.due(database.read, 13, 2)) == 2
    assert await database.write(partial(delayed_events.restart, delay_id="a", now=50)) == 1
    assert (await delayed_events.by_id(database.read, "a")) == delayed("a", at=50)
    for name in ("b", "c"):
        assert await finalise(database, name, 20) == 1
    assert await delayed_events.next_due(database.read) == 60


async def test_an_outcome_is_final(database: Database) -> None:
    await add(database, delayed("a"), delayed("b"))
    assert await finalise(database, "a", 200, event_id="$e") == 1
    assert await finalise(database, "a", 300, error=b"{}") == 0
    assert await database.write(partial(delayed_events.restart, delay_id="a", now=50)) == 0
    one = await delayed_events.by_id(database.read, "a")
    assert one == msgspec.structs.replace(delayed("a"), finalised_at=200, event_id="$e")
    assert await delayed_events.ids_of_events(database.read, ALICE, ["$e", "$f"]) == {"$e": "a"}
    assert await delayed_events.ids_of_events(database.read, BOB, ["$e"]) == {}
    assert await delayed_events.senders(database.read) == {ALICE}
    assert names(await delayed_events.scheduled(database.read, ALICE)) == ["b"]


async def test_of_outcomes_only_the_latest_are_kept(database: Database) -> None:
    await add(database, *(delayed(str(number)) for number in range(6)), delayed("bobs", BOB))
    await finalise(database, "bobs", 1, keep=3)
    for number in range(6):
        await finalise(database, str(number), 200 + number, keep=3)
    assert names(await delayed_events.finalised(database.read, ALICE, None, 10)) == ["5", "4", "3"]
    assert names(await delayed_events.finalised(database.read, ALICE, (204, "4"), 10)) == ["3"]
    assert names(await delayed_events.finalised(database.read, BOB, None, 10)) == ["bobs"]
    assert await database.write(partial(delayed_events.forget_finalised, before=204)) == 2
    assert names(await delayed_events.finalised(database.read, ALICE, None, 10)) == ["5", "4"]
    await database.write(partial(delayed_events.remove_all, user_id=ALICE))
    assert await delayed_events.finalised(database.read, ALICE, None, 10) == []


async def test_what_sticks_is_kept_until_it_does_no_more(database: Database) -> None:
    told, pending = Sticky(1, 7, ALICE, 5, 100), Sticky(2, 7, BOB, None, 200)
    await database.write(partial(sticky_events.put, sticky=[told, pending]))
    assert sorted(one.event_nid for one in await sticky_events.unexpired(database.read, 99)) == [1, 2]
    allowed = msgspec.structs.replace(pending, pos=9)
    await database.write(partial(sticky_events.put, sticky=[allowed]))
    assert await sticky_events.unexpired(database.read, 100) == [allowed]
    assert await database.write(partial(sticky_events.remove_expired, now=100)) == 1
    assert await sticky_events.unexpired(database.read, 0) == [allowed]
