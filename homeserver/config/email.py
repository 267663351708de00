"""Email: the mail server it is handed to, whom it comes from, and what it says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from homeserver.config.reader import Rule
from homeserver.config.rules import Folder, Port, ReadableFile, ServerName, number
from homeserver.protocol.third_party_ids import canonical_email


def _address(text: str, _folder: Path) -> str:
    return canonical_email(text)


def _one_line(text: str, _folder: Path) -> str:
    if not text.strip() or not text.isprintable() or len(text) > 100:
        raise ValueError
    return text


def _host(text: str, _folder: Path) -> str:
    if not text or not text.isascii() or not text.isprintable() or " " in text or "/" in text:
        raise ValueError
    return text


EmailAddress: TypeAlias = Annotated[str, Rule("an email address such as matrix@example.org", _address)]
Line: TypeAlias = Annotated[str, Rule("one line of at most 100 characters", _one_line)]
Host: TypeAlias = Annotated[str, Rule("the name or address of a host", _host)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Email:
    """Off unless ``smtp_host`` is set."""

    smtp_host: Host | None = None
    smtp_port: Port = 587
    smtp_user: str | None = None
    smtp_password: str | None = field(default=None, repr=False)
    smtp_tls: Literal["none", "starttls", "tls"] = "starttls"
    smtp_ca_file: ReadableFile | None = None
    #: Seconds for each step of the conversation with the mail server.
    smtp_timeout: Annotated[float, number(float, 1, 300)] = 30.0
    sender: EmailAddress | None = None
    app_name: Line = "Matrix"
    template_folder: Folder | None = None
    link_lifetime_hours: Annotated[int, number(int, 1, 24 * 365)] = 24
    #: Where people may be led once they followed a link.
    next_link_domains: tuple[ServerName, ...] = ()
    #: Answer alike whether or not somebody has an address.
    hide_known_addresses: bool = True

    def __post_init__(self) -> None:
        if self.smtp_host is not None and self.sender is None:
            raise ValueError("sender must be set when smtp_host is")
        if (self.smtp_user is None) != (self.smtp_password is None):
            raise ValueError("smtp_user and smtp_password go together")
