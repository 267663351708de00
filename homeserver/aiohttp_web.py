"""What is used of aiohttp's server: connections, requests and replies.

``aiohttp.web`` has the same under the same names, and loads aiohttp's applications along with
them, 2 MiB that nothing here has a use for: their routers, middlewares and static files, the
system's table of media types and HTML's of entities.
"""

from __future__ import annotations

from aiohttp.web_protocol import RequestHandler, RequestPayloadError
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_server import Server
from aiohttp.web_ws import WebSocketResponse

__all__ = [
    "BaseRequest",
    "RequestHandler",
    "RequestPayloadError",
    "Response",
    "Server",
    "StreamResponse",
    "WebSocketResponse",
]
