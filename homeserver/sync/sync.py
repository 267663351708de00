"""``/sync``: register, then read, then wait, until there is something to tell.

Everything is read against one position that was announced before: nothing after it
is shown, so that the next sync, which starts there, misses nothing and repeats nothing.
Specification: client-server API, "Syncing".
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
import orjson

from homeserver.e2e.key_counts import Counts, KeyCounts
from homeserver.protocol.event_format import stripped
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.invite_permission import InvitePermissions
from homeserver.rooms.newest import NewestPositions, UserPositions
from homeserver.rooms.receipts import Receipts
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.stripped_state import identifying_state
from homeserver.storage import account_data
from homeserver.storage import rooms as room_storage
from homeserver.storage.account_data import GLOBAL, AccountDatum
from homeserver.storage.database import Database
from homeserver.storage.rooms import LocalMembership
from homeserver.sync.account_data import global_events
from homeserver.sync.device_lists import DeviceListNews
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.memberships import Memberships, UserRooms
from homeserver.sync.notifier import Notifier
from homeserver.sync.positions import EphemeralPositions, SyncToken
from homeserver.sync.request import Reading, SyncRequest
from homeserver.sync.room_section import RoomSections
from homeserver.sync.rulesets import Rulesets
from homeserver.sync.sticky_section import StickySections
from homeserver.sync.typing import Typing
from homeserver.sync.watch import Watches
from homeserver.turns import in_turns
from homeserver.users.presence import Presence
from homeserver.users.to_device import ToDevice

#: The longest a client is kept waiting, in seconds.
MAX_WAIT = 120.0

_MAX_TO_DEVICE = 100
_MAX_PRESENCE = 500
#: How many of those who changed last are looked at, whomever they share rooms with.
_MAX_PRESENCE_CANDIDATES = 5_000
#: After so many rooms of one response others get their turn.
_ROOMS_AT_ONCE = 25


class Sync:
    """Answers ``/sync``."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        events: EventCache,
        memberships: Memberships,
        sections: RoomSections,
        lazy_members: LazyMembers,
        receipts: Receipts,
        typing: Typing,
        presence: Presence,
        to_device: ToDevice,
        account_data_positions: UserPositions,
        push_rules: Rulesets,
        ignored: IgnoredUsers,
        invite_permissions: InvitePermissions,
        notifier: Notifier,
        ephemeral: EphemeralPositions,
        device_lists: DeviceListNews,
        key_counts: KeyCounts,
        sticky: StickySections,
        watches: Watches,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._events = events
        self._memberships = memberships
        self._sections = sections
        self._lazy_members = lazy_members
        self._receipts = receipts
        self._typing = typing
        self._presence = presence
        self._to_device = to_device
        self._account_data_positions = account_data_positions
        self._push_rules = push_rules
        self._ignored = ignored
        self._invite_permissions = invite_permissions
        self._notifier = notifier
        self._ephemeral = ephemeral
        self._device_lists = device_lists
        self._key_counts = key_counts
        self._sticky = sticky
        self._watches = watches
        #: When each room last had an event.
        self.newest = NewestPositions(
            notifier.position, lambda nids: room_storage.last_positions(db.scan, nids)
        )
        notifier.listeners.append(self._note)
        notifier.account_data_listeners += [ignored.forget, invite_permissions.forget]

    async def wait_and_collect(self, request: SyncRequest) -> dict[str, Any]:
        """The response to a sync: at once when there is something, else when there is or time is over."""
        await self._presence.synced(request.user_id, request.set_presence, request.device_id)
        self._lazy_members.begin(
            request.user_id, request.device_id, str(request.since) if request.since else None
        )
        if request.since is None or request.full_state:
            return (await self.collect(request))[0]
        stays = request.timeout_ms > 0 and request.set_presence != "offline"
        if stays:
            self._presence.sync_begins(request.user_id, request.device_id)
        try:
            return await self._wait(request, request.since, min(request.timeout_ms / 1000, MAX_WAIT))
        finally:
            if stays:
                self._presence.sync_ends(request.user_id, request.device_id)

    async def _wait(self, request: SyncRequest, since: SyncToken, seconds: float) -> dict[str, Any]:
        """The first response that tells anything, or the last one before time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        rooms = await self._memberships.of(request.user_id)
        with self._watches.watching(request.user_id, rooms.joined) as waiter:
            if since.is_whole and waiter.has_told(request.device_id, str(since)):
                # Nothing has been heard of since the client was given this token: nothing is to be read.
                if seconds <= 0 and since == self._now():
                    return _response(since, await self._key_counts.of(request.user_id, request.device_id))
                await waiter.wait(seconds)
                waiter.reset((await self._memberships.of(request.user_id)).joined)
            while True:
                if seconds:
                    await self._notifier.senders.answered()
                response, has_news = await self.collect(request)
                if not response["to_device"]["events"]:  # what is there is deleted when they are known to be
                    waiter.note_told(request.device_id, response["next_batch"])
                remaining = deadline - loop.time()
                if has_news or remaining <= 0 or self._notifier.closing:
                    return response
                await waiter.wait(remaining)
                waiter.reset((await self._memberships.of(request.user_id)).joined)

    def _now(self) -> SyncToken:
        return SyncToken(self._notifier.position, self._ephemeral.last)

    async def collect(self, request: SyncRequest) -> tuple[dict[str, Any], bool]:
        """The response as of now, and whether it tells anything."""
        pos, ephemeral = self._notifier.position, self._ephemeral.last
        rooms = await self._memberships.at(request.user_id, pos)
        to_device, to_device_pos = await self._waiting_messages(request, pos)
        # On a first sync every room tells its own.
        after = pos if request.since is None else request.since_sticky
        sticky, sticky_pos = self._sticky.news(rooms.joined, after, pos)
        now = SyncToken(pos, ephemeral, to_device_pos, sticky_pos)
        own = await self._own_account_data(request, pos)
        reading = await self._reading(request, now, rooms, own, sticky)
        sections = await self._rooms_of(reading, rooms)
        changed, left = await self._device_news(request, rooms, pos)
        counts = await self._key_counts.of(request.user_id, request.device_id)
        response = _response(
            now,
            counts,
            rooms=sections,
            account_data=await self._account_data(request, own),
            presence=await self._presence_events(reading, changed),
            to_device=to_device,
            changed=changed,
            left=left,
        )
        has_news = bool(sections or changed or left) or any(
            response[name]["events"] for name in ("account_data", "presence", "to_device")
        )
        return response, has_news

    async def _own_account_data(self, request: SyncRequest, pos: int) -> Sequence[AccountDatum]:
        """What changed of the user's account data."""
        if not self._account_data_positions.may_have_changed(request.user_id, request.since_pos):
            return ()
        return await account_data.changed(self._db.read, request.user_id, request.since_pos, pos)

    async def device_lists(self, user_id: str, since: int, upto: int) -> tuple[list[str], list[str]]:
        """Users whose devices changed between two positions, and those no room is shared with any more."""
        upto = min(upto, self._notifier.position)
        rooms = await self._memberships.at(user_id, upto)
        with_news = await self.newest.changed(rooms.joined, since)
        return await self._device_lists.between(user_id, rooms, with_news, since, upto)

    async def _device_news(
        self, request: SyncRequest, rooms: UserRooms, pos: int
    ) -> tuple[list[str], list[str]]:
        """The same for a sync; nothing for a first one."""
        if request.since is None:
            return [], []
        with_news = await self.newest.changed(rooms.joined, request.since_pos)
        return await self._device_lists.between(request.user_id, rooms, with_news, request.since_pos, pos)

    async def _reading(
        self,
        request: SyncRequest,
        now: SyncToken,
        rooms: UserRooms,
        own: Collection[AccountDatum],
        sticky: Mapping[int, Sequence[int]],
    ) -> Reading:
        by_room: defaultdict[str, list[AccountDatum]] = defaultdict(list)
        for datum in own:
            if datum.room_id != GLOBAL:
                by_room[datum.room_id].append(datum)
        return Reading(
            request=request,
            now=now,
            with_receipts=frozenset(await self._receipts.newest.changed(rooms.joined, request.since_pos)),
            with_typing=frozenset(self._typing.changed(rooms.joined, request.since_ephemeral)),
            account_data=by_room,
            ignored=await self._ignored.by(request.user_id),
            sticky=sticky,
        )

    async def _rooms_of(self, reading: Reading, rooms: UserRooms) -> dict[str, dict[str, Any]]:
        """The sections of every room there is something to tell of, by membership and room id."""
        sections: dict[str, dict[str, Any]] = {}
        is_first = reading.request.since is None
        to_tell = await self._to_tell(reading, rooms)
        for start in range(0, len(to_tell), _ROOMS_AT_ONCE):
            some = to_tell[start : start + _ROOMS_AT_ONCE]
            if is_first:
                reading = await self._with_read_at_once(reading, some)
            async for membership in in_turns(some):
                await self._add_section(reading, membership, sections)
            if len(to_tell) > _ROOMS_AT_ONCE:
                await asyncio.sleep(0)
        return sections

    async def _with_read_at_once(self, reading: Reading, some: Sequence[LocalMembership]) -> Reading:
        rooms = [
            await self._rooms.by_nid(membership.room_nid)
            for membership in some
            if membership.membership == "join"
        ]
        if not rooms:
            return reading
        return msgspec.structs.replace(reading, at_once=await self._sections.read_at_once(reading, rooms))

    async def _to_tell(self, reading: Reading, rooms: UserRooms) -> list[LocalMembership]:
        """The memberships whose rooms have to be looked at."""
        request = reading.request
        if request.since is None or request.full_state:
            left = request.filter.room.include_leave
            return [
                membership
                for membership in rooms.by_room.values()
                if left or membership.membership not in {"leave", "ban"}
            ]
        since = request.since_pos
        nids = await self.newest.changed(rooms.joined, since)
        nids |= reading.with_receipts | reading.with_typing | reading.sticky.keys()
        nids |= await self._with_account_data(reading, rooms)
        if rooms.newest > since:
            nids |= {nid for nid, membership in rooms.by_room.items() if membership.pos > since}
        return [rooms.by_room[nid] for nid in sorted(nids)]

    async def _add_section(
        self, reading: Reading, membership: LocalMembership, sections: dict[str, dict[str, Any]]
    ) -> None:
        room = await self._rooms.by_nid(membership.room_nid)
        request = reading.request
        if not request.filter.room.allows_room(room.room_id):
            return
        # COMPAT: as from Synapse, that the room was left is told once, also where it was forgotten at once.
        is_news = request.since is not None and membership.pos > request.since_pos
        if membership.forgotten and (request.full_state or not is_news):
            return
        section: dict[str, Any] | None
        kind = membership.membership
        if kind == "join":
            section = await self._sections.joined(reading, room, membership)
        elif kind in {"invite", "knock"}:
            section = await self._stripped(membership, f"{kind}_state")
        else:
            kind = "leave"
            section = await self._sections.left(reading, room, membership)
        if section is not None:
            sections.setdefault(kind, {})[room.room_id] = (
                _as_bytes(section) if request.since is None else section
            )

    async def _stripped(self, membership: LocalMembership, name: str) -> dict[str, Any] | None:
        """An invite or a knock: what the room's servers tell of it; ``None`` for one that is not wanted."""
        if membership.membership == "invite" and not await self._invite_permissions.shows(
            membership.user_id, membership.sender
        ):
            return None
        if membership.stripped_state is not None:
            return {name: {"events": orjson.loads(membership.stripped_state)}}
        room = await self._rooms.by_nid(membership.room_nid)
        own = await self._events.by_nids([membership.event_nid])
        told = [*identifying_state(room), *(stored.event for stored in own.values())]
        return {name: {"events": [stripped(event) for event in told]}}

    async def _with_account_data(self, reading: Reading, rooms: UserRooms) -> set[int]:
        found = set()
        for room_id in reading.account_data:
            room = await self._rooms.find(room_id)
            if room is not None and room.nid in rooms.joined:
                found.add(room.nid)
        return found

    async def _account_data(
        self, request: SyncRequest, own: Collection[AccountDatum]
    ) -> list[dict[str, Any]]:
        """Global account data that the filter lets through."""
        events = await global_events(self._push_rules, request.user_id, own, first=request.since is None)
        return [event for event in events if request.filter.account_data.allows(event["type"])]

    async def _presence_events(self, reading: Reading, newly_seen: Collection[str]) -> list[dict[str, Any]]:
        """Changes of presence, and that of users who are ``newly_seen`` whenever it changed."""
        request = reading.request
        wanted = request.filter.presence
        if wanted.allows_nothing or not self._presence.enabled:
            return []
        changed = self._presence.changed(request.since_ephemeral)
        told = {presence.user_id for presence in changed}
        changed += self._presence.there([user_id for user_id in newly_seen if user_id not in told])
        by_user = {
            presence.user_id: presence
            for presence in changed[:_MAX_PRESENCE_CANDIDATES]
            if presence.user_id not in reading.ignored
            and (request.since is not None or presence.state != "offline")
            and wanted.allows("m.presence", presence.user_id)
        }
        others = [user_id for user_id in by_user if user_id != request.user_id]
        seen = await self._presence.seen_by(request.user_id, others) if others else set()
        shown = [each for user_id, each in by_user.items() if user_id == request.user_id or user_id in seen]
        return [
            {"type": "m.presence", "sender": each.user_id, "content": self._presence.content(each)}
            for each in shown[:_MAX_PRESENCE]
        ]

    async def _waiting_messages(
        self, request: SyncRequest, pos: int
    ) -> tuple[list[orjson.Fragment], int | None]:
        """Messages for the device, and up to where when these are not all.

        Those the token shows the device to have are deleted, but not what a stream was merely written.
        """
        if request.device_id is None:
            return [], None
        after = _to_device_position(request.since) if request.since else 0
        device = (request.user_id, request.device_id)
        if request.has_received:
            waiting = await self._to_device.waiting_after(*device, after, pos, limit=_MAX_TO_DEVICE)
        else:
            waiting = await self._to_device.waiting(*device, pos, limit=_MAX_TO_DEVICE, after=after)
        upto = waiting[-1][0] if len(waiting) == _MAX_TO_DEVICE else None
        return [orjson.Fragment(message) for _, message in waiting], upto

    def _note(self, news: NewEvents) -> None:
        self.newest.note(news.room.nid, news.pos)


def _response(
    now: SyncToken,
    counts: Counts,
    *,
    rooms: Mapping[str, Any] | None = None,
    account_data: Sequence[Any] = (),
    presence: Sequence[Any] = (),
    to_device: Sequence[Any] = (),
    changed: Sequence[str] = (),
    left: Sequence[str] = (),
) -> dict[str, Any]:
    return {
        "next_batch": str(now),
        "rooms": rooms or {},
        "account_data": {"events": account_data},
        "presence": {"events": presence},
        "to_device": {"events": to_device},
        "device_lists": {"changed": changed, "left": left},
        "device_one_time_keys_count": counts.one_time_keys,
        "device_unused_fallback_key_types": counts.unused_fallback_types,
    }


def _as_bytes(section: dict[str, Any]) -> orjson.Fragment:
    """A room written at once, so that little is left to do at the end for all rooms together.

    Copied, because what orjson gives keeps the buffer it was written in, which is several times as large.
    """
    return orjson.Fragment(bytes(memoryview(orjson.dumps(section))))


def _to_device_position(token: SyncToken) -> int:
    return token.pos if token.to_device is None else token.to_device
