"""Servers that lie about what was said before somebody came."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.protocol.events import Event
from homeserver.storage import events as event_storage
from tests.hostile.peer import HostilePeer, Pdu, Reply
from tests.remote import Server


class Old:
    """A room of the hostile server that alice has come to late; ``said`` is what she did not hear."""

    def __init__(self, here: Server, evil: HostilePeer, room_id: str) -> None:
        self.here, self.evil, self.room_id = here, evil, room_id
        self.mallory, self.alice = "@mallory:evil.example", "@alice:here.example"
        self.said: list[str] = []

    async def scrolls_back(self, limit: int = 50) -> bool:
        room = await self.here.room(self.room_id)
        return await self.here.backfill.fill(room, 0, room.last_pos, limit)

    async def history(self) -> list[Event]:
        """What alice sees of the timeline, oldest first."""
        room = await self.here.room(self.room_id)
        found = await event_storage.timeline_backward(self.here.db.scan, room.nid, room.last_pos, 1000)
        return [stored.event for stored in reversed(found) if not stored.hidden]

    async def honest(self) -> list[Pdu]:
        """What the server would truly answer, the newest first."""
        room = await self.evil.room(self.room_id)
        return [stored.event.pdu for stored in reversed(room.recent)]

    def answers(self, *pdus: Any) -> None:
        self.evil.lies_about("v1/backfill", {"origin": "evil.example", "pdus": list(pdus)})

    async def check_nothing_changed(self, before: dict[Any, Any]) -> None:
        """The state is as it was, and the room goes on."""
        assert await self.here.state_ids(self.room_id) == before
        self.evil.tells_the_truth()
        await self.here.say(self.room_id, self.alice, "and now")
        await self.here.network.settle()
        assert (await self.evil.bodies(self.room_id))[-1] == "and now"


@pytest.fixture(params=["2", "11", "12"])
async def old(request: pytest.FixtureRequest, here: Server, evil: HostilePeer) -> Old:
    mallory = evil.user("mallory")
    room_id = await evil.public_room(mallory, version=request.param)
    old = Old(here, evil, room_id)
    for n in range(5):
        old.said.append((await evil.say(room_id, mallory, f"old {n}")).id)
    await here.join(here.user("alice"), room_id, evil)
    return old


async def test_events_that_nothing_leads_to_are_left_out(old: Old) -> None:
    """History is what the oldest event known here builds on; anything else could be made up today."""
    before = await old.here.state_ids(old.room_id)
    invented = [await old.evil.message(old.room_id, old.mallory, f"invented {n}", depth=2) for n in range(3)]
    old.answers(*invented)
    assert not await old.scrolls_back()
    old.answers(*invented, *await old.honest())
    await old.scrolls_back()
    bodies = [event.content.get("body") for event in await old.history()]
    assert "old 4" in bodies
    assert not [body for body in bodies if str(body).startswith("invented")]
    await old.check_nothing_changed(before)


async def test_a_history_in_the_wrong_order_is_put_right(old: Old) -> None:
    before = await old.here.state_ids(old.room_id)
    pdus = await old.honest()
    old.answers(*pdus[::2], *pdus[1::2])
    assert await old.scrolls_back()
    bodies = [event.content["body"] for event in await old.history() if event.type == "m.room.message"]
    assert bodies == [f"old {n}" for n in range(5)]
    await old.check_nothing_changed(before)


async def test_a_history_before_the_create_event_is_not_believed(old: Old) -> None:
    before = await old.here.state_ids(old.room_id)
    create = (await old.evil.room(old.room_id)).create.event
    older = await old.evil.message(old.room_id, old.mallory, "before the beginning", depth=0, prev_events=[])
    old.answers(older, create.pdu, *await old.honest())
    await old.scrolls_back()
    assert "before the beginning" not in [event.content.get("body") for event in await old.history()]
    await old.check_nothing_changed(before)


async def test_a_history_of_another_room_is_left_out(old: Old) -> None:
    before = await old.here.state_ids(old.room_id)
    rules = await old.evil.rules(old.room_id)
    other = await old.evil.public_room(old.mallory, version=rules.id)
    await old.evil.say(other, old.mallory, "elsewhere")
    old.answers(*[stored.event.pdu for stored in (await old.evil.room(other)).recent])
    assert not await old.scrolls_back()
    await old.check_nothing_changed(before)


async def test_a_history_without_signatures_or_sense_is_left_out(old: Old) -> None:
    before = await old.here.state_ids(old.room_id)
    bare = [{**pdu, "signatures": {}} for pdu in await old.honest()]
    for pdus in (bare, [{}], [{"depth": "x"}], [None], []):
        old.answers(*pdus)
        assert not await old.scrolls_back()
    for reply in ({}, {"pdus": {}}, [], Reply(b"\x00"), Reply({}, 500), Reply(b"[" * 90_000)):
        old.evil.lies_about("v1/backfill", reply)
        assert not await old.scrolls_back()
    await old.check_nothing_changed(before)


async def test_a_history_of_thousands_is_cut(old: Old) -> None:
    before = await old.here.state_ids(old.room_id)
    pdus = await old.honest()
    junk = [{**pdus[0], "depth": n, "signatures": {}} for n in range(5000)]
    old.answers(*pdus, *junk)
    asked = len(old.here.network.asked)
    await old.scrolls_back(limit=10_000)
    assert len(await old.history()) < 110
    assert len(old.here.network.asked) - asked < 10
    await old.check_nothing_changed(before)


async def test_a_history_that_takes_the_admins_power_does_not(old: Old) -> None:
    """Old state is old, whatever the order in which it comes."""
    before = await old.here.state_ids(old.room_id)
    levels = (await old.evil.state_at_tips(old.room_id))["m.room.power_levels", ""].content
    topic = await old.evil.event(
        old.room_id, old.mallory, "m.room.topic", {"topic": "lies"}, state_key="", depth=3
    )
    power = await old.evil.event(
        old.room_id, old.mallory, "m.room.power_levels", {**levels, "ban": 0}, state_key="", depth=3
    )
    old.answers(topic, power, *await old.honest())
    await old.scrolls_back()
    await old.check_nothing_changed(before)


async def test_the_same_event_a_hundred_times_is_one(old: Old) -> None:
    before = await old.here.state_ids(old.room_id)
    pdus = await old.honest()
    old.answers(*[pdus[0]] * 50, *pdus)
    await old.scrolls_back()
    ids = [event.event_id for event in await old.history()]
    assert len(ids) == len(set(ids))
    await old.check_nothing_changed(before)
