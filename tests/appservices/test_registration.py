"""Registration files: read as bridges write them, and every mistake named with its file, key and line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from homeserver.appservices.services import AppServices
from homeserver.config.appservices import ApplicationServices, Registration
from homeserver.config.reader import ConfigErrors, read_file

FILE = """\
id: telegram
url: http://localhost:29317/
as_token: 0123456789abcdef
hs_token: fedcba9876543210
sender_localpart: telegrambot
rate_limited: false
de.sorunome.msc2409.push_ephemeral: true
io.element.msc4190: true
com.example.unknown: [1, 2]
namespaces:
  users:
  - {regex: '@telegram_.*:example\\.org', exclusive: true, group_id: '+x:y'}
  aliases: []
  rooms:
"""


@dataclass(frozen=True, kw_only=True)
class Files:
    """The one key of a configuration that is of interest here."""

    application_services: ApplicationServices


def read(folder: Path, *texts: str) -> tuple[Registration, ...]:
    for number, text in enumerate(texts):
        (folder / f"{number}.yaml").write_text(text)
    names = ", ".join(f"{number}.yaml" for number in range(len(texts)))
    (folder / "config.yaml").write_text(f"application_services: [{names}]\n")
    return read_file(folder / "config.yaml", Files, {}).application_services


def test_a_file_is_read_as_a_bridge_writes_it(tmp_path: Path) -> None:
    (registration,) = read(tmp_path, FILE)

    assert (registration.id, registration.url) == ("telegram", "http://localhost:29317")
    assert registration.wants_ephemeral
    assert not registration.encryption
    assert not registration.rate_limited
    assert registration.namespaces.users[0].exclusive
    assert "0123456789abcdef" not in repr(registration)


def test_ids_belong_to_a_namespace_that_matches_from_their_beginning(tmp_path: Path) -> None:
    service = AppServices(read(tmp_path, FILE), "example.org").all[0]

    assert service.owns_user("@telegram_5:example.org")
    assert service.owns_user("@telegrambot:example.org")
    assert not service.owns_user("@x@telegram_5:example.org")
    assert not service.owns_user("@telegram_5:example.org.evil.org")
    assert not service.owns_user("@telegram_5:elsewhere.org")


@pytest.mark.parametrize(
    ("wrong", "right", "mistake"),
    [
        (
            "regex: '@('",
            "regex: '@telegram_.*:example\\.org'",
            "line 12: namespaces.users[0].regex: must be",
        ),
        ("as_token: short", "as_token: 0123456789abcdef", "line 3: as_token: must be a text of at least 8"),
        ("url: 5", "url: http://localhost:29317/", "line 2: url: must be a URL"),
        ("rate_limited: sometimes", "rate_limited: false", "line 6: rate_limited: must be true or false"),
        ("# no id", "id: telegram", "line 2: id: is missing"),
    ],
)
def test_a_mistake_is_named_with_its_file_key_and_line(
    tmp_path: Path, wrong: str, right: str, mistake: str
) -> None:
    with pytest.raises(ConfigErrors) as refused:
        read(tmp_path, FILE.replace(right, wrong))

    assert str(refused.value).startswith(f"{tmp_path}/0.yaml: {mistake}")


@pytest.mark.parametrize(
    ("other", "mistake"),
    [
        (FILE.replace("0123456789abcdef", "another token"), "line 1: id: is the same as in"),
        (FILE.replace("id: telegram", "id: another"), "line 3: as_token: is the same as in"),
    ],
)
def test_two_services_have_ids_and_tokens_of_their_own(tmp_path: Path, other: str, mistake: str) -> None:
    with pytest.raises(ConfigErrors) as refused:
        read(tmp_path, FILE, other)

    assert mistake in str(refused.value)
    assert "0.yaml" in str(refused.value)
