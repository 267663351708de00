"""State resolution: drawn cases, agreement with the literal reading, independence of order."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.protocol import state_res
from homeserver.protocol.auth_rules import NotAllowed, check_against_state
from homeserver.protocol.events import Event
from tests.protocol.graphs import Graph, State
from tests.protocol.reference_state_res import Reference

CASES = sorted((Path(__file__).parent / "state_res_cases").glob("*.yaml"))
V2_VERSIONS = ["2", "6", "10", "11", "12"]

# --- drawn cases ------------------------------------------------------------------------------


def load_case(path: Path, version: str) -> tuple[Graph, list[State], set[str]]:
    """A case file: events in order, the states to be resolved, and what they resolve to."""
    case = yaml.safe_load(path.read_text())
    graph = Graph(version)
    for name, spec in case["events"].items():
        type, sender, state_key = spec["is"]
        content = spec.get("content", {})
        if type == "m.room.create" and not graph.rules.implicit_room_creator:
            content = {"creator": f"{sender}:here", **content}
        auth = [f"${cited}" for cited in spec.get("auth", ())]
        if not graph.rules.hash_room_ids and type != "m.room.create":
            auth.insert(0, "$create")
        more = {key: spec[key] for key in ("ts", "depth", "rejected") if key in spec}
        graph.add(name, type, sender, state_key, with_full_users(content), auth=auth, **more)
    states = [graph.state_of(*(f"${name}" for name in names)) for names in case["states"]]
    return graph, states, {f"${name}" for name in case["resolved"]}


def with_full_users(content: dict[str, Any]) -> dict[str, Any]:
    if "users" not in content:
        return content
    return content | {"users": {f"{user}:here": level for user, level in content["users"].items()}}


def cases() -> list[Any]:
    return [
        pytest.param(path, str(version), id=f"{path.stem}-v{version}")
        for path in CASES
        for version in yaml.safe_load(path.read_text())["versions"]
    ]


@pytest.mark.parametrize(("path", "version"), cases())
def test_case(path: Path, version: str) -> None:
    graph, states, expected = load_case(path, version)
    resolved = state_res.resolve(graph.rules, states, graph.events)
    assert set(resolved.values()) == expected
    assert resolved == graph.state_of(*expected)


@pytest.mark.parametrize(("path", "version"), cases())
def test_case_does_not_depend_on_the_order_of_its_input(path: Path, version: str) -> None:
    graph, states, expected = load_case(path, version)
    for seed in range(10):
        resolved = state_res.resolve(graph.rules, *shuffled(states, graph.events, random.Random(seed)))
        assert set(resolved.values()) == expected


def shuffled(
    states: list[State], events: Mapping[str, Event], rng: random.Random
) -> tuple[list[State], dict[str, Event]]:
    """The same states and events, told in another order."""

    def mixed(mapping: Mapping[Any, Any]) -> dict[Any, Any]:
        return dict(rng.sample(list(mapping.items()), len(mapping)))

    return [mixed(state) for state in rng.sample(states, len(states))], mixed(events)


# --- generated graphs -------------------------------------------------------------------------

USERS = ["@alice:here", "@bob:here", "@carol:there", "@dave:there"]
LEVELS = st.sampled_from([0, 25, 50, 75, 100])


class Branching:
    """A room whose history branches and merges, each branch with its state."""

    def __init__(self, version: str, draw: Any) -> None:
        self.graph = Graph(version)
        self.draw = draw
        self.made = 0
        self.tips: list[State] = [{}]
        state = self.tips[0]
        extra = {"additional_creators": ["@bob:here"]} if version == "12" and draw(st.booleans()) else {}
        create = self.graph.create("@alice:here", content=extra)
        state[create.key] = create.event_id
        self.graph.member(state, "alice-joins", "@alice:here", "@alice:here", "join")
        self.send(state, "m.room.join_rules", "@alice:here", "", {"join_rule": "public"})
        for user in USERS[1:]:
            self.send(state, "m.room.member", user, user, {"membership": "join"})

    def send(self, state: State, type: str, sender: str, state_key: str, content: dict[str, Any]) -> None:
        """Send an event on a branch; what its state refuses is not sent, or kept as rejected."""
        # Ids that do not sort as they were made, times that tie and go backwards.
        self.made += 1
        name = f"{self.draw(st.integers(0, 99)):02}-{self.made}-{type[7:]}"
        fields = (name, type, sender, state_key, content)
        ts = self.draw(st.integers(0, 12))
        event = self.graph.send(dict(state), *fields, ts=ts)
        try:
            check_against_state(self.graph.rules, event, self.graph.lookup(state))
        except NotAllowed:
            del self.graph.events[event.event_id]
            if self.draw(st.integers(0, 3)) == 0:
                self.graph.send(state, *fields, ts=ts, rejected=True)
            return
        state[event.key] = event.event_id

    def step(self) -> None:
        draw, state = self.draw, self.draw(st.sampled_from(self.tips))
        sender, target = draw(st.sampled_from(USERS)), draw(st.sampled_from(USERS))
        match draw(st.sampled_from(["fork", "fork", "merge", "power", "rule", "topic", *["member"] * 4])):
            case "fork":
                if len(self.tips) < 4:
                    self.tips.append(dict(state))
            case "merge":
                if len(self.tips) > 1:
                    other = self.tips.pop()
                    self.tips[0] = state_res.resolve(
                        self.graph.rules, [self.tips[0], other], self.graph.events
                    )
            case "power":
                self.send(state, "m.room.power_levels", sender, "", self.power_levels())
            case "rule":
                join_rule = draw(st.sampled_from(["public", "invite"]))
                self.send(state, "m.room.join_rules", sender, "", {"join_rule": join_rule})
            case "topic":
                self.send(state, "m.room.topic", sender, "", {"topic": "…"})
            case "member":
                membership = draw(st.sampled_from(["join", "invite", "leave", "ban"]))
                self.send(state, "m.room.member", sender, target, {"membership": membership})

    def power_levels(self) -> dict[str, Any]:
        listed = USERS[2:] if self.graph.rules.hash_room_ids else USERS
        users = {user: self.draw(LEVELS) for user in listed}
        return {"users": users, "state_default": self.draw(LEVELS), "ban": self.draw(LEVELS)}


@st.composite
def branchings(draw: Any, versions: list[str]) -> tuple[Graph, list[State]]:
    """A graph and the states to be resolved: of its tips, or of any events at all."""
    room = Branching(draw(st.sampled_from(versions)), draw)
    for _ in range(draw(st.integers(4, 25))):
        room.step()
    if draw(st.integers(0, 3)) == 0:
        arbitrary = st.lists(st.sampled_from(sorted(room.graph.events)), min_size=1)
        count = draw(st.integers(2, 3))
        return room.graph, [room.graph.state_of("$create", *draw(arbitrary)) for _ in range(count)]
    return room.graph, [*room.tips, dict(room.tips[0])]


@settings(max_examples=200, deadline=None)
@given(branchings(V2_VERSIONS))
def test_agrees_with_the_literal_reading(branching: tuple[Graph, list[State]]) -> None:
    graph, states = branching
    expected = Reference(graph.rules, states, graph.events).resolve()
    assert state_res.resolve(graph.rules, states, graph.events) == expected


@settings(max_examples=60, deadline=None)
@given(branchings(["1", "2", "11", "12"]), st.randoms(use_true_random=False))
def test_does_not_depend_on_the_order_of_its_input(
    branching: tuple[Graph, list[State]], rng: random.Random
) -> None:
    graph, states = branching
    expected = state_res.resolve(graph.rules, states, graph.events)
    assert state_res.resolve(graph.rules, *shuffled(states, graph.events, rng)) == expected


# --- cost -------------------------------------------------------------------------------------


class Counted(dict[str, Event]):
    """A map of events that remembers which were read."""

    def __init__(self, events: Mapping[str, Event]) -> None:
        super().__init__(events)
        self.read: set[str] = set()

    def __getitem__(self, event_id: str) -> Event:
        self.read.add(event_id)
        return super().__getitem__(event_id)

    def get(self, event_id: str, default: Any = None) -> Any:
        self.read.add(event_id)
        return super().get(event_id, default)


def big_room(version: str, members: int) -> tuple[Graph, State, State]:
    """Two branches of a room of so many members: ten joins and new power levels on each."""
    graph, state = Graph(version), State()
    create = graph.create()
    state[create.key] = create.event_id
    graph.member(state, "alice-joins", "@alice", "@alice", "join")
    users = {} if graph.rules.hash_room_ids else {"@alice:here": 100}
    graph.send(state, "power", "m.room.power_levels", "@alice", "", {"users": users})
    graph.send(state, "open", "m.room.join_rules", "@alice", "", {"join_rule": "public"})
    for number in range(members):
        graph.member(state, f"m{number}", f"@m{number}", f"@m{number}", "join")
    left, right = dict(state), dict(state)
    for side, branch in (("l", left), ("r", right)):
        for number in range(10):
            graph.member(branch, f"{side}{number}", f"@{side}{number}", f"@{side}{number}", "join")
        content = {"users": users | {f"@{side}0:here": 50}}
        graph.send(branch, f"power-{side}", "m.room.power_levels", "@alice", "", content)
    return graph, left, right


@pytest.mark.parametrize("version", V2_VERSIONS)
def test_cost_follows_the_conflict_and_not_the_room(version: str) -> None:
    read = []
    for members in (10, 1000):
        graph, left, right = big_room(version, members)
        unconflicted, conflicted = state_res.separate(graph.rules, [left, right])
        events = Counted(graph.events)
        resolved = state_res.resolve_conflicts(
            graph.rules,
            unconflicted=unconflicted.get,
            conflicted=conflicted,
            auth_difference=state_res.auth_difference([left, right], graph.events),
            subgraph=state_res.conflicted_subgraph(conflicted, graph.events),
            events=events,
        )
        assert unconflicted | resolved == Reference(graph.rules, [left, right], graph.events).resolve()
        assert not resolved.keys() & unconflicted.keys()
        read.append(len(events.read))
    assert read[0] == read[1] < 40
