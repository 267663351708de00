"""Events outside the timeline: how they are judged, and how they become part of it."""

from __future__ import annotations

import pytest

from homeserver.protocol.events import Event
from homeserver.rooms.inbound import Dropped
from homeserver.rooms.room import Room
from homeserver.rooms.send import Draft
from homeserver.storage.database import Database
from tests.rooms.elsewhere import Elsewhere
from tests.world import ELSEWHERE, World, WorldRoom

BOB, CAROL = f"@bob:{ELSEWHERE}", f"@carol:{ELSEWHERE}"


@pytest.fixture
async def world(database: Database) -> World:
    return await World.open(database)


class Shared:
    """A room of this server with somebody from elsewhere."""

    def __init__(self, world: World, made: WorldRoom, room: Room) -> None:
        self.world, self.made, self.room = world, made, room
        self.elsewhere = Elsewhere(world)

    @classmethod
    async def open(cls, world: World, *, version: str | None = None) -> Shared:
        made = await world.public_room(world.user("alice"), version=version)
        shared = cls(world, made, await made.live())
        await shared.elsewhere.sends(await shared.compose(join(BOB)))
        return shared

    async def compose(self, draft: Draft, *, on: list[Event] | None = None) -> Event:
        self.world.clock.advance(1)
        stored = await self.world.states.events_at(self.room, self.room.state_ver)
        for one in stored.values():
            self.elsewhere.known[one.id] = one.event
        return self.elsewhere.compose(
            self.room.rules,
            self.room.room_id,
            on or [tip.event for tip in self.room.tips],
            {key: one.event for key, one in stored.items()},
            draft,
        )


def join(user_id: str) -> Draft:
    return Draft(user_id, "m.room.member", {"membership": "join"}, state_key=user_id)


def message(body: str) -> Draft:
    return Draft(BOB, "m.room.message", {"body": body})


async def test_an_outlier_has_no_place_until_it_comes_by_itself(world: World) -> None:
    shared = await Shared.open(world)
    event = await shared.compose(join(CAROL))
    known = await shared.elsewhere.inbound.store_outliers(shared.room, [event.pdu])
    assert known[event.event_id].pos is None
    assert await shared.made.membership(CAROL) is None
    placed = await shared.elsewhere.sends(event)
    assert placed.nid == known[event.event_id].nid
    assert placed.pos == shared.room.last_pos
    assert await shared.made.membership(CAROL) == "join"
    again = await (await world.reopen()).events.by_id(event.event_id)
    assert again is not None
    assert (again.pos, again.state_before, again.state_after) == (
        placed.pos,
        placed.state_before,
        placed.state_after,
    )


async def test_an_outlier_that_was_redacted_stays_so_when_it_gets_its_place(world: World) -> None:
    shared, alice = await Shared.open(world), world.user("alice")
    event = await shared.compose(message("secret"))
    await shared.elsewhere.inbound.store_outliers(shared.room, [event.pdu])
    redaction = await shared.made.redact(alice, event.event_id)
    placed = await shared.elsewhere.sends(event)
    again = await (await world.reopen()).events.by_id(event.event_id)
    assert again is not None
    for stored in (placed, shared.room.recent[-1], again):
        assert stored.event.content == {}
        assert stored.redacted_by == redaction.nid
    assert again.flags == placed.flags


async def test_a_redaction_that_came_first_empties_what_readers_are_told_of(world: World) -> None:
    shared, alice = await Shared.open(world), world.user("alice")
    event = await shared.compose(message("secret"))
    await shared.made.redact(alice, event.event_id)
    await shared.elsewhere.sends(event)
    assert world.announced[-1].events[-1].event.content == {}
    assert shared.room.recent[-1].event.content == {}


async def test_a_redaction_nobody_is_entitled_to_does_not_shut_out_one_that_is(world: World) -> None:
    shared, alice = await Shared.open(world), world.user("alice")
    stranger = "@eve:third.example"
    eve = await shared.compose(join(stranger))
    await shared.elsewhere.sends(eve)
    event = await shared.compose(message("secret"))
    forged = Draft(stranger, "m.room.redaction", {}, redacts=event.event_id)
    await shared.elsewhere.sends(await shared.compose(forged))
    redaction = await shared.made.redact(alice, event.event_id)
    placed = await shared.elsewhere.sends(event)
    assert placed.redacted_by == redaction.nid


async def test_an_outlier_whose_auth_events_are_rejected_is_rejected(world: World) -> None:
    shared = await Shared.open(world)
    ban = Draft(BOB, "m.room.member", {"membership": "ban"}, state_key=world.user("alice"))
    event = await shared.compose(ban)
    known = await shared.elsewhere.inbound.store_outliers(shared.room, [event.pdu])
    assert known[event.event_id].rejected
    assert known[event.event_id].event.rejected


async def test_an_outlier_that_cannot_be_judged_is_left_out(world: World) -> None:
    shared = await Shared.open(world)
    carol = await shared.compose(join(CAROL))
    pdu = {**carol.pdu, "auth_events": [*carol.pdu["auth_events"], "$unknown"]}
    assert await shared.elsewhere.inbound.store_outliers(shared.room, [pdu]) == await known_of(world, carol)


async def known_of(world: World, event: Event) -> dict[str, object]:
    return dict(await world.events.by_ids(event.auth_events))


async def test_an_event_that_builds_on_nothing_is_dropped(world: World) -> None:
    shared = await Shared.open(world, version="10")
    create = shared.room.create.event
    second = {**create.pdu, "origin_server_ts": create.origin_server_ts + 1}
    with pytest.raises(Dropped):
        await shared.elsewhere.inbound.receive(ELSEWHERE, shared.room.room_id, second)
    assert shared.room.create.event is create


async def test_a_gap_is_not_filled_with_what_came_before_the_known_part(world: World) -> None:
    shared = await Shared.open(world)
    (start,) = [tip.event for tip in shared.room.tips]
    history = await shared.compose(message("history"))
    known = await shared.compose(message("known"), on=[history])
    shared.elsewhere.states[known.event_id] = await state_of(shared)
    await shared.elsewhere.sends(known)
    between = await shared.compose(message("between"), on=[known])
    newest = await shared.compose(message("newest"), on=[between])
    shared.elsewhere.gap = [start, history, between]
    await shared.elsewhere.sends(newest)
    bodies = [one.event.content.get("body") for one in shared.room.recent if not one.event.is_state]
    assert bodies == ["known", "between", "newest"]
    assert shared.room.tips[-1].id == newest.event_id


async def state_of(shared: Shared) -> list[Event]:
    stored = await shared.world.states.events_at(shared.room, shared.room.state_ver)
    return [one.event for one in stored.values()]
