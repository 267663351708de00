"""Profiles (client-server API, "Profiles")."""

from __future__ import annotations

from homeserver.errors import forbidden, guest_access_forbidden, missing_param
from homeserver.replies import Reply
from homeserver.users.profile_access import ProfileAccess
from homeserver.users.profiles import Profiles, check_field_name
from homeserver.web import Request


class ProfileApi:
    """Endpoints that read anybody's profile and change one's own."""

    def __init__(self, profiles: Profiles, access: ProfileAccess) -> None:
        self._profiles = profiles
        self._access = access

    async def profile(self, request: Request) -> Reply:
        """``GET /profile/{userId}``."""
        return await self._profiles.profile(await self._visible(request))

    async def field(self, request: Request) -> Reply:
        """``GET /profile/{userId}/{keyName}``."""
        check_field_name(request.params["keyName"])
        return await self._profiles.profile(await self._visible(request), request.params["keyName"])

    async def set_field(self, request: Request) -> Reply:
        """``PUT /profile/{userId}/{keyName}``."""
        user_id, field = _own(request), _changeable(request)
        body = request.json()
        check_field_name(field)
        if field not in body:
            raise missing_param(f"'{field}' is missing")
        self._access.check_may_change(field)
        await self._profiles.set_field(user_id, field, body[field])
        return {}

    async def remove_field(self, request: Request) -> Reply:
        """``DELETE /profile/{userId}/{keyName}``."""
        user_id, field = _own(request), _changeable(request)
        check_field_name(field)
        self._access.check_may_change(field)
        await self._profiles.remove_field(user_id, field)
        return {}

    async def _visible(self, request: Request) -> str:
        """The user whose profile is asked for, if whoever asks may see it."""
        user_id = request.params["userId"]
        requester = request.requester_if_any
        await self._access.check_may_see(requester.user_id if requester else None, user_id)
        return user_id


def _own(request: Request) -> str:
    if request.params["userId"] != request.requester.user_id:
        raise forbidden("The profile of another user cannot be changed")
    return request.requester.user_id


def _changeable(request: Request) -> str:
    """The field; of guests only the display name."""
    field = request.params["keyName"]
    if request.requester.is_guest and field != "displayname":
        raise guest_access_forbidden("Guests may only change their display name")
    return field
