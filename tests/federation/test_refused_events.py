"""What other servers are given of events this server refused, and of states that are not theirs to see."""

from __future__ import annotations

from typing import Any

import pytest

from federation.events import walk_back
from homeserver.errors import RemoteError
from homeserver.protocol.signing import event_id_of, sign_event
from homeserver.rooms.new_room import InitialState
from homeserver.rooms.send import Draft
from tests.federation.test_transactions import message, shared_room, transaction, unsent
from tests.remote import Network, Server


async def rejected_event(here: Server, there: Server, room_id: str, bob: str) -> str:
    pdu = await unsent(there, room_id, Draft(bob, "m.room.name", {"name": "Mine"}, state_key=""))
    await there.client.send_transaction(here.name, "rejected", transaction(pdu))
    event_id = event_id_of(pdu, (await here.room(room_id)).rules)
    stored = await here.events.by_id(str(event_id))
    assert stored is not None
    assert stored.rejected
    return stored.id


async def test_a_rejected_event_is_given_to_nobody(here: Server, there: Server) -> None:
    room_id, alice, bob = await shared_room(here, there)
    rejected = await rejected_event(here, there, room_id, bob)
    for question in (
        there.client.get_event(here.name, rejected),
        there.client.get_state_ids(here.name, room_id, rejected),
        there.client.get_state(here.name, room_id, rejected),
        there.client.event_auth(here.name, room_id, rejected),
    ):
        with pytest.raises(RemoteError) as refused:
            await question
        assert refused.value.errcode == "M_NOT_FOUND"
    pdus = await there.client.backfill(here.name, room_id, [rejected], 3)
    assert "Mine" not in {pdu["content"].get("name") for pdu in pdus}
    said = await here.say(room_id, alice, "after")
    assert rejected not in said.event.prev_events


async def test_history_goes_on_behind_a_rejected_event(here: Server, there: Server) -> None:
    room_id, alice, bob = await shared_room(here, there)
    before = await here.say(room_id, alice, "before")
    rejected = await rejected_event(here, there, room_id, bob)
    stored = await here.events.by_id(rejected)
    assert stored is not None
    room = await here.room(room_id)
    found = await walk_back(room, here.events.by_ids, [rejected], limit=2)
    assert rejected not in {one.id for one in found}
    assert {one.id for one in found} & {*stored.event.prev_events, before.id}


async def test_a_soft_failed_event_is_given_to_who_asks_for_it(
    here: Server, there: Server, network: Network
) -> None:
    room_id, alice, bob = await shared_room(here, there)
    pdu = await unsent(there, room_id, message(bob, "late"))
    carol = there.user("carol")
    await there.join(carol, room_id, here)
    await network.settle()
    await here.set_state(room_id, alice, "m.room.member", {"membership": "ban"}, bob)
    await there.client.send_transaction(here.name, "t1", transaction(pdu))
    event_id = str(event_id_of(pdu, (await here.room(room_id)).rules))
    assert (await there.client.get_event(here.name, event_id))["content"]["body"] == "late"
    newest = await here.say(room_id, alice, "newest")
    pdus = await there.client.backfill(here.name, room_id, [newest.id], 50)
    assert "late" not in {each["content"].get("body") for each in pdus}


@pytest.mark.parametrize("visibility", ["invited", "joined"])
async def test_the_state_of_a_time_before_a_server_came_is_not_for_it_to_see(
    here: Server, there: Server, visibility: str
) -> None:
    alice = here.user("alice")
    history = InitialState("m.room.history_visibility", {"history_visibility": visibility})
    room_id = await here.public_room(alice, initial_state=[history])
    before = await here.say(room_id, alice, "before")
    last = await here.say(room_id, alice, "right before")
    await there.join(there.user("bob"), room_id, here)
    after = await here.say(room_id, alice, "after")

    for question in (
        there.client.get_state_ids(here.name, room_id, before.id),
        there.client.get_state(here.name, room_id, before.id),
    ):
        with pytest.raises(RemoteError) as refused:
            await question
        assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    for event in (last, after):  # what bob joined upon, whose members his server is not given with the join
        assert await there.client.get_state_ids(here.name, room_id, event.id)


async def test_a_walk_that_may_give_nothing_does_not_go_through_the_whole_room(here: Server) -> None:
    alice = here.user("alice")
    room_id = await here.public_room(alice)
    said = [await here.say(room_id, alice, str(number)) for number in range(30)]
    looked_up: list[str] = []

    async def lookup(event_ids: Any) -> Any:
        looked_up.extend(event_ids)
        return await here.events.by_ids(event_ids)

    room = await here.room(room_id)
    found = await walk_back(
        room, lookup, [said[-1].id], limit=10, with_starts=False, min_depth=said[-1].event.depth
    )
    assert found == []
    assert len(looked_up) <= 3


async def test_of_missing_events_those_come_first_that_an_event_builds_on(
    here: Server, there: Server
) -> None:
    """COMPAT: Synapse drops an event when one that it builds on is not in the answer."""
    room_id, alice, bob = await shared_room(here, there)
    aside = await unsent(there, room_id, message(bob, "aside"))
    said = [await here.say(room_id, alice, str(number)) for number in range(15)]
    await there.client.send_transaction(here.name, "aside", transaction(aside))
    both = await here.say(room_id, alice, "both")
    assert len(both.event.prev_events) == 2

    pdus = await there.client.get_missing_events(
        here.name, room_id, earliest_events=[said[0].id], latest_events=[both.id], limit=10
    )

    bodies = [pdu["content"].get("body") for pdu in pdus]
    assert len(bodies) == 10
    assert {"aside", "14"} <= set(bodies)


async def test_a_server_that_is_banned_by_the_access_list_is_given_no_history(
    here: Server, there: Server
) -> None:
    room_id, alice, _ = await shared_room(here, there)
    said = await here.say(room_id, alice, "hello")
    await here.set_state(room_id, alice, "m.room.server_acl", {"allow": ["*"], "deny": [there.name]})
    for question in (
        there.client.get_state_ids(here.name, room_id, said.id),
        there.client.backfill(here.name, room_id, [said.id], 10),
        there.client.event_auth(here.name, room_id, said.id),
    ):
        with pytest.raises(RemoteError) as refused:
            await question
        assert refused.value.errcode == "M_FORBIDDEN"


@pytest.mark.parametrize("depth", [-1, 1 << 63, None, "7", (1 << 53) - 1])
async def test_depths_at_and_beyond_their_limits(here: Server, there: Server, depth: Any) -> None:
    """A depth that cannot be costs one event; the greatest that can be leaves the room usable."""
    room_id, alice, bob = await shared_room(here, there)
    pdu = await unsent(there, room_id, message(bob, "deep"))
    rules = (await here.room(room_id)).rules
    strange = {key: value for key, value in pdu.items() if key not in {"hashes", "signatures", "depth"}}
    if depth is not None:
        strange["depth"] = depth
    signed = resigned(there, strange, rules)
    await there.client.send_transaction(here.name, "t1", transaction(signed))
    is_possible = depth == (1 << 53) - 1
    assert await here.bodies(room_id) == (["deep"] if is_possible else [])
    said = await here.say(room_id, alice, "goes on")
    assert said.event.depth <= (1 << 53) - 1
    assert (await here.bodies(room_id))[-1] == "goes on"


async def test_an_event_of_the_far_future_is_one_like_any_other(here: Server, there: Server) -> None:
    room_id, alice, bob = await shared_room(here, there)
    far = Draft(bob, "m.room.message", {"body": "later"}, origin_server_ts=(1 << 53) - 1)
    pdu = await unsent(there, room_id, far)
    await there.client.send_transaction(here.name, "t1", transaction(pdu))
    stored = await here.events.by_id(str(event_id_of(pdu, (await here.room(room_id)).rules)))
    # Its keys cannot have been valid then: this room version asks for that.
    assert stored is None
    assert (await here.say(room_id, alice, "now")).event.depth > 0


def resigned(server: Server, pdu: dict[str, Any], rules: Any) -> dict[str, Any]:
    """Hashed and signed as it is, also what no server would sign."""
    try:
        return sign_event(pdu, rules, server.name, server.key)
    except (ValueError, TypeError):
        return {**pdu, "hashes": {"sha256": ""}, "signatures": {}}
