"""From names to addresses, by asking the machine's DNS servers.

c-ares asks them without threads of ours, so that many names that do not exist hold nobody up.
aiohttp has the like, which loads c-ares and opens it as soon as there is a session; this one
does so at the first question, which a server that nobody federates with never has.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

from homeserver.late import have_loaded

if TYPE_CHECKING:
    import aiodns

_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class SystemResolver(AbstractResolver):
    """For one session, which closes it; raises ``OSError`` where there is no address."""

    def __init__(self) -> None:
        self._dns: aiodns.DNSResolver | None = None

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses of a name."""
        await have_loaded("aiodns")
        import aiodns  # noqa: PLC0415  see above

        if self._dns is None:
            self._dns = aiodns.DNSResolver()
        try:
            answer = await self._dns.getaddrinfo(
                host, port=port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
            )
        except aiodns.error.DNSError as error:
            raise OSError(None, error.args[-1]) from error
        if not answer.nodes:
            raise OSError(None, "DNS knows no address")
        return [
            ResolveResult(
                hostname=host,
                host=_text(node.addr),
                port=node.addr[1],
                family=node.family,
                proto=0,
                flags=_NUMERIC,
            )
            for node in answer.nodes
        ]

    async def close(self) -> None:
        """Questions under way are given up."""
        if self._dns is not None:
            await self._dns.close()


def _text(address: tuple[bytes, int] | tuple[bytes, int, int, int]) -> str:
    host = address[0].decode("ascii")
    # A link-local address means something only together with its interface.
    return f"{host}%{address[3]}" if len(address) == 4 and address[3] else host
