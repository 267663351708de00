"""``POST /search``: every parameter, and what the answer holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from homeserver.rooms.new_room import InitialState
from tests.search.library import Library

ALICE, BOB, CAROL = (f"@{name}:here.example" for name in ("alice", "bob", "carol"))
HTML = {"body": "<b>hidden</b>", "mimetype": "text/html"}
TOPIC = {"topic": "Old boats", "m.topic": {"m.text": [{"body": "Sails and oars"}, HTML]}}


def ids(found: Mapping[str, Any]) -> list[str]:
    return [one["result"]["event_id"] for one in found["results"]]


async def test_a_message_is_found_with_all_that_clients_are_told_of_it(library: Library) -> None:
    room = await library.room(ALICE, BOB)
    sent = await room.send(BOB, "Hello, world")
    found = await library.search(ALICE, "hello", order_by="rank")
    assert found["count"] == 1
    assert found["highlights"] == ["hello"]
    (one,) = found["results"]
    assert one["rank"] > 0
    assert one["result"].pop("unsigned")["membership"] == "join"
    assert one["result"] == {
        "event_id": sent.id,
        "room_id": room.room_id,
        "sender": BOB,
        "type": "m.room.message",
        "origin_server_ts": sent.event.origin_server_ts,
        "content": {"msgtype": "m.text", "body": "Hello, world"},
    }
    assert "context" not in one
    assert not {"groups", "state", "next_batch"} & {*found}


async def test_the_keys_say_where_is_looked(library: Library) -> None:
    room = await library.room(ALICE)
    name = await room.set_state(ALICE, "m.room.name", {"name": "The boats"})
    topic = await room.set_state(ALICE, "m.room.topic", TOPIC)
    message = await room.send(ALICE, "a boat")
    await room.send_event(ALICE, "m.room.name", {"name": "boat, but no name"})
    await room.set_state(ALICE, "m.room.topic", {"topic": "boat, of no room"}, "elsewhere")
    await room.send_event(ALICE, "org.example", {"body": "boat", "name": "boat", "topic": "boat"})
    everywhere = ids(await library.search(ALICE, "boat"))
    by_key = {
        key: ids(await library.search(ALICE, "boat", keys=[key]))
        for key in ("content.body", "content.name", "content.topic")
    }
    assert everywhere == [message.id, topic.id, name.id]
    assert by_key == {
        "content.body": [message.id],
        "content.name": [name.id],
        "content.topic": [topic.id],
    }
    assert ids(await library.search(ALICE, "oars", keys=["content.topic"])) == [topic.id]
    assert ids(await library.search(ALICE, "hidden")) == []
    assert ids(await library.search(ALICE, "boat", keys=[])) == []


async def test_all_of_the_filter_counts(library: Library) -> None:
    one, other = await library.room(ALICE, BOB), await library.room(ALICE, BOB)
    first = (await one.send(ALICE, "apple")).id
    second = (await other.send(BOB, "apple")).id
    picture = {"msgtype": "m.image", "body": "apple", "url": "mxc://here.example/a"}
    third = (await other.send_event(ALICE, "m.room.message", picture)).id
    name = (await one.set_state(ALICE, "m.room.name", {"name": "apple"})).id

    async def found(**filter: Any) -> list[str]:
        return ids(await library.search(ALICE, "apple", filter=filter))

    assert await found() == [name, third, second, first]
    assert await found(rooms=[one.room_id]) == [name, first]
    assert await found(rooms=[]) == []
    assert await found(rooms=["!nowhere:here.example"]) == []
    assert await found(not_rooms=[one.room_id]) == [third, second]
    assert await found(senders=[BOB]) == [second]
    assert await found(not_senders=[BOB]) == [name, third, first]
    assert await found(types=["m.room.message"]) == [third, second, first]
    assert await found(types=["m.room.n*"]) == [name]
    assert await found(not_types=["m.room.message"]) == [name]
    assert await found(contains_url=True) == [third]
    assert await found(contains_url=False) == [name, second, first]
    assert await found(limit=1) == [name]
    assert await found(limit=0) == []


async def test_the_order_is_of_rank_by_default_or_of_time(library: Library) -> None:
    room = await library.room(ALICE)
    best = await room.send(ALICE, "pear pear")
    later = await room.send(ALICE, "a pear, among a lot of other things " + "that are of no interest " * 20)
    by_default = (await library.call(ALICE, {"search_term": "pear"}))[1]["search_categories"]["room_events"]
    assert ids(by_default) == [best.id, later.id]
    assert ids(await library.search(ALICE, "pear", order_by="rank")) == [best.id, later.id]
    assert ids(await library.search(ALICE, "pear", order_by="recent")) == [later.id, best.id]


async def test_context_comes_with_the_results_where_it_is_wanted(library: Library) -> None:
    alice = library.world.user("alice", displayname="Alice A.")
    room = await library.room(alice, BOB)
    for number in range(9):
        await room.send(BOB if number % 2 else alice, f"message {number}")
    wanted = {"before_limit": 2, "after_limit": 3, "include_profile": True}
    found = await library.search(alice, "message 4", event_context=wanted)
    context = found["results"][0]["context"]
    assert [one["content"]["body"] for one in context["events_before"]] == ["message 3", "message 2"]
    assert [one["content"]["body"] for one in context["events_after"]] == [f"message {n}" for n in (5, 6, 7)]
    assert context["profile_info"][alice] == {"displayname": "Alice A."}
    assert {*context["profile_info"]} == {alice, BOB}
    path = f"/rooms/{room.room_id}/messages"
    earlier = await library.server.get(alice, path, dir="b", limit="1", **{"from": context["start"]})
    later = await library.server.get(alice, path, dir="f", limit="1", **{"from": context["end"]})
    assert earlier["chunk"][0]["content"]["body"] == "message 1"
    assert later["chunk"][0]["content"]["body"] == "message 8"

    plain = (await library.search(alice, "message 4", event_context={}))["results"][0]["context"]
    assert len(plain["events_before"]) == 5
    assert len(plain["events_after"]) == 4
    assert "profile_info" not in plain
    none = await library.search(alice, "message 4", event_context={"before_limit": 0, "after_limit": 0})
    assert none["results"][0]["context"]["events_before"] == []


async def test_state_comes_for_the_rooms_of_the_results(library: Library) -> None:
    one, other = await library.room(ALICE), await library.room(ALICE)
    await one.send(ALICE, "plum")
    await other.send(ALICE, "peach")
    found = await library.search(ALICE, "plum", include_state=True)
    assert [*found["state"]] == [one.room_id]
    assert {"m.room.create", "m.room.member"} <= {event["type"] for event in found["state"][one.room_id]}
    assert (await library.search(ALICE, "nothing", include_state=True))["state"] == {}


async def test_groups_are_pages_of_their_own(library: Library) -> None:
    rooms = [await library.room(ALICE, BOB) for _ in range(2)]
    sent = [(await rooms[n % 2].send(ALICE if n % 3 else BOB, f"grape {n}")).id for n in range(10)]
    wanted = {"group_by": [{"key": "room_id"}, {"key": "sender"}]}
    found = await library.search(ALICE, "grape", groupings=wanted, filter={"limit": 4})
    groups = found["groups"]
    assert ids(found) == sent[:5:-1]
    assert groups["room_id"][rooms[1].room_id]["results"] == [sent[9], sent[7]]
    assert groups["room_id"][rooms[1].room_id]["order"] == 1
    assert groups["room_id"][rooms[0].room_id]["order"] == 2
    assert groups["sender"][BOB]["results"] == [sent[9], sent[6]]
    batch = groups["room_id"][rooms[0].room_id]["next_batch"]
    rest = await library.search(ALICE, "grape", batch=batch, groupings=wanted, filter={"limit": 4})
    assert ids(rest) == [sent[4], sent[2], sent[0]]
    assert [*rest["groups"]["room_id"]] == [rooms[0].room_id]
    assert "next_batch" not in rest["groups"]["room_id"][rooms[0].room_id]
    assert "next_batch" not in rest
    batch = groups["sender"][BOB]["next_batch"]
    rest = await library.search(ALICE, "grape", batch=batch, filter={"limit": 4})
    assert ids(rest) == [sent[3], sent[0]]


@pytest.mark.parametrize("order", ["rank", "recent"])
async def test_pages_follow_each_other_while_people_go_on_talking(library: Library, order: str) -> None:
    room = await library.room(ALICE)
    sent = [(await room.send(ALICE, f"melon {number % 3} " * (1 + number % 4))).id for number in range(23)]
    pages, batch = [], None
    while True:
        found = await library.search(ALICE, "melon", batch=batch, order_by=order, filter={"limit": 5})
        assert found["count"] == 23
        pages.append(ids(found))
        await room.send(ALICE, "melon melon melon, the newest")
        batch = found.get("next_batch")
        if batch is None:
            break
    assert [len(page) for page in pages] == [5, 5, 5, 5, 3]
    seen = [event_id for page in pages for event_id in page]
    assert sorted(seen) == sorted(sent)
    assert order == "rank" or seen == sent[::-1]


async def test_a_full_last_page_has_an_empty_one_after_it(library: Library) -> None:
    room = await library.room(ALICE)
    for _ in range(2):
        await room.send(ALICE, "cherry")
    found = await library.search(ALICE, "cherry", filter={"limit": 2})
    after = await library.search(ALICE, "cherry", batch=found["next_batch"], filter={"limit": 2})
    assert (after["count"], after["results"]) == (2, [])
    assert "next_batch" not in after


@pytest.mark.parametrize(
    ("criteria", "errcode"),
    [
        ({}, "M_BAD_JSON"),
        ({"search_term": 5}, "M_BAD_JSON"),
        ({"search_term": "x", "keys": "content.body"}, "M_BAD_JSON"),
        ({"search_term": "x", "keys": ["content.secret"]}, "M_INVALID_PARAM"),
        ({"search_term": "x", "order_by": "age"}, "M_INVALID_PARAM"),
        ({"search_term": "x", "filter": []}, "M_BAD_JSON"),
        ({"search_term": "x", "filter": {"rooms": "!a:b"}}, "M_INVALID_PARAM"),
        ({"search_term": "x", "filter": {"limit": -1}}, "M_INVALID_PARAM"),
        ({"search_term": "x", "event_context": {"before_limit": "2"}}, "M_BAD_JSON"),
        ({"search_term": "x", "event_context": {"after_limit": -1}}, "M_INVALID_PARAM"),
        ({"search_term": "x", "groupings": {"group_by": [{"key": "age"}]}}, "M_INVALID_PARAM"),
        ({"search_term": "x", "groupings": {"group_by": [{}]}}, "M_BAD_JSON"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    library: Library, criteria: dict[str, Any], errcode: str
) -> None:
    status, reply = await library.call(ALICE, criteria)
    assert (status, reply["errcode"]) == (400, errcode)


async def test_a_next_batch_has_to_be_one_of_this_search(library: Library) -> None:
    room = await library.room(ALICE)
    await room.send(ALICE, "fig")
    batch = (await library.search(ALICE, "fig", filter={"limit": 1}))["next_batch"]
    strange = [
        "",
        "x",
        "é",
        "A" * 2_000,
        batch[:-3],
        "W10",
        "WyJyZWNlbnQiLDk5OTk5OTk5OTk5OTk5OTk5OTksWzEsMSwxXV0",
    ]
    refused = [
        (await library.call(ALICE, {"search_term": "fig", "order_by": "recent"}, next_batch=each))[1][
            "errcode"
        ]
        for each in strange
    ]
    assert refused == ["M_INVALID_PARAM"] * len(strange)
    other_order = await library.call(ALICE, {"search_term": "fig", "order_by": "rank"}, next_batch=batch)
    assert other_order[1]["errcode"] == "M_INVALID_PARAM"


async def test_bodies_without_a_category_find_nothing(library: Library) -> None:
    reply = await library.server.call(ALICE, "POST", "/search", {"search_categories": {}})
    assert reply == (200, {"search_categories": {}})
    status, refusal = await library.server.call(ALICE, "POST", "/search", {})
    assert (status, refusal["errcode"]) == (400, "M_BAD_JSON")


async def test_long_and_hostile_queries_are_bounded(library: Library) -> None:
    room = await library.room(ALICE)
    await room.send(ALICE, " ".join(f"word{number}" for number in range(2_000)))
    await room.send(ALICE, "字" * 15_000)
    many = " ".join(f"word{number}" for number in range(1_000))
    assert (await library.search(ALICE, many))["count"] == 1
    assert (await library.search(ALICE, "字" * 5_000))["count"] == 1
    assert (await library.search(ALICE, "x" * 100_000))["count"] == 0


async def test_encrypted_messages_are_not_found(library: Library) -> None:
    rules = {"algorithm": "m.megolm.v1.aes-sha2"}
    room = await library.room(ALICE, initial_state=[InitialState("m.room.encryption", rules)])
    secret = {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "quince", "body": "quince"}
    await room.send_event(ALICE, "m.room.encrypted", secret)
    assert (await library.search(ALICE, "quince"))["count"] == 0


@pytest.mark.parametrize("order", ["rank", "recent"])
async def test_pages_go_on_below_what_is_looked_at_at_once(
    library: Library, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """Of a common word older hits can be reached too, in several windows, each of them once."""
    assert library.server.sync_server.searching is not None
    monkeypatch.setattr(library.server.sync_server.searching.search, "_max_candidates", 4)
    rooms = [await library.room(ALICE, BOB), await library.room(BOB)]
    sent = []
    for number in range(40):
        both = number % 8 < 4
        event = await rooms[both].send(BOB, f"lime {number}")
        sent += [] if both else [event.id]
    await rooms[1].join(ALICE)
    await rooms[1].set_state(BOB, "m.room.history_visibility", {"history_visibility": "joined"})
    wanted = {"order_by": order, "groupings": {"group_by": [{"key": "room_id"}]}}
    pages, batch, groups = [], None, []
    while True:
        found = await library.search(ALICE, "lime", batch=batch, filter={"limit": 3}, **wanted)
        pages += ids(found)
        groups.append(found["groups"]["room_id"].get(rooms[0].room_id))
        if (batch := found.get("next_batch")) is None:
            break
    assert len(pages) == len({*pages}) == found["count"] == 40
    assert order == "rank" or [one for one in pages if one in sent] == sent[::-1]
    first = next(group for group in groups if group is not None)
    in_group, batch = [*first["results"]], first.get("next_batch")
    while batch is not None:
        found = await library.search(ALICE, "lime", batch=batch, filter={"limit": 3}, **wanted)
        in_group += ids(found)
        batch = found.get("next_batch")
    assert sorted(in_group) == sorted(sent)


async def test_pages_go_on_where_the_index_ends_for_very_common_words(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the newest documents with a word are all in rooms of others."""
    monkeypatch.setattr("homeserver.storage.search._MAX_BY_TERMS", 5)
    monkeypatch.setattr("homeserver.search.search._MAX_ROOM_TERMS", 0)
    mine, others = await library.room(ALICE), await library.room(BOB)
    sent = [(await mine.send(ALICE, f"lime {number}")).id for number in range(3)]
    for number in range(40):
        await others.send(BOB, f"lime {number}")
    pages, batch = [], None
    while True:
        found = await library.search(ALICE, "lime", batch=batch)
        pages += ids(found)
        if (batch := found.get("next_batch")) is None:
            break
    assert pages == sent[::-1]
