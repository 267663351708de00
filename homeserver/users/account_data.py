"""Account data and room tags: what clients keep on the server for their user alone.

Every change has a stream position and is announced once it is stored.  Which types
clients may not write themselves is the API's concern.  Specification: client-server
API, "Client Config" and "Room Tagging"; MSC3391 for deletion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import orjson

from homeserver.errors import invalid_param
from homeserver.rooms.newest import UserPositions
from homeserver.storage import account_data
from homeserver.storage.account_data import GLOBAL
from homeserver.storage.database import Database, Transaction

TAGS = "m.tag"

_MAX_NAME_BYTES = 255
#: Of one room, and what is said of one of them as JSON.
_MAX_TAGS = 100
_MAX_TAG_BYTES = 4096


class Positions(Protocol):
    """Hands out stream positions."""

    def next(self) -> int:
        """The next position; what is written at it must be queued before anything is awaited."""
        ...


class AccountData:
    """The account data of local users.

    ``announce(pos, user_id)`` is called after each change is stored at stream position ``pos``,
    which was noted in ``newest`` before.
    """

    def __init__(
        self,
        db: Database,
        positions: Positions,
        newest: UserPositions,
        announce: Callable[[int, str], None],
    ) -> None:
        self._db = db
        self._positions = positions
        self._newest = newest
        self._announce = announce

    async def content(self, user_id: str, type_: str, room_id: str = GLOBAL) -> dict[str, Any] | None:
        """The content of one type, globally or for a room; ``None`` where nothing is kept, or ``{}``."""
        text = await account_data.content(self._db.read, user_id, room_id, type_)
        return None if text is None or text == account_data.DELETED else _object(text)

    async def set_content(
        self, user_id: str, type_: str, content: dict[str, Any], room_id: str = GLOBAL
    ) -> None:
        """Keep ``content``; ``M_INVALID_PARAM`` for types longer than 255 bytes.

        ``{}`` is as good as deleted, and announced like any content: clients wait to see what they set.
        """
        _check_name(type_, "an account data type")
        text = orjson.dumps(content).decode()
        pos = self._next_position(user_id)
        await self._db.write(
            lambda tx: account_data.set_content(tx, user_id, room_id, type_, content_json=text, pos=pos)
        )
        self._announce(pos, user_id)

    async def delete(self, user_id: str, type_: str, room_id: str = GLOBAL) -> None:
        """Keep one type no more, if it is kept (MSC3391)."""
        if await self.content(user_id, type_, room_id) is not None:
            await self.set_content(user_id, type_, {}, room_id)

    async def change(
        self,
        user_id: str,
        type_: str,
        change: Callable[[dict[str, Any]], dict[str, Any]],
        room_id: str = GLOBAL,
    ) -> None:
        """Replace the content (``{}`` where nothing is kept) by what ``change`` makes of it.

        ``change`` runs inside the transaction, so that no concurrent change is lost; an
        exception it raises leaves everything as it was.
        """
        pos = self._next_position(user_id)

        async def store(tx: Transaction) -> None:
            text = await account_data.content(tx, user_id, room_id, type_)
            changed = orjson.dumps(change(_object(text or "{}"))).decode()
            await account_data.set_content(tx, user_id, room_id, type_, content_json=changed, pos=pos)

        await self._db.write(store)
        self._announce(pos, user_id)

    def _next_position(self, user_id: str) -> int:
        pos = self._positions.next()
        self._newest.note(user_id, pos)
        return pos

    async def tags(self, user_id: str, room_id: str) -> dict[str, Any]:
        """A room's tags: name to tag."""
        return _tags(await self.content(user_id, TAGS, room_id) or {})

    async def set_tag(self, user_id: str, room_id: str, name: str, tag: dict[str, Any]) -> None:
        """Add or replace a tag of a room.

        ``M_INVALID_PARAM`` for names past 255 bytes, and for more than anybody has use for.
        """
        _check_name(name, "a tag")
        if len(orjson.dumps(tag)) > _MAX_TAG_BYTES:
            raise invalid_param(f"A tag has at most {_MAX_TAG_BYTES} bytes")

        def with_tag(content: dict[str, Any]) -> dict[str, Any]:
            tags = {**_tags(content), name: tag}
            if len(tags) > _MAX_TAGS:
                raise invalid_param(f"A room has at most {_MAX_TAGS} tags")
            return {"tags": tags}

        await self.change(user_id, TAGS, with_tag, room_id)

    async def remove_tag(self, user_id: str, room_id: str, name: str) -> None:
        """Remove a tag of a room, if it is there."""
        if name not in await self.tags(user_id, room_id):
            return

        def without(content: dict[str, Any]) -> dict[str, Any]:
            return {"tags": {each: tag for each, tag in _tags(content).items() if each != name}}

        await self.change(user_id, TAGS, without, room_id)


def _tags(content: dict[str, Any]) -> dict[str, Any]:
    tags = content.get("tags")
    return tags if isinstance(tags, dict) else {}


def _object(text: str) -> dict[str, Any]:
    content: dict[str, Any] = orjson.loads(text)
    return content


def _check_name(name: str, what: str) -> None:
    if not name or len(name.encode()) > _MAX_NAME_BYTES:
        raise invalid_param(f"The name of {what} has 1 to {_MAX_NAME_BYTES} bytes")
