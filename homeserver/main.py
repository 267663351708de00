"""The composition root: every part of the server, introduced to those it works with.

``Server.start`` builds and opens everything, ``Server.stop`` closes it in the opposite
order; ``serve`` does both around a signal.  Nothing else in the project knows all parts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from random import SystemRandom

import aiodns
import structlog
from aiohttp import web

from client_api.account_data import AccountDataApi
from client_api.accounts import AccountApi
from client_api.devices import DeviceApi
from client_api.directory import DirectoryApi
from client_api.discovery import DiscoveryApi
from client_api.ephemeral import EphemeralApi
from client_api.filters import FilterApi
from client_api.membership import MembershipApi
from client_api.messages import MessagesApi
from client_api.profile import ProfileApi
from client_api.push_rules import PushRulesApi
from client_api.rooms import RoomsApi
from client_api.routes import ClientApi, client_routes
from client_api.send import SendApi
from client_api.sessions import SessionApi
from client_api.sync import SyncApi
from client_api.to_device import ToDeviceApi
from federation.addresses import DENIED_BY_DEFAULT, AddressPolicy, address_policy
from federation.auth import ServerAuthentication
from federation.client import FederationClient
from federation.discovery import Discovery, PermittedServers
from federation.event_signatures import KeyringVerifier
from federation.events import Events
from federation.invites import InviteEndpoints
from federation.joins import Joins
from federation.key_routes import KeyRoutes
from federation.key_store import DatabaseKeyStore
from federation.keyring import Keyring
from federation.queries import Queries
from federation.remote_rooms import FederationRooms
from federation.routes import routes as federation_routes
from federation.sender import Sender
from federation.srv import srv_lookup
from federation.state_replies import StateReplies
from federation.transactions import Transactions
from federation.transport import Transport, open_session, tls_context
from federation.visible_events import VisibleEvents
from federation.well_known import fetch_well_known
from homeserver.clock import Clock, SystemClock
from homeserver.config import Config, Federation, Listener, describe_listener
from homeserver.core import Core, open_core
from homeserver.health import Health, Metrics
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing import parse_signing_key_file
from homeserver.ratelimit import RateLimiter
from homeserver.rooms.adopt import Adoption
from homeserver.rooms.backfill import Backfill
from homeserver.rooms.create import CreateRoom
from homeserver.rooms.directory import Directory
from homeserver.rooms.history import History
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.inbound import Inbound
from homeserver.rooms.invites import Invites
from homeserver.rooms.membership import Membership
from homeserver.rooms.missing import Missing
from homeserver.rooms.receipts import Receipts
from homeserver.rooms.redaction import RedactionRights
from homeserver.rooms.remote_join import RemoteJoin
from homeserver.rooms.restricted_join import RestrictedJoin
from homeserver.rooms.transactions import Transactions as ClientTransactions
from homeserver.rooms.upgrade import UpgradeRoom
from homeserver.rooms.visibility import Visibility
from homeserver.storage import open_database, transaction_ids
from homeserver.storage.numbers import Sequence
from homeserver.sync.client_events import ClientEvents
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.memberships import Memberships
from homeserver.sync.positions import EphemeralPositions
from homeserver.sync.room_section import RoomSections
from homeserver.sync.state_changes import StateChanges
from homeserver.sync.sync import Sync
from homeserver.sync.timeline_window import TimelineWindows
from homeserver.sync.typing import Typing
from homeserver.sync.unread import Unread
from homeserver.users.account_data import AccountData
from homeserver.users.accounts import Accounts
from homeserver.users.interactive_auth import InteractiveAuth
from homeserver.users.passwords import Passwords
from homeserver.users.presence import Presence
from homeserver.users.profiles import Profiles
from homeserver.users.push_rules import PushRules
from homeserver.users.registration import Registration, RegistrationMode
from homeserver.users.sessions import Sessions
from homeserver.users.to_device import ToDevice
from homeserver.web import Dispatcher, Route

_log = structlog.get_logger()

#: How long requests that are under way get to finish when the server stops, in seconds.
_GRACE_S = 10.0

_HOUR_S = 3600.0
#: Clients repeat a request within minutes; a day is what the longest absence on the road takes.
_TRANSACTION_IDS_KEPT_MS = 24 * 3600 * 1000


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
            core = await open_core(db, clock or SystemClock(), config.server_name, key)
            opened.push_async_callback(core.background.close)
            others = await _meet_others(config, core, opened)
            people = await _meet_people(config, core, others)
            metrics = Metrics()
            core.notifier.listeners += [metrics.count_events, others.sender.new_events]
            core.background.start(metrics.watch_event_loop(), "event loop watch")
            for name, seconds, work in _chores(core, people):
                core.background.start(_every(seconds, work), name)
            await others.sender.start(core.notifier.position)
            opened.push_async_callback(others.sender.close)
            server = cls(core, opened.pop_all())
        try:
            limiter = RateLimiter(config.rate_limits.limits(), core.clock, enabled=config.rate_limits.enabled)
            await server._listen(config, people, others, metrics, limiter)
        except BaseException:
            await server.stop()
            raise
        return server

    async def stop(self) -> None:
        """Answer what was asked, then close everything."""
        self.core.notifier.close()
        await self._closing.aclose()

    async def _listen(
        self, config: Config, people: People, others: Others, metrics: Metrics, limiter: RateLimiter
    ) -> None:
        health = Health(self.core.db, metrics)
        tables: dict[str, list[Route]] = {
            "client": client_routes(people.api(config, self.core, others, limiter)),
            "federation": others.routes(self.core, people) if config.federation.enabled else [],
            "health": health.health_routes(),
            "metrics": health.metrics_routes(),
        }
        # aiohttp's own logger reports malformed HTTP with tracebacks; the client has its 400.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        for listener in config.listeners:
            dispatcher = Dispatcher(
                [route for name in listener.serves for route in tables[name]],
                authenticate_user=people.sessions.authenticate,
                authenticate_server=others.authentication.authenticate_server,
                rate_limiter=limiter,
                max_body=config.limits.max_request_bytes,
                trust_forwarded_for=listener.behind_proxy,
                observe=metrics.observe_request,
            )
            await self._open_listener(listener, dispatcher)

    async def _open_listener(self, listener: Listener, dispatcher: Dispatcher) -> None:
        runner = web.ServerRunner(
            web.Server(dispatcher, access_log=None), handle_signals=False, shutdown_timeout=_GRACE_S
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
class Others:
    """What has to do with other servers."""

    client: FederationClient
    keyring: Keyring
    authentication: ServerAuthentication
    sender: Sender
    inbound: Inbound
    remote_join: RemoteJoin
    backfill: Backfill
    invites: Invites
    key_routes: KeyRoutes

    def routes(self, core: Core, people: People) -> list[Route]:
        """The federation API."""
        replies = StateReplies(core.db, core.states)
        return federation_routes(
            keys=self.key_routes,
            transactions=Transactions(
                db=core.db,
                rooms=core.rooms,
                inbound=self.inbound,
                invites=self.invites,
                edu_receivers={
                    "m.typing": people.typing.receive,
                    "m.receipt": people.receipts.receive,
                    "m.presence": people.presence.receive,
                    "m.direct_to_device": people.to_device.receive,
                },
                background=core.background,
                clock=core.clock,
            ),
            events=Events(
                db=core.db,
                rooms=core.rooms,
                events=core.events,
                replies=replies,
                visible=VisibleEvents(states=core.states, events=core.events, keys=core.keys),
                clock=core.clock,
                server_name=core.server_name,
            ),
            joins=Joins(
                rooms=core.rooms,
                send=core.send,
                inbound=self.inbound,
                states=core.states,
                restricted=RestrictedJoin(core.db, core.states, core.server_name),
                replies=replies,
                server_name=core.server_name,
                signing_key=core.signing_key,
            ),
            invites=InviteEndpoints(
                rooms=core.rooms,
                inbound=self.inbound,
                invites=self.invites,
                is_local_user=people.accounts.is_active,
                server_name=core.server_name,
                signing_key=core.signing_key,
            ),
            queries=Queries(
                db=core.db,
                rooms=core.rooms,
                profiles=people.profiles,
                server_name=core.server_name,
                version=version("inglenook"),
            ),
        )


async def _meet_others(config: Config, core: Core, opened: contextlib.AsyncExitStack) -> Others:
    """Wire what has to do with other servers; ``opened`` closes it."""
    clock, server_name, key = core.clock, core.server_name, core.signing_key
    allows = config.federation.allows if config.federation.enabled else _nobody
    session = open_session(_addresses(config.federation), _outbound_tls(config.federation))
    opened.push_async_callback(session.close)
    discovery = Discovery(
        fetch_well_known=partial(fetch_well_known, session),
        look_up_srv=srv_lookup(aiodns.DNSResolver()),
        clock=clock,
        random=SystemRandom(),
    )
    opened.push_async_callback(discovery.close)
    transport = Transport(
        server_name=server_name,
        key=key,
        discovery=PermittedServers(discovery, allows),
        session=session,
        timeout=config.federation.request_timeout,
    )
    client = FederationClient(transport)
    keyring = Keyring(
        server_name=server_name,
        own_keys=[key],
        store=DatabaseKeyStore(core.db),
        fetch=client.get_server_keys,
        clock=clock,
    )
    opened.push_async_callback(keyring.close)
    verifier = KeyringVerifier(keyring)
    opened.push_async_callback(verifier.close)
    key_routes = KeyRoutes(
        server_name=server_name,
        keys=[key],
        old_keys=[],
        fetch=client.get_server_keys,
        allows=allows,
        clock=clock,
    )
    opened.push_async_callback(key_routes.close)
    sender = Sender(
        db=core.db,
        events=core.events,
        client=client,
        outbox_positions=await Sequence.open(core.db, "outbox"),
        clock=clock,
        server_name=server_name,
        allows=allows,
    )
    remote = FederationRooms(client)
    missing = Missing(remote, core.events)
    inbound = Inbound(
        rooms=core.rooms,
        events=core.events,
        states=core.states,
        resolution=core.resolution,
        timeline=core.timeline,
        outliers=core.outliers,
        missing=missing,
        verifier=verifier,
    )
    adoption = Adoption(
        keys=core.keys,
        outliers=core.outliers,
        timeline=core.timeline,
        positions=core.positions,
        event_nids=core.event_nids,
    )
    return Others(
        client=client,
        keyring=keyring,
        authentication=ServerAuthentication(
            server_name=server_name, keyring=keyring, heard_from=sender.peer_is_alive, allows=allows
        ),
        sender=sender,
        inbound=inbound,
        remote_join=RemoteJoin(
            db=core.db,
            rooms=core.rooms,
            send=core.send,
            inbound=inbound,
            adoption=adoption,
            remote=remote,
            positions=core.positions,
            announce=core.notifier.announce,
            clock=clock,
            server_name=server_name,
            signing_key=key,
        ),
        backfill=Backfill(
            db=core.db,
            keys=core.keys,
            rooms=core.rooms,
            events=core.events,
            states=core.states,
            timeline=core.timeline,
            inbound=inbound,
            missing=missing,
            remote=remote,
            event_nids=core.event_nids,
            server_name=server_name,
        ),
        invites=Invites(
            db=core.db, rooms=core.rooms, positions=core.positions, announce=core.notifier.announce
        ),
        key_routes=key_routes,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """What has to do with this server's users."""

    accounts: Accounts
    sessions: Sessions
    registration: Registration
    profiles: Profiles
    account_data: AccountData
    membership: Membership
    typing: Typing
    receipts: Receipts
    presence: Presence
    to_device: ToDevice
    ephemeral: EphemeralPositions

    def api(self, config: Config, core: Core, others: Others, limiter: RateLimiter) -> ClientApi:
        """The client-server API."""
        interactive_auth = InteractiveAuth(core.clock, self.accounts, self.registration)
        push_rules = PushRules(self.account_data)
        visibility = Visibility(core.db, core.keys, core.events, core.states)
        client_events = ClientEvents(core.db, core.events, core.states, core.clock)
        ignored = IgnoredUsers(core.db)
        directory = Directory(
            db=core.db,
            rooms=core.rooms,
            states=core.states,
            send=core.send,
            remote=others.remote_join,
            server_name=core.server_name,
        )
        create = CreateRoom(
            db=core.db,
            rooms=core.rooms,
            timeline=core.timeline,
            membership=self.membership,
            profiles=self.profiles,
            clock=core.clock,
            server_name=core.server_name,
            signing_key=core.signing_key,
            default_version=ROOM_VERSIONS[config.rooms.default_version],
        )
        upgrade = UpgradeRoom(
            db=core.db,
            rooms=core.rooms,
            states=core.states,
            send=core.send,
            create=create,
            profiles=self.profiles,
        )
        history = History(
            db=core.db,
            rooms=core.rooms,
            keys=core.keys,
            events=core.events,
            states=core.states,
            visibility=visibility,
            backfill=others.backfill,
        )
        return ClientApi(
            discovery=DiscoveryApi(
                default_room_version=config.rooms.default_version, public_base_url=config.public_base_url
            ),
            accounts=AccountApi(
                self.accounts, self.sessions, self.registration, interactive_auth, self.membership
            ),
            sessions=SessionApi(self.accounts, self.sessions, config.public_base_url),
            devices=DeviceApi(self.sessions, interactive_auth),
            profile=ProfileApi(self.profiles),
            account_data=AccountDataApi(self.account_data, push_rules),
            filters=FilterApi(core.db),
            push_rules=PushRulesApi(push_rules),
            sync=SyncApi(core.db, self._sync(core, push_rules, visibility, client_events, ignored)),
            rooms=RoomsApi(create, upgrade, self.membership, directory),
            directory=DirectoryApi(directory),
            membership=MembershipApi(self.membership, directory),
            send=SendApi(
                send=core.send,
                membership=self.membership,
                directory=directory,
                redaction_rights=RedactionRights(core.rooms, core.events, core.server_name),
                transactions=ClientTransactions(core.db, core.clock),
            ),
            messages=MessagesApi(history, client_events, ignored),
            ephemeral=EphemeralApi(self.typing, self.receipts, self.presence),
            to_device=ToDeviceApi(self.to_device),
        )

    def _sync(
        self,
        core: Core,
        push_rules: PushRules,
        visibility: Visibility,
        client_events: ClientEvents,
        ignored: IgnoredUsers,
    ) -> Sync:
        lazy_members = LazyMembers()
        sections = RoomSections(
            db=core.db,
            visibility=visibility,
            windows=TimelineWindows(core.db, visibility),
            changes=StateChanges(core.db, core.keys, core.events, core.states),
            client_events=client_events,
            lazy_members=lazy_members,
            unread=Unread(
                db=core.db,
                events=core.events,
                states=core.states,
                visibility=visibility,
                receipts=self.receipts.newest,
                rulesets=push_rules,
                notifier=core.notifier,
            ),
            typing=self.typing,
        )
        return Sync(
            db=core.db,
            rooms=core.rooms,
            events=core.events,
            memberships=Memberships(core.db, core.rooms, visibility, core.notifier),
            sections=sections,
            lazy_members=lazy_members,
            receipts=self.receipts,
            typing=self.typing,
            presence=self.presence,
            to_device=self.to_device,
            push_rules=push_rules,
            ignored=ignored,
            notifier=core.notifier,
            ephemeral=self.ephemeral,
        )


async def _meet_people(config: Config, core: Core, others: Others) -> People:
    """Wire what has to do with this server's users."""
    db, clock, server_name, notifier = core.db, core.clock, core.server_name, core.notifier
    attempts = RateLimiter(config.rate_limits.limits(), clock, enabled=config.rate_limits.enabled)
    ephemeral = EphemeralPositions(clock.now_ms())
    profiles = Profiles(db, server_name, remote=others.client)
    membership = Membership(
        db=db,
        rooms=core.rooms,
        states=core.states,
        timeline=core.timeline,
        send=core.send,
        profiles=profiles,
        remote=others.remote_join,
        server_name=server_name,
    )
    profiles.memberships = membership
    to_device = ToDevice(
        db=db,
        positions=core.positions,
        clock=clock,
        news=notifier,
        edus=others.sender,
        server_name=server_name,
    )
    return People(
        accounts=Accounts(
            db, clock, Passwords(), server_name, check_attempt=partial(attempts.check, "login")
        ),
        sessions=Sessions(db, clock, observer=to_device),
        registration=Registration(
            db, clock, RegistrationMode(config.registration.mode), config.registration.tokens
        ),
        profiles=profiles,
        account_data=AccountData(
            db, core.positions, lambda pos, user_id: notifier.announce(pos, users=(user_id,))
        ),
        membership=membership,
        typing=Typing(
            rooms=core.rooms,
            states=core.states,
            positions=ephemeral,
            clock=clock,
            notifier=notifier,
            edus=others.sender,
            server_name=server_name,
        ),
        receipts=Receipts(
            db=db,
            rooms=core.rooms,
            states=core.states,
            events=core.events,
            positions=core.positions,
            clock=clock,
            news=notifier,
            edus=others.sender,
            server_name=server_name,
        ),
        presence=Presence(
            db=db,
            rooms=core.rooms,
            clock=clock,
            news=notifier,
            edus=others.sender,
            next_position=ephemeral.next,
            server_name=server_name,
            enabled=config.presence.enabled,
        ),
        to_device=to_device,
        ephemeral=ephemeral,
    )


def _addresses(federation: Federation) -> AddressPolicy:
    denied = () if federation.allow_private_addresses else DENIED_BY_DEFAULT
    return address_policy(
        denied=(*denied, *map(str, federation.denied_addresses)),
        allowed=map(str, federation.allowed_addresses),
    )


def _outbound_tls(federation: Federation) -> ssl.SSLContext:
    context = tls_context(federation.ca_file)
    if not federation.verify_certificates:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _nobody(_server_name: str) -> bool:
    return False


def _chores(core: Core, people: People) -> list[tuple[str, float, Callable[[], Awaitable[object]]]]:
    """What has to be done now and then: name, seconds in between, work."""

    async def forget_transactions() -> None:
        before = core.clock.now_ms() - _TRANSACTION_IDS_KEPT_MS
        await core.db.write(partial(transaction_ids.remove_older, before=before))

    async def expire_typing() -> None:
        people.typing.expire()

    return [
        ("old transaction ids", _HOUR_S, forget_transactions),
        ("old to-device messages", _HOUR_S, people.to_device.forget_received),
        ("typing ends", 1.0, expire_typing),
        ("presence ends", 5.0, people.presence.expire),
    ]


async def _every(seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do ``work`` now and then until cancelled; a failure is logged and does not end it."""
    while True:
        try:
            await work()
        except Exception:
            _log.exception("chore failed", work=getattr(work, "__qualname__", work))
        await asyncio.sleep(seconds)
