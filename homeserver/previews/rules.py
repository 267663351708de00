"""Which addresses previews are made of.

Names and ports are judged here, at the request and again at each redirect.  Whether the IP
address that a name leads to may be contacted is decided where the connection is made.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from homeserver.protocol.globs import compile_glob


class UrlPattern(msgspec.Struct, frozen=True):
    """Addresses whose host and path match globs, in which ``*`` is anything: ``*.example.org/private/*``."""

    host: str
    path: str

    @classmethod
    def parse(cls, text: str) -> UrlPattern:
        """``host``, or ``host/path``; without a path it means every one."""
        host, slash, path = text.partition("/")
        return cls(_name(host), slash + path if slash else "*")

    def matches(self, host: str, path: str) -> bool:
        """Whether an address matches; upper and lower case are alike in names."""
        return _matches(self.host, _name(host)) and _matches(self.path, path)


class UrlRules:
    """What the configuration says of addresses."""

    def __init__(self, denied: Iterable[str], ports: Iterable[int]) -> None:
        self._denied = [UrlPattern.parse(text) for text in denied]
        self._ports = frozenset(ports)

    def permits(self, host: str, port: int, path: str) -> bool:
        """Whether a page at this address may be asked for."""
        return port in self._ports and not any(pattern.matches(host, path) for pattern in self._denied)


def _name(host: str) -> str:
    return host.lower().rstrip(".")


def _matches(pattern: str, text: str) -> bool:
    glob = compile_glob(pattern, question_mark=False)
    return glob is not None and glob.matches(text)
