"""Who signed a request: the X-Matrix header against the body and the keys of its origin.

Specification: server-server API, "Request Authentication".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from federation.keyring import Keyring
from federation.signatures import (
    InvalidAuthorization,
    RequestSignature,
    parse_authorization,
    signed_request,
)
from homeserver.errors import MatrixError, forbidden
from homeserver.protocol.canonical_json import InvalidJSON, decode
from homeserver.protocol.ids import is_server_name
from homeserver.protocol.signing import BadSignature


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

        Raises 401 ``M_UNAUTHORIZED``, 400 ``M_NOT_JSON`` for another body than JSON, and
        403 ``M_FORBIDDEN`` for a server this one does not talk with.
        """
        signature = self._claim(headers.get("Authorization"))
        if not self._allows(signature.origin):
            raise forbidden("This server does not federate with yours")
        request = signed_request(
            signature,
            method=method,
            uri=raw_path,
            destination=self._server_name,
            content=_content(body),
        )
        try:
            await self._keyring.verify_json(signature.origin, request)
        except (BadSignature, InvalidJSON) as error:
            raise _unauthorized(str(error)) from error
        self._heard_from(signature.origin)
        return signature.origin

    def _claim(self, header: str | None) -> RequestSignature:
        if header is None:
            raise _unauthorized("The request is not signed")
        try:
            signature = parse_authorization(header)
        except InvalidAuthorization as error:
            raise _unauthorized(str(error)) from error
        if not is_server_name(signature.origin):
            raise _unauthorized("The origin is not a server name")
        if signature.destination not in (None, self._server_name):
            raise _unauthorized("The request is for another server")
        return signature


def _content(body: bytes) -> Any:
    if not body:
        return None
    try:
        return decode(body)
    except InvalidJSON as error:
        raise MatrixError(400, "M_NOT_JSON", "The body is not valid JSON") from error


def _unauthorized(message: str) -> MatrixError:
    return MatrixError(401, "M_UNAUTHORIZED", message)
