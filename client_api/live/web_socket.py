"""``GET /stream``: responses of ``/sync`` over a WebSocket, and requests the other way.

Here is the handshake; ``conversation.py`` is what follows it.  Specification: the WebSockets draft; RFC 6455.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from client_api.live.conversation import REPLACED, Conversation
from client_api.live.patience import notice_silence
from client_api.live.streaming import Streaming
from homeserver import aiohttp_web as web
from homeserver.errors import MatrixError, invalid_param
from homeserver.live import WEB_SOCKET
from homeserver.replies import Reply
from homeserver.web import Request

PROTOCOL: Final = "m.json"
#: How long a client gets to say goodbye, in seconds.
_CLOSING_S = 3.0


class WebSocketApi:
    """The stream that goes both ways."""

    def __init__(self, streaming: Streaming) -> None:
        self._streaming = streaming
        self._streams = streaming.streams
        self._follow = streaming.follow

    async def stream(self, request: Request) -> Reply:
        """``GET /stream``, with the parameters of ``/sync``."""
        asked = await self._streaming.read(request, request.query.get("since"))
        socket = _socket(request)
        with self._streams.open(WEB_SOCKET, request.requester) as stream:
            notice_silence(request.http.transport)
            await socket.prepare(request.http)
            conversation = Conversation(request, socket, self._streams.settings)
            stream.ends_by(partial(conversation.end, REPLACED))
            responses = self._follow.responses(
                asked, pause=self._streams.settings.web_socket_heartbeat, lifetime=stream.lifetime
            )
            ending = await conversation.run(responses, lambda: self._follow.closing)
            stream.reason = ending.reason
        return socket


def _socket(request: Request) -> web.WebSocketResponse:
    """What the handshake leads to; ``M_INVALID_PARAM`` or ``M_UNRECOGNIZED`` for one that leads nowhere.

    Nothing is compressed, which would cost each idle connection a quarter of a megabyte.  Every frame
    is taken before the next is written, and pings are answered like all else by ``Conversation``.
    """
    offered = [each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
    if any(offered) and PROTOCOL not in offered:
        raise invalid_param(f"The only subprotocol of this server is {PROTOCOL}")
    socket = web.WebSocketResponse(
        timeout=_CLOSING_S,
        autoping=False,
        protocols=(PROTOCOL,),
        compress=False,
        max_msg_size=request.max_body,
        writer_limit=1,
    )
    if request.method != "GET" or not socket.can_prepare(request.http).ok:
        raise MatrixError(400, "M_UNRECOGNIZED", "This is not the handshake of a WebSocket")
    return socket
