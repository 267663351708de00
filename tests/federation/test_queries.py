"""What servers ask each other about users and aliases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from federation.queries import Queries
from homeserver.errors import MatrixError, RemoteError
from homeserver.storage.database import Database
from homeserver.web import Request
from tests.client_api.account_server import AccountServer, account_server
from tests.remote import Server

QUERY = "/_matrix/federation/v1/query"


async def refusal(server: Server, of: Server, path: str, **query: str) -> tuple[int | None, str | None]:
    with pytest.raises(RemoteError) as refused:
        await server.client.request("GET", of.name, f"{QUERY}/{path}", query=query)
    return refused.value.status, refused.value.errcode


async def test_profiles_are_told_of_ones_own_users_alone(here: Server, there: Server) -> None:
    alice = here.user("alice")

    assert await there.client.query_profile(here.name, alice) == {"displayname": "alice:here.example"}
    for user_id, expected in (
        ("@nobody:here.example", (404, "M_NOT_FOUND")),
        ("@carol:there.example", (400, "M_INVALID_PARAM")),
        ("@user1:localhost:http", (400, "M_INVALID_PARAM")),
        ("alice", (400, "M_INVALID_PARAM")),
    ):
        assert await refusal(there, here, "profile", user_id=user_id, field="displayname") == expected
    assert await refusal(there, here, "profile") == (400, "M_MISSING_PARAM")


async def test_a_question_nobody_has_thought_of_is_not_recognised(here: Server, there: Server) -> None:
    assert await refusal(there, here, "weather") == (404, "M_UNRECOGNIZED")


class Asked(Request):
    """A question with its parameters."""

    def __init__(self, **query: str) -> None:
        self._query = {name: [value] for name, value in query.items()}
        self._first = None


@pytest.fixture
async def accounts(sqlite_database: Database) -> AsyncIterator[AccountServer]:
    async with account_server(sqlite_database) as running:
        yield running


async def test_fields_of_any_name_are_told_one_by_one(accounts: AccountServer) -> None:
    await accounts.user("alice")
    fields: dict[str, Any] = {"displayname": "Alice", "m.tz": "Europe/Paris", "org.example.pets": ["cat"]}
    for name, value in fields.items():
        await accounts.people.profiles.set_field("@alice:a.org", name, value)
    queries = Queries(
        db=accounts.db,
        rooms=accounts.core.rooms,
        profiles=accounts.people.profiles,
        server_name="a.org",
        version=lambda: "0",
    )

    assert await queries.profile(Asked(user_id="@alice:a.org")) == fields
    for name, value in fields.items():
        assert await queries.profile(Asked(user_id="@alice:a.org", field=name)) == {name: value}
    with pytest.raises(MatrixError) as refused:
        await queries.profile(Asked(user_id="@alice:a.org", field="avatar_url"))
    assert (refused.value.status, refused.value.errcode) == (404, "M_NOT_FOUND")
