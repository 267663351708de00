"""What waits to be pushed to somebody: unread events that notify them, and invites."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from homeserver.protocol.event_format import client_event
from homeserver.protocol.push_rules import PushEvent, evaluate
from homeserver.push.line import Work
from homeserver.push.notification import Told
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.heroes import heroes
from homeserver.rooms.invite_permission import InvitePermissions
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore
from homeserver.storage.database import Database
from homeserver.storage.rooms import LocalMembership
from homeserver.storage.state import NO_EVENT
from homeserver.sync.memberships import Memberships
from homeserver.sync.notices import Notices
from homeserver.sync.notifier import Notifier
from homeserver.sync.rulesets import KnownRules
from homeserver.sync.unread import Unread

#: After an absence the newest ones of those that wait are told, and no more.
MAX_WAITING = 100

_MAX_NAMES = 3
#: After a restart many pushers ask at once.
_MAX_ASKING = 20


class Waiting:
    """Finds what waits."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        states: StateStore,
        memberships: Memberships,
        notices: Notices,
        unread: Unread,
        rules: KnownRules,
        invite_permissions: InvitePermissions,
        notifier: Notifier,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._states = states
        self._memberships = memberships
        self._notices = notices
        self._unread = unread
        self._rules = rules
        self._invite_permissions = invite_permissions
        self._notifier = notifier
        self._free = asyncio.Semaphore(_MAX_ASKING)

    async def of(self, user_id: str, work: Work, after: int, upto: int) -> list[Told]:
        """What in some rooms notifies a user after one position up to another and is unread, oldest first."""
        async with self._free:
            return await self._of(user_id, work, after, upto)

    async def _of(self, user_id: str, work: Work, after: int, upto: int) -> list[Told]:
        now = max(upto, self._notifier.position)
        memberships = await self._memberships.at(user_id, now)
        found: list[Told] = []
        for nid in work.rooms & memberships.joined:
            found += await self._in_room(await self._rooms.by_nid(nid), user_id, after, upto, now)
        if work.invites:
            for membership in memberships.by_room.values():
                if membership.membership == "invite" and after < membership.pos <= upto:
                    told = await self._invite(membership)
                    found += [told] if told is not None else []
        return sorted(found, key=lambda told: told.pos)[-MAX_WAITING:]

    async def _in_room(self, room: Room, user_id: str, after: int, upto: int, now: int) -> list[Told]:
        unread = await self._unread.notices(room, user_id, now)
        nids = [notice.nid for notice in unread if after < notice.pos <= upto][-MAX_WAITING:]
        if not nids:
            return []
        reader, _ = await self._unread.reading(room, user_id, now)
        stored = await self._events.by_nids(nids)
        names = await self._names(room, user_id)
        found = []
        for one in await self._notices.among(room, reader, [stored[nid] for nid in nids]):
            sender = await self._states.member(room, one.stored.event.sender)
            found.append(
                Told(
                    pos=one.stored.pos or 0,
                    room_nid=room.nid,
                    event=client_event(one.stored.event),
                    notice=one.notice,
                    sender_name=_text(sender.event.content, "displayname") if sender else None,
                    room_name=names[0],
                    room_alias=names[1],
                )
            )
        return found

    async def _names(self, room: Room, user_id: str) -> tuple[str | None, str | None]:
        """What to call a room, and its alias."""
        name, alias = room.state_event("m.room.name"), room.state_event("m.room.canonical_alias")
        alias_text = _text(alias.content, "alias") if alias else None
        named = (_text(name.content, "name") if name else None) or alias_text
        if named is None:
            members = [member for member, _ in await heroes(self._db.read, room, user_id)][:_MAX_NAMES]
            await self._states.load_members(room, members)
            known = [(member, room.members.get(member)) for member in members]
            texts = [_text(stored.event.content, "displayname") if stored else None for _, stored in known]
            named = ", ".join(text or member for text, (member, _) in zip(texts, known, strict=True))
        return named or None, alias_text

    async def _invite(self, membership: LocalMembership) -> Told | None:
        """An invite, if the user's rules let it notify them."""
        user_id = membership.user_id
        if not await self._invite_permissions.shows(user_id, membership.sender):
            return None
        room = await self._rooms.by_nid(membership.room_nid)
        state: list[Mapping[str, Any]]
        if membership.stripped_state is not None:
            state = orjson.loads(membership.stripped_state)
        elif membership.event_nid != NO_EVENT:
            own = (await self._events.by_nids([membership.event_nid])).values()
            sender = await self._states.member(room, membership.sender)
            told = [*own, *room.state.values(), *([sender] if sender is not None else ())]
            state = [client_event(stored.event) for stored in told]
        else:
            return None
        invite = next((e for e in state if _is(e, "m.room.member", user_id)), None)
        if invite is None:
            return None
        event = {**invite, "room_id": room.room_id}
        push_event = PushEvent(
            event, member_count=room.joined_members, sender_level=0, notification_level=lambda _: 50
        )
        rules = await self._rules.of(user_id)
        notice = evaluate(rules.ruleset, push_event, user_id=user_id, display_name=None)
        if not notice.notify:
            return None
        alias = _first(state, "m.room.canonical_alias", "alias")
        return Told(
            pos=membership.pos,
            room_nid=room.nid,
            event=event,
            notice=notice,
            sender_name=_first(state, "m.room.member", "displayname", membership.sender),
            room_name=_first(state, "m.room.name", "name") or alias,
            room_alias=alias,
        )


def _is(event: Any, type_: str, state_key: str) -> bool:
    return isinstance(event, dict) and (event.get("type"), event.get("state_key")) == (type_, state_key)


def _first(state: Iterable[Any], type_: str, field: str, state_key: str = "") -> str | None:
    """A text in the content of one piece of stripped state."""
    contents = (event.get("content") for event in state if _is(event, type_, state_key))
    return next((_text(content, field) for content in contents if isinstance(content, dict)), None)


def _text(content: Mapping[str, Any], field: str) -> str | None:
    value = content.get(field)
    return value if isinstance(value, str) and value else None
