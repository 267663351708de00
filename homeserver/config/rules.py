"""What a value in the configuration may be, beyond its type: the rules that sections are written with.

Each rule says in words what is allowed, for the message that a mistake gets, and turns the text of
the file into the value to keep.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Annotated, TypeAlias
from urllib.parse import urlsplit

from homeserver.config.reader import Rule
from homeserver.protocol.ids import is_server_name
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing import decode_base64

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def number(kind: type[int] | type[float], minimum: float, maximum: float) -> Rule:
    """A number from ``minimum`` to ``maximum``, both allowed."""

    def parse(value: float, _folder: Path) -> float:
        # Written so that "not a number" is refused too.
        if not minimum <= value <= maximum:
            raise ValueError
        return value

    name = "a whole number" if kind is int else "a number"
    return Rule(f"{name} from {minimum} to {maximum}", parse, reads=kind)


def text(pattern: str, says: str) -> Rule:
    """Text that a regular expression matches wholly; ``says`` is what that means to a person."""

    def parse(value: str, _folder: Path) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError
        return value

    return Rule(says, parse)


def _server_name(text: str, _folder: Path) -> str:
    if not is_server_name(text):
        raise ValueError
    return text


def _domain_pattern(text: str, folder: Path) -> str:
    return "*." + _server_name(text[2:], folder) if text.startswith("*.") else _server_name(text, folder)


def _base_url(text: str, _folder: Path) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError
    return text.rstrip("/")


def _readable_file(text: str, folder: Path) -> Path:
    path = folder / text
    if not text or not path.is_file() or not os.access(path, os.R_OK):
        raise ValueError
    return path


def _database(text: str, folder: Path) -> str:
    if text.startswith(("postgresql://", "postgres://")):
        if not urlsplit(text).path.strip("/"):
            raise ValueError
        return text
    path = text.removeprefix("sqlite://")
    absolute = path != text
    if not path or "://" in path or (absolute and not path.startswith("/")):
        raise ValueError
    return "sqlite://" + os.path.normpath(folder / ("/" + path.lstrip("/") if absolute else path))


def _folder(text: str, folder: Path) -> Path:
    path = folder / text
    if not text or (path.exists() and not path.is_dir()):
        raise ValueError
    return path


def _bind_address(text: str, _folder: Path) -> str:
    return text if text == "localhost" else str(ipaddress.ip_address(text))


def _network(text: str, _folder: Path) -> Network:
    return ipaddress.ip_network(text)


def _room_version(text: str, _folder: Path) -> str:
    if text not in ROOM_VERSIONS:
        raise ValueError
    return text


def _registration_token(text: str, _folder: Path) -> str:
    # Specification: "Token-authenticated registration" and "Opaque identifiers".
    if not re.fullmatch(r"[A-Za-z0-9._~-]{1,64}", text):
        raise ValueError
    return text


def _secret(text: str, _folder: Path) -> str:
    if len(text) < 8:
        raise ValueError
    return text


def _key_id(text: str, _folder: Path) -> str:
    if not re.fullmatch(r"ed25519:[A-Za-z0-9_]{1,128}", text):
        raise ValueError
    return text


def _public_key(text: str, _folder: Path) -> str:
    if len(decode_base64(text)) != 32:
        raise ValueError
    return text.rstrip("=")


ServerName: TypeAlias = Annotated[
    str, Rule("a server name: a DNS name or IP address, with :port if need be, and no https://", _server_name)
]
DomainPattern: TypeAlias = Annotated[
    str, Rule("a server name, or one with a leading *. for everything below it", _domain_pattern)
]
ReadableFile: TypeAlias = Annotated[
    Path, Rule("the path of a file that exists and can be read", _readable_file)
]
AddressRange: TypeAlias = Annotated[
    Network,
    Rule("a range of addresses such as 10.0.0.0/8 or fd00::/8, with no bits set after the prefix", _network),
]
Port: TypeAlias = Annotated[int, number(int, 0, 65535)]
BindAddress: TypeAlias = Annotated[str, Rule("an IP address, or localhost", _bind_address)]
BaseUrl: TypeAlias = Annotated[
    str, Rule("a URL such as https://matrix.example.org, without ? or #", _base_url)
]
DatabaseUrl: TypeAlias = Annotated[
    str, Rule("a path, sqlite:///ABSOLUTE/PATH or postgresql://USER:PASSWORD@HOST/DATABASE", _database)
]
Folder: TypeAlias = Annotated[Path, Rule("the path of a folder, or of one that can be made", _folder)]
Secret: TypeAlias = Annotated[str, Rule("a text of at least 8 characters", _secret)]
RoomVersionId: TypeAlias = Annotated[
    str, Rule(f"a room version in quotes: {', '.join(ROOM_VERSIONS)}", _room_version)
]
RegistrationToken: TypeAlias = Annotated[
    str, Rule("1 to 64 of the characters A-Z a-z 0-9 . _ ~ -", _registration_token)
]
KeyId: TypeAlias = Annotated[str, Rule("the id of a key, such as ed25519:a_Ab12", _key_id)]
PublicKey: TypeAlias = Annotated[str, Rule("an Ed25519 public key: 32 bytes in base64", _public_key)]
Bytes: TypeAlias = Annotated[int, number(int, 65_536, 2**50)]
