"""The composition root: what ``parts`` wired is put behind the two APIs, and these behind listeners.

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
from functools import partial

import structlog

from client_api.routes import client_routes
from client_api.wiring import Settings as ClientSettings
from client_api.wiring import wire_client_api
from federation.advertise import advertise_routes
from federation.wiring import (
    open_federation_api,
    open_key_validity,
)
from homeserver.clock import Clock, SystemClock
from homeserver.config import Config, Listener, describe_listener
from homeserver.connections import Connections
from homeserver.core import Core
from homeserver.health import Health, Metrics
from homeserver.live import LiveStreams
from homeserver.memory import collect_rarely
from homeserver.origins import Origins
from homeserver.parts import Parts, open_configured_core, rate_limiter, start_background, wire_parts
from homeserver.ratelimit import RateLimiter
from homeserver.single_sign_on import base_url_of, wire_single_sign_on
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
    collect_rarely()
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
            core = await open_configured_core(config, clock or SystemClock(), opened)
            metrics = Metrics()
            core.notifier.listeners.append(metrics.count_events)
            limiter = rate_limiter(config, core.clock)
            parts = await wire_parts(config, core, opened)
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
            start_background(config, core, parts)
            server = cls(core, opened.pop_all())
        # aiohttp's own logger reports malformed HTTP with tracebacks; the client has its 400.
        logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
        try:
            for listener in config.listeners:
                routes = _served(config, listener, tables)
                dispatcher = _dispatcher(config, listener, routes, parts, limiter=limiter, metrics=metrics)
                await server._listen(listener, dispatcher)
            # What it takes to start holds nobody up.
            metrics.stalls.start()
            server._closing.callback(metrics.stalls.stop)
        except BaseException:
            await server.stop()
            raise
        return server

    async def stop(self) -> None:
        """Answer what was asked, then close everything."""
        self.core.notifier.close()
        await self._closing.aclose()

    async def _listen(self, listener: Listener, dispatcher: Dispatcher) -> None:
        connections = Connections(dispatcher, access_log=None)
        tls = None
        if listener.tls is not None:
            tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            tls.load_cert_chain(listener.tls.certificate, listener.tls.private_key)
        listening = await asyncio.get_running_loop().create_server(
            connections, listener.bind, listener.port, ssl=tls, backlog=1024
        )
        self._closing.push_async_callback(_close, listening, connections)
        _log.info("listening", address=describe_listener(listener), serves=listener.serves)


async def _close(listening: asyncio.Server, connections: Connections) -> None:
    """Accept no more, let requests under way finish, and close all connections."""
    listening.close()
    # Whoever was accepted just now is heard before connections without a request are closed.
    await asyncio.sleep(0)
    connections.pre_shutdown()
    await connections.shutdown(_GRACE_S)


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
    parts: Parts,
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


def _for_clients(config: Config, core: Core, parts: Parts, live: LiveStreams) -> list[Route]:
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
    config: Config, core: Core, parts: Parts, opened: contextlib.AsyncExitStack
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
        version=_own_version,
    )


def _own_version() -> str:
    # Loaded when somebody asks, and that is seldom: it takes e-mail and archive formats along.
    from importlib.metadata import version  # noqa: PLC0415

    return version("inglenook")
