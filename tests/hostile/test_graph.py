"""Events whose place in the graph is a lie: parents and auth events missing, circular or invented."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hostile.conftest import Set
from tests.hostile.harm import STORED, Scene, refused
from tests.hostile.peer import Asked, Pdu, Reply

NOTHING = Reply({"errcode": "M_NOT_FOUND", "error": "I have no idea"}, 404)
NOT_ALLOWED = "The room does not allow the event"
UNKNOWN = "$" + "u" * 43


def says_nothing(scene: Scene) -> None:
    """The hostile server answers no question about its events."""
    for endpoint in ("event/", "event_auth", "state/", "state_ids", "get_missing_events", "backfill"):
        scene.evil.lies_about(f"v1/{endpoint}", NOTHING)


def referring(scene: Scene, *names: str, version: str = "11") -> list[Any]:
    """Event ids as ``prev_events`` and ``auth_events`` hold them."""
    return [[name, {}] for name in names] if version in ("1", "2") else list(names)


async def auth_chain(scene: Scene) -> list[Pdu]:
    """Every auth event of mallory's messages, and theirs."""
    return [event.pdu for event in (await scene.evil.state_at_tips(scene.room_id)).values()]


# Auth events.


@pytest.mark.parametrize("count", [1, 10])
async def test_auth_events_that_never_come(scene: Scene, count: int) -> None:
    unknown = [f"${n:a>43}" for n in range(count)]
    pdu = await scene.evil.message(scene.room_id, scene.mallory, auth_events=unknown)
    says_nothing(scene)
    async with refused(scene, requests=1 + count, reason=f"{count} of its auth events cannot be had"):
        assert not await scene.evil.sends_one(scene.here, pdu)


async def test_auth_events_that_are_answered_with_other_events(scene: Scene) -> None:
    own = await scene.evil.public_room(scene.mallory, version="11")
    junk = [event.pdu for event in (await scene.evil.state_at_tips(own)).values()]
    pdu = await scene.evil.message(scene.room_id, scene.mallory, auth_events=[UNKNOWN])
    scene.evil.lies_about("v1/event_auth", {"auth_chain": [*junk, {}, {"type": 3}]})
    async with refused(scene, requests=1, reason="cannot be had"):
        assert not await scene.evil.sends_one(scene.here, pdu)


async def test_auth_events_that_were_rejected(scene: Scene) -> None:
    content = {"users": {scene.mallory: 100}}
    levels = await scene.evil.event(
        scene.room_id, scene.mallory, "m.room.power_levels", content, state_key=""
    )
    levels_id = await scene.evil.id_of(scene.room_id, levels)
    assert await scene.evil.sends_one(scene.here, levels) == NOT_ALLOWED
    name = await scene.evil.event(scene.room_id, scene.mallory, "m.room.name", {"name": "x"}, state_key="")
    old = (await scene.evil.state_at_tips(scene.room_id))["m.room.power_levels", ""].event_id
    auth = [levels_id if each == old else each for each in name["auth_events"]]
    name = scene.evil.signed({**name, "auth_events": auth}, await scene.evil.rules(scene.room_id))
    async with refused(scene, rows=STORED):
        assert await scene.evil.sends_one(scene.here, name) == NOT_ALLOWED


async def test_auth_events_that_do_not_fit(scene: Scene) -> None:
    """Twice the same, two for one key, one that has no business there, none at all."""
    good = await scene.evil.message(scene.room_id, scene.mallory)
    state = await scene.evil.state_at_tips(scene.room_id)
    welcome = (await scene.evil.room(scene.room_id)).recent[-1].id
    for auth in (
        [*good["auth_events"], good["auth_events"][0]],
        [*good["auth_events"], state["m.room.join_rules", ""].event_id],
        [*good["auth_events"], state["m.room.member", scene.alice].event_id],
        [*good["auth_events"], welcome],
        good["auth_events"][1:],
        [],
    ):
        pdu = await scene.evil.message(scene.room_id, scene.mallory, auth_events=auth)
        async with refused(scene, rows=STORED):
            assert await scene.evil.sends_one(scene.here, pdu) == NOT_ALLOWED


async def test_auth_events_in_a_circle(set_scene: Set) -> None:
    """Until v2 the sender chooses ids, so that events can name each other."""
    scene = await set_scene("2")
    names = ["$first:evil.example", "$second:evil.example"]
    pdus = {}
    for name, other in (names, names[::-1]):
        pdu = await scene.evil.event(
            scene.room_id,
            scene.mallory,
            "m.room.member",
            {"membership": "join"},
            state_key=scene.mallory,
            event_id=name,
            auth_events=referring(scene, other, version="2"),
        )
        pdus[name] = pdu
    scene.evil.lies_about("v1/event_auth", {"auth_chain": list(pdus.values())})
    async with refused(scene, requests=1):
        error = await scene.evil.sends_one(scene.here, pdus[names[0]])
        assert error == "events authorise each other in a circle"


async def test_an_event_that_authorises_itself(set_scene: Set) -> None:
    scene = await set_scene("1")
    name = "$self:evil.example"
    pdu = await scene.evil.message(
        scene.room_id, scene.mallory, event_id=name, auth_events=referring(scene, name, version="1")
    )
    scene.evil.lies_about("v1/event_auth", {"auth_chain": [pdu]})
    async with refused(scene, requests=2):
        assert await scene.evil.sends_one(scene.here, pdu)


async def test_an_auth_chain_of_hundreds_is_walked_without_recursion(set_scene: Set) -> None:
    """A chain of renamings, each authorised by the one before, and a message on its end."""
    scene = await set_scene("2")
    state = await scene.evil.state_at_tips(scene.room_id)
    fixed = [
        state["m.room.create", ""].event_id,
        state["m.room.power_levels", ""].event_id,
        state["m.room.join_rules", ""].event_id,
    ]
    template = await scene.evil.template(
        scene.room_id, scene.mallory, "m.room.member", {"membership": "join"}, state_key=scene.mallory
    )
    rules, before = await scene.evil.rules(scene.room_id), state["m.room.member", scene.mallory].event_id
    chain = []
    for n in range(300):
        auth = referring(scene, *fixed, before, version="2")
        chain.append(
            scene.evil.signed({**template, "auth_events": auth, "event_id": f"$c{n}:evil.example"}, rules)
        )
        before = f"$c{n}:evil.example"
    auth = referring(scene, *fixed[:2], before, version="2")
    message = await scene.evil.message(scene.room_id, scene.mallory, auth_events=auth)
    scene.evil.lies_about("v1/event_auth", {"auth_chain": chain[::-1]})

    assert await scene.evil.sends_one(scene.here, message) == ""

    assert scene.here.network.asked_for("event_auth") == 1
    await scene.works()


async def test_of_an_auth_chain_only_what_the_event_stands_on_is_kept(scene: Scene) -> None:
    """Else every event could bring as many rows with it as an answer has room for."""
    junk = [await scene.evil.message(scene.room_id, scene.mallory, f"junk {n}") for n in range(100)]
    pdu = await scene.evil.message(scene.room_id, scene.mallory, auth_events=[UNKNOWN])
    says_nothing(scene)
    scene.evil.lies_about("v1/event_auth", {"auth_chain": junk})
    async with refused(scene, requests=1, rows=10, reason="cannot be had"):
        assert not await scene.evil.sends_one(scene.here, pdu)


# Parents.


async def test_parents_that_never_come(scene: Scene) -> None:
    pdu = await scene.evil.message(scene.room_id, scene.mallory, prev_events=[UNKNOWN] * 20)
    says_nothing(scene)
    async with refused(scene, requests=3, reason="cannot be had"):
        assert not await scene.evil.sends_one(scene.here, pdu)


async def test_parents_in_a_circle(set_scene: Set) -> None:
    scene = await set_scene("1")
    names = ["$first:evil.example", "$second:evil.example"]
    pdus = [
        await scene.evil.message(
            scene.room_id, scene.mallory, event_id=name, prev_events=referring(scene, other, version="1")
        )
        for name, other in (names, names[::-1], [names[0]] * 2)
    ]
    says_nothing(scene)
    scene.evil.lies_about("v1/get_missing_events", {"events": pdus})
    for pdu in pdus:
        async with refused(scene, requests=10, lines=8, reason="cannot be had"):
            assert not await scene.evil.sends_one(scene.here, pdu)


class Invented:
    """A history without beginning: whatever is asked for, there was something before it."""

    def __init__(self, scene: Scene, template: Pdu, rules: Any, page: int) -> None:
        self.scene, self.template, self.rules, self.page = scene, template, rules, page
        self.made = 0

    def event(self, **changed: Any) -> Pdu:
        self.made += 1
        parent = f"${self.made:0>43}"
        pdu = {**self.template, "prev_events": [parent], "depth": 1 + self.made % 50, **changed}
        return self.scene.evil.signed(pdu, self.rules)

    def missing(self, asked: Asked) -> Any:
        return {"events": [self.event() for _ in range(self.page)]}


async def invented(scene: Scene, page: int = 50) -> Invented:
    template = await scene.evil.template(scene.room_id, scene.mallory, "m.room.message", {"body": "lie"})
    return Invented(scene, template, await scene.evil.rules(scene.room_id), page)


async def test_a_history_without_beginning_is_not_followed(scene: Scene) -> None:
    """Each answer names 50 more unknown parents."""
    lies = await invented(scene)
    says_nothing(scene)
    scene.evil.lies_about("v1/get_missing_events", lies.missing)
    async with refused(scene, requests=120, lines=250, reason="cannot be had"):
        assert not await scene.evil.sends_one(scene.here, lies.event())
    assert lies.made <= 151


async def test_an_answer_of_ten_thousand_events_is_cut(scene: Scene) -> None:
    lies = await invented(scene)
    few = [lies.event() for _ in range(100)]
    says_nothing(scene)
    scene.evil.lies_about("v1/get_missing_events", {"events": [*few, *[{"depth": n} for n in range(9_900)]]})
    async with refused(scene, requests=120, lines=250, reason="cannot be had"):
        assert not await scene.evil.sends_one(scene.here, lies.event())


async def test_missing_events_of_another_room_are_left_out(scene: Scene) -> None:
    own = await scene.evil.public_room(scene.mallory, version="11")
    others = [event.pdu for event in (await scene.evil.state_at_tips(own)).values()]
    pdu = await scene.evil.message(scene.room_id, scene.mallory, prev_events=[UNKNOWN])
    says_nothing(scene)
    scene.evil.lies_about("v1/get_missing_events", {"events": others})
    async with refused(scene, requests=3, reason="cannot be had"):
        assert not await scene.evil.sends_one(scene.here, pdu)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"events": {}},
        {"events": [None]},
        {"events": [1]},
        {"events": [{"depth": "x"}, {"depth": 10**30}]},
        [],
        Reply(b"\xff"),
        Reply(b"[" * 100_000),
        Reply({"errcode": 5, "error": {}}, 500),
    ],
    ids=range(9),
)
async def test_missing_events_that_are_nonsense(scene: Scene, answer: Any) -> None:
    pdu = await scene.evil.message(scene.room_id, scene.mallory, prev_events=[UNKNOWN])
    says_nothing(scene)
    scene.evil.lies_about("v1/get_missing_events", answer)
    scene.evil.lies_about("v1/state_ids", answer)
    async with refused(scene, requests=3, reason="cannot be had"):
        assert not await scene.evil.sends_one(scene.here, pdu)
