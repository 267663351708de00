"""Threads over sliding sync: where something was said, and what one is subscribed to."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.errors import MatrixError
from homeserver.rooms.relations import Span
from homeserver.storage.database import Database
from homeserver.storage.relations import Wanted
from homeserver.sync.positions import SyncToken
from tests.sync.extension_client import ExtensionClient
from tests.sync.server import SyncServer
from tests.world import WorldRoom

THREADS, SUBSCRIPTIONS = "io.element.msc4360.threads", "io.element.msc4308.thread_subscriptions"


class Talk:
    """Alice reads what Bob says in threads."""

    def __init__(self, server: SyncServer, room: WorldRoom, alice: str, bob: str) -> None:
        self.server, self.room, self.alice, self.bob = server, room, alice, bob
        self.phone = ExtensionClient.of(server, alice, THREADS)

    @property
    def asked(self) -> dict[str, Any]:
        return self.phone.extensions[THREADS]

    async def say(self, root_id: str | None = None, *, user_id: str | None = None, body: str = "hm") -> str:
        content: dict[str, Any] = {"msgtype": "m.text", "body": body}
        if root_id is not None:
            content["m.relates_to"] = {"rel_type": "m.thread", "event_id": root_id}
        return (await self.room.send_event(user_id or self.bob, "m.room.message", content)).id

    async def threads(self, *names: str) -> list[str]:
        """Threads by the name the test gives them, each with one message."""
        roots = [await self.say(body=name) for name in names]
        for root in roots:
            await self.say(root)
        return roots

    async def updates(self, **body: Any) -> dict[str, Any]:
        part = (await self.phone.told(**body)).get(THREADS, {"updates": {}})
        updates: dict[str, Any] = part["updates"].get(self.room.room_id, {})
        return updates


@pytest.fixture
async def talk(sqlite_database: Database) -> Talk:
    server = await SyncServer.open(sqlite_database)
    alice, bob = server.world.user("alice"), server.world.user("bob")
    room = await server.world.public_room(alice)
    await room.join(bob)
    return Talk(server, room, alice, bob)


async def test_what_the_timeline_tells_is_not_told_again(talk: Talk) -> None:
    (root,) = await talk.threads("tea")
    await talk.phone.told()
    await talk.say(root)
    assert await talk.phone.told() == {}


async def test_what_the_timeline_leaves_out_is_told_with_where_to_read_on(talk: Talk) -> None:
    once, twice = await talk.threads("once", "twice")
    await talk.phone.told()
    await talk.say(once)
    said = [await talk.say(twice) for _ in range(2)]
    for number in range(5):  # as many as the client asks for
        await talk.say(body=str(number))
    updates = await talk.updates()
    assert set(updates) == {once, twice}
    assert updates[once] == {}
    token = SyncToken.parse(updates[twice]["prev_batch"])
    stored = await talk.server.world.core.events.by_id(said[0])
    assert stored is not None
    assert token.pos >= (stored.pos or 0)
    later = await talk.server.world.core.events.by_id(said[1])
    assert later is not None
    assert token.pos < (later.pos or 0)


async def test_with_roots_every_thread_is_told_with_its_root(talk: Talk) -> None:
    talk.asked["include_roots"] = True
    (root,) = await talk.threads("tea")
    await talk.phone.told()
    latest = await talk.say(root)
    told = (await talk.updates())[root]["thread_root"]
    assert told["event_id"] == root
    assert told["unsigned"]["m.relations"]["m.thread"]["latest_event"]["event_id"] == latest
    assert await talk.updates() == {}


async def test_the_first_response_tells_the_threads_spoken_in_last(talk: Talk) -> None:
    roots = await talk.threads("1", "2", "3", "4", "5")
    talk.asked.update(limit=2, include_roots=True)
    part = (await talk.phone.told())[THREADS]
    assert list(part["updates"][talk.room.room_id]) == [roots[4], roots[3]]
    end = SyncToken.parse(part["prev_batch"]).pos
    rest = await talk.server.reading.updated_threads.between(
        talk.alice, frozenset({(await talk.room.live()).nid}), 0, end, 100
    )
    ((_, updates),) = rest.by_room
    assert [update.root.stored.id for update in updates] == [roots[2], roots[1], roots[0]]
    assert rest.end is None


async def test_threads_of_people_who_are_ignored_and_roots_one_may_not_see(talk: Talk) -> None:
    carol = talk.server.world.user("carol")
    await talk.room.set_state(talk.alice, "m.room.history_visibility", {"history_visibility": "joined"})
    hidden, seen = await talk.say(), await talk.say(user_id=talk.alice)
    await talk.room.join(carol)
    shown = await talk.say()
    await talk.say(hidden)
    await talk.say(shown)
    await talk.server.account_data.set_content(
        carol, "m.ignored_user_list", {"ignored_users": {talk.alice: {}}}
    )
    await talk.say(seen, user_id=talk.alice)
    talk.phone = ExtensionClient.of(talk.server, carol, THREADS)
    talk.asked["include_roots"] = True
    assert set(await talk.updates()) == {shown}


async def test_threads_of_rooms_out_of_view_are_told_too(talk: Talk) -> None:
    (root,) = await talk.threads("tea")
    await talk.phone.told()
    latest = await talk.server.world.public_room(talk.alice)
    await talk.say(root)
    await latest.send(talk.alice, "on top")
    assert set(await talk.updates(last=0)) == {root}


@pytest.mark.parametrize("asked", [{"include_roots": "yes"}, {"limit": "1"}, {"limit": 1.5}])
async def test_switches_and_limits_of_another_kind(talk: Talk, asked: dict[str, Any]) -> None:
    talk.asked.update(asked)
    with pytest.raises(MatrixError) as refused:
        await talk.phone.told()
    assert refused.value.errcode == "M_BAD_JSON"


async def test_subscriptions_are_told_as_they_change(talk: Talk) -> None:
    subscriptions = talk.server.reading.thread_subscriptions
    tea, coffee = await talk.threads("tea", "coffee")
    cause = await talk.say(coffee)
    await subscriptions.subscribe(talk.alice, talk.room.room_id, tea)
    phone = ExtensionClient.of(talk.server, talk.alice, SUBSCRIPTIONS)
    first = (await phone.told())[SUBSCRIPTIONS]
    assert first["subscribed"][talk.room.room_id][tea]["automatic"] is False
    assert set(first) == {"subscribed"}
    assert await phone.told() == {}
    await subscriptions.subscribe(talk.alice, talk.room.room_id, coffee, cause)
    await subscriptions.unsubscribe(talk.alice, talk.room.room_id, tea)
    told = (await phone.told())[SUBSCRIPTIONS]
    assert told["subscribed"][talk.room.room_id][coffee]["automatic"] is True
    stamp = told["unsubscribed"][talk.room.room_id][tea]["bump_stamp"]
    assert stamp > first["subscribed"][talk.room.room_id][tea]["bump_stamp"]


async def test_of_many_subscriptions_the_newest_with_a_token_for_the_others(talk: Talk) -> None:
    subscriptions = talk.server.reading.thread_subscriptions
    roots = await talk.threads("1", "2", "3")
    for root in roots:
        await subscriptions.subscribe(talk.alice, talk.room.room_id, root)
    phone = ExtensionClient.of(talk.server, talk.alice, SUBSCRIPTIONS)
    phone.extensions[SUBSCRIPTIONS]["limit"] = 2
    told = (await phone.told())[SUBSCRIPTIONS]
    assert set(told["subscribed"][talk.room.room_id]) == set(roots[1:])
    end = SyncToken.parse(told["prev_batch"]).pos
    rest = await subscriptions.changed(talk.alice, 0, end, 100)
    assert [one.root_id for _, one in rest.subscriptions] == [roots[0]]


async def test_the_token_of_a_thread_leads_to_what_was_said_before(talk: Talk) -> None:
    (root,) = await talk.threads("tea")
    talk.asked["include_roots"] = True
    await talk.phone.told()
    said = [await talk.say(root) for _ in range(3)]
    token = SyncToken.parse((await talk.updates())[root]["prev_batch"])
    _, found = await talk.server.reading.relations.children(
        talk.alice, talk.room.room_id, root, Wanted("m.thread"), Span(token.pos, None, 2)
    )
    assert [one.stored.id for one in found.events] == [said[1], said[0]]
