"""Which route a raw path leads to: a trie over the path's segments.

The raw path is split at its slashes *before* it is percent-decoded, so an encoded
slash stays inside its segment.  A literal segment is preferred to a parameter, and
where that leads nowhere the parameter is tried.  A parameter may be empty, as in
``/state/{eventType}/`` for the empty state key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Generic, Protocol, TypeVar
from urllib.parse import unquote_to_bytes

from homeserver.errors import MatrixError, invalid_param


class HasPath(Protocol):
    """A row of a route table, as far as finding it is concerned."""

    @property
    def method(self) -> str: ...

    @property
    def path(self) -> str: ...


R = TypeVar("R", bound=HasPath)

_METHODS = ("GET", "PUT", "POST", "DELETE")

#: Decoded segments that are kept, and how many characters each may have.
_REMEMBERED = 2_000
_LONGEST_REMEMBERED = 300


class _Node(Generic[R]):
    __slots__ = ("literals", "parameter", "routes")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[R]] = {}
        self.parameter: _Node[R] | None = None
        #: By method: the route and the names of the parameters on the way to it.
        self.routes: dict[str, tuple[R, tuple[str, ...]]] = {}


class Router(Generic[R]):
    """A table of routes, made ready for looking up.

    Raises ``ValueError`` for two routes of the same method and shape.
    """

    def __init__(self, routes: Iterable[R]) -> None:
        self._root: _Node[R] = _Node()
        for route in routes:
            self._add(route, route.path)
            if route.path.startswith(("/_matrix/client/v3/", "/_matrix/media/v3/")):
                self._add(route, route.path.replace("/v3/", "/r0/", 1))

    def _add(self, route: R, path: str) -> None:
        node, names = self._root, []
        for segment in path.split("/")[1:]:
            if segment.startswith("{") and segment.endswith("}"):
                names.append(segment[1:-1])
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        if route.method in node.routes:
            raise ValueError(f"two routes for {route.method} {path}")
        node.routes[route.method] = (route, tuple(names))

    def find(self, method: str, raw_path: str) -> tuple[R, Mapping[str, str]]:
        """The route and its decoded parameters.  ``raw_path`` carries no query string.

        ``HEAD`` is served by a ``GET`` route.  Raises 404 or 405 ``M_UNRECOGNIZED``, and
        ``M_INVALID_PARAM`` for segments that are not UTF-8 or hold a NUL.
        """
        segments = raw_path.split("/")
        del segments[0]
        if "%" in raw_path:
            segments = [_decoded(segment) if "%" in segment else segment for segment in segments]
        wanted = "GET" if method == "HEAD" else method
        values: list[str] = []
        node = _walk(self._root, segments, values)
        if node is None or wanted not in node.routes:
            values.clear()
            node = _search(self._root, segments, 0, wanted, values)
        if node is not None:
            route, names = node.routes[wanted]
            return route, dict(zip(names, values, strict=True))
        if any(_search(self._root, segments, 0, other, values) for other in _METHODS):
            raise MatrixError(405, "M_UNRECOGNIZED", "This endpoint does not have that method")
        raise MatrixError(404, "M_UNRECOGNIZED", "There is no such endpoint")


def _walk(node: _Node[R], segments: list[str], values: list[str]) -> _Node[R] | None:
    """What ``_search`` finds at its first attempt, which is nearly always where it ends."""
    for segment in segments:
        below = node.literals.get(segment)
        if below is None:
            below = node.parameter
            if below is None:
                return None
            values.append(segment)
        node = below
    return node


def _search(node: _Node[R], segments: list[str], at: int, method: str, values: list[str]) -> _Node[R] | None:
    """The best node with a route for ``method``; ``values`` then holds its parameters."""
    if at == len(segments):
        return node if method in node.routes else None
    literal = node.literals.get(segments[at])
    if literal is not None:
        found = _search(literal, segments, at + 1, method, values)
        if found is not None:
            return found
    if node.parameter is None:
        return None
    values.append(segments[at])
    found = _search(node.parameter, segments, at + 1, method, values)
    if found is None:
        values.pop()
    return found


def _decoded(segment: str) -> str:
    """A segment with percent signs; the same rooms and users are asked for again and again."""
    return _decode(segment) if len(segment) > _LONGEST_REMEMBERED else _decode_or_remember(segment)


def _decode(segment: str) -> str:
    try:
        text = unquote_to_bytes(segment).decode()
    except UnicodeError:
        raise invalid_param("The path is not valid UTF-8") from None
    if "\x00" in text:
        raise invalid_param("The path holds a NUL character")
    return text


_decode_or_remember = lru_cache(_REMEMBERED)(_decode)
