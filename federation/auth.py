"""Who signed a request: the X-Matrix header against the body and the keys of its origin.

Specification: server-server API, "Request Authentication".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from multidict import MultiMapping

from federation.keyring import Keyring
from federation.signatures import (
    InvalidAuthorization,
    RequestSignature,
    parse_authorization,
    signed_forms,
)
from homeserver.bodies import check_number_of_values
from homeserver.errors import MatrixError, forbidden
from homeserver.protocol.canonical_json import InvalidJSON, decode
from homeserver.protocol.ids import is_server_name
from homeserver.protocol.signing import BadSignature

_MAX_SIGNATURES: Final = 10


class ServerAuthentication:
    """Authenticates requests of other servers.

    ``heard_from`` is told of each server that proved who it is; ``allows`` says with
    whom this one wants to talk at all.
    """

    def __init__(
        self,
        *,
        server_name: str,
        keyring: Keyring,
        heard_from: Callable[[str], None],
        allows: Callable[[str], bool],
    ) -> None:
        self._server_name = server_name
        self._keyring = keyring
        self._heard_from = heard_from
        self._allows = allows

    async def authenticate_server(
        self, method: str, raw_path: str, headers: Mapping[str, str], body: bytes
    ) -> str:
        """The server that signed a request, whose ``raw_path`` includes the query.

        Raises 401 ``M_UNAUTHORIZED``, 400 ``M_NOT_JSON`` for another body than JSON, 413
        ``M_TOO_LARGE`` for one of too many values, and
        403 ``M_FORBIDDEN`` for a server this one does not talk with.
        """
        signatures = [self._claim(header) for header in _authorizations(headers)]
        origin = signatures[0].origin
        if any(signature.origin != origin for signature in signatures):
            raise _unauthorized("The request is signed by several servers")
        if not self._allows(origin):
            raise forbidden("This server does not federate with yours")
        check_number_of_values(body)
        forms = signed_forms(
            method=method,
            uri=raw_path,
            origin=origin,
            destination=self._server_name,
            body=body,
            content=partial(_content, body),
        )
        try:
            by_key = {each.key_id: each.signature for each in signatures}
            await self._keyring.verify_bytes(origin, by_key, forms)
        except (BadSignature, InvalidJSON) as error:
            raise _unauthorized(str(error)) from error
        self._heard_from(origin)
        return origin

    def _claim(self, header: str) -> RequestSignature:
        try:
            signature = parse_authorization(header)
        except InvalidAuthorization as error:
            raise _unauthorized(str(error)) from error
        if not is_server_name(signature.origin):
            raise _unauthorized("The origin is not a server name")
        if signature.destination not in (None, self._server_name):
            raise _unauthorized("The request is for another server")
        return signature


def _authorizations(headers: Mapping[str, str]) -> list[str]:
    """Every ``Authorization`` header: a server with several keys may sign with each."""
    if isinstance(headers, MultiMapping):
        found = headers.getall("Authorization", [])
    else:
        found = [headers["Authorization"]] if "Authorization" in headers else []
    if not found:
        raise _unauthorized("The request is not signed")
    if len(found) > _MAX_SIGNATURES:
        raise _unauthorized("The request has too many signatures")
    return found


def _content(body: bytes) -> Any:
    try:
        return decode(body)
    except InvalidJSON as error:
        raise MatrixError(400, "M_NOT_JSON", "The body is not valid JSON") from error


def _unauthorized(message: str) -> MatrixError:
    return MatrixError(401, "M_UNAUTHORIZED", message)
