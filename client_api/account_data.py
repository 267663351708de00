"""Account data and room tags (client-server API, "Client Config" and "Room Tagging")."""

from __future__ import annotations

from typing import Any

from homeserver.errors import MatrixError, bad_json, forbidden, invalid_param, not_found
from homeserver.protocol.ids import is_room_id
from homeserver.replies import Reply
from homeserver.storage.account_data import GLOBAL
from homeserver.users.account_data import AccountData
from homeserver.users.push_rules import PUSH_RULES, PushRules
from homeserver.web import Request

#: Written by the server, through endpoints of their own.
_MANAGED = frozenset(("m.fully_read", PUSH_RULES))


class AccountDataApi:
    """Endpoints about what users keep for themselves."""

    def __init__(self, account_data: AccountData, push_rules: PushRules) -> None:
        self._account_data = account_data
        self._push_rules = push_rules

    async def content(self, request: Request) -> Reply:
        """``GET /user/{userId}/account_data/{type}``, and the same of a room."""
        user_id, room_id, type_ = _own(request), _room(request), request.params["type"]
        if type_ == PUSH_RULES and room_id == GLOBAL:
            return await self._push_rules.event_content(user_id)
        content = await self._account_data.content(user_id, type_, room_id)
        if content is None:
            raise not_found("There is no account data of this type")
        return content

    async def set_content(self, request: Request) -> Reply:
        """``PUT /user/{userId}/account_data/{type}``, and the same of a room."""
        user_id, room_id, type_ = _own(request), _room(request), request.params["type"]
        content = request.json()
        _check_not_managed(type_)
        await self._account_data.set_content(user_id, type_, content, room_id)
        return {}

    async def delete(self, request: Request) -> Reply:
        """``DELETE /user/{userId}/account_data/{type}``, and the same of a room (MSC3391)."""
        user_id, room_id, type_ = _own(request), _room(request), request.params["type"]
        _check_not_managed(type_)
        await self._account_data.delete(user_id, type_, room_id)
        return {}

    async def tags(self, request: Request) -> Reply:
        """``GET /user/{userId}/rooms/{roomId}/tags``."""
        return {"tags": await self._account_data.tags(_own(request), _room(request))}

    async def set_tag(self, request: Request) -> Reply:
        """``PUT /user/{userId}/rooms/{roomId}/tags/{tag}``."""
        user_id, room_id = _own(request), _room(request)
        tag = request.json(empty_ok=True)
        order = tag.get("order", 0)
        if not _is_number(order):
            raise bad_json("'order' must be a number")
        if not 0 <= order <= 1:
            raise invalid_param("'order' must be from 0 to 1")
        await self._account_data.set_tag(user_id, room_id, request.params["tag"], tag)
        return {}

    async def remove_tag(self, request: Request) -> Reply:
        """``DELETE /user/{userId}/rooms/{roomId}/tags/{tag}``."""
        await self._account_data.remove_tag(_own(request), _room(request), request.params["tag"])
        return {}


def _check_not_managed(type_: str) -> None:
    if type_ in _MANAGED:
        raise MatrixError(405, "M_BAD_JSON", f"'{type_}' is managed by the server")


def _own(request: Request) -> str:
    if request.params["userId"] != request.requester.user_id:
        raise forbidden("The account data of another user cannot be seen or changed")
    return request.requester.user_id


def _room(request: Request) -> str:
    """The room the path names, or the place of global account data."""
    room_id = request.params.get("roomId")
    if room_id is None:
        return GLOBAL
    if not is_room_id(room_id):
        raise invalid_param("That is not a room ID")
    return room_id


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
