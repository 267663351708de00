"""``device_lists`` of ``/sync``: whose keys changed, and with whom rooms are shared."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.storage import sharing
from homeserver.storage.database import Database
from tests.sync.server import Client, SyncServer
from tests.world import WorldRoom


@pytest.fixture
async def alice(server: SyncServer) -> Client:
    return server.client("alice")


@pytest.fixture
async def bob(server: SyncServer) -> Client:
    return server.client("bob")


@pytest.fixture
async def room(server: SyncServer, alice: Client) -> WorldRoom:
    return await server.world.public_room(alice.user_id)


async def new_device(server: SyncServer, client: Client, device_id: str = "NEW") -> None:
    """A device of somebody appears."""
    await server.people.sessions.log_in(client.user_id, device_id=device_id)


def news(response: dict[str, Any]) -> tuple[list[str], list[str]]:
    return response["device_lists"]["changed"], response["device_lists"]["left"]


async def device_news(client: Client) -> tuple[list[str], list[str]]:
    return news(await client.sync())


async def test_a_first_sync_tells_of_nobody(server: SyncServer, alice: Client, room: WorldRoom) -> None:
    await new_device(server, alice)
    assert await device_news(alice) == ([], [])


async def test_who_joins_is_told_to_those_in_the_room_and_they_to_who_joins(
    alice: Client, bob: Client, room: WorldRoom
) -> None:
    await alice.sync()
    await bob.sync()
    await room.join(bob.user_id)
    assert await device_news(alice) == ([bob.user_id], [])
    assert await device_news(bob) == ([alice.user_id, bob.user_id], [])
    assert await device_news(alice) == await device_news(bob) == ([], [])


async def test_a_change_reaches_those_who_share_a_room_and_nobody_else(
    server: SyncServer, alice: Client, bob: Client, room: WorldRoom
) -> None:
    carol = server.client("carol")
    await room.join(bob.user_id)
    for client in (alice, bob, carol):
        await client.sync()
    await new_device(server, bob)
    assert await device_news(alice) == ([bob.user_id], [])
    assert await device_news(bob) == ([bob.user_id], [])
    assert await device_news(carol) == ([], [])


async def test_a_change_wakes_who_waits(
    server: SyncServer, alice: Client, bob: Client, room: WorldRoom
) -> None:
    await room.join(bob.user_id)
    await alice.sync()
    waiting = alice.wait()
    await asyncio.sleep(0)
    await new_device(server, bob)
    assert news(await asyncio.wait_for(waiting, 5)) == ([bob.user_id], [])


async def test_who_leaves_the_last_shared_room_has_left(
    server: SyncServer, alice: Client, bob: Client, room: WorldRoom
) -> None:
    other = await server.world.public_room(alice.user_id)
    await room.join(bob.user_id)
    await other.join(bob.user_id)
    await alice.sync()
    await bob.sync()
    await room.leave(bob.user_id)
    assert await device_news(alice) == await device_news(bob) == ([], [])
    await other.leave(bob.user_id)
    assert await device_news(alice) == ([], [bob.user_id])
    assert await device_news(bob) == ([], [alice.user_id])
    await new_device(server, bob)
    assert await device_news(alice) == ([], [])


async def test_who_left_and_came_back_has_to_be_looked_at_again(
    server: SyncServer, alice: Client, bob: Client, room: WorldRoom
) -> None:
    await room.join(bob.user_id)
    await alice.sync()
    await bob.sync()
    await room.leave(bob.user_id)
    await new_device(server, bob)
    await room.join(bob.user_id)
    assert await device_news(alice) == ([bob.user_id], [])
    assert await device_news(bob) == ([alice.user_id, bob.user_id], [])


async def test_who_came_and_went_in_between_is_not_told_of(
    alice: Client, bob: Client, room: WorldRoom
) -> None:
    await alice.sync()
    await room.join(bob.user_id)
    await room.leave(bob.user_id)
    changed, _ = await device_news(alice)
    assert changed == []


async def test_a_new_name_is_no_join(alice: Client, bob: Client, room: WorldRoom) -> None:
    await room.join(bob.user_id)
    await alice.sync()
    await bob.sync()
    await room.set_state(
        bob.user_id, "m.room.member", {"membership": "join", "displayname": "B"}, bob.user_id
    )
    assert await device_news(alice) == await device_news(bob) == ([], [])


async def test_old_tokens_of_another_run_of_the_server_are_served(
    sqlite_database: Database, server: SyncServer, alice: Client, bob: Client, room: WorldRoom
) -> None:
    await room.join(bob.user_id)
    await alice.sync()
    await new_device(server, bob)
    again = await SyncServer.open(sqlite_database)
    later = Client(again, alice.user_id, token=alice.token)
    assert await device_news(later) == ([bob.user_id], [])
    assert await device_news(later) == ([], [])


async def test_changes_between_two_tokens(
    server: SyncServer, alice: Client, bob: Client, room: WorldRoom
) -> None:
    await room.join(bob.user_id)
    await alice.sync()
    start = server.notifier.position
    await new_device(server, bob)
    middle = server.notifier.position
    await room.leave(bob.user_id)
    end = server.notifier.position
    assert await server.sync.device_lists(alice.user_id, middle, end) == ([], [bob.user_id])
    assert await server.sync.device_lists(alice.user_id, start, 2**62) == ([], [bob.user_id])
    assert await server.sync.device_lists(alice.user_id, end, end) == ([], [])


async def test_coming_into_a_large_open_room_tells_of_its_members_only_where_it_is_encrypted(
    server: SyncServer, alice: Client, bob: Client, room: WorldRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeserver.sync.device_lists._MAX_UNENCRYPTED", 1)
    await bob.sync()
    await room.join(bob.user_id)
    assert await device_news(bob) == ([], [])
    await room.leave(bob.user_id)
    await room.set_state(alice.user_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await bob.sync()
    await room.join(bob.user_id)
    assert await device_news(bob) == ([alice.user_id, bob.user_id], [])


async def test_messages_alone_make_nobody_look_for_members(
    server: SyncServer, alice: Client, bob: Client, room: WorldRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    await room.join(bob.user_id)
    await alice.sync()

    async def looked(*_: object, **__: object) -> Any:
        raise AssertionError("members were looked for")

    for name in ("joined_members", "with_user", "rooms_of"):
        monkeypatch.setattr(sharing, name, looked)
    monkeypatch.setattr("homeserver.sync.device_lists.state_storage.changes", looked)
    await room.send(bob.user_id, "hello")
    response = await alice.sync()
    assert response["rooms"]["join"]
    assert news(response) == ([], [])
