"""Who wants to be invited at all.

What was said before stays as it is: an invite that is in a room is not taken out of it.
Specification: client-server API, "Invite permission".
"""

from __future__ import annotations

import msgspec

from homeserver.errors import MatrixError
from homeserver.storage import account_data
from homeserver.storage.database import Reader

_TYPE = "m.invite_permission_config"


async def check_accepts_invites(r: Reader, user_id: str) -> None:
    """Raises ``M_INVITE_BLOCKED`` for a local user who wants no invites."""
    text = await account_data.content(r, user_id, account_data.GLOBAL, _TYPE)
    content = msgspec.json.decode(text) if text else None
    if isinstance(content, dict) and content.get("default_action") == "block":
        raise MatrixError(403, "M_INVITE_BLOCKED", f"{user_id} does not accept invites")
