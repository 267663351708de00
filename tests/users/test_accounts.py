"""Accounts made by the administrator, and password attempts that are counted."""

from __future__ import annotations

import pytest

from homeserver.clock import FakeClock
from homeserver.errors import MatrixError, limit_exceeded
from homeserver.storage.database import Database
from homeserver.users.accounts import Accounts
from homeserver.users.passwords import Passwords


def accounts(db: Database, attempts: list[str] | None = None) -> Accounts:
    def check_attempt(user_id: str) -> None:
        if attempts is not None:
            attempts.append(user_id)
            if len(attempts) > 2:
                raise limit_exceeded(1000)

    passwords = Passwords(memory_kib=8, time_cost=1)
    return Accounts(db, FakeClock(), passwords, "a.org", check_attempt=check_attempt)


async def test_the_administrator_makes_administrators(database: Database) -> None:
    user_id = await accounts(database).create_account("root", "long enough", admin=True)
    user = await accounts(database).user(user_id)
    assert user is not None
    assert (user.user_id, user.is_admin) == ("@root:a.org", True)


async def test_an_account_without_password_takes_none(database: Database) -> None:
    await accounts(database).create_account("bridge", None)
    for password in ("", "None", "x" * 600):
        with pytest.raises(MatrixError) as caught:
            await accounts(database).authenticate("bridge", password)
        assert caught.value.errcode == "M_FORBIDDEN"


async def test_unknown_users_and_wrong_passwords_are_told_the_same(database: Database) -> None:
    await accounts(database).create_account("alice", "long enough")
    replies = []
    for user in ("alice", "nobody", "@alice:b.org"):
        with pytest.raises(MatrixError) as caught:
            await accounts(database).authenticate(user, "wrong")
        replies.append((caught.value.status, caught.value.body()))
    assert replies[0] == replies[1] == replies[2]


async def test_attempts_are_counted_by_user_before_the_password_is_looked_at(
    sqlite_database: Database,
) -> None:
    attempts: list[str] = []
    limited = accounts(sqlite_database, attempts)
    await limited.create_account("alice", "long enough")
    for user in ("alice", "@Alice:A.org"):
        assert await limited.authenticate(user, "long enough") == "@alice:a.org"
    with pytest.raises(MatrixError) as caught:
        await limited.authenticate("ALICE", "long enough")
    assert caught.value.errcode == "M_LIMIT_EXCEEDED"
    assert attempts == ["@alice:a.org"] * 3
