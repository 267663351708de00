"""Messages from device to device: delivered to each device once, in order.

What they say is nobody's business here.  Messages wait in the database until the
receiving device shows, by the token of its next sync, that it has them.
Specification: client-server API, "Send-to-Device messaging"; server-server API, the same.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import orjson

from homeserver.clock import Clock
from homeserver.errors import MatrixError, bad_json
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.rooms.edus import News, RemoteEdus
from homeserver.rooms.newest import UserPositions
from homeserver.storage import devices as device_storage
from homeserver.storage import to_device as storage
from homeserver.storage import transaction_ids
from homeserver.storage.database import Database, Transaction
from homeserver.storage.numbers import Sequence

#: Stands for every device of a user.
ALL_DEVICES = "*"

_MAX_EDU_MESSAGES = 1000
_MAX_MESSAGE_ID = 256
_MAX_MESSAGE_BYTES = 65_536
#: Messages to one server go in EDUs of about this size, and so many at most: none is too large to be taken.
_EDU_BYTES = 60_000
_MAX_PART = 500

#: Devices for which nothing waits, that is known of.
_REMEMBERED_DEVICES = 10_000

#: User id to device id (or ``ALL_DEVICES``) to content.
Messages = Mapping[str, Mapping[str, Mapping[str, Any]]]

#: A peer repeats a transaction for as long as it gets no answer; not for longer than this.
_RECEIVED_KEPT_MS = 7 * 24 * 3600 * 1000


class ToDevice:
    """Sends messages to devices, here and elsewhere."""

    def __init__(
        self,
        *,
        db: Database,
        positions: Sequence,
        clock: Clock,
        news: News,
        edus: RemoteEdus,
        server_name: str,
    ) -> None:
        self._db = db
        self._positions = positions
        self._clock = clock
        self._news = news
        self._edus = edus
        self._server_name = server_name
        #: When something was sent to each user's devices the last time.
        self._newest = UserPositions(positions.last)
        #: Devices for which nothing waited at or before a position.
        self._nothing_upto: OrderedDict[tuple[str, str], int] = OrderedDict()

    async def send(
        self, sender: str, device_id: str | None, type_: str, txn_id: str, messages: Messages
    ) -> None:
        """Deliver a local user's messages; repeating a transaction id does nothing.

        Messages to devices that do not exist are lost.  When this returns, all others are on
        disk, here or on their way.  ``M_BAD_JSON`` for what is no user id, ``M_TOO_LARGE``
        for a message past 64 KiB.
        """
        if not all(is_user_id(user_id) for user_id in messages):
            raise bad_json("'messages' has a key that is not a user ID")
        _check_sizes(type_, sender, messages)
        local, remote = self._by_server(messages)
        scope = f"sendToDevice/{type_}"
        now = self._clock.now_ms()

        async def is_new(tx: Transaction) -> bool:
            """Note the transaction id; a device that names none cannot repeat itself."""
            if device_id is None:
                return True
            if await transaction_ids.event_id(tx, sender, device_id, scope, txn_id) is not None:
                return False
            await transaction_ids.add(tx, sender, device_id, scope, txn_id, event_id="", now=now)
            return True

        edus = self._edus.durable(
            (server, "m.direct_to_device", _edu_content(sender, type_, part))
            for server, for_server in remote.items()
            for part in messages_in_parts(for_server, _EDU_BYTES)
        )
        pos = self._next_position(local)

        async def work(tx: Transaction) -> bool:
            if not await is_new(tx):
                return False
            await _store(tx, pos, sender, type_, local)
            await edus.store(tx)
            return True

        if await self._db.write(work):
            self._news.announce(pos, users=local)
            edus.send()

    async def receive(self, origin: str, content: dict[str, Any]) -> None:
        """Take in an ``m.direct_to_device`` EDU; one that came before, or is malformed, is passed over."""
        sender, type_, message_id = (content.get(name) for name in ("sender", "type", "message_id"))
        if not isinstance(sender, str) or not is_user_id(sender) or server_name_of(sender) != origin:
            return
        if not isinstance(type_, str) or not isinstance(message_id, str) or len(message_id) > _MAX_MESSAGE_ID:
            return
        local = self._acceptable(content.get("messages"))
        now = self._clock.now_ms()
        pos = self._next_position(local)

        async def work(tx: Transaction) -> None:
            if await storage.note_received(tx, origin, message_id, now):
                await _store(tx, pos, sender, type_, local)

        await self._db.write(work)
        self._news.announce(pos, users=local)

    async def waiting(
        self, user_id: str, device_id: str, upto: int, *, limit: int, after: int = 0
    ) -> list[tuple[int, str]]:
        """``(pos, event JSON)`` of what waits for a device at an announced position, oldest first.

        From ``after`` on.  It is remembered that nothing waits, until something is sent.
        """
        device = (user_id, device_id)
        known = self._nothing_upto.get(device)
        if known is not None and not self._newest.may_have_changed(user_id, known):
            return []
        waiting = await storage.waiting(self._db.read, user_id, device_id, upto, limit, after=after)
        if not waiting and after == 0:
            self._nothing_upto[device] = upto
            self._nothing_upto.move_to_end(device)
            if len(self._nothing_upto) > _REMEMBERED_DEVICES:
                self._nothing_upto.popitem(last=False)
        return waiting

    async def waiting_after(
        self, user_id: str, device_id: str, after: int, upto: int, *, limit: int
    ) -> list[tuple[int, str]]:
        """The same for a device that shows to have everything up to ``after``, which is deleted."""
        waiting = await self.waiting(user_id, device_id, upto, limit=limit)
        if waiting and waiting[0][0] <= after:
            await self.received(user_id, device_id, after)
            waiting = await self.waiting(user_id, device_id, upto, limit=limit)
        return waiting

    async def received(self, user_id: str, device_id: str, upto: int) -> None:
        """A device has everything up to a position: delete it."""
        await self._db.write(lambda tx: storage.remove_upto(tx, user_id, device_id, upto))

    async def record(
        self, tx: Transaction, user_id: str, changed: Collection[str], removed: Collection[str]
    ) -> None:
        """Delete what waits for devices that are gone: part of the transaction that deletes them."""
        for device_id in removed:
            await storage.remove_device(tx, user_id, device_id)

    async def devices_changed(self, user_id: str, changed: Collection[str], removed: Collection[str]) -> None:
        """Nobody has to be told."""

    async def forget_received(self) -> None:
        """Forget which messages of other servers came long ago.  To be called now and then."""
        before_ms = self._clock.now_ms() - _RECEIVED_KEPT_MS
        await self._db.write(lambda tx: storage.forget_received(tx, before_ms))

    def _next_position(self, local: Messages) -> int:
        """Where messages are about to be stored for some local users, who are looked at again."""
        pos = self._positions.next()
        for user_id in local:
            self._newest.note(user_id, pos)
        return pos

    def _by_server(self, messages: Messages) -> tuple[Messages, dict[str, dict[str, Any]]]:
        local: dict[str, Mapping[str, Mapping[str, Any]]] = {}
        remote: defaultdict[str, dict[str, Any]] = defaultdict(dict)
        for user_id, by_device in messages.items():
            server = server_name_of(user_id)
            if server == self._server_name:
                local[user_id] = by_device
            else:
                remote[server][user_id] = dict(by_device)
        return local, remote

    def _acceptable(self, messages: object) -> Messages:
        """What another server may deliver here: to our users, in bounded number and size."""
        accepted: dict[str, dict[str, Mapping[str, Any]]] = {}
        if not isinstance(messages, dict):
            return accepted
        for user_id, by_device in list(messages.items())[:_MAX_EDU_MESSAGES]:
            if not is_user_id(user_id) or server_name_of(user_id) != self._server_name:
                continue
            if isinstance(by_device, dict):
                accepted[user_id] = {
                    device_id: content
                    for device_id, content in list(by_device.items())[:_MAX_EDU_MESSAGES]
                    if isinstance(content, dict)
                }
        return accepted


def messages_in_parts(
    messages: Messages, max_bytes: int
) -> Iterator[dict[str, dict[str, Mapping[str, Any]]]]:
    """Messages in parts whose contents come to ``max_bytes`` at most; a larger one is a part of its own."""
    part: dict[str, dict[str, Mapping[str, Any]]] = {}
    size = count = 0
    for user_id, by_device in messages.items():
        for device_id, content in by_device.items():
            cost = len(orjson.dumps(content)) + len(user_id) + len(device_id)
            if part and (size + cost > max_bytes or count >= _MAX_PART):
                yield part
                part, size, count = {}, 0, 0
            part.setdefault(user_id, {})[device_id] = content
            size += cost
            count += 1
    if part:
        yield part


def _check_sizes(type_: str, sender: str, messages: Messages) -> None:
    for by_device in messages.values():
        for content in by_device.values():
            if len(_message(type_, sender, content)) > _MAX_MESSAGE_BYTES:
                raise MatrixError(413, "M_TOO_LARGE", f"A message has at most {_MAX_MESSAGE_BYTES} bytes")


def _message(type_: str, sender: str, content: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"type": type_, "sender": sender, "content": content})


def _edu_content(sender: str, type_: str, messages: Messages) -> dict[str, Any]:
    message_id = secrets.token_hex(16)
    return {"sender": sender, "type": type_, "message_id": message_id, "messages": messages}


async def _store(tx: Transaction, pos: int, sender: str, type_: str, messages: Messages) -> None:
    rows = []
    known = await device_storage.device_ids_of(tx, list(messages))
    for user_id, by_device in messages.items():
        for device_id in known.get(user_id, ()):
            content = by_device.get(device_id, by_device.get(ALL_DEVICES))
            if content is not None:
                message = _message(type_, sender, content)
                if len(message) <= _MAX_MESSAGE_BYTES:
                    rows.append((user_id, device_id, message.decode()))
    await storage.add(tx, rows, pos)
