"""OpenID tokens: whose they are, and for how long."""

from __future__ import annotations

from functools import partial
from typing import Any

from homeserver.storage import users
from tests.remote import Network, Server

PATH = "/_matrix/federation/v1/openid/userinfo"


async def known(server: Server, name: str) -> str:
    """A user with an account."""
    user_id = server.user(name)
    await server.db.write(
        partial(users.add, user_id=user_id, password_hash=None, is_admin=False, created_at=0)
    )
    return user_id


async def asked(server: Server, token: str) -> tuple[int, Any]:
    return await server.answer("GET", f"{PATH}?access_token={token}", {}, None)


async def test_whoever_has_a_token_learns_whose_it_is(here: Server) -> None:
    alice = await known(here, "alice")
    token = await here.openid.issue(alice)

    assert await asked(here, token) == (200, {"sub": alice})
    assert await asked(here, token) == (200, {"sub": alice})
    assert token not in str(await here.db.scan.fetch("SELECT hash, user_id FROM openid_tokens"))


async def test_a_token_nobody_was_given_is_unknown(here: Server) -> None:
    await here.openid.issue(await known(here, "alice"))

    status, reply = await asked(here, "made-up")
    assert (status, reply["errcode"]) == (401, "M_UNKNOWN_TOKEN")
    status, reply = await here.answer("GET", PATH, {}, None)
    assert (status, reply["errcode"]) == (400, "M_MISSING_PARAM")


async def test_a_token_is_good_for_an_hour(here: Server, network: Network) -> None:
    token = await here.openid.issue(await known(here, "alice"))
    network.clock.advance(3599)
    assert (await asked(here, token))[0] == 200
    await here.openid.forget_expired()
    assert (await asked(here, token))[0] == 200

    network.clock.advance(2)
    assert (await asked(here, token))[0] == 401
    await here.openid.forget_expired()
    assert await here.db.scan.fetch_value("SELECT COUNT(*) FROM openid_tokens") == 0


async def test_nobody_speaks_for_an_account_that_is_gone(here: Server) -> None:
    alice = await known(here, "alice")
    token = await here.openid.issue(alice)
    await here.db.write(partial(users.deactivate, user_id=alice))

    assert (await asked(here, token))[0] == 401
