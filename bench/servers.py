"""The two servers on one engine: configured for the same work, started, and stopped."""

from __future__ import annotations

import compileall
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.generator.site import Site
from tests.databases import Cluster, own_cluster
from tests.interop.inglenook import inglenook
from tests.interop.synapse import synapse
from tests.processes import Authority, Server, start_all, stop_all

SOFTWARE = ("inglenook", "synapse")
ENGINES = ("sqlite", "postgres")

_PROJECT = Path(__file__).parent.parent
#: All else as PostgreSQL comes, so that what was acknowledged survives a power cut.
_POSTGRES_SETTINGS = "-c max_connections=100"


@contextmanager
def running(
    folder: Path,
    engine: str,
    software: Sequence[str] = SOFTWARE,
    settings: Mapping[str, Any] | None = None,
) -> Iterator[list[tuple[Server, Site]]]:
    """Servers with their files in ``folder`` and a fresh database each; on PostgreSQL a cluster each.

    ``settings`` are sections of our configuration.
    """
    _compile()
    authority = Authority(folder / "authority")
    with ExitStack() as closing:
        clusters: list[Cluster | None] = [None for _ in software]
        if engine == "postgres":
            # PostgreSQL runs as somebody else where we are root.
            folder.chmod(0o711)
            clusters = [
                closing.enter_context(own_cluster(folder / f"pg-{each}", _POSTGRES_SETTINGS))
                for each in software
            ]
        servers = [
            _configured(each, folder / each, authority, cluster, settings or {})
            for each, cluster in zip(software, clusters, strict=True)
        ]
        start_all(servers)
        closing.callback(stop_all, servers)
        yield [
            (server, _site(server, folder, cluster))
            for server, cluster in zip(servers, clusters, strict=True)
        ]


def _compile() -> None:
    """Have our modules as bytecode, as pip leaves what it installs: a server that compiles them is larger."""
    for package in ("homeserver", "federation", "client_api"):
        compileall.compile_dir(_PROJECT / package, quiet=1)


def _configured(
    software: str,
    folder: Path,
    authority: Authority,
    cluster: Cluster | None,
    settings: Mapping[str, Any],
) -> Server:
    database = cluster.url("postgres") if cluster else None
    if software == "synapse":
        return synapse(folder, authority, small_caches=False, database=database)
    return inglenook(folder, authority, database=database, settings=settings)


def _site(server: Server, folder: Path, cluster: Cluster | None) -> Site:
    file = "homeserver.db" if server.software == "synapse" else "inglenook.db"
    return Site(
        software=server.software,
        server_name=server.server_name,
        client_url=server.client_url,
        federation_url=f"https://{server.server_name}",
        pid=server.pid,
        database_url=cluster.url("postgres") if cluster else str(server.folder / file),
        database_pid=_postmaster(cluster) if cluster else None,
        authority=folder / "authority",
    )


def _postmaster(cluster: Cluster) -> int:
    return int((cluster.folder / "data" / "postmaster.pid").read_text().split()[0])
