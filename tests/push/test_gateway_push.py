"""Pushing to a gateway: what it is told, when, and what becomes of what it does not take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from homeserver.config.egress import Egress
from homeserver.errors import MatrixError
from homeserver.protocol.event_format import parse_event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.push.pushers import MAX_PUSHERS
from homeserver.rooms.invites import Invites
from homeserver.rooms.receipts import READ, READ_PRIVATE
from homeserver.storage import pushers as pusher_storage
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from tests.push.gateway import Gateway, push_gateway
from tests.push.server import PushServer, http_pusher, mention, push_server
from tests.world import World, WorldRoom

HOUR = 3600


async def two_in_a_room(server: PushServer) -> tuple[str, str, WorldRoom]:
    alice, bob = server.world.user("alice", displayname="Alice"), server.world.user("bob")
    room = await server.world.public_room(alice, name="Plans", room_alias_name="plans")
    await room.join(bob)
    return alice, bob, room


async def test_a_gateway_is_told_everything_of_an_event(server: PushServer, gateway: Gateway) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.pusher(bob, gateway, custom="value")
    sent = await mention(room, alice, bob)
    await server.settle()
    assert gateway.requests == [
        {
            "event_id": sent.id,
            "room_id": room.room_id,
            "type": "m.room.message",
            "sender": alice,
            "sender_display_name": "Alice",
            "room_name": "Plans",
            "room_alias": "#plans:here.example",
            "prio": "high",
            "content": sent.event.content,
            "counts": {"unread": 1},
            "devices": [
                {
                    "app_id": "org.example.app",
                    "pushkey": "key",
                    "pushkey_ts": server.world.clock.now_ms() // 1000,
                    "data": {"custom": "value"},
                    "tweaks": {"sound": "default", "highlight": True},
                }
            ],
        }
    ]


async def test_a_gateway_may_be_told_the_event_id_only(server: PushServer, gateway: Gateway) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.pusher(bob, gateway, format="event_id_only")
    sent = await room.send(alice, "secret")
    await server.settle()
    (request,) = gateway.requests
    assert request.keys() == {"event_id", "room_id", "prio", "counts", "devices"}
    assert request["event_id"] == sent.id
    assert request["devices"][0]["data"] == {"format": "event_id_only"}


async def test_only_what_notifies_is_pushed_and_only_once(server: PushServer, gateway: Gateway) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.pusher(bob, gateway)
    first = await room.send(alice, "1")
    await server.settle()
    await room.send(bob, "my own")
    await room.set_state(alice, "m.room.topic", {"topic": "quiet"})
    await room.send_event(alice, "m.room.message", {"msgtype": "m.notice", "body": "quiet"})
    await server.settle()
    second = await room.send(alice, "2")
    await server.settle(HOUR)
    assert gateway.events == [first.id, second.id]


async def test_pushes_come_in_order_with_the_count_of_all_rooms(server: PushServer, gateway: Gateway) -> None:
    alice, bob, room = await two_in_a_room(server)
    other = await server.world.public_room(alice)
    await other.join(bob)
    await server.pusher(bob, gateway)
    sent = []
    for number in range(6):
        sent.append(await (room if number % 2 else other).send(alice, str(number)))
        await server.settle()
    assert gateway.events == [stored.id for stored in sent]
    assert [request["counts"]["unread"] for request in gateway.requests] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("receipt", [READ, READ_PRIVATE])
async def test_reading_is_told_after_a_moment(server: PushServer, gateway: Gateway, receipt: str) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.pusher(bob, gateway)
    one, two = [await room.send(alice, str(number)) for number in range(2)]
    await server.settle()
    await server.receipts.read(bob, room.room_id, receipt, one.id)
    await server.settle()
    assert gateway.badges == []
    await server.receipts.read(bob, room.room_id, receipt, two.id)
    await server.settle(5)
    assert gateway.badges == [0]
    await server.settle(HOUR)
    assert gateway.badges == [0]


async def test_what_is_read_before_it_could_be_pushed_is_not_pushed(
    server: PushServer, gateway: Gateway
) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.pusher(bob, gateway)
    gateway.status = 503
    read = await room.send(alice, "read meanwhile")
    await server.settle()
    gateway.requests.clear()
    gateway.status = 200
    await server.receipts.read(bob, room.room_id, READ, read.id)
    unread = await room.send(alice, "unread")
    await server.settle(HOUR)
    assert gateway.events == [unread.id]


async def test_invites_are_pushed(server: PushServer, gateway: Gateway) -> None:
    alice, bob = server.world.user("alice", displayname="Alice"), server.world.user("bob")
    room = await server.world.private_room(alice, name="Club")
    await server.pusher(bob, gateway)
    invite = await room.invite(alice, bob)
    await server.settle()
    (request,) = gateway.requests
    assert (request["event_id"], request["room_id"]) == (invite.id, room.room_id)
    assert request["user_is_target"] is True
    assert (request["room_name"], request["sender_display_name"]) == ("Club", "Alice")
    assert request["counts"] == {"unread": 1}


async def test_invites_and_messages_of_ignored_people_are_not_pushed(
    server: PushServer, gateway: Gateway
) -> None:
    alice, bob, room = await two_in_a_room(server)
    club = await server.world.private_room(alice)
    await server.pusher(bob, gateway)
    await server.account_data.set_content(bob, "m.ignored_user_list", {"ignored_users": {alice: {}}})
    await room.send(alice, "hello?")
    await club.invite(alice, bob)
    await server.settle()
    assert gateway.requests == []


async def test_a_failing_gateway_is_tried_again_later_and_later(server: PushServer, gateway: Gateway) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.pusher(bob, gateway)
    gateway.status = 500
    sent = await room.send(alice, "1")
    await server.settle()
    tries = []
    for _ in range(600):
        await server.settle(1)
        tries.append(len(gateway.events))
    assert 6 <= tries[-1] <= 12
    gateway.status = 200
    await server.settle(HOUR)
    assert set(gateway.events) == {sent.id}
    count = len(gateway.events)
    await server.settle(2 * HOUR)
    assert len(gateway.events) == count


async def test_what_cannot_be_pushed_for_a_day_is_given_up(server: PushServer, gateway: Gateway) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.pusher(bob, gateway)
    gateway.status = 500
    await room.send(alice, "lost")
    for _ in range(30):
        await server.settle(HOUR)
    gateway.requests.clear()
    gateway.status = 200
    await server.settle(HOUR)
    assert gateway.requests == []
    kept = await room.send(alice, "kept")
    await server.settle(HOUR)
    assert gateway.events == [kept.id]


async def test_a_rejected_pushkey_is_not_used_again(server: PushServer, gateway: Gateway) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.pusher(bob, gateway)
    gateway.rejected = ["somebody else's"]
    await room.send(alice, "1")
    await server.settle()
    assert len(await server.pushers.of(bob)) == 1
    gateway.rejected = ["key"]
    await room.send(alice, "2")
    await server.settle()
    assert await server.pushers.of(bob) == []
    await room.send(alice, "3")
    await server.settle(HOUR)
    assert len(gateway.requests) == 2


@pytest.mark.parametrize("body", [b"[" * 100_000, b"x" * 10_000_000, b'{"rejected": [' + b"1," * 60_000])
async def test_an_answer_that_is_too_much_is_a_failure(
    server: PushServer, gateway: Gateway, body: bytes
) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.pusher(bob, gateway)
    gateway.body = body
    sent = await room.send(alice, "1")
    await server.settle()
    gateway.body = None
    await server.settle(HOUR)
    assert gateway.events == [sent.id, sent.id]


async def test_a_slow_gateway_keeps_no_other_waiting(server: PushServer, gateway: Gateway) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    people = [server.world.user(f"user{number}") for number in range(30)]
    for person in people:
        await room.join(person)
        await server.pusher(person, gateway, pushkey=person)
    gateway.open.clear()
    bob = server.world.user("bob")
    await room.join(bob)
    async with push_gateway() as quick:
        await server.pusher(bob, quick)
        sent = await room.send(alice, "all of you")
        await quick.until(lambda: quick.events == [sent.id])
        assert gateway.events == []
        gateway.open.set()
        await server.reader.idle()
        assert gateway.events == [sent.id] * 30
        assert gateway.most_under_way <= 20


async def test_nothing_is_lost_and_nothing_repeated_by_a_restart(database: Database) -> None:
    async with push_gateway() as gateway:
        async with push_server(database) as server:
            alice, bob, room = await two_in_a_room(server)
            await server.pusher(bob, gateway)
            first = await room.send(alice, "pushed")
            await server.settle()
            gateway.status = 500
            second = await room.send(alice, "waits")
            await server.settle()
        gateway.requests.clear()
        gateway.status = 200
        async with push_server(database) as server:
            await server.settle()
            assert gateway.events == [second.id]
        async with push_server(database) as server:
            await server.settle()
            room = WorldRoom(server.world, room.room_id)
            third = await room.send(alice, "after")
            await server.settle()
            assert gateway.events == [second.id, third.id]
            assert first.id not in gateway.events


async def test_what_was_sent_while_nobody_pushed_is_pushed(database: Database) -> None:
    async with push_gateway() as gateway:
        async with push_server(database) as server:
            alice, bob, room = await two_in_a_room(server)
            await server.pusher(bob, gateway)
            await server.settle()
            # As kill -9 would leave it: nothing is stored on the way out.
            await server.reader.close()
            sent = await room.send(alice, "while it was down")
        async with push_server(database) as server:
            await server.settle()
            assert gateway.events == [sent.id]


async def test_a_pusher_belongs_to_one_user_unless_it_is_appended(
    server: PushServer, gateway: Gateway
) -> None:
    alice, bob, _ = await two_in_a_room(server)
    await server.pusher(alice, gateway)
    await server.pushers.set(bob, "PHONE", {**http_pusher(gateway.url), "append": True})
    assert [len(await server.pushers.of(user)) for user in (alice, bob)] == [1, 1]
    await server.pusher(bob, gateway)
    assert [len(await server.pushers.of(user)) for user in (alice, bob)] == [0, 1]


async def test_pushers_go_with_their_devices(server: PushServer, gateway: Gateway) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.add_device(bob, "PHONE")
    await server.pusher(bob, gateway, device="PHONE", pushkey="phone")
    await server.pusher(bob, gateway, device="TABLET", pushkey="tablet")
    await server.people.sessions.log_out(bob, ["PHONE"])
    await room.send(alice, "1")
    await server.settle()
    assert [request["devices"][0]["pushkey"] for request in gateway.requests] == ["tablet"]


async def test_pushers_are_bounded_in_number(server: PushServer, gateway: Gateway) -> None:
    for number in range(MAX_PUSHERS):
        await server.pushers.set("@bob:here.example", "PHONE", http_pusher(gateway.url, str(number)))
    with pytest.raises(MatrixError) as refused:
        await server.pushers.set("@bob:here.example", "PHONE", http_pusher(gateway.url, "more"))
    assert refused.value.errcode == "M_INVALID_PARAM"
    await server.pushers.set("@bob:here.example", "PHONE", http_pusher(gateway.url, "0"))


async def test_somebody_who_joins_later_is_pushed_to(server: PushServer, gateway: Gateway) -> None:
    alice, bob, room = await two_in_a_room(server)
    carol = server.world.user("carol")
    await server.pusher(bob, gateway)
    await server.pusher(carol, gateway, pushkey="carol's")
    await room.send(alice, "before")
    await server.settle()
    await room.join(carol)
    await room.leave(bob)
    sent = await room.send(alice, "after")
    await server.settle()
    assert [r["devices"][0]["pushkey"] for r in gateway.requests if r.get("event_id") == sent.id] == [
        "carol's"
    ]


async def test_an_invite_from_another_server_is_pushed(server: PushServer, gateway: Gateway) -> None:
    world, bob, stranger = server.world, server.world.user("bob"), "@stranger:elsewhere.example"
    await server.pusher(bob, gateway, format="event_id_only")
    rules = ROOM_VERSIONS["11"]
    pdu = {
        **{
            "type": "m.room.member",
            "state_key": bob,
            "sender": stranger,
            "room_id": "!far:elsewhere.example",
        },
        **{"content": {"membership": "invite"}, "origin_server_ts": 1, "depth": 5, "prev_events": []},
        **{"auth_events": [], "hashes": {"sha256": "A" * 43}, "signatures": {}},
    }
    invite = parse_event(pdu, rules)
    invites = Invites(
        db=world.db,
        rooms=world.rooms,
        positions=world.positions,
        announce=server.notifier.announce_memberships,
    )
    await invites.invited(rules, invite, [])
    await server.settle()
    (request,) = gateway.requests
    assert (request["event_id"], request["room_id"]) == (invite.event_id, "!far:elsewhere.example")
    assert request["counts"] == {"unread": 1}
    await server.settle(HOUR)
    assert len(gateway.requests) == 1


async def test_a_pusher_set_anew_uses_its_new_gateway(server: PushServer, gateway: Gateway) -> None:
    alice, bob, room = await two_in_a_room(server)
    await server.pusher(bob, gateway)
    gateway.status = 500
    sent = await room.send(alice, "1")
    await server.settle()
    async with push_gateway() as other:
        server.world.clock.advance(1)
        await server.pusher(bob, other)
        await server.settle(HOUR)
        assert other.events == [sent.id]


async def test_addresses_of_ones_own_network_are_not_contacted(
    sqlite_database: Database, gateway: Gateway
) -> None:
    async with push_server(sqlite_database, network=Egress()) as server:
        alice, bob, room = await two_in_a_room(server)
        await server.pusher(bob, gateway)
        await room.send(alice, "1")
        await server.settle(HOUR)
        assert gateway.requests == []


def meanwhile(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, happens: Callable[[], Awaitable[object]]
) -> None:
    """Let something happen, once, right after a read and before its result is used."""
    read = getattr(module, name)

    async def read_first(*args: Any) -> Any:
        found = await read(*args)
        monkeypatch.setattr(module, name, read)
        await happens()
        return found

    monkeypatch.setattr(module, name, read_first)


async def test_somebody_who_joins_while_the_members_are_read_is_pushed_to(
    server: PushServer, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, _, room = await two_in_a_room(server)
    carol = server.world.user("carol")
    await server.pusher(carol, gateway)
    meanwhile(monkeypatch, pusher_storage, "users_in", lambda: room.join(carol))
    await room.send(alice, "before")
    await server.settle()
    sent = await room.send(alice, "after")
    await server.settle()
    assert gateway.events == [sent.id]


async def test_what_is_sent_while_the_first_pusher_is_read_is_pushed(
    server: PushServer, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob, room = await two_in_a_room(server)
    meanwhile(monkeypatch, room_storage, "last_positions", lambda: room.send(alice, "hello"))
    await server.pusher(bob, gateway)
    await server.settle()
    assert len(gateway.events) == 1


async def test_what_is_sent_while_the_server_starts_is_pushed(
    sqlite_database: Database, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with push_server(sqlite_database) as server:
        alice, bob, room = await two_in_a_room(server)
        await server.pusher(bob, gateway)

    async def send() -> None:
        await WorldRoom(worlds[0], room.room_id).send(alice, "good morning")

    worlds: list[World] = []
    opened = World.open

    async def open_world(*args: Any, **options: Any) -> World:
        worlds.append(await opened(*args, **options))
        return worlds[-1]

    monkeypatch.setattr(World, "open", open_world)
    meanwhile(monkeypatch, pusher_storage, "everyone", send)
    async with push_server(sqlite_database) as again:
        await again.settle()
        assert len(gateway.events) == 1


async def test_invites_that_are_filtered_out_are_neither_pushed_nor_counted(
    server: PushServer, gateway: Gateway
) -> None:
    alice, bob, room = await two_in_a_room(server)
    mallory = server.world.user("mallory")
    await server.account_data.set_content(
        bob, "org.matrix.msc4155.invite_permission_config", {"ignored_users": [mallory]}
    )
    await server.pusher(bob, gateway)
    await (await server.world.private_room(mallory)).invite(mallory, bob)
    sent = await room.send(alice, "hello")
    await server.settle()
    assert gateway.events == [sent.id]
    assert gateway.requests[0]["counts"] == {"unread": 1}


async def test_pushers_that_take_the_place_of_others_at_work_are_stored_as_behind(
    server: PushServer, gateway: Gateway
) -> None:
    alice, bob, room = await two_in_a_room(server)
    names = [str(number) for number in range(20)]
    for name in names:
        await server.pusher(bob, gateway, pushkey=name)
    gateway.open.clear()
    await room.send(alice, "hello")
    async with asyncio.timeout(20):
        while gateway.under_way < len(names):
            gateway.asked.clear()
            await gateway.asked.wait()
    server.world.clock.advance(60)
    server.reader.tick()

    async with push_gateway() as other:
        other.status = 500
        for name in names:
            await server.pushers.set(bob, "PHONE", http_pusher(other.url, name))
        await other.until(lambda: len(other.requests) == len(names))
        server.world.clock.advance(60)
        server.reader.tick()
        stored = await server.world.db.write(pusher_storage.everyone)
        gateway.open.set()
        await server.reader.idle()

    assert [pusher.behind for pusher in stored] == [True] * len(names)
