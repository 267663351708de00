"""Who is asking: what a valid access token stands for."""

from __future__ import annotations

import msgspec


class Requester(msgspec.Struct, frozen=True):
    """The account and device behind an authenticated request.

    ``device_id`` is ``None`` for tokens bound to no device (application services);
    ``token_id`` is the stored token's row id, for sessions that end one token only;
    ``appservice`` is the id of the application service that speaks for the user.
    """

    user_id: str
    device_id: str | None = None
    is_admin: bool = False
    is_guest: bool = False
    token_id: int | None = None
    appservice: str | None = None
    #: By an administrator (``users.moderation``).
    is_locked: bool = False
    is_suspended: bool = False
