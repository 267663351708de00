"""Passwords: hashing, checking, and what may be chosen."""

from __future__ import annotations

import pytest

from homeserver.errors import MatrixError
from homeserver.users.passwords import MAX_PASSWORD_CHARS, Passwords


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(memory_kib=8, time_cost=1)


async def test_only_the_password_matches(passwords: Passwords) -> None:
    password_hash = await passwords.hash("secret pässword")
    assert password_hash.startswith("$argon2id$")
    assert await passwords.matches("secret pässword", password_hash)
    assert not await passwords.matches("secret password", password_hash)
    assert await passwords.hash("secret pässword") != password_hash


async def test_hashes_of_other_costs_stay_valid(passwords: Passwords) -> None:
    password_hash = await Passwords(memory_kib=16, time_cost=2).hash("secret password")
    assert await passwords.matches("secret password", password_hash)


async def test_nobody_has_no_password_but_is_checked_all_the_same(
    passwords: Passwords, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str] = []
    verify = passwords._verify

    def observed(password: str, password_hash: str) -> bool:
        checked.append(password_hash)
        return verify(password, password_hash)

    monkeypatch.setattr(passwords, "_verify", observed)
    assert not await passwords.matches("secret password", None)
    assert [each.startswith("$argon2id$") for each in checked] == [True]


async def test_a_broken_hash_matches_nothing(passwords: Passwords) -> None:
    assert not await passwords.matches("secret password", "x")


async def test_endless_passwords_are_not_computed(passwords: Passwords) -> None:
    endless = "x" * (MAX_PASSWORD_CHARS + 1)
    assert not await passwords.matches(endless, await passwords.hash(endless))


@pytest.mark.parametrize(
    ("password", "errcode"),
    [("seven77", "M_WEAK_PASSWORD"), ("", "M_WEAK_PASSWORD"), ("x" * 513, "M_INVALID_PARAM")],
)
def test_passwords_that_may_not_be_chosen(passwords: Passwords, password: str, errcode: str) -> None:
    with pytest.raises(MatrixError) as caught:
        passwords.check_new(password)
    assert caught.value.errcode == errcode
    passwords.check_new("eight888")
