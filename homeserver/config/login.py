"""Ways to log in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from homeserver.config.reader import Rule
from homeserver.config.rules import number, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """Ways to log in that need nobody else."""

    #: Whether people may log in with a password.
    password: bool = True
    #: Characters that a new password must have.
    minimum_password_length: Annotated[int, number(int, 1, 512)] = 8
    #: Whether those logged in may log other devices in with a token.
    token_login: bool = False
    #: How long such a token is good, in seconds.
    token_lifetime: Annotated[int, number(int, 5, 3600)] = 120


def _issuer(url: str, _folder: Path) -> str:
    # OpenID Connect Discovery 1.0, section 2: compared to the letter, so nothing is taken off it.
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    return url


Issuer: TypeAlias = Annotated[
    str, Rule("the issuer's URL, such as https://id.example.org, exactly as the provider gives it", _issuer)
]
# Specification: "Opaque identifiers".
ProviderId: TypeAlias = Annotated[
    str, text(r"[A-Za-z0-9._~-]{1,64}", "1 to 64 of the characters A-Z a-z 0-9 . _ ~ -")
]
Claims: TypeAlias = Annotated[
    str,
    text(
        r"([^{}]|\{[A-Za-z0-9_:./-]+\})*",
        'text with the names of claims in braces, such as "{preferred_username}"',
    ),
]
MxcUri: TypeAlias = Annotated[str, text(r"mxc://[^/\s]+/[A-Za-z0-9_-]+", "an mxc:// URI")]
Redirect: TypeAlias = Annotated[
    str,
    text(
        r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+",
        "the beginning of a URL, such as https://app.element.io/ or element://connect",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An OpenID Connect provider at which people can prove who they are."""

    id: ProviderId
    #: What people see.
    name: str
    issuer: Issuer
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    brand: ProviderId | None = None
    icon: MxcUri | None = None
    scopes: tuple[str, ...] = ("openid", "profile")
    #: Whether to ask the provider's userinfo endpoint too: some put few claims into the ID token.
    userinfo: bool = False
    #: Whether people who are new here get an account.
    allow_registration: bool = False
    localpart: Claims = "{preferred_username}"
    display_name: Claims | None = "{name}"
    #: Kept as an address of the account if the provider says that it is verified.
    email: Claims | None = None

    def __post_init__(self) -> None:
        if "openid" not in self.scopes:
            raise ValueError("scopes must have openid among them")


def _providers(providers: tuple[Provider, ...], _folder: Path) -> tuple[Provider, ...]:
    if len({provider.id for provider in providers}) < len(providers):
        raise ValueError
    return providers


@dataclass(frozen=True, slots=True, kw_only=True)
class Sso:
    """Single sign-on: logging in with an account elsewhere."""

    providers: Annotated[
        tuple[Provider, ...],
        Rule("a list of providers, each with an id of its own", _providers, reads=tuple[Provider, ...]),
    ] = ()
    #: Beginnings of URLs of clients that are logged in without a question.
    trusted_redirects: tuple[Redirect, ...] = ()
    #: How long a client has to fetch its session after it was sent back, in seconds.
    token_lifetime: Annotated[int, number(int, 5, 600)] = 30
