"""Presence: who is online, as far as their clients say so.

Kept in memory, the last state of each user on disk too.  Changes have ephemeral
positions.  Specification: client-server API, "Presence"; server-server API, the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal, TypeAlias

import msgspec

from homeserver.clock import Clock
from homeserver.errors import not_found
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.rooms.edus import News, RemoteEdus
from homeserver.rooms.rooms import Rooms
from homeserver.storage import presence as storage
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.presence import StoredPresence

PresenceState: TypeAlias = Literal["online", "unavailable", "offline"]
STATES: tuple[PresenceState, ...] = ("online", "unavailable", "offline")

#: Milliseconds without a sync after which somebody is offline, without doing anything idle.
_OFFLINE_AFTER_MS = 30_000
_IDLE_AFTER_MS = 5 * 60_000
_CURRENTLY_ACTIVE_MS = 60_000
#: Other servers are believed for so long.
_REMOTE_OFFLINE_AFTER_MS = 30 * 60_000

_REMEMBERED = 50_000
_MAX_EDU_USERS = 100
_MAX_STATUS = 1000


class UserPresence(msgspec.Struct, frozen=True, gc=False):
    """A user's presence; times in milliseconds since the epoch."""

    user_id: str
    state: PresenceState
    status_msg: str | None
    last_active_at: int
    #: When a client of theirs last kept up its presence (their server, for users of others).
    last_seen_at: int
    #: Ephemeral position of the last change.
    pos: int


class Presence:
    """The presence of local users and of those they share rooms with.

    ``next_position`` gives ephemeral positions.  Where ``enabled`` is false nobody is ever
    seen online and nothing is sent.
    """

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        clock: Clock,
        news: News,
        edus: RemoteEdus,
        next_position: Callable[[], int],
        server_name: str,
        enabled: bool = True,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._clock = clock
        self._news = news
        self._edus = edus
        self._next_position = next_position
        self._server_name = server_name
        self.enabled = enabled
        #: Those who changed last stand last.
        self._users: OrderedDict[str, UserPresence] = OrderedDict()
        #: Local users who keep syncing, and so do not go offline.
        self._syncing: dict[str, int] = {}

    async def of(self, user_id: str) -> UserPresence:
        """A user's presence.  ``M_NOT_FOUND`` for somebody nothing is known of."""
        presence = self._users.get(user_id) or await self._load(user_id)
        if presence is None:
            raise not_found("Nothing is known of this user's presence")
        return presence

    async def set_state(self, user_id: str, state: PresenceState, status_msg: str | None = None) -> None:
        """A local user says how present they are."""
        if self.enabled:
            now = self._clock.now_ms()
            status = status_msg[:_MAX_STATUS] if status_msg else None
            await self._put(user_id, state, status, now if state == "online" else None)

    async def synced(self, user_id: str, state: PresenceState) -> None:
        """A client of a local user syncs, which counts as being ``state`` (not when that is offline)."""
        if not self.enabled or state == "offline":
            return
        known = self._users.get(user_id) or await self._load(user_id)
        now = self._clock.now_ms()
        # A client goes on syncing as online while its user has long gone for tea.
        is_idle = (
            known is not None
            and (known.state, state) == ("unavailable", "online")
            and now - known.last_active_at > _IDLE_AFTER_MS
        )
        if known is None or (known.state != state and not is_idle):
            status = known.status_msg if known else None
            await self._put(user_id, state, status, now if state == "online" else None)
        else:
            self._users[user_id] = msgspec.structs.replace(known, last_seen_at=now)

    def sync_begins(self, user_id: str) -> None:
        """A long poll waits for a local user, who is not offline while it does."""
        self._syncing[user_id] = self._syncing.get(user_id, 0) + 1

    def sync_ends(self, user_id: str) -> None:
        """That long poll has ended."""
        left = self._syncing.get(user_id, 0) - 1
        if left > 0:
            self._syncing[user_id] = left
        else:
            self._syncing.pop(user_id, None)
        known = self._users.get(user_id)
        if known is not None:
            self._users[user_id] = msgspec.structs.replace(known, last_seen_at=self._clock.now_ms())

    async def active(self, user_id: str) -> None:
        """A local user does something that only somebody at a client does."""
        known = self._users.get(user_id)
        if self.enabled and known is not None:
            now = self._clock.now_ms()
            if known.state == "online":
                self._users[user_id] = msgspec.structs.replace(known, last_active_at=now)
            elif known.state == "unavailable":
                await self._put(user_id, "online", known.status_msg, now)

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
        known = await storage.joined_somewhere(self._db.scan, theirs)
        for user_id in theirs:
            if user_id not in known:
                continue
            update = by_user[user_id]
            state, ago, status = (update.get(name) for name in ("presence", "last_active_ago", "status_msg"))
            if state not in STATES:
                continue
            ago = ago if isinstance(ago, int) and 0 <= ago < now else 0
            status = status[:_MAX_STATUS] if isinstance(status, str) and status else None
            await self._put(user_id, state, status, now - ago)

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
        known = [self._users[user_id] for user_id in user_ids if user_id in self._users]
        return [presence for presence in known if presence.state != "offline"]

    async def may_see(self, user_id: str, other: str) -> bool:
        """Whether a local user may know another's presence: who shares a room with them."""
        if user_id == other:
            return True
        memberships = await room_storage.local_memberships_of(self._db.read, user_id)
        joined = [membership.room_nid for membership in memberships if membership.membership == "join"]
        return await self.shares_room(other, joined)

    async def shares_room(self, user_id: str, room_nids: Collection[int]) -> bool:
        """Whether a user is joined to one of some rooms."""
        return bool(await storage.rooms_joined_among(self._db.read, user_id, list(room_nids)))

    async def expire(self) -> None:
        """Let those go idle or offline who do nothing.  To be called every few seconds."""
        now = self._clock.now_ms()
        for known in list(self._users.values()):
            state = self._state_by_now(known, now)
            if state != known.state:
                await self._put(known.user_id, state, known.status_msg, None)

    def content(self, presence: UserPresence) -> dict[str, Any]:
        """The content of an ``m.presence`` event."""
        ago = max(0, self._clock.now_ms() - presence.last_active_at)
        content: dict[str, Any] = {"presence": presence.state, "last_active_ago": ago}
        if presence.state == "online":
            content["currently_active"] = ago < _CURRENTLY_ACTIVE_MS
        if presence.status_msg is not None:
            content["status_msg"] = presence.status_msg
        return content

    def _state_by_now(self, known: UserPresence, now: int) -> PresenceState:
        if known.state == "offline":
            return "offline"
        is_local = server_name_of(known.user_id) == self._server_name
        patience = _OFFLINE_AFTER_MS if is_local else _REMOTE_OFFLINE_AFTER_MS
        if known.user_id not in self._syncing and now - known.last_seen_at > patience:
            return "offline"
        if is_local and known.state == "online" and now - known.last_active_at > _IDLE_AFTER_MS:
            return "unavailable"
        return known.state

    async def _put(
        self, user_id: str, state: PresenceState, status_msg: str | None, active_at: int | None
    ) -> None:
        known = self._users.get(user_id) or await self._load(user_id)
        now = self._clock.now_ms()
        presence = UserPresence(
            user_id=user_id,
            state=state,
            status_msg=status_msg,
            last_active_at=active_at or (known.last_active_at if known else now),
            last_seen_at=now if state != "offline" else (known.last_seen_at if known else now),
            pos=self._next_position(),
        )
        self._users[user_id] = presence
        self._users.move_to_end(user_id)
        if len(self._users) > _REMEMBERED:
            self._users.popitem(last=False)
        if known is not None and (known.state, known.status_msg) == (state, status_msg):
            return
        await self._db.write(
            lambda tx: storage.put(tx, StoredPresence(user_id, state, status_msg, presence.last_active_at))
        )
        await self._tell(presence)

    async def _tell(self, presence: UserPresence) -> None:
        """Wake whoever shares a room with the user, and tell the servers that do."""
        if server_name_of(presence.user_id) != self._server_name:
            local = await storage.rooms_of(self._db.read, presence.user_id)
            self._news.wake(rooms=local)
            return
        memberships = await room_storage.local_memberships_of(self._db.read, presence.user_id)
        joined = [membership.room_nid for membership in memberships if membership.membership == "join"]
        self._news.wake(rooms=joined, users=(presence.user_id,))
        servers: set[str] = set()
        for nid in joined:
            servers.update((await self._rooms.by_nid(nid)).servers)
        update = {"user_id": presence.user_id, **self.content(presence)}
        self._edus.send_presence(servers, update)

    async def _load(self, user_id: str) -> UserPresence | None:
        stored = await storage.of_user(self._db.read, user_id)
        if stored is None:
            return None
        # After a restart nobody is known to be there until they show themselves.
        return UserPresence(user_id, "offline", stored.status_msg, stored.last_active_at, 0, 0)
