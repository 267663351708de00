"""EDUs that wait for one destination, newer ones in place of older ones about the same: no I/O here.

Bounded: of EDUs that may be lost the oldest are, of receipts the destination's are read
from storage.  Specification: server-server API, "Typing Notifications", "Presence", "Receipts".
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias

from homeserver.protocol.canonical_json import encode
from homeserver.rooms.room import Room

MAX_WAITING: Final = 500
#: What is too old to be true when it can be sent at last.
_TYPING_SECONDS: Final = 30.0

#: Bounds of one EDU, which are also what this server reads of another's.
_MAX_PRESENCE: Final = 100
_MAX_RECEIPTS: Final = 400
_MAX_RECEIPT_ROOMS: Final = 100

#: Room id, user id, thread id ("" for none) and what is said of the three.
Said: TypeAlias = tuple[str, str, str, Any]


class WaitingEdus:
    """EDUs that may be lost."""

    def __init__(self) -> None:
        #: Room id and user id to the room, whether they type, and since when.
        self._typing: OrderedDict[tuple[str, str], tuple[Room, bool, float]] = OrderedDict()
        self._presence: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._others: deque[bytes] = deque(maxlen=MAX_WAITING)

    def __bool__(self) -> bool:
        return bool(self._typing or self._presence or self._others)

    @property
    def has_presence(self) -> bool:
        """Whether anybody's presence is among them."""
        return bool(self._presence)

    def add_typing(self, room: Room, user_id: str, typing: bool, now: float) -> None:
        """A user starts or stops typing, at a time in seconds of the monotonic clock."""
        _put(self._typing, (room.room_id, user_id), (room, typing, now))

    def add_presence(self, update: Mapping[str, Any]) -> None:
        """A user's presence, as ``m.presence`` lists it."""
        _put(self._presence, update["user_id"], update)

    def add_other(self, edu: bytes) -> None:
        """Any other EDU, as canonical JSON."""
        self._others.append(edu)

    def clear(self) -> None:
        """Lose them."""
        self._typing.clear()
        self._presence.clear()
        self._others.clear()

    def forget_presence(self) -> None:
        """The destination is not to know of it any more."""
        self._presence.clear()

    def take(self, limit: int, server_name: str, now: float) -> list[bytes]:
        """The oldest that are still worth being sent to a server, as canonical JSON."""
        edus: list[bytes] = []
        while self._others and len(edus) < limit:
            edus.append(self._others.popleft())
        while self._presence and len(edus) < limit:
            count = min(len(self._presence), _MAX_PRESENCE)
            updates = [self._presence.popitem(last=False)[1] for _ in range(count)]
            edus.append(edu_json("m.presence", {"push": updates}))
        while self._typing and len(edus) < limit:
            (room_id, user_id), (room, typing, since) = self._typing.popitem(last=False)
            if now - since <= _TYPING_SECONDS and server_name in room.servers:
                content = {"room_id": room_id, "user_id": user_id, "typing": typing}
                edus.append(edu_json("m.typing", content))
        return edus


class WaitingReceipts:
    """Receipts, by their position: the newest of each user in each room and thread."""

    def __init__(self) -> None:
        #: What is said, with its position; the oldest position first.
        self._receipts: OrderedDict[tuple[str, str, str], tuple[int, Any]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._receipts)

    def add(self, pos: int, room_id: str, user_id: str, thread_id: str, said: Any) -> bool:
        """Remember a receipt; false, and nothing remembered, when there are too many."""
        key = (room_id, user_id, thread_id)
        if key not in self._receipts and len(self._receipts) >= MAX_WAITING:
            return False
        self._receipts[key] = (pos, said)
        self._receipts.move_to_end(key)
        return True

    def clear(self) -> None:
        """Forget them."""
        self._receipts.clear()

    def take(self, limit: int) -> tuple[list[Said], int | None]:
        """The oldest, and the position up to which nothing waits any more."""
        said: list[Said] = []
        upto = None
        while self._receipts and len(said) < limit:
            (room_id, user_id, thread_id), (upto, what) = self._receipts.popitem(last=False)
            said.append((room_id, user_id, thread_id, what))
        return said, upto


def said_of(event_id: str, ts: int, thread_id: str) -> dict[str, Any]:
    """What an ``m.receipt`` EDU says of one user in one room; ``thread_id`` "" for no thread."""
    data: dict[str, Any] = {"ts": ts}
    if thread_id:
        data["thread_id"] = thread_id
    return {"event_ids": [event_id], "data": data}


def receipt_edus(receipts: Iterable[Said]) -> list[bytes]:
    """Receipts in as few EDUs as they fit into, as canonical JSON.

    An EDU has room for one receipt of a user in a room, so those for several threads need several.
    """
    contents: list[dict[str, dict[str, dict[str, Any]]]] = []
    sizes: list[int] = []
    for room_id, user_id, _, said in receipts:
        for number, content in enumerate(contents):
            users = content.get(room_id, {}).get("m.read", {})
            is_full = sizes[number] >= _MAX_RECEIPTS or (
                room_id not in content and len(content) >= _MAX_RECEIPT_ROOMS
            )
            if user_id not in users and not is_full:
                break
        else:
            number, content = len(contents), {}
            contents.append(content)
            sizes.append(0)
        content.setdefault(room_id, {"m.read": {}})["m.read"][user_id] = said
        sizes[number] += 1
    return [edu_json("m.receipt", content) for content in contents]


def edu_json(edu_type: str, content: Mapping[str, Any]) -> bytes:
    """An EDU as canonical JSON."""
    return encode({"content": content, "edu_type": edu_type})


def is_of_type(edu: bytes, edu_type: str) -> bool:
    """Whether an EDU that ``edu_json`` made is of a type: its type stands last."""
    return edu.endswith(b'"edu_type":"%b"}' % edu_type.encode())


def _put(waiting: OrderedDict[Any, Any], key: object, value: object) -> None:
    """Put a value last in place of an older one, losing the oldest when there are too many."""
    waiting.pop(key, None)
    waiting[key] = value
    if len(waiting) > MAX_WAITING:
        waiting.popitem(last=False)
