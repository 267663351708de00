"""Memberships between two servers of ours, step by step as conformance suites go through them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from tests.interop.client import Client, Refused
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server, start_all, stop_all

_numbers = itertools.count()


@dataclass
class Towns:
    """Two servers, and people on them."""

    first: Server
    second: Server
    http: aiohttp.ClientSession

    async def person(self, server: Server, name: str) -> Client:
        client = Client(self.http, server)
        await client.register(f"{name}-{next(_numbers)}", "correct horse battery staple")
        return client


@pytest.fixture(scope="module")
def two_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    first, second = (inglenook(tmp_path_factory.mktemp(name), authority) for name in ("first", "second"))
    start_all([first, second])
    yield first, second
    stop_all([first, second])
    for server in (first, second):
        assert "Traceback" not in server.log.read_text(errors="replace"), server.log_tail(80)


@pytest.fixture
async def towns(two_servers: tuple[Server, Server]) -> AsyncIterator[Towns]:
    async with aiohttp.ClientSession() as http:
        yield Towns(*two_servers, http)


async def refused(attempt: Any) -> int:
    """The status of what is refused."""
    with pytest.raises(Refused) as refusal:
        await attempt
    return refusal.value.status


async def knock(person: Client, room: str, via: str, reason: str | None = None) -> None:
    body = {} if reason is None else {"reason": reason}
    await person.request("POST", f"/knock/{room}", body, server_name=via)


async def is_knocking(person: Client, room: str) -> None:
    """Wait until the room is among those one knocks on."""
    while room not in (await person.request("GET", "/sync", timeout=0))["rooms"].get("knock", {}):
        await person.sync(wait_ms=200)


async def test_an_invitation_to_a_chat_for_two_is_remembered_in_the_join(towns: Towns) -> None:
    alice, bob = await towns.person(towns.first, "alice"), await towns.person(towns.second, "bob")
    room = await alice.create_room(preset="private_chat", invite=[bob.user_id], is_direct=True)
    # Without any server's name: the invitation says where.
    await bob.join(room)
    member = await bob.sees_membership(room, bob.user_id, "join")
    assert member["unsigned"]["prev_content"]["membership"] == "invite"
    assert member["unsigned"]["prev_content"]["is_direct"] is True
    assert member["unsigned"]["prev_sender"] == alice.user_id


async def test_an_invitation_is_rejected_over_and_over(towns: Towns) -> None:
    alice, bob = await towns.person(towns.first, "alice"), await towns.person(towns.second, "bob")
    room = await alice.create_room(preset="private_chat")
    for _ in range(3):
        await alice.invite(room, bob.user_id)
        await bob.is_invited(room)
        await bob.leave(room)
        await bob.is_out(room)
        member = await alice.sees_membership(room, bob.user_id, "leave")
        assert member["sender"] == bob.user_id


async def test_an_invitation_to_an_empty_room_is_rejected(towns: Towns) -> None:
    alice, bob = await towns.person(towns.first, "alice"), await towns.person(towns.second, "bob")
    room = await alice.create_room(preset="private_chat", invite=[bob.user_id])
    await bob.is_invited(room)
    await alice.leave(room)
    await bob.leave(room)
    await bob.is_out(room)
    assert room not in bob.view.invites


@pytest.mark.parametrize("accepts", [True, False])
async def test_a_second_one_is_invited_where_the_server_is_in_the_room(towns: Towns, accepts: bool) -> None:
    alice = await towns.person(towns.first, "alice")
    bob, bob2 = await towns.person(towns.second, "bob"), await towns.person(towns.second, "bob2")
    room = await alice.create_room(preset="private_chat", invite=[bob.user_id])
    await bob.join(room, towns.first.server_name)
    await alice.invite(room, bob2.user_id)
    await bob2.is_invited(room)
    await (bob2.join(room) if accepts else bob2.leave(room))
    member = await alice.sees_membership(room, bob2.user_id, "join" if accepts else "leave")
    assert member["sender"] == bob2.user_id


async def test_the_banned_come_back_by_invitation(towns: Towns) -> None:
    alice, bob = await towns.person(towns.first, "alice"), await towns.person(towns.second, "bob")
    room = await bob.create_room(preset="public_chat")
    await alice.join(room, towns.second.server_name)
    await bob.ban(room, alice.user_id)
    await alice.is_out(room)
    await bob.unban(room, alice.user_id)
    await bob.sees_membership(room, alice.user_id, "leave")
    await bob.invite(room, alice.user_id)
    await alice.is_invited(room)
    await alice.join(room, towns.second.server_name)
    member = await bob.sees_membership(room, alice.user_id, "join")
    assert member["unsigned"]["prev_content"]["membership"] == "invite"


@pytest.mark.parametrize(("version", "rule"), [("7", "knock"), ("10", "knock_restricted"), ("12", "knock")])
@pytest.mark.parametrize("far", [False, True])
async def test_knocking(towns: Towns, *, version: str, rule: str, far: bool) -> None:
    alice = await towns.person(towns.first, "alice")
    bob = await towns.person(towns.second if far else towns.first, "bob")
    via = towns.first.server_name
    room = await alice.create_room(preset="private_chat", room_version=version)
    assert await refused(knock(bob, room, via)) == 403
    await alice.set_state(room, "m.room.join_rules", {"join_rule": rule})
    assert await refused(bob.join(room, via)) == 403
    await knock(bob, room, via, "let me in")
    await is_knocking(bob, room)
    await knock(bob, room, via, "I really like knock knock jokes")
    seen = await alice.sees_membership(room, bob.user_id, "knock")
    assert seen["content"]["reason"] in {"let me in", "I really like knock knock jokes"}
    await alice.kick(room, bob.user_id, "I don't think so")
    await knock(bob, room, via)
    await is_knocking(bob, room)
    await alice.invite(room, bob.user_id)
    await bob.is_invited(room)
    assert await refused(knock(bob, room, via)) == 403
    await bob.join(room, via)
    assert await refused(knock(bob, room, via)) == 403
    await alice.ban(room, bob.user_id)
    await bob.is_out(room)
    assert await refused(knock(bob, room, via)) == 403


async def restricted(creator: Client, version: str) -> tuple[str, str]:
    """A room that the members of another may join, and that other."""
    allowed = await creator.create_room(preset="public_chat")
    rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": allowed}]}
    room = await creator.create_room(
        preset="public_chat",
        room_version=version,
        initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": rule}],
    )
    return room, allowed


@pytest.mark.parametrize("version", ["8", "12"])
@pytest.mark.parametrize("far", [False, True])
async def test_rooms_for_the_members_of_another(towns: Towns, *, version: str, far: bool) -> None:
    alice = await towns.person(towns.first, "alice")
    bob = await towns.person(towns.second if far else towns.first, "bob")
    via = towns.first.server_name
    room, allowed = await restricted(alice, version)
    assert await refused(bob.join(room, via)) >= 400
    await bob.join(allowed, via)
    await bob.join(room, via)
    again = {"membership": "join", "displayname": "Bobby", "join_authorised_via_users_server": "unused"}
    await bob.set_state(room, "m.room.member", again, bob.user_id)
    await bob.leave(room)
    await bob.leave(allowed)
    await alice.sees_membership(allowed, bob.user_id, "leave")
    assert await refused(bob.join(room, via)) >= 400
    await alice.invite(room, bob.user_id)
    await bob.join(room, via)
    await bob.leave(room)
    await bob.join(allowed, via)
    for mangled in (["invalid"], "invalid"):
        await alice.set_state(room, "m.room.join_rules", {"join_rule": "restricted", "allow": mangled})
        assert await refused(bob.join(room, via)) >= 400


async def test_a_server_that_cannot_let_its_own_user_in_asks_one_that_can(towns: Towns) -> None:
    charlie = await towns.person(towns.second, "charlie")
    alice, bob = await towns.person(towns.first, "alice"), await towns.person(towns.first, "bob")
    here, there = towns.first.server_name, towns.second.server_name
    room, allowed = await restricted(charlie, "8")
    await charlie.invite(room, alice.user_id)
    await alice.join(room, there)
    assert await refused(alice.invite(room, bob.user_id)) == 403
    assert await refused(bob.join(room, here)) >= 400
    await bob.join(allowed, there)
    await bob.join(room, here)
    seen = await charlie.sees_membership(room, bob.user_id, "join")
    assert seen["sender"] == bob.user_id

    levels = {"invite": 0, "users": {charlie.user_id: 100}}
    await charlie.set_state(room, "m.room.power_levels", levels)
    await charlie.leave(room)
    await alice.sees_membership(room, charlie.user_id, "leave")
    await bob.leave(room)
    await bob.join(room, here)
