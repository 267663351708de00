"""Keeps the user directory up to date: reads what changes in rooms, and what local users say of themselves.

Sending an event costs nothing here beyond noting the room; each room's state is read on from the
version it was read up to, which is stored, so that nothing is missed over a restart.  Local users are
shown as their profile has them, others as their memberships do, those of public rooms before those of
private ones.  A name that somebody uses in a private room alone is not shown to those outside of it
as long as there is another.

What happens gathers for a moment, unless somebody waits for it.  Rooms in which nothing happened but
to local users, of whom rooms say nothing that is shown, are then done with all at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import structlog

from homeserver.protocol.ids import server_of
from homeserver.protocol.search_words import words_to_find
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.storage import events as event_storage
from homeserver.storage import presence, profiles, user_directory, users
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.user_directory import Entry, Progress

_log = structlog.get_logger()

#: Users, or rooms, of one step.
_PAGE = 200
#: How long what happens gathers, in seconds.
_GATHER_S = 1.0
#: Longer names and addresses are not kept.
_MAX_NAME_CHARS = 256
_MAX_AVATAR_CHARS = 1_000


class DirectoryReader:
    """Reads rooms and profiles into the directory."""

    def __init__(self, db: Database, rooms: Rooms, server_name: str) -> None:
        self._db = db
        self._rooms = rooms
        self._server_name = server_name
        self._dirty_rooms: set[int] = set()
        #: Those of them that are to be read one by one.
        self._shared_rooms: set[int] = set()
        self._dirty_users: set[str] = set()
        self._news = asyncio.Event()
        self._wanted = asyncio.Event()
        self._idle = asyncio.Event()
        self._working = asyncio.Lock()
        self._is_running = False

    def new_events(self, news: NewEvents) -> None:
        """Note a room whose state has changed."""
        if not news.events or news.room.state_ver >= (news.events[0].pos or 0):
            self._dirty_rooms.add(news.room.nid)
            self._note()

    def user_changed(self, user_id: str) -> None:
        """Note a local user who is new, or whose profile has changed, or who is gone."""
        self._dirty_users.add(user_id)
        self._note()

    def _note(self) -> None:
        self._idle.clear()
        self._news.set()

    async def run(self) -> None:
        """Read what was missed, then what comes, until cancelled."""
        self._is_running = True
        try:
            await self.catch_up()
            while True:
                await self._news.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_GATHER_S):
                        await self._wanted.wait()
                self._news.clear()
                self._wanted.clear()
                await self.work_off()
        finally:
            self._is_running = False

    async def settled(self, seconds: float) -> None:
        """Wait until everything that is noted is read, or for so long where somebody is at it."""
        if not self._is_running:
            await self.work_off()
        elif not self._idle.is_set():
            self._wanted.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), seconds)

    async def catch_up(self) -> None:
        """Read what changed while nobody looked; what changes meanwhile is read in between."""
        after_user, page = "", [""]
        while page:
            page = await user_directory.local_users(self._db.scan, after_user, _PAGE)
            after_user = page[-1] if page else ""
            self._dirty_users.update(page)
            await self.work_off()
        rooms, after_room = [0], 0
        while rooms:
            rooms = await user_directory.rooms_behind(self._db.scan, after_room, _PAGE)
            after_room = rooms[-1] if rooms else 0
            self._dirty_rooms.update(rooms)
            await self.work_off()

    async def work_off(self) -> None:
        """Read everything that is noted; what fails is logged, and read when it changes again."""
        async with self._working:
            while self._dirty_users or self._dirty_rooms or self._shared_rooms:
                try:
                    if self._dirty_users:
                        page = [self._dirty_users.pop() for _ in range(min(_PAGE, len(self._dirty_users)))]
                        await self._put(await self._local_entries(page), gone=page)
                    elif self._shared_rooms:
                        await self._read_room(self._shared_rooms.pop())
                    else:
                        count = min(_PAGE, len(self._dirty_rooms))
                        await self._read_rooms([self._dirty_rooms.pop() for _ in range(count)])
                except Exception:
                    _log.exception("user directory not brought up to date")
            self._idle.set()

    async def _read_rooms(self, room_nids: Sequence[int]) -> None:
        """Note of rooms that only local users have to do with that they are read; the others are to be."""
        own = await user_directory.own_rooms(self._db.scan, room_nids, self._server_name)
        changed = await user_directory.members_changed_in(self._db.scan, list(own))
        others = {nid for nid, user_id in changed if server_of(user_id) != self._server_name}
        reached = [
            Progress(nid, epoch, ver, self._is_public(await self._rooms.by_nid(nid)))
            for nid, (epoch, ver) in own.items()
            if nid not in others
        ]
        if reached:
            await self._db.write(partial(user_directory.set_progress, reached=reached))
        self._shared_rooms.update(set(room_nids) - {progress.room_nid for progress in reached})

    def _is_public(self, room: Room) -> bool:
        return self._rooms.is_in(room) and is_public(room)

    async def _read_room(self, room_nid: int) -> None:
        row = await room_storage.by_nid(self._db.scan, room_nid)
        if row is None:
            return
        room = await self._rooms.by_nid(room_nid)
        reached = Progress(room_nid, row.epoch, row.state_ver, self._is_public(room))
        before = await user_directory.progress(self._db.scan, room_nid)
        changed: Sequence[str] | None = None
        if before is not None and before.epoch == row.epoch and before.is_public >= reached.is_public:
            changed = await user_directory.members_changed(
                self._db.scan, reached, before.state_ver, _PAGE + 1
            )
        if changed is not None and len(changed) <= _PAGE:
            await self._read_members(reached, changed)
        else:
            await self._read_all_members(reached)
        await self._db.write(partial(user_directory.set_progress, reached=[reached]))

    async def _read_all_members(self, room: Progress) -> None:
        page = await user_directory.joined(self._db.scan, room.room_nid, 0, _PAGE)
        while page:
            await self._read_members(room, [user_id for _, user_id in page])
            page = await user_directory.joined(self._db.scan, room.room_nid, page[-1][0], _PAGE)

    async def _read_members(self, room: Progress, user_ids: Sequence[str]) -> None:
        """Bring the entries of some users up to date with what a room says of them."""
        joins = await user_directory.joins_of(self._db.scan, room.room_nid, user_ids)
        local = [user_id for user_id in user_ids if server_of(user_id) == self._server_name]
        theirs = {user_id: nid for user_id, nid in joins.items() if server_of(user_id) != self._server_name}
        shown = await self._local_entries(local) | await self._remote_entries(theirs, room.is_public)
        left = [user_id for user_id in user_ids if user_id not in joins and user_id not in local]
        still_there = await presence.joined_somewhere(self._db.scan, left) if left else set()
        await self._put(shown, gone=[user_id for user_id in left if user_id not in still_there])

    async def _local_entries(self, user_ids: Sequence[str]) -> dict[str, Entry]:
        active = await users.active_among(self._db.scan, user_ids)
        named = await profiles.names_and_avatars(self._db.scan, list(active))
        return {
            user_id: _entry(user_id, named.get(user_id, {}), is_remote=False, is_public=True)
            for user_id in active
        }

    async def _remote_entries(self, joins: Mapping[str, int], is_public: bool) -> dict[str, Entry]:
        events = await event_storage.by_nids(self._db.scan, list(joins.values()))
        return {
            user_id: _entry(user_id, events[nid].event.content, is_remote=True, is_public=is_public)
            for user_id, nid in joins.items()
            if nid in events
        }

    async def _put(self, shown: Mapping[str, Entry], *, gone: Collection[str]) -> None:
        """Store the entries that are news, and remove those of ``gone`` users who are not shown."""
        known = await user_directory.entries(self._db.scan, {*shown, *gone})
        news = {
            entry: words_to_find(entry.user_id, entry.display_name)
            for user_id, entry in shown.items()
            if (old := known.get(user_id)) is None or (old != entry and entry.is_public >= old.is_public)
        }
        removed = [user_id for user_id in gone if user_id in known and user_id not in shown]
        if news:
            await self._db.write(partial(user_directory.put, found_by=news))
        if removed:
            await self._db.write(partial(user_directory.remove, user_ids=removed))


def is_public(room: Room) -> bool:
    """Whether anybody may join a room, or read its history."""
    rule, history = room.state_event("m.room.join_rules"), room.state_event("m.room.history_visibility")
    return (rule is not None and rule.content.get("join_rule") == "public") or (
        history is not None and history.content.get("history_visibility") == "world_readable"
    )


def _entry(user_id: str, said: Mapping[str, object], *, is_remote: bool, is_public: bool) -> Entry:
    name, avatar = said.get("displayname"), said.get("avatar_url")
    return Entry(
        user_id=user_id,
        is_remote=is_remote,
        display_name=name[:_MAX_NAME_CHARS] if isinstance(name, str) and name else None,
        avatar_url=avatar if isinstance(avatar, str) and len(avatar) <= _MAX_AVATAR_CHARS else None,
        is_public=is_public,
    )
