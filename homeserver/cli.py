"""The ``inglenook`` command: what a process does before it knows whether it is a server.

A server runs for months, so ``run --config FILE`` as a service manager writes it comes to the
server without passing through what the other commands load for the person at a terminal
(``cli_commands.py``); nor does it load what libraries take along only where it is installed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from homeserver.cli_output import fail, load_or_fail
from homeserver.storage.errors import StorageError

if TYPE_CHECKING:
    from homeserver.config import Config

#: COMPAT: structlog, which takes these along to colour tracebacks and for threads it does not run in.
_NEVER_USED = ("rich", "greenlet")


def main() -> None:
    """Run the command that the process was started with."""
    path = plain_run(sys.argv[1:])
    if path is not None:
        run_server(load_or_fail(path))
        return
    from homeserver.cli_commands import app  # noqa: PLC0415  so that a server does not load it

    app()


def plain_run(arguments: Sequence[str]) -> Path | None:
    """The configuration file, where the arguments are ``run`` and nothing but that file."""
    match arguments:
        case ["run", "--config" | "-c", path]:
            return Path(path)
        case ["run", option] if option.startswith("--config="):
            return Path(option.removeprefix("--config="))
    return None


def run_server(config: Config) -> None:
    """Serve until told to stop; uvloop's event loop where there is one."""
    with _left_out(_NEVER_USED):
        # Loaded only now, so that other commands do not load all of the server.
        from homeserver.log import configure_logging  # noqa: PLC0415
    with _left_out(("aiodns",)), _without_authorities():
        # aiodns: asked by ``resolver.py`` alone, when there is something to ask.
        import aiohttp  # noqa: F401, PLC0415
    from homeserver.main import serve  # noqa: PLC0415
    from homeserver.memory import give_back_what_is_freed  # noqa: PLC0415
    from homeserver.open_files import allow_many_open_files  # noqa: PLC0415

    give_back_what_is_freed()
    configure_logging(config.log.level, config.log.format)
    allow_many_open_files()
    try:
        with asyncio.Runner(loop_factory=fastest_loop()) as runner:
            runner.run(serve(config))
    except (StorageError, OSError) as error:
        fail(f"the server cannot run: {error}")
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes event loops: uvloop is not there for every Python."""
    try:
        import uvloop  # noqa: PLC0415
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


@contextmanager
def _left_out(names: Sequence[str]) -> Iterator[None]:
    """Meanwhile these packages seem not to be installed, unless they are loaded already."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # documented: None is "not found"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _without_authorities() -> Iterator[None]:
    """Meanwhile OpenSSL finds no certificates of authorities by itself.

    COMPAT: aiohttp, which reads them all when it is loaded, 2 MiB and a tenth of a second, for
    connections whose makers say nothing of TLS.  Ours do (``egress.py``); others would trust nobody.
    """
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, os.devnull))
    try:
        yield
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)
