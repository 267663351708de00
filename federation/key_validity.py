"""Asking identity servers whether a key of theirs is still good.

The address to ask comes from a room, so anybody may have written it: only HTTPS is
spoken, to addresses that the configuration lets the server contact, without redirects, and
little is read.  Specification: identity service API, ``GET /pubkey/isvalid``.
"""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp
import structlog
from yarl import URL

from homeserver.protocol.canonical_json import InvalidJSON, decode

_log = structlog.get_logger()

TIMEOUT_SECONDS: Final = 10
MAX_BYTES: Final = 64 * 1024
_MAX_URL: Final = 2_000


async def is_key_valid(session: aiohttp.ClientSession, url: str, public_key: str) -> bool:
    """Whether a ``key_validity_url`` says that a key is good; false where it does not say."""
    try:
        address = URL(url)
        if address.scheme != "https" or len(url) > _MAX_URL:
            return False
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            session.get(address.update_query(public_key=public_key), allow_redirects=False) as response,
        ):
            body = await _beginning(response)
        reply = decode(body) if response.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError, InvalidJSON) as error:
        _log.info("identity server not asked", reason=str(error))
        return False
    return isinstance(reply, dict) and reply.get("valid") is True


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    while len(body) <= MAX_BYTES and not response.content.at_eof():
        body += await response.content.read(MAX_BYTES + 1 - len(body))
    if len(body) > MAX_BYTES:
        raise OSError("The answer is too large")
    return body
