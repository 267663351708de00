"""Fresh databases for tests, on both engines.

PostgreSQL is a cluster of the test run's own: started by the first test that wants
it, shared by all xdist workers, reached over a socket in its folder, and removed
with that folder at the end of the run.  No database server of the machine is used.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pwd
import re
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg  # type: ignore[import-untyped]

from homeserver.storage import open_database
from homeserver.storage.database import Database

T = TypeVar("T")

OLDEST_POSTGRES = 15

#: Tells xdist workers the folder their run shares; its name holds the run's process number.
RUN_FOLDER = "INGLENOOK_TEST_RUN"
_PREFIX = "inglenook-tests-"

_USER = "inglenook"
_SETTINGS = (
    "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"
    " -c max_connections=200 -c shared_buffers=32MB -c autovacuum=off"
)


class NoPostgres(Exception):
    """PostgreSQL cannot be had here; the sentence is the reason a test is skipped for."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running PostgreSQL whose only door is a socket in ``folder``."""

    folder: Path

    def url(self, name: str) -> str:
        return f"postgresql://{_USER}@/{name}?host={self.folder}"


async def in_copy_of(template: Path, work: Callable[[Database], Awaitable[T]]) -> T:
    """What ``work`` comes to over a database of its own: for tests that want many, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        db = await open_database(str(shutil.copy(template, Path(folder) / "inglenook.db")))
        try:
            return await work(db)
        finally:
            await db.close()


def begin_run() -> None:
    """Make the run's folder, and clear away what runs that were killed left behind."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if not _runs(int(folder.name.removeprefix(_PREFIX).partition("-")[0])):
            _remove(folder)
    os.environ[RUN_FOLDER] = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")


def end_run() -> None:
    """Stop the run's PostgreSQL, if one was started, and remove the run's folder."""
    _remove(Path(os.environ.pop(RUN_FOLDER)))


def shared_cluster() -> Cluster:
    """The run's PostgreSQL, started if it is not running yet.  Raises ``NoPostgres``."""
    folder = Path(os.environ[RUN_FOLDER])
    programs = _programs()
    with _locked(folder):
        if not (folder / "started").exists():
            _start(programs, folder)
            (folder / "started").touch()
    return Cluster(folder)


@contextmanager
def own_cluster(folder: Path, settings: str) -> Iterator[Cluster]:
    """A PostgreSQL apart from the run's, with these ``-c`` settings beside the defaults.

    Whoever PostgreSQL runs as must be able to reach ``folder``.  Raises ``NoPostgres``.
    """
    folder.mkdir()
    _start(_programs(), folder, settings)
    try:
        yield Cluster(folder)
    finally:
        _remove(folder)


def migrated_template(cluster: Cluster) -> str:
    """The name of a database with the program's schema and no rows, to make others from."""
    with _locked(cluster.folder):
        if not (cluster.folder / "template").exists():
            in_own_loop(_execute(cluster, "DROP DATABASE IF EXISTS migrated"))
            in_own_loop(_execute(cluster, "CREATE DATABASE migrated"))
            in_own_loop(_open_and_close(cluster.url("migrated")))
            (cluster.folder / "template").touch()
    return "migrated"


def migrated_file(folder: Path) -> Path:
    """An SQLite file with the program's schema and no rows, to be copied."""
    in_own_loop(_open_and_close(str(folder / "migrated.db")))
    return folder / "migrated.db"


@asynccontextmanager
async def fresh_postgres(cluster: Cluster, template: str = "template1") -> AsyncIterator[str]:
    """The URL of a new database, which is dropped again."""
    name = f"test_{uuid.uuid4().hex}"
    await _execute(cluster, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield cluster.url(name)
    finally:
        await _execute(cluster, f"DROP DATABASE {name} WITH (FORCE)")


def in_own_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine from a plain function, whatever loop pytest keeps for this thread."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


async def _execute(cluster: Cluster, sql: str) -> None:
    connection = await asyncpg.connect(cluster.url("postgres"))
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


async def _open_and_close(url: str) -> None:
    database = await open_database(url)
    await database.close()


def _programs() -> Path:
    """The folder of the newest PostgreSQL installed."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *Path("/usr").glob("pgsql-*/bin")]
    if on_path := shutil.which("initdb"):
        folders.append(Path(on_path).resolve().parent)
    versions = {_version(folder): folder for folder in folders if (folder / "pg_ctl").exists()}
    if not versions or max(versions) < OLDEST_POSTGRES:
        raise NoPostgres(f"needs the programs of PostgreSQL {OLDEST_POSTGRES} or newer (initdb, pg_ctl)")
    return versions[max(versions)]


def _version(folder: Path) -> int:
    said = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\d+", said.stdout)
    return int(found[0]) if found else 0


def _start(programs: Path, folder: Path, settings: str = _SETTINGS) -> None:
    (folder / "programs").write_text(str(programs))
    if user := _unprivileged_user():
        shutil.chown(folder, user.pw_uid, user.pw_gid)
    shutil.rmtree(folder / "data", ignore_errors=True)
    _run(
        *(programs / "initdb", "--pgdata", folder / "data", "--username", _USER, "--auth=trust"),
        *("--encoding=UTF8", "--locale=C", "--no-sync"),
    )
    _run(
        *(programs / "pg_ctl", "--pgdata", folder / "data", "--log", folder / "log", "--wait"),
        *("--options", f"-k {folder} -c listen_addresses='' {settings}", "start"),
    )


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(folder: Path) -> None:
    if (folder / "data" / "postmaster.pid").exists():
        programs = Path((folder / "programs").read_text())
        # It fails where PostgreSQL itself was killed and only its files are left.
        with suppress(subprocess.CalledProcessError):
            _run(programs / "pg_ctl", "--pgdata", folder / "data", "--mode=immediate", "--wait", "stop")
    shutil.rmtree(folder, ignore_errors=True)


def _run(*command: str | Path) -> None:
    user = _unprivileged_user()
    subprocess.run(
        command,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd="/",
        user=user and user.pw_uid,
        group=user and user.pw_gid,
        extra_groups=user and [],
    )


def _unprivileged_user() -> pwd.struct_passwd | None:
    """Whom to run PostgreSQL as, for it refuses to run as root; ``None`` is as we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgres("PostgreSQL does not run as root, and there is no user postgres or nobody")


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
