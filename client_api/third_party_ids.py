"""Email addresses of accounts: adding, validating, binding and removing them.

Telephone numbers are refused, as this server has nobody to send messages to them.
Specification: client-server API, "Adding Account Administrative Contact Information".
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgspec

from client_api.pages import form_fields, page, refusal_page
from homeserver.errors import MatrixError, RemoteError
from homeserver.replies import Reply
from homeserver.users.address_validation import AddressValidation, Purpose, TokenRequest
from homeserver.users.confirmation import Confirmation
from homeserver.users.identity_servers import IdentityBindings
from homeserver.users.interactive_auth import Operation
from homeserver.users.registration import Registration
from homeserver.users.third_party_ids import ThirdPartyIds
from homeserver.web import Request


class _Credentials(msgspec.Struct, frozen=True):
    client_secret: str
    sid: str


class _OldCredentials(msgspec.Struct, frozen=True):
    three_pid_creds: _Credentials


class _Binding(msgspec.Struct, frozen=True):
    client_secret: str
    id_server: str
    id_access_token: str
    sid: str


class _Address(msgspec.Struct, frozen=True):
    medium: str
    address: str
    id_server: str | None = None


class ThirdPartyIdApi:
    """Endpoints about addresses: none is added without ``validation``, none bound without ``bindings``."""

    def __init__(
        self,
        ids: ThirdPartyIds,
        confirmation: Confirmation,
        registration: Registration,
        *,
        validation: AddressValidation | None,
        bindings: IdentityBindings | None,
    ) -> None:
        self._ids = ids
        self._confirmation = confirmation
        self._registration = registration
        self._validation = validation
        self._bindings = bindings

    async def addresses(self, request: Request) -> Reply:
        """``GET /account/3pid``."""
        found = await self._ids.of_user(request.requester.user_id)
        return {"threepids": [msgspec.structs.asdict(each) for each in found]}

    async def add(self, request: Request) -> Reply:
        """``POST /account/3pid/add``."""
        validation = self._validation or _denied()
        await self._add(request, validation, request.decode(_Credentials), "POST /account/3pid/add")
        return {}

    async def add_as_before(self, request: Request) -> Reply:
        """``POST /account/3pid``, deprecated: as ``add``, which authenticates, because an address can reset
        a password."""
        validation = self._validation or _denied()
        credentials = request.decode(_OldCredentials).three_pid_creds
        await self._add(request, validation, credentials, "POST /account/3pid")
        return {}

    async def bind(self, request: Request) -> Reply:
        """``POST /account/3pid/bind``."""
        bindings, wanted = self._bindings or _denied(), request.decode(_Binding)
        await bindings.bind(
            request.requester.user_id,
            wanted.id_server,
            wanted.id_access_token,
            sid=wanted.sid,
            client_secret=wanted.client_secret,
        )
        return {}

    async def delete(self, request: Request) -> Reply:
        """``POST /account/3pid/delete``: the address is gone here, whatever an identity server says."""
        wanted, user_id = request.decode(_Address), request.requester.user_id
        await self._ids.remove(user_id, wanted.medium, wanted.address)
        try:
            unbound = await self._unbind(user_id, wanted)
        except (MatrixError, RemoteError):
            unbound = False
        return {"id_server_unbind_result": unbind_result(unbound)}

    async def unbind(self, request: Request) -> Reply:
        """``POST /account/3pid/unbind``."""
        unbound = await self._unbind(request.requester.user_id, request.decode(_Address))
        return {"id_server_unbind_result": unbind_result(unbound)}

    async def request_to_add(self, request: Request) -> Reply:
        """``POST /account/3pid/email/requestToken``."""
        return await self._requested(request, Purpose.ADDING)

    async def request_to_register(self, request: Request) -> Reply:
        """``POST /register/email/requestToken``."""
        self._registration.flows()
        return await self._requested(request, Purpose.REGISTRATION)

    async def request_to_reset(self, request: Request) -> Reply:
        """``POST /account/password/email/requestToken``."""
        return await self._requested(request, Purpose.PASSWORD_RESET)

    async def refuse_number_to_add(self, request: Request) -> Reply:
        """``POST /account/3pid/msisdn/requestToken``."""
        raise _not_supported()

    async def refuse_number(self, request: Request) -> Reply:
        """The other ``…/msisdn/requestToken``."""
        _denied()

    async def show_link(self, request: Request) -> Reply:
        """The page that a link in a message leads to; what is opened is not yet confirmed."""
        link = {name: request.query.get(name, "") for name in ("sid", "client_secret", "token")}
        try:
            found = await (self._validation or _denied()).pending(**link)
        except MatrixError as error:
            return refusal_page(error)
        return page("confirm_email.html", {"purpose": found.purpose, "address": found.address, **link})

    async def follow_link(self, request: Request) -> Reply:
        """What the button on that page does."""
        fields = form_fields(request.body)
        link = {name: fields.get(name, "") for name in ("sid", "client_secret", "token")}
        try:
            found = await (self._validation or _denied()).complete(**link)
        except MatrixError as error:
            return refusal_page(error)
        return page("email_confirmed.html", {"next_link": found.next_link})

    async def _add(
        self, request: Request, validation: AddressValidation, given: _Credentials, endpoint: str
    ) -> None:
        user_id = request.requester.user_id
        proved = await validation.validated(Purpose.ADDING, given.sid, given.client_secret)
        await self._confirmation.confirm(Operation(endpoint, user_id), request.json())
        await self._ids.add(user_id, proved)

    async def _unbind(self, user_id: str, wanted: _Address) -> bool:
        if self._bindings is None:
            return False
        return await self._bindings.unbind(user_id, wanted.medium, wanted.address, wanted.id_server)

    async def _requested(self, request: Request, purpose: Purpose) -> Reply:
        if self._validation is None:
            raise _not_supported() if purpose is Purpose.ADDING else _denied()
        asked = request.decode(TokenRequest)
        reply: dict[str, Any] = {"sid": await self._validation.request(purpose, asked)}
        return reply


def unbind_result(unbound: bool) -> str:
    """``id_server_unbind_result``."""
    return "success" if unbound else "no-support"


def _denied() -> NoReturn:
    raise MatrixError(403, "M_THREEPID_DENIED", "This server keeps no such addresses")


def _not_supported() -> MatrixError:
    return MatrixError(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", "This server keeps no such addresses")
