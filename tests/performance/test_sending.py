"""What one message costs, counted: it reads nothing, starts nothing and encodes little, in any room."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from homeserver.protocol import event_format, sealing, signing
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.rooms import send
from homeserver.rooms.send import AlsoFor, Draft
from homeserver.rooms.transactions import Transactions
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.performance.counting import counted_calls, counted_statements, counted_tasks, suspensions
from tests.world import ELSEWHERE, World, WorldRoom

FEW, MANY = 10, 10_000


class Sender:
    """Alice at her phone, as her requests arrive behind the HTTP server."""

    def __init__(self, room: WorldRoom) -> None:
        self.world, self.room = room.world, room
        self.user_id = room.world.user("alice")
        self.transactions = Transactions(room.world.db, room.world.clock, room.world.core.transactions)
        self._number = 0

    async def send(self) -> str:
        self._number += 1
        content = {"msgtype": "m.text", "body": f"Message {self._number}"}

        async def send(also: AlsoFor) -> StoredEvent:
            draft = Draft(self.user_id, "m.room.message", content)
            return await self.world.send.send(self.room.room_id, draft, also)

        return await self.transactions.once(self.user_id, "PHONE", "send", str(self._number), send)


async def sender_in_room_of(database: Database, members: int) -> Sender:
    """Somebody who has sent before, in a room that has so many members elsewhere."""
    world = await World.open(database)
    made = await world.public_room(world.user("alice"))
    room = await made.live()
    alice = room.members[world.user("alice")]
    room.members |= {f"@member{number}:{ELSEWHERE}": alice for number in range(members)}
    room.joined_members += members
    room.servers[ELSEWHERE] = members
    sender = Sender(made)
    await sender.send()
    return sender


@pytest.mark.parametrize("members", [FEW, MANY])
async def test_a_message_reads_nothing_and_waits_for_the_disk_alone(
    sqlite_database: Database, members: int
) -> None:
    sender = await sender_in_room_of(sqlite_database, members)

    async with counted_statements(sqlite_database) as statements:
        with counted_tasks() as tasks:
            sent = await suspensions(sender.send())

    assert statements.read == []
    assert tasks == []
    assert sent.times == 1


async def test_what_a_message_writes_does_not_grow_with_the_room(sqlite_database: Database) -> None:
    sender = await sender_in_room_of(sqlite_database, FEW)
    async with counted_statements(sqlite_database) as few:
        await sender.send()
    room = await sender.room.live()
    room.joined_members = room.servers[ELSEWHERE] = MANY
    async with counted_statements(sqlite_database) as many:
        await sender.send()

    assert len(many.written) == len(few.written)


async def test_an_event_of_our_own_is_encoded_three_times_and_signed_once(sqlite_database: Database) -> None:
    sender = await sender_in_room_of(sqlite_database, FEW)

    with ExitStack() as stack:
        encoders = [
            (event_format, "encode"),
            (event_format, "encode_strict"),
            (signing, "encode"),
            (sealing, "encode_again"),
        ]
        encoded = [stack.enter_context(counted_calls(module, name)) for module, name in encoders]
        signed = stack.enter_context(counted_calls(signing.SigningKey, "sign"))
        parsed = stack.enter_context(counted_calls(sealing, "parse_event"))
        await sender.send()

    # For the hash of its content, for its signature and its id, and to be stored.
    assert sum(len(calls) for calls in encoded) == 3
    assert len(signed) == 1
    assert parsed == []


async def test_the_form_of_a_message_like_the_last_one_is_not_looked_at_again(
    sqlite_database: Database,
) -> None:
    sender = await sender_in_room_of(sqlite_database, FEW)
    with counted_calls(sealing, "check_form") as looked_at, counted_calls(sealing, "check_again") as again:
        await sender.send()

    assert looked_at == []
    assert len(again) == 1


async def test_a_new_room_is_one_write_and_reads_nothing_of_a_room_that_is_not_there(
    sqlite_database: Database,
) -> None:
    world = await World.open(sqlite_database)
    await world.public_room(world.user("alice"))

    async with counted_statements(sqlite_database) as statements:
        await world.public_room(world.user("alice"))

    assert statements.written.count("COMMIT") == 1
    assert [text for text in statements.read if "current_state" in text] == []


async def test_a_message_is_judged_again_when_the_state_has_changed(sqlite_database: Database) -> None:
    world = await World.open(sqlite_database)
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice, version="11")
    await room.join(bob)
    await room.send(bob, "one")
    with counted_calls(send, "check_against_state") as judged:
        await room.send(bob, "two")
        assert judged == []
        await room.set_state(alice, "m.room.topic", {"topic": "changed"})
        judged.clear()
        await room.send(bob, "three")
        assert len(judged) == 1
    await room.set_state(alice, "m.room.power_levels", {"users": {alice: 100}, "events_default": 50})
    with pytest.raises(NotAllowed):
        await room.send(bob, "four")
    await room.set_state(alice, "m.room.power_levels", {"users": {alice: 100}})
    await room.send(bob, "five")
    await world.membership.kick(alice, room.room_id, bob)
    with pytest.raises(NotAllowed):
        await room.send(bob, "six")
