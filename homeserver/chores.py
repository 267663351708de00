"""Work that has to be done now and then for as long as the server runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from homeserver.application_services import ApplicationServices
from homeserver.content_repository import ContentRepository
from homeserver.core import Core
from homeserver.encryption import Encryption
from homeserver.ephemeral import Ephemeral
from homeserver.people import People
from homeserver.rooms.relations_fill import fill_relations
from homeserver.storage import remote_keys, transaction_ids
from homeserver.third_party_identifiers import ThirdPartyIdentifiers

_log = structlog.get_logger()

_HOUR_S = 3600.0
#: Clients repeat a request within minutes; a day is what the longest absence on the road takes.
_TRANSACTION_IDS_KEPT_MS = 24 * 3600 * 1000
#: Of what other servers published as their keys; one takes about a kilobyte.
_PUBLISHED_KEYS_KEPT = 50_000


def start_chores(
    core: Core,
    ephemeral: Ephemeral,
    people: People,
    *,
    content: ContentRepository,
    encryption: Encryption,
    services: ApplicationServices,
    identifiers: ThirdPartyIdentifiers,
) -> None:
    """Do them in the background from now on."""

    async def forget_transactions() -> None:
        before = core.clock.now_ms() - _TRANSACTION_IDS_KEPT_MS
        after: transaction_ids.Key | None = None
        # In steps, between which others write.
        while old := await transaction_ids.older(core.db.scan, before, after):
            await core.db.write(partial(transaction_ids.remove, keys=old))
            after = old[-1]

    async def forget_published_keys() -> None:
        await core.db.write(partial(remote_keys.forget_published, keep=_PUBLISHED_KEYS_KEPT))

    async def expire_typing() -> None:
        ephemeral.typing.expire()

    async def expire_presence() -> None:
        ephemeral.presence.expire()

    async def fetch_device_lists() -> None:
        encryption.remote_lists.fetching.tick()

    async def forget_validations() -> None:
        if identifiers.validation is not None:
            await identifiers.validation.forget_expired()

    core.background.start(fill_relations(core.db), "index of relations")
    for name, seconds, work in (
        ("old transaction ids", _HOUR_S, forget_transactions),
        ("old OpenID tokens", _HOUR_S, people.openid.forget_expired),
        ("last uses of devices", 60.0, people.last_seen.write),
        ("old to-device messages", _HOUR_S, ephemeral.to_device.forget_received),
        ("old one-time keys", _HOUR_S, encryption.uploads.forget_claimed),
        ("device lists to fetch", 5.0, fetch_device_lists),
        ("media ids without content", _HOUR_S, content.uploads.forget_expired),
        ("uses of media of other servers", 300.0, content.copies.note_uses),
        ("too many copies of media", _HOUR_S, content.copies.trim),
        ("copies of media long unused", _HOUR_S, content.copies.expire),
        ("files of media without a row", 24 * _HOUR_S, partial(content.remove_orphans, core.db)),
        ("media that no event names any more", 5.0, content.forsaken.round),
        ("old answers about keys", _HOUR_S, forget_published_keys),
        ("validations of addresses", _HOUR_S, forget_validations),
        ("typing ends", 1.0, expire_typing),
        ("application services to try again", 1.0, services.traffic.tick),
        ("presence ends", 5.0, expire_presence),
        ("presence", 0.5, ephemeral.presence.flush),
    ):
        core.background.start(every(seconds, work), name)


async def every(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do ``work`` now and then until cancelled; a failure is logged and does not end it."""
    while True:
        try:
            await work()
        except Exception:
            _log.exception("chore failed", work=getattr(work, "__qualname__", work))
        await asyncio.sleep(seconds)
