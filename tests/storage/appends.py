"""Appends as the timeline makes them, over a room that exists in storage alone."""

from __future__ import annotations

import base64
import hashlib
import itertools

import msgspec

from homeserver.protocol.events import Event
from homeserver.storage import rooms
from homeserver.storage.append import Append, Store
from homeserver.storage.database import Database
from homeserver.storage.events import SENT_HERE, StoredEvent
from homeserver.storage.rooms import MEMBERSHIPS, RoomRow
from homeserver.storage.state import NO_EVENT, CurrentEntry, StateChange
from homeserver.storage.transaction_ids import SentAs

SENDER = "@alice:here.example"
DEVICE = "PHONE"

_numbers = itertools.count(1)


class StoredRoom:
    """A room's row as it moves on; ``message`` and ``member`` are appends in their order."""

    def __init__(self, nid: int) -> None:
        self.row = RoomRow(
            nid=nid,
            room_id=f"!room{nid}:here.example",
            version="11",
            epoch=0,
            state_ver=1,
            last_pos=1,
            depth=1,
            tips=(),
            joined_members=1,
            invited_members=0,
        )
        self._members: dict[int, int] = {}

    @classmethod
    async def make(cls, database: Database, nid: int = 1) -> StoredRoom:
        room = cls(nid)
        await database.write(lambda tx: rooms.insert(tx, room.row))
        return room

    def message(self, body: str = "Good morning, everybody") -> Append:
        """A message with the transaction id of its request."""
        append, stored = self._append("m.room.message", {"body": body, "msgtype": "m.text"}, None)
        scope = f"rooms/{self.row.room_id}/send/m.room.message"
        append.also = [SentAs(SENDER, DEVICE, scope, f"m{stored.nid}", stored.id, stored.nid)]
        return append

    def member(self, number: int) -> Append:
        """A change of the membership of one of the members, of another server."""
        user_id = f"@member{number}:elsewhere.example"
        append, stored = self._append("m.room.member", {"membership": "join"}, user_id)
        key_nid, pos = 1_000_000 + number, self.row.last_pos
        if key_nid not in self._members:
            append.keys = {key_nid: ("m.room.member", user_id)}
        append.changes = [StateChange(key_nid, pos, stored.nid, self._members.get(key_nid, NO_EVENT))]
        append.entries = [CurrentEntry(key_nid, stored.nid, MEMBERSHIPS["join"])]
        self._members[key_nid] = stored.nid
        return append

    def _append(
        self, type_: str, content: dict[str, str], state_key: str | None
    ) -> tuple[Append, StoredEvent]:
        nid = next(_numbers)
        pos = nid << 16
        event = _event(self.row.room_id, nid, type_, content, state_key)
        key_nid = None if state_key is None else nid
        stored = StoredEvent(nid, self.row.nid, event, pos, SENT_HERE, pos, pos, (1, 2, 3), None, key_nid)
        append = Append(expected_last_pos=self.row.last_pos)
        append.new = [stored]
        append.room = self.row = msgspec.structs.replace(self.row, last_pos=pos, depth=nid, tips=(nid,))
        return append, stored


async def store_all(database: Database, appends: list[Append]) -> list[BaseException | None]:
    """Queue appends in one turn of the loop; how each ended."""
    futures = [database.write(Store(append)) for append in appends]
    errors: list[BaseException | None] = []
    for future in futures:
        try:
            await future
        except Exception as error:
            errors.append(error)
        else:
            errors.append(None)
    return errors


def _event(room_id: str, nid: int, type_: str, content: dict[str, str], state_key: str | None) -> Event:
    pdu = {
        "auth_events": [_hash(f"auth {which}", "$") for which in range(3)],
        "content": content,
        "depth": nid,
        "hashes": {"sha256": _hash(f"content {nid}")},
        "origin_server_ts": 1_700_000_000_000 + nid,
        "prev_events": [_hash(f"{nid - 1}", "$")],
        "room_id": room_id,
        "sender": SENDER,
        "signatures": {"here.example": {"ed25519:key": _hash(f"one {nid}") + _hash(f"two {nid}")}},
        "type": type_,
    }
    if state_key is not None:
        pdu["state_key"] = state_key
    return Event(
        event_id=_hash(f"{nid}", "$"),
        room_id=room_id,
        sender=SENDER,
        type=type_,
        state_key=state_key,
        origin_server_ts=1_700_000_000_000 + nid,
        depth=nid,
        prev_events=(_hash(f"{nid - 1}", "$"),),
        auth_events=(),
        redacts=None,
        json=msgspec.json.encode(pdu),
        rejected=False,
    )


def _hash(of: str, sigil: str = "") -> str:
    digest = hashlib.sha256(of.encode()).digest()
    return sigil + base64.urlsafe_b64encode(digest).decode().rstrip("=")
