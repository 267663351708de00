"""Pushing, wired: what follows the stream for the pushers of the people here."""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec

from homeserver.config.push import Push
from homeserver.core import Core
from homeserver.ephemeral import Ephemeral
from homeserver.push.badge import Badges
from homeserver.push.gateway import GatewayPush, Posts
from homeserver.push.mail import MailPush, Mails
from homeserver.push.push_reader import PushReader
from homeserver.push.pushers import Addresses, Pushers
from homeserver.push.unsubscribing import Unsubscribing
from homeserver.push.waiting import Waiting
from homeserver.reading import Reading
from homeserver.storage.pushers import EMAIL, HTTP

_MINUTE_MS = 60_000


class PushMail(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to send notifications by email."""

    mails: Mails
    #: Knows whose email is whose.
    addresses: Addresses
    unsubscribing: Unsubscribing
    app_name: str
    delay_ms: int
    pause_ms: int


def wire_pushers(core: Core, settings: Push) -> Pushers:
    """Wire what keeps the pushers."""
    return Pushers(core.db, core.clock, lambda: core.notifier.position, allow_http=settings.allow_http)


def wire_push_mail(
    core: Core,
    pushers: Pushers,
    mails: Mails | None,
    addresses: Addresses,
    settings: Push,
    *,
    app_name: str,
    base_url: str,
) -> PushMail | None:
    """Wire what mail needs; ``None`` where no notifications are sent by email."""
    if not settings.by_email or mails is None:
        return None
    pushers.addresses = addresses
    return PushMail(
        mails=mails,
        addresses=addresses,
        unsubscribing=Unsubscribing(pushers, core.signing_key.seed, base_url),
        app_name=app_name,
        delay_ms=round(settings.email_delay * _MINUTE_MS),
        pause_ms=round(settings.email_pause * _MINUTE_MS),
    )


def wire_push_reader(
    core: Core,
    pushers: Pushers,
    reading: Reading,
    ephemeral: Ephemeral,
    posts: Posts,
    *,
    mail: PushMail | None = None,
) -> PushReader:
    """Wire what pushes, and have it told of news; it is still to be started."""
    badges = Badges(
        db=core.db,
        rooms=core.rooms,
        memberships=reading.memberships,
        unread=reading.unread,
        invite_permissions=reading.invite_permissions,
        notifier=core.notifier,
    )
    waiting = Waiting(
        db=core.db,
        rooms=core.rooms,
        events=core.events,
        states=core.states,
        memberships=reading.memberships,
        notices=reading.notices,
        unread=reading.unread,
        rules=reading.rules,
        invite_permissions=reading.invite_permissions,
        notifier=core.notifier,
    )
    reader = PushReader(db=core.db, clock=core.clock, notifier=core.notifier, pushers=pushers, badges=badges)
    gateway = GatewayPush(posts=posts, waiting=waiting, badges=badges, advance=reader.advance)
    reader.ways = {HTTP: gateway}
    if mail is not None:
        reader.ways[EMAIL] = MailPush(
            db=core.db,
            clock=core.clock,
            mails=mail.mails,
            waiting=waiting,
            pushers=pushers,
            unsubscribing=mail.unsubscribing,
            advance=reader.advance,
            app_name=mail.app_name,
            delay_ms=mail.delay_ms,
            pause_ms=mail.pause_ms,
        )
    core.notifier.listeners.append(reader.new_events)
    core.notifier.user_listeners.append(reader.users_changed)
    ephemeral.receipts.listeners.append(reader.has_read)
    pushers.listeners.append(reader.pushers_changed)
    return reader


async def start_pushing(reader: PushReader, opened: AsyncExitStack) -> None:
    """Push from now on, until ``opened`` is closed."""
    await reader.start()
    opened.push_async_callback(reader.close)
