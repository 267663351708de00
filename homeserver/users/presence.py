"""Presence: who is online, as far as their clients say so.

Kept in memory, the last state of each user on disk too.  A change counts at once, and is stored and
told with all others of the same moment (``flush``): one transaction, each waiting client woken once,
and one EDU to a server.  What somebody shares with whom is looked up for those who changed only, and
the more there was to tell, the longer until the next time.  Specification: client-server API,
"Presence"; server-server API, the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any

import msgspec

from homeserver.clock import Clock
from homeserver.errors import not_found
from homeserver.protocol.ids import is_user_id, server_name_of, server_of
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.edus import News, RemoteEdus
from homeserver.rooms.room import MEMBER
from homeserver.storage import presence as storage
from homeserver.storage import sharing
from homeserver.storage.database import Database
from homeserver.storage.presence import StoredPresence
from homeserver.users.present_devices import STATES, PresenceState, PresentDevices

__all__ = ["STATES", "Presence", "PresenceState", "UserPresence"]

#: Milliseconds without doing anything after which somebody is away, and "currently active" no more.
_IDLE_AFTER_MS = 5 * 60_000
_CURRENTLY_ACTIVE_MS = 60_000
#: Other servers are believed for so long.
_REMOTE_OFFLINE_AFTER_MS = 30 * 60_000

_REMEMBERED = 50_000
_MAX_EDU_USERS = 100
_MAX_STATUS = 1000
#: Of one flush.
_MAX_TOLD = 200
_MAX_NEWCOMERS = 100
#: Seconds until the next flush for each client that was woken and each server that was told: what
#: presence may take of the server's time at most.
_PER_WAKE_S = 0.005
_PER_EDU_S = 0.002
_LONGEST_PAUSE_S = 30.0


class UserPresence(msgspec.Struct, frozen=True, gc=False):
    """A user's presence; times in milliseconds since the epoch."""

    user_id: str
    state: PresenceState
    status_msg: str | None
    last_active_at: int
    #: When their server last said so, for users of others.
    last_seen_at: int
    #: Ephemeral position of the last change.
    pos: int
    #: Whether others were told that they are doing something just now.
    active_told: bool = False


class Presence:
    """The presence of local users and of those they share rooms with.

    ``next_position`` gives ephemeral positions.  Where ``enabled`` is false nobody is ever
    seen online and nothing is sent.
    """

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        news: News,
        edus: RemoteEdus,
        next_position: Callable[[], int],
        server_name: str,
        enabled: bool = True,
    ) -> None:
        self._db = db
        self._clock = clock
        self._news = news
        self._edus = edus
        self._next_position = next_position
        self._server_name = server_name
        self.enabled = enabled
        #: Those who changed last stand last.
        self._users: OrderedDict[str, UserPresence] = OrderedDict()
        #: Those of them who are not offline.
        self._there: set[str] = set()
        self._devices = PresentDevices()
        #: Whose change is still to be stored, and to be told, the oldest first.
        self._unstored: set[str] = set()
        self._untold: dict[str, None] = {}
        #: Room numbers and servers that somebody came into the room from, who is to be told of those there.
        self._newcomers: dict[tuple[int, str], None] = {}
        self._quiet_until = 0.0

    async def of(self, user_id: str) -> UserPresence:
        """A user's presence.  ``M_NOT_FOUND`` for somebody nothing is known of."""
        presence = self._users.get(user_id) or await self._load(user_id)
        if presence is None:
            raise not_found("Nothing is known of this user's presence")
        return presence

    async def set_state(
        self, user_id: str, state: PresenceState, status_msg: str | None = None, device_id: str | None = None
    ) -> None:
        """A local user says at a device how present they are; the most present of their devices counts."""
        if self.enabled:
            now = self._clock.now_ms()
            known = self._users.get(user_id) or await self._load(user_id)
            self._devices.said(user_id, device_id, state, now)
            status = status_msg[:_MAX_STATUS] if status_msg else None
            self._put(user_id, self._devices.state(user_id, now), status, known, active=state == "online")

    async def synced(self, user_id: str, state: PresenceState, device_id: str | None = None) -> None:
        """A client of a local user syncs, which counts as being ``state`` (not when that is offline)."""
        if not self.enabled or state == "offline":
            return
        now = self._clock.now_ms()
        known = self._users.get(user_id) or await self._load(user_id)
        # A client goes on syncing as online while its user has long gone for tea.
        if known and known.state == "unavailable" and now - known.last_active_at > _IDLE_AFTER_MS:
            state = "unavailable"
        self._devices.said(user_id, device_id, state, now)
        combined = self._devices.state(user_id, now)
        if known is None or known.state != combined:
            status = known.status_msg if known else None
            self._put(user_id, combined, status, known, active=combined == "online")

    def sync_begins(self, user_id: str, device_id: str | None = None) -> None:
        """A long poll waits for a local user, who is not offline while it does."""
        self._devices.sync_begins(user_id, device_id, self._clock.now_ms())

    def sync_ends(self, user_id: str, device_id: str | None = None) -> None:
        """That long poll has ended."""
        self._devices.sync_ends(user_id, device_id, self._clock.now_ms())

    async def active(self, user_id: str) -> None:
        """A local user does something that only somebody at a client does."""
        known = self._users.get(user_id)
        if not self.enabled or known is None or known.state == "offline":
            return
        if known.state == "online" and known.active_told:
            self._users[user_id] = msgspec.structs.replace(known, last_active_at=self._clock.now_ms())
        else:
            self._devices.all_become(user_id, "online")
            self._put(user_id, "online", known.status_msg, known, active=True)

    async def receive(self, origin: str, content: dict[str, Any]) -> None:
        """Take in an ``m.presence`` EDU.

        Users of other servers than the origin are passed over, and those who are in no room here.
        """
        updates = content.get("push")
        if not self.enabled or not isinstance(updates, list):
            return
        now = self._clock.now_ms()
        by_user = {
            user_id: update
            for update in updates[:_MAX_EDU_USERS]
            if isinstance(update, dict) and isinstance(user_id := update.get("user_id"), str)
        }
        theirs = [each for each in by_user if is_user_id(each) and server_name_of(each) == origin]
        for user_id in await storage.joined_somewhere(self._db.scan, theirs):
            update = by_user[user_id]
            state, ago, status = (update.get(name) for name in ("presence", "last_active_ago", "status_msg"))
            if state not in STATES:
                continue
            ago = ago if isinstance(ago, int) and 0 <= ago < now else 0
            status = status[:_MAX_STATUS] if isinstance(status, str) and status else None
            known = self._users.get(user_id)
            self._put(user_id, state, status, known, active_at=now - ago)

    def new_events(self, news: NewEvents) -> None:
        """A local user who comes into a room is seen there too; others who do see the users here."""
        for stored in news.events:
            event = stored.event
            if event.type != MEMBER or event.content.get("membership") != "join":
                continue
            user_id = event.state_key or ""
            server = server_of(user_id)
            if server == self._server_name:
                if user_id in self._there and user_id in news.users:
                    self._untold.setdefault(user_id, None)
            elif self._there and len(self._newcomers) < _MAX_NEWCOMERS:
                self._newcomers.setdefault((news.room.nid, server), None)

    def changed(self, since: int) -> list[UserPresence]:
        """Everybody whose presence changed after an ephemeral position, the last change first."""
        changed = []
        for presence in reversed(self._users.values()):
            if presence.pos <= since:
                break
            changed.append(presence)
        return changed

    def there(self, user_ids: Iterable[str]) -> list[UserPresence]:
        """Those of some users who are not offline."""
        return [self._users[user_id] for user_id in user_ids if user_id in self._there]

    async def may_see(self, user_id: str, other: str) -> bool:
        """Whether a local user may know another's presence: who shares a room with them."""
        return user_id == other or bool(await self.seen_by(user_id, [other]))

    async def seen_by(self, user_id: str, others: Sequence[str]) -> set[str]:
        """Those of some users whose presence a local user may know."""
        return await sharing.sharing_with(
            self._db.scan if len(others) > 1 else self._db.read, others, user_id
        )

    def expire(self) -> None:
        """Let those go idle or offline who do nothing.  To be called every few seconds."""
        now = self._clock.now_ms()
        for user_id in list(self._there):
            known = self._users[user_id]
            state = self._state_by_now(known, now)
            if state != known.state or (known.active_told and not self._is_active(known)):
                self._put(user_id, state, known.status_msg, known)

    async def flush(self) -> None:
        """Store and tell what has changed; to be called about every second, and before the server stops.

        Does nothing yet when the time before was a while of work for everybody.
        """
        if self._clock.monotonic() < self._quiet_until:
            return
        if self._newcomers:
            await self._greet()
        if self._untold:
            await self._tell()

    async def _greet(self) -> None:
        """Tell servers that have come into rooms who is there."""
        newcomers, self._newcomers = self._newcomers, {}
        members = await sharing.local_members(self._db.scan, list({room_nid for room_nid, _ in newcomers}))
        for room_nid, server in newcomers:
            for each in self.there(members.get(room_nid, ()))[:_MAX_EDU_USERS]:
                self._edus.send_presence([server], {"user_id": each.user_id, **self.content(each)})

    async def _tell(self) -> None:
        told = list(self._untold)[:_MAX_TOLD]
        for user_id in told:
            del self._untold[user_id]
        changed = [self._users[user_id] for user_id in told if user_id in self._users]
        await self._store([each for each in changed if each.user_id in self._unstored])
        local = [each for each in changed if server_name_of(each.user_id) == self._server_name]
        rooms = await sharing.rooms_of(self._db.scan, told)
        servers = await sharing.servers_of_each(self._db.scan, [each.user_id for each in local])
        woken = self._news.wake(rooms=rooms, users=[each.user_id for each in local])
        # Nothing is awaited in between, so that each server gets one EDU for all of them.
        for each in local:
            self._edus.send_presence(
                servers.get(each.user_id, ()), {"user_id": each.user_id, **self.content(each)}
            )
        edus = len({server for of_user in servers.values() for server in of_user} - {self._server_name})
        pause = min(woken * _PER_WAKE_S + edus * _PER_EDU_S, _LONGEST_PAUSE_S)
        self._quiet_until = self._clock.monotonic() + pause

    def content(self, presence: UserPresence) -> dict[str, Any]:
        """The content of an ``m.presence`` event."""
        ago = max(0, self._clock.now_ms() - presence.last_active_at)
        content: dict[str, Any] = {"presence": presence.state, "last_active_ago": ago}
        if presence.state == "online":
            content["currently_active"] = self._is_active(presence)
        if presence.status_msg is not None:
            content["status_msg"] = presence.status_msg
        return content

    async def _store(self, changed: Collection[UserPresence]) -> None:
        rows = [
            StoredPresence(each.user_id, each.state, each.status_msg, each.last_active_at) for each in changed
        ]
        self._unstored.difference_update(row.user_id for row in rows)
        if rows:
            await self._db.write(partial(storage.put_all, rows=rows))

    def _is_active(self, presence: UserPresence) -> bool:
        return self._clock.now_ms() - presence.last_active_at < _CURRENTLY_ACTIVE_MS

    def _state_by_now(self, known: UserPresence, now: int) -> PresenceState:
        if server_name_of(known.user_id) != self._server_name:
            return "offline" if now - known.last_seen_at > _REMOTE_OFFLINE_AFTER_MS else known.state
        if known.state == "online" and now - known.last_active_at > _IDLE_AFTER_MS:
            self._devices.all_become(known.user_id, "unavailable")
        return self._devices.state(known.user_id, now)

    def _put(
        self,
        user_id: str,
        state: PresenceState,
        status_msg: str | None,
        known: UserPresence | None,
        *,
        active: bool = False,
        active_at: int | None = None,
    ) -> None:
        """Note a presence; ``active``: now, ``active_at``: at another time."""
        now = self._clock.now_ms()
        last_active_at = now if active or known is None else known.last_active_at
        presence = UserPresence(
            user_id=user_id,
            state=state,
            status_msg=status_msg,
            last_active_at=last_active_at if active_at is None else active_at,
            last_seen_at=now,
            pos=self._next_position(),
        )
        is_active = state == "online" and self._is_active(presence)
        self._users[user_id] = msgspec.structs.replace(presence, active_told=is_active)
        self._users.move_to_end(user_id)
        (self._there.discard if state == "offline" else self._there.add)(user_id)
        is_said = known is not None and (known.state, known.status_msg) == (state, status_msg)
        if not is_said:
            self._unstored.add(user_id)
        if not is_said or (known is not None and known.active_told != is_active):
            self._untold.setdefault(user_id, None)
        if len(self._users) > _REMEMBERED:
            self._forget(next(iter(self._users)))

    def _forget(self, user_id: str) -> None:
        del self._users[user_id]
        self._there.discard(user_id)
        self._unstored.discard(user_id)
        self._untold.pop(user_id, None)

    async def _load(self, user_id: str) -> UserPresence | None:
        stored = await storage.of_user(self._db.read, user_id)
        if stored is None:
            return None
        # After a restart nobody is known to be there until they show themselves.
        return UserPresence(user_id, "offline", stored.status_msg, stored.last_active_at, 0, 0)
