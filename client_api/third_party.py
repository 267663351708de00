"""Third-party networks (client-server API, "Third-party networks")."""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from homeserver.appservices.third_party import ThirdPartyNetworks
from homeserver.errors import invalid_param
from homeserver.protocol.ids import is_room_alias, is_user_id
from homeserver.replies import Json, Reply
from homeserver.web import Request

_NO_FIELDS = frozenset({"access_token", "user_id", "device_id", "org.matrix.msc3202.device_id"})


class ThirdPartyApi:
    """Endpoints that find people and places of other networks."""

    def __init__(self, networks: ThirdPartyNetworks) -> None:
        self._networks = networks

    async def protocols(self, request: Request) -> Reply:
        """``GET /thirdparty/protocols``."""
        return await self._networks.protocols()

    async def protocol(self, request: Request) -> Reply:
        """``GET /thirdparty/protocol/{protocol}``."""
        return await self._networks.protocol(request.params["protocol"])

    async def users(self, request: Request) -> Reply:
        """``GET /thirdparty/user/{protocol}``."""
        found = await self._networks.search("user", request.params["protocol"], _fields(request))
        return Json(orjson.dumps(found))

    async def locations(self, request: Request) -> Reply:
        """``GET /thirdparty/location/{protocol}``."""
        found = await self._networks.search("location", request.params["protocol"], _fields(request))
        return Json(orjson.dumps(found))

    async def about_user(self, request: Request) -> Reply:
        """``GET /thirdparty/user``."""
        user_id = request.query_text("userid")
        if not is_user_id(user_id):
            raise invalid_param("'userid' is not a user ID")
        return Json(orjson.dumps(await self._networks.about_user(user_id)))

    async def about_alias(self, request: Request) -> Reply:
        """``GET /thirdparty/location``."""
        alias = request.query_text("alias")
        if not is_room_alias(alias):
            raise invalid_param("'alias' is not a room alias")
        return Json(orjson.dumps(await self._networks.about_alias(alias)))


def _fields(request: Request) -> Mapping[str, str]:
    """What to search by: every parameter of the query that does not say who asks."""
    return {name: value for name, value in request.query.items() if name not in _NO_FIELDS}
