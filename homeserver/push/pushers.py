"""Pushers: what people ask to be pushed where.

Checks and keeps what they ask for; pushing is ``push_reader``'s.  Specification: client-server API,
"Push Notifications", ``/pushers``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

import orjson

from homeserver.clock import Clock
from homeserver.errors import MatrixError, bad_json, invalid_param, missing_param
from homeserver.protocol.third_party_ids import canonical_email
from homeserver.storage import pushers
from homeserver.storage.database import Database, Transaction
from homeserver.storage.pushers import EMAIL, HTTP, Pusher

#: The only path that a gateway may be asked at: pushers cannot be used to ask others for other things.
NOTIFY_PATH = "/_matrix/push/v1/notify"

MAX_PUSHERS = 50
_MAX_APP_ID = 64
_MAX_PUSHKEY_BYTES = 512
_MAX_TEXT = 512
_MAX_DATA_BYTES = 8_192
_MAIL_APP = "m.email"
_NEEDED = ("app_display_name", "device_display_name", "lang", "data")


class Addresses(Protocol):
    """Knows which email addresses are whose."""

    async def owner(self, medium: str, address: str) -> str | None:
        """The user who has an address, in whatever form it is written."""
        ...


class Pushers:
    """The pushers of local users.

    ``position`` tells the announced stream position: a new pusher is told of what comes after it.
    ``addresses`` is to be set where notifications are sent by email.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        position: Callable[[], int],
        *,
        allow_http: bool = False,
    ) -> None:
        self._db = db
        self._clock = clock
        self._position = position
        self.addresses: Addresses | None = None
        self._allow_http = allow_http
        #: Called with a user whose pushers are not what they were.
        self.listeners: list[Callable[[str], None]] = []

    async def of(self, user_id: str) -> list[Pusher]:
        """A user's pushers."""
        return await pushers.of_user(self._db.read, user_id)

    async def set(self, user_id: str, device_id: str, wanted: Mapping[str, Any]) -> None:
        """Do what a ``/pushers/set`` request asks for.

        Raises ``M_MISSING_PARAM``, ``M_BAD_JSON`` and ``M_INVALID_PARAM``, the last also for
        more than ``MAX_PUSHERS``.
        """
        if "kind" not in wanted:
            raise missing_param("'kind' is missing")
        app_id, pushkey = _key(wanted)
        if len(app_id) > _MAX_APP_ID or len(pushkey.encode()) > _MAX_PUSHKEY_BYTES:
            raise invalid_param("'app_id' or 'pushkey' is too long")
        if wanted["kind"] is None:
            await self.remove(user_id, app_id, pushkey)
            return
        append = wanted.get("append", False)
        if not isinstance(append, bool):
            raise bad_json("'append' must be a boolean")
        pusher = self._read(user_id, device_id, wanted)
        if pusher.kind == EMAIL:
            await self._check_address(pusher)
        others = await self._db.write(partial(_put, pusher=pusher, append=append))
        for each in (user_id, *others):
            self._tell(each)

    async def remove(self, user_id: str, app_id: str, pushkey: str) -> None:
        """Remove a pusher, if it is there."""
        await self._db.write(partial(pushers.remove, user_id=user_id, app_id=app_id, pushkey=pushkey))
        self._tell(user_id)

    async def record(
        self, tx: Transaction, user_id: str, changed: Collection[str], removed: Collection[str]
    ) -> None:
        """Pushers go with the devices that made them."""
        await pushers.remove_of_devices(tx, user_id, removed)

    async def devices_changed(self, user_id: str, changed: Collection[str], removed: Collection[str]) -> None:
        """The same, once it is on disk."""
        if removed:
            self._tell(user_id)

    async def is_allowed(self, pusher: Pusher) -> bool:
        """Whether mail may still be sent to where a pusher says."""
        if self.addresses is None:
            return False
        return await self.addresses.owner(EMAIL, pusher.pushkey) == pusher.user_id

    def _tell(self, user_id: str) -> None:
        for listener in self.listeners:
            listener(user_id)

    def _read(self, user_id: str, device_id: str, wanted: Mapping[str, Any]) -> Pusher:
        app_id, pushkey = _key(wanted)
        missing = [name for name in _NEEDED if name not in wanted]
        if missing:
            raise missing_param(f"Missing parameters: {', '.join(missing)}")
        kind, data, profile_tag = wanted["kind"], wanted["data"], wanted.get("profile_tag")
        if not isinstance(data, dict) or not (profile_tag is None or isinstance(profile_tag, str)):
            raise bad_json("'data' must be an object, 'profile_tag' a string")
        encoded = orjson.dumps(data)
        if len(encoded) > _MAX_DATA_BYTES or len(profile_tag or "") > _MAX_TEXT:
            raise invalid_param("'data' or 'profile_tag' is too large")
        if kind == HTTP:
            self._check_url(data.get("url"))
        elif kind != EMAIL:
            raise invalid_param("That is not a kind of pusher")
        return Pusher(
            user_id=user_id,
            app_id=app_id,
            pushkey=pushkey,
            kind=kind,
            device_id=device_id,
            app_display_name=_text(wanted, "app_display_name"),
            device_display_name=_text(wanted, "device_display_name"),
            profile_tag=profile_tag,
            lang=_text(wanted, "lang"),
            data=encoded.decode(),
            pushkey_ts=self._clock.now_ms() // 1000,
            pos=self._position(),
        )

    def _check_url(self, url: Any) -> None:
        if url is None:
            raise missing_param("'data' needs a 'url'")
        try:
            parts = urlsplit(url) if isinstance(url, str) else None
        except ValueError:
            parts = None
        schemes = ("https", "http") if self._allow_http else ("https",)
        if parts is None or parts.scheme not in schemes or not parts.hostname:
            raise invalid_param("'url' must be an https URL")
        if parts.path != NOTIFY_PATH or parts.query or parts.fragment or parts.username or parts.password:
            raise invalid_param(f"'url' must have the path {NOTIFY_PATH}, and nothing behind it")

    async def _check_address(self, pusher: Pusher) -> None:
        if self.addresses is None:
            raise invalid_param("This server sends no notifications by email")
        if pusher.app_id != _MAIL_APP:
            raise invalid_param(f"The 'app_id' of an email pusher is {_MAIL_APP}")
        if not await self.is_allowed(pusher):
            raise invalid_param("'pushkey' is not an email address of yours")


async def _put(tx: Transaction, pusher: Pusher, append: bool) -> list[str]:
    """Store a pusher; the other users whose pushers gave way to it."""
    there = await pushers.of_user(tx, pusher.user_id)
    if len(there) >= MAX_PUSHERS and pusher.key not in {each.key for each in there}:
        raise MatrixError(400, "M_INVALID_PARAM", f"There are at most {MAX_PUSHERS} pushers")
    await pushers.put(tx, pusher)
    if append:
        return []
    return await pushers.remove_of_others(tx, *pusher.key)


def pusher_json(pusher: Pusher) -> dict[str, Any]:
    """A pusher as clients are told of it."""
    told = {
        "pushkey": pusher.pushkey,
        "kind": pusher.kind,
        "app_id": pusher.app_id,
        "app_display_name": pusher.app_display_name,
        "device_display_name": pusher.device_display_name,
        "lang": pusher.lang,
        "data": orjson.loads(pusher.data),
    }
    return told if pusher.profile_tag is None else {**told, "profile_tag": pusher.profile_tag}


def _key(wanted: Mapping[str, Any]) -> tuple[str, str]:
    """App id and pushkey; an email address in the one form it is kept in."""
    app_id, pushkey = _text(wanted, "app_id"), _text(wanted, "pushkey")
    if app_id == _MAIL_APP:
        with contextlib.suppress(ValueError):
            pushkey = canonical_email(pushkey)
    return app_id, pushkey


def _text(wanted: Mapping[str, Any], name: str) -> str:
    if name not in wanted:
        raise missing_param(f"Missing parameters: {name}")
    value = wanted[name]
    if not isinstance(value, str):
        raise bad_json(f"'{name}' must be a string")
    if len(value) > _MAX_TEXT and name != "pushkey":
        raise invalid_param(f"'{name}' is too long")
    return value
