"""Transactions between servers: what they carry, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from homeserver.errors import RemoteError
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing import event_id_of, sign_event
from homeserver.rooms.send import Draft
from homeserver.storage import inbound_pdus
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.federation.conftest import StartServer
from tests.remote import Network, Server


async def shared_room(here: Server, there: Server, **options: Any) -> tuple[str, str, str]:
    """A public room of alice's that bob is in too."""
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice, **options)
    await there.join(bob, room_id, here)
    await here.network.settle()
    return room_id, alice, bob


def transaction(*pdus: dict[str, Any], edus: list[Any] | None = None) -> dict[str, Any]:
    return {"origin": "there.example", "origin_server_ts": 1, "pdus": list(pdus), "edus": edus or []}


async def unsent(server: Server, room_id: str, draft: Draft) -> dict[str, Any]:
    """The PDU of an event that the server composes, signs and keeps to itself."""
    async with server.rooms.lock(room_id) as room:
        pdu, _ = await server.send.template(room, draft)
        return server.send.sealed(pdu, room).pdu


def message(sender: str, body: str = "hello") -> Draft:
    return Draft(sender, "m.room.message", {"msgtype": "m.text", "body": body})


@dataclass
class Gap:
    """Holds up PDUs of a room, as long as a gap before them is being closed."""

    server: Server
    room_id: str
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    #: Raised instead of taking a PDU in.
    failure: Exception | None = None

    def __post_init__(self) -> None:
        inbound = self.server.inbound
        receive, receive_run = inbound.receive_checked, inbound.receive_run

        async def until_closed(room_id: str) -> None:
            if room_id == self.room_id:
                await self.closed.wait()
                if self.failure is not None:
                    raise self.failure

        async def receive_slowly(origin: str, room_id: str, event: Any, **options: Any) -> StoredEvent:
            await until_closed(room_id)
            return await receive(origin, room_id, event, **options)

        async def receive_run_slowly(room_id: str, events: Sequence[Event]) -> list[StoredEvent]:
            await until_closed(room_id)
            return await receive_run(room_id, events)

        inbound.receive_checked = receive_slowly  # type: ignore[method-assign]
        inbound.receive_run = receive_run_slowly  # type: ignore[method-assign]


async def test_a_repeated_transaction_is_answered_as_before_even_after_a_restart(
    here: Server, there: Server
) -> None:
    room_id, _, bob = await shared_room(here, there)
    pdu = await unsent(there, room_id, message(bob))

    first = await there.client.send_transaction(here.name, "t1", transaction(pdu))
    here = await here.restarted()
    again = await there.client.send_transaction(here.name, "t1", transaction())

    assert len(first) == 1
    assert list(first.values()) == [{}]
    assert again == first
    assert await here.bodies(room_id) == ["hello"]


async def test_each_pdu_has_its_own_result(here: Server, there: Server) -> None:
    room_id, _, bob = await shared_room(here, there)
    good = await unsent(there, room_id, message(bob))
    forged = {**good, "content": {"msgtype": "m.text", "body": "forged"}, "origin_server_ts": 2}
    elsewhere = {**good, "room_id": "!" + "x" * 43}
    malformed = {"room_id": room_id, "type": 3}

    results = await there.client.send_transaction(
        here.name, "t1", transaction(forged, good, elsewhere, malformed)
    )

    errors = sorted(result.get("error", "") for result in results.values())
    assert len(results) == 4
    assert errors[0] == ""
    assert "signature" in errors[1]
    assert errors[2] == "Unknown room"
    assert "invalid event: type" in errors[3]
    assert await here.bodies(room_id) == ["hello"]


@pytest.mark.parametrize("body", [{"pdus": [{}] * 51}, {"edus": [{}] * 101}, {"pdus": {}}, {"pdus": [1]}])
async def test_a_transaction_that_is_too_large_or_none_is_refused(
    here: Server, there: Server, body: dict[str, Any]
) -> None:
    with pytest.raises(RemoteError) as refused:
        await there.client.send_transaction(here.name, "t1", {"pdus": [], "edus": [], **body})
    assert (refused.value.status, refused.value.errcode) == (400, "M_BAD_JSON")


async def test_edus_reach_their_receivers_and_none_keeps_back_the_rest(
    network: Network, start: StartServer, there: Server
) -> None:
    received: list[tuple[str, dict[str, Any]]] = []

    async def fails(origin: str, content: dict[str, Any]) -> None:
        raise ZeroDivisionError

    async def receives(origin: str, content: dict[str, Any]) -> None:
        received.append((origin, content))

    here = await start("here.example", edu_receivers={"x.fails": fails, "x.good": receives})
    edus: list[Any] = [
        {"edu_type": "x.fails", "content": {}},
        {"edu_type": "x.unknown", "content": {}},
        {"edu_type": "x.good", "content": 3},
        "nonsense",
        {"edu_type": "x.good", "content": {"a": 1}},
    ]

    assert await there.client.send_transaction(here.name, "t1", transaction(edus=edus)) == {}

    assert received == [("there.example", {"a": 1})]


async def test_the_access_list_holds_for_pdus_and_for_edus_of_the_room(here: Server, there: Server) -> None:
    room_id, alice, bob = await shared_room(here, there)
    other, _, _ = await shared_room(here, there, name="Another")
    pdu = await unsent(there, room_id, message(bob))
    await here.set_state(room_id, alice, "m.room.server_acl", {"allow": ["*"], "deny": ["there.*"]})
    receipts = {"m.read": {bob: {"event_ids": ["$e"], "data": {}}}}
    edus = [
        {"edu_type": "m.typing", "content": {"room_id": room_id, "user_id": bob, "typing": True}},
        {"edu_type": "m.typing", "content": {"room_id": other, "user_id": bob, "typing": True}},
        {"edu_type": "m.receipt", "content": {room_id: receipts, other: receipts}},
    ]

    results = await there.client.send_transaction(here.name, "t1", transaction(pdu, edus=edus))

    assert ["error" in result for result in results.values()] == [True]
    assert await here.bodies(room_id) == []
    assert [edu for edu in here.edus if edu[1] == "m.typing"] == [
        ("there.example", "m.typing", {"room_id": other, "user_id": bob, "typing": True})
    ]
    assert ("there.example", "m.receipt", {other: receipts}) in here.edus


async def test_a_room_that_waits_for_a_peer_does_not_hold_up_the_others(
    network: Network, start: StartServer, there: Server
) -> None:
    here = await start("here.example", patience=0.2)
    slow, _, bob = await shared_room(here, there)
    quick, _, _ = await shared_room(here, there, name="Quick")
    gap = Gap(here, slow)
    pdus = [await unsent(there, slow, message(bob, "late")), await unsent(there, quick, message(bob, "now"))]

    results = await there.client.send_transaction(here.name, "t1", transaction(*pdus))

    assert list(results.values()) == [{}, {}]
    assert (await here.bodies(quick), await here.bodies(slow)) == (["now"], [])
    gap.closed.set()
    later = await unsent(there, slow, message(bob, "later"))
    await there.client.send_transaction(here.name, "t2", transaction(later))
    assert await here.bodies(slow) == ["late", "later"]


async def test_what_was_answered_is_taken_in_after_a_restart_and_before_what_comes_then(
    start: StartServer, there: Server
) -> None:
    here = await start("here.example", patience=0.1)
    room_id, _, bob = await shared_room(here, there)
    Gap(here, room_id)
    pdus = [await unsent(there, room_id, message(bob, body)) for body in ("one", "two", "three", "four")]

    first = await there.client.send_transaction(here.name, "t1", transaction(*pdus[:2]))
    second = await there.client.send_transaction(here.name, "t2", transaction(pdus[2]))
    assert await here.bodies(room_id) == []
    here = await here.restarted()
    third = await there.client.send_transaction(here.name, "t3", transaction(pdus[3]))

    assert [*first.values(), *second.values(), *third.values()] == [{}] * 4
    assert await here.bodies(room_id) == ["one", "two", "three", "four"]
    assert await inbound_pdus.everything(here.db.read) == []


async def test_what_was_answered_and_then_taken_in_is_not_kept(start: StartServer, there: Server) -> None:
    here = await start("here.example", patience=0.1)
    room_id, _, bob = await shared_room(here, there)
    gap = Gap(here, room_id)
    pdus = [await unsent(there, room_id, message(bob, body)) for body in ("one", "two")]
    refused = await unsent(there, room_id, Draft(bob, "m.room.name", {"name": "Mine"}, state_key=""))

    await there.client.send_transaction(here.name, "t1", transaction(pdus[0], refused))
    kept = await inbound_pdus.everything(here.db.read)
    gap.closed.set()
    await there.client.send_transaction(here.name, "t2", transaction(pdus[1]))

    assert [(row.origin, row.room_id) for row in kept] == [(there.name, room_id)] * 2
    assert await inbound_pdus.everything(here.db.read) == []
    assert await here.bodies(room_id) == ["one", "two"]


async def test_what_failed_after_its_answer_is_tried_again_at_the_next_start(
    start: StartServer, there: Server
) -> None:
    here = await start("here.example", patience=0.1)
    room_id, _, bob = await shared_room(here, there)
    gap = Gap(here, room_id, failure=ZeroDivisionError("a fault of this server's"))
    pdus = [await unsent(there, room_id, message(bob, body)) for body in ("one", "two")]

    await there.client.send_transaction(here.name, "t1", transaction(pdus[0]))
    gap.closed.set()
    failed = await there.client.send_transaction(here.name, "t2", transaction(pdus[1]))
    here = await here.restarted()
    await there.client.send_transaction(here.name, "t3", transaction(pdus[1]))

    assert list(failed.values()) == [{"error": "Internal server error"}]
    assert await here.bodies(room_id) == ["one", "two"]
    assert await inbound_pdus.everything(here.db.read) == []


async def test_what_cannot_be_an_event_is_not_kept_waiting(start: StartServer, there: Server) -> None:
    here = await start("here.example", patience=0.1)
    room_id, _, bob = await shared_room(here, there)
    Gap(here, room_id)
    good = await unsent(there, room_id, message(bob))

    results = await there.client.send_transaction(
        here.name, "t1", transaction(good, {**good, "depth": -1}, {"room_id": room_id})
    )

    assert sorted(result.get("error", "") for result in results.values()) == [
        "",
        "invalid event: depth is out of range",
        "invalid event: type is not a string",
    ]
    assert len(await inbound_pdus.everything(here.db.read)) == 1


@pytest.mark.parametrize("bound", ["MAX_WAITING", "MAX_WAITING_IN_ALL"])
async def test_only_so_many_may_wait(
    start: StartServer, there: Server, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    here = await start("here.example", patience=0.1)
    room_id, _, bob = await shared_room(here, there)
    other, _, _ = await shared_room(here, there, name="Another")
    gap = Gap(here, room_id)
    pdus = [await unsent(there, room_id, message(bob, body)) for body in ("one", "two", "three")]
    elsewhere = await unsent(there, other, message(bob))
    monkeypatch.setattr(f"federation.inbound_pdus.{bound}", 2)

    await there.client.send_transaction(here.name, "t1", transaction(*pdus[:2]))
    refused = await there.client.send_transaction(here.name, "t2", transaction(pdus[2]))
    in_other = await there.client.send_transaction(here.name, "t3", transaction(elsewhere))
    gap.closed.set()
    numbers = count(4)
    later = refused
    async with asyncio.timeout(10):
        while later == refused:
            later = await there.client.send_transaction(here.name, f"t{next(numbers)}", transaction(pdus[2]))

    assert list(refused.values()) == [{"error": "Too many events wait already"}]
    assert ["error" in result for result in in_other.values()] == [bound == "MAX_WAITING_IN_ALL"]
    assert list(later.values()) == [{}]
    assert await here.bodies(room_id) == ["one", "two", "three"]


@pytest.mark.parametrize("field", ["type", "state_key", "sender", "room_id", "redacts"])
async def test_a_nul_where_no_table_can_hold_it_costs_one_event(
    network: Network, database: Database, there: Server, field: str
) -> None:
    here = await Server.open(network, "here.example", database)
    try:
        room_id, _, bob = await shared_room(here, there, version="10")
        good = await unsent(there, room_id, message(bob))
        bad = {**good, "type": "m.room.redaction", "state_key": "", "redacts": "$x"}
        bad = {name: value for name, value in bad.items() if name not in ("signatures", "hashes")}
        bad[field] += "\0"
        rules = (await there.room(room_id)).rules
        signed = sign_event(bad, rules, there.name, there.key)
        edu = {"edu_type": "m.typing", "content": {"room_id": "!\0", "user_id": bob, "typing": True}}

        results = await there.client.send_transaction(here.name, "t1", transaction(signed, good, edus=[edu]))

        assert len(results) == 2
        error = results[event_id_of(signed, rules)]["error"]
        assert field in error or "its room" in error
        assert await here.bodies(room_id) == ["hello"]
    finally:
        await here.close()


async def test_an_event_the_room_never_allowed_is_rejected(here: Server, there: Server) -> None:
    room_id, _, bob = await shared_room(here, there)
    pdu = await unsent(there, room_id, Draft(bob, "m.room.name", {"name": "Mine"}, state_key=""))

    (result,) = (await there.client.send_transaction(here.name, "t1", transaction(pdu))).values()

    assert "error" in result
    assert (await here.room(room_id)).state_event("m.room.name") is None


async def test_an_event_that_goes_round_a_ban_is_soft_failed(
    here: Server, there: Server, network: Network
) -> None:
    room_id, alice, bob = await shared_room(here, there)
    pdu = await unsent(there, room_id, message(bob, "before I knew"))
    await here.set_state(room_id, alice, "m.room.member", {"membership": "ban"}, bob)

    (result,) = (await there.client.send_transaction(here.name, "t1", transaction(pdu))).values()
    ((event_id, _),) = (await there.client.send_transaction(here.name, "t2", transaction(pdu))).items()

    assert result == {}
    stored = await here.events.by_id(event_id)
    assert stored is not None
    assert stored.soft_failed
    assert await here.bodies(room_id) == []
    assert stored.id not in {tip.id for tip in (await here.room(room_id)).tips}


async def test_an_event_with_a_wrong_hash_is_taken_redacted(here: Server, there: Server) -> None:
    room_id, _, bob = await shared_room(here, there)
    pdu = await unsent(there, room_id, message(bob, "as signed"))
    tampered = {**pdu, "content": {"msgtype": "m.text", "body": "as changed on the way"}}

    results = await there.client.send_transaction(here.name, "t1", transaction(tampered))

    assert list(results.values()) == [{}]
    assert (await here.room(room_id)).recent[-1].event.content == {}


async def test_events_that_were_missed_are_fetched(here: Server, there: Server, network: Network) -> None:
    room_id, alice, _ = await shared_room(here, there)
    network.down.add(there.name)
    for body in ("one", "two", "three", "four"):
        newest = await here.say(room_id, alice, body)
    await network.settle()
    network.down.clear()

    await here.client.send_transaction(there.name, "t1", transaction(newest.event.pdu))

    assert await there.bodies(room_id) == ["one", "two", "three", "four"]
    assert network.asked_for("get_missing_events") == 1


async def test_after_a_gap_too_wide_to_close_the_state_is_fetched(
    here: Server, there: Server, network: Network
) -> None:
    room_id, alice, _ = await shared_room(here, there)
    network.down.add(there.name)
    await here.set_state(room_id, alice, "m.room.name", {"name": "Changed"})
    for number in range(120):
        await here.say(room_id, alice, str(number))
    newest = await here.say(room_id, alice, "newest")
    await network.settle()
    network.down.clear()

    (result,) = (await here.client.send_transaction(there.name, "t1", transaction(newest.event.pdu))).values()

    assert result == {}
    assert network.asked_for("/state") > 0
    assert (await there.bodies(room_id))[-1] == "newest"
    name = (await there.room(room_id)).state_event("m.room.name")
    assert name is not None
    assert name.content == {"name": "Changed"}


async def test_servers_that_were_apart_agree_when_they_meet_again(
    here: Server, there: Server, network: Network
) -> None:
    room_id, alice, bob = await shared_room(here, there)
    await here.set_state(
        room_id, alice, "m.room.power_levels", {"users": {bob: 50}, "events": {"m.room.name": 50}}
    )
    await network.settle()
    network.down |= {here.name, there.name}
    await here.set_state(room_id, alice, "m.room.topic", {"topic": "Hers"})
    await here.set_state(room_id, alice, "m.room.name", {"name": "Hers"})
    network.clock.advance(1)
    await there.set_state(room_id, bob, "m.room.name", {"name": "His"})
    await there.say(room_id, bob, "alone")
    await network.settle()

    network.down.clear()
    network.clock.advance(3600)
    for server in (here, there):
        server.sender.tick()
    await network.settle()
    await here.say(room_id, alice, "together")
    await network.settle()

    assert await here.state_ids(room_id) == await there.state_ids(room_id)
    assert len((await there.room(room_id)).tips) == 1
    topic = (await there.room(room_id)).state_event("m.room.topic")
    assert topic is not None
    assert topic.content == {"topic": "Hers"}


async def test_a_signature_by_a_key_the_server_never_had_is_not_believed(here: Server, there: Server) -> None:
    room_id, alice, _ = await shared_room(here, there)
    pdu = await unsent(there, room_id, message(f"@eve:{there.name}"))
    pdu = {name: value for name, value in pdu.items() if name not in ("signatures", "hashes")} | {
        "sender": alice
    }
    forged = sign_event(pdu, (await here.room(room_id)).rules, here.name, there.key)

    (result,) = (await there.client.send_transaction(here.name, "t1", transaction(forged))).values()

    assert "error" in result


async def test_events_that_come_together_are_each_judged_by_what_those_before_them_left(
    here: Server, there: Server
) -> None:
    room_id, _, bob = await shared_room(here, there)
    carol, dave = there.user("carol"), there.user("dave")
    here.network.down.add(here.name)
    joined = await made(
        there, room_id, Draft(carol, "m.room.member", {"membership": "join"}, state_key=carol)
    )
    spoke = await made(there, room_id, message(carol, "I am here"))
    left = await made(there, room_id, Draft(carol, "m.room.member", {"membership": "leave"}, state_key=carol))
    spoke_later = await made(there, room_id, message(bob, "She is gone"))
    here.network.down.clear()
    stranger = {**spoke, "sender": dave, "prev_events": spoke_later["prev_events"]}

    results = await there.client.send_transaction(
        here.name, "t1", transaction(joined, spoke, left, stranger, spoke_later, spoke)
    )

    rules = (await here.room(room_id)).rules
    good = [event_id_of(pdu, rules) for pdu in (joined, spoke, left, spoke_later)]
    assert [event_id for event_id, result in results.items() if not result] == good
    assert list(results) == [*good[:3], event_id_of(stranger, rules), good[3]]
    assert await here.bodies(room_id) == ["I am here", "She is gone"]
    assert await here.membership_of(room_id, carol) == "leave"
    assert await here.state_ids(room_id) == await there.state_ids(room_id)


async def test_what_only_seems_to_continue_a_room_is_found_out_in_the_middle_of_a_transaction(
    here: Server, there: Server
) -> None:
    room_id, _, bob = await shared_room(here, there)
    here.network.down.add(here.name)
    one = await made(there, room_id, message(bob, "one"))
    here.network.down.clear()
    forbidden = await unsent(there, room_id, Draft(bob, "m.room.name", {"name": "Mine"}, state_key=""))
    # It builds on what is refused, which takes no extremity's place.
    after = await unsent(there, room_id, message(bob, "after"))
    rules = (await here.room(room_id)).rules
    after = resigned(there, rules, {**after, "prev_events": [event_id_of(forbidden, rules)]})

    results = await there.client.send_transaction(here.name, "t1", transaction(one, forbidden, after))

    assert results == {
        event_id_of(one, rules): {},
        event_id_of(forbidden, rules): {"error": "The room does not allow the event"},
        event_id_of(after, rules): {},
    }
    assert await here.bodies(room_id) == ["one", "after"]
    assert [tip.id for tip in (await here.room(room_id)).tips] == [event_id_of(after, rules)]


async def made(server: Server, room_id: str, draft: Draft) -> dict[str, Any]:
    """The PDU of an event that is in its own server's room, and that nobody else was sent."""
    pdu = (await server.send.send(room_id, draft)).event.pdu
    await server.sender.idle()
    return pdu


def resigned(server: Server, rules: RoomVersion, pdu: dict[str, Any]) -> dict[str, Any]:
    bare = {key: value for key, value in pdu.items() if key not in ("hashes", "signatures")}
    return sign_event(bare, rules, server.name, server.key)
