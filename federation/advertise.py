"""What the name of this server says of it to everybody: where it takes requests, and its policy server's key.

Specification: server-server API, "Resolving server names"; client-server API, "Policy servers".
"""

from __future__ import annotations

from homeserver.errors import not_found
from homeserver.replies import Reply
from homeserver.web import Access, Request, Route


def advertise_routes(advertise: str | None, policy_key: str | None) -> list[Route]:
    """The endpoints that tell ``advertise``, a host with or without a port, and ``policy_key``.

    The key is the Ed25519 key of the policy server of this name, in unpadded base64.  What is ``None``
    is answered with ``M_NOT_FOUND``.  They belong to every listener that people's
    ``https://SERVER_NAME`` may lead to, whichever API is served there.
    """

    async def well_known(request: Request) -> Reply:
        """``GET /.well-known/matrix/server``."""
        if advertise is None:
            raise not_found("This server is found by its name")
        return {"m.server": advertise}

    async def policy_server(request: Request) -> Reply:
        """``GET /.well-known/matrix/policy_server``."""
        if policy_key is None:
            raise not_found("There is no policy server at this name")
        return {"public_keys": {"ed25519": policy_key}}

    return [
        Route("GET", "/.well-known/matrix/server", well_known, Access.PUBLIC, "federation"),
        Route("GET", "/.well-known/matrix/policy_server", policy_server, Access.PUBLIC, "federation"),
    ]
