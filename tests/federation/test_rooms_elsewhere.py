"""Rooms of other servers: knocking at them, being asked in, leaving them, and moving on with them."""

from __future__ import annotations

import pytest

from homeserver.errors import MatrixError, RemoteError
from tests.federation.conftest import StartServer
from tests.remote import Network, Server

KNOCK = {"join_rule": "knock"}


async def outside(server: Server, room_id: str, user_id: str) -> str | None:
    """The membership as the user's own server shows it."""
    local = await server.local_membership(room_id, user_id)
    return local.membership if local else None


async def shared_room(here: Server, there: Server) -> tuple[str, str, str]:
    """Somebody here, somebody there, and the public room made here that both are in."""
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    await there.join(bob, room_id, here)
    return alice, bob, room_id


class TestKnocking:
    """A knock at another server's room, and what can become of it."""

    @pytest.mark.parametrize("version", ["7", "10", "12"])
    async def test_who_knocks_is_invited_and_comes_in(
        self, here: Server, there: Server, network: Network, version: str
    ) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        room_id = await here.room_with_join_rule(alice, KNOCK, version)

        await there.membership.knock(bob, room_id, [here.name], {"reason": "please"})
        member = await here.states.member(await here.room(room_id), bob)
        assert member is not None
        assert member.event.content["reason"] == "please"
        await here.membership.invite(alice, room_id, bob)
        await network.settle()
        assert await outside(there, room_id, bob) == "invite"

        await there.join(bob, room_id)
        await network.settle()
        assert await here.membership_of(room_id, bob) == "join"
        assert await here.state_ids(room_id) == await there.state_ids(room_id)

    async def test_who_was_refused_may_knock_again(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        room_id = await here.room_with_join_rule(alice, KNOCK)
        for _ in range(2):
            await there.membership.knock(bob, room_id, [here.name])
            assert await here.membership_of(room_id, bob) == "knock"
            assert await outside(there, room_id, bob) == "knock"
            await here.membership.kick(alice, room_id, bob)
            await network.settle()
            assert await outside(there, room_id, bob) == "leave"

    async def test_a_second_knock_replaces_the_first(self, here: Server, there: Server) -> None:
        bob = there.user("bob")
        room_id = await here.room_with_join_rule(here.user("alice"), KNOCK)

        await there.membership.knock(bob, room_id, [here.name])
        await there.membership.knock(bob, room_id, [here.name], {"reason": "still here"})

        member = await here.states.member(await here.room(room_id), bob)
        assert member is not None
        assert member.event.content["reason"] == "still here"

    async def test_a_knock_can_be_taken_back_and_made_again(
        self, here: Server, there: Server, network: Network
    ) -> None:
        bob = there.user("bob")
        room_id = await here.room_with_join_rule(here.user("alice"), KNOCK)
        await there.membership.knock(bob, room_id, [here.name])

        await there.membership.leave(bob, room_id)
        await network.settle()
        assert await here.membership_of(room_id, bob) == "leave"
        assert await outside(there, room_id, bob) == "leave"

        await there.membership.knock(bob, room_id, [here.name])
        assert await here.membership_of(room_id, bob) == "knock"

    async def test_nobody_knocks_who_is_in_or_banned_or_invited(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        room_id = await here.room_with_join_rule(alice, KNOCK)
        await there.membership.knock(bob, room_id, [here.name])
        await here.membership.invite(alice, room_id, bob)
        await network.settle()

        for step in ("invited", "banned"):
            with pytest.raises(MatrixError) as refused:
                await there.membership.knock(bob, room_id, [here.name])
            assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN"), step
            await here.membership.ban(alice, room_id, bob)
            await network.settle()
        assert await outside(there, room_id, bob) == "ban"

    async def test_a_room_that_takes_no_knocks_says_so(self, here: Server, there: Server) -> None:
        room_id = await here.private_room(here.user("alice"))

        with pytest.raises(MatrixError) as refused:
            await there.membership.knock(there.user("bob"), room_id, [here.name])
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")

    async def test_a_knock_at_a_server_that_is_gone_is_no_knock(
        self, here: Server, there: Server, network: Network
    ) -> None:
        bob = there.user("bob")
        room_id = await here.room_with_join_rule(here.user("alice"), KNOCK)
        network.down.add(here.name)

        with pytest.raises(RemoteError):
            await there.membership.knock(bob, room_id, [here.name])
        assert await outside(there, room_id, bob) is None

    async def test_a_knock_is_taken_back_though_nobody_can_be_told(
        self, here: Server, there: Server, network: Network
    ) -> None:
        bob = there.user("bob")
        room_id = await here.room_with_join_rule(here.user("alice"), KNOCK)
        await there.membership.knock(bob, room_id, [here.name])
        network.down.add(here.name)

        await there.membership.leave(bob, room_id)

        assert await outside(there, room_id, bob) == "leave"


class TestInvites:
    """Invites into rooms that the invited person's server is not in."""

    async def test_an_invite_is_declined_again_and_again(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        room_id = await here.private_room(alice)
        for _ in range(3):
            await here.membership.invite(alice, room_id, bob)
            assert await outside(there, room_id, bob) == "invite"
            await there.membership.leave(bob, room_id)
            await network.settle()
            assert await here.membership_of(room_id, bob) == "leave"
            assert await outside(there, room_id, bob) == "leave"

    async def test_an_invite_from_a_server_that_is_gone_is_declined_here_alone(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        room_id = await here.private_room(alice)
        await here.membership.invite(alice, room_id, bob)
        network.down.add(here.name)

        await there.membership.leave(bob, room_id)

        assert await outside(there, room_id, bob) == "leave"
        await there.membership.forget(bob, room_id)

    async def test_an_invite_to_a_room_that_everybody_left_is_declined(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        room_id = await here.private_room(alice)
        await here.membership.invite(alice, room_id, bob)
        await here.membership.leave(alice, room_id)
        await network.settle()

        await there.membership.leave(bob, room_id)

        assert await outside(there, room_id, bob) == "leave"

    async def test_who_was_in_the_room_before_is_invited_back(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        room_id = await here.private_room(alice)
        await here.membership.invite(alice, room_id, bob)
        await there.join(bob, room_id)
        await there.membership.leave(bob, room_id)
        await network.settle()

        await here.membership.invite(alice, room_id, bob)
        assert await outside(there, room_id, bob) == "invite"
        await there.join(bob, room_id)
        await network.settle()

        assert await here.state_ids(room_id) == await there.state_ids(room_id)

    async def test_an_invite_by_a_server_that_is_gone_is_accepted_through_another(
        self, here: Server, there: Server, start: StartServer, network: Network
    ) -> None:
        third = await start("third.example")
        alice, bob, carol = here.user("alice"), there.user("bob"), third.user("carol")
        room_id = await here.public_room(alice)
        await there.join(bob, room_id, here)
        await here.membership.invite(alice, room_id, carol)
        await network.settle()
        network.down.add(here.name)

        await third.join(carol, room_id, there)
        assert await there.membership_of(room_id, carol) == "join"


class TestBans:
    """Bans of other servers' users."""

    async def test_a_ban_is_lifted_and_the_user_comes_back(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob, room_id = await shared_room(here, there)
        await here.membership.ban(alice, room_id, bob)
        await network.settle()
        with pytest.raises(MatrixError) as refused:
            await there.join(bob, room_id, here)
        assert refused.value.errcode == "M_FORBIDDEN"

        await here.membership.unban(alice, room_id, bob)
        await network.settle()
        await there.join(bob, room_id, here)
        await network.settle()

        assert await here.state_ids(room_id) == await there.state_ids(room_id)

    async def test_a_ban_is_lifted_where_others_of_the_server_stayed(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob, carol = here.user("alice"), there.user("bob"), there.user("carol")
        room_id = await here.public_room(alice)
        for user_id in (bob, carol):
            await there.join(user_id, room_id, here)
        await here.membership.ban(alice, room_id, bob)
        await network.settle()
        assert await there.membership_of(room_id, bob) == "ban"

        await here.membership.unban(alice, room_id, bob)
        await network.settle()
        assert await there.membership_of(room_id, bob) == "leave"
        await there.join(bob, room_id)
        assert await there.membership_of(room_id, bob) == "join"


class TestLeaving:
    """Leaving when there is hardly anybody left to tell."""

    async def test_a_room_whose_servers_are_all_gone_is_left(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob, room_id = await shared_room(here, there)
        network.down.add(here.name)

        await there.membership.leave(bob, room_id)
        assert await outside(there, room_id, bob) == "leave"

        network.down.clear()
        await here.say(room_id, alice, "is anybody there?")
        await network.settle()
        assert await outside(there, room_id, bob) == "leave"

    async def test_the_last_one_turns_off_the_light(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob, room_id = await shared_room(here, there)
        await here.membership.leave(alice, room_id)
        await network.settle()
        await there.membership.leave(bob, room_id)
        await network.settle()

        with pytest.raises(MatrixError) as refused:
            await there.join(bob, room_id, here)
        assert refused.value.errcode == "M_NOT_FOUND"


class TestUpgrades:
    """Rooms with members on several servers that move on to another version."""

    @pytest.mark.parametrize(("old", "new"), [("6", "11"), ("10", "12"), ("12", "12")])
    async def test_remote_members_follow_the_tombstone(
        self, here: Server, there: Server, network: Network, old: str, new: str
    ) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        room_id = await here.public_room(alice, version=old, name="Hearth")
        await there.join(bob, room_id, here)
        levels = {"users": {bob: 50}, "users_default": 0}
        if old != "12":
            levels["users"] |= {alice: 100}  # type: ignore[operator]
        await here.set_state(room_id, alice, "m.room.power_levels", levels)

        new_id = await here.upgrade.upgrade(alice, room_id, new)
        await network.settle()

        tombstone = (await there.room(room_id)).state_event("m.room.tombstone")
        assert tombstone is not None
        assert tombstone.content["replacement_room"] == new_id
        await there.join(bob, new_id, here)
        await network.settle()
        room = await there.room(new_id)
        assert room.rules.id == new
        assert room.create.event.content["predecessor"]["room_id"] == room_id
        name = room.state_event("m.room.name")
        assert name is not None
        assert name.content == {"name": "Hearth"}
        assert room.power_levels.of_user(bob) == 50
        assert room.power_levels.of_user(alice) > 100 or new != "12"
        assert await here.state_ids(new_id) == await there.state_ids(new_id)

    async def test_a_moderator_elsewhere_upgrades_the_room(
        self, here: Server, there: Server, network: Network
    ) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        room_id = await here.public_room(alice, version="10")
        await there.join(bob, room_id, here)
        await here.set_state(room_id, alice, "m.room.power_levels", {"users": {alice: 100, bob: 100}})
        await network.settle()

        new_id = await there.upgrade.upgrade(bob, room_id, "12", [alice])
        await network.settle()

        tombstone = (await here.room(room_id)).state_event("m.room.tombstone")
        assert tombstone is not None
        assert tombstone.content["replacement_room"] == new_id
        await here.join(alice, new_id, there)
        await network.settle()
        levels = (await here.room(new_id)).power_levels
        assert levels.of_user(alice) == levels.of_user(bob) > 100
        await here.set_state(new_id, alice, "m.room.topic", {"topic": "Moved"})
        await network.settle()
        assert await here.state_ids(new_id) == await there.state_ids(new_id)
