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
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import structlog
from aiohttp import web

from client_api.routes import client_routes
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
from homeserver.chores import start_chores
from homeserver.clock import Clock, SystemClock
from homeserver.config import Config, Listener, describe_listener
from homeserver.connections import Connections
from homeserver.contact import Contact, registration_policy, wire_contact
from homeserver.contacts import Contacts, ContactSettings, start_contacts, wire_contacts
from homeserver.content_repository import ContentRepository, wire_content_repository
from homeserver.core import Core, open_core
from homeserver.egress import WaysOut, open_egress
from homeserver.encryption import Encryption, wire_encryption
from homeserver.ephemeral import Ephemeral, wire_ephemeral
from homeserver.expiring import start_expiring
from homeserver.finding import Finding, wire_finding
from homeserver.health import Health, Metrics
from homeserver.people import People, wire_people
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing import parse_signing_key_file
from homeserver.push.pushers import Pushers
from homeserver.pushing import PushMail, start_pushing, wire_push_mail, wire_push_reader, wire_pushers
from homeserver.ratelimit import RateLimiter
from homeserver.reading import Reading, wire_reading
from homeserver.room_actions import RoomActions, wire_room_actions
from homeserver.single_sign_on import base_url_of, wire_single_sign_on
from homeserver.storage import open_database
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
            db = await open_database(config.database)
            opened.push_async_callback(db.close)
            key = parse_signing_key_file(config.signing_key.read_text())
            core = await open_core(
                db,
                clock or SystemClock(),
                config.server_name,
                key,
                lifetimes=config.retention.lifetimes(),
                forget_on_leave=config.rooms.forget_on_leave,
            )
            opened.push_async_callback(core.background.close)
            metrics = Metrics()
            core.notifier.listeners.append(metrics.count_events)
            core.background.start(metrics.watch_event_loop(), "event loop watch")
            limiter = _rate_limiter(config, core.clock)
            https = _way_to_other_servers(config, core, opened)
            federation = await _meet_other_servers(config, core, https, opened)
            ephemeral = wire_ephemeral(core, federation.sender, presence=config.presence.enabled)
            encryption = wire_encryption(
                core,
                federation.sender,
                federation.client,
                send_device_names=config.federation.send_device_names,
            )
            opened.callback(encryption.remote_lists.fetching.close)
            await encryption.start()
            pushers = wire_pushers(core, config.push)
            people = _meet_people(config, core, federation, ephemeral, encryption, pushers=pushers)
            opened.push_async_callback(people.last_seen.write)
            ways_out = open_egress(config.egress, opened)
            contact = _contact(config, core, people, ways_out)
            rooms = _rooms(
                config, core, federation, ephemeral, people, encryption=encryption, contact=contact
            )
            services = wire_application_services(
                core,
                people,
                ephemeral,
                rooms.reading,
                encryption,
                http=ways_out.own,
                registrations=config.application_services,
            )
            await services.start(core, people, rooms.actions, federation.rooms.invites)
            content = wire_content_repository(core, config.media, federation_media(core, https))
            await content.open(core, opened)
            push_mail = _push_mail(config, core, pushers, contact)
            reader = wire_push_reader(
                core, pushers, rooms.reading, ephemeral, ways_out.strangers, mail=push_mail
            )
            await start_pushing(reader, opened)
            health = Health(db, metrics)
            tables = {
                "client": _for_clients(
                    config,
                    core,
                    ephemeral,
                    people,
                    rooms,
                    content=content,
                    contact=contact,
                    ways_out=ways_out,
                    services=services,
                    pushers=pushers,
                    push_mail=push_mail,
                ),
                "federation": await _for_servers(
                    *(config, core, federation, ephemeral, people),
                    rooms=rooms,
                    content=content,
                    services=services,
                    opened=opened,
                ),
                "health": health.health_routes(),
                "metrics": health.metrics_routes(),
            }
            # For whoever comes by this server's name, which may lead to either API.
            advertised = advertise_routes(
                config.federation.advertise if config.federation.enabled else None,
                config.federation.policy_server_key,
            )
            opened.push_async_callback(ephemeral.presence.flush)
            start_contacts(core, rooms.contacts)
            start_chores(
                core,
                ephemeral,
                people,
                content=content,
                encryption=encryption,
                services=services,
                contact=contact,
            )
            start_expiring(core, rooms.actions.membership, config.retention.purge_interval)
            server = cls(core, opened.pop_all())
        # aiohttp's own logger reports malformed HTTP with tracebacks; the client has its 400.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        try:
            for listener in config.listeners:
                dispatcher = Dispatcher(
                    [route for name in listener.serves for route in tables[name]]
                    + (advertised if {"client", "federation"} & {*listener.serves} else []),
                    authenticate_user=services.authentication.authenticate,
                    authenticate_server=federation.authentication.authenticate_server,
                    rate_limiter=limiter,
                    max_body=config.limits.max_request_bytes,
                    trust_forwarded_for=listener.behind_proxy,
                    observe=metrics.observe_request,
                    is_unlimited=services.services.is_unlimited,
                    note_use=people.last_seen.note,
                )
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
    )


def _contact(config: Config, core: Core, people: People, ways_out: WaysOut) -> Contact:
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
    return wire_contact(
        core,
        config,
        people,
        ways_out,
        sign=sign,
        check_attempt=partial(messages.check, "email"),
    )


def _push_mail(config: Config, core: Core, pushers: Pushers, contact: Contact) -> PushMail | None:
    return wire_push_mail(
        core,
        pushers,
        contact.mailer,
        contact.ids,
        config.push,
        app_name=config.email.app_name,
        base_url=config.public_base_url or f"https://{config.server_name}",
    )


@dataclass(frozen=True, slots=True)
class _RoomParts:
    """What both APIs do with rooms, and with the keys of those who are in them."""

    actions: RoomActions
    reading: Reading
    finding: Finding
    encryption: Encryption
    contacts: Contacts


def _rooms(
    config: Config,
    core: Core,
    federation: Federation,
    ephemeral: Ephemeral,
    people: People,
    *,
    encryption: Encryption,
    contact: Contact,
) -> _RoomParts:
    default_version = ROOM_VERSIONS[config.rooms.default_version]
    actions = wire_room_actions(
        core, people.profiles, federation.rooms.remote_join, default_version, contact.servers
    )
    people.profiles.memberships = actions.membership
    backfill = federation.rooms.backfill
    reading = wire_reading(core, people.push_rules, ephemeral, backfill, encryption)
    finding = wire_finding(core, reading, federation.client, backfill)
    settings = ContactSettings(user_directory=config.user_directory, profiles=config.profiles)
    contacts = wire_contacts(core, people, actions, reading, settings)
    return _RoomParts(actions, reading, finding, encryption, contacts)


def _for_clients(
    config: Config,
    core: Core,
    ephemeral: Ephemeral,
    people: People,
    rooms: _RoomParts,
    *,
    content: ContentRepository,
    services: ApplicationServices,
    ways_out: WaysOut,
    contact: Contact,
    pushers: Pushers,
    push_mail: PushMail | None,
) -> list[Route]:
    """The client-server API."""
    base_url = base_url_of(config.public_base_url, config.server_name)
    api = wire_client_api(
        core,
        people,
        rooms.actions,
        ephemeral,
        rooms.reading,
        finding=rooms.finding,
        encryption=rooms.encryption,
        application_services=services,
        content=content,
        pushers=pushers,
        unsubscribing=None if push_mail is None else push_mail.unsubscribing,
        public_base_url=config.public_base_url,
        default_room_version=config.rooms.default_version,
        registration_secret=config.registration.shared_secret,
        forgets_on_leave=config.rooms.forget_on_leave,
        ways=config.login,
        support=config.support,
        turn=config.turn,
        sign_on=wire_single_sign_on(core, people, config.sso, ways_out.own, base_url=base_url),
        contact=contact,
        contacts=rooms.contacts,
    )
    return client_routes(api)


async def _for_servers(
    config: Config,
    core: Core,
    federation: Federation,
    ephemeral: Ephemeral,
    people: People,
    *,
    rooms: _RoomParts,
    content: ContentRepository,
    services: ApplicationServices,
    opened: contextlib.AsyncExitStack,
) -> list[Route]:
    """The server-server API; empty where federation is switched off."""
    if not config.federation.enabled:
        return []
    return await open_federation_api(
        core,
        federation,
        is_local_user=partial(services.is_there, people),
        provides_alias=services.providing.provides_alias,
        profiles=people.profiles if config.profiles.over_federation else HiddenProfiles(),
        finding=rooms.finding,
        membership=rooms.actions.membership,
        openid=people.openid,
        is_key_valid=open_key_validity(config.federation, opened),
        lists_rooms=config.federation.publish_room_list,
        encryption=rooms.encryption,
        edu_receivers={**ephemeral.edu_receivers(), **rooms.encryption.edu_receivers()},
        content=content,
        version=version("inglenook"),
    )


def _rate_limiter(config: Config, clock: Clock) -> RateLimiter:
    return RateLimiter(config.rate_limits.limits(), clock, enabled=config.rate_limits.enabled)


def _nobody(_server_name: str) -> bool:
    return False
