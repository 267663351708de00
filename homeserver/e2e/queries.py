"""Whose devices have which keys, here and at other servers (``POST /keys/query``).

Specification: client-server API, "Tracking the device list for a user"; server-server API,
"End-to-End Encryption".
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import orjson

from homeserver.e2e.claims import failure
from homeserver.e2e.remote import RemoteKeys
from homeserver.e2e.remote_lists import MAX_DEVICES, RemoteDeviceLists, UserKeys, device_json
from homeserver.errors import MatrixError, RemoteError
from homeserver.protocol.e2e_keys import (
    BadKey,
    Signature,
    Usage,
    check_device_keys,
    cross_signing_key,
    display_name,
    is_name,
    shown_to,
    with_signatures,
)
from homeserver.protocol.ids import is_user_id, server_name_of
from homeserver.storage import cross_signing, e2e_keys, users
from homeserver.storage.database import Database

#: User ids to device ids; none for all devices.
Wanted: TypeAlias = Mapping[str, Sequence[str]]

MAX_USERS = 10_000
_PAGE = 500
#: Of up to so many users of one server the lists are fetched and kept; more at once are only asked for.
_MAX_FETCHED = 50
_FETCHED_AT_ONCE = 10
_SERVERS_AT_ONCE = 50
#: At most; who asks has less patience.
_ASK_SECONDS = 60.0


class Found(msgspec.Struct):
    """An answer in the making: each map by user id."""

    device_keys: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    master_keys: dict[str, Any] = msgspec.field(default_factory=dict)
    self_signing_keys: dict[str, Any] = msgspec.field(default_factory=dict)
    user_signing_keys: dict[str, Any] = msgspec.field(default_factory=dict)

    def of_usage(self, usage: str) -> dict[str, Any]:
        """The cross-signing keys of one kind."""
        by_usage = {"master": self.master_keys, "self_signing": self.self_signing_keys}
        return by_usage.get(usage, self.user_signing_keys)


class KeyQueries:
    """Answers which keys devices have.

    ``send_names`` lets other servers know what people call their devices.
    """

    def __init__(
        self,
        *,
        db: Database,
        lists: RemoteDeviceLists,
        remote: RemoteKeys,
        server_name: str,
        send_names: bool,
    ) -> None:
        self._db = db
        self._lists = lists
        self._remote = remote
        self._server_name = server_name
        self._send_names = send_names

    async def query(self, reader: str, wanted: Wanted, timeout: float) -> dict[str, Any]:
        """What a local user may see, as ``POST /keys/query`` answers.

        Each other server gets ``timeout`` seconds.  ``M_TOO_LARGE`` for too many users.
        """
        _check_size(wanted)
        found, failures = Found(), dict[str, Any]()
        named = [user_id for user_id in wanted if is_user_id(user_id)]
        local = [user_id for user_id in named if server_name_of(user_id) == self._server_name]
        remote = [user_id for user_id in named if server_name_of(user_id) != self._server_name]
        await self._add_local(found, {user_id: wanted[user_id] for user_id in local}, reader, names=True)
        await self._add_remote(found, {user_id: wanted[user_id] for user_id in remote}, timeout, failures)
        await self._add_own_signatures(found, remote, reader)
        return {
            "device_keys": found.device_keys,
            "failures": failures,
            "master_keys": found.master_keys,
            "self_signing_keys": found.self_signing_keys,
            "user_signing_keys": found.user_signing_keys,
        }

    async def query_for_server(self, wanted: Wanted) -> dict[str, Any]:
        """What other servers may see of local users, as ``POST /user/keys/query`` answers."""
        _check_size(wanted)
        found = Found()
        local = {
            user_id: devices
            for user_id, devices in wanted.items()
            if is_user_id(user_id) and server_name_of(user_id) == self._server_name
        }
        await self._add_local(found, local, None, names=self._send_names)
        return {
            "device_keys": found.device_keys,
            "master_keys": found.master_keys,
            "self_signing_keys": found.self_signing_keys,
        }

    async def master_keys(self, reader: str, user_ids: Collection[str], timeout: float) -> dict[str, Any]:
        """The master keys of users, by user."""
        reply = await self.query(reader, {user_id: [] for user_id in user_ids}, timeout)
        keys: dict[str, Any] = reply["master_keys"]
        return keys

    async def _add_local(self, found: Found, wanted: Wanted, reader: str | None, *, names: bool) -> None:
        user_ids = list(wanted)
        for start in range(0, len(user_ids), _PAGE):
            page = user_ids[start : start + _PAGE]
            with_keys = await e2e_keys.devices_with_keys(self._db.scan, page)
            signing_keys = await cross_signing.keys_of(self._db.scan, page)
            signatures = await cross_signing.signatures_of(self._db.scan, page)
            for user_id in await users.active_among(self._db.scan, page):
                devices = found.device_keys[user_id] = {}
                for device in with_keys.get(user_id, ()):
                    if wanted[user_id] and device.device_id not in wanted[user_id]:
                        continue
                    added = shown_to(signatures.get((user_id, device.device_id), ()), reader)
                    name = device.display_name if names else None
                    devices[device.device_id] = {
                        **with_signatures(orjson.loads(device.keys), added),
                        "unsigned": {"device_display_name": name} if name else {},
                    }
                for usage, key in signing_keys.get(user_id, {}).items():
                    if usage != "user_signing" or user_id == reader:
                        added = shown_to(signatures.get((user_id, key.public_key), ()), reader)
                        found.of_usage(usage)[user_id] = with_signatures(key.content, added)

    async def _add_remote(
        self, found: Found, wanted: Wanted, timeout: float, failures: dict[str, Any]
    ) -> None:
        if not wanted:
            return
        shared = await self._lists.shared(wanted)
        kept = await self._lists.kept(shared)
        for user_id, keys in kept.items():
            _add_kept(found, user_id, keys, wanted[user_id])
        by_server: defaultdict[str, list[str]] = defaultdict(list)
        for user_id in wanted:
            if user_id not in kept:
                by_server[server_name_of(user_id)].append(user_id)
        slots = asyncio.Semaphore(_SERVERS_AT_ONCE)

        async def ask(server: str, user_ids: Sequence[str]) -> None:
            to_keep = [user_id for user_id in user_ids if user_id in shared]
            try:
                async with slots, asyncio.timeout(timeout):
                    if len(to_keep) <= _MAX_FETCHED:
                        await self._fetch(found, to_keep, wanted)
                    others = [user_id for user_id in user_ids if user_id not in found.device_keys]
                    await self._ask(found, server, {user_id: wanted[user_id] for user_id in others})
            except RemoteError as error:
                failures[server] = failure(error)
            except TimeoutError:
                failures[server] = {"status": 504, "message": "No answer in time"}

        await asyncio.gather(*(ask(server, user_ids) for server, user_ids in by_server.items()))

    async def _ask(self, found: Found, server: str, wanted: Wanted) -> None:
        """Ask for keys that are not to be kept."""
        user_ids = list(wanted)
        for start in range(0, len(user_ids), _PAGE):
            page = {user_id: wanted[user_id] for user_id in user_ids[start : start + _PAGE]}
            reply = await self._remote.query_user_keys(server, page, timeout=_ASK_SECONDS)
            _add_reply(found, reply, page)

    async def _fetch(self, found: Found, user_ids: Iterable[str], wanted: Wanted) -> None:
        slots = asyncio.Semaphore(_FETCHED_AT_ONCE)

        async def fetch(user_id: str) -> None:
            async with slots:
                keys = await self._lists.fetched(user_id)
            if keys is not None:
                _add_kept(found, user_id, keys, wanted[user_id])

        results = await asyncio.gather(*(fetch(user_id) for user_id in user_ids), return_exceptions=True)
        for result in results:
            # Whoever is not known there is simply left out, and asked for once more with the others.
            if isinstance(result, RemoteError) and result.reachable and not result.transient:
                continue
            if isinstance(result, BaseException):
                raise result

    async def _add_own_signatures(self, found: Found, user_ids: Sequence[str], reader: str) -> None:
        """What the reader signed of others' master keys."""
        if not any(user_id in found.master_keys for user_id in user_ids):
            return
        signatures = await cross_signing.signatures_of(self._db.scan, list(user_ids))
        for user_id in user_ids:
            key = found.master_keys.get(user_id)
            if key is not None:
                own: list[Signature] = []
                for public_key in key["keys"].values():
                    own += shown_to(signatures.get((user_id, public_key), ()), reader)
                found.master_keys[user_id] = with_signatures(key, own)


def _check_size(wanted: Wanted) -> None:
    if len(wanted) > MAX_USERS:
        raise MatrixError(413, "M_TOO_LARGE", f"At most {MAX_USERS} users can be asked for at once")


def _add_kept(found: Found, user_id: str, keys: UserKeys, device_ids: Sequence[str]) -> None:
    devices = found.device_keys[user_id] = {}
    for device_id, device in keys.devices.items():
        shown = device_json(device)
        if shown is not None and (not device_ids or device_id in device_ids):
            devices[device_id] = shown
    for usage, key in keys.signing_keys.items():
        found.of_usage(usage)[user_id] = key.content


def _add_reply(found: Found, reply: Mapping[str, Any], wanted: Wanted) -> None:
    """What of another server's answer was asked for and has the shape it should have."""
    for user_id in wanted:
        devices = reply["device_keys"].get(user_id)
        if isinstance(devices, dict):
            found.device_keys[user_id] = {
                device_id: shown
                for device_id, keys in list(devices.items())[:MAX_DEVICES]
                if (shown := _shown(user_id, device_id, keys)) is not None
            }
        for usage, name in _USAGES:
            by_user = reply.get(name)
            content = by_user.get(user_id) if isinstance(by_user, dict) else None
            try:
                if content is not None:
                    found.of_usage(usage)[user_id] = cross_signing_key(content, user_id, usage).content
            except BadKey:
                continue


_USAGES: tuple[tuple[Usage, str], ...] = (("master", "master_keys"), ("self_signing", "self_signing_keys"))


def _shown(user_id: str, device_id: str, keys: object) -> dict[str, Any] | None:
    if not isinstance(keys, dict) or not is_name(device_id):
        return None
    try:
        checked: dict[str, Any] = orjson.loads(check_device_keys(keys, user_id, device_id))
    except BadKey:
        return None
    unsigned = keys.get("unsigned")
    name = display_name(unsigned.get("device_display_name")) if isinstance(unsigned, dict) else None
    return {**checked, "unsigned": {"device_display_name": name} if name else {}}
