"""Rooms that only members of other rooms may join, when those who know are on different servers."""

from __future__ import annotations

import pytest

from homeserver.errors import MatrixError
from tests.federation.conftest import StartServer
from tests.federation.test_joins import members_of
from tests.remote import Network, Server


class Club:
    """Alice, here, lets members of one room into another; bob, there, is in both; carol only in the first."""

    def __init__(self, here: Server, there: Server, third: Server) -> None:
        self.here, self.there, self.third = here, there, third
        self.alice, self.bob, self.carol = here.user("alice"), there.user("bob"), third.user("carol")
        self.room_id = self.allowed = ""

    async def open(self, version: str, join_rule: str, *, invite: int) -> None:
        self.allowed = await self.here.public_room(self.alice, creation_content={"type": "m.space"})
        rule = {**members_of(self.allowed), "join_rule": join_rule}
        self.room_id = await self.here.room_with_join_rule(self.alice, rule, version)
        await self.let_invite(invite)
        for user_id, server in ((self.bob, self.there), (self.carol, self.third)):
            await server.join(user_id, self.allowed, self.here)
        await self.there.join(self.bob, self.room_id, self.here)
        await self.here.network.settle()

    async def let_invite(self, invite: int, **users: int) -> None:
        """Set the level it takes to invite, and so to let others in."""
        named = {} if ":" not in self.room_id else {self.alice: 100}  # since v12 creators are not named
        named |= {getattr(self, name): level for name, level in users.items()}
        levels = {"users": named, "invite": invite}
        await self.here.set_state(self.room_id, self.alice, "m.room.power_levels", levels)

    async def authoriser(self) -> object:
        member = await self.here.states.member(await self.here.room(self.room_id), self.carol)
        assert member is not None
        return member.event.content.get("join_authorised_via_users_server")


@pytest.fixture
async def club(here: Server, there: Server, start: StartServer) -> Club:
    return Club(here, there, await start("third.example"))


VERSIONS = pytest.mark.parametrize(
    ("version", "join_rule"),
    [("8", "restricted"), ("10", "knock_restricted"), ("11", "restricted"), ("12", "knock_restricted")],
)


@VERSIONS
async def test_a_server_where_nobody_may_invite_is_passed_over(
    club: Club, network: Network, version: str, join_rule: str
) -> None:
    await club.open(version, join_rule, invite=100)

    with pytest.raises(MatrixError) as refused:
        await club.third.join(club.carol, club.room_id, club.there)
    assert refused.value.errcode == "M_UNABLE_TO_GRANT_JOIN"
    await club.third.join(club.carol, club.room_id, club.there, club.here)
    await network.settle()

    assert await club.authoriser() == club.alice
    for server in (club.here, club.there, club.third):
        assert await server.membership_of(club.room_id, club.carol) == "join"
    assert await club.third.state_ids(club.room_id) == await club.here.state_ids(club.room_id)


@VERSIONS
async def test_a_server_that_cannot_check_is_passed_over(
    club: Club, network: Network, version: str, join_rule: str
) -> None:
    await club.open(version, join_rule, invite=0)
    await club.there.membership.leave(club.bob, club.allowed)
    await network.settle()

    with pytest.raises(MatrixError) as refused:
        await club.third.join(club.carol, club.room_id, club.there)
    assert refused.value.errcode == "M_UNABLE_TO_AUTHORISE_JOIN"
    await club.third.join(club.carol, club.room_id, club.there, club.here)

    assert await club.authoriser() == club.alice


async def test_any_server_that_may_lets_people_in(club: Club, network: Network) -> None:
    await club.open("11", "restricted", invite=50)
    await club.let_invite(50, bob=50)
    await network.settle()

    await club.third.join(club.carol, club.room_id, club.there)
    await network.settle()

    assert await club.authoriser() == club.bob


async def test_whoever_left_the_space_is_not_let_in_again(club: Club, network: Network) -> None:
    await club.open("11", "restricted", invite=0)
    await club.third.join(club.carol, club.room_id, club.here)
    await club.third.membership.leave(club.carol, club.room_id)
    await club.third.membership.leave(club.carol, club.allowed)
    await network.settle()

    with pytest.raises(MatrixError) as refused:
        await club.third.join(club.carol, club.room_id, club.here)
    assert refused.value.errcode == "M_FORBIDDEN"

    await club.here.membership.invite(club.alice, club.room_id, club.carol)
    await club.third.join(club.carol, club.room_id)
    await network.settle()
    assert await club.authoriser() is None
    assert await club.here.membership_of(club.room_id, club.carol) == "join"


async def test_a_user_lets_themselves_in_when_the_others_have_left(club: Club, network: Network) -> None:
    await club.open("11", "restricted", invite=100)
    dora = club.there.user("dora")
    await club.there.join(dora, club.allowed, club.here)
    await network.settle()
    # There, nobody may let her in, so that server asks the other though it is in the room.
    await club.there.join(dora, club.room_id)
    await club.let_invite(0)
    await club.here.membership.leave(club.alice, club.room_id)
    await club.there.membership.leave(dora, club.room_id)
    await network.settle()

    network.down.add(club.here.name)
    await club.there.join(dora, club.room_id)

    assert await club.there.membership_of(club.room_id, dora) == "join"


@pytest.mark.parametrize("allow", [["invalid"], "invalid", [{"type": "m.room_membership", "room_id": 5}]])
async def test_conditions_that_make_no_sense_let_nobody_in(
    club: Club, network: Network, allow: object
) -> None:
    await club.open("11", "restricted", invite=0)
    await club.here.set_state(
        club.room_id, club.alice, "m.room.join_rules", {"join_rule": "restricted", "allow": allow}
    )
    await network.settle()

    with pytest.raises(MatrixError) as refused:
        await club.third.join(club.carol, club.room_id, club.here)
    assert refused.value.errcode == "M_FORBIDDEN"


async def test_whoever_meets_no_condition_may_still_knock(club: Club, network: Network) -> None:
    await club.open("10", "knock_restricted", invite=0)
    dora = club.third.user("dora")

    await club.third.membership.knock(dora, club.room_id, [club.here.name])
    await network.settle()

    assert await club.here.membership_of(club.room_id, dora) == "knock"
    assert await club.there.membership_of(club.room_id, dora) == "knock"
