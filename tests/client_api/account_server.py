"""A server alone in the world, reached over HTTP, for tests of what people have and keep there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp.test_utils import RawTestServer, TestClient
from yarl import URL

from client_api.routes import client_routes
from client_api.wiring import Settings, wire_client_api
from federation.signatures import authorization_header
from homeserver.application_services import ApplicationServices, wire_application_services
from homeserver.appservices.client import Http
from homeserver.calls import Calls, wire_calls
from homeserver.clock import FakeClock
from homeserver.config import Config, Media
from homeserver.config import Registration as RegistrationSettings
from homeserver.config.appservices import Registration as AppServiceRegistration
from homeserver.config.people import Profiles
from homeserver.config.push import Push
from homeserver.contacts import ContactSettings, wire_contacts
from homeserver.content_repository import wire_content_repository
from homeserver.core import Core, open_core
from homeserver.egress import open_egress
from homeserver.encryption import wire_encryption
from homeserver.ephemeral import wire_ephemeral
from homeserver.errors import MatrixError
from homeserver.finding import wire_finding
from homeserver.live import LiveStreams
from homeserver.origins import Origins
from homeserver.people import wire_people
from homeserver.protocol.signing import generate_signing_key
from homeserver.pushing import wire_pushers
from homeserver.ratelimit import RateLimiter
from homeserver.reading import wire_reading
from homeserver.room_actions import wire_room_actions
from homeserver.single_sign_on import wire_single_sign_on
from homeserver.sso.sign_on import SingleSignOn
from homeserver.storage.database import Database, Transaction
from homeserver.third_party_identifiers import ThirdPartyIdentifiers, registration_policy, wire_identifiers
from homeserver.users.passwords import Passwords
from homeserver.users.registration import Registration, RegistrationMode
from homeserver.web import Dispatcher, Route
from tests.sync.server import AskedForHistory, NoHttp, NoLists, NoRemoteKeys, SentEdus
from tests.world import NobodyElse

V3 = "/_matrix/client/v3"


class Witness:
    """Remembers what the accounts tell the rest of the server, and answers for other servers."""

    def __init__(self) -> None:
        self.devices: list[tuple[str, list[str], list[str]]] = []
        self.profiles: list[tuple[str, str | None, str | None]] = []
        self.announced: list[str] = []

    async def devices_changed(self, user_id: str, changed: Collection[str], removed: Collection[str]) -> None:
        self.devices.append((user_id, list(changed), list(removed)))

    async def record(
        self, tx: Transaction, user_id: str, changed: Collection[str], removed: Collection[str]
    ) -> None:
        return

    async def profile_changed(self, user_id: str, displayname: str | None, avatar_url: str | None) -> None:
        self.profiles.append((user_id, displayname, avatar_url))

    async def query_profile(self, server_name: str, user_id: str, field: str | None) -> dict[str, Any]:
        return {"displayname": f"{user_id} at {server_name}", "avatar_url": None}


class AccountServer:
    """The server with its people, and a client to call it with."""

    def __init__(
        self,
        core: Core,
        clock: FakeClock,
        registration: Registration,
        registration_secret: str | None = None,
        *,
        config: Config | None = None,
        profiles: Profiles | None = None,
        allow_guests: bool = False,
    ) -> None:
        told: dict[str, Any] = (
            {
                "ways": config.login,
                "support": config.support,
                "turn": config.turn,
                "rendezvous": config.rendezvous,
                "live": LiveStreams(config.live),
                "origins": Origins(config.cors.allowed_origins),
            }
            if config
            else {}
        )
        self.settings = Settings(
            public_base_url="https://a.org", registration_secret=registration_secret, **told
        )
        self.sign_on: SingleSignOn | None = None
        self.core = core
        self._profiles = profiles or Profiles()
        self._config = config
        self.calls: Calls
        self.clock = clock
        self.db = core.db
        self.witness = Witness()
        core.notifier.user_listeners.append(self.witness.announced.extend)
        self.edus = SentEdus()
        self.encryption = wire_encryption(core, self.edus, NoRemoteKeys())
        self.ephemeral = wire_ephemeral(core, self.edus, presence=False)
        self.pushers = wire_pushers(core, Push())
        self.people = wire_people(
            core,
            registration=registration,
            passwords=Passwords(memory_kib=8, time_cost=1),
            devices=(self.witness, self.ephemeral.to_device, self.encryption.lists, self.pushers),
            remote=self.witness,
            allow_guests=allow_guests,
            sso_providers=[provider.id for provider in config.sso.providers] if config else (),
            thread_subscriptions=config is not None and config.push.thread_subscriptions,
        )
        self.people.profiles.memberships = self.witness
        self.accounts = self.people.accounts
        self.sessions = self.people.sessions
        self.identifiers: ThirdPartyIdentifiers | None = None
        self.services: ApplicationServices
        self.client: TestClient[Any, Any]

    def wire(self, bridges: Sequence[AppServiceRegistration], http: Http | None) -> None:
        """Wire what needs everything else."""
        self.actions = wire_room_actions(
            self.core,
            self.people.profiles,
            NobodyElse(),
            identity_servers=self.identifiers.servers if self.identifiers else None,
        )
        self.reading = wire_reading(
            self.core, self.people.push_rules, self.ephemeral, AskedForHistory(), self.encryption
        )
        self.calls = wire_calls(self.core, self.actions, self.reading, self._config)
        self.services = wire_application_services(
            *(self.core, self.people, self.ephemeral, self.reading, self.encryption),
            http=http or NoHttp(),
            registrations=bridges,
        )

    def routes(self) -> list[Route]:
        """The client-server API."""
        ephemeral, encryption = self.ephemeral, self.encryption
        api = wire_client_api(
            self.core,
            self.people,
            self.actions,
            ephemeral,
            self.reading,
            finding=wire_finding(self.core, self.reading, NoLists(), AskedForHistory()),
            encryption=encryption,
            application_services=self.services,
            content=wire_content_repository(self.core, Media(), None),
            pushers=self.pushers,
            settings=self.settings,
            identifiers=self.identifiers,
            sign_on=self.sign_on,
            calls=self.calls,
            contacts=wire_contacts(
                self.core, self.people, self.actions, self.reading, ContactSettings(profiles=self._profiles)
            ),
        )
        return client_routes(api)

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of a request; ``path`` is absolute or below ``/_matrix/client/v3``."""
        target = path if path.startswith(("/_matrix", "/_synapse", "/.well-known")) else V3 + path
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = self.client.request(method, URL(target, encoded=True), json=body, headers=headers)
        async with request as response:
            return response.status, await response.json()

    async def refused(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str | None = None
    ) -> tuple[int, str]:
        """Status and errcode of a request that fails."""
        status, reply = await self.call(method, path, body, token=token)
        return status, reply["errcode"]

    async def admin(self, name: str = "root") -> str:
        """An access token of a new administrator."""
        await self.accounts.create_account(name, f"secret {name}", admin=True)
        return await self.user(name)

    async def user(self, name: str, *, device_id: str | None = None) -> str:
        """An access token of a user who is made if need be, with the password ``secret {name}``."""
        if not await self.accounts.is_active(f"@{name}:a.org"):
            await self.accounts.create_account(name, f"secret {name}")
        login = await self.sessions.log_in(f"@{name}:a.org", device_id=device_id)
        self.witness.announced.clear()
        return login.access_token


async def nobody(*_: object) -> str:
    """There are no other servers here."""
    raise MatrixError(401, "M_UNAUTHORIZED", "There are no other servers here")


@asynccontextmanager
async def account_server(
    db: Database,
    mode: RegistrationMode = RegistrationMode.OPEN,
    tokens: Collection[str] = (),
    *,
    registration_secret: str | None = None,
    allow_guests: bool = False,
    config: Config | None = None,
    profiles: Profiles | None = None,
    bridges: Sequence[AppServiceRegistration] = (),
    http: Http | None = None,
    rate_limiter: RateLimiter | None = None,
    keep_redacted_ms: int = 0,
) -> AsyncIterator[AccountServer]:
    """A running server; ``config`` says how people register and are reached, in place of ``mode``.

    ``bridges`` are the application services it knows, reached by ``http``.
    """
    clock = FakeClock()
    core = await open_core(
        db, clock, "a.org", generate_signing_key("a_test"), keep_redacted_ms=keep_redacted_ms
    )
    registration = (
        Registration(db, clock, mode, tokens) if config is None else registration_policy(core, config)
    )
    server = AccountServer(
        core,
        clock,
        registration,
        registration_secret,
        config=config,
        profiles=profiles,
        allow_guests=allow_guests,
    )
    async with AsyncExitStack() as closing:
        if config is not None:
            limiter = RateLimiter(config.rate_limits.limits(), clock)
            ways_out = open_egress(config.egress, closing)
            server.sign_on = wire_single_sign_on(
                core, server.people, config.sso, ways_out.own, base_url="https://a.org"
            )
            server.identifiers = wire_identifiers(
                core,
                config,
                server.people,
                ways_out,
                sign=partial(signature, core),
                check_attempt=partial(limiter.check, "email"),
            )
        server.wire(bridges, http)
        await server.services.start(core, server.people, server.actions)
        dispatcher = Dispatcher(
            server.routes(),
            authenticate_user=server.services.authentication.authenticate,
            authenticate_server=nobody,
            rate_limiter=rate_limiter or RateLimiter({}, server.clock, enabled=False),
            is_unlimited=server.services.services.is_unlimited,
            note_use=server.people.last_seen.note,
            origins=server.settings.origins,
        )
        closing.push_async_callback(core.background.close)
        async with TestClient(RawTestServer(dispatcher)) as server.client:
            yield server


def signature(core: Core, method: str, uri: str, destination: str, body: bytes) -> str:
    """The ``Authorization`` header of a request in this server's name."""
    return authorization_header(
        method=method,
        uri=uri,
        origin=core.server_name,
        destination=destination,
        body=body,
        key=core.signing_key,
    )


def configured(**sections: Any) -> Config:
    """A configuration where anybody may register, but for what ``sections`` say."""
    settings: dict[str, Any] = {"registration": RegistrationSettings(mode="open"), **sections}
    return Config(
        server_name="a.org",
        signing_key=Path("signing.key"),
        database="sqlite:///nowhere",
        listeners=(),
        public_base_url="https://a.org",
        **settings,
    )


def password_auth(name: str, session: str | None = None) -> dict[str, Any]:
    """The ``auth`` that completes the password stage."""
    identifier = {"type": "m.id.user", "user": name}
    auth = {"type": "m.login.password", "identifier": identifier, "password": f"secret {name}"}
    return {**auth, "session": session} if session else auth


def segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")
