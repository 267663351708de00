"""Joining, leaving, inviting, removing, knocking and forgetting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import msgspec
import pytest

from homeserver.errors import MatrixError, RemoteError
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import V11
from homeserver.rooms.new_room import InitialState
from homeserver.rooms.room import Room
from homeserver.storage import account_data
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.rooms import LocalMembership
from tests.world import ELSEWHERE, SERVER, NobodyElse, World, WorldRoom

CAROL = f"@carol:{ELSEWHERE}"


@pytest.fixture
async def world(sqlite_database: Database) -> World:
    return await World.open(sqlite_database)


async def errcode(work: Awaitable[Any]) -> tuple[int, str]:
    with pytest.raises(MatrixError) as refusal:
        await work
    return refusal.value.status, refusal.value.errcode


async def local(world: World, user_id: str, room: WorldRoom) -> LocalMembership | None:
    return await room_storage.local_membership(world.db.read, user_id, (await room.live()).nid)


async def test_who_joins_brings_their_profile(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob", displayname="Bob")
    room = await world.public_room(alice)
    await world.membership.join(bob, room.room_id, content={"reason": "thirsty"})
    assert await room.content("m.room.member", bob) == {
        "membership": "join",
        "displayname": "Bob",
        "reason": "thirsty",
    }
    assert await world.membership.joined_rooms(bob) == [room.room_id]
    live = await room.live()
    assert (live.joined_members, live.servers) == (2, {SERVER: 2})
    assert world.announced[-1].users == {bob}


async def test_joining_twice_is_joining_once(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice)
    await asyncio.gather(room.join(bob), room.join(bob))
    await room.join(bob)
    joins = [stored for stored in await room.timeline() if stored.event.state_key == bob]
    assert len(joins) == 1


async def test_a_private_room_is_for_those_invited(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.private_room(alice)
    with pytest.raises(NotAllowed):
        await room.join(bob)
    await room.invite(alice, bob)
    await room.join(bob)
    assert await room.membership(bob) == "join"


async def test_an_invite_repeated_is_one_invite(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.private_room(alice)
    assert (await room.invite(alice, bob)).id == (await room.invite(alice, bob)).id
    with pytest.raises(NotAllowed):
        await room.invite(bob, world.user("carol"))


async def test_whoever_wants_no_invites_gets_none(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.private_room(alice)
    await world.db.write(
        lambda tx: account_data.set_content(
            tx,
            bob,
            account_data.GLOBAL,
            "m.invite_permission_config",
            content_json='{"default_action": "block"}',
            pos=1,
        )
    )
    assert await errcode(room.invite(alice, bob)) == (403, "M_INVITE_BLOCKED")


async def test_leaving_and_coming_back(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice)
    await room.join(bob)
    await room.leave(bob)
    await room.leave(bob)
    leaves = [stored for stored in await room.timeline() if stored.event.content.get("membership") == "leave"]
    assert len(leaves) == 1
    assert (await room.live()).joined_members == 1
    await room.join(bob)
    assert await room.membership(bob) == "join"


async def test_who_was_never_there_cannot_leave(world: World) -> None:
    room = await world.public_room(world.user("alice"))
    with pytest.raises(NotAllowed):
        await room.leave(world.user("bob"))
    unknown = world.membership.leave(world.user("bob"), "!nowhere:here.example")
    assert await errcode(unknown) == (404, "M_NOT_FOUND")


async def test_a_kick_removes_and_a_ban_keeps_out(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice)
    members = world.membership
    await room.join(bob)
    await members.kick(alice, room.room_id, bob, {"reason": "noise"})
    assert await room.content("m.room.member", bob) == {"membership": "leave", "reason": "noise"}
    assert await errcode(members.kick(alice, room.room_id, bob)) == (403, "M_FORBIDDEN")
    await room.join(bob)
    await members.ban(alice, room.room_id, bob)
    with pytest.raises(NotAllowed):
        await room.join(bob)
    assert await errcode(members.kick(alice, room.room_id, bob)) == (403, "M_FORBIDDEN")
    await members.unban(alice, room.room_id, bob)
    await room.join(bob)
    assert await errcode(members.unban(alice, room.room_id, bob)) == (403, "M_BAD_STATE")
    with pytest.raises(NotAllowed):
        await members.kick(bob, room.room_id, alice)


async def test_who_is_not_in_a_room_does_not_learn_who_is_banned(world: World) -> None:
    alice, bob, carol = world.user("alice"), world.user("bob"), world.user("carol")
    room = await world.public_room(alice)
    await world.membership.ban(alice, room.room_id, bob)
    for target in (bob, world.user("dave")):
        for change in (world.membership.unban, world.membership.kick):
            assert await errcode(change(carol, room.room_id, target)) == (403, "M_FORBIDDEN")


async def test_a_room_is_forgotten_once_it_is_left(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice)
    assert await errcode(world.membership.forget(bob, room.room_id)) == (404, "M_NOT_FOUND")
    await room.join(bob)
    assert await errcode(world.membership.forget(bob, room.room_id)) == (400, "M_UNKNOWN")
    await room.leave(bob)
    await world.membership.forget(bob, room.room_id)
    known = await local(world, bob, room)
    assert known is not None
    assert known.forgotten
    await room.join(bob)
    known = await local(world, bob, room)
    assert known is not None
    assert not known.forgotten


async def test_knocking(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    knock = InitialState("m.room.join_rules", {"join_rule": "knock"})
    room = await world.private_room(alice, initial_state=[knock])
    await world.membership.knock(bob, room.room_id, content={"reason": "please"})
    assert await room.content("m.room.member", bob) == {"membership": "knock", "reason": "please"}
    await room.invite(alice, bob)
    await room.join(bob)
    assert await room.membership(bob) == "join"
    closed = await world.private_room(alice)
    with pytest.raises(NotAllowed):
        await world.membership.knock(bob, closed.room_id)


@pytest.mark.parametrize("version", ["8", "10", "12"])
async def test_members_of_the_allowed_room_may_join_a_restricted_one(world: World, version: str) -> None:
    alice, bob, eve = world.user("alice"), world.user("bob"), world.user("eve")
    club = await world.public_room(alice)
    await club.join(bob)
    room = await world.restricted_room(alice, club, version=version)
    await room.join(bob)
    assert await room.content("m.room.member", bob) == {
        "membership": "join",
        "join_authorised_via_users_server": alice,
    }
    assert await errcode(room.join(eve)) == (403, "M_FORBIDDEN")
    await room.invite(alice, eve)
    await room.join(eve)
    assert await room.content("m.room.member", eve) == {"membership": "join"}


async def test_where_nobody_here_may_let_them_in_another_server_is_asked(world: World) -> None:
    alice, bob, dan = world.user("alice"), world.user("bob"), world.user("dan")
    club = await world.public_room(alice)
    await club.join(bob)
    room = await world.restricted_room(alice, club, version="11")
    await room.invite(alice, dan)
    await room.join(dan)
    levels = {"users": {alice: 100, CAROL: 50}, "invite": 50}
    await room.set_state(alice, "m.room.power_levels", levels)
    await room.leave(alice)
    (await room.live()).servers[ELSEWHERE] = 1
    with pytest.raises(RemoteError):
        await room.join(bob)
    ((what, room_id, servers, user_id, content),) = world.remote.asked
    assert (what, room_id, servers[0], user_id) == ("join", room.room_id, ELSEWHERE, bob)
    assert content == {"membership": "join"}


async def test_a_new_profile_is_shown_in_every_joined_room(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    rooms = [await world.public_room(alice) for _ in range(3)]
    for room in rooms:
        await room.join(bob)
    await rooms[2].leave(bob)
    await world.membership.profile_changed(bob, "Robert", None)
    await world.membership.profile_changed(bob, "Robert", None)
    for room in rooms[:2]:
        assert await room.content("m.room.member", bob) == {"membership": "join", "displayname": "Robert"}
        assert sum(stored.event.state_key == bob for stored in await room.timeline()) == 2
    assert await rooms[2].membership(bob) == "leave"


async def test_member_events_as_clients_write_them_follow_the_same_rules(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.private_room(alice)
    member = world.membership.set_member
    await member(alice, room.room_id, bob, {"membership": "invite"})
    await member(bob, room.room_id, bob, {"membership": "join", "displayname": "B"})
    assert await room.content("m.room.member", bob) == {"membership": "join", "displayname": "B"}
    forged = {"membership": "join", "displayname": "C", "join_authorised_via_users_server": alice}
    await member(bob, room.room_id, bob, forged)
    assert await room.content("m.room.member", bob) == {"membership": "join", "displayname": "C"}
    await member(alice, room.room_id, bob, {"membership": "ban"})
    await member(alice, room.room_id, bob, {"membership": "leave"})
    assert await room.membership(bob) == "leave"
    assert await errcode(member(alice, room.room_id, bob, {})) == (400, "M_BAD_JSON")
    assert await errcode(member(alice, room.room_id, "bob", {"membership": "ban"})) == (
        400,
        "M_INVALID_PARAM",
    )
    with pytest.raises(NotAllowed):
        await member(alice, room.room_id, world.user("eve"), {"membership": "join"})


async def test_a_room_this_server_is_not_in_is_joined_through_others(world: World) -> None:
    bob = world.user("bob", displayname="Bob")
    with pytest.raises(RemoteError):
        await world.membership.join(bob, f"!room:{ELSEWHERE}", ["first.example", SERVER])
    ((what, _, servers, _, content),) = world.remote.asked
    assert (what, servers) == ("join", ["first.example"])
    assert content == {"membership": "join", "displayname": "Bob"}
    nowhere = world.membership.join(bob, "!abcdefghijklmnopqrstuvwxyz0123456789-_ABCDE")
    assert await errcode(nowhere) == (404, "M_NOT_FOUND")


async def invited_from_elsewhere(world: World, user_id: str) -> str:
    """Leave the trace of an invite that another server sent."""
    room = world.rooms.new(f"!theirs:{ELSEWHERE}", V11)
    state = [{"type": "m.room.create", "state_key": "", "sender": "@maker:third.example", "content": {}}]
    membership = LocalMembership(
        user_id, room.nid, "invite", 0, CAROL, 1, stripped_state=msgspec.json.encode(state)
    )
    await world.db.write(
        lambda tx: room_storage.set_outside_membership(tx, room=room.row(), membership=membership)
    )
    return room.room_id


async def test_an_invite_from_elsewhere_is_rejected_there(world: World) -> None:
    bob = world.user("bob")
    room_id = await invited_from_elsewhere(world, bob)
    await world.membership.leave(bob, room_id, {"reason": "no"})
    (asked,) = world.remote.asked
    assert asked[0] == "leave"
    assert asked[2] == [ELSEWHERE, "third.example"]
    assert asked[4] == {"membership": "leave", "reason": "no"}
    assert await errcode(world.membership.leave(world.user("eve"), room_id)) == (403, "M_FORBIDDEN")


async def test_who_is_gone_leaves_everything(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room, other = await world.public_room(alice), await world.private_room(alice)
    await room.join(bob)
    await other.invite(alice, bob)
    room_id = await invited_from_elsewhere(world, bob)
    await world.membership.leave_all(bob)
    assert [await one.membership(bob) for one in (room, other)] == ["leave", "leave"]
    assert [asked[:2] for asked in world.remote.asked] == [("leave", room_id)]


class Signing(NobodyElse):
    """Another server that signs invites, after something has happened here."""

    meanwhile: Any = None

    async def sign_invite(self, room: Room, event: Event, invite_room_state: list[dict[str, Any]]) -> Event:
        self.asked.append(("invite", room.lock.locked(), invite_room_state))
        if self.meanwhile is not None:
            await self.meanwhile()
        return msgspec.structs.replace(
            event, json=event.json.replace(b'"signatures":{', b'"signatures":{"x":{},')
        )


async def test_another_servers_user_is_invited_with_that_servers_signature(
    sqlite_database: Database,
) -> None:
    world = await World.open(sqlite_database, remote=Signing())
    alice = world.user("alice")
    room = await world.private_room(alice, name="Pub")
    invite = await room.invite(alice, CAROL)
    assert set(invite.event.pdu["signatures"]) == {"x", SERVER}
    assert await room.membership(CAROL) == "invite"
    ((_, locked, state),) = world.remote.asked
    assert not locked
    assert [pdu["type"] for pdu in state] == [
        "m.room.create",
        "m.room.name",
        "m.room.join_rules",
        "m.room.member",
    ]
    assert all("signatures" in pdu for pdu in state)


async def test_what_happens_while_the_other_server_signs_stays(sqlite_database: Database) -> None:
    remote = Signing()
    world = await World.open(sqlite_database, remote=remote)
    alice = world.user("alice")
    room = await world.private_room(alice)

    async def meanwhile() -> None:
        await room.set_state(alice, "m.room.topic", {"topic": "new"})
        await room.send(alice, "still talking")

    remote.meanwhile = meanwhile
    invite = await room.invite(alice, CAROL)
    assert await room.membership(CAROL) == "invite"
    assert await room.content("m.room.topic") == {"topic": "new"}
    at_invite = await world.states.events_at(await room.live(), invite.state_before or 0)
    assert ("m.room.topic", "") not in at_invite
    assert len((await room.live()).tips) == 2
    assert len((await room.send(alice, "joined up again")).event.prev_events) == 2


async def test_an_invite_that_is_not_allowed_any_more_is_given_up(sqlite_database: Database) -> None:
    remote = Signing()
    world = await World.open(sqlite_database, remote=remote)
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice)
    await room.join(bob)
    await room.set_state(alice, "m.room.power_levels", {"invite": 0})

    async def meanwhile() -> None:
        await world.membership.ban(alice, room.room_id, CAROL)

    remote.meanwhile = meanwhile
    with pytest.raises(NotAllowed):
        await room.invite(bob, CAROL)
    assert await room.membership(CAROL) == "ban"


async def test_a_room_that_does_not_federate_invites_nobody_from_elsewhere(world: World) -> None:
    alice = world.user("alice")
    room = await world.private_room(alice, creation_content={"m.federate": False})
    assert await errcode(room.invite(alice, CAROL)) == (403, "M_FORBIDDEN")
    assert world.remote.asked == []
