"""Servers that lie about the state of a room, or about its history."""

from __future__ import annotations

import pytest

from homeserver.protocol.event_format import parse_event
from homeserver.protocol.events import Event
from tests.hostile.conftest import VERSIONS, Set
from tests.hostile.harm import STORED, Scene, counted_queries, refused
from tests.hostile.peer import Pdu, Reply
from tests.hostile.test_graph import UNKNOWN, says_nothing

UNKNOWN_V1 = "$unknown:evil.example"


async def hole(scene: Scene) -> Pdu:
    """A message on a parent that nobody will ever see, so that its sender is asked for the state."""
    rules = await scene.evil.rules(scene.room_id)
    parents = [UNKNOWN] if rules.event_id_is_hash else [[UNKNOWN_V1, {}]]
    pdu = await scene.evil.message(scene.room_id, scene.mallory, "from a hole", prev_events=parents)
    says_nothing(scene)
    return pdu


def claims(scene: Scene, state: list[Event], auth: list[Event] | None = None) -> None:
    """The hostile server says that this is the state before its event."""
    chain = state if auth is None else auth
    ids = {"pdu_ids": [each.event_id for each in state], "auth_chain_ids": [each.event_id for each in chain]}
    pdus = {"pdus": [each.pdu for each in state], "auth_chain": [each.pdu for each in chain]}
    scene.evil.lies_about("v1/state_ids", ids)
    scene.evil.lies_about("v1/state/", pdus)
    by_id = {each.event_id: each.pdu for each in [*state, *chain]}
    scene.evil.lies_about(
        "v1/event/",
        lambda asked: (
            {"pdus": [by_id[asked.path.rpartition("/")[2]]]}
            if asked.path.rpartition("/")[2] in by_id
            else Reply({"errcode": "M_NOT_FOUND", "error": ""}, 404)
        ),
    )


async def current(scene: Scene) -> dict[tuple[str, str], Event]:
    return await scene.evil.state_at_tips(scene.room_id)


async def test_a_state_of_too_many_ids(scene: Scene) -> None:
    pdu = await hole(scene)
    ids = [f"${n:0>43}" for n in range(201_000)]
    scene.evil.lies_about("v1/state_ids", {"pdu_ids": ids, "auth_chain_ids": []})
    async with refused(scene, requests=3, reason="too much state"):
        assert not await scene.evil.sends_one(scene.here, pdu)


async def test_a_state_of_ids_that_do_not_exist(scene: Scene) -> None:
    for count in (5, 20_000):
        pdu = await hole(scene)
        ids = [f"${n:0>43}" for n in range(count)]
        scene.evil.lies_about("v1/state_ids", {"pdu_ids": ids, "auth_chain_ids": []})
        async with refused(scene, requests=3 + min(count, 1000), reason="cannot be had"):
            assert not await scene.evil.sends_one(scene.here, pdu)


@pytest.mark.parametrize(
    "ids", [["\x00"], ["x" * 100_000], [""], ["../../x"], ["$a\r\nb"], ["$\u00e9" * 300]]
)
async def test_a_state_of_what_are_no_ids(scene: Scene, ids: list[str]) -> None:
    pdu = await hole(scene)
    scene.evil.lies_about("v1/state_ids", {"pdu_ids": ids, "auth_chain_ids": ids})
    async with refused(scene, requests=5, reason="cannot be had"):
        assert not await scene.evil.sends_one(scene.here, pdu)


async def test_the_state_of_another_room(scene: Scene) -> None:
    own = await scene.evil.public_room(scene.mallory, version="11")
    state = list((await scene.evil.state_at_tips(own)).values())
    pdu = await hole(scene)
    claims(scene, state)
    async with refused(scene, requests=20, reason="cannot be had"):
        assert not await scene.evil.sends_one(scene.here, pdu)


@pytest.mark.parametrize("version", ["2", "11"])
async def test_a_state_with_two_create_events(set_scene: Set, version: str) -> None:
    scene = await set_scene(version)
    state = await current(scene)
    create = await scene.evil.event(
        scene.room_id,
        scene.mallory,
        "m.room.create",
        {"creator": scene.mallory},
        state_key="",
        prev_events=[],
        auth_events=[],
    )
    second = parse_event(create, await scene.evil.rules(scene.room_id))
    pdu = await hole(scene)
    claims(scene, [*state.values(), second])
    # The second create event is of no server that could have made the room.
    before = await scene.here.state_ids(scene.room_id)
    await scene.evil.sends_one(scene.here, pdu)
    assert await scene.here.state_ids(scene.room_id) == before
    scene.evil.tells_the_truth()
    await scene.works()


async def test_a_state_without_a_create_event(scene: Scene) -> None:
    state = await current(scene)
    pdu = await hole(scene)
    claims(scene, [event for event in state.values() if event.type != "m.room.create"])
    async with refused(scene, requests=3, reason="no create event"):
        assert not await scene.evil.sends_one(scene.here, pdu)


async def test_a_state_with_two_events_for_one_key(scene: Scene) -> None:
    old = (await current(scene))["m.room.power_levels", ""]
    content = {**old.content, "invite": 60}
    await scene.here.set_state(scene.room_id, scene.alice, "m.room.power_levels", content)
    await scene.here.network.settle()
    state = await current(scene)
    pdu = await hole(scene)
    claims(scene, [*state.values(), old])
    async with refused(scene, requests=3, reason="no state"):
        assert not await scene.evil.sends_one(scene.here, pdu)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_state_from_before_does_not_take_the_admins_power(set_scene: Set, version: str) -> None:
    """mallory was made an admin and unmade; her server says that her last power is the room's state."""
    scene = await set_scene(version)
    before = (await current(scene))["m.room.power_levels", ""].content
    powerful = {**before, "users": {**before.get("users", {}), scene.mallory: 50}}
    await scene.here.set_state(scene.room_id, scene.alice, "m.room.power_levels", powerful)
    await scene.here.network.settle()
    old = dict(await current(scene))
    await scene.here.set_state(scene.room_id, scene.alice, "m.room.power_levels", before)
    await scene.here.set_state(scene.room_id, scene.alice, "m.room.topic", {"topic": "true"})
    await scene.here.network.settle()
    state_before = await scene.here.state_ids(scene.room_id)

    pdu = await hole(scene)
    claims(scene, list(old.values()))
    assert await scene.evil.sends_one(scene.here, pdu) == ""

    now = await scene.here.state_ids(scene.room_id)
    assert now == state_before
    assert (await scene.here.room(scene.room_id)).power_levels.of_user(scene.mallory) == 0
    scene.evil.tells_the_truth()
    await scene.works()


async def test_a_state_that_leaves_out_a_ban_does_not_lift_it(scene: Scene) -> None:
    eve = scene.evil.user("eve")
    await scene.evil.join(eve, scene.room_id, scene.here)
    await scene.here.network.settle()
    old = dict(await current(scene))
    ban = {"membership": "ban"}
    await scene.here.set_state(scene.room_id, scene.alice, "m.room.member", ban, state_key=eve)
    await scene.here.network.settle()
    says_nothing(scene)
    pdu = await scene.evil.message(
        scene.room_id,
        eve,
        "still here",
        prev_events=[UNKNOWN],
        auth_events=[
            old[key].event_id
            for key in (("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", eve))
        ],
    )
    claims(scene, list(old.values()))
    async with refused(scene, requests=3, rows=STORED):
        # Soft-failed: the state claimed allows it, the room's own does not.
        assert await scene.evil.sends_one(scene.here, pdu) == ""


async def test_a_state_with_a_forged_membership(scene: Scene) -> None:
    """alice has left, says an event that her server never signed."""
    state = await current(scene)
    leave = await scene.evil.event(
        scene.room_id, scene.alice, "m.room.member", {"membership": "leave"}, state_key=scene.alice
    )
    forged = parse_event(leave, await scene.evil.rules(scene.room_id))
    others = [event for event in state.values() if event.state_key != scene.alice]
    pdu = await hole(scene)
    claims(scene, [*others, forged], list(state.values()))
    before = await scene.here.state_ids(scene.room_id)
    await scene.evil.sends_one(scene.here, pdu)
    assert await scene.here.state_ids(scene.room_id) == before
    scene.evil.tells_the_truth()
    await scene.works()


async def test_forks_cost_no_more_reading_the_more_there_are(set_scene: Set) -> None:
    """Every event builds on the same one, each with a state of its own, and all are resolved each time."""
    scene = await set_scene(power_level_content_override={"state_default": 0})
    pdus = [
        await scene.evil.event(scene.room_id, scene.mallory, "org.example", {"n": n}, state_key=str(n))
        for n in range(60)
    ]
    reads = []
    for pdu in (pdus[:50], pdus[50:]):
        with counted_queries() as made:
            results = await scene.evil.sends(scene.here, *pdu)
        assert all(not result for result in results.values())
        reads.append(len(made) / len(pdu))
    assert reads[-1] < 60
    await scene.works()
