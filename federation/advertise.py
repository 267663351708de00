"""Telling other servers where this one takes their requests (``/.well-known/matrix/server``).

Specification: server-server API, "Resolving server names".
"""

from __future__ import annotations

from homeserver.errors import not_found
from homeserver.web import Access, Reply, Request, Route


def advertise_routes(advertise: str | None) -> list[Route]:
    """The endpoint that names ``advertise``, a host with or without a port; ``M_NOT_FOUND`` without one.

    It belongs to every listener that people's ``https://SERVER_NAME`` may lead to, whichever API
    is served there.
    """

    async def well_known(request: Request) -> Reply:
        """``GET /.well-known/matrix/server``."""
        if advertise is None:
            raise not_found("This server is found by its name")
        return {"m.server": advertise}

    return [Route("GET", "/.well-known/matrix/server", well_known, Access.PUBLIC, "federation")]
