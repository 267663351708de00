"""What servers in a room are given of its events and its state."""

from __future__ import annotations

import json
from typing import Any

import pytest

from homeserver.errors import RemoteError
from homeserver.rooms.new_room import InitialState
from tests.federation.conftest import StartServer
from tests.federation.test_transactions import shared_room
from tests.remote import Network, Server


async def test_history_is_fetched_from_the_servers_that_have_it(here: Server, there: Server) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    for number in range(5):
        await here.say(room_id, alice, str(number))
    await there.join(bob, room_id, here)
    room = await there.room(room_id)

    assert await there.backfill.fill(room, -(1 << 62), room.last_pos, 10)

    first = await here.events.by_id((await here.room(room_id)).recent[-2].id)
    assert first is not None
    fetched = await there.events.by_id(first.id)
    assert fetched is not None
    assert fetched.event.content["body"] == "4"
    assert fetched.pos is not None
    assert fetched.pos < room.last_pos


async def test_backfill_gives_the_events_asked_for_and_those_before_them(here: Server, there: Server) -> None:
    room_id, alice, _ = await shared_room(here, there)
    said = [await here.say(room_id, alice, str(number)) for number in range(5)]

    pdus = await there.client.backfill(here.name, room_id, [said[3].id], 3)

    assert [pdu["content"]["body"] for pdu in pdus] == ["3", "2", "1"]


async def test_missing_events_lie_between_what_is_known_and_what_came(here: Server, there: Server) -> None:
    room_id, alice, _ = await shared_room(here, there)
    said = [await here.say(room_id, alice, str(number)) for number in range(6)]

    async def missing(limit: int, min_depth: int = 0) -> list[str]:
        pdus = await there.client.get_missing_events(
            here.name,
            room_id,
            earliest_events=[said[0].id],
            latest_events=[said[5].id],
            limit=limit,
            min_depth=min_depth,
        )
        return [pdu["content"]["body"] for pdu in pdus]

    assert await missing(10) == ["1", "2", "3", "4"]
    assert await missing(2) == ["3", "4"]
    assert await missing(10, said[3].event.depth) == ["3", "4"]


async def test_the_state_before_an_event_does_not_hold_the_event(here: Server, there: Server) -> None:
    room_id, alice, _ = await shared_room(here, there)
    before = await here.state_ids(room_id)
    named = await here.set_state(room_id, alice, "m.room.name", {"name": "New"})
    await here.set_state(room_id, alice, "m.room.name", {"name": "Newer"})

    ids = await there.client.get_state_ids(here.name, room_id, named.id)
    whole = await there.client.get_state(here.name, room_id, named.id)

    assert set(ids["pdu_ids"]) == set(before.values())
    assert len(whole["pdus"]) == len(ids["pdu_ids"])
    assert len(whole["auth_chain"]) == len(ids["auth_chain_ids"])
    assert set(ids["auth_chain_ids"]) <= set(before.values())


async def test_an_auth_chain_goes_all_the_way_down(here: Server, there: Server) -> None:
    room_id, alice, _ = await shared_room(here, there, version="11")
    said = await here.say(room_id, alice, "hello")

    chain = await there.client.event_auth(here.name, room_id, said.id)

    assert [event["type"] for event in chain] == ["m.room.create", "m.room.member", "m.room.power_levels"]


async def test_an_event_can_be_had_by_its_id(here: Server, there: Server) -> None:
    room_id, alice, _ = await shared_room(here, there)
    said = await here.say(room_id, alice, "hello")

    assert await there.client.get_event(here.name, said.id) == said.event.pdu


async def test_servers_outside_are_given_nothing(here: Server, there: Server, start: StartServer) -> None:
    room_id, alice, _ = await shared_room(here, there)
    said = await here.say(room_id, alice, "hello")
    third = (await start("third.example")).client

    for question in (
        third.get_event(here.name, said.id),
        third.get_state_ids(here.name, room_id, said.id),
        third.get_state(here.name, room_id, said.id),
        third.backfill(here.name, room_id, [said.id], 10),
        third.event_auth(here.name, room_id, said.id),
        third.get_missing_events(here.name, room_id, earliest_events=[], latest_events=[said.id], limit=10),
    ):
        with pytest.raises(RemoteError) as refused:
            await question
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def test_events_of_another_room_are_not_found_through_this_one(here: Server, there: Server) -> None:
    room_id, alice, _ = await shared_room(here, there)
    other = await here.private_room(alice, name="Other")
    secret = await here.say(other, alice, "secret")

    with pytest.raises(RemoteError) as refused:
        await there.client.get_state_ids(here.name, room_id, secret.id)
    assert refused.value.errcode == "M_NOT_FOUND"
    assert await there.client.backfill(here.name, room_id, [secret.id], 10) == []


@pytest.mark.parametrize(
    ("visibility", "shown"),
    [("shared", True), ("world_readable", True), ("invited", False), ("joined", False)],
)
async def test_what_was_said_before_a_server_came_is_shown_by_the_room_s_visibility(
    here: Server, there: Server, visibility: str, shown: bool
) -> None:
    alice = here.user("alice")
    history = InitialState("m.room.history_visibility", {"history_visibility": visibility})
    room_id = await here.public_room(alice, initial_state=[history])
    before = await here.say(room_id, alice, "before")
    await there.join(there.user("bob"), room_id, here)
    after = await here.say(room_id, alice, "after")

    early, late = [await there.client.get_event(here.name, each.id) for each in (before, after)]

    assert ("body" in early["content"]) == shown
    assert late["content"]["body"] == "after"
    assert early["hashes"] == before.event.pdu["hashes"]


async def test_aliases_profiles_and_versions_are_told(here: Server, there: Server, network: Network) -> None:
    alice = here.user("alice")
    room_id = await here.public_room(alice, room_alias_name="hall")

    found = await there.client.query_directory(here.name, f"#hall:{here.name}")
    assert found == {"room_id": room_id, "servers": [here.name]}
    assert await there.client.query_profile(here.name, alice) == {"displayname": alice[1:]}
    assert (await there.client.request("GET", here.name, "/_matrix/federation/v1/version"))["server"]

    for question in (
        there.client.query_directory(here.name, f"#nothing:{here.name}"),
        there.client.query_profile(here.name, f"@nobody:{here.name}"),
    ):
        with pytest.raises(RemoteError) as refused:
            await question
        assert refused.value.errcode == "M_NOT_FOUND"


async def answer(server: Server, method: str, uri: str, body: Any = None) -> tuple[int, Any]:
    """An unsigned request."""
    return await server.answer(method, uri, {}, None if body is None else json.dumps(body).encode())


async def test_requests_that_are_not_signed_well_are_refused(here: Server, there: Server) -> None:
    room_id, _, _ = await shared_room(here, there)
    uri = f"/_matrix/federation/v1/state/{room_id}?event_id=x"
    for header in (
        {},
        {"Authorization": "Bearer abc"},
        {"Authorization": 'X-Matrix origin="there.example",key="ed25519:a_test",sig="AAAA"'},
        {"Authorization": 'X-Matrix origin="nowhere.example",key="ed25519:a_test",sig="AAAA"'},
        {
            "Authorization": 'X-Matrix origin="there.example",destination="else.example",'
            'key="ed25519:a_test",sig="AAAA"'
        },
    ):
        status, reply = await here.answer("GET", uri, header, None)
        assert (status, reply["errcode"]) == (401, "M_UNAUTHORIZED")


async def test_a_signature_covers_the_body(here: Server, there: Server) -> None:
    sent: list[dict[str, str]] = []
    exchange = here.exchange

    async def overhear(method: str, uri: str, headers: Any, body: bytes | None) -> tuple[int, bytes]:
        sent.append(dict(headers))
        return await exchange(method, uri, headers, body)

    here.exchange = overhear  # type: ignore[method-assign]
    await there.client.send_transaction(here.name, "t1", {"pdus": [], "edus": []})

    status, reply = await here.answer(
        "PUT", "/_matrix/federation/v1/send/t1", sent[-1], b'{"pdus":[],"edus":[{}]}'
    )
    assert (status, reply["errcode"]) == (401, "M_UNAUTHORIZED")


async def test_keys_are_published_and_vouched_for(here: Server, there: Server) -> None:
    status, own = await answer(here, "GET", "/_matrix/key/v2/server")
    assert (status, own["server_name"]) == (200, here.name)
    assert own["verify_keys"][here.key.key_id] == {"key": here.key.verify_key_base64}

    _, single = await answer(here, "GET", f"/_matrix/key/v2/query/{there.name}")
    _, several = await answer(
        here,
        "POST",
        "/_matrix/key/v2/query",
        {"server_keys": {there.name: {}, "gone.example": {}, here.name: {}}},
    )

    (vouched,) = single["server_keys"]
    assert set(vouched["signatures"]) == {here.name, there.name}
    assert [each["server_name"] for each in several["server_keys"]] == [here.name, there.name]


async def test_a_notary_remembers_servers_that_are_gone(
    here: Server, there: Server, network: Network
) -> None:
    await answer(here, "GET", f"/_matrix/key/v2/query/{there.name}")
    network.down.add(there.name)

    _, reply = await answer(here, "GET", f"/_matrix/key/v2/query/{there.name}")

    assert [each["server_name"] for each in reply["server_keys"]] == [there.name]


async def test_history_is_fetched_down_to_the_beginning(here: Server, there: Server) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice)
    await here.say(room_id, alice, "first")
    await there.join(bob, room_id, here)
    room = await there.room(room_id)

    while await there.backfill.fill(room, -(1 << 62), room.last_pos, 100):
        pass

    here_room = await here.room(room_id)
    for stored in here_room.recent:
        fetched = await there.events.by_id(stored.id)
        assert fetched is not None
        assert fetched.pos is not None
    assert await there.state_ids(room_id) == await here.state_ids(room_id)
