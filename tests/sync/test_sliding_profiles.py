"""Clients of sliding sync follow the profiles of those they share rooms with (MSC4262)."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.errors import MatrixError
from homeserver.sync.sliding.profiles import ProfilesExtension
from tests.sync.server import SyncServer
from tests.sync.sliding_client import SlidingClient, sliding_of, top
from tests.world import SERVER, WorldRoom

NAME = "org.matrix.msc4262.profiles"


def client_of(server: SyncServer, name: str) -> SlidingClient:
    core = server.world.core
    extension = ProfilesExtension(core.db, core.rooms, server.sync, SERVER)
    return SlidingClient(sliding_of(server, extension), server.world.user(name))


def asking(**asked: Any) -> dict[str, Any]:
    return {"lists": {"all": top()}, "extensions": {NAME: {"enabled": True, **asked}}}


def told(response: dict[str, Any]) -> Any:
    """What a response tells of users; ``None`` where it leaves the extension out."""
    return response["extensions"].get(NAME, {}).get("users")


async def two_in_a_room(server: SyncServer) -> tuple[SlidingClient, str, WorldRoom]:
    alice, bob = client_of(server, "alice"), server.world.user("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob)
    return alice, bob, room


async def test_who_begins_is_told_of_those_in_view(server: SyncServer) -> None:
    alice, bob, _ = await two_in_a_room(server)
    stranger = server.world.user("stranger")
    await server.people.profiles.set_field(bob, "displayname", "Bob")
    await server.people.profiles.set_field(bob, "m.tz", "Europe/Paris")
    await server.people.profiles.set_field(stranger, "m.tz", "Mars")
    assert told(await alice.sync(**asking())) == {
        bob: {"updated": {"displayname": "Bob", "m.tz": "Europe/Paris"}}
    }
    assert told(await alice.sync(**asking())) is None, "once is enough"


async def test_changes_are_told_as_they_come(server: SyncServer) -> None:
    alice, bob, _ = await two_in_a_room(server)
    stranger = server.world.user("stranger")
    await alice.sync(**asking())
    await server.people.profiles.set_field(stranger, "org.example", 1)
    waiting = alice.wait(**asking())
    await server.people.profiles.set_field(bob, "org.example", {"mood": None})
    assert told(await waiting) == {bob: {"updated": {"org.example": {"mood": None}}}}
    await server.people.profiles.set_field(bob, "org.example.other", None)
    await server.people.profiles.remove_field(bob, "org.example")
    assert told(await alice.sync(**asking())) == {
        bob: {"updated": {"org.example.other": None}, "removed": ["org.example"]}
    }


async def test_own_changes_reach_the_other_device(server: SyncServer) -> None:
    alice = client_of(server, "alice")
    await alice.sync(**asking())
    waiting = alice.wait(**asking())
    await server.people.profiles.set_field(alice.user_id, "m.tz", "Europe/Paris")
    assert told(await waiting) == {alice.user_id: {"updated": {"m.tz": "Europe/Paris"}}}


async def test_a_response_that_was_lost_is_told_again(server: SyncServer) -> None:
    alice, bob, _ = await two_in_a_room(server)
    await alice.sync(**asking())
    await server.people.profiles.set_field(bob, "m.tz", "Europe/Paris")
    lost = await alice.ask(pos=alice.pos, **asking())
    assert told(await alice.sync(**asking())) == told(lost) == {bob: {"updated": {"m.tz": "Europe/Paris"}}}


async def test_only_the_fields_that_are_asked_for(server: SyncServer) -> None:
    alice, bob, _ = await two_in_a_room(server)
    await server.people.profiles.set_field(bob, "displayname", "Bob")
    await server.people.profiles.set_field(bob, "m.tz", "Europe/Paris")
    named = {bob: {"updated": {"displayname": "Bob"}}}
    assert told(await alice.sync(**asking(fields=["displayname"]))) == named
    await server.people.profiles.set_field(bob, "m.tz", "Europe/Rome")
    assert told(await alice.sync(**asking(fields=["displayname"]))) is None
    both = {bob: {"updated": {"displayname": "Bob", "m.tz": "Europe/Rome"}}}
    assert told(await alice.sync(**asking(fields=["displayname", "m.tz"]))) == both
    assert told(await alice.sync(**asking(fields=["m.tz"]))) is None


async def test_who_shares_no_room_any_more_is_not_followed(server: SyncServer) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.people.profiles.set_field(bob, "m.tz", "Europe/Paris")
    await alice.sync(**asking())
    await room.leave(bob)
    assert told(await alice.sync(**asking())) == {bob: None}
    await server.people.profiles.set_field(bob, "m.tz", "Mars")
    assert told(await alice.sync(**asking())) is None


async def test_rooms_outside_of_what_is_asked_for_are_not_told_whole(server: SyncServer) -> None:
    alice, bob, _ = await two_in_a_room(server)
    await server.people.profiles.set_field(bob, "m.tz", "Europe/Paris")
    assert told(await alice.sync(**asking(lists=[], rooms=[]))) is None
    await server.people.profiles.set_field(bob, "m.tz", "Europe/Rome")
    assert told(await alice.sync(**asking(lists=[], rooms=[]))) == {bob: {"updated": {"m.tz": "Europe/Rome"}}}


@pytest.mark.parametrize("fields", ["displayname", [1], ["x"] * 101])
async def test_fields_are_a_list_of_names(server: SyncServer, fields: Any) -> None:
    alice = client_of(server, "alice")
    with pytest.raises(MatrixError) as refusal:
        await alice.sync(**asking(fields=fields))
    assert (refusal.value.status, refusal.value.errcode) == (400, "M_INVALID_PARAM")
