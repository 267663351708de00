"""Related events as clients find them: children, threads, aggregations, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from yarl import URL

from homeserver.storage.database import Database
from tests.client_api.room_server import RoomServer, room_server, segment
from tests.world import WorldRoom

V1 = "/_matrix/client/v1"


@dataclass
class Talk:
    """A room with two people in it, and how they relate what they say."""

    server: RoomServer
    room: WorldRoom
    alice: str
    bob: str

    async def get(self, user_id: str, path: str, **query: str) -> tuple[int, Any]:
        """Status and JSON of a request below the room's path of ``/_matrix/client/v1``."""
        url = URL(f"{V1}/rooms/{segment(self.room.room_id)}/{path}", encoded=True).with_query(query)
        headers = {"Authorization": f"Bearer {user_id}"}
        async with self.server.client.get(url, headers=headers) as response:
            return response.status, await response.json()

    async def children(self, user_id: str, parent_id: str, rest: str = "", **query: str) -> dict[str, Any]:
        status, reply = await self.get(user_id, f"relations/{segment(parent_id)}{rest}", **query)
        assert status == 200, reply
        found: dict[str, Any] = reply
        return found

    async def threads(self, user_id: str, **query: str) -> dict[str, Any]:
        status, reply = await self.get(user_id, "threads", **query)
        assert status == 200, reply
        found: dict[str, Any] = reply
        return found

    async def say(self, user_id: str, body: str, **more: Any) -> str:
        content = {"msgtype": "m.text", "body": body, **more}
        return (await self.room.send_event(user_id, "m.room.message", content)).id

    async def relate(self, user_id: str, parent_id: str, rel_type: str, body: str = "child") -> str:
        relation = {"rel_type": rel_type, "event_id": parent_id}
        return await self.say(user_id, body, **{"m.relates_to": relation})

    async def edit(self, user_id: str, parent_id: str, body: str) -> str:
        self.server.world.clock.advance(1)
        relation = {"rel_type": "m.replace", "event_id": parent_id}
        new = {"msgtype": "m.text", "body": body}
        return await self.say(user_id, f"* {body}", **{"m.new_content": new, "m.relates_to": relation})

    async def react(self, user_id: str, parent_id: str, key: str, txn: str) -> tuple[int, Any]:
        """A reaction by way of the API, which may refuse it."""
        content = {"m.relates_to": {"rel_type": "m.annotation", "event_id": parent_id, "key": key}}
        path = f"/rooms/{segment(self.room.room_id)}/send/m.reaction/{txn}"
        return await self.server.call(user_id, "PUT", path, content)

    async def bundle(self, user_id: str, event_id: str) -> dict[str, Any]:
        """``m.relations`` of an event, by itself."""
        path = f"/rooms/{segment(self.room.room_id)}/event/{segment(event_id)}"
        event = await self.server.get(user_id, path)
        found: dict[str, Any] = event["unsigned"].get("m.relations", {})
        return found

    async def ignore(self, user_id: str, ignored: str) -> None:
        path = f"/user/{segment(user_id)}/account_data/m.ignored_user_list"
        status, _ = await self.server.call(user_id, "PUT", path, {"ignored_users": {ignored: {}}})
        assert status == 200


@pytest.fixture
async def talk(sqlite_database: Database) -> AsyncIterator[Talk]:
    async with room_server(sqlite_database) as server:
        alice, bob = server.world.user("alice"), server.world.user("bob")
        room = await server.world.public_room(alice)
        await room.join(bob)
        yield Talk(server, room, alice, bob)


def ids(events: list[Mapping[str, Any]]) -> list[str]:
    return [event["event_id"] for event in events]


async def test_children_come_page_by_page_the_newest_first(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    said = [await talk.relate(talk.bob, root, "m.thread", str(number)) for number in range(5)]

    first = await talk.children(talk.alice, root, limit="2")
    second = await talk.children(talk.alice, root, limit="2", **{"from": first["next_batch"]})
    last = await talk.children(talk.alice, root, limit="2", **{"from": second["next_batch"]})

    assert [ids(page["chunk"]) for page in (first, second, last)] == [
        [said[4], said[3]],
        [said[2], said[1]],
        [said[0]],
    ]
    assert "prev_batch" not in first
    assert second["prev_batch"] == first["next_batch"]
    assert "next_batch" not in last


async def test_children_from_the_first_on_and_up_to_a_token(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    said = [await talk.relate(talk.bob, root, "m.thread", str(number)) for number in range(4)]

    first = await talk.children(talk.alice, root, dir="f", limit="2")
    rest = await talk.children(talk.alice, root, dir="f", **{"from": first["next_batch"]})
    newer = await talk.children(talk.alice, root, to=first["next_batch"])
    nothing = await talk.children(talk.alice, root, dir="f", to="s1_0_0")

    assert (ids(first["chunk"]), ids(rest["chunk"])) == (said[:2], said[2:])
    assert ids(newer["chunk"]) == [said[3], said[2]]
    assert nothing["chunk"] == []


async def test_a_token_of_messages_or_sync_will_do(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    before = await talk.relate(talk.bob, root, "m.thread")
    sync = await talk.server.get(talk.alice, "/sync")
    await talk.relate(talk.bob, root, "m.thread")

    page = await talk.children(talk.alice, root, **{"from": sync["next_batch"]})

    assert ids(page["chunk"]) == [before]


async def test_children_by_relation_and_type(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    threaded = await talk.relate(talk.bob, root, "m.thread")
    _, reaction = await talk.react(talk.bob, root, "+", "1")

    assert ids((await talk.children(talk.alice, root))["chunk"]) == [reaction["event_id"], threaded]
    assert ids((await talk.children(talk.alice, root, "/m.thread"))["chunk"]) == [threaded]
    assert (await talk.children(talk.alice, root, "/m.thread/m.reaction"))["chunk"] == []
    found = await talk.children(talk.alice, root, "/m.annotation/m.reaction")
    assert ids(found["chunk"]) == [reaction["event_id"]]


async def test_children_of_children(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    threaded = await talk.relate(talk.bob, root, "m.thread")
    edit = await talk.edit(talk.bob, threaded, "better")
    noted = await talk.relate(talk.alice, edit, "org.example.note")
    await talk.relate(talk.alice, noted, "org.example.note")

    plain = await talk.children(talk.alice, root)
    whole = await talk.children(talk.alice, root, recurse="true")
    of_kind = await talk.children(talk.alice, root, "/org.example.note", recurse="true")

    assert ids(plain["chunk"]) == [threaded]
    assert "recursion_depth" not in plain
    assert ids(whole["chunk"]) == [noted, edit, threaded]
    assert whole["recursion_depth"] == 3
    assert of_kind["chunk"] == [], "what is between does not match"


@pytest.mark.parametrize("query", [{"from": "nonsense"}, {"limit": "0"}, {"dir": "x"}, {"recurse": "maybe"}])
async def test_a_request_that_makes_no_sense(talk: Talk, query: dict[str, str]) -> None:
    root = await talk.say(talk.alice, "root")

    status, reply = await talk.get(talk.alice, f"relations/{segment(root)}", **query)

    assert (status, reply["errcode"]) == (400, "M_INVALID_PARAM")


async def test_an_unknown_parent_and_one_out_of_sight(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    stranger = talk.server.world.user("stranger")

    for user_id, parent_id in ((talk.alice, "$unknown"), (stranger, root)):
        status, reply = await talk.get(user_id, f"relations/{segment(parent_id)}")
        assert (status, reply["errcode"]) == (404, "M_NOT_FOUND")


async def test_a_redacted_child_is_none_any_more(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    first, second = [await talk.relate(talk.bob, root, "m.thread") for _ in range(2)]
    await talk.room.redact(talk.bob, second)

    assert ids((await talk.children(talk.alice, root))["chunk"]) == [first]
    thread = (await talk.bundle(talk.alice, root))["m.thread"]
    assert (thread["count"], thread["latest_event"]["event_id"]) == (1, first)
    await talk.room.redact(talk.bob, first)
    assert await talk.bundle(talk.alice, root) == {}
    assert (await talk.threads(talk.alice))["chunk"] == []


async def test_the_newest_valid_edit_is_told_with_the_event(talk: Talk) -> None:
    original = await talk.say(talk.alice, "one")
    await talk.edit(talk.alice, original, "two")
    newest = await talk.edit(talk.alice, original, "three")
    await talk.edit(talk.bob, original, "not mine")
    await talk.relate(talk.alice, original, "m.replace", "without new content")
    await talk.edit(talk.alice, newest, "an edit of an edit")

    bundled = (await talk.bundle(talk.bob, original))["m.replace"]

    assert bundled["event_id"] == newest
    assert bundled["content"]["m.new_content"]["body"] == "three"
    assert {"sender", "origin_server_ts", "room_id", "type", "unsigned"} <= bundled.keys()
    assert await talk.bundle(talk.bob, newest) == {}


async def test_without_the_newest_edit_the_one_before_counts(talk: Talk) -> None:
    original = await talk.say(talk.alice, "one")
    first, second = await talk.edit(talk.alice, original, "two"), await talk.edit(talk.alice, original, "3")
    await talk.room.redact(talk.alice, second)
    assert (await talk.bundle(talk.bob, original))["m.replace"]["event_id"] == first

    await talk.room.redact(talk.alice, original)
    assert await talk.bundle(talk.bob, original) == {}, "nothing replaces what is redacted"


async def test_state_is_not_edited(talk: Talk) -> None:
    topic = (await talk.room.set_state(talk.alice, "m.room.topic", {"topic": "old"})).id
    relation = {"rel_type": "m.replace", "event_id": topic}
    content = {"topic": "new", "m.new_content": {"topic": "new"}, "m.relates_to": relation}
    await talk.room.send_event(talk.alice, "m.room.topic", content)

    assert await talk.bundle(talk.alice, topic) == {}


async def test_an_encrypted_edit_needs_no_new_content_in_the_clear(talk: Talk) -> None:
    secret = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "..."}
    original = (await talk.room.send_event(talk.alice, "m.room.encrypted", secret)).id
    relation = {"rel_type": "m.replace", "event_id": original}
    edited = {**secret, "m.relates_to": relation}
    edit = (await talk.room.send_event(talk.alice, "m.room.encrypted", edited)).id

    assert (await talk.bundle(talk.bob, original))["m.replace"]["event_id"] == edit


async def test_a_thread_is_told_with_its_root(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    await talk.relate(talk.bob, root, "m.thread")
    latest = await talk.relate(talk.bob, root, "m.thread")
    edit = await talk.edit(talk.bob, latest, "better")
    carol = talk.server.world.user("carol")
    await talk.room.join(carol)

    thread = (await talk.bundle(talk.alice, root))["m.thread"]

    assert (thread["count"], thread["current_user_participated"]) == (2, True)
    assert thread["latest_event"]["event_id"] == latest
    inner = thread["latest_event"]["unsigned"]["m.relations"]
    assert inner["m.replace"]["event_id"] == edit
    assert not (await talk.bundle(carol, root))["m.thread"]["current_user_participated"]


async def test_references_are_listed(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    first, second = (
        await talk.relate(talk.bob, root, "m.reference"),
        await talk.relate(talk.alice, root, "m.reference"),
    )
    bundle = await talk.bundle(talk.alice, root)
    assert bundle == {"m.reference": {"chunk": [{"event_id": first}, {"event_id": second}]}}

    await talk.ignore(talk.alice, talk.bob)

    assert (await talk.bundle(talk.alice, root))["m.reference"] == {"chunk": [{"event_id": second}]}


@pytest.mark.parametrize("way", ["messages", "context", "relations", "sync"])
async def test_aggregations_come_wherever_events_do(talk: Talk, way: str) -> None:
    root = await talk.say(talk.alice, "root")
    parent = await talk.relate(talk.alice, root, "m.thread")
    edit = await talk.edit(talk.alice, parent, "better")
    room = f"/rooms/{segment(talk.room.room_id)}"

    if way == "relations":
        events = (await talk.children(talk.bob, root))["chunk"]
    elif way == "messages":
        events = (await talk.server.get(talk.bob, f"{room}/messages", dir="b"))["chunk"]
    elif way == "context":
        events = [(await talk.server.get(talk.bob, f"{room}/context/{segment(parent)}"))["event"]]
    else:
        section = (await talk.server.get(talk.bob, "/sync"))["rooms"]["join"][talk.room.room_id]
        events = section["timeline"]["events"]

    told = next(event for event in events if event["event_id"] == parent)
    assert told["content"]["body"] == "child", "the content is the original one"
    assert told["unsigned"]["m.relations"]["m.replace"]["event_id"] == edit


async def test_threads_the_latest_first(talk: Talk) -> None:
    roots = [await talk.say(talk.alice, str(number)) for number in range(3)]
    for root in (*roots, roots[0]):
        await talk.relate(talk.alice, root, "m.thread")

    first = await talk.threads(talk.bob, limit="2")
    second = await talk.threads(talk.bob, limit="2", **{"from": first["next_batch"]})

    assert (ids(first["chunk"]), ids(second["chunk"])) == ([roots[0], roots[2]], [roots[1]])
    assert "next_batch" not in second
    assert first["chunk"][0]["unsigned"]["m.relations"]["m.thread"]["count"] == 2


async def test_threads_somebody_takes_part_in(talk: Talk) -> None:
    by_bob, by_alice, of_others = (
        await talk.say(talk.bob, "mine"),
        await talk.say(talk.alice, "hers"),
        await talk.say(talk.alice, "theirs"),
    )
    await talk.relate(talk.alice, by_bob, "m.thread")
    await talk.relate(talk.bob, by_alice, "m.thread")
    await talk.relate(talk.alice, of_others, "m.thread")

    assert ids((await talk.threads(talk.bob, include="participated"))["chunk"]) == [by_alice, by_bob]
    assert ids((await talk.threads(talk.bob))["chunk"]) == [of_others, by_alice, by_bob]


async def test_threads_of_a_user_one_ignores(talk: Talk) -> None:
    alone, shared = await talk.say(talk.alice, "1"), await talk.say(talk.bob, "rude")
    mine = await talk.relate(talk.alice, shared, "m.thread")
    await talk.relate(talk.bob, shared, "m.thread")
    await talk.relate(talk.bob, alone, "m.thread")
    await talk.ignore(talk.alice, talk.bob)

    (told,) = (await talk.threads(talk.alice))["chunk"]

    assert (told["event_id"], told["content"]) == (shared, {}), "the root is told of as redacted"
    thread = told["unsigned"]["m.relations"]["m.thread"]
    assert (thread["count"], thread["latest_event"]["event_id"]) == (1, mine)
    assert "m.thread" not in await talk.bundle(talk.alice, alone)
    status, reply = await talk.server.call(
        talk.bob, "GET", f"/rooms/{segment(talk.room.room_id)}/event/{segment(shared)}"
    )
    assert (status, reply["content"]["body"]) == (200, "rude"), "for others it is what it is"


async def test_threads_of_a_room_one_is_not_in(talk: Talk) -> None:
    status, reply = await talk.get(talk.server.world.user("stranger"), "threads")
    assert (status, reply["errcode"]) == (403, "M_FORBIDDEN")
    status, reply = await talk.get(talk.alice, "threads", **{"from": "nonsense"})
    assert (status, reply["errcode"]) == (400, "M_INVALID_PARAM")


async def test_who_left_is_told_what_was_so_then(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    seen = await talk.relate(talk.alice, root, "m.thread")
    edit = await talk.edit(talk.alice, root, "better")
    await talk.room.leave(talk.bob)
    await talk.relate(talk.alice, root, "m.thread")
    await talk.edit(talk.alice, root, "secret")

    bundle = await talk.bundle(talk.bob, root)

    assert bundle["m.replace"]["event_id"] == edit
    assert (bundle["m.thread"]["latest_event"]["event_id"], bundle["m.thread"]["count"]) == (seen, 1)
    assert ids((await talk.children(talk.bob, root))["chunk"]) == [edit, seen]


async def test_the_same_reaction_twice(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    status, first = await talk.react(talk.bob, root, "+", "1")
    assert status == 200
    assert await talk.react(talk.bob, root, "+", "1") == (200, first), "a repeated request is none"

    status, reply = await talk.react(talk.bob, root, "+", "2")
    assert (status, reply["errcode"]) == (400, "M_DUPLICATE_ANNOTATION")
    assert (await talk.react(talk.bob, root, "-", "3"))[0] == 200
    assert (await talk.react(talk.alice, root, "+", "4"))[0] == 200
    await talk.room.redact(talk.bob, first["event_id"])
    assert (await talk.react(talk.bob, root, "+", "5"))[0] == 200
    assert await talk.bundle(talk.alice, root) == {}, "annotations are not aggregated"


async def test_of_reactions_at_once_one_wins(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")

    replies = await asyncio.gather(*(talk.react(talk.bob, root, "+", str(txn)) for txn in range(8)))

    assert sorted(status for status, _ in replies) == [200] + [400] * 7
    assert len((await talk.children(talk.alice, root))["chunk"]) == 1


async def test_no_thread_begins_at_a_child(talk: Talk) -> None:
    root = await talk.say(talk.alice, "root")
    child = await talk.relate(talk.alice, root, "m.thread")
    reply_to = await talk.say(talk.bob, "re", **{"m.relates_to": {"m.in_reply_to": {"event_id": root}}})
    path = f"/rooms/{segment(talk.room.room_id)}/send/m.room.message"

    async def begin(parent_id: str) -> tuple[int, Any]:
        content = {"body": "hi", "m.relates_to": {"rel_type": "m.thread", "event_id": parent_id}}
        return await talk.server.call(talk.bob, "POST", path, content)

    status, refusal = await begin(child)
    assert (status, refusal["errcode"]) == (400, "M_UNKNOWN")
    assert (await begin(reply_to))[0] == 200
    await talk.relate(talk.bob, child, "m.thread", "as from elsewhere")
    assert await talk.bundle(talk.alice, child) == {}
    assert ids((await talk.threads(talk.alice))["chunk"]) == [reply_to, root]


@pytest.mark.parametrize("token", ["s1_9999999999999999999_0", "s1_-9999999999999999999_0", "s1_0_0_x"])
async def test_tokens_of_no_position_are_refused(talk: Talk, token: str) -> None:
    root = await talk.say(talk.alice, "root")
    for path in (f"relations/{segment(root)}", "threads"):
        status, reply = await talk.get(talk.alice, path, **{"from": token})
        assert (status, reply["errcode"]) == (400, "M_INVALID_PARAM")
