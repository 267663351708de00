"""Finding rooms and events across servers: lists of rooms, spaces, dates; knocks, upgrades, OpenID."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from tests.interop.client import Client, Refused
from tests.interop.conftest import NewUser, Pair, both_ways
from tests.interop.stories import agree_on_state, come_in, in_versions, public_room
from tests.interop.synapse import why_no_synapse
from tests.processes import Authority, Server

pytestmark = pytest.mark.skipif(why_no_synapse() is not None, reason=str(why_no_synapse()))

KNOCK = {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}


@pytest.fixture(params=both_ways("interop"))
def pair(request: pytest.FixtureRequest, ours: Server, theirs: Server) -> Pair:
    return Pair.told(request.param, ours, theirs)


async def space(client: Client, name: str, *children: tuple[str, Server]) -> str:
    """A public space and what is in it, in that order."""
    room_id = await public_room(client, name=name, creation_content={"type": "m.space"})
    for number, (child, server) in enumerate(children):
        content = {"via": [server.server_name], "order": f"{number}"}
        await client.set_state(room_id, "m.space.child", content, child)
    return room_id


async def walk(client: Client, room_id: str, **query: str | int) -> list[dict[str, Any]]:
    """Every room of a space, page by page."""
    rooms: list[dict[str, Any]] = []
    while True:
        path = f"/rooms/{quote(room_id)}/hierarchy"
        page = await client.request("GET", path, api="v1", **query)
        rooms += page["rooms"]
        if "next_batch" not in page:
            return rooms
        query["from"] = page["next_batch"]


class TestFinding:
    """Told in both directions: alice's server has it, bob's asks."""

    async def test_published_rooms_are_listed_and_searched(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        word = alice.user_id[1:].split(":")[0]
        rooms = {
            await public_room(alice, visibility="public", name=f"{word} {number}", topic="Firewood")
            for number in range(3)
        }
        server = pair.host.server_name

        body = {"filter": {"generic_search_term": word}, "limit": 10}
        deadline = time.monotonic() + 20
        page = await bob.request("POST", "/publicRooms", body, server=server)
        # COMPAT: Synapse puts a room into its list some time after it was made.
        while len(page["chunk"]) < len(rooms) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            page = await bob.request("POST", "/publicRooms", body, server=server)
        assert {entry["room_id"] for entry in page["chunk"]} == rooms
        assert page["chunk"][0]["topic"] == "Firewood"
        assert page["chunk"][0]["num_joined_members"] == 1

        found: list[str] = []
        query: dict[str, str | int] = {"limit": 2, "server": server}
        for _ in range(50):
            page = await bob.request("GET", "/publicRooms", **query)
            found += [entry["room_id"] for entry in page["chunk"]]
            if "next_batch" not in page:
                break
            query["since"] = page["next_batch"]
        assert rooms <= set(found)
        assert len(found) == len(set(found))

    async def test_a_space_over_both_servers_is_walked_from_each(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        host, guest = pair.host, pair.guest
        deep = await public_room(alice, name="deep")
        below = await space(bob, "below", (deep, host))
        theirs = await public_room(bob, name="theirs")
        ours = await public_room(alice, name="ours")
        secret = await alice.create_room(preset="private_chat", name="secret")
        root = await space(alice, "root", (ours, host), (below, guest), (theirs, guest), (secret, host))
        await bob.join(root, host.server_name)
        await alice.sees_membership(root, bob.user_id, "join")

        rooms = await walk(alice, root)
        assert [room["name"] for room in rooms] == ["root", "ours", "below", "deep", "theirs", "secret"]
        rooms = await walk(bob, root)
        assert [room["name"] for room in rooms] == ["root", "ours", "below", "deep", "theirs"]
        assert [len(room["children_state"]) for room in rooms] == [4, 0, 1, 0, 0]
        assert [room["name"] for room in await walk(bob, root, limit=2, max_depth=1)] == [
            "root",
            "ours",
            "below",
            "theirs",
        ]

    async def test_members_of_a_space_see_its_rooms_on_the_other_server(
        self, alice: Client, bob: Client, pair: Pair, new_user: NewUser
    ) -> None:
        root = await space(alice, "root")
        allow = {"type": "m.room_membership", "room_id": root}
        rules = {"join_rule": "restricted", "allow": [allow]}
        join_rules = {"type": "m.room.join_rules", "state_key": "", "content": rules}
        room = await alice.create_room(name="for members", initial_state=[join_rules])
        via = {"via": [pair.host.server_name]}
        await alice.set_state(root, "m.space.child", via, room)
        await bob.join(root, pair.host.server_name)
        await alice.sees_membership(root, bob.user_id, "join")
        carol = await new_user(pair.guest, "carol")

        assert [each["name"] for each in await walk(bob, root)] == ["root", "for members"]
        assert [each["name"] for each in await walk(carol, root)] == ["root"]
        await bob.join(room, pair.host.server_name)
        await alice.sees_membership(room, bob.user_id, "join")

    async def test_a_room_is_summarised_for_the_other_server(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        room = await public_room(alice, name="Hearth", topic="Firewood")
        path = f"/room_summary/{quote(room)}"

        summary = await bob.request("GET", path, api="v1", via=[pair.host.server_name])

        assert (summary["room_id"], summary["name"], summary["topic"]) == (room, "Hearth", "Firewood")
        assert (summary["join_rule"], summary["num_joined_members"]) == ("public", 1)

    async def test_a_date_before_the_join_leads_to_its_event(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        room = await public_room(alice)
        said = [await alice.say(room, f"Line {number}") for number in range(30)]
        times = {each: (await alice.event(room, each))["origin_server_ts"] for each in said}
        await come_in(room, alice, bob, pair)
        path = f"/rooms/{quote(room)}/timestamp_to_event"

        for direction in ("b", "f"):
            found = await bob.request("GET", path, api="v1", ts=times[said[10]], dir=direction)
            assert found["origin_server_ts"] == times[said[10]]
            # Several may have been sent in one millisecond.
            assert times[found["event_id"]] == times[said[10]]

        around = await bob.request("GET", f"/rooms/{quote(room)}/context/{quote(found['event_id'])}", limit=0)
        query: dict[str, str | int] = {"dir": "b", "limit": 50, "from": around["end"]}
        page = await bob.request("GET", f"/rooms/{quote(room)}/messages", **query)
        earlier = [event["event_id"] for event in page["chunk"] if event["event_id"] in times]
        assert set(said[:10]) <= set(earlier)
        history = [event["event_id"] for event in await bob.history(room)]
        assert [each for each in history if each in times] == said[::-1]


class TestKnocking:
    """Alice's room, at which bob knocks from his server."""

    @in_versions
    async def test_who_knocks_is_let_in(self, alice: Client, bob: Client, pair: Pair, version: str) -> None:
        room = await alice.create_room(
            preset="private_chat", room_version=version, initial_state=[KNOCK], name="Knock here"
        )

        await bob.knock(room, pair.host.server_name, reason="It is cold outside")
        knock = await alice.sees_membership(room, bob.user_id, "knock")
        assert knock["content"]["reason"] == "It is cold outside"
        await alice.invite(room, bob.user_id)
        await bob.is_invited(room)
        await bob.join(room, pair.host.server_name)
        await alice.sees_membership(room, bob.user_id, "join")
        await agree_on_state(room, alice, bob)

    async def test_a_knock_is_refused_and_one_is_taken_back(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        room = await alice.create_room(preset="private_chat", initial_state=[KNOCK])
        await bob.knock(room, pair.host.server_name)
        await alice.sees_membership(room, bob.user_id, "knock")
        await alice.kick(room, bob.user_id)
        await alice.sees_membership(room, bob.user_id, "leave")

        await bob.knock(room, pair.host.server_name)
        await alice.sees_membership(room, bob.user_id, "knock")
        await bob.leave(room)
        # COMPAT: Synapse takes back a knock on its own side alone.
        if pair.guest.software != "synapse":
            await alice.sees_membership(room, bob.user_id, "leave")
        await alice.ban(room, bob.user_id)
        with pytest.raises(Refused) as refusal:
            await bob.knock(room, pair.host.server_name)
        assert refusal.value.status == 403


async def test_remote_members_follow_an_upgraded_room(alice: Client, bob: Client, pair: Pair) -> None:
    room = await public_room(alice, "11", name="Hearth")
    await come_in(room, alice, bob, pair)
    await alice.set_power(room, bob.user_id, 50)

    reply = await alice.request("POST", f"/rooms/{quote(room)}/upgrade", {"new_version": "12"})
    new = str(reply["replacement_room"])
    await bob.until("the tombstone", lambda view: view.state[room].get(("m.room.tombstone", "")))
    await come_in(new, alice, bob, pair)

    create = await bob.state_content(new, "m.room.create")
    assert create["predecessor"]["room_id"] == room
    levels = await bob.state_content(new, "m.room.power_levels")
    assert levels["users"] == {bob.user_id: 50}
    await bob.set_topic(new, "We have moved")
    await agree_on_state(new, alice, bob)


async def test_an_openid_token_tells_whose_it_is(alice: Client, pair: Pair, authority: Authority) -> None:
    token = await alice.request("POST", f"/user/{quote(alice.user_id)}/openid/request_token", {})
    assert (token["token_type"], token["matrix_server_name"]) == ("Bearer", pair.host.server_name)
    url = f"https://{pair.host.server_name}/_matrix/federation/v1/openid/userinfo"
    tls = ssl.create_default_context(cafile=str(authority.ca_file))

    async with aiohttp.ClientSession() as http:
        query = {"access_token": token["access_token"]}
        async with http.get(url, params=query, ssl=tls) as reply:
            assert (reply.status, await reply.json()) == (200, {"sub": alice.user_id})
        async with http.get(url, params={"access_token": "made-up"}, ssl=tls) as reply:
            assert (reply.status, (await reply.json())["errcode"]) == (401, "M_UNKNOWN_TOKEN")
