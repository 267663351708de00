"""Registrations of application services: the files that bridges and bots come with, read as they are.

Specification: application service API, "Registration".  The expressions in the namespaces are
the administrator's: they are applied to ids of at most 255 bytes and must not be made to
take exponential time (``(a+)+`` and its like).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, TypeAlias

from homeserver.config.reader import KEY, ConfigErrors, Mistake, Rule, line_of, read_file
from homeserver.config.rules import BaseUrl, ReadableFile, Secret

_MAX_EXPRESSION_CHARS = 1_000
_MAX_NAMESPACES = 100


def _expression(text: str, _folder: Path) -> re.Pattern[str]:
    if not text or len(text) > _MAX_EXPRESSION_CHARS:
        raise ValueError
    try:
        return re.compile(text)
    except (re.error, OverflowError, RecursionError):
        raise ValueError from None


def _localpart(text: str, _folder: Path) -> str:
    if not re.fullmatch(r"[!-9;-~]{1,200}", text):
        raise ValueError
    return text


def _service_id(text: str, _folder: Path) -> str:
    if not 0 < len(text) <= 255 or not text.isprintable():
        raise ValueError
    return text


def _namespaces(namespaces: tuple[Namespace, ...], _folder: Path) -> tuple[Namespace, ...]:
    if len(namespaces) > _MAX_NAMESPACES:
        raise ValueError
    return namespaces


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespace:
    """Ids that match ``regex`` from their beginning; ``exclusive`` ones are for nobody else to make."""

    OTHER_KEYS_ALLOWED: ClassVar[bool] = True

    regex: Annotated[
        re.Pattern[str],
        Rule(f"a regular expression of at most {_MAX_EXPRESSION_CHARS} characters", _expression),
    ]
    exclusive: bool = False


NamespaceList: TypeAlias = Annotated[
    tuple[Namespace, ...],
    Rule(f"a list of at most {_MAX_NAMESPACES} namespaces", _namespaces, reads=tuple[Namespace, ...]),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Namespaces:
    """What a service is interested in."""

    OTHER_KEYS_ALLOWED: ClassVar[bool] = True

    users: NamespaceList = ()
    aliases: NamespaceList = ()
    rooms: NamespaceList = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One service, as its file describes it."""

    OTHER_KEYS_ALLOWED: ClassVar[bool] = True

    id: Annotated[str, Rule("a text of 1 to 255 characters", _service_id)]
    #: ``None`` for a service that is sent nothing.
    url: BaseUrl | None
    as_token: Secret = field(repr=False)
    hs_token: Secret = field(repr=False)
    sender_localpart: Annotated[
        str, Rule("the localpart of a user id: no spaces, no colon, at most 200 characters", _localpart)
    ]
    namespaces: Namespaces
    #: Of the users it speaks for; its own one is not limited.
    rate_limited: bool = True
    protocols: tuple[str, ...] = ()
    receive_ephemeral: bool = False
    #: The older name of ``receive_ephemeral``.
    push_ephemeral: bool = field(default=False, metadata={KEY: "de.sorunome.msc2409.push_ephemeral"})
    #: Messages to its users' devices, and news of keys, are put into transactions.
    encryption: bool = field(default=False, metadata={KEY: "org.matrix.msc3202"})

    @property
    def wants_ephemeral(self) -> bool:
        """Whether typing, receipts and presence are for it."""
        return self.receive_ephemeral or self.push_ephemeral


def _read_registrations(files: tuple[Path, ...], _folder: Path) -> tuple[Registration, ...]:
    """The registrations in some files; raises ``ConfigErrors`` for what is wrong in one of them."""
    read: list[tuple[Path, Registration]] = []
    for path in files:
        registration = read_file(path, Registration, os.environ)
        mistakes = list(_repetitions(path, registration, read))
        if mistakes:
            raise ConfigErrors(path, mistakes)
        read.append((path, registration))
    return tuple(registration for _, registration in read)


def _repetitions(
    path: Path, registration: Registration, others: list[tuple[Path, Registration]]
) -> Iterator[Mistake]:
    """What has to be different in each file and is not."""
    for key in ("id", "as_token"):
        for other_path, other in others:
            if getattr(other, key) == getattr(registration, key):
                yield Mistake(key, line_of(path, key), f"is the same as in {other_path}")


ApplicationServices: TypeAlias = Annotated[
    tuple[Registration, ...],
    Rule("a list of files that exist and can be read", _read_registrations, reads=tuple[ReadableFile, ...]),
]
