"""Branches that meet: a real Synapse and our server come to the state that the definitions give."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest

from homeserver.protocol.events import Event
from tests.flows.stranger import Stranger, running_stranger
from tests.interop.branches import Branches
from tests.interop.client import Client
from tests.interop.conftest import NewUser
from tests.interop.inglenook import inglenook
from tests.interop.synapse import synapse, why_no_synapse
from tests.processes import Authority, Server

_OURS = pytest.param("inglenook", marks=pytest.mark.xdist_group("partitions-ours"))
_THEIRS = pytest.param(
    "synapse",
    marks=[
        pytest.mark.xdist_group("partitions-synapse"),
        pytest.mark.skipif(why_no_synapse() is not None, reason=str(why_no_synapse())),
    ],
)

pytestmark = pytest.mark.parametrize("version", ["10", "12"])

#: The levels people of the branching server are given.
_POWERS = {"bob": 100, "carol": 60}


@pytest.fixture(scope="module", params=[_OURS, _THEIRS])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
    running: Callable[..., None],
) -> Server:
    make = inglenook if request.param == "inglenook" else synapse
    server: Server = make(tmp_path_factory.mktemp(request.param), authority)
    running(server)
    return server


@pytest.fixture
async def stranger(authority: Authority) -> AsyncIterator[Stranger]:
    async with running_stranger(authority) as stranger:
        yield stranger


@pytest.fixture
async def alice(new_user: NewUser, server: Server) -> Client:
    return await new_user(server, "alice")


class Room:
    """A room of alice's in which people of another server have power, and branches of theirs."""

    def __init__(self, alice: Client, branches: Branches, start: Event) -> None:
        self.alice, self.branches, self.start = alice, branches, start

    async def meet(self, *ends: Event) -> None:
        """Have the server hear of all branches and of a message on top of them, and compare its state."""
        branches = self.branches
        merged = branches.compose("bob", "m.room.message", {"body": "met"}, on=ends)
        known = [event for event in branches.events.values() if event.depth > self.start.depth]
        for event in sorted(known, key=lambda event: event.depth):
            await branches.deliver(event)
        await self.alice.hears(branches.room_id, merged.event_id)
        assert await self.alice.state(branches.room_id) == branches.after[merged.event_id]

    async def membership(self, name: str) -> str:
        user_id = self.branches.user(name)
        content = await self.alice.state_content(self.branches.room_id, "m.room.member", user_id)
        return str(content["membership"])


@pytest.fixture
async def open_room(
    stranger: Stranger, server: Server, alice: Client, version: str
) -> AsyncIterator[Callable[..., Awaitable[Room]]]:
    async with aiohttp.ClientSession() as http:

        async def open_room(*joining: str) -> Room:
            room_id = await alice.create_room(preset="public_chat", room_version=version)
            branches = Branches(http, stranger, server, room_id, version)
            for name in joining:
                last = await branches.join(name)
            levels = await alice.state_content(room_id, "m.room.power_levels")
            users = {branches.user(name): level for name, level in _POWERS.items()}
            levels["users"] = {**levels.get("users", {}), **users}
            event_id = await alice.set_state(room_id, "m.room.power_levels", levels)
            return Room(alice, branches, await branches.knows(event_id, last))

        yield open_room


async def test_an_event_of_every_state_is_not_in_the_auth_difference(
    open_room: Callable[..., Awaitable[Room]],
) -> None:
    """Were bob's join, which only his ban cites, in it, his ban would have to wait for it behind carol's."""
    room = await open_room("carol", "dave", "bob")
    by_bob = room.branches.member("bob", "carol", "ban", on=[room.start])
    by_carol = room.branches.member("carol", "dave", "ban", on=[room.start])
    await room.meet(by_bob, by_carol)
    assert (await room.membership("carol"), await room.membership("dave")) == ("ban", "join")


async def test_who_loses_power_on_one_side_has_not_used_it_on_the_other(
    open_room: Callable[..., Awaitable[Room]],
) -> None:
    room = await open_room("bob", "carol", "dave")
    branches = room.branches
    levels = dict(room.start.content)
    levels["users"] = {**levels["users"], branches.user("carol"): 0}
    demoted = branches.compose("bob", "m.room.power_levels", levels, "", on=[room.start])
    named = branches.compose("carol", "m.room.name", {"name": "Hers"}, "", on=[room.start])
    banned = branches.member("carol", "dave", "ban", on=[named])
    topic = branches.compose("dave", "m.room.message", {"body": "still here"}, on=[demoted])
    await room.meet(topic, banned)
    assert await room.membership("dave") == "join"


async def test_both_sides_change_levels_rules_and_members(
    open_room: Callable[..., Awaitable[Room]],
) -> None:
    room = await open_room("bob", "carol", "dave", "erin")
    branches = room.branches
    levels = dict(room.start.content)
    left = branches.compose("bob", "m.room.power_levels", {**levels, "ban": 70}, "", on=[room.start])
    left = branches.member("bob", "erin", "leave", on=[left])
    left = branches.compose("bob", "m.room.topic", {"topic": "left"}, "", on=[left])
    right = branches.compose("carol", "m.room.join_rules", {"join_rule": "invite"}, "", on=[room.start])
    right = branches.member("carol", "erin", "ban", on=[right])
    right = branches.member("carol", "dave", "leave", on=[right])
    right = branches.compose("carol", "m.room.topic", {"topic": "right"}, "", on=[right])
    await room.meet(left, right)


async def test_branches_that_met_and_parted_again(open_room: Callable[..., Awaitable[Room]]) -> None:
    room = await open_room("bob", "carol", "dave")
    branches = room.branches
    one = branches.compose("bob", "m.room.topic", {"topic": "one"}, "", on=[room.start])
    two = branches.member("carol", "dave", "ban", on=[room.start])
    first = branches.compose("bob", "m.room.name", {"name": "both"}, "", on=[one, two])
    second = branches.compose("carol", "m.room.topic", {"topic": "two"}, "", on=[two])
    third = branches.member("bob", "dave", "leave", on=[first])
    await room.meet(second, third)
