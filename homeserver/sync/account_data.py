"""Account data as the events that clients are told of it by."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import orjson

from homeserver.storage.account_data import GLOBAL, AccountDatum
from homeserver.sync.rulesets import Rulesets

_PUSH_RULES = "m.push_rules"


def account_data_events(data: Iterable[AccountDatum]) -> list[dict[str, Any]]:
    """Account data as events."""
    return [{"type": datum.type, "content": orjson.Fragment(datum.content)} for datum in data]


async def global_events(
    push_rules: Rulesets, user_id: str, own: Collection[AccountDatum], *, first: bool
) -> list[dict[str, Any]]:
    """What of a user's own data belongs to no room; push rules as the whole ruleset they come to.

    Those are told where they changed, and to whoever is told of anything for the ``first`` time.
    """
    events = account_data_events(
        datum for datum in own if datum.room_id == GLOBAL and datum.type != _PUSH_RULES
    )
    if first or any(datum.type == _PUSH_RULES for datum in own):
        events.append({"type": _PUSH_RULES, "content": {"global": await push_rules.ruleset(user_id)}})
    return events
