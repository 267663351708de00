"""The push rules users make for themselves: storing, ordering and checking them.

What is stored, as account data ``m.push_rules``, are the user's own rules and their
changes to the predefined ones; a user's ruleset is put together from these and
the predefined rules of today.  Evaluating rules is ``protocol/push_rules``.
Specification: client-server API, "Push Rules API".
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import orjson

from homeserver.errors import MatrixError, bad_json, invalid_param, missing_param, not_found
from homeserver.protocol.default_push_rules import ruleset_of
from homeserver.protocol.push_rules import KINDS, POSTCONTENT, Rule, Ruleset
from homeserver.users.account_data import AccountData

PUSH_RULES = "m.push_rules"

#: More rules of one kind than anybody writes by hand, and more conditions or actions of one rule.
_MAX_RULES = 1_000
_MAX_PARTS = 100
#: Bytes of one rule, and of all of a user's rules together: every client is told all of them.
_MAX_RULE_BYTES = 16_384
_MAX_BYTES = 524_288
_MAX_ID_BYTES = 512
_FORBIDDEN_IN_ID = re.compile(r"^\.|[/\\]")


class PushRules:
    """The rulesets of local users.

    With ``thread_subscriptions`` the predefined rules are among them that make threads notify
    those who are subscribed to them, and nobody else (MSC4306).
    """

    def __init__(self, account_data: AccountData, *, thread_subscriptions: bool = False) -> None:
        self._account_data = account_data
        self.thread_subscriptions = thread_subscriptions

    async def ruleset(self, user_id: str) -> Ruleset:
        """The user's whole ruleset, predefined rules included."""
        return self._whole(user_id, await self._account_data.content(user_id, PUSH_RULES))

    async def event_content(self, user_id: str) -> dict[str, Any]:
        """The content of the ``m.push_rules`` event that clients are given."""
        return {"global": await self.ruleset(user_id)}

    async def rule(self, user_id: str, kind: str, rule_id: str) -> Rule:
        """One rule; ``M_NOT_FOUND``, or ``M_INVALID_PARAM`` for a kind that is none."""
        return _find(await self.ruleset(user_id), kind, rule_id)

    async def put(
        self,
        user_id: str,
        kind: str,
        rule: Rule,
        *,
        before: str | None = None,
        after: str | None = None,
    ) -> None:
        """Make or replace a rule of the user's own.

        ``before`` and ``after`` name the own rule that is to be just less or just more
        important; a new rule is the most important otherwise.  ``M_UNKNOWN`` when that
        rule is not there.
        """
        await self._change(user_id, lambda ruleset: put_rule(ruleset, kind, rule, before=before, after=after))

    async def delete(self, user_id: str, kind: str, rule_id: str) -> None:
        """Remove a rule of the user's own; ``M_NOT_FOUND``, ``M_INVALID_PARAM`` for predefined rules."""
        await self._change(user_id, lambda ruleset: delete_rule(ruleset, kind, rule_id))

    async def set_enabled(self, user_id: str, kind: str, rule_id: str, enabled: bool) -> None:
        """Switch a rule on or off, predefined ones too."""
        await self._change(user_id, lambda ruleset: _find(ruleset, kind, rule_id).update(enabled=enabled))

    async def set_actions(self, user_id: str, kind: str, rule_id: str, actions: list[Any]) -> None:
        """Replace a rule's actions, predefined ones too."""
        check_actions(actions)
        await self._change(user_id, lambda ruleset: _find(ruleset, kind, rule_id).update(actions=actions))

    async def carry_over(self, user_id: str, old_room: str, new_room: str) -> None:
        """Make for a room the rules that there are for the room it replaces."""
        if carry_rules_over(await self.ruleset(user_id), old_room, new_room):
            await self._change(user_id, lambda ruleset: carry_rules_over(ruleset, old_room, new_room))

    async def _change(self, user_id: str, edit: Callable[[Ruleset], object]) -> None:
        def change(content: dict[str, Any]) -> dict[str, Any]:
            ruleset = self._whole(user_id, content)
            edit(ruleset)
            if len(orjson.dumps(ruleset)) > _MAX_BYTES:
                raise _too_large(f"All push rules together have at most {_MAX_BYTES} bytes")
            return {"global": ruleset}

        await self._account_data.change(user_id, PUSH_RULES, change)

    def _whole(self, user_id: str, content: dict[str, Any] | None) -> Ruleset:
        return whole_ruleset(user_id, content, thread_subscriptions=self.thread_subscriptions)


def whole_ruleset(
    user_id: str, content: dict[str, Any] | None, *, thread_subscriptions: bool = False
) -> Ruleset:
    """The ruleset that stored content stands for; what is not of a rule's shape is left out."""
    stored = (content or {}).get("global")
    own: dict[str, list[Rule]] = {}
    changed: dict[tuple[str, str], Rule] = {}
    for kind in KINDS:
        rules = stored.get(kind) if isinstance(stored, dict) else None
        for rule in rules if isinstance(rules, list) else ():
            if not isinstance(rule, dict) or not isinstance(rule.get("rule_id"), str):
                continue
            if rule["rule_id"].startswith("."):
                changed[kind, rule["rule_id"]] = {
                    name: rule[name] for name in ("enabled", "actions") if name in rule
                }
            elif kind != POSTCONTENT:
                own.setdefault(kind, []).append(copy.deepcopy(rule))
    return ruleset_of(user_id, own, changed, thread_subscriptions=thread_subscriptions)


def put_rule(
    ruleset: Ruleset, kind: str, rule: Rule, *, before: str | None = None, after: str | None = None
) -> None:
    """Make or replace an own rule in ``ruleset``; see ``PushRules.put``."""
    rules = _rules(ruleset, kind)
    old_index = next((i for i, each in enumerate(rules) if each["rule_id"] == rule["rule_id"]), None)
    kept_enabled = True
    if old_index is not None:
        kept_enabled = rules.pop(old_index)["enabled"]
    elif sum(not each["default"] for each in rules) >= _MAX_RULES:
        raise invalid_param(f"There are at most {_MAX_RULES} rules of a kind")
    rules.insert(
        _place(rules, before=before, after=after, otherwise=old_index),
        {**rule, "default": False, "enabled": kept_enabled},
    )


def delete_rule(ruleset: Ruleset, kind: str, rule_id: str) -> None:
    """Remove an own rule from ``ruleset``; see ``PushRules.delete``."""
    rule = _find(ruleset, kind, rule_id)
    if rule["default"]:
        raise invalid_param("A predefined rule can be switched off, but not removed")
    ruleset[kind].remove(rule)


def carry_rules_over(ruleset: Ruleset, old_room: str, new_room: str) -> bool:
    """Put a rule about the replacement beside each own rule about a room; whether there was any."""
    carried = False
    for kind in ruleset:
        known = {rule["rule_id"] for rule in ruleset[kind]}
        for rule in [each for each in ruleset[kind] if not each["default"]]:
            copied = _for_room(kind, rule, old_room, new_room)
            if copied is not None and copied["rule_id"] not in known and len(known) < _MAX_RULES:
                ruleset[kind].insert(ruleset[kind].index(rule) + 1, copied)
                known.add(copied["rule_id"])
                carried = True
    return carried


def _for_room(kind: str, rule: Rule, old_room: str, new_room: str) -> Rule | None:
    """A rule as it is for another room; ``None`` for one that is not about the old room."""
    if kind == "room":
        return {**rule, "rule_id": new_room} if rule["rule_id"] == old_room else None
    conditions = rule.get("conditions")
    about = {"kind": "event_match", "key": "room_id", "pattern": old_room}
    if not isinstance(conditions, list) or about not in conditions:
        return None
    rule_id = rule["rule_id"]
    rule_id = rule_id.replace(old_room, new_room) if old_room in rule_id else f"{rule_id}.{new_room}"
    moved = [{**about, "pattern": new_room} if each == about else each for each in conditions]
    return {**copy.deepcopy(rule), "rule_id": rule_id, "conditions": moved}


def read_rule(kind: str, rule_id: str, body: dict[str, Any]) -> Rule:
    """The rule a client asks to make.

    Raises ``M_INVALID_PARAM`` for an id or kind that cannot be, ``M_MISSING_PARAM``,
    ``M_BAD_JSON`` and ``M_TOO_LARGE`` for the rest.
    """
    if kind not in KINDS or kind == POSTCONTENT:
        raise invalid_param("That is not a kind of push rule that you can make")
    if not rule_id or _FORBIDDEN_IN_ID.search(rule_id) or len(rule_id.encode()) > _MAX_ID_BYTES:
        raise invalid_param("A rule's ID must not begin with a dot, hold slashes or be too long")
    if "actions" not in body:
        raise missing_param("'actions' is missing")
    check_actions(body["actions"])
    rule: Rule = {"rule_id": rule_id, "actions": body["actions"]}
    if kind == "content":
        if "pattern" not in body:
            raise missing_param("A content rule needs a 'pattern'")
        if not isinstance(body["pattern"], str):
            raise bad_json("'pattern' must be a string")
        rule["pattern"] = body["pattern"]
    elif kind in ("override", "underride"):
        rule["conditions"] = _checked_conditions(body.get("conditions", []))
    if len(orjson.dumps(rule)) > _MAX_RULE_BYTES:
        raise _too_large(f"A push rule has at most {_MAX_RULE_BYTES} bytes")
    return rule


def check_actions(actions: Any) -> None:
    """Whether this is a list of actions; ``M_BAD_JSON`` or ``M_TOO_LARGE`` if not."""
    if not isinstance(actions, list):
        raise bad_json("'actions' must be a list")
    if len(actions) > _MAX_PARTS or len(orjson.dumps(actions)) > _MAX_RULE_BYTES:
        raise _too_large("A push rule does not have so many actions")
    for action in actions:
        is_tweak = isinstance(action, dict) and isinstance(action.get("set_tweak"), str)
        if not is_tweak and action not in ("notify", "dont_notify", "coalesce"):
            raise bad_json("An action is 'notify' or sets a tweak")


def _checked_conditions(conditions: Any) -> list[Any]:
    if not isinstance(conditions, list):
        raise bad_json("'conditions' must be a list")
    if len(conditions) > _MAX_PARTS:
        raise _too_large(f"A push rule has at most {_MAX_PARTS} conditions")
    for condition in conditions:
        if not isinstance(condition, dict) or not isinstance(condition.get("kind"), str):
            raise bad_json("A condition is an object with a 'kind'")
    return conditions


def _too_large(message: str) -> MatrixError:
    return MatrixError(413, "M_TOO_LARGE", message)


def _rules(ruleset: Ruleset, kind: str) -> list[Rule]:
    if kind not in KINDS:
        raise invalid_param("That is not a kind of push rule")
    return ruleset.get(kind, [])


def _find(ruleset: Ruleset, kind: str, rule_id: str) -> Rule:
    for rule in _rules(ruleset, kind):
        if rule["rule_id"] == rule_id:
            return rule
    raise not_found("There is no such push rule")


def _place(rules: list[Rule], *, before: str | None, after: str | None, otherwise: int | None) -> int:
    """Where a rule goes among the others; own rules stand before the predefined, but for the master."""
    own = [i for i, rule in enumerate(rules) if not rule["default"]]
    first = 1 if rules and rules[0]["rule_id"] == ".m.rule.master" else 0
    neighbour = before if before is not None else after
    if neighbour is None:
        return first if otherwise is None else otherwise
    for i in own:
        if rules[i]["rule_id"] == neighbour:
            return i if before is not None else i + 1
    raise MatrixError(400, "M_UNKNOWN", "'before' or 'after' names no rule of yours")
