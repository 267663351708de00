"""What only application services may ask (application service API, "Client-Server API Extensions")."""

from __future__ import annotations

import time
from typing import Any, Literal

import msgspec
import orjson

from client_api.accounts import login_reply
from homeserver.appservices.accounts import APPLICATION_SERVICE, ServiceAccounts
from homeserver.appservices.client import Client, did_not_answer_in_time
from homeserver.appservices.networks import NetworkRooms
from homeserver.appservices.services import AppService, AppServices, bearer_token
from homeserver.appservices.traffic import Traffic
from homeserver.errors import MatrixError, RemoteError, bad_json, forbidden, missing_param
from homeserver.replies import Reply
from homeserver.users.interactive_auth import identified_user
from homeserver.users.sessions import Sessions
from homeserver.web import Handler, Request

_MAX_TRANSACTION_ID = 255
#: Of what a service answered to a ping, in bytes.
_MAX_SHOWN = 4_096


class _Login(msgspec.Struct):
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False


class _Registration(_Login):
    username: str | None = None
    inhibit_login: bool = False


class _Ping(msgspec.Struct, frozen=True):
    transaction_id: str | None = None


class _Visibility(msgspec.Struct, frozen=True):
    visibility: Literal["public", "private"]


class AppServicesApi:
    """Endpoints for application services."""

    def __init__(
        self,
        *,
        services: AppServices,
        accounts: ServiceAccounts,
        sessions: Sessions,
        client: Client,
        networks: NetworkRooms,
        traffic: Traffic,
    ) -> None:
        self._services = services
        self._accounts = accounts
        self._sessions = sessions
        self._client = client
        self._networks = networks
        self._traffic = traffic

    def registering(self, others: Handler) -> Handler:
        """``POST /register``: with the type of application services here, with any other at ``others``."""
        return _by_type(self._register, others)

    def logging_in(self, others: Handler) -> Handler:
        """``POST /login``, in the same way."""
        return _by_type(self._log_in, others)

    async def ping(self, request: Request) -> Reply:
        """``POST /appservice/{appserviceId}/ping``."""
        service = self._own(request)
        if service.id != request.params["appserviceId"]:
            raise forbidden("That is the ID of another application service")
        wanted = request.decode(_Ping, empty_ok=True)
        if len(wanted.transaction_id or "") > _MAX_TRANSACTION_ID:
            raise bad_json(f"'transaction_id' has at most {_MAX_TRANSACTION_ID} characters")
        if service.registration.url is None:
            raise MatrixError(400, "M_URL_NOT_SET", "The application service has no URL")
        started = time.perf_counter()
        try:
            status, answer = await self._client.ping(service, wanted.transaction_id)
        except RemoteError as error:
            raise _no_answer(error) from error
        if not 200 <= status < 300:
            raise _bad_status(status, answer)
        self._traffic.deliveries[service.id].is_alive()
        return {"duration_ms": round((time.perf_counter() - started) * 1000)}

    async def set_visibility(self, request: Request) -> Reply:
        """``PUT /directory/list/appservice/{networkId}/{roomId}``."""
        service = self._own(request)
        published = request.decode(_Visibility).visibility == "public"
        await self._networks.publish(
            service, request.params["networkId"], request.params["roomId"], published=published
        )
        return {}

    async def _register(self, request: Request) -> Reply:
        service, wanted = self._identified(request), request.decode(_Registration)
        if wanted.username is None:
            raise missing_param("'username' is missing")
        user_id = await self._accounts.register(service, wanted.username)
        if wanted.inhibit_login:
            return {"user_id": user_id}
        return await self._session(user_id, wanted)

    async def _log_in(self, request: Request) -> Reply:
        service, wanted = self._identified(request), request.decode(_Login)
        user = identified_user(request.json())
        if user is None:
            raise MatrixError(400, "M_INVALID_PARAM", "The login names no user")
        user_id = await self._accounts.own_user(service, user)
        return await self._session(user_id, wanted)

    async def _session(self, user_id: str, wanted: _Login) -> Reply:
        login = await self._sessions.log_in(
            user_id,
            device_id=wanted.device_id,
            display_name=wanted.initial_device_display_name,
            refreshable=wanted.refresh_token,
        )
        return login_reply(login)

    def _identified(self, request: Request) -> AppService:
        """The service that says by its token who it is, where no user is meant."""
        token = bearer_token(request.headers, request.query)
        if token is None:
            raise MatrixError(401, "M_MISSING_TOKEN", "The access token is missing")
        service = self._services.with_token(token)
        if service is None:
            raise MatrixError(401, "M_UNKNOWN_TOKEN", "That is no application service's access token")
        return service

    def _own(self, request: Request) -> AppService:
        service = self._services.by_id.get(request.requester.appservice or "")
        if service is None:
            raise forbidden("This is for application services only")
        return service


def _by_type(own: Handler, others: Handler) -> Handler:
    async def handle(request: Request) -> Reply:
        is_own = request.json(empty_ok=True).get("type") == APPLICATION_SERVICE
        return await (own if is_own else others)(request)

    return handle


def _no_answer(error: RemoteError) -> MatrixError:
    if did_not_answer_in_time(error):
        return MatrixError(504, "M_CONNECTION_TIMEOUT", "The application service did not answer in time")
    return MatrixError(502, "M_CONNECTION_FAILED", f"The application service cannot be reached: {error}")


def _bad_status(status: int, answer: Any) -> MatrixError:
    error = MatrixError(502, "M_BAD_STATUS", f"The application service answered with status {status}")
    # In the body, where the reply has a status of its own.
    error.fields["status"] = status
    if answer is not None:
        error.fields["body"] = orjson.dumps(answer)[:_MAX_SHOWN].decode(errors="replace")
    return error
