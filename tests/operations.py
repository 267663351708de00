"""The route tables without a server, and the README's table of operations made from them.

``python -m tests.operations`` writes the table anew (``make readme``); ``test_routes.py``
fails while the README has another.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from unittest.mock import Mock

from client_api.apis import ClientApi
from client_api.routes import client_routes
from federation.routes import routes as federation_routes
from homeserver.web import Route

README = Path(__file__).parent.parent / "README.md"
_BEGIN, _END = "<!-- operations: begin, made by `make readme` -->\n", "<!-- operations: end -->\n"


def client_table() -> list[Route]:
    """The rows for clients; a row that names a method no module has is an ``AttributeError``."""
    modules = typing.get_type_hints(ClientApi)
    return client_routes(
        ClientApi(**{name: Mock(spec=modules[name]) for name in ClientApi.__struct_fields__})
    )


def federation_table() -> list[Route]:
    """The rows for servers, in the same way."""
    modules = typing.get_type_hints(federation_routes)
    parameters = inspect.signature(federation_routes).parameters
    return federation_routes(**{name: Mock(spec=modules[name]) for name in parameters})


def operations() -> str:
    """The README's table: every path with its methods and who may call it, by API."""
    tables = [("client-server API", client_table()), ("server-server API", federation_table())]
    return "\n".join(line for name, rows in tables for line in _table(name, rows))


def _table(name: str, rows: Iterable[Route]) -> Iterator[str]:
    rows = list(rows)
    yield f"<details><summary>{name}: {len(rows)} operations</summary>\n"
    yield "| path | methods | who may call |"
    yield "|---|---|---|"
    for (path, access), group in groupby(rows, key=lambda row: (row.path, row.access.value)):
        yield f"| `{path}` | {', '.join(row.method for row in group)} | {access} |"
    yield "\n</details>\n"


def shown() -> str:
    """The table that the README has."""
    return README.read_text().split(_BEGIN)[1].split(_END)[0]


if __name__ == "__main__":
    before, rest = README.read_text().split(_BEGIN)
    README.write_text(before + _BEGIN + operations() + _END + rest.split(_END)[1])
