"""The push rules of users who read or are pushed to: read once, then kept until they change.

Evaluating them is ``protocol/push_rules``, storing them ``users/push_rules``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Protocol

import msgspec

from homeserver.protocol.default_push_rules import default_ruleset
from homeserver.protocol.push_rules import POSTCONTENT, THREAD_SUBSCRIPTION, Ruleset
from homeserver.sync.notifier import Notifier

_REMEMBERED_USERS = 5000


class Rulesets(Protocol):
    """Knows users' push rules; ``users/push_rules.py`` fulfils it."""

    async def ruleset(self, user_id: str) -> Ruleset:
        """A user's whole ruleset, predefined rules included."""
        ...


class Rules(msgspec.Struct, frozen=True, gc=False, eq=False):
    """A user's rules; the same object for as long as they say the same."""

    ruleset: Ruleset
    #: Whether the user has changed nothing.
    predefined: bool
    #: Whether what they say depends on how many members a room has.
    counts_members: bool
    #: Whether it depends on which threads they are subscribed to.
    asks_threads: bool


class KnownRules:
    """The rules of users, bounded in number; those used longest ago go first."""

    def __init__(self, rulesets: Rulesets, notifier: Notifier) -> None:
        self._rulesets = rulesets
        self._known: OrderedDict[str, Rules] = OrderedDict()
        #: Users whose account data changed since their rules were read.
        self._stale: set[str] = set()
        self._reading: dict[str, object] = {}
        notifier.account_data_listeners.append(self._changed)

    async def of(self, user_id: str) -> Rules:
        """A user's rules."""
        known = self._known.get(user_id)
        if known is not None and user_id not in self._stale:
            self._known.move_to_end(user_id)
            return known
        mark = self._reading[user_id] = object()
        ruleset = await self._rulesets.ruleset(user_id)
        known = self._known.get(user_id)
        if known is None or known.ruleset != ruleset:
            known = _rules(user_id, ruleset)
        if self._reading.get(user_id) is mark:  # nothing changed while it was read
            del self._reading[user_id]
            self._keep(user_id, known)
        return known

    def _keep(self, user_id: str, rules: Rules) -> None:
        self._stale.discard(user_id)
        self._known[user_id] = rules
        self._known.move_to_end(user_id)
        if len(self._known) > _REMEMBERED_USERS:
            self._stale.discard(self._known.popitem(last=False)[0])

    def _changed(self, users: Iterable[str]) -> None:
        for user_id in users:
            self._reading.pop(user_id, None)
            if user_id in self._known:
                self._stale.add(user_id)


def _rules(user_id: str, ruleset: Ruleset) -> Rules:
    predefined = ruleset == default_ruleset(user_id, thread_subscriptions=POSTCONTENT in ruleset)
    conditions = [
        condition
        for rules in ruleset.values()
        for rule in rules
        for condition in _conditions(rule)
        if isinstance(condition, dict)
    ]
    kinds = [condition.get("kind") for condition in conditions]
    counts_members = "room_member_count" in kinds and not predefined
    return Rules(ruleset, predefined, counts_members, THREAD_SUBSCRIPTION in kinds)


def _conditions(rule: dict[str, Any]) -> list[Any]:
    conditions = rule.get("conditions")
    return conditions if isinstance(conditions, list) else []
