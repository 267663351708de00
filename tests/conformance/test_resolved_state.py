"""State that a server claims wrongly after a long gap, resolved as room version 12 does it (v2.1)."""

from __future__ import annotations

from typing import Any

from homeserver.protocol.events import Event
from tests.conformance.conftest import Register
from tests.conformance.outsider import V1, Answer, Asked, Outsider
from tests.conformance.outsider_room import OutsiderRoom, pdus

#: More than anybody asks for one by one.
GAP = 250


def changes_of_name(outsider: Outsider, room: OutsiderRoom, user_id: str, prev: Event) -> list[Event]:
    """Member events one upon the other, more than anybody fetches to close a gap."""
    events: list[Event] = []
    for number in range(GAP):
        content = {"membership": "join", "displayname": f"name {number}"}
        event = outsider.event(room, "m.room.member", content, sender=user_id, state_key=user_id, prev=[prev])
        room.learn([event])
        room.state[event.key] = prev = event
        events.append(event)
    return events


def claims(
    outsider: Outsider, events: list[Event], wrong: list[Event], more_of_the_chain: list[Event]
) -> None:
    """Answer for the gap with ten events at a time, and with ``wrong`` as the state beside the member."""
    index = {event.event_id: number for number, event in enumerate(events)}

    def missing(asked: Asked) -> Answer:
        at = index[asked.json["latest_events"][0]]
        return 200, {"events": pdus(events[max(at - 10, 0) : at])}

    def claimed(asked: Asked) -> tuple[list[Event], list[Event]]:
        at = index[asked.query["event_id"][0]]
        return [events[at - 1], *wrong], [*events[: at - 1], *more_of_the_chain]

    def state_ids(asked: Asked) -> Answer:
        state, chain = claimed(asked)
        return 200, {
            "pdu_ids": [event.event_id for event in state],
            "auth_chain_ids": [event.event_id for event in chain],
        }

    def state(asked: Asked) -> Answer:
        held, chain = claimed(asked)
        return 200, {"pdus": pdus(held), "auth_chain": pdus(chain)}

    outsider.answers("POST", f"{V1}/get_missing_events/{{room}}", missing)
    outsider.answers("GET", f"{V1}/state_ids/{{room}}", state_ids)
    outsider.answers("GET", f"{V1}/state/{{room}}", state)
    outsider.answers("GET", f"{V1}/event_auth/{{room}}/{{event}}", lambda asked: (404, {}))


async def test_resolution_starts_from_nothing(outsider: Outsider, register: Register) -> None:
    """The rules of somebody who has left since stay, for they were made when they were in the room."""
    alice, bob = await register("alice"), await register("bob")
    outsider.answers_transactions()
    outsider.answers_events()
    charlie = outsider.user("charlie")
    room_id = await alice.create_room(preset="public_chat", room_version="12")
    await bob.join(room_id)
    room = await outsider.join(room_id, charlie)
    public, alice_join = room.event("m.room.join_rules"), room.event("m.room.member", alice.user_id)
    await outsider.hears(room, await alice.set_state(room_id, "m.room.join_rules", {"join_rule": "invite"}))
    await alice.leave(room_id)
    await outsider.until("alice to leave", lambda: room.membership(alice.user_id) == "leave")
    events = changes_of_name(outsider, room, charlie, room.tip)
    wrong = [
        *(room.event(type_) for type_ in ("m.room.create", "m.room.power_levels")),
        *(room.event("m.room.member", person.user_id) for person in (alice, bob)),
        public,
    ]
    claims(outsider, events, wrong, [alice_join])

    assert await outsider.send(events[-1]) == {events[-1].event_id: {}}

    await bob.hears(room_id, events[-1].event_id)
    assert await bob.state_content(room_id, "m.room.join_rules") == {"join_rule": "invite"}


async def test_resolution_looks_between_the_conflicting(outsider: Outsider, register: Register) -> None:
    """Power levels that led from the first to the third are not forgotten where the first is claimed."""
    creator, alice, bob = [await register(name) for name in ("creator", "alice", "bob")]
    outsider.answers_transactions()
    outsider.answers_events()
    charlie, eve = outsider.user("charlie"), outsider.user("eve")
    room_id = await creator.create_room(preset="public_chat", room_version="12")
    levels: dict[str, Any] = {"users": {alice.user_id: 100}}
    await creator.set_state(room_id, "m.room.power_levels", levels)
    await alice.join(room_id)
    await bob.join(room_id)
    room = await outsider.join(room_id, charlie)
    first = room.event("m.room.power_levels")
    levels["users"][bob.user_id] = 50
    await alice.set_state(room_id, "m.room.power_levels", levels)
    levels["users"][charlie] = 50
    third = await outsider.hears(room, await bob.set_state(room_id, "m.room.power_levels", levels))
    joined = outsider.event(
        room, "m.room.member", {"membership": "join"}, sender=eve, state_key=eve, prev=[third]
    )
    room.add(joined)
    assert await outsider.send(joined) == {joined.event_id: {}}
    events = changes_of_name(outsider, room, eve, joined)
    wrong = [
        room.event("m.room.create"),
        first,
        room.event("m.room.join_rules"),
        *(room.event("m.room.member", user_id) for user_id in (alice.user_id, bob.user_id, charlie)),
    ]
    claims(outsider, events, wrong, [joined])

    assert await outsider.send(events[-1]) == {events[-1].event_id: {}}

    await alice.hears(room_id, events[-1].event_id)
    users = (await alice.state_content(room_id, "m.room.power_levels"))["users"]
    assert users == {alice.user_id: 100, bob.user_id: 50, charlie: 50}
