"""The parts of a server, wired and introduced to each other: everything below the two APIs.

Each package wires itself; here stands only in which order, for one part needs another, and
what of the configuration each is given.
"""

from __future__ import annotations

import contextlib
from functools import partial

import msgspec

from federation.server_keys import OldKey
from federation.signatures import authorization_header
from federation.transport import Https
from federation.wiring import (
    Federation,
    federation_media,
    open_federation,
    open_https,
)
from homeserver.application_services import ApplicationServices, wire_application_services
from homeserver.calls import Calls, start_calls, wire_calls
from homeserver.chores import start_chores
from homeserver.clock import Clock
from homeserver.config import Config
from homeserver.contacts import Contacts, ContactSettings, start_contacts, wire_contacts
from homeserver.content_repository import ContentRepository, wire_content_repository
from homeserver.core import Core, open_core
from homeserver.egress import WaysOut, open_egress
from homeserver.encryption import Encryption, wire_encryption
from homeserver.ephemeral import Ephemeral, wire_ephemeral
from homeserver.expiring import start_expiring, start_related_redactions
from homeserver.finding import Finding, wire_finding
from homeserver.people import People, wire_people
from homeserver.previews.url_previews import UrlPreviews
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing import parse_signing_key_file
from homeserver.push.pushers import Pushers
from homeserver.pushing import PushMail, start_pushing, wire_push_mail, wire_push_reader, wire_pushers
from homeserver.ratelimit import RateLimiter
from homeserver.reading import Reading, wire_reading
from homeserver.room_actions import RoomActions, wire_room_actions
from homeserver.searching import Searching, open_searching
from homeserver.storage import event_media, open_database
from homeserver.storage.search import forget as forget_texts
from homeserver.third_party_identifiers import ThirdPartyIdentifiers, registration_policy, wire_identifiers
from homeserver.url_previews import open_url_previews
from homeserver.users.passwords import Passwords


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What is wired, as far as both APIs, or what runs in the background, use it."""

    federation: Federation
    ephemeral: Ephemeral
    encryption: Encryption
    people: People
    ways_out: WaysOut
    identifiers: ThirdPartyIdentifiers
    rooms: RoomParts
    services: ApplicationServices
    content: ContentRepository
    previews: UrlPreviews | None
    pushers: Pushers
    push_mail: PushMail | None
    searching: Searching | None


async def open_configured_core(config: Config, clock: Clock, opened: contextlib.AsyncExitStack) -> Core:
    """The core on its database; both are closed with ``opened``."""
    db = await open_database(config.database)
    opened.push_async_callback(db.close)
    core = await open_core(
        db,
        clock,
        config.server_name,
        parse_signing_key_file(config.signing_key.read_text()),
        lifetimes=config.retention.lifetimes(),
        forget_on_leave=config.rooms.forget_on_leave,
        keep_redacted_ms=config.rooms.keep_redacted_ms,
        event_cache_bytes=config.caches.event_bytes,
    )
    opened.push_async_callback(core.background.close)
    return core


async def wire_parts(config: Config, core: Core, opened: contextlib.AsyncExitStack) -> Parts:
    """Wire everything but the APIs, in the order in which one part needs another."""
    https = _way_to_other_servers(config, core, opened)
    federation = await _meet_other_servers(config, core, https, opened)
    ephemeral = wire_ephemeral(core, federation.sender, presence=config.presence.enabled)
    encryption = await _encryption(config, core, federation, opened)
    pushers = wire_pushers(core, config.push)
    people = _meet_people(config, core, federation, ephemeral, encryption, pushers=pushers)
    opened.push_async_callback(people.last_seen.write)
    ways_out = open_egress(config.egress, opened)
    identifiers = _identifiers(config, core, people, ways_out)
    rooms = _rooms(
        config, core, federation, ephemeral, people, encryption=encryption, identifiers=identifiers
    )
    services = wire_application_services(
        *(core, people, ephemeral, rooms.reading, encryption),
        http=ways_out.own,
        registrations=config.application_services,
    )
    await services.start(core, people, rooms.actions, federation.rooms.invites)
    icons = [provider.icon for provider in config.sso.providers if provider.icon]
    content = wire_content_repository(core, config.media, federation_media(core, https), kept=icons)
    await content.open(core, opened)
    push_mail = _push_mail(config, core, pushers, identifiers)
    reader = wire_push_reader(core, pushers, rooms.reading, ephemeral, ways_out.strangers, mail=push_mail)
    await start_pushing(reader, opened)
    searching = await open_searching(core, rooms.reading, config.search)
    return Parts(
        federation=federation,
        ephemeral=ephemeral,
        encryption=encryption,
        people=people,
        ways_out=ways_out,
        identifiers=identifiers,
        rooms=rooms,
        services=services,
        content=content,
        previews=open_url_previews(core, config.url_previews, content, ways_out.strangers, opened),
        pushers=pushers,
        push_mail=push_mail,
        searching=searching,
    )


def start_background(config: Config, core: Core, parts: Parts) -> None:
    """Start what goes on by itself, until ``core.background`` is closed."""
    start_contacts(core, parts.rooms.contacts)
    start_calls(core, parts.rooms.calls)
    start_chores(
        core,
        parts.ephemeral,
        parts.people,
        content=parts.content,
        encryption=parts.encryption,
        services=parts.services,
        identifiers=parts.identifiers,
    )
    start_related_redactions(core, parts.rooms.actions.related_redactions)
    also = (event_media.remove, forget_texts)
    start_expiring(core, parts.rooms.actions.membership, config.retention.purge_interval, also=also)


def _way_to_other_servers(config: Config, core: Core, opened: contextlib.AsyncExitStack) -> Https:
    settings = config.federation
    return open_https(settings, core.clock, settings.allows if settings.enabled else _nobody, opened)


async def _meet_other_servers(
    config: Config, core: Core, https: Https, opened: contextlib.AsyncExitStack
) -> Federation:
    settings = config.federation
    allows = settings.allows if settings.enabled else _nobody
    return await open_federation(
        core,
        https.exchange,
        allows,
        opened,
        timeout=settings.request_timeout,
        omit_members=settings.omit_members,
        old_keys=[OldKey(old.key_id, old.public_key, old.expired_ts) for old in config.old_signing_keys],
        trusted_key_servers=settings.trusted_key_servers,
    )


async def _encryption(
    config: Config, core: Core, federation: Federation, opened: contextlib.AsyncExitStack
) -> Encryption:
    encryption = wire_encryption(
        core,
        federation.sender,
        federation.client,
        send_device_names=config.federation.send_device_names,
    )
    opened.callback(encryption.remote_lists.fetching.close)
    await encryption.start()
    return encryption


def _meet_people(
    config: Config,
    core: Core,
    federation: Federation,
    ephemeral: Ephemeral,
    encryption: Encryption,
    *,
    pushers: Pushers,
) -> People:
    # Not the buckets that requests are counted in: with the same user as key, an attempt would count twice.
    attempts = rate_limiter(config, core.clock)
    return wire_people(
        core,
        registration=registration_policy(core, config),
        passwords=Passwords(minimum_length=config.login.minimum_password_length),
        devices=(ephemeral.to_device, encryption.lists, pushers),
        remote=federation.client,
        check_attempt=partial(attempts.check, "login"),
        allow_guests=config.registration.allow_guests,
        sso_providers=[provider.id for provider in config.sso.providers],
        password_login=config.login.password,
        thread_subscriptions=config.push.thread_subscriptions,
    )


def _identifiers(config: Config, core: Core, people: People, ways_out: WaysOut) -> ThirdPartyIdentifiers:
    def sign(method: str, uri: str, destination: str, body: bytes) -> str:
        return authorization_header(
            method=method,
            uri=uri,
            origin=core.server_name,
            destination=destination,
            body=body,
            key=core.signing_key,
        )

    messages = rate_limiter(config, core.clock)
    return wire_identifiers(
        core,
        config,
        people,
        ways_out,
        sign=sign,
        check_attempt=partial(messages.check, "email"),
    )


def _push_mail(
    config: Config, core: Core, pushers: Pushers, identifiers: ThirdPartyIdentifiers
) -> PushMail | None:
    return wire_push_mail(
        core,
        pushers,
        identifiers.mailer,
        identifiers.ids,
        config.push,
        app_name=config.email.app_name,
        base_url=config.public_base_url or f"https://{config.server_name}",
    )


class RoomParts(msgspec.Struct, frozen=True):
    """What is done with rooms, and by the people in them."""

    actions: RoomActions
    reading: Reading
    finding: Finding
    contacts: Contacts
    calls: Calls


def _rooms(
    config: Config,
    core: Core,
    federation: Federation,
    ephemeral: Ephemeral,
    people: People,
    *,
    encryption: Encryption,
    identifiers: ThirdPartyIdentifiers,
) -> RoomParts:
    default_version = ROOM_VERSIONS[config.rooms.default_version]
    actions = wire_room_actions(
        core, people.profiles, federation.rooms.remote_join, default_version, identifiers.servers
    )
    people.profiles.memberships = actions.membership
    backfill = federation.rooms.backfill
    reading = wire_reading(core, people.push_rules, ephemeral, backfill, encryption)
    finding = wire_finding(core, reading, federation.client, backfill)
    settings = ContactSettings(user_directory=config.user_directory, profiles=config.profiles)
    contacts = wire_contacts(core, people, actions, reading, settings)
    calls = wire_calls(core, actions, reading, config)
    return RoomParts(actions, reading, finding, contacts, calls)


def rate_limiter(config: Config, clock: Clock) -> RateLimiter:
    """Buckets of their own, of the configured sizes."""
    return RateLimiter(config.rate_limits.limits(), clock, enabled=config.rate_limits.enabled)


def _nobody(_server_name: str) -> bool:
    return False
