"""Aliases and published rooms."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from homeserver.errors import MatrixError, RemoteError
from homeserver.storage.database import Database
from tests.world import ELSEWHERE, SERVER, World

PUB = f"#pub:{SERVER}"
THEIRS = f"#pub:{ELSEWHERE}"


@pytest.fixture
async def world(sqlite_database: Database) -> World:
    return await World.open(sqlite_database)


async def errcode(work: Awaitable[Any]) -> tuple[int, str]:
    with pytest.raises(MatrixError) as refusal:
        await work
    return refusal.value.status, refusal.value.errcode


async def test_an_alias_leads_to_its_room(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    (await room.live()).servers[ELSEWHERE] = 1
    await world.directory.add_alias(alice, PUB, room.room_id)
    assert await world.directory.resolve(PUB) == (room.room_id, [SERVER, ELSEWHERE])
    assert await world.directory.aliases_of(alice, room.room_id) == [PUB]


async def test_an_alias_is_made_once_by_somebody_in_the_room(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice)
    add = world.directory.add_alias
    assert await errcode(add(bob, PUB, room.room_id)) == (403, "M_FORBIDDEN")
    assert await errcode(add(alice, THEIRS, room.room_id)) == (400, "M_INVALID_PARAM")
    assert await errcode(add(alice, f"#a b:{SERVER}", room.room_id)) == (400, "M_INVALID_PARAM")
    assert await errcode(add(alice, "pub", room.room_id)) == (400, "M_INVALID_PARAM")
    assert await errcode(add(alice, PUB, f"!nowhere:{SERVER}")) == (404, "M_NOT_FOUND")
    await add(alice, PUB, room.room_id)
    assert await errcode(add(alice, PUB, room.room_id)) == (409, "M_UNKNOWN")


async def test_aliases_of_other_servers_are_asked_for_there(world: World) -> None:
    world.remote.aliases[THEIRS] = ("!theirs:elsewhere.example", [ELSEWHERE])
    assert await world.directory.resolve(THEIRS) == ("!theirs:elsewhere.example", [ELSEWHERE])
    with pytest.raises(RemoteError):
        await world.directory.resolve(f"#other:{ELSEWHERE}")
    assert await errcode(world.directory.resolve(PUB)) == (404, "M_NOT_FOUND")
    assert await errcode(world.directory.resolve("pub")) == (400, "M_INVALID_PARAM")


async def test_an_alias_is_removed_by_its_creator_a_moderator_or_an_administrator(world: World) -> None:
    alice, bob, eve = world.user("alice"), world.user("bob"), world.user("eve")
    room = await world.public_room(alice)
    await room.join(bob)
    directory = world.directory
    for who, is_admin in ((bob, False), (alice, False), (eve, True)):
        await directory.add_alias(bob, PUB, room.room_id)
        assert await errcode(directory.remove_alias(eve, PUB)) == (403, "M_FORBIDDEN")
        await directory.remove_alias(who, PUB, is_admin=is_admin)
        assert await errcode(directory.resolve(PUB)) == (404, "M_NOT_FOUND")
    assert await errcode(directory.remove_alias(alice, PUB)) == (404, "M_NOT_FOUND")


async def test_a_removed_alias_is_canonical_no_more(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    other = f"#other:{SERVER}"
    for alias in (PUB, other):
        await world.directory.add_alias(alice, alias, room.room_id)
    content = {"alias": PUB, "alt_aliases": [PUB, other]}
    await room.set_state(alice, "m.room.canonical_alias", content)
    await world.directory.remove_alias(alice, PUB)
    assert await room.content("m.room.canonical_alias") == {"alt_aliases": [other]}


async def test_who_may_not_change_the_canonical_alias_removes_their_alias_all_the_same(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice)
    await room.join(bob)
    await world.directory.add_alias(bob, PUB, room.room_id)
    await room.set_state(alice, "m.room.canonical_alias", {"alias": PUB})
    await world.directory.remove_alias(bob, PUB)
    assert await room.content("m.room.canonical_alias") == {"alias": PUB}
    assert await errcode(world.directory.resolve(PUB)) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("content", "errcode_expected"),
    [
        ({"alias": PUB}, None),
        ({}, None),
        ({"alias": None, "alt_aliases": []}, None),
        ({"alias": "", "alt_aliases": [PUB, THEIRS]}, None),
        ({"alias": "pub"}, "M_INVALID_PARAM"),
        ({"alias": ["pub"]}, "M_INVALID_PARAM"),
        ({"alt_aliases": "pub"}, "M_INVALID_PARAM"),
        ({"alt_aliases": [PUB, 5]}, "M_INVALID_PARAM"),
        ({"alias": f"#nowhere:{SERVER}"}, "M_BAD_ALIAS"),
        ({"alias": f"#other:{SERVER}"}, "M_BAD_ALIAS"),
        ({"alt_aliases": [f"#unreachable:{ELSEWHERE}"]}, "M_BAD_ALIAS"),
    ],
)
async def test_canonical_aliases_are_valid_and_lead_to_the_room(
    world: World, content: dict[str, Any], errcode_expected: str | None
) -> None:
    alice = world.user("alice")
    room, other = await world.public_room(alice), await world.public_room(alice)
    await world.directory.add_alias(alice, PUB, room.room_id)
    await world.directory.add_alias(alice, f"#other:{SERVER}", other.room_id)
    world.remote.aliases[THEIRS] = (room.room_id, [ELSEWHERE])
    check = world.directory.check_canonical_alias(room.room_id, content)
    if errcode_expected is None:
        await check
    else:
        assert await errcode(check) == (400, errcode_expected)


async def test_an_alias_that_is_canonical_already_is_not_looked_at_again(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    content = {"alias": f"#gone:{SERVER}"}
    await room.set_state(alice, "m.room.canonical_alias", content)
    await world.directory.check_canonical_alias(room.room_id, {"alt_aliases": [f"#gone:{SERVER}"]})


async def test_aliases_are_shown_to_members_and_where_everybody_may_read(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice, room_alias_name="pub")
    assert await errcode(world.directory.aliases_of(bob, room.room_id)) == (403, "M_FORBIDDEN")
    await room.set_state(alice, "m.room.history_visibility", {"history_visibility": "world_readable"})
    assert await world.directory.aliases_of(bob, room.room_id) == [PUB]


async def test_rooms_are_published_by_who_may_change_their_canonical_alias(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice)
    await room.join(bob)
    publish, is_published = world.directory.publish, world.directory.is_published
    assert not await is_published(room.room_id)
    assert await errcode(publish(bob, room.room_id, True)) == (403, "M_FORBIDDEN")
    await publish(alice, room.room_id, True)
    assert await is_published(room.room_id)
    await publish(bob, room.room_id, False, is_admin=True)
    assert not await is_published(room.room_id)
    assert await errcode(is_published(f"!nowhere:{SERVER}")) == (404, "M_NOT_FOUND")
