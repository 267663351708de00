"""Joining a room before its members are known, from the first answer to the whole state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.errors import MatrixError, RemoteError
from homeserver.rooms.history import RoomView
from homeserver.rooms.new_room import InitialState
from homeserver.storage import partial_joins
from tests.federation.conftest import StartServer
from tests.remote import Network, Server
from tests.sync.server import Client, SyncServer, bodies, keys
from tests.world import NobodyElse, World

LAZY: dict[str, Any] = {"room": {"state": {"lazy_load_members": True}}}


def client_of(server: Server, user_id: str) -> Client:
    """A client of a local user."""
    return Client(SyncServer(World(server.core, server.network.clock, NobodyElse())), user_id)


async def view_of(client: Client, room_id: str) -> RoomView:
    return await client.server.reading.history.view(client.user_id, room_id)


async def crowd(here: Server, *names: str) -> tuple[str, list[str]]:
    """A public room with some people in it."""
    people = [here.user(name) for name in names]
    room_id = await here.public_room(people[0], name="Crowd")
    for user_id in people[1:]:
        await here.join(user_id, room_id)
    return room_id, people


def newcomer(there: Server, network: Network) -> tuple[str, asyncio.Event]:
    """A user of the other server, and what has to be set before that server gets the members of a room."""
    return there.user("carol"), network.hold("/state_ids/")


def members_in(section: dict[str, Any]) -> set[str]:
    told = keys(section) | {
        (event["type"], event["state_key"]) for event in section["timeline"]["events"] if "state_key" in event
    }
    return {state_key for type_, state_key in told if type_ == "m.room.member"}


async def test_a_server_that_lets_another_in_leaves_the_members_out(here: Server, there: Server) -> None:
    room_id, (_, bob) = await crowd(here, "alice", "bob")
    carol = there.user("carol")
    _, event = await there.federation.rooms.remote_join._membership_event(
        here.name, "join", room_id, carol, {}
    )

    answer = await there.client.send_join(here.name, room_id, event.event_id, event.pdu, omit_members=True)

    assert (answer["members_omitted"], answer["servers_in_room"]) == (True, [here.name])
    types = {(pdu["type"], pdu["state_key"]) for pdu in answer["state"]}
    assert ("m.room.name", "") in types
    assert not any(type_ == "m.room.member" for type_, _ in types)
    chain = [pdu for pdu in answer["auth_chain"] if pdu["type"] == "m.room.member"]
    assert [pdu["state_key"] for pdu in chain] == [here.user("alice")], "what the rest of the state stands on"
    repeated = [pdu for pdu in answer["auth_chain"] if pdu in answer["state"]]
    assert repeated == []
    assert bob not in str(answer)


async def test_a_room_without_a_name_shows_who_stands_for_it(here: Server, there: Server) -> None:
    alice, bob, carol = here.user("alice"), here.user("bob"), there.user("carol")
    room_id = await here.public_room(alice)
    await here.join(bob, room_id)
    _, event = await there.federation.rooms.remote_join._membership_event(
        here.name, "join", room_id, carol, {}
    )

    answer = await there.client.send_join(here.name, room_id, event.event_id, event.pdu, omit_members=True)

    members = {pdu["state_key"] for pdu in answer["state"] if pdu["type"] == "m.room.member"}
    assert members == {alice, bob}


async def test_a_room_can_be_used_before_its_members_are_known(
    here: Server, there: Server, network: Network
) -> None:
    room_id, (alice, bob) = await crowd(here, "alice", "bob")
    carol, rest = newcomer(there, network)

    await there.join(carol, room_id, here)
    await there.say(room_id, carol, "hello")
    await network.settle()
    await here.say(room_id, bob, "welcome")
    await here.set_state(room_id, alice, "m.room.topic", {"topic": "tea"})
    await network.settle()

    assert (await there.room(room_id)).partial is not None
    assert await here.bodies(room_id) == await there.bodies(room_id) == ["hello", "welcome"]
    assert (await there.room(room_id)).servers.keys() == {here.name, there.name}
    rest.set()
    assert await there.state_ids(room_id) == await here.state_ids(room_id)
    room, original = await there.room(room_id), await here.room(room_id)
    assert room.servers == original.servers
    assert (room.joined_members, room.partial) == (3, None)
    await here.say(room_id, bob, "again")
    await network.settle()
    assert await there.bodies(room_id) == ["hello", "welcome", "again"]


async def test_who_loads_members_lazily_sees_the_room_at_once_and_only_once(
    here: Server, there: Server, network: Network
) -> None:
    room_id, (_, bob, dora) = await crowd(here, "alice", "bob", "dora")
    carol, rest = newcomer(there, network)
    client = client_of(there, carol)
    await client.sync(filter=LAZY)

    await there.join(carol, room_id, here)
    section = (await client.sync(filter=LAZY))["rooms"]["join"][room_id]
    assert ("m.room.name", "") in keys(section)
    assert members_in(section) == {carol}
    assert section["summary"] == {}
    await here.say(room_id, bob, "hi")
    await network.settle()
    section = (await client.sync(filter=LAZY))["rooms"]["join"][room_id]
    assert (bodies(section), members_in(section)) == (["hi"], {bob})

    rest.set()
    await there.rooms.whole(await there.room(room_id))
    section = (await client.sync(filter=LAZY))["rooms"]["join"][room_id]
    assert section["summary"] == {"m.joined_member_count": 4, "m.invited_member_count": 0}
    assert (section["timeline"]["events"], section["state"]["events"]) == ([], [])
    assert not (await client.sync(filter=LAZY))["rooms"]
    await here.say(room_id, dora, "late")
    await network.settle()
    section = (await client.sync(filter=LAZY))["rooms"]["join"][room_id]
    assert members_in(section) == {dora}


async def test_who_wants_all_members_sees_the_room_when_they_are_there(
    here: Server, there: Server, network: Network
) -> None:
    room_id, (alice, bob) = await crowd(here, "alice", "bob")
    carol, rest = newcomer(there, network)
    client, first = client_of(there, carol), client_of(there, carol)
    await client.sync()

    await there.join(carol, room_id, here)
    await here.say(room_id, bob, "hi")
    await network.settle()
    assert not (await client.sync())["rooms"]
    assert not (await first.sync())["rooms"]
    waiting = client.wait()
    await asyncio.sleep(0)
    rest.set()

    section = (await waiting)["rooms"]["join"][room_id]
    assert members_in(section) == {alice, bob, carol}
    assert bodies(section) == ["hi"]
    assert section["summary"]["m.joined_member_count"] == 3
    assert not (await client.sync())["rooms"]
    assert members_in((await first.sync())["rooms"]["join"][room_id]) == {alice, bob, carol}


async def test_who_asks_for_members_waits_for_them(here: Server, there: Server, network: Network) -> None:
    room_id, (alice, bob) = await crowd(here, "alice", "bob")
    carol, rest = newcomer(there, network)
    await there.join(carol, room_id, here)
    client = client_of(there, carol)
    history, view = client.server.reading.history, await view_of(client, room_id)
    known = await history.state_event(view, ("m.room.member", carol))
    assert known.event.content["membership"] == "join"

    asked = [
        asyncio.ensure_future(request)
        for request in (
            history.members(view, None, lambda membership: membership == "join"),
            history.state(view),
            history.state_event(view, ("m.room.member", bob)),
        )
    ]
    nobody = asyncio.ensure_future(history.state_event(view, ("m.room.member", "@nobody:else.example")))
    await network.until_asked_for("/state_ids/")
    assert not any(each.done() for each in (*asked, nobody))
    rest.set()

    members, state, one = await asyncio.gather(*asked)
    assert isinstance(members, list)
    assert isinstance(state, list)
    assert {stored.event.state_key for stored in members} == {alice, bob, carol}
    assert {stored.event.key for stored in state} == set(await here.state_ids(room_id))
    assert not isinstance(one, list)
    assert one.event.state_key == bob
    with pytest.raises(MatrixError) as refused:
        await nobody
    assert refused.value.errcode == "M_NOT_FOUND"


async def test_somebody_who_waits_for_ever_is_told_so(here: Server, there: Server, network: Network) -> None:
    room_id, _ = await crowd(here, "alice")
    network.hold("/state_ids/")
    await there.join(there.user("carol"), room_id, here)

    with pytest.raises(MatrixError) as refused:
        await there.rooms.whole(await there.room(room_id), patience=0.01)

    assert refused.value.status == 504


async def test_others_are_not_let_in_by_a_server_that_does_not_know_the_members(
    here: Server, there: Server, start: StartServer, network: Network
) -> None:
    third = await start("third.example")
    room_id, _ = await crowd(here, "alice")
    dora = third.user("dora")
    network.hold("/state_ids/")
    await there.join(there.user("carol"), room_id, here)
    _, join = await third.federation.rooms.remote_join._membership_event(here.name, "join", room_id, dora, {})

    for asked in (
        third.client.make_join(there.name, room_id, dora, ["10", "11", "12"]),
        third.client.make_knock(there.name, room_id, dora, ["10", "11", "12"]),
        third.client.send_join(there.name, room_id, join.event_id, join.pdu),
        third.client.send_knock(there.name, room_id, join.event_id, join.pdu),
    ):
        with pytest.raises(RemoteError) as refused:
            await asked
        assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")


async def test_servers_that_ask_for_state_wait_for_it(here: Server, there: Server, network: Network) -> None:
    room_id, (alice,) = await crowd(here, "alice")
    carol = there.user("carol")
    rest = network.hold(f"{here.name}/_matrix/federation/v1/state_ids/")
    await there.join(carol, room_id, here)
    said = await here.say(room_id, alice, "hi")
    await network.settle()

    asked = asyncio.ensure_future(here.client.get_state_ids(there.name, room_id, said.id))
    chain = await here.client.event_auth(there.name, room_id, said.id)
    assert {pdu["type"] for pdu in chain} >= {"m.room.power_levels", "m.room.member"}
    assert not asked.done()
    rest.set()

    assert set((await asked)["pdu_ids"]) == set((await here.state_ids(room_id)).values())


async def test_members_are_told_to_who_may_not_see_what_was_said_before(here: Server, there: Server) -> None:
    alice, carol = here.user("alice"), there.user("carol")
    visibility = InitialState("m.room.history_visibility", {"history_visibility": "joined"})
    room_id = await here.public_room(alice, name="Discreet", initial_state=[visibility])
    secret = await here.say(room_id, alice, "a secret")

    await there.join(carol, room_id, here)

    assert await there.state_ids(room_id) == await here.state_ids(room_id)
    assert secret.event.json not in [each.event.json for each in (await there.room(room_id)).recent]


async def test_another_server_is_asked_where_the_first_does_not_answer(
    here: Server, there: Server, start: StartServer, network: Network
) -> None:
    third = await start("third.example")
    room_id, _ = await crowd(here, "alice")
    dora, carol = third.user("dora"), there.user("carol")
    await third.join(dora, room_id, here)
    await third.rooms.whole(await third.room(room_id))
    held = network.hold("/state_ids/")

    await there.join(carol, room_id, here)
    await network.settle()
    network.down.add(here.name)
    held.set()

    await there.rooms.whole(await there.room(room_id))
    assert await there.state_ids(room_id) == await third.state_ids(room_id)


async def test_a_server_that_was_stopped_goes_on_fetching(
    here: Server, there: Server, network: Network
) -> None:
    room_id, (_, bob) = await crowd(here, "alice", "bob")
    carol, rest = newcomer(there, network)
    await there.join(carol, room_id, here)
    await here.say(room_id, bob, "hi")
    await network.settle()
    await network.until_asked_for("/state_ids/")

    there = await there.restarted()
    assert (await there.room(room_id)).partial is not None
    assert await there.bodies(room_id) == ["hi"]
    rest.set()

    assert await there.state_ids(room_id) == await here.state_ids(room_id)
    there = await there.restarted()
    assert (await there.room(room_id)).partial is None
    assert await there.state_ids(room_id) == await here.state_ids(room_id)
    assert await partial_joins.rooms(there.db.read) == []


async def test_leaving_ends_it_and_coming_back_begins_anew(
    here: Server, there: Server, network: Network
) -> None:
    room_id, (_, bob) = await crowd(here, "alice", "bob")
    carol, rest = newcomer(there, network)
    await there.join(carol, room_id, here)
    waiting = asyncio.ensure_future(there.rooms.whole(await there.room(room_id)))
    await network.until_asked_for("/state_ids/")

    await there.membership.leave(carol, room_id)
    await waiting
    await network.settle()
    assert await here.membership_of(room_id, carol) == "leave"
    assert (await there.room(room_id)).partial is None
    assert await partial_joins.rooms(there.db.read) == []

    await there.join(carol, room_id, here)
    assert (await there.room(room_id)).partial is not None
    rest.set()
    assert await there.state_ids(room_id) == await here.state_ids(room_id)
    assert await there.membership_of(room_id, bob) == "join"


async def test_being_removed_ends_it(here: Server, there: Server, network: Network) -> None:
    room_id, (alice, _) = await crowd(here, "alice", "bob")
    carol, rest = newcomer(there, network)
    await there.join(carol, room_id, here)
    await network.until_asked_for("/state_ids/")

    await here.membership.ban(alice, room_id, carol)
    await network.settle()

    local = await there.local_membership(room_id, carol)
    assert local is not None
    assert local.membership == "ban"
    assert (await there.room(room_id)).partial is None
    rest.set()
    with pytest.raises(MatrixError) as refused:
        await there.join(carol, room_id, here)
    assert refused.value.status == 403


async def test_a_second_user_joins_meanwhile(here: Server, there: Server, network: Network) -> None:
    room_id, _ = await crowd(here, "alice", "bob")
    carol, dora = there.user("carol"), there.user("dora")
    rest = network.hold("/state_ids/")
    await there.join(carol, room_id, here)

    await there.join(dora, room_id)
    await there.say(room_id, dora, "me too")
    await there.membership.leave(carol, room_id)
    await network.settle()

    assert (await there.room(room_id)).partial is not None
    assert await here.membership_of(room_id, dora) == "join"
    rest.set()
    assert await there.state_ids(room_id) == await here.state_ids(room_id)
    assert (await there.room(room_id)).joined_members == 3


async def test_removing_somebody_unknown_waits_until_they_are_known(
    here: Server, there: Server, network: Network
) -> None:
    alice, bob, carol = here.user("alice"), here.user("bob"), there.user("carol")
    room_id = await here.public_room(alice, version="11", name="Crowd")
    await here.join(bob, room_id)
    users = {alice: 100, carol: 100}
    await here.set_state(room_id, alice, "m.room.power_levels", {"users": users})
    rest = network.hold("/state_ids/")
    await there.join(carol, room_id, here)

    kick = asyncio.ensure_future(there.membership.kick(carol, room_id, bob))
    await network.until_asked_for("/state_ids/")
    assert not kick.done()
    await there.membership.profile_changed(carol, "Carol", None)
    rest.set()
    await kick
    await network.settle()

    assert await here.membership_of(room_id, bob) == "leave"
    assert await there.state_ids(room_id) == await here.state_ids(room_id)


async def test_typing_and_receipts_of_unknown_members_are_shown(
    here: Server, there: Server, network: Network
) -> None:
    room_id, (_, bob) = await crowd(here, "alice", "bob")
    carol = there.user("carol")
    network.hold("/state_ids/")
    await there.join(carol, room_id, here)
    client = client_of(there, carol)
    await client.sync(filter=LAZY)
    said = await here.say(room_id, bob, "hi")
    await network.settle()

    ephemeral = client.server.ephemeral
    await ephemeral.typing.receive(here.name, {"room_id": room_id, "user_id": bob, "typing": True})
    receipt = {"event_ids": [said.id], "data": {"ts": 1}}
    await ephemeral.receipts.receive(here.name, {room_id: {"m.read": {bob: receipt}}})

    section = (await client.sync(filter=LAZY))["rooms"]["join"][room_id]
    shown = {event["type"]: event["content"] for event in section["ephemeral"]["events"]}
    assert shown["m.typing"] == {"user_ids": [bob]}
    assert bob in shown["m.receipt"][said.id]["m.read"]


async def test_an_old_server_gives_the_whole_state(here: Server, there: Server, network: Network) -> None:
    room_id, _ = await crowd(here, "alice", "bob")
    remote_join = there.federation.rooms.remote_join
    remote_join._complete_later = None

    await there.join(there.user("carol"), room_id, here)

    assert (await there.room(room_id)).partial is None
    assert network.asked_for("/state_ids/") == 0
    assert await there.state_ids(room_id) == await here.state_ids(room_id)
