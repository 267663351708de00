"""The push rules every user starts with, and how their own stand among them.

Specification: client-server API, "Predefined rules"; MSC4306 for those about threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from homeserver.protocol.push_rules import POSTCONTENT, THREAD_SUBSCRIPTION, Rule, Ruleset

_HIGHLIGHT: Final = {"set_tweak": "highlight"}


def default_ruleset(user_id: str, *, thread_subscriptions: bool = False) -> Ruleset:
    """The predefined rules of a user without any of their own ("Predefined rules").

    With ``thread_subscriptions`` those of MSC4306 are among them.
    """
    ruleset = {
        "override": _default_override_rules(user_id),
        "content": [],
        "room": [],
        "sender": [],
        "underride": _default_underride_rules(),
    }
    return {**ruleset, POSTCONTENT: _thread_rules()} if thread_subscriptions else ruleset


def ruleset_of(
    user_id: str,
    own_rules: Mapping[str, Sequence[Rule]],
    changed_defaults: Mapping[tuple[str, str], Mapping[str, Any]],
    *,
    thread_subscriptions: bool = False,
) -> Ruleset:
    """A user's whole ruleset: their own rules of each kind before the predefined ones.

    ``own_rules`` maps a kind to rules, highest priority first.
    ``changed_defaults`` maps ``(kind, rule_id)`` of a predefined rule to the
    ``enabled`` and ``actions`` the user gave it.  ``.m.rule.master`` stays first.
    """
    ruleset = default_ruleset(user_id, thread_subscriptions=thread_subscriptions)
    for kind, rules in ruleset.items():
        for rule in rules:
            rule.update(changed_defaults.get((kind, rule["rule_id"]), {}))
        before_own = 1 if kind == "override" else 0
        rules[before_own:before_own] = own_rules.get(kind, ())
    return ruleset


def _default_override_rules(user_id: str) -> list[Rule]:
    """ "Default override rules", in the spec's order."""
    return [
        _rule(".m.rule.master", [], [], enabled=False),
        _rule(".m.rule.suppress_notices", [_match("content.msgtype", "m.notice")], []),
        _rule(
            ".m.rule.invite_for_me",
            [
                _match("type", "m.room.member"),
                _match("content.membership", "invite"),
                _match("state_key", user_id),
            ],
            ["notify", _sound("default")],
        ),
        _rule(".m.rule.member_event", [_match("type", "m.room.member")], []),
        _rule(
            ".m.rule.is_user_mention",
            [{"kind": "event_property_contains", "key": r"content.m\.mentions.user_ids", "value": user_id}],
            ["notify", _sound("default"), dict(_HIGHLIGHT)],
        ),
        _rule(
            ".m.rule.is_room_mention",
            [
                {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True},
                {"kind": "sender_notification_permission", "key": "room"},
            ],
            ["notify", dict(_HIGHLIGHT)],
        ),
        _rule(
            ".m.rule.tombstone",
            [_match("type", "m.room.tombstone"), _match("state_key", "")],
            ["notify", dict(_HIGHLIGHT)],
        ),
        _rule(".m.rule.reaction", [_match("type", "m.reaction")], []),
        _rule(".m.rule.room.server_acl", [_match("type", "m.room.server_acl"), _match("state_key", "")], []),
        _rule(
            ".m.rule.suppress_edits",
            [{"kind": "event_property_is", "key": r"content.m\.relates_to.rel_type", "value": "m.replace"}],
            [],
        ),
    ]


def _default_underride_rules() -> list[Rule]:
    """ "Default underride rules", in the spec's order."""
    two_members = {"kind": "room_member_count", "is": "2"}
    return [
        _rule(".m.rule.call", [_match("type", "m.call.invite")], ["notify", _sound("ring")]),
        _rule(
            ".m.rule.encrypted_room_one_to_one",
            [dict(two_members), _match("type", "m.room.encrypted")],
            ["notify", _sound("default")],
        ),
        _rule(
            ".m.rule.room_one_to_one",
            [dict(two_members), _match("type", "m.room.message")],
            ["notify", _sound("default")],
        ),
        _rule(".m.rule.message", [_match("type", "m.room.message")], ["notify"]),
        _rule(".m.rule.encrypted", [_match("type", "m.room.encrypted")], ["notify"]),
    ]


def _thread_rules() -> list[Rule]:
    """ "New Push Rules" of MSC4306, by their unstable names."""
    return [
        _rule(".io.element.msc4306.rule.unsubscribed_thread", [_subscribed(False)], []),
        _rule(
            ".io.element.msc4306.rule.subscribed_thread", [_subscribed(True)], ["notify", _sound("default")]
        ),
    ]


def _rule(rule_id: str, conditions: list[Rule], actions: list[Any], *, enabled: bool = True) -> Rule:
    return {
        "rule_id": rule_id,
        "default": True,
        "enabled": enabled,
        "conditions": conditions,
        "actions": actions,
    }


def _match(key: str, pattern: str) -> Rule:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _sound(value: str) -> Rule:
    return {"set_tweak": "sound", "value": value}


def _subscribed(subscribed: bool) -> Rule:
    return {"kind": THREAD_SUBSCRIPTION, "subscribed": subscribed}
