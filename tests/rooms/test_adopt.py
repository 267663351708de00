"""Taking over a room's state from another server: joining, leaving, and coming back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.adopt import Unacceptable
from homeserver.rooms.room import Room
from homeserver.rooms.send import Draft
from homeserver.rooms.timeline import Change
from homeserver.storage import rooms as room_storage
from homeserver.storage.append import Append
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.rooms.elsewhere import Elsewhere
from tests.world import ELSEWHERE, World

BOB = f"@bob:{ELSEWHERE}"


@pytest.fixture
async def world(database: Database) -> World:
    return await World.open(database)


class RoomElsewhere:
    """A room of another server: a straight line of events with the state after the last."""

    def __init__(self, elsewhere: Elsewhere, version: str) -> None:
        self.elsewhere = elsewhere
        self.world = elsewhere.world
        self.room = self.world.rooms.new(f"!room:{ELSEWHERE}", ROOM_VERSIONS[version])
        self.events: list[Event] = []
        self.state: dict[StateKey, Event] = {}
        creator = {"room_version": version, "creator": BOB}
        self.sends(Draft(BOB, "m.room.create", creator, state_key=""))
        self.sends(Draft(BOB, "m.room.member", {"membership": "join"}, state_key=BOB))
        self.sends(Draft(BOB, "m.room.join_rules", {"join_rule": "public"}, state_key=""))

    def sends(self, draft: Draft) -> Event:
        self.world.clock.advance(1)
        event = self.elsewhere.compose(
            self.room.rules, self.room.room_id, self.events[-1:], self.state, draft
        )
        self.events.append(event)
        if event.is_state:
            self.state[event.key] = event
        return event

    def hears(self, stored: StoredEvent | None) -> None:
        """A state event of the server under test arrives."""
        assert stored is not None
        self.elsewhere.known[stored.id] = stored.event
        self.events.append(stored.event)
        self.state[stored.event.key] = stored.event

    def topic(self, text: str) -> Event:
        return self.sends(Draft(BOB, "m.room.topic", {"topic": text}, state_key=""))

    async def adopted_by(self, user_id: str, room: Room | None = None) -> Room:
        """The room as the server under test has it after a user joined through this one."""
        room = room or self.world.rooms.add(self.room)
        state = list(self.state.values())
        join = self.sends(Draft(user_id, "m.room.member", {"membership": "join"}, state_key=user_id))
        await self.adopts(room, join, state)
        return await self.world.rooms.get(room.room_id)

    async def adopts(self, room: Room, join: Event, state: Sequence[Event]) -> None:
        async with room.lock:
            written = await self.elsewhere.adoption.adopt(
                room, join, state, self.elsewhere.auth_chain([*state, join])
            )
        await written


async def topic_at(world: World, room: Room, ref: int | None) -> str | None:
    assert ref is not None
    stored = await world.states.event_at(room, ref, ("m.room.topic", ""))
    return stored.event.content["topic"] if stored else None


async def topics_at(world: World, room: Room, stored: StoredEvent) -> tuple[str | None, str | None]:
    return await topic_at(world, room, stored.state_before), await topic_at(world, room, stored.state_after)


async def test_the_adopted_state_is_the_rooms(world: World) -> None:
    there, alice = RoomElsewhere(Elsewhere(world), "10"), world.user("alice")
    there.topic("tea")
    room = await there.adopted_by(alice)
    for known in (world, await world.reopen()):
        room = await known.rooms.get(room.room_id)
        state = await known.states.events_at(room, room.state_ver)
        assert {key: one.id for key, one in state.items()} == {
            key: event.event_id for key, event in there.state.items()
        }
        assert (room.joined_members, room.servers) == (2, {"here.example": 1, ELSEWHERE: 1})
    await world.send.send(room.room_id, Draft(alice, "m.room.message", {"body": "hi"}))


async def test_members_asked_for_while_the_state_is_on_its_way_to_the_disk_are_known(world: World) -> None:
    there, alice = RoomElsewhere(Elsewhere(world), "10"), world.user("alice")
    state = list(there.state.values())
    join = there.sends(Draft(alice, "m.room.member", {"membership": "join"}, state_key=alice))
    room = world.rooms.add(there.room)
    async with room.lock:
        written = await there.elsewhere.adoption.adopt(
            room, join, state, there.elsewhere.auth_chain([*state, join])
        )
    assert await world.states.member(room, BOB)
    await written
    assert await world.states.member(room, BOB)


async def test_a_join_that_is_counted_to_the_state_has_one_place(world: World) -> None:
    there, alice = RoomElsewhere(Elsewhere(world), "10"), world.user("alice")
    join = there.sends(Draft(alice, "m.room.member", {"membership": "join"}, state_key=alice))
    room = world.rooms.add(there.room)
    await there.adopts(room, join, list(there.state.values()))
    assert [tip.id for tip in room.tips] == [join.event_id]


async def test_what_is_no_state_is_refused(world: World) -> None:
    there, alice = RoomElsewhere(Elsewhere(world), "10"), world.user("alice")
    state = [event for event in there.state.values() if event.type != "m.room.create"]
    join = there.sends(Draft(alice, "m.room.member", {"membership": "join"}, state_key=alice))
    with pytest.raises(Unacceptable):
        await there.adopts(there.room, join, state)
    assert await world.rooms.find(there.room.room_id) is None


async def test_the_state_at_events_of_an_earlier_stay_stays_readable(world: World) -> None:
    there, alice = RoomElsewhere(Elsewhere(world), "10"), world.user("alice")
    there.topic("tea")
    room = await there.adopted_by(alice)
    coffee = await there.elsewhere.sends(there.topic("coffee"))
    old = await there.elsewhere.sends(there.sends(Draft(BOB, "m.room.message", {"body": "old"})))
    leave = await world.send.send(
        room.room_id, Draft(alice, "m.room.member", {"membership": "leave"}, state_key=alice)
    )
    there.events.append(leave.event)
    there.state[leave.event.key] = leave.event
    there.elsewhere.known[leave.id] = leave.event
    there.topic("water")
    room = await there.adopted_by(alice, room)
    assert room.epoch == 1
    for known in (world, await world.reopen()):
        room = await known.rooms.get(room.room_id)
        assert await topics_at(known, room, coffee) == ("tea", "coffee")
        assert await topics_at(known, room, old) == ("coffee", "coffee")
        assert await topic_at(known, room, room.state_ver) == "water"
        assert await topic_at(known, room, old.pos or 0) == "coffee"
        whole = await known.states.events_at(room, coffee.state_before or 0)
        assert whole["m.room.topic", ""].event.content == {"topic": "tea"}
        assert [one.id for one in room.recent] == [there.events[-1].event_id]


async def test_a_fork_from_an_earlier_stay_is_resolved_with_the_state_now(world: World) -> None:
    there, alice = RoomElsewhere(Elsewhere(world), "10"), world.user("alice")
    there.topic("tea")
    room = await there.adopted_by(alice)
    old = await there.elsewhere.sends(there.sends(Draft(BOB, "m.room.message", {"body": "old"})))
    at_old = dict(there.state)
    leave = await world.send.send(
        room.room_id, Draft(alice, "m.room.member", {"membership": "leave"}, state_key=alice)
    )
    there.events.append(leave.event)
    there.state[leave.event.key] = leave.event
    there.elsewhere.known[leave.id] = leave.event
    there.topic("water")
    room = await there.adopted_by(alice, room)
    fork = there.elsewhere.compose(
        room.rules,
        room.room_id,
        [old.event],
        at_old,
        Draft(BOB, "m.room.name", {"name": "Pub"}, state_key=""),
    )
    stored = await there.elsewhere.sends(fork)
    assert not stored.hidden
    assert await topics_at(world, room, stored) == ("tea", "tea")
    now = await world.states.events_at(room, room.state_ver)
    assert now["m.room.topic", ""].event.content == {"topic": "water"}
    assert now["m.room.name", ""].id == stored.id
    assert now["m.room.member", alice].event.content["membership"] == "join"


async def test_who_is_left_without_a_membership_is_not_in_the_room_any_more(world: World) -> None:
    alice = world.user("alice")
    made = await world.public_room(alice)
    room, bob = await made.live(), world.user("bob")
    await made.join(bob)
    key = await world.keys.find(("m.room.member", bob))
    assert key is not None
    async with world.rooms.lock(room.room_id) as room:
        batch = Append(expected_last_pos=room.last_pos)
        pos = world.positions.next()
        gone = Change(("m.room.member", bob), key, None, room.members[bob])
        world.timeline.change_state(room, batch, [gone], pos)
        room.last_pos = pos
        written = world.timeline.write(room, batch, [])
    await written
    membership = await room_storage.local_membership(world.db.read, bob, room.nid)
    assert membership is not None
    assert membership.membership == "leave"


async def test_coming_back_shows_the_room_to_nobody_who_has_left_and_forgotten_it(world: World) -> None:
    alice, dave = world.user("alice"), world.user("dave")
    there = RoomElsewhere(Elsewhere(world), "11")
    room = await there.adopted_by(alice)
    await world.membership.join(dave, room.room_id)
    there.hears(await world.states.member(room, dave))
    for user_id in (dave, alice):
        await world.membership.leave(user_id, room.room_id)
        there.hears(await world.states.member(room, user_id))
    await world.membership.forget(dave, room.room_id)
    before = await room_storage.local_membership(world.db.read, dave, room.nid)

    await there.adopted_by(alice, room)

    assert before is not None
    after = await room_storage.local_membership(world.db.read, dave, room.nid)
    assert after == before
    assert await world.membership.joined_rooms(alice) == [room.room_id]
