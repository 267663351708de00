"""Whom to turn to, and the relays for calls: the people and machines around the server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

from homeserver.config.reader import Rule
from homeserver.config.rules import BaseUrl, Secret, number, text
from homeserver.protocol.ids import is_user_id


def _user_id(text: str, _folder: Path) -> str:
    if not is_user_id(text):
        raise ValueError
    return text


UserId: TypeAlias = Annotated[str, Rule("a user id such as @admin:example.org", _user_id)]
Email: TypeAlias = Annotated[str, text(r"[^@\s]+@[^@\s]+", "an email address")]
Role: TypeAlias = Annotated[
    str, text(r"[a-z0-9._-]{1,255}", "a role such as m.role.admin or m.role.security")
]
TurnUri: TypeAlias = Annotated[
    str, text(r"turns?:[^\s]+", "the URI of a TURN server, such as turn:turn.example.org?transport=udp")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """Somebody who can help."""

    role: Role = "m.role.admin"
    matrix_id: UserId | None = None
    email_address: Email | None = None

    def __post_init__(self) -> None:
        if self.matrix_id is None and self.email_address is None:
            raise ValueError("a contact needs a matrix_id or an email_address")


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """Where people find help, as ``/.well-known/matrix/support`` says."""

    contacts: tuple[Contact, ...] = ()
    page: BaseUrl | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Relays for calls between people who cannot reach each other directly."""

    uris: tuple[TurnUri, ...] = ()
    #: Shared with the relays, which make each user's password of it.
    shared_secret: Secret | None = field(default=None, repr=False)
    #: In place of a secret: one name and password for everybody.
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    #: How long what a client is told is good, in seconds.
    ttl: Annotated[int, number(int, 60, 2_592_000)] = 86_400

    def __post_init__(self) -> None:
        has_password = self.username is not None and self.password is not None
        if self.uris and self.shared_secret is None and not has_password:
            raise ValueError("uris need a shared_secret, or a username and a password")
