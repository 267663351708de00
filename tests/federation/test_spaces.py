"""Spaces that spread over servers, and what each server and user may know of them."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.clock import FakeClock
from homeserver.errors import MatrixError, RemoteError
from homeserver.rooms.remote_spaces import RemoteSpaces
from tests.remote import Network, Server

SPACE = {"creation_content": {"type": "m.space"}}


async def put_in(server: Server, space: str, sender: str, child: str, *via: Server, **content: Any) -> None:
    """Make a room a child of a space."""
    names = [each.name for each in via] or [server.name]
    await server.set_state(space, sender, "m.space.child", {"via": names, **content}, child)


async def shown(server: Server, user_id: str, space: str, **options: Any) -> list[str]:
    """The rooms of a space, by the names they have there."""
    rooms, token = await server.finding.hierarchy.page(user_id, space, **options)
    assert token is None
    return [room["name"] for room in rooms]


class Tree:
    """A space of rooms and subspaces on two servers.

    root (here) holds r1 (here), s1 (here) and r2 (there); s1 holds s2 (there) and r3
    (there); s2 holds r4 (here), and root again.
    """

    def __init__(self, here: Server, there: Server) -> None:
        self.here, self.there = here, there
        self.alice, self.bob = here.user("alice"), there.user("bob")
        self.rooms: dict[str, str] = {}

    async def grow(self) -> Tree:
        for name in ("root", "s1", "r1", "r4"):
            self.rooms[name] = await self._room(self.here, self.alice, name)
        for name in ("s2", "r2", "r3"):
            self.rooms[name] = await self._room(self.there, self.bob, name)
        here, there = (self.here, self.alice), (self.there, self.bob)
        for (server, sender), parent, child, via in (
            (here, "root", "r1", self.here),
            (here, "root", "s1", self.here),
            (here, "root", "r2", self.there),
            (here, "s1", "s2", self.there),
            (here, "s1", "r3", self.there),
            (there, "s2", "r4", self.here),
            (there, "s2", "root", self.here),
        ):
            self.here.network.clock.advance(1)
            await put_in(server, self.rooms[parent], sender, self.rooms[child], via)
        return self

    async def _room(self, server: Server, sender: str, name: str) -> str:
        options = SPACE if name in ("root", "s1", "s2") else {}
        return await server.public_room(sender, name=name, **options)


@pytest.fixture
async def tree(here: Server, there: Server) -> Tree:
    return await Tree(here, there).grow()


async def test_the_whole_tree_is_walked_depth_first_and_each_room_once(tree: Tree) -> None:
    assert await shown(tree.here, tree.alice, tree.rooms["root"]) == [
        "root",
        "r1",
        "s1",
        "s2",
        "r4",
        "r3",
        "r2",
    ]


async def test_a_space_elsewhere_is_looked_at_through_its_server(tree: Tree) -> None:
    rooms, _ = await tree.here.finding.hierarchy.page(tree.alice, tree.rooms["s1"])

    (space,) = [room for room in rooms if room["name"] == "s2"]
    assert space["room_type"] == "m.space"
    assert [child["state_key"] for child in space["children_state"]] == [
        tree.rooms["r4"],
        tree.rooms["root"],
    ]
    assert set(space["children_state"][0]) == {"type", "state_key", "sender", "content", "origin_server_ts"}


async def test_a_space_elsewhere_is_entered_by_the_server_its_id_names(here: Server, there: Server) -> None:
    bob = there.user("bob")
    space = await there.public_room(bob, name="space", version="11", **SPACE)
    await put_in(there, space, bob, await there.public_room(bob, name="room"))

    assert await shown(here, here.user("alice"), space) == ["space", "room"]


async def test_pages_go_on_where_the_last_one_ended(tree: Tree) -> None:
    hierarchy, root = tree.here.finding.hierarchy, tree.rooms["root"]
    names: list[str] = []
    token: str | None = None
    for _ in range(4):
        rooms, token = await hierarchy.page(tree.alice, root, limit=2, token=token)
        names += [room["name"] for room in rooms]
    assert names == ["root", "r1", "s1", "s2", "r4", "r3", "r2"]
    assert token is None


async def test_a_token_is_for_one_question_and_some_minutes(tree: Tree, network: Network) -> None:
    hierarchy, root = tree.here.finding.hierarchy, tree.rooms["root"]
    _, token = await hierarchy.page(tree.alice, root, limit=1)

    for user_id, room_id, options in (
        (tree.alice, root, {"max_depth": 1}),
        (tree.alice, root, {"suggested_only": True}),
        (tree.alice, tree.rooms["s1"], {}),
        (tree.here.user("dora"), root, {}),
    ):
        with pytest.raises(MatrixError) as refused:
            await hierarchy.page(user_id, room_id, token=token, **options)  # type: ignore[arg-type]
        assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM")
    await hierarchy.page(tree.alice, root, token=token)
    network.clock.advance(301)
    with pytest.raises(MatrixError):
        await hierarchy.page(tree.alice, root, token=token)


async def test_a_walk_goes_no_deeper_than_it_is_told(tree: Tree) -> None:
    root = tree.rooms["root"]

    assert await shown(tree.here, tree.alice, root, max_depth=0) == ["root"]
    assert await shown(tree.here, tree.alice, root, max_depth=1) == ["root", "r1", "s1", "r2"]


async def test_only_what_is_recommended_can_be_asked_for(tree: Tree) -> None:
    here, root = tree.here, tree.rooms["root"]
    await put_in(here, root, tree.alice, tree.rooms["s1"], suggested=True)
    await put_in(here, tree.rooms["s1"], tree.alice, tree.rooms["s2"], tree.there, suggested=True)

    rooms, _ = await here.finding.hierarchy.page(tree.alice, root, suggested_only=True)

    assert [room["name"] for room in rooms] == ["root", "s1", "s2"]
    assert [child["state_key"] for child in rooms[0]["children_state"]] == [tree.rooms["s1"]]


async def test_a_child_without_servers_is_a_child_no_more(tree: Tree) -> None:
    await tree.here.set_state(tree.rooms["root"], tree.alice, "m.space.child", {}, tree.rooms["s1"])

    assert await shown(tree.here, tree.alice, tree.rooms["root"]) == ["root", "r1", "r2"]


async def test_a_server_that_is_gone_costs_its_rooms_alone(tree: Tree, network: Network) -> None:
    network.down.add(tree.there.name)

    assert await shown(tree.here, tree.alice, tree.rooms["root"]) == ["root", "r1", "s1"]


async def test_what_a_server_tells_of_a_space_it_is_not_asked_for_again(here: Server, there: Server) -> None:
    bob = there.user("bob")
    space = await there.public_room(bob, name="space", version="11", **SPACE)
    for number in range(5):
        await put_in(there, space, bob, await there.public_room(bob, name=f"room {number}"))

    assert len(await shown(here, here.user("alice"), space)) == 6
    assert here.network.asked_for("/hierarchy/") == 1


async def test_another_server_is_asked_once_in_a_while(tree: Tree, network: Network) -> None:
    await shown(tree.here, tree.alice, tree.rooms["root"])
    asked = network.asked_for("/hierarchy/")
    await shown(tree.here, tree.alice, tree.rooms["root"])
    assert network.asked_for("/hierarchy/") == asked

    network.clock.advance(61)
    await shown(tree.here, tree.alice, tree.rooms["root"])
    assert network.asked_for("/hierarchy/") > asked


async def test_a_room_for_the_invited_is_shown_to_those(here: Server) -> None:
    alice, dora = here.user("alice"), here.user("dora")
    space = await here.public_room(alice, name="space", **SPACE)
    secret = await here.private_room(alice, name="secret")
    await put_in(here, space, alice, secret)

    assert await shown(here, dora, space) == ["space"]
    await here.membership.invite(alice, secret, dora)
    assert await shown(here, dora, space) == ["space", "secret"]
    await here.membership.leave(dora, secret)
    assert await shown(here, dora, space) == ["space"]


async def test_a_banned_user_sees_nothing_of_a_public_room(here: Server) -> None:
    alice, mallory = here.user("alice"), here.user("mallory")
    space = await here.public_room(alice, name="space", **SPACE)
    await here.membership.ban(alice, space, mallory)

    with pytest.raises(MatrixError) as refused:
        await here.finding.hierarchy.page(mallory, space)
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def test_no_room_at_all_is_forbidden(here: Server) -> None:
    with pytest.raises(MatrixError) as refused:
        await here.finding.hierarchy.page(here.user("alice"), "!nowhere:here.example")
    assert refused.value.errcode == "M_FORBIDDEN"


async def test_members_of_a_space_see_its_restricted_rooms_elsewhere(here: Server, there: Server) -> None:
    alice, dora, carol = here.user("alice"), here.user("dora"), there.user("carol")
    space = await here.public_room(alice, name="space", **SPACE)
    rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
    room = await there.room_with_join_rule(carol, rule)
    await there.set_state(room, carol, "m.room.name", {"name": "for members"})
    await put_in(here, space, alice, room, there)

    # The room's server does not know yet who is in the space.
    assert await shown(here, alice, space) == ["space"]
    await there.join(carol, space, here)
    assert await shown(here, alice, space) == ["space", "for members"]
    assert await shown(here, dora, space) == ["space"]


async def test_a_server_is_told_what_its_users_could_see(here: Server, there: Server) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    space = await here.public_room(alice, name="space", **SPACE)
    open_ = await here.public_room(alice, name="open")
    knock = await here.room_with_join_rule(alice, {"join_rule": "knock"})
    invited = await here.private_room(alice, name="invited")
    secret = await here.private_room(alice, name="secret")
    await here.membership.invite(alice, invited, bob)
    for child in (open_, knock, invited, secret, "!unknown:here.example"):
        await put_in(here, space, alice, child)

    reply = await there.client.hierarchy(here.name, space)

    assert reply["room"]["room_id"] == space
    assert len(reply["room"]["children_state"]) == 5
    assert {child["room_id"] for child in reply["children"]} == {open_, knock, invited}
    assert reply["inaccessible_children"] == [secret]


async def test_a_closed_room_is_not_there_for_other_servers(here: Server, there: Server) -> None:
    secret = await here.private_room(here.user("alice"))

    for room_id in (secret, "!nowhere:here.example"):
        with pytest.raises(RemoteError) as refused:
            await there.client.hierarchy(here.name, room_id)
        assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")


class TestSummary:
    """A single room from outside."""

    async def test_a_room_elsewhere_is_described_by_its_server(self, here: Server, there: Server) -> None:
        alice, bob = here.user("alice"), there.user("bob")
        room = await there.public_room(bob, name="Elsewhere", version="11")

        summary = await here.finding.hierarchy.summary(alice, room, [there.name])

        assert summary["name"] == "Elsewhere"
        assert summary["room_version"] == "11"
        assert (summary["membership"], summary["join_rule"]) == ("leave", "public")

    async def test_what_may_not_be_known_is_not_found(self, here: Server, there: Server) -> None:
        alice, dora = here.user("alice"), here.user("dora")
        secret = await here.private_room(alice)
        remote = await there.public_room(there.user("bob"), version="12")

        assert (await here.finding.hierarchy.summary(alice, secret, []))["membership"] == "join"
        for user_id, room, via in (
            (dora, secret, [there.name]),
            (None, secret, []),
            (None, remote, [there.name]),
            (dora, remote, []),
        ):
            with pytest.raises(MatrixError) as refused:
                await here.finding.hierarchy.summary(user_id, room, via)
            assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")

    async def test_anybody_may_look_at_an_open_room(self, here: Server) -> None:
        room = await here.public_room(here.user("alice"), name="Open")

        summary = await here.finding.hierarchy.summary(None, room, [])

        assert summary["name"] == "Open"
        assert "membership" not in summary


class Told:
    """Another server that says of rooms what the test has it say."""

    def __init__(self, reply: dict[str, Any]) -> None:
        self.reply = reply

    async def hierarchy(
        self, server_name: str, room_id: str, *, suggested_only: bool = False
    ) -> dict[str, Any]:
        return self.reply


STATE = {"type": "m.space.child", "sender": "@m:x", "content": {"via": ["x"]}, "origin_server_ts": 1}


async def test_what_another_server_says_is_taken_for_what_it_is() -> None:
    child = {"room_id": "!child:x", "num_joined_members": "many", "world_readable": 1, "name": 5}
    space = {
        "room_id": "!space:x",
        "room_type": "m.space",
        "num_joined_members": 3,
        "world_readable": False,
        "guest_can_join": False,
        "secret": "field",
        "children_state": [{**STATE, "state_key": "!child:x", "more": 1}, {"type": "m.space.child"}, "child"],
    }
    reply = {"room": space, "children": [child, {}, 5], "inaccessible_children": ["!shut:x", "no room", 5]}
    spaces = RemoteSpaces(Told(reply), FakeClock(), "here.example")

    room = await spaces.describe("!space:x", ["x"])

    assert room is not None
    assert room.described == {
        "room_id": "!space:x",
        "room_type": "m.space",
        "num_joined_members": 3,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "public",
    }
    assert room.children == ({**STATE, "state_key": "!child:x"},)
    assert set(room.told) == {"!child:x", "!shut:x"}
    assert room.told["!shut:x"] is None
    assert room.told["!child:x"] is not None
    assert room.told["!child:x"].described["num_joined_members"] == 0
    assert not room.told["!child:x"].world_readable


@pytest.mark.parametrize("room", [None, [], {}, {"room_id": 5}, {"room_id": "!another:x"}])
async def test_what_is_said_of_another_room_or_of_none_counts_for_nothing(room: object) -> None:
    spaces = RemoteSpaces(Told({"room": room}), FakeClock(), "here.example")

    assert await spaces.describe("!space:x", ["x"]) is None


async def test_what_is_said_of_a_room_in_passing_counts_in_that_space_alone(
    here: Server, there: Server, network: Network
) -> None:
    alice, mallory = here.user("alice"), there.user("mallory")
    room = await there.public_room(mallory, name="the true name")
    space = await here.public_room(alice, name="space", **SPACE)
    await put_in(here, space, alice, room, there)
    liar = {
        "room": {"room_id": "!lies:x", "room_type": "m.space", "children_state": []},
        "children": [{"room_id": room, "name": "a lie"}],
        "inaccessible_children": [],
    }
    told = RemoteSpaces(Told(liar), network.clock, here.name)
    assert await told.describe("!lies:x", ["x"]) is not None

    assert await told.describe(room, []) is None
    assert await shown(here, alice, space) == ["space", "the true name"]
