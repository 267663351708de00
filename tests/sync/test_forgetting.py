"""Forgetting rooms: by hand, or with leaving them where the server is set so."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.clock import FakeClock
from homeserver.core import open_core
from homeserver.errors import MatrixError
from homeserver.protocol.signing import generate_signing_key
from homeserver.storage.database import Database
from tests.sync.server import Client, SyncServer
from tests.world import SERVER, NobodyElse, World

LEAVES = {"room": {"include_leave": True}}


@pytest.fixture
async def forgetful(database: Database) -> SyncServer:
    """A server that forgets rooms for who leaves them, on each engine."""
    clock = FakeClock()
    core = await open_core(database, clock, SERVER, generate_signing_key("a_test"), forget_on_leave=True)
    return SyncServer(World(core, clock, NobodyElse()))


async def left(client: Client, **options: Any) -> set[str]:
    """The rooms the next sync tells were left."""
    return set((await client.sync(filter=LEAVES, **options))["rooms"].get("leave", {}))


async def test_a_forgotten_room_is_gone_at_once(database: Database) -> None:
    server = await SyncServer.open(database)
    alice, bob = server.client("alice"), server.client("bob")
    room = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await room.leave(bob.user_id)
    assert await left(bob) == {room.room_id}

    await server.world.membership.forget(bob.user_id, room.room_id)

    assert await left(server.client("bob")) == set()
    assert await left(bob) == set()


async def test_leaving_is_told_once_and_then_forgotten(forgetful: SyncServer) -> None:
    world, alice, bob = forgetful.world, forgetful.client("alice"), forgetful.client("bob")
    room = await world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await bob.sync()
    await room.leave(bob.user_id)

    assert await left(bob) == {room.room_id}
    assert await left(bob) == set()
    assert await left(forgetful.client("bob")) == set()
    with pytest.raises(MatrixError) as refused:
        await forgetful.reading.history.view(bob.user_id, room.room_id)
    assert refused.value.errcode == "M_FORBIDDEN"


@pytest.mark.parametrize("way", ["kick", "ban"])
async def test_who_is_removed_has_forgotten_too(forgetful: SyncServer, way: str) -> None:
    world, alice, bob = forgetful.world, forgetful.client("alice"), forgetful.client("bob")
    room = await world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await bob.sync()
    await getattr(world.membership, way)(alice.user_id, room.room_id, bob.user_id)

    assert await left(bob) == {room.room_id}
    assert await left(forgetful.client("bob")) == set()


async def test_a_ban_does_not_bring_a_forgotten_room_back_and_an_invite_does(forgetful: SyncServer) -> None:
    world, alice, bob = forgetful.world, forgetful.client("alice"), forgetful.client("bob")
    room = await world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await room.leave(bob.user_id)

    await world.membership.ban(alice.user_id, room.room_id, bob.user_id)
    assert await left(forgetful.client("bob")) == set()
    await world.membership.unban(alice.user_id, room.room_id, bob.user_id)
    assert await left(forgetful.client("bob")) == set()
    await room.invite(alice.user_id, bob.user_id)

    assert room.room_id in (await bob.sync())["rooms"]["invite"]
    await room.join(bob.user_id)
    assert room.room_id in (await bob.sync())["rooms"]["join"]
