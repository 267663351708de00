"""Push rules (client-server API, "Push Rules API")."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.protocol.push_rules import POSTCONTENT
from homeserver.replies import Reply
from homeserver.users.push_rules import PushRules, read_rule
from homeserver.web import Request


class _Enabled(msgspec.Struct):
    enabled: bool


class _Actions(msgspec.Struct):
    actions: list[Any]


class PushRulesApi:
    """Endpoints about the push rules of the user who asks."""

    def __init__(self, push_rules: PushRules) -> None:
        self._push_rules = push_rules

    async def all_rulesets(self, request: Request) -> Reply:
        """``GET /pushrules/``."""
        return await self._push_rules.event_content(request.requester.user_id)

    async def global_ruleset(self, request: Request) -> Reply:
        """``GET /pushrules/global/``."""
        return dict(await self._push_rules.ruleset(request.requester.user_id))

    async def rule(self, request: Request) -> Reply:
        """``GET /pushrules/global/{kind}/{ruleId}``."""
        return await self._push_rules.rule(*_named(request))

    async def put_rule(self, request: Request) -> Reply:
        """``PUT /pushrules/global/{kind}/{ruleId}``."""
        user_id, kind, rule_id = _named(request)
        rule = read_rule(kind, rule_id, request.json())
        query = request.query
        await self._push_rules.put(user_id, kind, rule, before=query.get("before"), after=query.get("after"))
        return {}

    async def delete_rule(self, request: Request) -> Reply:
        """``DELETE /pushrules/global/{kind}/{ruleId}``."""
        await self._push_rules.delete(*_named(request))
        return {}

    async def enabled(self, request: Request) -> Reply:
        """``GET /pushrules/global/{kind}/{ruleId}/enabled``."""
        rule = await self._push_rules.rule(*_named(request))
        return {"enabled": rule["enabled"]}

    async def set_enabled(self, request: Request) -> Reply:
        """``PUT /pushrules/global/{kind}/{ruleId}/enabled``."""
        await self._push_rules.set_enabled(*_named(request), request.decode(_Enabled).enabled)
        return {}

    async def actions(self, request: Request) -> Reply:
        """``GET /pushrules/global/{kind}/{ruleId}/actions``."""
        rule = await self._push_rules.rule(*_named(request))
        return {"actions": rule["actions"]}

    async def set_actions(self, request: Request) -> Reply:
        """``PUT /pushrules/global/{kind}/{ruleId}/actions``."""
        await self._push_rules.set_actions(*_named(request), request.decode(_Actions).actions)
        return {}


def _named(request: Request) -> tuple[str, str, str]:
    kind = request.params["kind"]
    # COMPAT: ruma names the kind so in paths, though not in rulesets.
    kind = POSTCONTENT if kind == f"io.element.msc4306.{POSTCONTENT}" else kind
    return request.requester.user_id, kind, request.params["ruleId"]
