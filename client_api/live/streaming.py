"""What streams of every kind begin with, and are made of."""

from __future__ import annotations

import msgspec

from client_api.sync import SyncParameters
from homeserver.live import LiveStreams
from homeserver.origins import Origins
from homeserver.sync.follow import Follow
from homeserver.sync.request import SyncRequest
from homeserver.web import Request


class Streaming(msgspec.Struct, frozen=True):
    """Reads what is asked, follows who asks, counts the streams, and knows the pages that may open one."""

    parameters: SyncParameters
    follow: Follow
    streams: LiveStreams
    origins: Origins

    async def read(self, request: Request, since: str | None) -> SyncRequest:
        """What a stream is to tell, after a token.

        ``M_UNRECOGNIZED`` where there are no streams, ``M_FORBIDDEN`` for a page of another origin, and
        ``M_INVALID_PARAM``.
        """
        self.streams.check_enabled()
        self.origins.check(request.headers.get("Origin"))
        return await self.parameters.read(request, since)
