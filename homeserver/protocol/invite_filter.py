"""Whose invites somebody wants: their ``m.invite_permission_config``, as plain functions.

Specification: client-server API, "Invite permission" (``default_action``); the lists of users
and servers are those of the proposal MSC4155.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from homeserver.protocol.globs import glob_matches
from homeserver.protocol.ids import server_of

#: ``ignore``: as if it were accepted, but never shown; ``block``: refused.
InviteVerdict: TypeAlias = Literal["allow", "ignore", "block"]

#: More patterns of a list are not looked at.
MAX_PATTERNS = 1_000

_VERDICTS: tuple[tuple[InviteVerdict, str], ...] = (
    ("allow", "allowed"),
    ("ignore", "ignored"),
    ("block", "blocked"),
)
_PORT = re.compile(r":[0-9]{1,5}$")


def invite_verdict(config: Mapping[str, Any], sender: str) -> InviteVerdict:
    """What becomes of an invite by ``sender``, as one piece of configuration says.

    Lists come first, users before servers, each allowed before ignored before blocked (MSC4155);
    then ``default_action``.
    """
    listed = _listed(config, sender)
    if listed is not None:
        return listed
    return "block" if config.get("default_action") == "block" else "allow"


def _listed(config: Mapping[str, Any], sender: str) -> InviteVerdict | None:
    """What the lists say; ``None`` where they do not name the sender, are switched off or are invalid."""
    lists = {
        f"{word}_{kind}": config.get(f"{word}_{kind}") or []
        for kind in ("users", "servers")
        for _, word in _VERDICTS
    }
    if config.get("enabled") is False or not all(map(_is_patterns, lists.values())):
        return None
    for kind, text in (("users", sender), ("servers", _PORT.sub("", server_of(sender)))):
        for verdict, word in _VERDICTS:
            if any(glob_matches(pattern, text) for pattern in lists[f"{word}_{kind}"][:MAX_PATTERNS]):
                return verdict
    return None


def _is_patterns(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(pattern, str) for pattern in value)
