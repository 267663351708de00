"""Notifications by email: one mail for all that has been unread for a while, and not too many of them.

A room makes mail once something in it has been unread for long enough; its next mail has to wait
longer each time, until nothing has been mailed of it for half a day.  A mail tells of every room
that waits.  Nothing is sent of what was read meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from homeserver.clock import Clock
from homeserver.email.failure import EmailNotSent
from homeserver.push.digest import digest, subject
from homeserver.push.gateway import Advances, PusherRejected, PushFailed
from homeserver.push.line import Line, Work
from homeserver.push.notification import Told
from homeserver.push.pushers import Pushers
from homeserver.push.unsubscribing import Unsubscribing
from homeserver.push.waiting import Waiting
from homeserver.storage import pushers as pusher_storage
from homeserver.storage.database import Database
from homeserver.storage.pushers import MailedRoom

TEMPLATE: Final = "notifications"

_GROWTH: Final = 6
_LONGEST_PAUSE_MS: Final = 24 * 3600 * 1000
_CALM_AFTER_MS: Final = 12 * 3600 * 1000


class Mails(Protocol):
    """Sends mail; ``email/mailer.py`` fulfils it."""

    async def send(
        self,
        to: str,
        template_name: str,
        subject: str,
        values: Mapping[str, Any],
        *,
        headers: Mapping[str, str] = ...,
    ) -> None:
        """Send one message; raises ``ValueError`` for what is no address, and ``EmailNotSent``."""
        ...


class MailPush:
    """Pushes by email; ``delay_ms`` until something unread is mailed, ``pause_ms`` between two mails."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        mails: Mails,
        waiting: Waiting,
        pushers: Pushers,
        unsubscribing: Unsubscribing,
        advance: Advances,
        app_name: str,
        delay_ms: int,
        pause_ms: int,
    ) -> None:
        self._db = db
        self._clock = clock
        self._mails = mails
        self._waiting = waiting
        self._pushers = pushers
        self._unsubscribing = unsubscribing
        self._advance = advance
        self._app_name = app_name
        self._delay_ms = delay_ms
        self._pause_ms = pause_ms

    async def work(self, line: Line, work: Work, upto: int) -> int | None:
        """Mail what waits if it is time, else say when it is.

        Raises ``PushFailed``, and ``PusherRejected`` where the address is the user's no more.
        """
        pusher = line.pusher
        if not await self._pushers.is_allowed(pusher):
            raise PusherRejected("email")
        waiting = await self._waiting.of(pusher.user_id, work, line.pos, upto)
        if not waiting:
            return None
        mailed = await pusher_storage.mailed_rooms(self._db.read, pusher.user_id, pusher.pushkey)
        now = self._clock.now_ms()
        due = min(self._due(told, mailed.get(told.room_nid), now) for told in waiting)
        if due > now:
            return due
        await self._send(line, waiting)
        line.worked()
        rooms = {told.room_nid for told in waiting}
        after = [self._after(nid, mailed.get(nid), now) for nid in sorted(rooms)]
        await self._db.write(
            partial(pusher_storage.set_mailed, user_id=pusher.user_id, pushkey=pusher.pushkey, rooms=after)
        )
        await self._advance(line, upto)
        return None

    def _due(self, told: Told, mailed: MailedRoom | None, now: int) -> int:
        """When an event may make mail, in ms."""
        sent = told.event.get("origin_server_ts")
        unread_since = min(sent, now) if isinstance(sent, int) else now
        calm = 0 if mailed is None else mailed.mailed_at + mailed.pause_ms
        return max(unread_since + self._delay_ms, calm)

    def _after(self, room_nid: int, mailed: MailedRoom | None, now: int) -> MailedRoom:
        """How long a room that has just made mail has to wait."""
        pause = self._pause_ms
        if mailed is not None and now - mailed.mailed_at < _CALM_AFTER_MS + mailed.pause_ms:
            pause = min(_LONGEST_PAUSE_MS, mailed.pause_ms * _GROWTH)
        return MailedRoom(room_nid, now, pause)

    async def _send(self, line: Line, waiting: Sequence[Told]) -> None:
        pusher = line.pusher
        link = self._unsubscribing.link(pusher)
        values = {"rooms": digest(waiting), "user_id": pusher.user_id, "unsubscribe_link": link}
        # RFC 8058: mail programs offer to end it with one click.
        headers = {"List-Unsubscribe": f"<{link}>", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click"}
        try:
            await self._mails.send(
                pusher.pushkey, TEMPLATE, subject(waiting, self._app_name), values, headers=headers
            )
        except (EmailNotSent, ValueError) as error:
            raise PushFailed(f"email: {error}") from error
