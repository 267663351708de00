"""Whose invites local users want, and what becomes of the others.

A blocked invite is refused; an ignored one is taken as any other, and never shown.  What was said before
stays as it is: an invite that is in a room is not taken out of it, but it is not shown either.
Specification: client-server API, "Invite permission" and "Ignoring Users"; proposal MSC4155.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import msgspec

from homeserver.errors import MatrixError
from homeserver.protocol.invite_filter import InviteVerdict, invite_verdict
from homeserver.rooms.ignored import ignored_users_in
from homeserver.storage import account_data
from homeserver.storage.database import Database, Reader

_IGNORED = "m.ignored_user_list"
#: The type as it is specified, and what clients write of it from before that.
_CONFIGS = (
    "m.invite_permission_config",
    "org.matrix.msc4380.invite_permission_config",
    "org.matrix.msc4155.invite_permission_config",
)
#: The types of account data that say whose invites are wanted.
SAYS_WHICH_INVITES = frozenset({_IGNORED, *_CONFIGS})
_REMEMBERED = 10_000


class _Wishes(msgspec.Struct, frozen=True, gc=False):
    """What somebody's account data says of invites."""

    ignored: frozenset[str]
    configs: tuple[dict[str, Any], ...]

    def verdict(self, sender: str) -> InviteVerdict:
        """What becomes of an invite; a sender who is ignored never learns of it (MSC4155, step 1)."""
        if sender in self.ignored:
            return "ignore"
        verdicts = {invite_verdict(config, sender) for config in self.configs}
        return "block" if "block" in verdicts else "ignore" if "ignore" in verdicts else "allow"


async def check_accepts_invites(r: Reader, user_id: str, sender: str) -> None:
    """Raises ``M_INVITE_BLOCKED`` for a local user who wants no invites of the sender."""
    if (await _wishes(r, user_id)).verdict(sender) == "block":
        raise MatrixError(403, "M_INVITE_BLOCKED", f"{user_id} does not accept your invites")


class InvitePermissions:
    """Says which invites are shown, and remembers the wishes of users who are active."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: OrderedDict[str, _Wishes] = OrderedDict()
        self._reading: dict[str, object] = {}

    async def shows(self, user_id: str, sender: str) -> bool:
        """Whether a local user is told of an invite (in ``/sync``, and by push)."""
        wishes = self._known.get(user_id)
        if wishes is None:
            mark = self._reading[user_id] = object()
            wishes = await _wishes(self._db.read, user_id)
            if self._reading.get(user_id) is mark:  # nothing changed while they were read
                del self._reading[user_id]
                self._known[user_id] = wishes
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
        return wishes.verdict(sender) == "allow"

    def forget(self, users: Iterable[str]) -> None:
        """The account data of these users changed."""
        for user_id in users:
            self._known.pop(user_id, None)
            self._reading.pop(user_id, None)


async def _wishes(r: Reader, user_id: str) -> _Wishes:
    kept = await account_data.contents(r, user_id, account_data.GLOBAL, (_IGNORED, *_CONFIGS))
    decoded = {type_: msgspec.json.decode(text) for type_, text in kept.items()}
    configs = (decoded.get(type_) for type_ in _CONFIGS)
    return _Wishes(
        ignored=ignored_users_in(decoded.get(_IGNORED)) - {user_id},
        configs=tuple(config for config in configs if isinstance(config, dict)),
    )
