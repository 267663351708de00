"""What the commands share: how they speak, how they fail, and how they come by a configuration."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from homeserver.config import Config, ConfigErrors, load_config
from homeserver.protocol.signing import parse_signing_key_file


def say(*lines: str) -> None:
    """Print lines as they are on standard output, at once: another program may be reading."""
    print(*lines, sep="\n", flush=True)


def fail(*lines: str) -> NoReturn:
    """Print lines on standard error and end with exit status 1."""
    print(*lines, sep="\n", file=sys.stderr, flush=True)
    raise SystemExit(1)


def this_command() -> str:
    """How the person at the terminal started the command, to be repeated in hints."""
    started_as = Path(sys.argv[0])
    return str(started_as) if started_as.name == "inglenook" else "python -m homeserver"


def load_or_fail(path: Path) -> Config:
    """The configuration in a file, whose files are usable too; ends the command otherwise."""
    try:
        config = load_config(path)
    except ConfigErrors as errors:
        fail(*str(errors).splitlines())
    problems = list(unusable_files(config))
    if problems:
        fail(*(f"{path}: {problem}" for problem in problems))
    return config


def unusable_files(config: Config) -> Iterator[str]:
    """A sentence for every file that the configuration names and that does not hold what it should."""
    try:
        key = parse_signing_key_file(config.signing_key.read_text())
        if any(old.key_id == key.key_id for old in config.old_signing_keys):
            yield f"old_signing_keys: {key.key_id} is the id of the key in signing_key; take one of them out"
    except ValueError as error:
        yield f"signing_key: {error}"
    for index, listener in enumerate(config.listeners):
        if listener.tls is None:
            continue
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(listener.tls.certificate, listener.tls.private_key, password="")
        except (ssl.SSLError, ValueError) as error:
            yield f"listeners[{index}].tls: not a certificate and its private key in PEM: {error}"
    if config.federation.ca_file is not None:
        try:
            ssl.create_default_context(cafile=config.federation.ca_file)
        except ssl.SSLError as error:
            yield f"federation.ca_file: not a file of certificates in PEM: {error}"
