"""Email addresses over HTTP, with a real mail server: adding, registering, logging in, resetting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from homeserver.config import Registration
from homeserver.config.login import Provider, Sso
from homeserver.storage import address_validations, sso_subjects
from homeserver.storage.database import Database, Transaction
from tests.client_api.account_server import AccountServer, password_auth
from tests.client_api.mailing import SECRET, MailingServer, mailing_server, parts_of
from tests.email.mail_server import link_in, text_of

ADD, REGISTER, RESET = "account/3pid", "register", "account/password"
ADDRESS = "alice@b.org"
#: What a browser could take for another site than a URL parser does.
SLY = (
    *("https://evil.org\\@app.org/", "https://app.org\\.evil.org/", "https://app.org@evil.org/"),
    *("https://evil.org @app.org/", "https://app.org:x/", "https://app.org\t.evil.org/"),
)


@pytest.fixture
async def mailing(sqlite_database: Database) -> AsyncIterator[MailingServer]:
    """A server where an email address is optional, and who has one is not told."""
    async with mailing_server(sqlite_database) as running:
        yield running


@pytest.fixture
async def frank(sqlite_database: Database) -> AsyncIterator[MailingServer]:
    """One that tells clients which addresses are known."""
    async with mailing_server(sqlite_database, email={"hide_known_addresses": False}) as running:
        yield running


async def add(mailing: MailingServer, name: str, address: str = ADDRESS) -> str:
    """Add an address to an account, and return its access token."""
    token = await mailing.server.user(name)
    creds = await mailing.validated(ADD, address, f"secret-of-{name}")
    body = {**creds, "auth": password_auth(name)}
    assert await mailing.server.call("POST", "/account/3pid/add", body, token=token) == (200, {})
    return token


async def test_an_address_is_added_once_it_is_validated_and_the_password_given(
    mailing: MailingServer,
) -> None:
    server, token = mailing.server, await mailing.server.user("alice")
    status, reply = await mailing.ask(ADD, "Alice@B.org")
    assert (status, list(reply)) == (200, ["sid"])
    creds = {"sid": reply["sid"], "client_secret": SECRET}
    too_early = await server.refused("POST", "/account/3pid/add", creds, token=token)
    assert too_early == (403, "M_THREEPID_AUTH_FAILED")

    assert (await mailing.follow(link_in(await mailing.message(ADDRESS))))[0] == 200
    status, needed = await server.call("POST", "/account/3pid/add", creds, token=token)
    assert (status, needed["flows"]) == (401, [{"stages": ["m.login.password"]}])
    body = {**creds, "auth": password_auth("alice", needed["session"])}
    assert await server.call("POST", "/account/3pid/add", body, token=token) == (200, {})

    now = server.clock.now_ms()
    added = {"medium": "email", "address": ADDRESS, "validated_at": now, "added_at": now}
    assert await server.call("GET", "/account/3pid", token=token) == (200, {"threepids": [added]})
    again = await server.refused("POST", "/account/3pid/add", body, token=token)
    assert again == (403, "M_THREEPID_AUTH_FAILED")


async def test_the_deprecated_way_to_add_asks_for_the_password_too(mailing: MailingServer) -> None:
    token = await mailing.server.user("alice")
    body: dict[str, Any] = {"three_pid_creds": await mailing.validated(ADD, ADDRESS)}
    assert (await mailing.server.call("POST", "/account/3pid", body, token=token))[0] == 401
    body["auth"] = password_auth("alice")
    assert await mailing.server.call("POST", "/account/3pid", body, token=token) == (200, {})


async def test_one_logs_in_by_an_address_in_any_case(mailing: MailingServer) -> None:
    await add(mailing, "alice")
    for identifier in (
        {"type": "m.id.thirdparty", "medium": "email", "address": "ALICE@b.org"},
        {"type": "m.id.user", "user": "alice"},
    ):
        login = {"type": "m.login.password", "identifier": identifier, "password": "secret alice"}
        status, reply = await mailing.server.call("POST", "/login", login)
        assert (status, reply["user_id"]) == (200, "@alice:a.org")
    for address in ("nobody@b.org", ADDRESS):
        identifier = {"type": "m.id.thirdparty", "medium": "email", "address": address}
        login = {"type": "m.login.password", "identifier": identifier, "password": "wrong"}
        assert await mailing.server.refused("POST", "/login", login) == (403, "M_FORBIDDEN")


async def test_who_registers_with_an_address_has_it(mailing: MailingServer) -> None:
    body = {"username": "alice", "password": "long enough"}
    _, needed = await mailing.server.call("POST", "/register", body)
    flows = [flow["stages"] for flow in needed["flows"]]
    assert flows == [["m.login.dummy"], ["m.login.email.identity"]]
    _, reply = await mailing.ask(REGISTER, ADDRESS)
    creds = {"sid": reply["sid"], "client_secret": SECRET}
    auth = {"type": "m.login.email.identity", "session": needed["session"], "threepid_creds": creds}
    status, waiting = await mailing.server.call("POST", "/register", {**body, "auth": auth})
    assert (status, waiting["errcode"]) == (401, "M_THREEPID_AUTH_FAILED")
    await mailing.follow(link_in(await mailing.message(ADDRESS)))
    status, reply = await mailing.server.call("POST", "/register", {**body, "auth": auth})
    assert (status, reply["user_id"]) == (200, "@alice:a.org")
    _, kept = await mailing.server.call("GET", "/account/3pid", token=reply["access_token"])
    assert [each["address"] for each in kept["threepids"]] == [ADDRESS]


async def test_an_address_can_be_required(sqlite_database: Database) -> None:
    registration = Registration(mode="open", require_email=True)
    async with mailing_server(sqlite_database, registration=registration) as mailing:
        auth = {"type": "m.login.dummy"}
        body = {"username": "alice", "password": "long enough", "auth": auth}
        status, needed = await mailing.server.call("POST", "/register", body)
        assert (status, needed["errcode"]) == (401, "M_UNRECOGNIZED")
        assert needed["flows"] == [{"stages": ["m.login.email.identity"]}]


async def test_one_address_makes_one_account(mailing: MailingServer) -> None:
    creds = [await mailing.validated(REGISTER, ADDRESS, f"secret{number}") for number in (1, 2)]
    replies = []
    for number, given in enumerate(creds):
        auth = {"type": "m.login.email.identity", "threepid_creds": given}
        body = {"username": f"user{number}", "password": "long enough", "auth": auth}
        replies.append(await mailing.server.call("POST", "/register", body))
    assert replies[0][0] == 200
    assert (replies[1][0], replies[1][1]["errcode"]) == (400, "M_THREEPID_IN_USE")
    assert not await mailing.server.accounts.is_active("@user1:a.org")


async def test_a_forgotten_password_is_replaced_by_who_reads_the_address(mailing: MailingServer) -> None:
    token, other = await add(mailing, "alice"), await mailing.server.user("alice")
    creds = await mailing.validated(RESET, "ALICE@B.ORG", "reset-secret") | {"id_server": "ignored.org"}
    auth = {"type": "m.login.email.identity", "threepid_creds": creds}
    body = {"new_password": "quite another one", "auth": auth}
    assert await mailing.server.call("POST", "/account/password", body) == (200, {})
    for old in (token, other):
        gone = await mailing.server.refused("GET", "/account/whoami", token=old)
        assert gone == (401, "M_UNKNOWN_TOKEN")
    login = {"type": "m.login.password", "user": "alice", "password": "quite another one"}
    assert (await mailing.server.call("POST", "/login", login))[0] == 200
    status, reply = await mailing.server.call("POST", "/account/password", body)
    assert (status, reply["errcode"]) == (401, "M_THREEPID_AUTH_FAILED")


async def test_a_validated_address_replaces_one_password_however_many_ask(mailing: MailingServer) -> None:
    await add(mailing, "alice")
    auth = {"type": "m.login.email.identity", "threepid_creds": await mailing.validated(RESET, ADDRESS)}
    bodies = [{"new_password": f"another one {number}", "auth": auth} for number in range(4)]
    asked = (mailing.server.call("POST", "/account/password", body) for body in bodies)
    replies = await asyncio.gather(*asked)
    refused = [reply["errcode"] for status, reply in replies if status != 200]
    assert refused == ["M_THREEPID_AUTH_FAILED"] * 3


async def test_an_address_does_not_replace_the_password_of_a_locked_account(mailing: MailingServer) -> None:
    await add(mailing, "alice")
    creds = await mailing.validated(RESET, ADDRESS)
    await mailing.server.people.moderation.change("@alice:a.org", locked=True)
    auth = {"type": "m.login.email.identity", "threepid_creds": creds}
    body = {"new_password": "quite another one", "auth": auth}
    refused = await mailing.server.refused("POST", "/account/password", body)
    assert refused == (401, "M_USER_LOCKED")
    await mailing.server.people.moderation.change("@alice:a.org", locked=False)
    assert await mailing.server.call("POST", "/account/password", body) == (200, {})


async def test_who_signs_on_elsewhere_adds_an_address_without_a_password(sqlite_database: Database) -> None:
    provider = Provider(id="idp", name="Example", issuer="https://id.example.org", client_id="us")
    async with mailing_server(sqlite_database, sso=Sso(providers=(provider,))) as mailing:
        server = mailing.server

        async def link(tx: Transaction, user_id: str) -> None:
            await sso_subjects.add(tx, "idp", "1", user_id)

        alice = await server.accounts.create_account("alice", None, also=link)
        token = await server.user("alice")
        body: dict[str, Any] = await mailing.validated(ADD, ADDRESS)
        status, needed = await server.call("POST", "/account/3pid/add", body, token=token)
        assert (status, needed["flows"]) == (401, [{"stages": ["m.login.sso"]}])
        server.people.interactive_auth.complete(needed["session"], "m.login.sso", alice)
        body["auth"] = {"session": needed["session"]}
        assert await server.call("POST", "/account/3pid/add", body, token=token) == (200, {})


async def test_sessions_are_kept_at_a_reset_when_asked_for(mailing: MailingServer) -> None:
    token = await add(mailing, "alice")
    auth = {"type": "m.login.email.identity", "threepid_creds": await mailing.validated(RESET, ADDRESS)}
    body = {"new_password": "quite another one", "logout_devices": False, "auth": auth}
    assert await mailing.server.call("POST", "/account/password", body) == (200, {})
    assert (await mailing.server.call("GET", "/account/whoami", token=token))[0] == 200


async def test_what_was_validated_for_one_purpose_serves_no_other(mailing: MailingServer) -> None:
    await add(mailing, "alice")
    mallory = await mailing.server.user("mallory")
    reset = await mailing.validated(RESET, ADDRESS)
    body = {**reset, "auth": password_auth("mallory")}
    refused = await mailing.server.refused("POST", "/account/3pid/add", body, token=mallory)
    assert refused == (403, "M_THREEPID_AUTH_FAILED")
    added = await mailing.validated(ADD, "mallory@b.org")
    auth = {"type": "m.login.email.identity", "threepid_creds": added}
    body = {"new_password": "quite another one", "auth": auth}
    status, reply = await mailing.server.call("POST", "/account/password", body)
    assert (status, reply["errcode"]) == (401, "M_THREEPID_AUTH_FAILED")


async def test_nobody_who_is_logged_in_resets_the_password_of_another(mailing: MailingServer) -> None:
    await add(mailing, "alice")
    mallory = await mailing.server.user("mallory")
    auth = {"type": "m.login.email.identity", "threepid_creds": await mailing.validated(RESET, ADDRESS)}
    body = {"new_password": "quite another one", "auth": auth}
    status, reply = await mailing.server.call("POST", "/account/password", body, token=mallory)
    assert (status, reply["errcode"]) == (401, "M_FORBIDDEN")


async def test_who_knows_no_address_learns_of_none(mailing: MailingServer) -> None:
    await add(mailing, "alice")
    known = await mailing.ask(RESET, ADDRESS, secret="x")
    unknown = await mailing.ask(RESET, "nobody@b.org", secret="x")
    assert (known[0], list(known[1])) == (unknown[0], list(unknown[1])) == (200, ["sid"])
    assert await mailing.ask(RESET, "nobody@b.org", secret="x") == unknown
    for operation in (REGISTER, ADD):
        status, reply = await mailing.ask(operation, ADDRESS, secret=f"y{operation[0]}")
        assert (status, list(reply)) == (200, ["sid"])
    told = await mailing.message(ADDRESS, 4)
    assert "@alice:a.org" in text_of(told)
    assert mailing.mail.to("nobody@b.org") == []


async def test_clients_are_told_which_addresses_are_known_if_so_configured(frank: MailingServer) -> None:
    await add(frank, "alice")
    for operation, address, errcode in (
        (REGISTER, ADDRESS, "M_THREEPID_IN_USE"),
        (ADD, "Alice@B.org", "M_THREEPID_IN_USE"),
        (RESET, "nobody@b.org", "M_THREEPID_NOT_FOUND"),
    ):
        status, reply = await frank.ask(operation, address)
        assert (status, reply["errcode"]) == (400, errcode)
    assert len(frank.mail.messages) == 1


async def test_a_message_that_cannot_be_sent_is_an_error_and_may_be_asked_for_again(
    frank: MailingServer,
) -> None:
    frank.mail.busy = True
    status, reply = await frank.ask(ADD, ADDRESS)
    assert (status, reply["errcode"]) == (502, "M_EMAIL_SEND_ERROR")
    frank.mail.busy = False
    assert (await frank.ask(ADD, ADDRESS))[0] == 200
    assert len(frank.mail.to(ADDRESS)) == 1


async def test_a_message_is_sent_again_only_when_asked_for_again(mailing: MailingServer) -> None:
    first = await mailing.ask(ADD, ADDRESS, 1)
    old = link_in(await mailing.message(ADDRESS))
    assert await mailing.ask(ADD, ADDRESS, 1) == first
    assert await mailing.ask(ADD, ADDRESS, 2) == first
    new = link_in(await mailing.message(ADDRESS, 2))
    assert [(await mailing.follow(link))[0] for link in (old, new)] == [400, 200]
    assert await mailing.ask(ADD, ADDRESS, 3) == first
    other = await mailing.ask(ADD, ADDRESS, 1, secret="other")
    await mailing.message(ADDRESS, 3)
    assert other[1]["sid"] != first[1]["sid"]
    assert len(mailing.mail.to(ADDRESS)) == 3


async def test_opening_a_link_validates_nothing(mailing: MailingServer) -> None:
    token = await mailing.server.user("alice")
    _, reply = await mailing.ask(ADD, ADDRESS)
    link = link_in(await mailing.message(ADDRESS))
    async with mailing.server.client.get(link.removeprefix("https://a.org")) as response:
        shown = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert response.status == 200
    assert ADDRESS in shown
    assert "default-src 'none'" in policy
    body = {"sid": reply["sid"], "client_secret": SECRET}
    assert (await mailing.server.refused("POST", "/account/3pid/add", body, token=token))[0] == 403


@pytest.mark.parametrize("changed", ["token", "sid", "client_secret"])
async def test_a_link_that_was_changed_leads_nowhere(mailing: MailingServer, changed: str) -> None:
    await mailing.ask(ADD, ADDRESS)
    query = parts_of(link_in(await mailing.message(ADDRESS))) | {changed: "x"}
    path = "/_inglenook/client/email/submit_token"
    async with mailing.server.client.post(path, data=query) as response:
        assert response.status == 400
        assert "The link is not valid" in await response.text()


async def test_a_link_works_for_a_day(mailing: MailingServer) -> None:
    await mailing.ask(ADD, ADDRESS)
    link = link_in(await mailing.message(ADDRESS))
    mailing.server.clock.advance(24 * 3600 + 1)
    assert (await mailing.follow(link))[0] == 400


async def test_people_are_led_on_to_allowed_domains_alone(sqlite_database: Database) -> None:
    async with mailing_server(sqlite_database, email={"next_link_domains": ("app.org",)}) as mailing:
        for number, (link, shown) in enumerate(
            {
                "https://app.org/#/x?a=1&b=2": True,
                "https://evil.org/?app.org": False,
                "https://app.org:8443/": False,
                "https://app.org.evil.org/": False,
            }.items()
        ):
            address = f"user{number}@b.org"
            await mailing.ask(ADD, address, next_link=link)
            _, page = await mailing.follow(link_in(await mailing.message(address)))
            assert (link.replace("&", "&amp;") in page) == shown
            assert ("evil.org" in page) is False
        for link in ("javascript:alert(1)", "file:///etc/passwd", "//app.org", "https://[", "x" * 3000, *SLY):
            status, reply = await mailing.ask(ADD, ADDRESS, next_link=link)
            assert (status, reply["errcode"]) == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"email": "alice"}, "M_INVALID_PARAM"),
        ({"email": "alice@b.org\nBcc: eve@e.org"}, "M_INVALID_PARAM"),
        ({"client_secret": ""}, "M_INVALID_PARAM"),
        ({"client_secret": "x" * 256}, "M_INVALID_PARAM"),
        ({"client_secret": "ä"}, "M_INVALID_PARAM"),
        ({"send_attempt": "1"}, "M_BAD_JSON"),
        ({"email": None}, "M_BAD_JSON"),
    ],
)
async def test_requests_of_the_wrong_shape(
    mailing: MailingServer, change: dict[str, Any], errcode: str
) -> None:
    body = {"client_secret": SECRET, "email": ADDRESS, "send_attempt": 1, **change}
    for operation in (ADD, REGISTER, RESET):
        refused = await mailing.server.refused("POST", f"/{operation}/email/requestToken", body)
        assert refused == (400, errcode)
    assert mailing.mail.messages == []


async def test_an_address_gets_few_messages(mailing: MailingServer) -> None:
    replies = [await mailing.ask(ADD, ADDRESS, secret=f"secret{number}") for number in range(7)]
    assert [status for status, _ in replies] == [200] * 5 + [429] * 2
    assert (await mailing.ask(ADD, "other@b.org"))[0] == 200


async def test_an_address_is_deleted_and_can_be_anothers(mailing: MailingServer) -> None:
    token = await add(mailing, "alice")
    body = {"medium": "email", "address": "Alice@B.org"}
    for _ in range(2):
        deleted = await mailing.server.call("POST", "/account/3pid/delete", body, token=token)
        assert deleted == (200, {"id_server_unbind_result": "no-support"})
    assert await mailing.server.call("GET", "/account/3pid", token=token) == (200, {"threepids": []})
    wrong = {"medium": "pigeon", "address": "x"}
    refused = await mailing.server.refused("POST", "/account/3pid/delete", wrong, token=token)
    assert refused == (400, "M_INVALID_PARAM")
    await add(mailing, "bob")


async def test_nobody_deletes_the_address_of_another(mailing: MailingServer) -> None:
    token, mallory = await add(mailing, "alice"), await mailing.server.user("mallory")
    body = {"medium": "email", "address": ADDRESS}
    await mailing.server.call("POST", "/account/3pid/delete", body, token=mallory)
    _, kept = await mailing.server.call("GET", "/account/3pid", token=token)
    assert len(kept["threepids"]) == 1


async def test_an_account_that_is_gone_has_no_address(mailing: MailingServer) -> None:
    token = await add(mailing, "alice")
    body = {"auth": password_auth("alice")}
    reply = await mailing.server.call("POST", "/account/deactivate", body, token=token)
    assert reply == (200, {"id_server_unbind_result": "success"})
    await mailing.ask(RESET, ADDRESS)
    assert len(mailing.mail.to(ADDRESS)) == 1
    await add(mailing, "bob")


async def test_telephone_numbers_are_not_taken(mailing: MailingServer) -> None:
    body = {"client_secret": "x", "country": "GB", "phone_number": "07700900001", "send_attempt": 1}
    for operation, expected in (
        (ADD, (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")),
        (REGISTER, (403, "M_THREEPID_DENIED")),
        (RESET, (403, "M_THREEPID_DENIED")),
    ):
        refused = await mailing.server.refused("POST", f"/{operation}/msisdn/requestToken", body)
        assert refused == expected


async def test_without_email_no_address_is_taken(server: AccountServer) -> None:
    body = {"client_secret": "x", "email": ADDRESS, "send_attempt": 1}
    token = await server.user("alice")
    for operation, expected in (
        (ADD, (400, "M_THREEPID_MEDIUM_NOT_SUPPORTED")),
        (REGISTER, (403, "M_THREEPID_DENIED")),
        (RESET, (403, "M_THREEPID_DENIED")),
    ):
        assert await server.refused("POST", f"/{operation}/email/requestToken", body) == expected
    _, reply = await server.call("GET", "/capabilities", token=token)
    assert reply["capabilities"]["m.3pid_changes"] == {"enabled": False}


async def test_that_addresses_can_be_changed_is_a_capability(mailing: MailingServer) -> None:
    _, reply = await mailing.server.call("GET", "/capabilities", token=await mailing.server.user("alice"))
    assert reply["capabilities"]["m.3pid_changes"] == {"enabled": True}


async def test_what_was_begun_is_finished_after_a_restart(database: Database) -> None:
    async with mailing_server(database) as before:
        _, reply = await before.ask(REGISTER, ADDRESS)
        link = link_in(await before.message(ADDRESS))
    creds = {"sid": reply["sid"], "client_secret": SECRET}
    auth: dict[str, Any] = {"type": "m.login.email.identity", "threepid_creds": creds}
    body = {"username": "alice", "password": "long enough", "auth": auth}
    async with mailing_server(database) as after:
        assert (await after.follow(link))[0] == 200
        assert (await after.server.call("POST", "/register", body))[0] == 200
    async with mailing_server(database) as later:
        auth["threepid_creds"] = await later.validated(RESET, ADDRESS)
        reset = {"new_password": "quite another one", "auth": auth}
        assert await later.server.call("POST", "/account/password", reset) == (200, {})
        identifier = {"type": "m.id.thirdparty", "medium": "email", "address": ADDRESS}
        login = {"type": "m.login.password", "identifier": identifier, "password": "quite another one"}
        assert (await later.server.call("POST", "/login", login))[0] == 200


async def test_expired_validations_are_forgotten(mailing: MailingServer) -> None:
    _, reply = await mailing.ask(ADD, ADDRESS)
    identifiers = mailing.server.identifiers
    assert identifiers is not None
    assert identifiers.validation is not None
    await identifiers.validation.forget_expired()
    assert await address_validations.by_sid(mailing.server.db.read, reply["sid"]) is not None
    mailing.server.clock.advance(24 * 3600 + 1)
    await identifiers.validation.forget_expired()
    assert await address_validations.by_sid(mailing.server.db.read, reply["sid"]) is None
