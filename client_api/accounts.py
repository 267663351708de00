"""Registering, changing one's password, leaving for good (client-server API, "Account registration").

Which addresses an account has is ``third_party_ids``' business; here they prove who one is.
"""

from __future__ import annotations

from typing import Any

import msgspec

from client_api.third_party_ids import unbind_result
from homeserver.errors import bad_json, invalid_param, missing_param
from homeserver.replies import Reply
from homeserver.users.accounts import Accounts, RoomLeaver
from homeserver.users.address_validation import AddressValidation, not_known
from homeserver.users.confirmation import Confirmation, proven_user
from homeserver.users.guests import Guests
from homeserver.users.identity_servers import IdentityBindings
from homeserver.users.interactive_auth import InteractiveAuth, Operation
from homeserver.users.registration import EMAIL_IDENTITY, REGISTRATION_TOKEN, Registration
from homeserver.users.sessions import Login, Sessions
from homeserver.users.third_party_ids import ThirdPartyIds
from homeserver.web import Request

MAX_REGISTRATION_TOKEN_CHARS = 64


class _Registration(msgspec.Struct):
    username: str | None = None
    password: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    inhibit_login: bool = False
    refresh_token: bool = False
    guest_access_token: str | None = None


class _Guest(msgspec.Struct):
    initial_device_display_name: Any = None


class _NewPassword(msgspec.Struct):
    new_password: str
    logout_devices: bool = True


class _Deactivation(msgspec.Struct):
    erase: bool = False
    id_server: str | None = None


class AccountApi:
    """Endpoints about whole accounts.

    Without ``validation`` no email address proves anything, without ``bindings`` no identity
    server knows of anybody.
    """

    def __init__(
        self,
        accounts: Accounts,
        sessions: Sessions,
        registration: Registration,
        interactive_auth: InteractiveAuth,
        room_leaver: RoomLeaver,
        *,
        guests: Guests,
        confirmation: Confirmation,
        ids: ThirdPartyIds,
        validation: AddressValidation | None = None,
        bindings: IdentityBindings | None = None,
    ) -> None:
        self._accounts = accounts
        self._sessions = sessions
        self._registration = registration
        self._interactive_auth = interactive_auth
        self._room_leaver = room_leaver
        self._guests = guests
        self._confirmation = confirmation
        self._ids = ids
        self._validation = validation
        self._bindings = bindings

    async def register(self, request: Request) -> Reply:
        """``POST /register``."""
        if request.query_choice("kind", "user", ("user", "guest")) == "guest":
            return await self._register_guest(request)
        flows = self._registration.flows()
        body, wanted = request.json(), request.decode(_Registration)
        guest = None
        if wanted.guest_access_token is not None:
            guest = await self._guests.to_upgrade(wanted.guest_access_token, wanted.username)
        elif wanted.username is not None:
            await self._accounts.available_user_id(wanted.username)
        if wanted.password is not None:
            self._accounts.check_password(wanted.password)
        yielded = await self._interactive_auth.authorise(Operation("POST /register"), body, flows)
        if wanted.password is None:
            raise missing_param("'password' is missing")
        sid = yielded.get(EMAIL_IDENTITY)
        validated = await self._validation.proved(sid) if self._validation and sid else None
        token = self._registration.to_be_used_up(yielded.get(REGISTRATION_TOKEN))
        if guest is not None:
            await self._guests.upgrade(guest, wanted.password, validated=validated, registration_token=token)
            await self._sessions.log_out_everywhere(guest)
        user_id = guest or await self._accounts.create_account(
            wanted.username, wanted.password, validated=validated, registration_token=token
        )
        if wanted.inhibit_login:
            return {"user_id": user_id}
        login = await self._sessions.log_in(
            user_id,
            device_id=wanted.device_id,
            display_name=wanted.initial_device_display_name,
            refreshable=wanted.refresh_token,
        )
        return login_reply(login)

    async def _register_guest(self, request: Request) -> Reply:
        """Of the body of a guest's registration only the device's name counts."""
        name = request.decode(_Guest, empty_ok=True).initial_device_display_name
        return login_reply(await self._guests.register(name if isinstance(name, str) else None))

    async def username_available(self, request: Request) -> Reply:
        """``GET /register/available``."""
        self._registration.flows()
        await self._accounts.available_user_id(request.query_text("username"))
        return {"available": True}

    async def registration_token_validity(self, request: Request) -> Reply:
        """``GET /register/m.login.registration_token/validity``."""
        self._registration.flows()
        token = request.query_text("token")
        if len(token) > MAX_REGISTRATION_TOKEN_CHARS:
            raise invalid_param("A registration token has at most 64 characters")
        return {"valid": await self._registration.is_valid(token)}

    async def whoami(self, request: Request) -> Reply:
        """``GET /account/whoami``."""
        requester = request.requester
        reply: dict[str, Any] = {"user_id": requester.user_id, "is_guest": requester.is_guest}
        if requester.device_id is not None:
            reply["device_id"] = requester.device_id
        return reply

    async def change_password(self, request: Request) -> Reply:
        """``POST /account/password``; without an access token the user is the one who gives the password,
        or whose address it is."""
        body = request.json()
        requester = request.requester_if_any
        if "new_password" in body:
            self._accounts.check_password(_text(body, "new_password"))
        operation = Operation("POST /account/password", requester.user_id if requester else None)
        flows = await self._confirmation.flows(operation.user_id)
        flows += [] if self._validation is None else [[EMAIL_IDENTITY]]
        yielded = await self._interactive_auth.authorise(operation, body, flows)
        wanted = request.decode(_NewPassword)
        user_id = proven_user(yielded) or await self._owner(yielded[EMAIL_IDENTITY])
        await self._accounts.change_password(user_id, wanted.new_password)
        if wanted.logout_devices:
            await self._sessions.log_out_everywhere(user_id, keep=requester.device_id if requester else None)
        return {}

    async def deactivate(self, request: Request) -> Reply:
        """``POST /account/deactivate``."""
        body = request.json(empty_ok=True)
        wanted = request.decode(_Deactivation, empty_ok=True)
        requester = request.requester_if_any
        operation = Operation("POST /account/deactivate", requester.user_id if requester else None)
        user_id = await self._confirmation.confirm(operation, body)
        await self._accounts.deactivate(user_id, erase=wanted.erase)
        await self._sessions.log_out_everywhere(user_id)
        await self._room_leaver.leave_all(user_id)
        unbound = self._bindings is None or await self._bindings.unbind_all(user_id, wanted.id_server)
        return {"id_server_unbind_result": unbind_result(unbound)}

    async def _owner(self, sid: str) -> str:
        """The user whose address was validated; that serves once."""
        if self._validation is None:
            raise not_known()
        proved = await self._validation.proved(sid)
        owner = await self._ids.owner(proved.medium, proved.address)
        if owner is None:
            raise not_known()
        await self._accounts.check_not_locked(owner)
        await self._validation.use_up(proved)
        return owner


def login_reply(login: Login) -> dict[str, Any]:
    """What a client is told of its new session."""
    reply: dict[str, Any] = {
        "user_id": login.user_id,
        "access_token": login.access_token,
        "device_id": login.device_id,
        "home_server": login.user_id.partition(":")[2],
    }
    return {**reply, **refreshed_reply(login)}


def refreshed_reply(login: Login) -> dict[str, Any]:
    """The part of a session that can be refreshed, if it can."""
    if login.refresh_token is None:
        return {}
    return {"refresh_token": login.refresh_token, "expires_in_ms": login.expires_in_ms}


def _text(body: dict[str, Any], name: str) -> str:
    value = body[name]
    if not isinstance(value, str):
        raise bad_json(f"'{name}' must be a string")
    return value
