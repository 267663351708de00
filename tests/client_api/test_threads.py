"""Subscribing to threads, and every way in which that is refused (MSC4306, MSC4308)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from homeserver.rooms.thread_subscriptions import CONFLICTING_UNSUBSCRIPTION, NOT_IN_THREAD
from homeserver.storage.database import Database
from tests.client_api.room_server import RoomServer, room_server, segment
from tests.world import WorldRoom

UNSTABLE = "/_matrix/client/unstable"
CHANGES = f"{UNSTABLE}/io.element.msc4308/thread_subscriptions"


@dataclass
class Threads:
    """Alice and Bob in a room where threads begin."""

    server: RoomServer
    room: WorldRoom
    alice: str
    bob: str

    async def say(self, user_id: str, root_id: str | None = None) -> str:
        """A message, in the thread that begins at ``root_id``."""
        content: dict[str, Any] = {"msgtype": "m.text", "body": "hello"}
        if root_id is not None:
            content["m.relates_to"] = {"rel_type": "m.thread", "event_id": root_id}
        return (await self.room.send_event(user_id, "m.room.message", content)).id

    async def call(
        self, user_id: str, method: str, root_id: str, body: dict[str, Any] | None = None
    ) -> tuple[int, Any]:
        room = f"{UNSTABLE}/io.element.msc4306/rooms/{segment(self.room.room_id)}"
        return await self.server.call(user_id, method, f"{room}/thread/{segment(root_id)}/subscription", body)

    async def subscribe(self, root_id: str, **body: str) -> tuple[int, Any]:
        return await self.call(self.bob, "PUT", root_id, body)

    async def unsubscribe(self, root_id: str) -> None:
        assert await self.call(self.bob, "DELETE", root_id) == (200, {})

    async def automatic(self, root_id: str) -> bool | None:
        """Whether Bob's subscription was made for him; ``None`` when there is none."""
        status, reply = await self.call(self.bob, "GET", root_id)
        return reply["automatic"] if status == 200 else None

    async def changes(self, **query: str) -> Any:
        return await self.server.get(self.bob, CHANGES, dir="b", **query)


async def begin(server: RoomServer) -> Threads:
    alice, bob = server.world.user("alice"), server.world.user("bob")
    room = await server.world.public_room(alice)
    await room.join(bob)
    return Threads(server, room, alice, bob)


@pytest.fixture
async def threads(sqlite_database: Database) -> AsyncIterator[Threads]:
    async with room_server(sqlite_database) as server:
        yield await begin(server)


async def test_somebody_subscribes_to_a_thread_and_ends_it(threads: Threads) -> None:
    root = await threads.say(threads.alice)
    assert await threads.automatic(root) is None
    assert await threads.subscribe(root) == (200, {})
    assert await threads.automatic(root) is False
    await threads.unsubscribe(root)
    assert await threads.automatic(root) is None
    assert (await threads.call(threads.bob, "GET", root))[1]["errcode"] == "M_NOT_FOUND"


async def test_a_client_subscribes_its_user_and_they_then_do_it_themselves(threads: Threads) -> None:
    root = await threads.say(threads.alice)
    mention = await threads.say(threads.alice, root)
    assert await threads.subscribe(root, automatic=mention) == (200, {})
    assert await threads.automatic(root) is True
    await threads.subscribe(root)
    assert await threads.automatic(root) is False
    assert await threads.subscribe(root, automatic=mention) == (200, {})
    assert await threads.automatic(root) is False  # what somebody did themselves stands


async def test_what_was_there_before_the_end_subscribes_nobody_again(threads: Threads) -> None:
    root = await threads.say(threads.alice)
    first = await threads.say(threads.alice, root)
    await threads.subscribe(root, automatic=first)
    second = await threads.say(threads.alice, root)
    await threads.unsubscribe(root)
    third = await threads.say(threads.alice, root)
    for earlier in (first, second):
        status, reply = await threads.subscribe(root, automatic=earlier)
        assert (status, reply["errcode"]) == (409, CONFLICTING_UNSUBSCRIPTION)
        assert await threads.automatic(root) is None
    await threads.unsubscribe(root)  # which ends nothing, but speaks of the third too
    status, reply = await threads.subscribe(root, automatic=third)
    assert (status, reply["errcode"]) == (409, CONFLICTING_UNSUBSCRIPTION)
    fourth = await threads.say(threads.alice, root)
    assert await threads.subscribe(root, automatic=fourth) == (200, {})
    assert await threads.automatic(root) is True


async def test_an_end_before_any_subscription_holds(threads: Threads) -> None:
    root = await threads.say(threads.alice)
    mention = await threads.say(threads.alice, root)
    await threads.unsubscribe(root)
    assert (await threads.subscribe(root, automatic=mention))[0] == 409


async def test_a_cause_has_to_be_in_the_thread(threads: Threads) -> None:
    root, other = await threads.say(threads.alice), await threads.say(threads.alice)
    elsewhere = await threads.say(threads.alice, other)
    for cause in (root, other, elsewhere, "$unknown", "no event"):
        status, reply = await threads.subscribe(root, automatic=cause)
        assert (status, reply["errcode"]) == (400, NOT_IN_THREAD), cause


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_a_thread_that_is_not_there_or_not_seen(threads: Threads, method: str) -> None:
    root = await threads.say(threads.alice)
    reply_in_thread = await threads.say(threads.alice, root)
    await threads.room.set_state(threads.alice, "m.room.history_visibility", {"history_visibility": "joined"})
    hidden = await threads.say(threads.alice)
    eve = threads.server.world.user("eve")
    for user_id, thread in [
        (threads.bob, "$unknown"),
        (threads.bob, reply_in_thread),
        (eve, hidden),
    ]:
        status, reply = await threads.call(user_id, method, thread, {} if method == "PUT" else None)
        assert (status, reply["errcode"]) == (404, "M_NOT_FOUND")


async def test_a_body_of_another_shape(threads: Threads) -> None:
    root = await threads.say(threads.alice)
    status, reply = await threads.call(threads.bob, "PUT", root, {"automatic": 1})
    assert (status, reply["errcode"]) == (400, "M_BAD_JSON")


async def test_subscriptions_are_one_persons(threads: Threads) -> None:
    root = await threads.say(threads.alice)
    await threads.subscribe(root)
    assert (await threads.call(threads.alice, "GET", root))[0] == 404


async def test_changes_page_by_page_each_thread_once(threads: Threads) -> None:
    roots = [await threads.say(threads.alice) for _ in range(5)]
    for root in roots:
        await threads.subscribe(root)
    await threads.unsubscribe(roots[0])
    told: list[set[str]] = []
    end: dict[str, str] = {}
    while True:
        page = await threads.changes(limit="2", **end)
        by_room = [page.get(name, {}) for name in ("subscribed", "unsubscribed")]
        told.append({root for rooms in by_room for root in rooms.get(threads.room.room_id, {})})
        if "end" not in page:
            break
        end = {"from": page["end"]}
    assert told == [{roots[0], roots[4]}, {roots[3], roots[2]}, {roots[1]}]


async def test_changes_since_a_position_with_growing_stamps(threads: Threads) -> None:
    root = await threads.say(threads.alice)
    await threads.subscribe(root, automatic=await threads.say(threads.alice, root))
    first = (await threads.changes())["subscribed"][threads.room.room_id][root]
    before = (await threads.server.get(threads.bob, "/sync"))["next_batch"]
    assert await threads.changes(to=before) == {}
    await threads.unsubscribe(root)
    page = await threads.changes(to=before)
    assert page["unsubscribed"][threads.room.room_id][root]["bump_stamp"] > first["bump_stamp"]
    assert first["automatic"] is True
    assert "subscribed" not in page


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"dir": "f"}, "M_INVALID_PARAM"),
        ({"dir": "b", "limit": "0"}, "M_INVALID_PARAM"),
        ({"dir": "b", "limit": "many"}, "M_INVALID_PARAM"),
        ({"dir": "b", "from": "nonsense"}, "M_INVALID_PARAM"),
        ({"dir": "b", "to": "nonsense"}, "M_INVALID_PARAM"),
    ],
)
async def test_pages_that_cannot_be(threads: Threads, query: dict[str, str], errcode: str) -> None:
    assert await threads.server.refusal(threads.bob, CHANGES, **query) == (400, errcode)


async def test_threads_with_something_new_page_by_page(threads: Threads) -> None:
    updates = f"{UNSTABLE}/io.element.msc4360/thread_updates"
    roots = [await threads.say(threads.alice) for _ in range(3)]
    before = (await threads.server.get(threads.bob, "/sync"))["next_batch"]
    assert await threads.server.get(threads.bob, updates, dir="b") == {"chunk": {}}
    for root in (*roots, roots[0]):
        await threads.say(threads.alice, root)
    first = await threads.server.get(threads.bob, updates, dir="b", limit="2", to=before)
    assert list(first["chunk"][threads.room.room_id]) == [roots[0], roots[2]]
    assert "prev_batch" in first["chunk"][threads.room.room_id][roots[0]]
    last = await threads.server.get(threads.bob, updates, dir="b", to=before, **{"from": first["next_batch"]})
    (only,) = last["chunk"][threads.room.room_id].values()
    assert only["thread_root"]["event_id"] == roots[1]
    assert "next_batch" not in last
    assert await threads.server.refusal(threads.bob, updates) == (400, "M_MISSING_PARAM")


async def test_sliding_sync_and_its_companion_tell_of_the_same_subscriptions(threads: Threads) -> None:
    name = "io.element.msc4308.thread_subscriptions"
    roots = [await threads.say(threads.alice) for _ in range(4)]
    path = f"{UNSTABLE}/org.matrix.simplified_msc3575/sync"

    async def sliding(**query: str) -> Any:
        body = {"extensions": {name: {"enabled": True, "limit": 2}}}
        status, reply = await threads.server.call(threads.bob, "POST", path, body, **query)
        assert status == 200, reply
        return reply

    first = await sliding()
    assert name not in first["extensions"]
    for root in roots:
        await threads.subscribe(root)
    told = (await sliding(pos=first["pos"]))["extensions"][name]
    rest = await threads.changes(to=first["pos"], **{"from": told["prev_batch"]})
    assert set(told["subscribed"][threads.room.room_id]) == {roots[2], roots[3]}
    assert set(rest["subscribed"][threads.room.room_id]) == {roots[0], roots[1]}
    assert "end" not in rest


async def test_where_threads_notify_subscribers_every_reader_says_the_same(sqlite_database: Database) -> None:
    async with room_server(sqlite_database, thread_subscriptions=True) as server:
        threads = await begin(server)
        versions = await server.get(threads.bob, "/_matrix/client/versions")
        assert versions["unstable_features"]["org.matrix.msc4306"] is True
        wanted, other = await threads.say(threads.alice), await threads.say(threads.alice)
        await threads.subscribe(wanted)
        said = [await threads.say(threads.alice, root) for root in (wanted, other)]
        listed = await server.get(threads.bob, "/notifications")
        notified = {each["event"]["event_id"] for each in listed["notifications"]}
        assert notified == {wanted, other, said[0]}
        joined = (await server.get(threads.bob, "/sync"))["rooms"]["join"][threads.room.room_id]
        assert joined["unread_notifications"]["notification_count"] == 3
        rule = "/pushrules/global/postcontent/.io.element.msc4306.rule.unsubscribed_thread"
        assert (await server.call(threads.bob, "PUT", f"{rule}/enabled", {"enabled": False}))[0] == 200
        listed = await server.get(threads.bob, "/notifications")
        assert {each["event"]["event_id"] for each in listed["notifications"]} == {wanted, other, *said}


async def test_clients_are_told_that_threads_notify_as_ever(threads: Threads) -> None:
    versions = await threads.server.get(threads.bob, "/_matrix/client/versions")
    assert versions["unstable_features"]["org.matrix.msc4306"] is False
