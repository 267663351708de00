"""What people of two servers do in one room, told once for every pair of servers.

A module of tests inherits ``Stories`` and gives the fixture ``pair``.  Alice lives on the server
that makes the room (``pair.host``), Bob on the one that joins it (``pair.guest``).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.interop.client import Client, Event, NotSeen, Refused, RoomState
from tests.interop.conftest import NewUser, Pair
from tests.processes import Server, start_all

EVERY_VERSION = [str(number) for number in range(1, 13)]
VERSIONS = ["10", "11", "12"]
NEWEST = "12"

in_versions = pytest.mark.parametrize("version", VERSIONS)


async def public_room(alice: Client, version: str = NEWEST, **body: Any) -> str:
    return await alice.create_room(preset="public_chat", room_version=version, **body)


async def shared_room(alice: Client, bob: Client, pair: Pair, version: str = NEWEST, **body: Any) -> str:
    """A public room of Alice's that Bob has joined, as both of them know."""
    room = await public_room(alice, version, **body)
    await come_in(room, alice, bob, pair)
    return room


async def come_in(room: str, alice: Client, bob: Client, pair: Pair) -> None:
    """Bob joins, and both of them know."""
    await bob.join(room, pair.host.server_name)
    await alice.sees_membership(room, bob.user_id, "join")
    await bob.sees_membership(room, bob.user_id, "join")


async def agree_on_state(room: str, *clients: Client, patience: float = 20.0) -> RoomState:
    """Wait until all the clients' servers report the same current state; returns it."""
    deadline = time.monotonic() + patience
    while True:
        first, *others = [await client.state(room) for client in clients]
        if all(other == first for other in others):
            return first
        if time.monotonic() > deadline:
            differences = [sorted(first.items() ^ other.items()) for other in others]
            raise NotSeen(f"the same state on both servers; they differ in {differences}")
        await asyncio.sleep(0.1)


async def hear_all(client: Client, room: str, event_ids: Sequence[str]) -> list[Event]:
    return [await client.hears(room, event_id) for event_id in event_ids]


@asynccontextmanager
async def stopped(server: Server) -> AsyncIterator[None]:
    """The server is away for the length of the block."""
    await asyncio.to_thread(server.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


def bodies(events: Sequence[Event]) -> list[str]:
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


def is_redacted(event: Event) -> bool:
    return event["content"] == {} and "redacted_because" in event.get("unsigned", {})


class Stories:
    """Told between ``pair.host`` and ``pair.guest``."""

    @pytest.mark.parametrize("version", EVERY_VERSION)
    async def test_two_servers_share_a_room_of_every_version(
        self, alice: Client, bob: Client, pair: Pair, version: str
    ) -> None:
        room = await shared_room(alice, bob, pair, version, name="The inglenook")

        hello = await alice.say(room, "Hello, Bob")
        assert (await bob.hears(room, hello))["content"]["body"] == "Hello, Bob"
        answer = await bob.say(room, "Hello, Alice")
        assert (await alice.hears(room, answer))["content"]["body"] == "Hello, Alice"

        assert (await bob.state_content(room, "m.room.create")).get("room_version", "1") == version
        assert await bob.members(room) == await alice.members(room) == {alice.user_id, bob.user_id}
        await agree_on_state(room, alice, bob)

    @in_versions
    async def test_topics_and_power_levels_cross(
        self, alice: Client, bob: Client, pair: Pair, version: str
    ) -> None:
        room = await shared_room(alice, bob, pair, version)

        topic = await alice.set_topic(room, "Firewood")
        assert (await bob.hears(room, topic))["content"]["topic"] == "Firewood"
        with pytest.raises(Refused) as refusal:
            await bob.set_topic(room, "Coal")
        assert (refusal.value.status, refusal.value.errcode) == (403, "M_FORBIDDEN")

        levels = await alice.set_power(room, bob.user_id, 50)
        assert (await bob.hears(room, levels))["content"]["users"][bob.user_id] == 50
        topic = await bob.set_topic(room, "Coal")
        assert (await alice.hears(room, topic))["content"]["topic"] == "Coal"

        levels = await alice.set_power(room, bob.user_id, 0)
        await bob.hears(room, levels)
        with pytest.raises(Refused):
            await bob.set_topic(room, "Peat")
        state = await agree_on_state(room, alice, bob)
        assert state["m.room.topic", ""] == topic
        assert state["m.room.power_levels", ""] == levels

    @in_versions
    async def test_an_invitation_is_accepted(
        self, alice: Client, bob: Client, pair: Pair, version: str
    ) -> None:
        room = await alice.create_room(preset="private_chat", room_version=version, name="A quiet corner")
        with pytest.raises(Refused):
            await bob.join(room, pair.host.server_name)

        await alice.invite(room, bob.user_id)
        invitation = await bob.is_invited(room)
        assert ("m.room.name", "A quiet corner") in [
            (event["type"], event["content"].get("name")) for event in invitation
        ]
        await bob.join(room)
        await alice.sees_membership(room, bob.user_id, "join")

        heard = await alice.say(room, "You came")
        await bob.hears(room, heard)
        await agree_on_state(room, alice, bob)

    @in_versions
    async def test_an_invitation_is_rejected(
        self, alice: Client, bob: Client, pair: Pair, version: str
    ) -> None:
        room = await alice.create_room(preset="private_chat", room_version=version)
        await alice.invite(room, bob.user_id)
        await bob.is_invited(room)

        await bob.leave(room)

        await alice.sees_membership(room, bob.user_id, "leave")
        await bob.is_out(room)
        with pytest.raises(Refused):
            await bob.join(room, pair.host.server_name)
        assert await alice.members(room) == {alice.user_id}

    @in_versions
    async def test_the_joining_side_invites_too(
        self, alice: Client, bob: Client, pair: Pair, new_user: NewUser, version: str
    ) -> None:
        room = await alice.create_room(preset="private_chat", room_version=version)
        await alice.invite(room, bob.user_id)
        await bob.is_invited(room)
        await bob.join(room)
        carol, dave = await new_user(pair.host, "carol"), await new_user(pair.host, "dave")

        await bob.invite(room, carol.user_id)
        await bob.invite(room, dave.user_id)
        await carol.is_invited(room)
        await carol.join(room)
        await dave.is_invited(room)
        await dave.leave(room)

        await bob.sees_membership(room, carol.user_id, "join")
        await bob.sees_membership(room, dave.user_id, "leave")
        assert await bob.members(room) == {alice.user_id, bob.user_id, carol.user_id}
        await agree_on_state(room, alice, bob, carol)

    @in_versions
    async def test_a_guest_leaves_and_comes_back(
        self, alice: Client, bob: Client, pair: Pair, version: str
    ) -> None:
        room = await shared_room(alice, bob, pair, version)

        await bob.leave(room)
        await bob.is_out(room)
        await alice.sees_membership(room, bob.user_id, "leave")
        missed = await alice.say(room, "Said while Bob was away")
        await come_in(room, alice, bob, pair)

        heard = await alice.say(room, "Welcome back")
        await bob.hears(room, heard)
        await agree_on_state(room, alice, bob)
        assert missed in [event["event_id"] for event in await bob.history(room)]

    @in_versions
    async def test_kicked_and_banned_across_servers(
        self, alice: Client, bob: Client, pair: Pair, version: str
    ) -> None:
        room = await shared_room(alice, bob, pair, version)

        await alice.kick(room, bob.user_id, "too loud")
        await bob.is_out(room)
        kicked = await bob.sees_membership(room, bob.user_id, "leave")
        assert (kicked["sender"], kicked["content"]["reason"]) == (alice.user_id, "too loud")
        with pytest.raises(Refused):
            await bob.say(room, "Am I still here?")
        await come_in(room, alice, bob, pair)

        await alice.ban(room, bob.user_id)
        await bob.is_out(room)
        with pytest.raises(Refused) as refusal:
            await bob.join(room, pair.host.server_name)
        assert refusal.value.errcode == "M_FORBIDDEN"
        await alice.unban(room, bob.user_id)
        await come_in(room, alice, bob, pair)
        await agree_on_state(room, alice, bob)

    @in_versions
    async def test_the_guest_kicks_with_power(
        self, alice: Client, bob: Client, pair: Pair, new_user: NewUser, version: str
    ) -> None:
        room = await shared_room(alice, bob, pair, version)
        carol = await new_user(pair.host, "carol")
        await carol.join(room)
        await carol.sees_membership(room, carol.user_id, "join")
        await bob.sees_membership(room, carol.user_id, "join")
        await bob.hears(room, await alice.set_power(room, bob.user_id, 50))

        await bob.kick(room, carol.user_id)

        await carol.is_out(room)
        kicked = await alice.sees_membership(room, carol.user_id, "leave")
        assert kicked["sender"] == bob.user_id
        await agree_on_state(room, alice, bob)

    @in_versions
    async def test_redactions_cross(self, alice: Client, bob: Client, pair: Pair, version: str) -> None:
        room = await shared_room(alice, bob, pair, version)
        regretted = await alice.say(room, "Regretted by Alice")
        rude = await bob.say(room, "Rude, says Alice")
        kept = await alice.say(room, "Nobody minds this")
        await hear_all(bob, room, [regretted, kept])
        await alice.hears(room, rude)

        with pytest.raises(Refused):
            await bob.redact(room, kept)
        own = await alice.redact(room, regretted, "a slip")
        others = await alice.redact(room, rude)

        heard = await bob.hears(room, own)
        assert heard["content"].get("redacts", heard.get("redacts")) == regretted
        await bob.hears(room, others)
        for client in (alice, bob):
            assert is_redacted(await client.event(room, regretted))
            assert is_redacted(await client.event(room, rude))
            assert (await client.event(room, kept))["content"]["body"] == "Nobody minds this"

    @in_versions
    async def test_what_was_said_before_the_join_can_be_read(
        self, alice: Client, bob: Client, pair: Pair, version: str
    ) -> None:
        room = await public_room(alice, version)
        said = [await alice.say(room, f"Before Bob, {number}") for number in range(20)]

        await bob.join(room, pair.host.server_name)
        after = await alice.say(room, "After Bob came")
        await bob.hears(room, after)

        history = await bob.history(room)
        assert [event["event_id"] for event in history if event["event_id"] in said] == said[::-1]
        assert history[-1]["type"] == "m.room.create"
        assert len({event["event_id"] for event in history}) == len(history)

    async def test_five_hundred_events_from_before_the_join_can_be_read(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        room = await public_room(alice)
        said = [await alice.say(room, f"Before Bob, {number}") for number in range(500)]

        await bob.join(room, pair.host.server_name)
        await bob.hears(room, await alice.say(room, "After Bob came"))

        history = [event["event_id"] for event in await bob.history(room, page=50)]
        assert [event_id for event_id in history if event_id in said] == said[::-1]
        assert len(set(history)) == len(history)

    async def test_history_of_members_only_stays_hidden(self, alice: Client, bob: Client, pair: Pair) -> None:
        visibility = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
        room = await public_room(alice, initial_state=[visibility])
        await alice.say(room, "A secret")

        await bob.join(room, pair.host.server_name)
        after = await alice.say(room, "No secret")
        await bob.hears(room, after)

        assert bodies(await bob.history(room)) == ["No secret"]

    # Versions 10 and 11 resolve state alike.
    @pytest.mark.parametrize("version", ["10", "12"])
    async def test_both_talk_and_change_the_state_at_once(
        self, alice: Client, bob: Client, pair: Pair, version: str
    ) -> None:
        room = await shared_room(alice, bob, pair, version)
        await bob.hears(room, await alice.set_power(room, bob.user_id, 50))

        async def evening(client: Client, name: str) -> list[str]:
            sent = []
            for number in range(10):
                sent.append(await client.say(room, f"{name} {number}"))
                sent.append(await client.set_topic(room, f"{name}'s topic {number}"))
            return sent

        by_alice, by_bob = await asyncio.gather(evening(alice, "Alice"), evening(bob, "Bob"))

        await asyncio.gather(hear_all(alice, room, by_bob), hear_all(bob, room, by_alice))
        # What follows both branches joins them, so both servers must resolve to one topic.
        await bob.hears(room, await alice.say(room, "Good night"))
        await alice.hears(room, await bob.say(room, "Good night"))
        state = await agree_on_state(room, alice, bob)
        assert state["m.room.topic", ""] in by_alice + by_bob

    async def test_a_room_is_found_and_joined_by_its_alias(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        name = alice.user_id[1:].split(":")[0]
        alias = f"#{name}s-hearth:{pair.host.server_name}"
        room = await public_room(alice, room_alias_name=f"{name}s-hearth")

        found = await bob.find_alias(alias)
        assert found["room_id"] == room
        assert pair.host.server_name in found["servers"]
        with pytest.raises(Refused) as refusal:
            await bob.find_alias(f"#no-such-room:{pair.host.server_name}")
        assert (refusal.value.status, refusal.value.errcode) == (404, "M_NOT_FOUND")

        assert await bob.join(alias) == room
        await alice.sees_membership(room, bob.user_id, "join")

    @in_versions
    async def test_members_of_one_room_may_join_another(
        self, alice: Client, bob: Client, pair: Pair, new_user: NewUser, version: str
    ) -> None:
        house = await shared_room(alice, bob, pair, version)
        allow = {"type": "m.room_membership", "room_id": house}
        rules = {"join_rule": "restricted", "allow": [allow]}
        join_rules = {"type": "m.room.join_rules", "state_key": "", "content": rules}
        kitchen = await alice.create_room(room_version=version, initial_state=[join_rules])

        await bob.join(kitchen, pair.host.server_name)

        joined = await alice.sees_membership(kitchen, bob.user_id, "join")
        assert joined["content"]["join_authorised_via_users_server"] == alice.user_id
        carol = await new_user(pair.guest, "carol")
        with pytest.raises(Refused) as refusal:
            await carol.join(kitchen, pair.host.server_name)
        assert refusal.value.errcode == "M_FORBIDDEN"
        await agree_on_state(kitchen, alice, bob)

    async def test_profiles_are_known_to_the_other_server(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        await alice.set_displayname("Alice by the fire")

        assert (await bob.profile(alice.user_id))["displayname"] == "Alice by the fire"
        with pytest.raises(Refused) as refusal:
            await bob.profile(f"@nobody-at-all:{pair.host.server_name}")
        assert refusal.value.status == 404

        room = await shared_room(alice, bob, pair)
        await bob.set_displayname("Bob by the window")
        await alice.until(
            "Bob's new name",
            lambda view: (
                view.state[room]["m.room.member", bob.user_id]["content"].get("displayname")
                == "Bob by the window"
            ),
        )

    async def test_typing_and_receipts_cross(self, alice: Client, bob: Client, pair: Pair) -> None:
        room = await shared_room(alice, bob, pair)
        for writer, reader in ((alice, bob), (bob, alice)):
            await writer.type_in(room, True)
            await reader.until("typing", lambda view, w=writer: w.user_id in view.typing.get(room, []))
            said = await writer.say(room, "Done typing")
            await writer.type_in(room, False)
            await reader.until("no more typing", lambda view, w=writer: w.user_id not in view.typing[room])

            await reader.hears(room, said)
            await reader.read(room, said)
            await writer.until("the receipt", lambda view, r=reader: r.user_id in view.receipts[room])
            assert writer.view.receipts[room][reader.user_id] == said

    async def test_presence_crosses(self, alice: Client, bob: Client, pair: Pair) -> None:
        await shared_room(alice, bob, pair)
        for one, other in ((alice, bob), (bob, alice)):
            for presence in ("unavailable", "online"):
                await one.be(presence)
                await other.until(
                    f"{one.user_id} to be {presence}",
                    lambda view, who=one, what=presence: view.presence.get(who.user_id) == what,
                )

    @pytest.mark.parametrize("away", ["host", "guest"])
    async def test_what_is_said_while_a_server_is_away_arrives_later(
        self, alice: Client, bob: Client, pair: Pair, away: str
    ) -> None:
        room = await shared_room(alice, bob, pair)
        absent, speaker, server = (alice, bob, pair.host) if away == "host" else (bob, alice, pair.guest)

        async with stopped(server):
            said = [await speaker.say(room, f"Into the silence, {number}") for number in range(8)]
        back = await absent.say(room, "I am back")

        await speaker.hears(room, back, patience=40)
        for event_id in said:
            await absent.hears(room, event_id, patience=40)
        await agree_on_state(room, alice, bob)

    async def test_a_long_absence_can_be_read_up_on(self, alice: Client, bob: Client, pair: Pair) -> None:
        room = await shared_room(alice, bob, pair)

        async with stopped(pair.guest):
            said = [await alice.say(room, f"Line {number}") for number in range(40)]
            topic = await alice.set_topic(room, "What Bob has missed")
        await alice.hears(room, await bob.say(room, "I am back"), patience=40)
        await bob.hears(room, await alice.say(room, "At last"), patience=40)

        assert (await agree_on_state(room, alice, bob))["m.room.topic", ""] == topic
        history = [event["event_id"] for event in await bob.history(room)]
        assert [event_id for event_id in history if event_id in said] == said[::-1]

    async def test_what_was_acknowledged_outlives_both_servers(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        room = await shared_room(alice, bob, pair)

        pair.guest.kill()
        try:
            said = [await alice.say(room, f"To the dead, {number}") for number in range(5)]
        finally:
            pair.host.kill()
            await asyncio.to_thread(start_all, [pair.host, pair.guest])

        # Nobody speaks now: what is owed to the other server must be remembered across the restart.
        # COMPAT: Synapse may not look at what it owes before a minute has passed or the other speaks.
        if pair.host.software == "synapse":
            await bob.say(room, "Back from the dead")
        await hear_all(bob, room, said)
        await agree_on_state(room, alice, bob)

    async def test_a_server_that_restarts_amid_a_conversation_loses_nothing(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        room = await shared_room(alice, bob, pair)
        said: list[str] = []

        async def talk() -> None:
            for number in range(40):
                said.append(await alice.say(room, f"Word {number}"))
                await asyncio.sleep(0.05)

        talking = asyncio.create_task(talk())
        await bob.until("the first words", lambda view: len(view.timeline[room]) > 3)
        async with stopped(pair.guest):
            pass
        await talking
        await bob.say(room, "Where were we?")

        heard = await hear_all(bob, room, said)
        assert bodies(heard) == [f"Word {number}" for number in range(40)]
        await agree_on_state(room, alice, bob)
