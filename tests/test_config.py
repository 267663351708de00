"""The configuration file: what it means, and how it says everything that is wrong with it at once."""

from __future__ import annotations

import dataclasses
import ipaddress
import itertools
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
import yaml

from homeserver.config import (
    Config,
    ConfigErrors,
    Federation,
    Listener,
    OldSigningKey,
    describe_listener,
    load_config,
)
from homeserver.protocol.retention import Lifetimes
from homeserver.ratelimit import Limit

SAMPLE = Path(__file__).parent.parent / "config.sample.yaml"

SMALLEST = """\
server_name: example.org
signing_key: signing.key
database: inglenook.db
listeners:
  - port: 8008
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "signing.key").write_text("a key, whose form is not the configuration's business")
    return tmp_path


def load(folder: Path, text: str, **environ: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_config(path, environ)


def mistakes_in(folder: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigErrors) as refused:
        load(folder, text, **environ)
    return [str(mistake) for mistake in refused.value.mistakes]


def test_four_keys_are_enough_and_the_rest_has_defaults(folder: Path) -> None:
    config = load(folder, SMALLEST)

    assert config.server_name == "example.org"
    assert config.listeners == (
        Listener(port=8008, bind="127.0.0.1", serves=("client", "federation", "health")),
    )
    assert config.registration.mode == "closed"
    assert config.federation.verify_certificates
    assert not config.federation.allow_private_addresses


def test_paths_are_relative_to_the_folder_of_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    (folder / "config.yaml").write_text(SMALLEST)

    config = load_config("../config.yaml", {})

    assert config.signing_key.samefile(folder / "signing.key")
    assert config.database == f"sqlite://{folder}/inglenook.db"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("/var/lib/inglenook.db", "sqlite:///var/lib/inglenook.db"),
        ("sqlite:///var/lib/inglenook.db", "sqlite:///var/lib/inglenook.db"),
        ("sqlite:////var/lib/inglenook.db", "sqlite:///var/lib/inglenook.db"),
        ("postgresql://me:pw@db.example.org/inglenook", "postgresql://me:pw@db.example.org/inglenook"),
    ],
)
def test_a_database_is_a_path_or_a_url(folder: Path, given: str, meant: str) -> None:
    assert load(folder, SMALLEST.replace("inglenook.db", given)).database == meant


@pytest.mark.parametrize(
    "given", ["mysql://me:hunter2@db/inglenook", "postgresql://me:hunter2@db", "sqlite://here", "''"]
)
def test_other_databases_are_refused_without_quoting_them(folder: Path, given: str) -> None:
    [mistake] = mistakes_in(folder, SMALLEST.replace("inglenook.db", given))

    assert mistake.startswith("line 3: database: must be a path")
    assert "hunter2" not in mistake


def test_a_text_may_come_from_the_environment(folder: Path) -> None:
    text = SMALLEST.replace("inglenook.db", "${DATABASE}")

    assert load(folder, text, DATABASE="postgresql://me:pw@db/x").database == "postgresql://me:pw@db/x"
    assert mistakes_in(folder, text) == [
        "line 3: database: names the environment variable DATABASE, which is not set"
    ]


def test_every_mistake_is_reported_with_its_line(folder: Path) -> None:
    text = """\
server_nmae: example.org
signing_key: lost.key
database: inglenook.db
listeners:
  - port: 80080
    bind: all of them
  - port: 8448
    serves: [client, federaton]
registration:
  mode: opened
federation:
  enabled: maybe
  denied_addresses: [10.0.0.1/8, 192.168.0.0/16]
  request_timeout: soon
rate_limits:
  login: {per_second: 1}
log:
  level: info
  level: debug
"""
    assert mistakes_in(folder, text) == [
        "line 1: server_nmae: unknown key; the nearest known key is server_name",
        "line 1: server_name: is missing, and has no default",
        "line 2: signing_key: must be the path of a file that exists and can be read",
        "line 5: listeners[0].port: must be a whole number from 0 to 65535",
        "line 6: listeners[0].bind: must be an IP address, or localhost",
        "line 8: listeners[1].serves[1]: must be one of: client, federation, health, metrics",
        "line 10: registration.mode: must be one of: closed, open, token",
        "line 12: federation.enabled: must be true or false",
        "line 13: federation.denied_addresses[0]: must be a range of addresses such as 10.0.0.0/8 or"
        " fd00::/8, with no bits set after the prefix",
        "line 14: federation.request_timeout: must be a number from 1 to 3600",
        "line 16: rate_limits.login.burst: is missing, and has no default",
        "line 19: log.level: is given twice, first on line 18",
    ]


def test_the_nearest_known_key_is_looked_for_where_the_key_stands(folder: Path) -> None:
    [mistake] = mistakes_in(folder, SMALLEST + "registration:\n  token: [abc]\n")

    assert mistake == "line 7: registration.token: unknown key; the nearest known key is registration.tokens"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("", "line 1: the file is empty"),
        ("- a\n- list\n", "line 1: must be a section of keys and values"),
        ("server_name: a\n\tsigning_key: b\n", "line 2: not valid YAML"),
        ("server_name: example.org\nsigning_key: [\n", "line 3: not valid YAML"),
        ("server_name: \x07\n", "line 1: not valid YAML"),
        ("[" * 5000, "line 1: not valid YAML: nested too deep"),
    ],
)
def test_what_is_not_yaml_says_where(folder: Path, text: str, mistake: str) -> None:
    [found] = mistakes_in(folder, text)
    assert found.startswith(mistake)


def test_a_file_that_is_not_there_or_not_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigErrors, match="cannot be read: No such file"):
        load_config(tmp_path / "config.yaml")

    (tmp_path / "config.yaml").write_bytes(b"server_name: a\nlog: \xff\n")
    with pytest.raises(ConfigErrors, match="line 2: the file must be UTF-8"):
        load_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "secret_line",
    [
        "registration: {mode: token, tokens: [hunter2!]}",
        "registration: {mode: token, tokens: hunter2}",
        "registration: {mode: token, tokens: [*hunter2]}",
        "registration: {mode: token, tokens: ['hunter2]}",
        "registration: {mode: token, tokens: [!hunter2 x]}",
        "registration: {mode: token, tokens: [!a!hunter2 x]}",
        "registration: {shared_secret: hunter2}",
        "registration: hunter2",
        "log: {level: hunter2}",
    ],
)
def test_no_message_quotes_a_value(folder: Path, secret_line: str) -> None:
    assert "hunter2" not in "\n".join(mistakes_in(folder, SMALLEST + secret_line + "\n"))


def test_a_printed_configuration_keeps_its_secrets(folder: Path) -> None:
    text = SMALLEST.replace("inglenook.db", "postgresql://me:hunter2@db/x")
    registration = "registration: {mode: token, tokens: [hunter2], shared_secret: hunter2hunter2}"
    config = load(folder, f"{text}{registration}\n")

    assert config.registration.tokens == ("hunter2",)
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize(
    ("listeners", "ok"),
    [
        ("[]", False),
        ("[{port: 8008}, {port: 8008}]", False),
        ("[{port: 8008}, {port: 8008, bind: '::1'}]", True),
        ("[{port: 0}, {port: 0}]", True),
    ],
)
def test_listeners_have_addresses_of_their_own(folder: Path, listeners: str, ok: bool) -> None:
    text = SMALLEST.replace("\n  - port: 8008", f" {listeners}")
    if ok:
        assert len(load(folder, text).listeners) == 2
    else:
        assert mistakes_in(folder, text) == [
            "line 4: listeners: must be a list of at least one listener,"
            " each at an address and port of its own"
        ]


def test_old_keys_are_public_keys_with_ids_of_their_own(folder: Path) -> None:
    key = "qp4rp4PSZo0bL/XiqrhQyNcTrgiHxhBWmv4JNBzpjyQ"
    lines = ["old_signing_keys:"]
    for key_id, public_key, expired in (("ed25519:a", f"{key}=", 5), ("rsa:b", "hunter2", "'soon'")):
        lines.append(f"  - {{key_id: '{key_id}', public_key: '{public_key}', expired_ts: {expired}}}")

    config = load(folder, SMALLEST + "\n".join(lines[:2]))
    assert config.old_signing_keys == (OldSigningKey(key_id="ed25519:a", public_key=key, expired_ts=5),)

    assert mistakes_in(folder, SMALLEST + "\n".join(lines)) == [
        "line 8: old_signing_keys[1].key_id: must be the id of a key, such as ed25519:a_Ab12",
        "line 8: old_signing_keys[1].public_key: must be an Ed25519 public key: 32 bytes in base64",
        "line 8: old_signing_keys[1].expired_ts: must be a whole number from 0 to 9007199254740991",
    ]
    assert mistakes_in(folder, SMALLEST + "\n".join([*lines[:2], lines[1]])) == [
        "line 7: old_signing_keys: must be a list of keys, each with a key_id of its own"
    ]


def test_what_is_advertised_is_a_server_name(folder: Path) -> None:
    text = SMALLEST + "federation: {advertise: 'https://matrix.example.org', trusted_key_servers: [a b]}\n"
    assert [mistake.split(": ")[1] for mistake in mistakes_in(folder, text)] == [
        "federation.advertise",
        "federation.trusted_key_servers[0]",
    ]


def test_an_empty_section_means_its_defaults(folder: Path) -> None:
    assert load(folder, SMALLEST + "log:\npresence:\n") == load(folder, SMALLEST)


def test_rate_limits_have_the_names_that_routes_use(folder: Path) -> None:
    config = load(folder, SMALLEST + "rate_limits: {message: {per_second: 0.5, burst: 3}}\n")

    assert config.rate_limits.limits()["message"] == Limit(0.5, 3)
    assert set(config.rate_limits.limits()) == {
        "login",
        "registration",
        "message",
        "join",
        "invite",
        "report",
        "media",
        "preview",
        "federation",
        "email",
        "rendezvous",
        "search",
    }


def test_domains_are_allowed_and_denied_by_name_and_below_it() -> None:
    everyone_but = Federation(denied_domains=("evil.org", "*.example.com"))
    assert everyone_but.allows("example.com")
    assert not everyone_but.allows("a.b.EXAMPLE.com:8448")
    assert not everyone_but.allows("evil.org:1234")

    only = Federation(allowed_domains=("matrix.org", "*.example.org"), denied_domains=("bad.example.org",))
    assert only.allows("matrix.org")
    assert only.allows("chat.example.org")
    assert not only.allows("bad.example.org")
    assert not only.allows("notmatrix.org")


def test_addresses_are_read_as_ranges(folder: Path) -> None:
    config = load(
        folder, SMALLEST + "federation: {denied_addresses: [203.0.113.0/24, 'fd00::/8', 192.0.2.1]}\n"
    )

    assert config.federation.denied_addresses == tuple(
        map(ipaddress.ip_network, ("203.0.113.0/24", "fd00::/8", "192.0.2.1/32"))
    )


def test_a_listener_is_described_as_a_url() -> None:
    assert describe_listener(Listener(port=8448, bind="::1")) == "http://[::1]:8448"
    assert describe_listener(Listener(port=8008)) == "http://localhost:8008"


def keys_of_schema(kind: Any, key: str = "") -> Iterator[str]:
    """Every key a configuration can have; a list adds ``[]``."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from keys_of_schema(args[1].reads, key)
    elif origin in (Union, types.UnionType):
        yield from keys_of_schema(args[0], key)
    elif origin is tuple and dataclasses.is_dataclass(args[0]):
        yield from keys_of_schema(args[0], key + "[]")
    elif dataclasses.is_dataclass(kind):
        for name, hint in get_type_hints(kind, include_extras=True).items():
            below = f"{key}.{name}" if key else name
            yield below
            yield from keys_of_schema(hint, below)


def keys_of_file(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            below = f"{key}.{name}" if key else name
            yield below
            yield from keys_of_file(inner, below)
    elif isinstance(value, list):
        for item in value:
            yield from keys_of_file(item, key + "[]" if isinstance(item, dict) else key)


def sample_with_every_key() -> str:
    """The sample with its optional settings switched on: ``#key`` becomes ``key``."""
    return re.sub(r"^(\s*)#(?=\S)", r"\1", SAMPLE.read_text(), flags=re.MULTILINE)


def test_the_sample_has_exactly_the_keys_there_are() -> None:
    keys = set(keys_of_file(yaml.safe_load(sample_with_every_key())))
    # What a transport is made of is for its clients to know.
    assert sorted(key for key in keys if not key.startswith("rtc_transports[]")) == sorted(
        keys_of_schema(Config)
    )


def test_the_sample_loads_and_shows_the_defaults(folder: Path) -> None:
    assert load(folder, SAMPLE.read_text()) == load(folder, SMALLEST)


def test_the_sample_loads_with_everything_switched_on(folder: Path) -> None:
    (folder / "tls").mkdir()
    for name in ("fullchain.pem", "privkey.pem", "test-ca.pem"):
        (folder / "tls" / name).touch()

    config = load(folder, sample_with_every_key())

    assert config.public_base_url == "https://matrix.example.org"
    assert config.listeners[0].tls is not None


def test_the_sample_explains_every_key() -> None:
    """Each key has a comment of its own above it, except sections and the limits' inner keys."""
    lines = SAMPLE.read_text().splitlines()
    unexplained = [
        line
        for above, line in itertools.pairwise(lines)
        if re.match(r"\s*(- |#)?\w+: *\S", line)
        and not re.match(r"\s*# |\s*#\w", above)
        and not re.search(r"private_key", line)
    ]
    assert unexplained == []


def test_media_is_kept_beside_the_configuration_unless_it_says_otherwise(folder: Path) -> None:
    assert load(folder, SMALLEST).media.folder == folder / "media"
    assert load(folder, SMALLEST + "media: {folder: /srv/media}\n").media.folder == Path("/srv/media")


def test_a_file_is_no_folder_for_media(folder: Path) -> None:
    assert mistakes_in(folder, SMALLEST + "media:\n  folder: signing.key\n  max_upload_bytes: 10\n") == [
        "line 7: media.folder: must be the path of a folder, or of one that can be made",
        "line 8: media.max_upload_bytes: must be a whole number from 65536 to 1125899906842624",
    ]


def test_what_was_fetched_must_fit_among_what_is_kept(folder: Path) -> None:
    assert mistakes_in(folder, SMALLEST + "media: {remote_cache_bytes: 100000000}\n") == [
        "line 6: media: remote_cache_bytes must be at least twice max_remote_bytes"
    ]


def test_lifetimes_are_given_in_days_and_kept_in_order(folder: Path) -> None:
    text = "retention: {enabled: true, default: {max: 7}, allowed: {min: 0.5}}\n"
    assert load(folder, SMALLEST + text).retention.lifetimes() == Lifetimes(
        default_max=7 * 24 * 3600 * 1000, allowed_min=12 * 3600 * 1000
    )
    assert load(folder, SMALLEST).retention.lifetimes() is None
    assert mistakes_in(folder, SMALLEST + "retention: {default: {min: 9, max: 7}}\n") == [
        "line 6: retention.default: min must not be more than max"
    ]


@pytest.mark.parametrize(
    ("transports", "ok"),
    [
        ("[{type: livekit, livekit_service_url: https://sfu.example.org, more: [1, {a: b}]}]", True),
        ("[]", True),
        ("[{type: org.example.peers}]", True),
        ("[{type: livekit}]", False),
        ("[{type: livekit, livekit_service_url: sfu.example.org}]", False),
        ("[{livekit_service_url: https://sfu.example.org}]", False),
        ("[{type: A B}]", False),
        ("[{type: x, weight: 0.5}]", True),
        (f"[{{type: x, number: {10**30}}}]", False),
        ("[{type: x, when: 2020-01-01}]", False),
        ("[livekit]", False),
        (f"[{', '.join(['{type: x}'] * 21)}]", False),
        (f"[{{type: x, more: {'y' * 5000}}}]", False),
        ("[&a {type: x, more: *a}]", False),
    ],
)
def test_transports_of_calls_are_told_as_they_stand(folder: Path, transports: str, ok: bool) -> None:
    text = f"{SMALLEST}rtc_transports: {transports}\n"
    if ok:
        assert list(load(folder, text).rtc_transports) == yaml.safe_load(transports)
    else:
        with pytest.raises(ConfigErrors, match="rtc_transports"):
            load(folder, text)


S3_SETTINGS = (
    SMALLEST
    + """\
media:
  s3:
    bucket: media
"""
)


def test_media_may_be_in_a_bucket(folder: Path) -> None:
    text = S3_SETTINGS + "    access_key: me\n    secret_key: ${S3_SECRET}\n    prefix: /ours/media\n"
    s3 = load(folder, text, S3_SECRET="a-secret-key").media.s3

    assert s3 is not None
    assert (s3.bucket, s3.secret_key, s3.prefix) == ("media", "a-secret-key", "ours/media/")
    assert "a-secret-key" not in repr(s3)


@pytest.mark.parametrize(
    ("line", "mistake"),
    [
        ("access_key: me", "line 7: media.s3: access_key and secret_key belong together"),
        ("region: here and there", "line 9: media.s3.region: must be the name of a region"),
        ("endpoint: s3.example.org", "line 9: media.s3.endpoint: must be a URL"),
    ],
)
def test_a_bucket_that_cannot_be_is_refused(folder: Path, line: str, mistake: str) -> None:
    [found] = mistakes_in(folder, f"{S3_SETTINGS}    {line}\n")

    assert found.partition(":")[2].startswith(mistake.partition(":")[2])


def test_a_bucket_needs_what_speaks_to_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("homeserver.config.media.find_spec", lambda _: None)
    [mistake] = mistakes_in(folder, S3_SETTINGS)

    assert "pip install 'inglenook[s3]'" in mistake
