"""Users of one server joining, leaving and knocking at rooms of another."""

from __future__ import annotations

import pytest

from homeserver.errors import MatrixError, RemoteError
from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.federation.conftest import StartServer
from tests.remote import Network, Server


@pytest.mark.parametrize("version", ROOM_VERSIONS)
async def test_a_joined_room_is_the_same_on_both_servers(
    here: Server, there: Server, network: Network, version: str
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice, version=version)
    await here.say(room_id, alice, "before")

    await there.join(bob, room_id, here)
    await there.say(room_id, bob, "hello")
    await network.settle()
    await here.say(room_id, alice, "welcome")
    await network.settle()

    assert await here.bodies(room_id) == ["before", "hello", "welcome"]
    assert await there.bodies(room_id) == ["hello", "welcome"]
    assert await here.state_ids(room_id) == await there.state_ids(room_id)
    assert (await here.room(room_id)).servers == (await there.room(room_id)).servers


async def test_the_others_in_a_room_hear_of_a_join_from_the_server_that_took_it(
    here: Server, there: Server, start: StartServer, network: Network
) -> None:
    third = await start("third.example")
    alice, bob, carol = here.user("alice"), there.user("bob"), third.user("carol")
    room_id = await here.public_room(alice)
    await there.join(bob, room_id, here)

    await third.join(carol, room_id, here)
    await network.settle()

    assert await there.membership_of(room_id, carol) == "join"
    await third.say(room_id, carol, "hello")
    await network.settle()
    assert await there.bodies(room_id) == ["hello"]


async def test_a_room_for_the_invited_lets_nobody_else_in(here: Server, there: Server) -> None:
    room_id = await here.private_room(here.user("alice"))

    with pytest.raises(MatrixError) as refused:
        await there.join(there.user("bob"), room_id, here)

    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def test_a_room_nobody_knows_is_not_found(here: Server, there: Server) -> None:
    with pytest.raises(MatrixError) as refused:
        await there.join(there.user("bob"), "!nowhere:here.example", here)

    assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")


async def test_a_server_that_does_not_know_the_rooms_version_is_told_which_it_is(
    here: Server, there: Server
) -> None:
    room_id = await here.public_room(here.user("alice"), version="11")

    with pytest.raises(RemoteError) as refused:
        await there.client.make_join(here.name, room_id, there.user("bob"), ["1", "10"])

    assert (refused.value.status, refused.value.errcode) == (400, "M_INCOMPATIBLE_ROOM_VERSION")


async def test_no_server_speaks_for_users_of_another(here: Server, there: Server) -> None:
    alice = here.user("alice")
    room_id = await here.public_room(alice)

    with pytest.raises(RemoteError) as refused:
        await there.client.make_join(here.name, room_id, "@mallory:third.example", ["11", "12"])
    assert refused.value.errcode == "M_FORBIDDEN"
    with pytest.raises(RemoteError) as refused:
        await there.client.make_leave(here.name, room_id, alice)
    assert refused.value.errcode == "M_FORBIDDEN"


async def test_what_is_handed_in_must_be_what_the_endpoint_is_for(here: Server, there: Server) -> None:
    bob = there.user("bob")
    room_id = await here.public_room(here.user("alice"))
    await there.join(bob, room_id, here)
    message = await there.say(room_id, bob, "not a membership")
    join = (await there.states.member(await there.room(room_id), bob)).event  # type: ignore[union-attr]

    with pytest.raises(RemoteError) as refused:
        await there.client.send_join(here.name, room_id, message.id, message.event.pdu)
    assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM")
    with pytest.raises(RemoteError) as refused:
        await there.client.send_leave(here.name, room_id, join.event_id, join.pdu)
    assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM")
    with pytest.raises(RemoteError) as refused:
        await there.client.send_join(here.name, room_id, "$another", join.pdu)
    assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM")


async def test_version_1_of_the_endpoint_wraps_the_same_answer(here: Server, there: Server) -> None:
    bob = there.user("bob")
    room_id = await here.public_room(here.user("alice"), version="10")
    await there.join(bob, room_id, here)
    join = (await there.states.member(await there.room(room_id), bob)).event  # type: ignore[union-attr]

    path = f"/_matrix/federation/v1/send_join/{room_id}/{join.event_id}"
    wire = there.client._transport
    reply = await wire.send("PUT", here.name, path, content=join.pdu)

    assert reply[0] == 200
    assert reply[1]["origin"] == here.name
    assert reply[1]["event"]["type"] == "m.room.member"
    assert reply[1]["members_omitted"] is False
    assert "m.room.create" in {event["type"] for event in reply[1]["state"]}


class TestRestricted:
    """Rooms that the members of another room may join."""

    async def test_a_member_of_the_other_room_is_let_in_with_both_signatures(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        club = await here.public_room(alice)
        room_id = await here.room_with_join_rule(alice, members_of(club))
        await there.join(bob, club, here)

        await there.join(bob, room_id, here)
        await network.settle()

        member = await here.states.member(await here.room(room_id), bob)
        assert member is not None
        assert member.event.content["join_authorised_via_users_server"] == alice
        assert set(member.event.pdu["signatures"]) == {here.name, there.name}
        assert await there.state_ids(room_id) == await here.state_ids(room_id)

    async def test_others_are_forbidden(self, here: Server, there: Server) -> None:
        alice = here.user("alice")
        room_id = await here.room_with_join_rule(alice, members_of(await here.public_room(alice)))

        with pytest.raises(MatrixError) as refused:
            await there.join(there.user("bob"), room_id, here)
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")

    async def test_a_server_that_cannot_check_says_so(self, here: Server, there: Server) -> None:
        room_id = await here.room_with_join_rule(here.user("alice"), members_of("!other:third.example"))

        with pytest.raises(MatrixError) as refused:
            await there.join(there.user("bob"), room_id, here)
        assert (refused.value.status, refused.value.errcode) == (400, "M_UNABLE_TO_AUTHORISE_JOIN")

    async def test_a_server_in_the_room_that_may_not_let_people_in_asks_one_that_may(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob, carol = here.user("alice"), there.user("bob"), there.user("carol")
        club = await here.public_room(alice)
        room_id = await here.room_with_join_rule(alice, members_of(club))
        levels = {"users": {alice: 100}, "invite": 50, "users_default": 0}
        await here.set_state(room_id, alice, "m.room.power_levels", levels)
        for user_id in (bob, carol):
            await there.join(user_id, club, here)
        await there.join(bob, room_id, here)
        await network.settle()

        await there.membership.join(carol, room_id, [here.name])
        await network.settle()

        member = await there.states.member(await there.room(room_id), carol)
        assert member is not None
        assert member.event.content["join_authorised_via_users_server"] == alice
        assert await there.state_ids(room_id) == await here.state_ids(room_id)

    async def test_a_server_where_nobody_may_invite_says_so(self, here: Server, there: Server) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        club = await here.public_room(alice)
        await there.join(bob, club, here)
        room_id = await here.room_with_join_rule(alice, members_of(club))
        await here.set_state(
            room_id, alice, "m.room.power_levels", {"users": {alice: 50}, "invite": 60, "users_default": 0}
        )

        with pytest.raises(MatrixError) as refused:
            await there.join(bob, room_id, here)
        assert (refused.value.status, refused.value.errcode) == (400, "M_UNABLE_TO_GRANT_JOIN")


def members_of(room_id: str) -> dict[str, object]:
    return {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": room_id}]}


async def test_a_user_leaves_and_the_room_is_told(here: Server, there: Server, network: Network) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    await there.join(bob, room_id, here)

    await there.membership.leave(bob, room_id)
    await network.settle()

    assert await here.membership_of(room_id, bob) == "leave"
    assert (await here.room(room_id)).servers == {here.name: 1}


async def test_who_is_removed_learns_of_it_though_their_server_is_out(
    here: Server, there: Server, network: Network
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    await there.join(bob, room_id, here)

    await here.set_state(room_id, alice, "m.room.member", {"membership": "ban"}, bob)
    await network.settle()

    local = await there.local_membership(room_id, bob)
    assert local is not None
    assert local.membership == "ban"


async def test_somebody_who_left_comes_back_to_what_the_room_is_by_then(
    here: Server, there: Server, network: Network
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    await there.join(bob, room_id, here)
    await there.membership.leave(bob, room_id)
    await network.settle()
    await here.set_state(room_id, alice, "m.room.name", {"name": "Later"})

    await there.join(bob, room_id, here)
    await there.say(room_id, bob, "back")
    await network.settle()

    assert await here.bodies(room_id) == ["back"]
    assert await here.state_ids(room_id) == await there.state_ids(room_id)


async def test_a_knock_is_shown_inside_and_can_be_refused(
    here: Server, there: Server, network: Network
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.room_with_join_rule(alice, {"join_rule": "knock"})

    await there.membership.knock(bob, room_id, [here.name])

    assert await here.membership_of(room_id, bob) == "knock"
    local = await there.local_membership(room_id, bob)
    assert local is not None
    assert local.membership == "knock"
    assert b"m.room.create" in (local.stripped_state or b"")

    await here.set_state(room_id, alice, "m.room.member", {"membership": "leave"}, bob)
    await network.settle()
    local = await there.local_membership(room_id, bob)
    assert local is not None
    assert local.membership == "leave"


async def test_the_access_list_keeps_a_server_out(here: Server, there: Server) -> None:
    alice = here.user("alice")
    room_id = await here.public_room(alice)
    await here.set_state(
        room_id, alice, "m.room.server_acl", {"allow": ["*"], "deny": ["THERE.*"], "allow_ip_literals": False}
    )

    with pytest.raises(MatrixError) as refused:
        await there.join(there.user("bob"), room_id, here)
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
