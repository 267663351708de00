"""The configuration as typed records, and the rules each value must keep.

``config.sample.yaml`` explains every key to the person who sets it; here stands
what is allowed and what is meant by a key that is left out.  Nothing here opens a
connection or creates a file.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias
from urllib.parse import urlsplit

from homeserver.config_reader import ConfigErrors, Mistake, Rule, read_file
from homeserver.protocol.ids import is_server_name
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION, ROOM_VERSIONS
from homeserver.protocol.signing import decode_base64
from homeserver.ratelimit import Limit

__all__ = ["Config", "ConfigErrors", "Mistake", "load_config"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def _number(kind: type[int] | type[float], minimum: float, maximum: float) -> Rule:
    def parse(value: float, _folder: Path) -> float:
        # Written so that "not a number" is refused too.
        if not minimum <= value <= maximum:
            raise ValueError
        return value

    name = "a whole number" if kind is int else "a number"
    return Rule(f"{name} from {minimum} to {maximum}", parse, reads=kind)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The certificate a listener shows (the whole chain) and its key, both PEM."""

    certificate: ReadableFile
    private_key: ReadableFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An address the server listens at, and what it answers there."""

    port: Annotated[int, _number(int, 0, 65535)]
    bind: Annotated[str, Rule("an IP address, or localhost", _bind_address)] = "127.0.0.1"
    tls: Tls | None = None
    #: Believe the last address in ``X-Forwarded-For``.
    behind_proxy: bool = False
    serves: tuple[Literal["client", "federation", "health", "metrics"], ...] = (
        "client",
        "federation",
        "health",
    )


def _listeners(listeners: tuple[Listener, ...], _folder: Path) -> tuple[Listener, ...]:
    fixed = [(listener.bind, listener.port) for listener in listeners if listener.port]
    if not listeners or len(set(fixed)) < len(fixed):
        raise ValueError
    return listeners


@dataclass(frozen=True, slots=True, kw_only=True)
class OldSigningKey:
    """A key that events were signed with until ``expired_ts``, in milliseconds since the epoch."""

    key_id: Annotated[str, Rule("the id of a key, such as ed25519:a_Ab12", _key_id)]
    public_key: Annotated[str, Rule("an Ed25519 public key: 32 bytes in base64", _public_key)]
    expired_ts: Annotated[int, _number(int, 0, 2**53 - 1)]


def _old_signing_keys(keys: tuple[OldSigningKey, ...], _folder: Path) -> tuple[OldSigningKey, ...]:
    if len({key.key_id for key in keys}) < len(keys):
        raise ValueError
    return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Who may make an account through the client-server API."""

    mode: Literal["closed", "open", "token"] = "closed"
    tokens: tuple[
        Annotated[str, Rule("1 to 64 of the characters A-Z a-z 0-9 . _ ~ -", _registration_token)], ...
    ] = field(default=(), repr=False)
    #: Who knows it may register anybody, administrators too, whatever the mode.
    shared_secret: Annotated[str, Rule("a text of at least 8 characters", _secret)] | None = field(
        default=None, repr=False
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A token bucket: ``burst`` requests at once, then ``per_second`` of them."""

    per_second: Annotated[float, _number(float, 0.001, 1_000_000)]
    burst: Annotated[int, _number(int, 1, 1_000_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """How fast one user, address or server may go on."""

    enabled: bool = True
    login: Bucket = Bucket(per_second=0.2, burst=10)
    registration: Bucket = Bucket(per_second=0.2, burst=5)
    message: Bucket = Bucket(per_second=5, burst=50)
    join: Bucket = Bucket(per_second=0.5, burst=20)
    invite: Bucket = Bucket(per_second=0.5, burst=20)
    media: Bucket = Bucket(per_second=50, burst=500)
    federation: Bucket = Bucket(per_second=50, burst=200)

    def limits(self) -> dict[str, Limit]:
        """Every limit by its name, as ``RateLimiter`` takes them."""
        buckets = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "enabled"}
        return {name: Limit(bucket.per_second, bucket.burst) for name, bucket in buckets.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """How other servers are reached, and which."""

    enabled: bool = True
    verify_certificates: bool = True
    ca_file: ReadableFile | None = None
    request_timeout: Annotated[float, _number(float, 1, 3_600)] = 60.0
    #: Whether other servers may read the list of published rooms.
    publish_room_list: bool = True
    allow_private_addresses: bool = False
    allowed_addresses: tuple[AddressRange, ...] = ()
    denied_addresses: tuple[AddressRange, ...] = ()
    allowed_domains: tuple[DomainPattern, ...] = ()
    denied_domains: tuple[DomainPattern, ...] = ()
    #: Join rooms of other servers with a part of their state, and fetch their members afterwards.
    omit_members: bool = True
    #: Let other servers, and so their people, know what people here call their devices.
    send_device_names: bool = False
    #: Where other servers reach this one, as ``/.well-known/matrix/server`` says.
    advertise: ServerName | None = None
    #: Notaries that are asked for the keys of servers that do not give them themselves.
    trusted_key_servers: tuple[ServerName, ...] = ()

    def allows(self, server_name: str) -> bool:
        """Whether to talk with a server: not denied, and allowed if only some are."""
        if any(_matches(pattern, server_name) for pattern in self.denied_domains):
            return False
        return not self.allowed_domains or any(
            _matches(pattern, server_name) for pattern in self.allowed_domains
        )


def _matches(pattern: str, server_name: str) -> bool:
    """A pattern with a port means that port alone; without one, every port of the name."""
    name, pattern = server_name.lower(), pattern.lower()
    host = re.sub(r":\d+$", "", name)
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) or name.endswith(pattern[1:])
    return pattern in (name, host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what a single request may cost."""

    #: Bytes of a request's body.
    max_request_bytes: Annotated[int, _number(int, 65_536, 1_073_741_824)] = 10_485_760


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What new rooms are made of."""

    default_version: Annotated[
        str, Rule(f"a room version in quotes: {', '.join(ROOM_VERSIONS)}", _room_version)
    ] = DEFAULT_ROOM_VERSION.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Whether who is online is told at all."""

    enabled: bool = True


_Bytes: TypeAlias = Annotated[int, _number(int, 65_536, 2**50)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """What people upload, and what is fetched for them from other servers; sizes in bytes."""

    #: ``load_config`` places the default beside the configuration file.
    folder: Annotated[Path, Rule("the path of a folder, or of one that can be made", _folder)] = Path("media")
    max_upload_bytes: _Bytes = 104_857_600
    max_bytes_per_user: _Bytes | None = None
    allow_remote: bool = True
    max_remote_bytes: _Bytes = 104_857_600
    remote_cache_bytes: _Bytes = 10_737_418_240
    max_image_pixels: Annotated[int, _number(int, 1_000_000, 100_000_000)] = 40_000_000
    unauthenticated_access: bool = False

    def __post_init__(self) -> None:
        # So that what was just fetched is never what has to give way.
        if self.remote_cache_bytes < 2 * self.max_remote_bytes:
            raise ValueError("remote_cache_bytes must be at least twice max_remote_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What is logged (to standard error), and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that a person may set; see ``config.sample.yaml`` for each key."""

    server_name: ServerName
    signing_key: ReadableFile
    #: ``sqlite:///absolute/path`` or ``postgresql://…``; may hold a password.
    database: Annotated[
        str, Rule("a path, sqlite:///ABSOLUTE/PATH or postgresql://USER:PASSWORD@HOST/DATABASE", _database)
    ] = field(repr=False)
    listeners: Annotated[
        tuple[Listener, ...],
        Rule(
            "a list of at least one listener, each at an address and port of its own",
            _listeners,
            reads=tuple[Listener, ...],
        ),
    ]
    public_base_url: (
        Annotated[str, Rule("a URL such as https://matrix.example.org, without ? or #", _base_url)] | None
    ) = None
    old_signing_keys: Annotated[
        tuple[OldSigningKey, ...],
        Rule(
            "a list of keys, each with a key_id of its own",
            _old_signing_keys,
            reads=tuple[OldSigningKey, ...],
        ),
    ] = ()
    registration: Registration = Registration()
    rate_limits: RateLimits = RateLimits()
    federation: Federation = Federation()
    limits: Limits = Limits()
    rooms: Rooms = Rooms()
    presence: Presence = Presence()
    media: Media = Media()
    log: Log = Log()


def load_config(path: Path | str, environ: Mapping[str, str] = os.environ) -> Config:
    """The configuration in a YAML file.

    Paths are relative to the file's folder; a text that is wholly ``${NAME}`` is
    taken from the environment.  Raises ``ConfigErrors``, which holds every mistake.
    """
    path = Path(path)
    config = read_file(path, Config, environ)
    media = replace(config.media, folder=path.absolute().parent / config.media.folder)
    return replace(config, media=media)


def describe_listener(listener: Listener) -> str:
    """The address of a listener as a URL that a person can open."""
    host = f"[{listener.bind}]" if ":" in listener.bind else listener.bind
    host = "localhost" if host == "127.0.0.1" else host
    return f"{'https' if listener.tls else 'http'}://{host}:{listener.port}"
