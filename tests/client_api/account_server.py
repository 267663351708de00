"""A server that has accounts and nothing else, reached over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any
from urllib.parse import quote

from aiohttp.test_utils import RawTestServer, TestClient
from yarl import URL

from client_api.account_data import AccountDataApi
from client_api.accounts import AccountApi
from client_api.devices import DeviceApi
from client_api.discovery import DiscoveryApi
from client_api.filters import FilterApi
from client_api.profile import ProfileApi
from client_api.push_rules import PushRulesApi
from client_api.sessions import SessionApi
from homeserver.clock import FakeClock
from homeserver.errors import MatrixError
from homeserver.ratelimit import RateLimiter
from homeserver.storage.database import Database
from homeserver.users.account_data import AccountData
from homeserver.users.accounts import Accounts
from homeserver.users.interactive_auth import InteractiveAuth
from homeserver.users.passwords import Passwords
from homeserver.users.profiles import Profiles
from homeserver.users.push_rules import PushRules
from homeserver.users.registration import Registration, RegistrationMode
from homeserver.users.sessions import Sessions
from homeserver.web import Access, Dispatcher, Route

V3 = "/_matrix/client/v3"


class Positions:
    """Positions that nobody else draws from."""

    def __init__(self) -> None:
        self._numbers = count(1)

    def next(self) -> int:
        return next(self._numbers)


class Witness:
    """Remembers what the accounts tell the rest of the server."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.devices: list[tuple[str, list[str], list[str]]] = []
        self.profiles: list[tuple[str, str | None, str | None]] = []
        self.announced: list[str] = []

    async def leave_all(self, user_id: str) -> None:
        self.left.append(user_id)

    async def devices_changed(self, user_id: str, changed: Collection[str], removed: Collection[str]) -> None:
        self.devices.append((user_id, list(changed), list(removed)))

    async def profile_changed(self, user_id: str, displayname: str | None, avatar_url: str | None) -> None:
        self.profiles.append((user_id, displayname, avatar_url))

    async def query_profile(self, server_name: str, user_id: str, field: str | None) -> dict[str, Any]:
        return {"displayname": f"{user_id} at {server_name}"}


class AccountServer:
    """The parts that make up the server, and a client to call it with."""

    def __init__(self, db: Database, mode: RegistrationMode, tokens: Collection[str]) -> None:
        self.db = db
        self.clock = FakeClock()
        self.witness = Witness()
        self.accounts = Accounts(db, self.clock, Passwords(memory_kib=8, time_cost=1), "a.org")
        self.sessions = Sessions(db, self.clock, observer=self.witness)
        self.registration = Registration(db, self.clock, mode, tokens)
        self.client: TestClient[Any, Any]

    def routes(self) -> list[Route]:
        interactive_auth = InteractiveAuth(self.clock, self.accounts, self.registration)
        account_data = AccountData(
            self.db, Positions(), lambda _, user_id: self.witness.announced.append(user_id)
        )
        push_rules = PushRules(account_data)
        profiles = Profiles(self.db, "a.org", memberships=self.witness, remote=self.witness)
        return [
            *account_routes(
                AccountApi(self.accounts, self.sessions, self.registration, interactive_auth, self.witness)
            ),
            *session_routes(SessionApi(self.accounts, self.sessions, "https://a.org")),
            *device_routes(DeviceApi(self.sessions, interactive_auth)),
            *profile_routes(ProfileApi(profiles)),
            *account_data_routes(AccountDataApi(account_data, push_rules)),
            *filter_routes(FilterApi(self.db)),
            *push_rules_routes(PushRulesApi(push_rules)),
            *discovery_routes(DiscoveryApi(default_room_version="12", public_base_url="https://a.org")),
        ]

    async def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, token: str | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of a request; ``path`` is absolute or below ``/_matrix/client/v3``."""
        target = path if path.startswith(("/_matrix", "/.well-known")) else V3 + path
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

    async def user(self, name: str, *, device_id: str | None = None) -> str:
        """An access token of a user who is made if need be, with the password ``secret {name}``."""
        if not await self.accounts.is_active(f"@{name}:a.org"):
            await self.accounts.create_account(name, f"secret {name}")
        return (await self.sessions.log_in(f"@{name}:a.org", device_id=device_id)).access_token


async def nobody(*_: object) -> str:
    """There are no other servers here."""
    raise MatrixError(401, "M_UNAUTHORIZED", "There are no other servers here")


@asynccontextmanager
async def account_server(
    db: Database, mode: RegistrationMode = RegistrationMode.OPEN, tokens: Collection[str] = ()
) -> AsyncIterator[AccountServer]:
    """A running server."""
    server = AccountServer(db, mode, tokens)
    dispatcher = Dispatcher(
        server.routes(),
        authenticate_user=server.sessions.authenticate,
        authenticate_server=nobody,
        rate_limiter=RateLimiter({}, server.clock, enabled=False),
    )
    async with TestClient(RawTestServer(dispatcher)) as server.client:
        yield server


def password_auth(name: str, session: str | None = None) -> dict[str, Any]:
    """The ``auth`` that completes the password stage."""
    identifier = {"type": "m.id.user", "user": name}
    auth = {"type": "m.login.password", "identifier": identifier, "password": f"secret {name}"}
    return {**auth, "session": session} if session else auth


def segment(text: str) -> str:
    """Text as one segment of a path."""
    return quote(text, safe="")


def account_routes(api: AccountApi) -> list[Route]:
    validity = "/_matrix/client/v1/register/m.login.registration_token/validity"
    return [
        Route("POST", f"{V3}/register", api.register, Access.PUBLIC, "registration"),
        Route("GET", f"{V3}/register/available", api.username_available, Access.PUBLIC, "registration"),
        Route("GET", validity, api.registration_token_validity, Access.PUBLIC, "registration"),
        Route("GET", f"{V3}/account/whoami", api.whoami),
        Route("POST", f"{V3}/account/password", api.change_password, Access.USER_OR_NOBODY, "login"),
        Route("POST", f"{V3}/account/deactivate", api.deactivate, Access.USER_OR_NOBODY, "login"),
        Route("GET", f"{V3}/account/3pid", api.third_party_ids),
        Route("POST", f"{V3}/account/3pid/add", api.refuse_third_party_id),
    ]


def session_routes(api: SessionApi) -> list[Route]:
    return [
        Route("GET", f"{V3}/login", api.login_flows, Access.PUBLIC),
        Route("POST", f"{V3}/login", api.log_in, Access.PUBLIC, "login"),
        Route("POST", f"{V3}/refresh", api.refresh, Access.PUBLIC, "login"),
        Route("POST", f"{V3}/logout", api.log_out),
        Route("POST", f"{V3}/logout/all", api.log_out_everywhere),
    ]


def device_routes(api: DeviceApi) -> list[Route]:
    return [
        Route("GET", f"{V3}/devices", api.devices),
        Route("GET", f"{V3}/devices/{{deviceId}}", api.device),
        Route("PUT", f"{V3}/devices/{{deviceId}}", api.rename_device),
        Route("DELETE", f"{V3}/devices/{{deviceId}}", api.delete_device),
        Route("POST", f"{V3}/delete_devices", api.delete_devices),
    ]


def profile_routes(api: ProfileApi) -> list[Route]:
    return [
        Route("GET", f"{V3}/profile/{{userId}}", api.profile, Access.PUBLIC),
        Route("GET", f"{V3}/profile/{{userId}}/{{keyName}}", api.field, Access.PUBLIC),
        Route("PUT", f"{V3}/profile/{{userId}}/{{keyName}}", api.set_field),
        Route("DELETE", f"{V3}/profile/{{userId}}/{{keyName}}", api.remove_field),
    ]


def account_data_routes(api: AccountDataApi) -> list[Route]:
    user, room = f"{V3}/user/{{userId}}", f"{V3}/user/{{userId}}/rooms/{{roomId}}"
    return [
        Route("GET", f"{user}/account_data/{{type}}", api.content),
        Route("PUT", f"{user}/account_data/{{type}}", api.set_content),
        Route("GET", f"{room}/account_data/{{type}}", api.content),
        Route("PUT", f"{room}/account_data/{{type}}", api.set_content),
        Route("GET", f"{room}/tags", api.tags),
        Route("PUT", f"{room}/tags/{{tag}}", api.set_tag),
        Route("DELETE", f"{room}/tags/{{tag}}", api.remove_tag),
    ]


def filter_routes(api: FilterApi) -> list[Route]:
    return [
        Route("POST", f"{V3}/user/{{userId}}/filter", api.define),
        Route("GET", f"{V3}/user/{{userId}}/filter/{{filterId}}", api.definition),
    ]


def push_rules_routes(api: PushRulesApi) -> list[Route]:
    rule = f"{V3}/pushrules/global/{{kind}}/{{ruleId}}"
    return [
        Route("GET", f"{V3}/pushrules/", api.all_rulesets),
        Route("GET", f"{V3}/pushrules/global/", api.global_ruleset),
        Route("GET", rule, api.rule),
        Route("PUT", rule, api.put_rule),
        Route("DELETE", rule, api.delete_rule),
        Route("GET", f"{rule}/enabled", api.enabled),
        Route("PUT", f"{rule}/enabled", api.set_enabled),
        Route("GET", f"{rule}/actions", api.actions),
        Route("PUT", f"{rule}/actions", api.set_actions),
    ]


def discovery_routes(api: DiscoveryApi) -> list[Route]:
    return [
        Route("GET", "/_matrix/client/versions", api.versions, Access.PUBLIC),
        Route("GET", f"{V3}/capabilities", api.capabilities),
        Route("GET", "/.well-known/matrix/client", api.well_known, Access.PUBLIC),
    ]
