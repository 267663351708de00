"""Which rule an event meets first, and what it then says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.default_push_rules import default_ruleset, ruleset_of
from homeserver.protocol.push_rules import (
    KINDS,
    POSTCONTENT,
    SILENT,
    Notice,
    PushEvent,
    evaluate,
    notice_of,
)

_SPECIFICATION = Path(__file__).parents[3] / "shared/spec/content/client-server-api/modules/push.md"

ALICE = "@alice:example.org"
BOB = "@bob:example.org"
ROOM = "!room:example.org"
SOUND = {"set_tweak": "sound", "value": "default"}
HIGHLIGHT = {"set_tweak": "highlight"}


def message(
    content: dict[str, Any] | None = None, *, members: int = 3, level: int = 0, **fields: Any
) -> PushEvent:
    """A message of Bob's in a room of ``members``, where ``@room`` needs 50."""
    event: dict[str, Any] = {
        "type": "m.room.message",
        "sender": BOB,
        "room_id": ROOM,
        "content": {"msgtype": "m.text", "body": "hello"} if content is None else content,
        **fields,
    }
    return PushEvent(event, member_count=members, sender_level=level, notification_level=lambda key: 50)


def state(event_type: str, content: dict[str, Any], state_key: str = "") -> PushEvent:
    return message(content, type=event_type, state_key=state_key)


def alices(event: PushEvent, ruleset: dict[str, Any] | None = None) -> Notice:
    return evaluate(ruleset or default_ruleset(ALICE), event, user_id=ALICE, display_name="Alice B.")


def override(*conditions: Any, actions: tuple[Any, ...] = ("notify",)) -> dict[str, Any]:
    rule = {
        "rule_id": "mine",
        "default": False,
        "enabled": True,
        "conditions": list(conditions),
        "actions": list(actions),
    }
    return {"override": [rule]}


def holds(condition: Any, event: PushEvent) -> bool:
    return alices(event, override(condition)).notify


@pytest.mark.parametrize(
    ("event", "actions"),
    [
        (message(), ("notify",)),
        (message(members=2), ("notify", SOUND)),
        (message({"msgtype": "m.notice", "body": "hello"}), ()),
        (message({"body": "hi", "m.mentions": {"user_ids": [ALICE]}}), ("notify", SOUND, HIGHLIGHT)),
        (message({"body": "hi", "m.mentions": {"user_ids": [BOB]}}), ("notify",)),
        (message({"body": "hi", "m.mentions": {"room": True}}, level=50), ("notify", HIGHLIGHT)),
        (message({"body": "hi", "m.mentions": {"room": True}}, level=49), ("notify",)),
        (message({"body": "hi", "m.mentions": {"room": 1}}, level=50), ("notify",)),
        (message({"body": "Alice B. and @room"}, level=50), ("notify",)),
        (message({"body": "* hi", "m.relates_to": {"rel_type": "m.replace"}}), ()),
        (message({}, type="m.room.encrypted"), ("notify",)),
        (message({}, type="m.room.encrypted", members=2), ("notify", SOUND)),
        (message({}, type="m.reaction"), ()),
        (message({}, type="m.call.invite"), ("notify", {"set_tweak": "sound", "value": "ring"})),
        (message({}, type="org.example.other"), ()),
        (state("m.room.member", {"membership": "invite"}, ALICE), ("notify", SOUND)),
        (state("m.room.member", {"membership": "invite"}, BOB), ()),
        (state("m.room.member", {"membership": "join"}, ALICE), ()),
        (state("m.room.tombstone", {}), ("notify", HIGHLIGHT)),
        (state("m.room.tombstone", {}, "elsewhere"), ()),
        (message({}, type="m.room.tombstone"), ()),
        (state("m.room.server_acl", {}), ()),
    ],
)
def test_predefined_rules(event: PushEvent, actions: tuple[Any, ...]) -> None:
    assert alices(event).actions == actions


def test_predefined_rules_in_the_order_of_the_spec() -> None:
    ruleset = default_ruleset(ALICE)
    assert tuple(ruleset) == tuple(kind for kind in KINDS if kind != POSTCONTENT)
    assert [rule["rule_id"].removeprefix(".m.rule.") for rule in ruleset["override"]] == [
        "master",
        "suppress_notices",
        "invite_for_me",
        "member_event",
        "is_user_mention",
        "is_room_mention",
        "tombstone",
        "reaction",
        "room.server_acl",
        "suppress_edits",
    ]
    assert [rule["rule_id"].removeprefix(".m.rule.") for rule in ruleset["underride"]] == [
        "call",
        "encrypted_room_one_to_one",
        "room_one_to_one",
        "message",
        "encrypted",
    ]


def test_predefined_rules_are_those_of_the_specification() -> None:
    if not _SPECIFICATION.exists():
        pytest.skip(f"the specification is not at {_SPECIFICATION}")
    _, override, underride = re.split(r"##### Default \w+ Rules", _SPECIFICATION.read_text())
    for kind, text in (("override", override), ("underride", underride)):
        texts = re.findall(r"Definition:\s+```json\n(.*?)```", text.partition("\n#### ")[0], re.DOTALL)
        specified = [json.loads(text.replace("[the user's Matrix ID]", ALICE)) for text in texts]
        assert default_ruleset(ALICE)[kind] == specified


def test_nobody_is_notified_of_what_they_sent() -> None:
    event = message({"body": "hi", "m.mentions": {"user_ids": [BOB]}})
    assert evaluate(default_ruleset(BOB), event, user_id=BOB, display_name=None) == SILENT


def test_own_rules_come_before_predefined_ones_but_after_master() -> None:
    mine = override(actions=("notify", HIGHLIGHT))
    ruleset = ruleset_of(ALICE, mine, {})
    assert [rule["rule_id"] for rule in ruleset["override"][:3]] == [
        ".m.rule.master",
        "mine",
        ".m.rule.suppress_notices",
    ]
    assert alices(message(), ruleset).highlight
    quiet = ruleset_of(ALICE, mine, {("override", ".m.rule.master"): {"enabled": True}})
    assert alices(message(), quiet) == SILENT


def test_predefined_rules_take_the_actions_a_user_gave_them() -> None:
    ruleset = ruleset_of(ALICE, {}, {("underride", ".m.rule.message"): {"actions": []}})
    assert not alices(message(), ruleset).notify
    assert default_ruleset(ALICE)["underride"][3]["actions"] == ["notify"]


def test_kinds_are_tried_in_order() -> None:
    ruleset = ruleset_of(
        ALICE,
        {
            "content": [{"rule_id": "tea", "enabled": True, "pattern": "tea", "actions": ["notify", SOUND]}],
            "room": [{"rule_id": ROOM, "enabled": True, "actions": ["notify", HIGHLIGHT]}],
            "sender": [{"rule_id": BOB, "enabled": True, "actions": []}],
        },
        {},
    )
    assert alices(message({"body": "Time for TEA!"}), ruleset).actions == ("notify", SOUND)
    assert alices(message({"body": "instead"}), ruleset).actions == ("notify", HIGHLIGHT)
    assert alices(message({"body": "hi"}, room_id="!other:example.org"), ruleset).actions == ()
    carols = message({"body": "hi"}, room_id="!other:example.org", sender="@carol:example.org")
    assert alices(carols, ruleset).actions == ("notify",)


def test_a_disabled_rule_never_matches() -> None:
    ruleset = override()
    ruleset["override"][0]["enabled"] = False
    assert alices(message(), ruleset) == SILENT


def test_legacy_mention_rules_are_passed_over_when_the_event_names_its_mentions() -> None:
    legacy = {
        "override": [
            {
                "rule_id": ".m.rule.contains_display_name",
                "enabled": True,
                "conditions": [{"kind": "contains_display_name"}],
                "actions": ["notify", HIGHLIGHT],
            }
        ]
    }
    assert alices(message({"body": "hi alice b."}), legacy).highlight
    assert not alices(message({"body": "hi alice b.", "m.mentions": {}}), legacy).notify


@pytest.mark.parametrize(
    ("key", "pattern", "content", "expected"),
    [
        ("content.topic", "lunc?*", {"topic": "Lunch plans"}, True),
        ("content.topic", "lunc?*", {"topic": "LUNCH"}, True),
        ("content.topic", "lunc?*", {"topic": " lunch"}, False),
        ("content.topic", "lunc?*", {"topic": "lunc"}, False),
        ("content.topic", "*", {"topic": None}, False),
        ("content.topic", "*", {}, False),
        ("content.topic", "*", {"topic": ""}, True),
        ("content.body", "ex*ple", {"body": "An example event."}, True),
        ("content.body", "ex*ple", {"body": "exple"}, True),
        ("content.body", "ex*ple", {"body": "An exciting triple-whammy"}, True),
        ("content.body", "ex*ple", {"body": "An hexample event."}, False),
        ("content.body", "cake", {"body": "pancakes"}, False),
        ("content.body", "cake", {"body": "a_cake"}, False),
        ("content.body", "@room", {"body": "hey @room!"}, True),
        (r"content.m\.relates_to.rel_type", "m.thread", {"m.relates_to": {"rel_type": "m.thread"}}, True),
        ("content.m.relates_to.rel_type", "m.thread", {"m.relates_to": {"rel_type": "m.thread"}}, False),
        ("content.body.deeper", "*", {"body": "text"}, False),
    ],
)
def test_event_match(key: str, pattern: str, content: dict[str, Any], expected: bool) -> None:
    assert holds({"kind": "event_match", "key": key, "pattern": pattern}, message(content)) is expected


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (True, True, True),
        ("true", True, False),
        (1, True, False),
        (True, 1, False),
        (1, 1, True),
        (None, None, True),
        ("a", "A", False),
        ([], [], False),
        ({}, {}, False),
        (2**53, 2**53, False),
        (1.0, 1.0, False),
    ],
)
def test_event_property_is_and_contains(value: Any, wanted: Any, expected: bool) -> None:
    event = message({"one": value, "many": [{}, value, "other"]})
    assert holds({"kind": "event_property_is", "key": "content.one", "value": wanted}, event) is expected
    contains = {"kind": "event_property_contains", "key": "content.many", "value": wanted}
    assert holds(contains, event) is expected


def test_an_absent_property_is_not_null() -> None:
    condition = {"kind": "event_property_is", "key": "content.gone", "value": None}
    assert not holds(condition, message({}))
    assert holds(condition, message({"gone": None}))


@pytest.mark.parametrize(
    ("condition", "counts"),
    [
        ("2", {2}),
        ("==2", {2}),
        ("<2", {0, 1}),
        (">2", {3, 4}),
        ("<=2", {0, 1, 2}),
        (">=2", {2, 3, 4}),
        ("=2", set()),
        ("two", set()),
        ("", set()),
        (2, set()),
    ],
)
def test_room_member_count(condition: Any, counts: set[int]) -> None:
    matching = {
        n for n in range(5) if holds({"kind": "room_member_count", "is": condition}, message(members=n))
    }
    assert matching == counts


@pytest.mark.parametrize(
    ("body", "expected"),
    [("ALICE B. is here", True), ("ask Alice B.", True), ("malice b.", False), ("Alice", False)],
)
def test_contains_display_name(body: str, expected: bool) -> None:
    assert holds({"kind": "contains_display_name"}, message({"body": body})) is expected


@pytest.mark.parametrize(
    "condition",
    [
        {"kind": "org.example.unknown"},
        {"kind": ["event_match"]},
        {},
        "event_match",
        None,
        {"kind": "event_match", "key": "type"},
        {"kind": "event_match", "pattern": "*"},
        {"kind": "event_property_is", "key": "type"},
        {"kind": "sender_notification_permission"},
    ],
)
def test_what_is_not_understood_matches_nothing(condition: Any) -> None:
    assert not holds(condition, message())


@pytest.mark.parametrize(
    ("actions", "notice"),
    [
        ([], SILENT),
        (["dont_notify"], SILENT),
        (["coalesce", "notify"], Notice(True, False, {}, ("notify",))),
        (
            ["notify", {"set_tweak": "highlight", "value": False}],
            Notice(True, False, {"highlight": False}, ("notify", {"set_tweak": "highlight", "value": False})),
        ),
        (["notify", HIGHLIGHT], Notice(True, True, {"highlight": True}, ("notify", HIGHLIGHT))),
        ([HIGHLIGHT], Notice(False, False, {"highlight": True}, (HIGHLIGHT,))),
    ],
)
def test_actions(actions: list[Any], notice: Notice) -> None:
    assert notice_of(actions) == notice


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(
            [
                "event_match",
                "event_property_is",
                "event_property_contains",
                "contains_display_name",
                "room_member_count",
                "sender_notification_permission",
            ]
        )
        | JSON,
        "key": st.sampled_from(["content", "content.body", "type"]) | JSON,
        "pattern": JSON,
        "is": JSON,
        "value": JSON,
    },
)


@given(CONDITIONS | JSON, JSON | st.fixed_dictionaries({"body": JSON}))
def test_no_stored_condition_or_event_content_can_fail_the_evaluation(condition: Any, content: Any) -> None:
    notice = alices(message(content), override(condition))
    assert notice in (SILENT, Notice(notify=True, actions=("notify",)))


def in_thread(**content: Any) -> PushEvent:
    relation = {"rel_type": "m.thread", "event_id": "$root"}
    return message({"msgtype": "m.text", "body": "hello", "m.relates_to": relation, **content})


@pytest.mark.parametrize(
    ("event", "subscribed", "actions"),
    [
        (in_thread(), True, ("notify", SOUND)),
        (in_thread(), False, ()),
        (in_thread(**{"m.mentions": {"user_ids": [ALICE]}}), False, ("notify", SOUND, HIGHLIGHT)),
        (in_thread(msgtype="m.notice"), True, ()),
        (message(), True, ("notify",)),
        (message(), False, ("notify",)),
        (message({"body": "hi", "m.relates_to": {"rel_type": "m.reference"}}), True, ("notify",)),
        (message({"body": "hi", "m.relates_to": {"rel_type": "m.thread"}}), True, ("notify",)),
    ],
)
def test_threads_notify_those_who_are_subscribed(
    event: PushEvent, subscribed: bool, actions: tuple[Any, ...]
) -> None:
    ruleset = default_ruleset(ALICE, thread_subscriptions=True)
    ruleset["room"] = []
    notice = evaluate(ruleset, event, user_id=ALICE, display_name=None, subscribed=subscribed)
    assert notice.actions == actions


def test_rules_about_threads_stand_between_keywords_and_rooms() -> None:
    ruleset = default_ruleset(ALICE, thread_subscriptions=True)
    muted = {"rule_id": ROOM, "enabled": True, "actions": []}
    ruleset["room"] = [muted]
    assert evaluate(ruleset, in_thread(), user_id=ALICE, display_name=None, subscribed=True).notify
    keyword = {"rule_id": "cake", "enabled": True, "pattern": "cake", "actions": ["notify", HIGHLIGHT]}
    ruleset["content"] = [keyword]
    assert evaluate(ruleset, in_thread(body="cake"), user_id=ALICE, display_name=None).highlight


@pytest.mark.parametrize("wanted", [None, 1, "true", {}])
def test_a_subscription_that_is_asked_for_in_other_words_never_holds(wanted: Any) -> None:
    condition = {"kind": "io.element.msc4306.thread_subscription", "subscribed": wanted}
    assert not holds(condition, in_thread())
    assert holds({**condition, "subscribed": False}, in_thread())
