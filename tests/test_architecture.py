"""Who may import whom, what may stand where: read from the source, so that a breach fails here first."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("homeserver", "federation", "client_api")

#: What a part may import of ours, beside itself; a module belongs to the first part that fits.
CORE = (
    "homeserver.protocol",
    "homeserver.storage",
    "homeserver.errors",
    "homeserver.config",
    "homeserver.clock",
    "homeserver.tasks",
    "homeserver.turns",
    "homeserver.lookups",
    "homeserver.worker_process",
)
COMMON = (
    *CORE,
    "homeserver.aiohttp_web",
    "homeserver.addresses",
    "homeserver.bodies",
    "homeserver.egress",
    "homeserver.late",
    "homeserver.live",
    "homeserver.origins",
    "homeserver.queries",
    "homeserver.ratelimit",
    "homeserver.refusals",
    "homeserver.replies",
    "homeserver.resolver",
    "homeserver.routing",
    "homeserver.web",
    "homeserver.whole_replies",
)
DOMAIN = (
    *("homeserver.rooms", "homeserver.users", "homeserver.sync"),
    *("homeserver.e2e", "homeserver.media", "homeserver.sso"),
    "homeserver.push",
    "homeserver.previews",
    "homeserver.search",
)
#: Introduce the objects of the domain to each other; used by what wires, and by tests.
WIRED = (
    "homeserver.application_services",
    "homeserver.calls",
    "homeserver.contacts",
    "homeserver.content_repository",
    "homeserver.core",
    "homeserver.encryption",
    "homeserver.ephemeral",
    "homeserver.finding",
    "homeserver.people",
    "homeserver.pushing",
    "homeserver.reading",
    "homeserver.room_actions",
    "homeserver.searching",
    "homeserver.shared_rooms",
    "homeserver.single_sign_on",
    "homeserver.sliding",
    "homeserver.sliding_extensions",
    "homeserver.third_party_identifiers",
)
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "homeserver.protocol": (),
    "homeserver.storage": ("homeserver.protocol", "homeserver.clock"),
    "homeserver.rooms": (*CORE, "homeserver.users", "homeserver.e2e"),
    "homeserver.users": (*CORE, "homeserver.rooms", "homeserver.e2e"),
    "homeserver.e2e": (*CORE, "homeserver.users", "homeserver.rooms"),
    "homeserver.media": CORE,
    "homeserver.previews": (*CORE, "homeserver.media"),
    "homeserver.url_previews": (
        *(*CORE, "homeserver.previews", "homeserver.core", "homeserver.content_repository"),
        "homeserver.chores",
    ),
    "homeserver.appservices": (*CORE, *DOMAIN),
    "homeserver.application_services": (
        *(*CORE, *DOMAIN, "homeserver.appservices", "homeserver.core", "homeserver.encryption"),
        *("homeserver.ephemeral", "homeserver.people", "homeserver.reading", "homeserver.room_actions"),
    ),
    "homeserver.search": (*CORE, "homeserver.rooms", "homeserver.sync"),
    "homeserver.searching": (*CORE, "homeserver.search", "homeserver.core", "homeserver.reading"),
    "homeserver.sso": (*CORE, "homeserver.users"),
    "homeserver.single_sign_on": (
        *(*CORE, "homeserver.sso", "homeserver.users"),
        *("homeserver.core", "homeserver.people"),
    ),
    "homeserver.email": CORE,
    "homeserver.push": (*CORE, "homeserver.rooms", "homeserver.sync", "homeserver.email"),
    "homeserver.sync": (*CORE, "homeserver.rooms", "homeserver.users", "homeserver.e2e"),
    "homeserver.core": (*CORE, *DOMAIN),
    "homeserver.content_repository": (*CORE, "homeserver.media", "homeserver.core"),
    "homeserver.encryption": (*CORE, *DOMAIN, "homeserver.core"),
    "homeserver.ephemeral": (*CORE, *DOMAIN, "homeserver.core"),
    "homeserver.people": (*CORE, "homeserver.users", "homeserver.core"),
    "homeserver.reading": (
        *CORE,
        *DOMAIN,
        "homeserver.core",
        "homeserver.encryption",
        "homeserver.ephemeral",
    ),
    "homeserver.sliding": (*CORE, *DOMAIN, "homeserver.core", "homeserver.ephemeral", "homeserver.reading"),
    "homeserver.sliding_extensions": (
        *(*CORE, *DOMAIN, "homeserver.core", "homeserver.encryption"),
        *("homeserver.ephemeral", "homeserver.people", "homeserver.reading"),
    ),
    "homeserver.pushing": (*CORE, *DOMAIN, "homeserver.core", "homeserver.ephemeral", "homeserver.reading"),
    "homeserver.finding": (*CORE, *DOMAIN, "homeserver.core", "homeserver.reading"),
    "homeserver.third_party_identifiers": (
        *(*CORE, "homeserver.users", "homeserver.email"),
        *("homeserver.core", "homeserver.egress", "homeserver.people"),
    ),
    "homeserver.contacts": (
        *(*CORE, *DOMAIN),
        *("homeserver.core", "homeserver.people", "homeserver.reading", "homeserver.room_actions"),
    ),
    "homeserver.calls": (
        *(*CORE, "homeserver.rooms", "homeserver.ratelimit"),
        *("homeserver.chores", "homeserver.core", "homeserver.reading", "homeserver.room_actions"),
    ),
    "homeserver.room_actions": (*CORE, "homeserver.rooms", "homeserver.core"),
    "homeserver.shared_rooms": (*CORE, "homeserver.rooms", "homeserver.core"),
    "homeserver.chores": (
        *(*CORE, *DOMAIN),
        *("homeserver.core", "homeserver.ephemeral", "homeserver.people"),
        *("homeserver.third_party_identifiers", "homeserver.content_repository", "homeserver.encryption"),
        "homeserver.application_services",
    ),
    "homeserver.expiring": (*CORE, "homeserver.rooms", "homeserver.core", "homeserver.chores"),
    "homeserver.request_times": ("homeserver.histogram",),
    "homeserver.stalls": ("homeserver.histogram",),
    "homeserver.exposition": (
        *("homeserver.health", "homeserver.histogram", "homeserver.request_times", "homeserver.stalls"),
    ),
    "homeserver.health": (
        *(*COMMON, *DOMAIN, "homeserver.exposition", "homeserver.request_times", "homeserver.stalls"),
    ),
    "homeserver.parts": ("homeserver", "federation"),
    "homeserver.main": ("homeserver", "federation", "client_api"),
    "homeserver.cli": ("homeserver",),
    "homeserver.__main__": ("homeserver.cli",),
    "homeserver.config": ("homeserver.config", *COMMON),
    "homeserver": (*COMMON, "homeserver.users.requester"),
    "client_api.wiring": ("client_api", *COMMON, *DOMAIN, *WIRED, "homeserver.appservices"),
    "client_api": (*COMMON, *DOMAIN, "homeserver.appservices"),
    "federation.wiring": (
        "federation",
        *COMMON,
        *DOMAIN,
        "homeserver.core",
        "homeserver.encryption",
        "homeserver.finding",
        "homeserver.shared_rooms",
        "homeserver.content_repository",
    ),
    "federation": (*COMMON, *DOMAIN),
}

#: The only places that speak HTTP.
HTTP = (
    *("homeserver.web", "homeserver.connections", "homeserver.cli", "client_api", "federation"),
    *("homeserver.addresses", "homeserver.egress", "homeserver.replies", "homeserver.whole_replies"),
    *("homeserver.aiohttp_web", "homeserver.resolver"),
)

#: Modules by which code reaches for the world outside, the time or chance.
WORLD = (
    *("aiohttp", "aiosqlite", "asyncio", "asyncpg", "http", "logging", "os", "pathlib", "random", "requests"),
    *(
        "secrets",
        "select",
        "shutil",
        "socket",
        "sqlite3",
        "ssl",
        "structlog",
        "subprocess",
        "sys",
        "tempfile",
    ),
    *("threading", "time", "urllib.request", "uvloop"),
)

SQL = re.compile(
    r"^\s*(SELECT\s.+\sFROM\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s"
    r"|(CREATE|DROP|ALTER)\s+(TABLE|INDEX|UNIQUE)\s|WITH\s+(RECURSIVE\s+)?\w+\s*(\(.*\)\s*)?AS\s*\()",
    re.DOTALL,
)

BANNED_NAME = re.compile(
    r"(Handler|Manager|Controller|Helpers?|Utils?)$|^(process_|_inner)|_(helpers?|utils?)$"
)


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module


def read_module(name: str, path: Path, source: str) -> Module:
    return Module(name, path, ast.parse(source, str(path)))


def all_modules() -> list[Module]:
    modules = []
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            relative = path.relative_to(ROOT).with_suffix("")
            name = ".".join(relative.parts).removesuffix(".__init__")
            modules.append(read_module(name, path, path.read_text()))
    return modules


def imports(module: Module) -> Iterator[str]:
    """Every name imported, as fully as it can be known: ``from a import b`` is ``a.b``."""
    package = module.name.split(".")
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            is_package = module.path.name == "__init__.py"
            base = package[: len(package) - node.level + is_package] if node.level else []
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def part_of(name: str) -> str:
    """The row of ``MAY_IMPORT`` that a module falls under; the command line is several modules."""
    if name.startswith("homeserver.cli"):
        return "homeserver.cli"
    return next(part for part in MAY_IMPORT if within(name, part))


def breaches_of_the_import_law(module: Module) -> list[str]:
    part = part_of(module.name)
    ours = [name for name in imports(module) if any(within(name, package) for package in PACKAGES)]
    allowed = MAY_IMPORT[part] if part == "homeserver" else (part, *MAY_IMPORT[part])
    return [
        f"{module.name} imports {name}"
        for name in ours
        if not any(within(name, package) for package in allowed)
    ]


def docstrings(tree: ast.Module) -> set[int]:
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }


def texts_of_sql(module: Module) -> list[str]:
    skipped = docstrings(module.tree)
    return [
        f"{module.name}:{node.lineno}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in skipped
        and SQL.match(node.value)
    ]


def banned_names(module: Module) -> list[str]:
    return [
        f"{module.name}:{node.lineno} {node.name}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and BANNED_NAME.search(node.name)
    ]


def impurities(module: Module) -> list[str]:
    """Where a module of rules waits, or could touch anything outside its arguments."""
    waits = [
        f"{module.name}:{node.lineno} is asynchronous"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith)
    ]
    opens = [
        f"{module.name}:{node.lineno} calls {node.func.id}"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("open", "print", "input")
    ]
    reaches = [
        f"{module.name} imports {name}"
        for name in imports(module)
        # A key is made from chance, which is the one thing the rules cannot be given as a value.
        if any(within(name, world) for world in WORLD) and (module.name, name.split(".")[0]) not in KEY_MAKING
    ]
    return waits + opens + reaches


KEY_MAKING = {("homeserver.protocol.signing", "secrets")}

MODULES = all_modules()


def test_every_import_follows_the_law() -> None:
    assert [breach for module in MODULES for breach in breaches_of_the_import_law(module)] == []


def test_the_rules_neither_wait_nor_reach_out() -> None:
    rules = [module for module in MODULES if within(module.name, "homeserver.protocol")]
    assert len(rules) > 1
    assert [impurity for module in rules for impurity in impurities(module)] == []


def test_http_is_spoken_only_at_the_edge() -> None:
    inner = [module for module in MODULES if not any(within(module.name, edge) for edge in HTTP)]
    assert [module.name for module in inner if any(within(name, "aiohttp") for name in imports(module))] == []


def test_sql_stands_only_in_storage() -> None:
    outside = [module for module in MODULES if not within(module.name, "homeserver.storage")]
    assert [place for module in outside for place in texts_of_sql(module)] == []


def test_storage_has_the_sql_that_is_missing_elsewhere() -> None:
    inside = [module for module in MODULES if within(module.name, "homeserver.storage")]
    assert any(texts_of_sql(module) for module in inside)


def test_records_are_structs_but_for_those_with_secrets_or_without_our_packages() -> None:
    others = [
        module.name
        for module in MODULES
        if not within(module.name, "homeserver.config")
        and any(within(name, "dataclasses.dataclass") for name in imports(module))
    ]
    assert others == ["homeserver.media.image_worker", "homeserver.protocol.signing"]


def test_no_name_hides_what_a_thing_does() -> None:
    assert [name for module in MODULES for name in banned_names(module)] == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [module.name for module in MODULES if module.tree.body and not ast.get_docstring(module.tree)]
    assert silent == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("homeserver.protocol.ids", "from homeserver.storage import database"),
        ("homeserver.storage.events", "from homeserver.rooms.timeline import Timeline"),
        ("homeserver.rooms.send", "import homeserver.sync.notifier"),
        ("homeserver.rooms.send", "from ..sync import notifier"),
        ("homeserver.users.accounts", "from homeserver.web import Route"),
        ("homeserver.web", "from homeserver.rooms.rooms import Rooms"),
        ("client_api.rooms", "def later():\n    from federation.client import Client"),
        ("federation.joins", "from client_api import rooms"),
        ("client_api.rooms", "from homeserver.core import Core"),
        ("federation.wiring", "from homeserver.people import People"),
        ("homeserver.reading", "from federation.wiring import Federation"),
    ],
)
def test_a_breach_of_the_law_is_seen(name: str, source: str) -> None:
    module = read_module(name, Path("module.py"), source)
    assert len(breaches_of_the_import_law(module)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "async def f(): ...",
        "import time",
        "from os import environ",
        "def f(): return open('x')",
        "import asyncio",
    ],
)
def test_an_impurity_is_seen(source: str) -> None:
    assert impurities(read_module("homeserver.protocol.ids", Path("ids.py"), source))


@pytest.mark.parametrize(
    ("source", "is_sql"),
    [
        ('QUERY = "SELECT name FROM users"', True),
        ('QUERY = """\n  WITH RECURSIVE up AS (SELECT 1)"""', True),
        ('f"DELETE FROM {table}"', True),
        ('query = "UPDATE users SET name = $1"', True),
        ('"""SELECT name FROM users"""', False),
        ('message = "Select a room from the list"', False),
    ],
)
def test_sql_is_told_from_prose(source: str, is_sql: bool) -> None:
    assert bool(texts_of_sql(read_module("client_api.rooms", Path("rooms.py"), source))) == is_sql
