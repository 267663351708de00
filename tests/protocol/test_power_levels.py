"""Power levels: how they are read, and what the lack of them means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.power_levels import (
    CREATOR_LEVEL,
    PowerLevels,
    creators_of,
    level_of,
    power_levels_from,
)
from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.protocol.graphs import Graph, State
from tests.protocol.json_values import json_values

ALICE, BOB = "@alice:here", "@bob:here"
NOBODY = frozenset[str]()


def parse(content: dict[str, Any] | None, version: str, *creators: str) -> PowerLevels:
    return PowerLevels.parse(content, ROOM_VERSIONS[version], frozenset(creators))


def test_without_power_levels_the_creator_has_100_until_v11() -> None:
    levels = parse(None, "11", ALICE)
    assert levels.of_user(ALICE) == 100
    assert levels.of_user(BOB) == 0


def test_with_power_levels_being_the_creator_means_nothing_until_v11() -> None:
    assert parse({"users_default": 5}, "11", ALICE).of_user(ALICE) == 5


@pytest.mark.parametrize("content", [None, {}, {"users": {ALICE: 3}}])
def test_creators_have_power_without_end_since_v12(content: dict[str, Any] | None) -> None:
    levels = parse(content, "12", ALICE)
    assert levels.of_user(ALICE) == CREATOR_LEVEL
    assert levels.of_user(BOB) == 0
    assert CREATOR_LEVEL > 2**53


def test_defaults() -> None:
    for levels in (parse(None, "11"), parse({}, "11")):
        assert (levels.ban, levels.kick, levels.redact, levels.invite) == (50, 50, 50, 0)
        assert levels.for_event("m.room.message", is_state=False) == 0
        assert levels.for_event("m.room.topic", is_state=True) == 50
        assert levels.notifications("room") == 50


def test_what_is_given_is_used() -> None:
    levels = parse(
        {
            "users": {ALICE: 100},
            "users_default": 10,
            "events": {"m.room.topic": 20},
            "events_default": 1,
            "state_default": 2,
            "notifications": {"room": 3},
            "ban": 4,
            "kick": 5,
            "redact": 6,
            "invite": 7,
        },
        "11",
    )
    assert (levels.of_user(ALICE), levels.of_user(BOB)) == (100, 10)
    assert levels.for_event("m.room.topic", is_state=True) == 20
    assert levels.for_event("m.room.name", is_state=True) == 2
    assert levels.for_event("m.room.message", is_state=False) == 1
    assert levels.notifications("room") == 3
    assert (levels.ban, levels.kick, levels.redact, levels.invite) == (4, 5, 6, 7)


@pytest.mark.parametrize("text", ["100", "000100", "+100", " 100 ", " 00100 ", " +100 ", "\t100\n"])
def test_strings_are_levels_until_v9(text: str) -> None:
    assert level_of(text, ROOM_VERSIONS["9"]) == 100
    assert level_of(text, ROOM_VERSIONS["10"]) is None


@pytest.mark.parametrize(
    "text", ["", " ", "1.0", "1e3", "--1", "+ 1", "1_0", "٣", "0x10", "9" * 400, "9" * 5000]
)
def test_other_strings_are_no_levels(text: str) -> None:
    assert level_of(text, ROOM_VERSIONS["1"]) is None


@pytest.mark.parametrize(("value", "level"), [(50.57, 50), (-50.57, -50), (5.114698e4, 51146), (0.0, 0)])
def test_floats_are_truncated_until_v5(value: float, level: int) -> None:
    assert level_of(value, ROOM_VERSIONS["5"]) == level
    assert level_of(value, ROOM_VERSIONS["6"]) is None


@pytest.mark.parametrize("version", ROOM_VERSIONS)
@pytest.mark.parametrize("value", [None, True, False, [], {}, [1], float("inf"), float("nan"), 10**400])
def test_what_is_never_a_level(version: str, value: Any) -> None:
    assert level_of(value, ROOM_VERSIONS[version]) is None


@given(
    st.dictionaries(
        st.sampled_from(["users", "events", "notifications", "ban", "users_default"]), json_values
    )
)
def test_reading_never_fails(content: dict[str, Any]) -> None:
    for version in ROOM_VERSIONS:
        levels = parse(content, version, ALICE)
        assert isinstance(levels.of_user(BOB), int)
        assert isinstance(levels.for_event("m.room.topic", is_state=True), int)


def test_creators_by_version() -> None:
    assert creators_of(Graph("10").create(content={"creator": BOB}), ROOM_VERSIONS["10"]) == {BOB}
    assert creators_of(Graph("10").create(content={"creator": 7}), ROOM_VERSIONS["10"]) == NOBODY
    assert creators_of(Graph("11").create(content={"creator": BOB}), ROOM_VERSIONS["11"]) == {ALICE}
    assert creators_of(Graph("12").create(content={"additional_creators": [BOB]}), ROOM_VERSIONS["12"]) == {
        ALICE,
        BOB,
    }


def test_levels_of_a_state() -> None:
    graph, state = Graph("11"), State()
    create = graph.create()
    state[create.key] = create.event_id
    assert power_levels_from(graph.lookup(state), graph.rules).of_user(ALICE) == 100
    graph.send(state, "power", "m.room.power_levels", ALICE, "", {"users": {BOB: 7}})
    assert power_levels_from(graph.lookup(state), graph.rules).of_user(BOB) == 7
    assert power_levels_from(graph.lookup(state), graph.rules).of_user(ALICE) == 0


def test_an_event_with_the_same_id_and_other_levels_is_not_mistaken_for_it() -> None:
    for level in (1, 2):
        graph, state = Graph("1"), State()
        create = graph.create()
        state[create.key] = create.event_id
        graph.send(state, "power", "m.room.power_levels", ALICE, "", {"users": {BOB: level}})
        assert power_levels_from(graph.lookup(state), graph.rules).of_user(BOB) == level
