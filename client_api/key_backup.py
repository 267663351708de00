"""Backups of room keys (client-server API, "Server-side key backups")."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from itertools import groupby
from typing import Annotated, Any

import msgspec
import orjson

from homeserver.e2e.backup import Contents, KeyBackups
from homeserver.errors import invalid_param
from homeserver.replies import Reply, Stream
from homeserver.storage.key_backup import BackedUpKey, Backup
from homeserver.web import Request

_Count = Annotated[int, msgspec.Meta(ge=0)]


class _NewBackup(msgspec.Struct, frozen=True):
    algorithm: str
    auth_data: dict[str, Any]
    version: str | None = None


class _Key(msgspec.Struct, frozen=True):
    first_message_index: _Count
    forwarded_count: _Count
    is_verified: bool
    session_data: dict[str, Any]


class _Room(msgspec.Struct, frozen=True):
    sessions: dict[str, _Key]


class _Rooms(msgspec.Struct, frozen=True):
    rooms: dict[str, _Room]


class KeyBackupApi:
    """Endpoints by which devices keep room keys for each other."""

    def __init__(self, backups: KeyBackups) -> None:
        self._backups = backups

    async def create(self, request: Request) -> Reply:
        """``POST /room_keys/version``."""
        wanted = request.decode(_NewBackup)
        user_id = request.requester.user_id
        return {"version": await self._backups.create(user_id, wanted.algorithm, wanted.auth_data)}

    async def current(self, request: Request) -> Reply:
        """``GET /room_keys/version``."""
        return _described(await self._backups.current(request.requester.user_id))

    async def backup(self, request: Request) -> Reply:
        """``GET /room_keys/version/{version}``."""
        return _described(await self._backups.backup(request.requester.user_id, request.params["version"]))

    async def update(self, request: Request) -> Reply:
        """``PUT /room_keys/version/{version}``."""
        wanted, version = request.decode(_NewBackup), request.params["version"]
        if wanted.version is not None and wanted.version != version:
            raise invalid_param("The version in the body is not the one in the path")
        user_id = request.requester.user_id
        await self._backups.set_auth_data(user_id, version, wanted.algorithm, wanted.auth_data)
        return {}

    async def delete(self, request: Request) -> Reply:
        """``DELETE /room_keys/version/{version}``."""
        await self._backups.delete(request.requester.user_id, request.params["version"])
        return {}

    async def add_all(self, request: Request) -> Reply:
        """``PUT /room_keys/keys``."""
        rooms = request.decode(_Rooms).rooms
        return await self._add(
            request, [key for room_id, room in rooms.items() for key in _keys(room_id, room.sessions)]
        )

    async def add_to_room(self, request: Request) -> Reply:
        """``PUT /room_keys/keys/{roomId}``."""
        return await self._add(request, _keys(request.params["roomId"], request.decode(_Room).sessions))

    async def add_session(self, request: Request) -> Reply:
        """``PUT /room_keys/keys/{roomId}/{sessionId}``."""
        session = {request.params["sessionId"]: request.decode(_Key)}
        return await self._add(request, _keys(request.params["roomId"], session))

    async def all(self, request: Request) -> Reply:
        """``GET /room_keys/keys``."""
        return await self._stream(request, None)

    async def of_room(self, request: Request) -> Reply:
        """``GET /room_keys/keys/{roomId}``."""
        return await self._stream(request, request.params["roomId"])

    async def of_session(self, request: Request) -> Reply:
        """``GET /room_keys/keys/{roomId}/{sessionId}``."""
        version, params = request.query_text("version"), request.params
        key = await self._backups.key(
            request.requester.user_id, version, params["roomId"], params["sessionId"]
        )
        return _fields(key)

    async def remove(self, request: Request) -> Reply:
        """``DELETE /room_keys/keys``, of a room, or of a session in it."""
        version, params = request.query_text("version"), request.params
        contents = await self._backups.remove(
            request.requester.user_id, version, params.get("roomId"), params.get("sessionId")
        )
        return _stored(contents)

    async def _add(self, request: Request, keys: list[BackedUpKey]) -> Reply:
        version = request.query_text("version")
        return _stored(await self._backups.add(request.requester.user_id, version, keys))

    async def _stream(self, request: Request, room_id: str | None) -> Stream:
        user_id = request.requester.user_id
        backup = await self._backups.backup(user_id, request.query_text("version"))
        pages = self._backups.keys(user_id, backup, room_id)
        pieces = _json_of_all(pages) if room_id is None else _json_of_room(pages)
        return Stream(pieces, None, {"Content-Type": "application/json", "Cache-Control": "no-store"})


def _described(backup: Backup) -> dict[str, Any]:
    return {
        "algorithm": backup.algorithm,
        "auth_data": orjson.Fragment(backup.auth_data),
        "count": backup.count,
        "etag": str(backup.etag),
        "version": str(backup.version),
    }


def _stored(contents: Contents) -> dict[str, Any]:
    return {"etag": contents.etag, "count": contents.count}


def _keys(room_id: str, sessions: dict[str, _Key]) -> list[BackedUpKey]:
    return [
        BackedUpKey(
            room_id,
            session_id,
            key.first_message_index,
            key.forwarded_count,
            key.is_verified,
            orjson.dumps(key.session_data).decode(),
        )
        for session_id, key in sessions.items()
    ]


def _fields(key: BackedUpKey) -> dict[str, Any]:
    return {
        "first_message_index": key.first_message_index,
        "forwarded_count": key.forwarded_count,
        "is_verified": key.is_verified,
        "session_data": orjson.Fragment(key.session_data),
    }


def _sessions(keys: list[BackedUpKey]) -> bytes:
    """The inside of an object from session id to key."""
    return orjson.dumps({key.session_id: _fields(key) for key in keys})[1:-1]


async def _json_of_room(pages: AsyncIterator[list[BackedUpKey]]) -> AsyncGenerator[bytes, None]:
    """``{"sessions": …}``, a page at a time."""
    before = b'{"sessions":{'
    async for page in pages:
        yield before + _sessions(page)
        before = b","
    yield (before if before != b"," else b"") + b"}}"


async def _json_of_all(pages: AsyncIterator[list[BackedUpKey]]) -> AsyncGenerator[bytes, None]:
    """``{"rooms": …}``, a page at a time; a room may go on in the next page."""
    room_id, before = None, b'{"rooms":{'
    async for page in pages:
        piece = []
        for next_room, keys in groupby(page, lambda key: key.room_id):
            if next_room != room_id:
                before += orjson.dumps(next_room) + b':{"sessions":{'
            else:
                before = b","
            piece.append(before + _sessions(list(keys)))
            room_id, before = next_room, b"}},"
        yield b"".join(piece)
    yield before + b"}}" if room_id is None else b"}}}}"
