"""What clients may ask, as conformance suites try it: version 12's creators, upgrades, unknown endpoints."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from tests.conformance.conftest import Register
from tests.interop.client import Client, Refused
from tests.processes import Server

HIGHEST = 2**53 - 1


async def refusal(person: Client, method: str, path: str, body: Any) -> tuple[int, str]:
    """Status and errcode of what is refused."""
    with pytest.raises(Refused) as refused:
        await person.request(method, path, body)
    return refused.value.status, refused.value.errcode


async def test_creators_are_not_in_the_power_levels(register: Register) -> None:
    alice = await register("alice")
    room = await alice.create_room(room_version="12")
    levels = await alice.state_content(room, "m.room.power_levels")
    assert levels["users"] == {}
    assert levels["events"]["m.room.tombstone"] == 150
    path = f"/rooms/{room}/state/m.room.power_levels"
    assert await refusal(alice, "PUT", path, {"users": {alice.user_id: 100}}) == (400, "M_BAD_JSON")


async def test_a_level_that_canonical_json_does_not_know_is_no_level(register: Register) -> None:
    alice, bob = await register("alice"), await register("bob")
    room = await alice.create_room(room_version="12")
    path = f"/rooms/{room}/state/m.room.power_levels"
    assert (await refusal(alice, "PUT", path, {"users": {bob.user_id: HIGHEST + 1}}))[0] == 400


@pytest.mark.parametrize("level", [100, 949_342, HIGHEST])
async def test_a_creator_is_above_every_level(register: Register, level: int) -> None:
    alice, bob = await register("alice"), await register("bob")
    room = await alice.create_room(room_version="12", invite=[bob.user_id])
    await bob.join(room)
    await alice.set_state(room, "m.room.power_levels", {"users": {bob.user_id: level}})
    kick = {"user_id": alice.user_id}
    assert await refusal(bob, "POST", f"/rooms/{room}/kick", kick) == (403, "M_FORBIDDEN")
    await alice.kick(room, bob.user_id)


async def test_levels_for_others_can_be_given_at_once(register: Register) -> None:
    alice, bob = await register("alice"), await register("bob")
    override = {"users": {bob.user_id: 100}}
    room = await alice.create_room(room_version="12", power_level_content_override=override)
    assert (await alice.state_content(room, "m.room.power_levels"))["users"] == {bob.user_id: 100}
    wish = {"room_version": "12", "power_level_content_override": {"users": {alice.user_id: 100}}}
    assert (await refusal(alice, "POST", "/createRoom", wish))[0] == 400


async def test_additional_creators_are_equals(register: Register) -> None:
    alice, bob = await register("alice"), await register("bob")
    room = await alice.create_room(
        room_version="12", preset="public_chat", creation_content={"additional_creators": [bob.user_id]}
    )
    await bob.join(room)
    kick = {"user_id": bob.user_id}
    assert await refusal(alice, "POST", f"/rooms/{room}/kick", kick) == (403, "M_FORBIDDEN")
    await bob.set_state(room, "m.room.name", {"name": "bob's"})
    path = f"/rooms/{room}/state/m.room.power_levels"
    assert (await refusal(alice, "PUT", path, {"users": {bob.user_id: 100}}))[0] == 400


async def test_those_invited_in_trust_are_creators_too(register: Register) -> None:
    alice, bob, charlie = [await register(name) for name in ("alice", "bob", "charlie")]
    room = await alice.create_room(
        room_version="12",
        preset="trusted_private_chat",
        is_direct=True,
        invite=[bob.user_id],
        creation_content={"additional_creators": [charlie.user_id]},
    )
    creators = (await alice.state_content(room, "m.room.create"))["additional_creators"]
    assert sorted(creators) == sorted([bob.user_id, charlie.user_id])


@pytest.mark.parametrize(
    "creators",
    [
        "not-an-array",
        ["@foo:example.com", 42],
        ["@foo:example.com", "not-a-user-id"],
        ["@invalid:dom$ain$.com"],
    ],
)
async def test_additional_creators_are_users(register: Register, creators: Any) -> None:
    alice = await register("alice")
    wish = {"room_version": "12", "creation_content": {"additional_creators": creators}}
    assert (await refusal(alice, "POST", "/createRoom", wish))[0] == 400


@pytest.mark.parametrize(
    ("version", "levels", "upgrader", "additional", "left"),
    [
        ("11", {"bob": 100}, "bob", [], {}),
        ("11", {"bob": 100, "charlie": 100}, "bob", [], {"charlie": 100}),
        ("12", {"bob": 150}, "bob", ["charlie"], {}),
        ("12", {"bob": 150, "charlie": 50}, "bob", ["charlie"], {}),
        ("11", {"alice": 100, "bob": 100}, "alice", ["bob"], {}),
        ("11", {"alice": 100, "bob": 100, "charlie": 50}, "alice", ["bob"], {"charlie": 50}),
    ],
)
async def test_an_upgrade_makes_who_does_it_the_creator(
    register: Register,
    *,
    version: str,
    levels: dict[str, int],
    upgrader: str,
    additional: list[str],
    left: dict[str, int],
) -> None:
    people = {name: await register(name) for name in ("alice", "bob", "charlie")}
    ids = {name: person.user_id for name, person in people.items()}
    room = await people["alice"].create_room(room_version=version, preset="public_chat")
    for name in ("bob", "charlie"):
        await people[name].join(room)
    users = {ids[name]: level for name, level in levels.items()}
    await people["alice"].set_state(room, "m.room.power_levels", {"users": users})

    wish: dict[str, Any] = {"new_version": "12"}
    if additional:
        wish["additional_creators"] = [ids[name] for name in additional]
    upgraded = await people[upgrader].request("POST", f"/rooms/{room}/upgrade", wish)
    new = upgraded["replacement_room"]

    create = await people[upgrader].state_content(new, "m.room.create")
    assert create["room_version"] == "12"
    assert create.get("additional_creators", []) == [ids[name] for name in additional]
    assert create["predecessor"] == {"room_id": room}
    assert ("additional_creators" in create) == bool(additional)
    new_levels = await people[upgrader].state_content(new, "m.room.power_levels")
    assert new_levels["users"] == {ids[name]: level for name, level in left.items()}
    state = await people[upgrader].state(new)
    assert f"!{state['m.room.create', ''][1:]}" == new
    tombstone = await people["alice"].state_content(room, "m.room.tombstone")
    assert tombstone["replacement_room"] == new


@pytest.mark.parametrize("version", ["11", "12"])
async def test_a_room_is_created_once(register: Register, version: str) -> None:
    alice = await register("alice")
    room = await alice.create_room(room_version=version)
    create = {"room_version": version, "entropy": 100}
    assert (await refusal(alice, "PUT", f"/rooms/{room}/state/m.room.create", create))[0] == 400


async def test_the_create_event_has_the_rooms_id_wherever_events_have_one(register: Register) -> None:
    alice = await register("alice")
    room = await alice.create_room(room_version="12")
    said = await alice.say(room, "hello")
    create = f"${room[1:]}"
    rooms = f"/rooms/{room}"
    context = await alice.request("GET", f"{rooms}/context/{said}", limit=100)
    shown = [
        *await alice.request("GET", f"{rooms}/state"),
        *(await alice.request("GET", f"{rooms}/messages", dir="b", limit=100))["chunk"],
        await alice.event(room, create),
        (await alice.request("GET", f"{rooms}/context/{create}"))["event"],
        *context["events_before"],
        *context["state"],
        await alice.request("GET", f"{rooms}/state/m.room.create/", format="event"),
    ]
    creates = [event for event in shown if event["type"] == "m.room.create"]
    assert [event["room_id"] for event in creates] == [room] * 7


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/_matrix/unknown", 404),
        ("GET", "/_matrix/client/unknown", 404),
        ("GET", "/_matrix/client/v1/unknown", 404),
        ("GET", "/_matrix/client/v3/room/unknown", 404),
        ("PUT", "/_matrix/client/v3/login", 405),
        ("GET", "/_matrix/federation/unknown", 404),
        ("GET", "/_matrix/federation/v1/unknown", 404),
        ("GET", "/_matrix/key/unknown", 404),
        ("GET", "/_matrix/key/v2/unknown", 404),
        ("GET", "/_matrix/media/unknown", 404),
        ("GET", "/_matrix/media/v3/unknown", 404),
        ("PUT", "/_matrix/media/v3/upload", 405),
    ],
)
async def test_unknown_endpoints_say_so(
    server: Server, register: Register, http: aiohttp.ClientSession, *, method: str, path: str, status: int
) -> None:
    alice = await register("alice")
    headers = {"Authorization": f"Bearer {alice.access_token}"}
    async with http.request(method, server.client_url + path, headers=headers) as reply:
        assert (reply.status, (await reply.json())["errcode"]) == (status, "M_UNRECOGNIZED")


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/_matrix/federation/v1/version"), ("PUT", "/_matrix/key/v2/query")],
)
async def test_servers_are_told_of_wrong_methods_too(
    server: Server, http: aiohttp.ClientSession, method: str, path: str
) -> None:
    url = f"https://{server.server_name}{path}"
    async with http.request(method, url, ssl=False) as reply:
        assert (reply.status, (await reply.json())["errcode"]) == (405, "M_UNRECOGNIZED")


async def test_registering_takes_a_challenge_and_its_answer(
    server: Server, http: aiohttp.ClientSession
) -> None:
    url = f"{server.client_url}/_matrix/client/v3/register"
    wanted: dict[str, Any] = {
        "username": "user-1-challenged",
        "password": "complement_meets_min_password_req",
    }
    async with http.post(url, json=wanted) as reply:
        assert reply.status == 401
        session = (await reply.json())["session"]
    auth = {"type": "m.login.dummy", "session": session}
    async with http.post(url, json={**wanted, "auth": auth}) as reply:
        assert reply.status == 200
        assert {"user_id", "access_token", "device_id"} <= set(await reply.json())
