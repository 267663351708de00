"""The composition root: the packages wire themselves, and are introduced to each other here.

``Server.start`` builds and opens everything, ``Server.stop`` closes it in the opposite
order; ``serve`` does both around a signal.  Nothing else in the project knows both APIs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import structlog
from aiohttp import web

from client_api.routes import client_routes
from client_api.wiring import Settings as ClientSettings
from client_api.wiring import wire_client_api
from federation.advertise import advertise_routes
from federation.server_keys import OldKey
from federation.signatures import authorization_header
from federation.transport import Https
from federation.wiring import (
    Federation,
    federation_media,
    open_federation,
    open_federation_api,
    open_https,
    open_key_validity,
)
from homeserver.application_services import ApplicationServices, wire_application_services
from homeserver.calls import Calls, start_calls, wire_calls
from homeserver.chores import start_chores
from homeserver.clock import Clock, SystemClock
from homeserver.config import Config, Listener, describe_listener
from homeserver.connections import Connections
from homeserver.contacts import Contacts, ContactSettings, start_contacts, wire_contacts
from homeserver.content_repository import ContentRepository, wire_content_repository
from homeserver.core import Core, open_core
from homeserver.egress import WaysOut, open_egress
from homeserver.encryption import Encryption, wire_encryption
from homeserver.ephemeral import Ephemeral, wire_ephemeral
from homeserver.expiring import start_expiring, start_related_redactions
from homeserver.finding import Finding, wire_finding
from homeserver.health import Health, Metrics
from homeserver.live import LiveStreams
from homeserver.origins import Origins
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
from homeserver.single_sign_on import base_url_of, wire_single_sign_on
from homeserver.storage import event_media, open_database
from homeserver.storage.search import forget as forget_texts
from homeserver.third_party_identifiers import ThirdPartyIdentifiers, registration_policy, wire_identifiers
from homeserver.url_previews import open_url_previews
from homeserver.users.passwords import Passwords
from homeserver.users.profiles import HiddenProfiles
from homeserver.web import Dispatcher, Route

_log = structlog.get_logger()

#: How long requests that are under way get to finish when the server stops, in seconds.
_GRACE_S = 10.0


async def serve(config: Config) -> None:
    """Run a server until SIGTERM or SIGINT, then finish what is under way.

    Raises ``StorageError`` and ``OSError`` for a database or an address that cannot be had.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = await Server.start(config)
    try:
        await stop.wait()
        _log.info("stopping")
    finally:
        await server.stop()


class Server:
    """A running server."""

    def __init__(self, core: Core, closing: contextlib.AsyncExitStack) -> None:
        self.core = core
        self._closing = closing

    @classmethod
    async def start(cls, config: Config, clock: Clock | None = None) -> Server:
        """Open the database, wire everything and listen."""
        async with contextlib.AsyncExitStack() as opened:
            core = await _open_core(config, clock or SystemClock(), opened)
            metrics = Metrics()
            core.notifier.listeners.append(metrics.count_events)
            core.background.start(metrics.watch_event_loop(), "event loop watch")
            limiter = _rate_limiter(config, core.clock)
            parts = await _wire(config, core, opened)
            health = Health(core.db, metrics)
            live = LiveStreams(config.live)
            metrics.watch_live_streams(live.by_transport)
            tables = {
                "client": _for_clients(config, core, parts, live),
                "federation": await _for_servers(config, core, parts, opened),
                "health": health.health_routes(),
                "metrics": health.metrics_routes(),
            }
            opened.push_async_callback(parts.ephemeral.presence.flush)
            _start_background(config, core, parts)
            server = cls(core, opened.pop_all())
        # aiohttp's own logger reports malformed HTTP with tracebacks; the client has its 400.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        try:
            for listener in config.listeners:
                routes = _served(config, listener, tables)
                dispatcher = _dispatcher(config, listener, routes, parts, limiter=limiter, metrics=metrics)
                await server._listen(listener, dispatcher)
        except BaseException:
            await server.stop()
            raise
        return server

    async def stop(self) -> None:
        """Answer what was asked, then close everything."""
        self.core.notifier.close()
        await self._closing.aclose()

    async def _listen(self, listener: Listener, dispatcher: Dispatcher) -> None:
        runner = web.ServerRunner(
            Connections(dispatcher, access_log=None), handle_signals=False, shutdown_timeout=_GRACE_S
        )
        await runner.setup()
        self._closing.push_async_callback(runner.cleanup)
        tls = None
        if listener.tls is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(listener.tls.certificate, listener.tls.private_key)
        site = web.TCPSite(runner, listener.bind, listener.port, ssl_context=tls, backlog=1024)
        await site.start()
        _log.info("listening", address=describe_listener(listener), serves=listener.serves)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What is wired, as far as both APIs, or what runs in the background, use it."""

    federation: Federation
    ephemeral: Ephemeral
    encryption: Encryption
    people: People
    ways_out: WaysOut
    identifiers: ThirdPartyIdentifiers
    rooms: _RoomParts
    services: ApplicationServices
    content: ContentRepository
    previews: UrlPreviews | None
    pushers: Pushers
    push_mail: PushMail | None
    searching: Searching | None


async def _open_core(config: Config, clock: Clock, opened: contextlib.AsyncExitStack) -> Core:
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
    )
    opened.push_async_callback(core.background.close)
    return core


async def _wire(config: Config, core: Core, opened: contextlib.AsyncExitStack) -> _Parts:
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
    return _Parts(
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


def _start_background(config: Config, core: Core, parts: _Parts) -> None:
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


def _served(config: Config, listener: Listener, tables: Mapping[str, list[Route]]) -> list[Route]:
    """Its routes, and those for whoever comes by this server's name, which may lead to either API."""
    routes = [route for name in listener.serves for route in tables[name]]
    if {"client", "federation"} & {*listener.serves}:
        settings = config.federation
        routes += advertise_routes(
            settings.advertise if settings.enabled else None, settings.policy_server_key
        )
    return routes


def _dispatcher(
    config: Config,
    listener: Listener,
    routes: list[Route],
    parts: _Parts,
    *,
    limiter: RateLimiter,
    metrics: Metrics,
) -> Dispatcher:
    return Dispatcher(
        routes,
        authenticate_user=parts.services.authentication.authenticate,
        authenticate_server=parts.federation.authentication.authenticate_server,
        rate_limiter=limiter,
        max_body=config.limits.max_request_bytes,
        trust_forwarded_for=listener.behind_proxy,
        observe=metrics.observe_request,
        is_unlimited=parts.services.services.is_unlimited,
        note_use=parts.people.last_seen.note,
        origins=Origins(config.cors.allowed_origins),
    )


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
    attempts = _rate_limiter(config, core.clock)
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

    messages = _rate_limiter(config, core.clock)
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


@dataclass(frozen=True, slots=True)
class _RoomParts:
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
) -> _RoomParts:
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
    return _RoomParts(actions, reading, finding, contacts, calls)


def _for_clients(config: Config, core: Core, parts: _Parts, live: LiveStreams) -> list[Route]:
    """The client-server API."""
    base_url, http = base_url_of(config.public_base_url, config.server_name), parts.ways_out.own
    api = wire_client_api(
        core,
        parts.people,
        parts.rooms.actions,
        parts.ephemeral,
        parts.rooms.reading,
        finding=parts.rooms.finding,
        encryption=parts.encryption,
        application_services=parts.services,
        content=parts.content,
        pushers=parts.pushers,
        settings=ClientSettings(
            public_base_url=config.public_base_url,
            default_room_version=config.rooms.default_version,
            registration_secret=config.registration.shared_secret,
            forgets_on_leave=config.rooms.forget_on_leave,
            ways=config.login,
            support=config.support,
            turn=config.turn,
            rendezvous=config.rendezvous,
            live=live,
            origins=Origins(config.cors.allowed_origins),
        ),
        unsubscribing=None if parts.push_mail is None else parts.push_mail.unsubscribing,
        sign_on=wire_single_sign_on(core, parts.people, config.sso, http, base_url=base_url),
        identifiers=parts.identifiers,
        contacts=parts.rooms.contacts,
        calls=parts.rooms.calls,
        previews=parts.previews,
        searching=parts.searching,
    )
    return client_routes(api)


async def _for_servers(
    config: Config, core: Core, parts: _Parts, opened: contextlib.AsyncExitStack
) -> list[Route]:
    """The server-server API; empty where federation is switched off."""
    if not config.federation.enabled:
        return []
    people, encryption = parts.people, parts.encryption
    return await open_federation_api(
        core,
        parts.federation,
        is_local_user=partial(parts.services.is_there, people),
        provides_alias=parts.services.providing.provides_alias,
        profiles=people.profiles if config.profiles.over_federation else HiddenProfiles(),
        finding=parts.rooms.finding,
        membership=parts.rooms.actions.membership,
        openid=people.openid,
        is_key_valid=open_key_validity(config.federation, opened),
        lists_rooms=config.federation.publish_room_list,
        encryption=encryption,
        edu_receivers={**parts.ephemeral.edu_receivers(), **encryption.edu_receivers()},
        content=parts.content,
        version=version("inglenook"),
    )


def _rate_limiter(config: Config, clock: Clock) -> RateLimiter:
    return RateLimiter(config.rate_limits.limits(), clock, enabled=config.rate_limits.enabled)


def _nobody(_server_name: str) -> bool:
    return False
