"""What a service is sent: in order, once, and again with the same number and content where it failed."""

from __future__ import annotations

from urllib.parse import quote

import orjson

from homeserver.storage.database import Database
from tests.appservices.bridge_app import BOT, BridgeApp, Bridged, bridged


async def portal(bridge: Bridged) -> tuple[str, str, str]:
    """A person's token, a ghost, and a room with both."""
    alice = await bridge.server.user("alice", device_id="PHONE")
    ghost = await bridge.ghost("carol")
    room_id = await bridge.room(alice)
    await bridge.join(ghost, room_id)
    return alice, ghost, room_id


async def test_messages_of_a_room_with_a_ghost_come_in_their_order(bridge: Bridged) -> None:
    alice, ghost, room_id = await portal(bridge)
    for number in range(5):
        await bridge.say(alice, room_id, f"message {number}")
    await bridge.delivered()

    assert bridge.app.texts == [f"message {number}" for number in range(5)]
    first = bridge.app.events[0]
    assert (first["type"], first["state_key"], first["room_id"]) == ("m.room.member", ghost, room_id)


async def test_rooms_without_a_ghost_are_nobodys_business(bridge: Bridged) -> None:
    alice, _, room_id = await portal(bridge)
    other = await bridge.room(alice)
    await bridge.say(alice, other, "between us")
    await bridge.say(alice, room_id, "for all")
    await bridge.delivered()

    assert bridge.app.texts == ["for all"]


async def test_a_service_is_told_when_its_user_is_invited_and_when_it_has_left(bridge: Bridged) -> None:
    alice, ghost, room_id = await portal(bridge)
    await bridge.server.call(
        "POST", f"/rooms/{quote(room_id)}/invite", {"user_id": "@_fake_dave:a.org"}, token=alice
    )
    await bridge.as_bridge("POST", f"/rooms/{quote(room_id)}/leave", {}, user_id=ghost)
    await bridge.say(alice, room_id, "are you still there?")
    await bridge.delivered()

    told = [(each["state_key"], each["content"]["membership"]) for each in bridge.app.events]
    assert told == [(ghost, "join"), ("@_fake_dave:a.org", "invite"), (ghost, "leave")]


async def test_a_state_event_comes_with_what_it_replaces(bridge: Bridged) -> None:
    alice, _, room_id = await portal(bridge)
    for topic in ("old", "new"):
        path = f"/rooms/{quote(room_id)}/state/m.room.topic"
        await bridge.server.call("PUT", path, {"topic": topic}, token=alice)
    await bridge.delivered()

    newest = bridge.app.events[-1]
    assert newest["unsigned"]["prev_content"] == {"topic": "old"}


async def test_an_alias_in_the_namespace_makes_a_room_interesting_until_it_is_gone(bridge: Bridged) -> None:
    alice = await bridge.server.user("alice")
    room_id = await bridge.room(alice)
    await bridge.say(alice, room_id, "before")
    await bridge.server.services.traffic.look()
    await bridge.as_bridge("POST", f"/join/{quote(room_id)}", {})
    alias = f"/directory/room/{quote('#_fake_room:a.org', safe='')}"
    assert (await bridge.as_bridge("PUT", alias, {"room_id": room_id}))[0] == 200
    await bridge.as_bridge("POST", f"/rooms/{quote(room_id)}/leave", {})
    await bridge.say(alice, room_id, "while it had the alias")
    await bridge.delivered()
    assert (await bridge.as_bridge("DELETE", alias))[0] == 200
    await bridge.say(alice, room_id, "after")
    await bridge.delivered()

    assert bridge.app.texts == ["while it had the alias"]


async def test_a_failed_transaction_is_repeated_with_pauses_that_grow(bridge: Bridged) -> None:
    alice, _, room_id = await portal(bridge)
    await bridge.delivered()
    bridge.app.status, before = 500, len(bridge.app.attempts)
    await bridge.say(alice, room_id, "first")
    await bridge.delivered()
    await bridge.say(alice, room_id, "second")
    await bridge.delivered()
    attempts = [len(bridge.app.attempts) - before]
    for seconds in (0.9, 0.2, 1.8, 0.3, 3.5, 0.6):
        await bridge.later(seconds)
        attempts.append(len(bridge.app.attempts) - before)

    assert attempts == [1, 1, 2, 2, 3, 3, 4]
    assert len(set(bridge.app.attempts[before:])) == 1  # the same id, and the same bytes
    bridge.app.status = 200
    await bridge.later(300)
    assert bridge.app.texts == ["first", "second"]


async def test_the_pause_has_an_upper_bound(bridge: Bridged) -> None:
    alice, _, room_id = await portal(bridge)
    bridge.app.status = 503
    await bridge.say(alice, room_id, "hello?")
    for _ in range(40):
        await bridge.later(301)
    before = len(bridge.app.attempts)
    await bridge.later(301)

    assert len(bridge.app.attempts) == before + 1


async def test_after_a_restart_the_same_transaction_goes_out_again(sqlite_database: Database) -> None:
    app = BridgeApp()
    async with bridged(sqlite_database, app) as bridge:
        alice, _, room_id = await portal(bridge)
        await bridge.delivered()
        app.status, before = 500, len(app.attempts)
        await bridge.say(alice, room_id, "sent before the crash")
        await bridge.delivered()
        await bridge.say(alice, room_id, "queued before the crash")
        await bridge.delivered()
    app.status = 200
    async with bridged(sqlite_database, app) as bridge:
        await bridge.delivered()

    first, again = app.attempts[before], app.attempts[before + 1]
    assert first == again
    assert app.texts == ["sent before the crash", "queued before the crash"]


async def test_what_was_not_looked_at_before_a_crash_is_looked_at_as_it_was(
    sqlite_database: Database,
) -> None:
    app = BridgeApp()
    async with bridged(sqlite_database, app) as bridge:
        alice, ghost, room_id = await portal(bridge)
        await bridge.delivered()
        bridge.server.core.notifier.listeners.clear()
        bridge.server.core.notifier.news_listeners.clear()
        await bridge.say(alice, room_id, "the ghost is here")
        await bridge.as_bridge("POST", f"/rooms/{quote(room_id)}/leave", {}, user_id=ghost)
        await bridge.say(alice, room_id, "the ghost is gone")
    async with bridged(sqlite_database, app) as bridge:
        await bridge.delivered()

    assert app.texts == ["the ghost is here"]
    assert app.events[-1]["content"] == {"membership": "leave"}


async def test_a_service_that_is_new_is_told_nothing_of_the_past(sqlite_database: Database) -> None:
    async with bridged(sqlite_database, url=None) as bridge:
        alice, _, room_id = await portal(bridge)
        await bridge.say(alice, room_id, "old")
    async with bridged(sqlite_database, id="another") as bridge:
        await bridge.say(alice, room_id, "new")
        await bridge.delivered()

        assert bridge.app.texts == ["new"]


async def test_many_events_come_in_transactions_of_bounded_size(bridge: Bridged) -> None:
    alice, _, room_id = await portal(bridge)
    await bridge.delivered()
    bridge.app.status = 500
    await bridge.say(alice, room_id, "0")
    await bridge.delivered()
    for number in range(1, 150):
        await bridge.say(alice, room_id, str(number))
    for number in range(150, 170):
        await bridge.say(alice, room_id, f"{number} {'x' * 60_000}")
    bridge.app.status = 200
    await bridge.later(10)

    sizes = [len(orjson.loads(body)["events"]) for _, body in bridge.app.attempts]
    assert max(sizes) == 100
    assert max(len(body) for _, body in bridge.app.attempts) < 1024 * 1024
    assert [text.split()[0] for text in bridge.app.texts] == [str(number) for number in range(170)]
    numbers = [int(txn_id) for txn_id in bridge.app.transactions]
    assert numbers == sorted(set(numbers))


async def test_a_service_that_knows_the_older_paths_alone_is_told_there(sqlite_database: Database) -> None:
    async with bridged(sqlite_database, BridgeApp(legacy=True)) as bridge:
        alice, _, room_id = await portal(bridge)
        await bridge.say(alice, room_id, "hello")
        await bridge.delivered()

        assert bridge.app.texts == ["hello"]


async def test_the_services_own_user_counts_as_one_of_its_users(bridge: Bridged) -> None:
    alice = await bridge.server.user("alice")
    room_id = await bridge.room(alice)
    await bridge.as_bridge("POST", f"/join/{quote(room_id)}", {})
    await bridge.say(alice, room_id, "hello, bot")
    await bridge.delivered()

    assert bridge.app.events[0]["state_key"] == BOT
    assert bridge.app.texts == ["hello, bot"]
