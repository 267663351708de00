"""Looking back: messages, single events, state and members.

Specification: client-server API, "Getting events for a room".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from client_api.filter_parameter import parse_filter
from homeserver.errors import forbidden, missing_param
from homeserver.protocol.filters import RoomEventFilter
from homeserver.replies import Json, Reply
from homeserver.rooms.history import Accept, History, RoomView
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.redacted_content import RedactedContent
from homeserver.rooms.visibility import SeenEvent, only_events
from homeserver.storage.events import StoredEvent
from homeserver.storage.rooms import MEMBERSHIPS
from homeserver.storage.timeline_pages import Told
from homeserver.sync.client_events import ClientEvents, Encoded, Form
from homeserver.sync.positions import SyncToken
from homeserver.turns import each_in_turns
from homeserver.web import Request

_DEFAULT_LIMIT = 10
_MAX_LIMIT = 1000

_FORM = Form()

_UNREDACTED = "fi.mau.msc2815.include_unredacted_content"


class MessagesApi:
    """Endpoints that read rooms."""

    def __init__(
        self,
        history: History,
        client_events: ClientEvents,
        ignored: IgnoredUsers,
        redacted_content: RedactedContent,
    ) -> None:
        self._redacted_content = redacted_content
        self._history = history
        self._client_events = client_events
        self._ignored = ignored

    async def messages(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/messages``."""
        view = await self._view(request)
        if "dir" not in request.query:
            raise missing_param("The query parameter 'dir' is missing")
        backwards = request.query_choice("dir", "", ("b", "f")) == "b"
        start, to = (_position(request, name) for name in ("from", "to"))
        wanted, accept = await self._filter(request, view)
        limit = _limit(request, wanted)
        read = self._history.backward if backwards else self._history.forward
        page = await read(view, start, to, max(limit, 1), accept)
        reply: dict[str, Any] = {
            "start": request.query.get("from") or _token(page.start),
            "chunk": await self._written(request, view, page.events, page.told),
        }
        if page.end is not None:
            reply["end"] = _token(page.end)
        if wanted.lazy_load_members:
            senders = await self._history.senders(view, page.events)
            reply["state"] = self._client_events.write_state(senders, _FORM)
        return reply

    async def context(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/context/{eventId}``."""
        view = await self._view(request)
        wanted, accept = await self._filter(request, view)
        if not wanted.lazy_load_members:
            view = await self._history.whole(view)
        context = await self._history.context(
            view, request.params["eventId"], _limit(request, wanted), accept
        )
        around = [*context.before.events, context.event, *context.after.events]
        state = [stored for stored in context.state if _allows(wanted, stored)]
        if wanted.lazy_load_members:
            senders = {one.stored.event.sender for one in around}
            state = [
                stored
                for stored in state
                if stored.event.type != "m.room.member" or stored.event.state_key in senders
            ]
        (event,) = await self._written(request, view, [context.event])
        end = context.after.events[-1].stored if context.after.events else context.event.stored
        start = context.before.events[-1].stored if context.before.events else context.event.stored
        return {
            "start": _token((start.pos or 0) - 1),
            "end": _token(end.pos or 0),
            "event": event,
            "events_before": await self._written(request, view, context.before.events, context.before.told),
            "events_after": await self._written(request, view, context.after.events),
            "state": self._client_events.write_state(state, _FORM),
        }

    async def event(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/event/{eventId}``; moderators can ask for what it was (MSC2815)."""
        requester, content = request.requester, self._redacted_content
        room, seen = await self._history.event(
            requester.user_id, request.params["roomId"], request.params["eventId"]
        )
        (event,) = await self._client_events.write(
            room, requester.user_id, requester.device_id, [seen], _FORM
        )
        if content.kept and request.query_bool(_UNREDACTED):
            original = await content.original(
                room, seen.stored, requester.user_id, is_admin=requester.is_admin
            )
            told = orjson.loads(orjson.dumps(event))
            event = {**told, "content": orjson.Fragment(original.content_json)}
        return Json(orjson.dumps(event))

    async def state(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/state``."""
        stored = await self._history.state(await self._view(request))
        return Json(orjson.dumps(await self._client_events.write_much_state(stored, _FORM)))

    async def state_event(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/state/{eventType}/{stateKey}``, or without the state key."""
        whole_event = request.query_choice("format", "content", ("content", "event")) == "event"
        key = (request.params["eventType"], request.params.get("stateKey", ""))
        stored = await self._history.state_event(await self._view(request), key)
        if not whole_event:
            return Json(stored.event.content_json)
        return Json(orjson.dumps(self._client_events.write_state([stored], _FORM)[0]))

    async def members(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/members``."""
        view = await self._view(request)
        only = request.query_choice("membership", "", tuple(MEMBERSHIPS))
        without = request.query_choice("not_membership", "", tuple(MEMBERSHIPS))

        def wanted(membership: str) -> bool:
            if not only and not without:
                return True
            return membership == only or (bool(without) and membership != without)

        members = await self._history.members(view, _position(request, "at"), wanted)
        return {"chunk": await self._client_events.write_much_state(members, _FORM)}

    async def joined_members(self, request: Request) -> Reply:
        """``GET /rooms/{roomId}/joined_members``."""
        view = await self._view(request)
        if not view.joined:
            raise forbidden("You are not in this room")
        members = await self._history.members(view, None, lambda membership: membership == "join")
        return {"joined": dict(await each_in_turns(_profile, members))}

    async def _view(self, request: Request) -> RoomView:
        requester = request.requester
        return await self._history.view(requester.user_id, request.params["roomId"], requester.device_id)

    async def _written(
        self, request: Request, view: RoomView, seen: Sequence[SeenEvent], told: Told | None = None
    ) -> list[Encoded]:
        reader = (request.requester.user_id, request.requester.device_id)
        looked_up = None
        if told is not None:
            looked_up = await self._client_events.look_up(*reader, only_events(seen), told=told)
        return await self._client_events.write(view.room, *reader, seen, _FORM, looked_up=looked_up)

    async def _filter(self, request: Request, view: RoomView) -> tuple[RoomEventFilter, Accept]:
        """The filter in the query, and whether an event passes it and is not from an ignored user."""
        text = request.query.get("filter")
        wanted = parse_filter(text, RoomEventFilter.parse) if text else RoomEventFilter()
        ignored = await self._ignored.by(view.user_id)
        if not ignored and not wanted.chooses_events:
            return wanted, _accept_all

        def accept(stored: StoredEvent) -> bool:
            if stored.event.sender in ignored and not stored.event.is_state:
                return False
            return _allows(wanted, stored)

        return wanted, accept


def _accept_all(stored: StoredEvent) -> bool:
    return True


def _allows(wanted: RoomEventFilter, stored: StoredEvent) -> bool:
    event = stored.event
    return wanted.allows_event(event.type, event.sender, event.room_id, lambda: event.content)


def _limit(request: Request, wanted: RoomEventFilter) -> int:
    limit = request.query_int("limit", _DEFAULT_LIMIT, maximum=_MAX_LIMIT)
    return limit if wanted.limit is None else min(limit, wanted.limit)


def _position(request: Request, name: str) -> int | None:
    text = request.query.get(name)
    return SyncToken.parse(text).pos if text else None


def _token(pos: int) -> str:
    return str(SyncToken(pos))


def _profile(member: StoredEvent) -> tuple[str, dict[str, str]]:
    """COMPAT: conformance suites want both fields there for everybody, the specification wants text."""
    content = member.event.content
    named = {"display_name": content.get("displayname"), "avatar_url": content.get("avatar_url")}
    shown = {name: value if isinstance(value, str) else "" for name, value in named.items()}
    return member.event.state_key or "", shown
