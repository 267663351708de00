"""What member events say of local users."""

from __future__ import annotations

from typing import Any, Protocol


class Profiles(Protocol):
    """Tells what users call themselves."""

    async def name_and_avatar(self, user_id: str) -> tuple[str | None, str | None]:
        """``displayname`` and ``avatar_url`` of a local user."""
        ...


async def shown_profile(profiles: Profiles, user_id: str) -> dict[str, Any]:
    """What member events say of a local user."""
    return profile_content(*await profiles.name_and_avatar(user_id))


def profile_content(displayname: str | None, avatar_url: str | None) -> dict[str, Any]:
    """What a profile adds to a member event."""
    profile = {"displayname": displayname, "avatar_url": avatar_url}
    return {name: value for name, value in profile.items() if value is not None}
