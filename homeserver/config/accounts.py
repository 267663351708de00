"""What is asked of those who register, and which identity servers are trusted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from homeserver.config.reader import Rule
from homeserver.config.rules import BaseUrl, Secret, ServerName


def _web_page(text: str, _folder: Path) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable() or " " in text:
        raise ValueError
    return text


def _opaque_id(text: str, _folder: Path) -> str:
    # Specification: appendices, "Opaque identifiers".
    if not re.fullmatch(r"[A-Za-z0-9._~-]{1,255}", text):
        raise ValueError
    return text


def _language(text: str, _folder: Path) -> str:
    if text == "version" or not re.fullmatch(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8})*", text):
        raise ValueError
    return text


WebPage: TypeAlias = Annotated[str, Rule("the address of a web page", _web_page)]
OpaqueId: TypeAlias = Annotated[str, Rule("1 to 255 of the characters A-Z a-z 0-9 . _ ~ -", _opaque_id)]
Language: TypeAlias = Annotated[str, Rule("a language code such as en or pt-BR", _language)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A document that who registers has to accept, in one language."""

    id: OpaqueId
    version: OpaqueId
    name: str
    url: WebPage
    language: Language = "en"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recaptcha:
    """A challenge by Google's reCAPTCHA, or by a service that speaks its protocol."""

    site_key: str
    secret_key: Secret = field(repr=False)
    verify_url: WebPage = "https://www.google.com/recaptcha/api/siteverify"
    script_url: WebPage = "https://www.recaptcha.net/recaptcha/api.js"


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityServers:
    """None is trusted, and none recommended, unless it is named."""

    trusted: tuple[ServerName, ...] = ()
    #: Where clients shall look for people by their addresses, as ``/.well-known/matrix/client`` says.
    recommend: BaseUrl | None = None
