"""The configuration as typed records, and the rules each value must keep.

``config.sample.yaml`` explains every key to the person who sets it; here stands
what is allowed and what is meant by a key that is left out.  Nothing here opens a
connection or creates a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Literal

from homeserver.config.accounts import IdentityServers, Policy, Recaptcha
from homeserver.config.appservices import ApplicationServices
from homeserver.config.calls import DelayedEvents, RtcTransports
from homeserver.config.egress import Egress
from homeserver.config.email import Email
from homeserver.config.live import Cors, Live
from homeserver.config.login import Login, Sso
from homeserver.config.media import Media
from homeserver.config.people import Profiles, UserDirectory
from homeserver.config.previews import UrlPreviews
from homeserver.config.push import Push
from homeserver.config.reader import ConfigErrors, Mistake, Rule, read_file
from homeserver.config.rendezvous import Rendezvous
from homeserver.config.retention import Retention
from homeserver.config.rules import (
    AddressRange,
    BaseUrl,
    BindAddress,
    DatabaseUrl,
    DomainPattern,
    KeyId,
    Port,
    PublicKey,
    ReadableFile,
    RegistrationToken,
    RoomVersionId,
    Secret,
    ServerName,
    number,
)
from homeserver.config.search import Search
from homeserver.config.surroundings import Support, Turn
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION
from homeserver.ratelimit import Limit

__all__ = ["Config", "ConfigErrors", "Mistake", "load_config"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """The certificate a listener shows (the whole chain) and its key, both PEM."""

    certificate: ReadableFile
    private_key: ReadableFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """An address the server listens at, and what it answers there."""

    port: Port
    bind: BindAddress = "127.0.0.1"
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

    key_id: KeyId
    public_key: PublicKey
    expired_ts: Annotated[int, number(int, 0, 2**53 - 1)]


def _old_signing_keys(keys: tuple[OldSigningKey, ...], _folder: Path) -> tuple[OldSigningKey, ...]:
    if len({key.key_id for key in keys}) < len(keys):
        raise ValueError
    return keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """Who may make an account through the client-server API."""

    mode: Literal["closed", "open", "token"] = "closed"
    #: Whether anybody gets an account without a password that may do little.
    allow_guests: bool = False
    tokens: tuple[RegistrationToken, ...] = field(default=(), repr=False)
    #: Who knows it may register anybody, administrators too, whatever the mode.
    shared_secret: Secret | None = field(default=None, repr=False)
    #: What who registers is asked for beside that; needs email to be configured.
    require_email: bool = False
    terms: tuple[Policy, ...] = ()
    recaptcha: Recaptcha | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A token bucket: ``burst`` requests at once, then ``per_second`` of them."""

    per_second: Annotated[float, number(float, 0.001, 1_000_000)]
    burst: Annotated[int, number(int, 1, 1_000_000)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimits:
    """How fast one user, address or server may go on."""

    enabled: bool = True
    login: Bucket = Bucket(per_second=0.2, burst=10)
    registration: Bucket = Bucket(per_second=0.2, burst=5)
    message: Bucket = Bucket(per_second=5, burst=50)
    join: Bucket = Bucket(per_second=0.5, burst=20)
    invite: Bucket = Bucket(per_second=0.5, burst=20)
    report: Bucket = Bucket(per_second=0.05, burst=10)
    media: Bucket = Bucket(per_second=50, burst=500)
    preview: Bucket = Bucket(per_second=5, burst=100)
    federation: Bucket = Bucket(per_second=50, burst=200)
    email: Bucket = Bucket(per_second=0.005, burst=5)
    search: Bucket = Bucket(per_second=10, burst=100)
    rendezvous: Bucket = Bucket(per_second=10, burst=100)

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
    request_timeout: Annotated[float, number(float, 1, 3_600)] = 60.0
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
    #: The key of the policy server of this name, as ``/.well-known/matrix/policy_server`` says.
    policy_server_key: PublicKey | None = None
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
    max_request_bytes: Annotated[int, number(int, 65_536, 1_073_741_824)] = 10_485_760


@dataclass(frozen=True, slots=True, kw_only=True)
class Caches:
    """How much of what is stored is kept in memory."""

    #: Bytes that events read lately may take.
    event_bytes: Annotated[int, number(int, 1_048_576, 68_719_476_736)] = 16_777_216


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What new rooms are made of."""

    default_version: RoomVersionId = DEFAULT_ROOM_VERSION.id
    #: Whether who leaves a room has forgotten it.
    forget_on_leave: bool = False
    #: How long moderators can see what was redacted; 0: not at all.
    redacted_content_days: Annotated[float, number(float, 0, 3650)] = 7.0

    @property
    def keep_redacted_ms(self) -> int:
        """The same in milliseconds."""
        return round(self.redacted_content_days * 86_400_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Presence:
    """Whether who is online is told at all."""

    enabled: bool = True


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
    database: DatabaseUrl = field(repr=False)
    listeners: Annotated[
        tuple[Listener, ...],
        Rule(
            "a list of at least one listener, each at an address and port of its own",
            _listeners,
            reads=tuple[Listener, ...],
        ),
    ]
    public_base_url: BaseUrl | None = None
    old_signing_keys: Annotated[
        tuple[OldSigningKey, ...],
        Rule(
            "a list of keys, each with a key_id of its own",
            _old_signing_keys,
            reads=tuple[OldSigningKey, ...],
        ),
    ] = ()
    registration: Registration = Registration()
    #: What the registration files say that the key names.
    application_services: ApplicationServices = ()
    login: Login = field(default_factory=Login)
    sso: Sso = field(default_factory=Sso)
    rate_limits: RateLimits = RateLimits()
    federation: Federation = Federation()
    egress: Egress = field(default_factory=Egress)
    email: Email = field(default_factory=Email)
    identity_servers: IdentityServers = field(default_factory=IdentityServers)
    limits: Limits = Limits()
    caches: Caches = Caches()
    rooms: Rooms = Rooms()
    presence: Presence = Presence()
    profiles: Profiles = field(default_factory=Profiles)
    user_directory: UserDirectory = field(default_factory=UserDirectory)
    media: Media = field(default_factory=Media)
    url_previews: UrlPreviews = field(default_factory=UrlPreviews)
    retention: Retention = field(default_factory=Retention)
    support: Support = field(default_factory=Support)
    turn: Turn = field(default_factory=Turn)
    rtc_transports: RtcTransports = ()
    delayed_events: DelayedEvents = field(default_factory=DelayedEvents)
    push: Push = field(default_factory=Push)
    search: Search = field(default_factory=Search)
    rendezvous: Rendezvous = field(default_factory=Rendezvous)
    live: Live = field(default_factory=Live)
    cors: Cors = field(default_factory=Cors)
    log: Log = Log()

    def __post_init__(self) -> None:
        if self.registration.require_email and self.email.smtp_host is None:
            raise ValueError("registration.require_email needs email.smtp_host")
        if self.push.by_email and self.email.smtp_host is None:
            raise ValueError("push.by_email needs email.smtp_host")


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
