"""Stages of registration that are completed in a browser, as a person would: on the fallback pages."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from homeserver.config import Registration
from homeserver.config.accounts import Policy, Recaptcha
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server, configured

TERMS = Policy(id="privacy", version="1.2", name="Privacy <Policy>", url="https://a.org/privacy?a=1&b=2")
GERMAN = Policy(id="privacy", version="1.2", language="de", name="Datenschutz", url="https://a.org/de")
BODY = {"username": "alice", "password": "long enough"}


@dataclass
class Verification:
    """A captcha's verification service: ``human`` is the one response it is content with."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def verify(self, request: web.Request) -> web.Response:
        fields = dict(await request.post())
        self.asked.append(fields)
        if fields["response"] == "crash":
            return web.Response(status=500, text="oops")
        return web.json_response({"success": fields["response"] == "human", "hostname": "a.org"})


@asynccontextmanager
async def verification() -> AsyncIterator[Verification]:
    service, app = Verification(), web.Application()
    app.router.add_post("/siteverify", service.verify)
    async with TestServer(app, host="127.0.0.1") as running:
        service.url = str(running.make_url("/siteverify"))
        yield service


def captcha(url: str) -> Recaptcha:
    return Recaptcha(
        site_key="site<key>",
        secret_key="secret-key",
        verify_url=url,
        script_url="https://captcha.example/api.js",
    )


def fallback(stage: str, session: str = "") -> str:
    path = f"/_matrix/client/v3/auth/{stage}/fallback/web"
    return f"{path}?session={session}" if session else path


async def show(server: AccountServer, stage: str, session: str) -> tuple[int, str, str]:
    """Status, policy and text of a page."""
    async with server.client.get(fallback(stage, session)) as response:
        return response.status, response.headers["Content-Security-Policy"], await response.text()


async def press(server: AccountServer, stage: str, session: str, **fields: str) -> tuple[int, str]:
    """Status and text of what comes after the form was sent."""
    async with server.client.post(fallback(stage), data={"session": session, **fields}) as response:
        return response.status, await response.text()


async def begin(server: AccountServer) -> dict[str, Any]:
    status, needed = await server.call("POST", "/register", BODY)
    assert status == 401
    assert isinstance(needed, dict)
    return needed


async def test_documents_are_shown_to_clients_and_accepted(sqlite_database: Database) -> None:
    registration = Registration(mode="open", terms=(GERMAN, TERMS))
    async with account_server(sqlite_database, config=configured(registration=registration)) as server:
        needed = await begin(server)
        assert needed["flows"] == [{"stages": ["m.login.terms"]}]
        document = {
            "version": "1.2",
            "en": {"name": TERMS.name, "url": TERMS.url},
            "de": {"name": GERMAN.name, "url": GERMAN.url},
        }
        assert needed["params"] == {"m.login.terms": {"policies": {"privacy": document}}}
        auth = {"type": "m.login.terms", "session": needed["session"]}
        status, reply = await server.call("POST", "/register", {**BODY, "auth": auth})
        assert (status, reply["user_id"]) == (200, "@alice:a.org")


async def test_documents_are_accepted_in_a_browser(sqlite_database: Database) -> None:
    registration = Registration(mode="open", terms=(GERMAN, TERMS))
    async with account_server(sqlite_database, config=configured(registration=registration)) as server:
        session = (await begin(server))["session"]
        status, policy, shown = await show(server, "m.login.terms", session)
        assert status == 200
        assert "Privacy &lt;Policy&gt;" in shown
        assert 'href="https://a.org/privacy?a=1&amp;b=2"' in shown
        assert "frame-ancestors 'none'" in policy
        waiting = await server.call("POST", "/register", {**BODY, "auth": {"session": session}})
        assert waiting[0] == 401
        status, done = await press(server, "m.login.terms", session)
        assert status == 200
        assert "window.onAuthDone()" in done
        assert 'postMessage("authDone", "*")' in done
        status, _ = await server.call("POST", "/register", {**BODY, "auth": {"session": session}})
        assert status == 200


async def test_scripts_run_only_where_the_page_put_them(sqlite_database: Database) -> None:
    async with account_server(sqlite_database) as server:
        session = (await begin(server))["session"]
        async with server.client.post(fallback("m.login.dummy"), data={"session": session}) as response:
            policy, done = response.headers["Content-Security-Policy"], await response.text()
        nonces = set(re.findall(r'nonce="([^"]+)"', done))
        assert len(nonces) == 1
        assert f"script-src 'nonce-{nonces.pop()}'" in policy
        assert response.headers["X-Frame-Options"] == "DENY"
        assert response.headers["Cache-Control"] == "no-store"


async def test_a_registration_token_is_entered_in_a_browser(sqlite_database: Database) -> None:
    registration = Registration(mode="token", tokens=("always",), terms=(TERMS,))
    async with account_server(sqlite_database, config=configured(registration=registration)) as server:
        needed = await begin(server)
        session, token, terms = needed["session"], "m.login.registration_token", "m.login.terms"
        assert needed["flows"] == [{"stages": [token, terms]}]
        assert (await show(server, terms, session))[0] == 404
        assert 'name="token"' in (await show(server, token, session))[2]
        status, again = await press(server, token, session, token="never")
        assert (status, "The registration token is not valid" in again) == (401, True)
        assert (await press(server, token, session, token="always"))[0] == 200
        assert (await press(server, terms, session))[0] == 200
        status, _ = await server.call("POST", "/register", {**BODY, "auth": {"session": session}})
        assert status == 200


async def test_a_captcha_is_judged_by_its_service(sqlite_database: Database) -> None:
    async with verification() as service:
        registration = Registration(mode="open", recaptcha=captcha(service.url))
        async with account_server(sqlite_database, config=configured(registration=registration)) as server:
            needed = await begin(server)
            assert needed["params"] == {"m.login.recaptcha": {"public_key": "site<key>"}}
            auth = {"type": "m.login.recaptcha", "session": needed["session"]}
            robot = await server.refused("POST", "/register", {**BODY, "auth": {**auth, "response": "robot"}})
            assert robot == (401, "M_UNAUTHORIZED")
            nothing = await server.refused("POST", "/register", {**BODY, "auth": auth})
            assert nothing == (400, "M_BAD_JSON")
            crash = await server.refused("POST", "/register", {**BODY, "auth": {**auth, "response": "crash"}})
            assert crash == (401, "M_UNAUTHORIZED")
            status, _ = await server.call(
                "POST", "/register", {**BODY, "auth": {**auth, "response": "human"}}
            )
            assert status == 200
    assert service.asked[-1] == {"secret": "secret-key", "response": "human"}
    assert len(service.asked) == 3


async def test_a_captcha_is_solved_in_a_browser(sqlite_database: Database) -> None:
    async with verification() as service:
        registration = Registration(mode="open", recaptcha=captcha(service.url), terms=(TERMS,))
        async with account_server(sqlite_database, config=configured(registration=registration)) as server:
            session = (await begin(server))["session"]
            status, policy, shown = await show(server, "m.login.recaptcha", session)
            assert status == 200
            assert 'src="https://captcha.example/api.js"' in shown
            assert 'data-sitekey="site&lt;key&gt;"' in shown
            assert "frame-src https://captcha.example" in policy
            status, again = await press(
                server, "m.login.recaptcha", session, **{"g-recaptcha-response": "robot"}
            )
            assert (status, "The captcha was not solved" in again) == (401, True)
            await press(server, "m.login.recaptcha", session, **{"g-recaptcha-response": "human"})
            status, waiting = await server.call("POST", "/register", {**BODY, "auth": {"session": session}})
            assert (status, waiting["completed"]) == (401, ["m.login.recaptcha"])


async def test_a_service_that_cannot_be_asked_lets_nobody_in(
    sqlite_database: Database, unused_tcp_port: int
) -> None:
    recaptcha = captcha(f"http://127.0.0.1:{unused_tcp_port}/")
    registration = Registration(mode="open", recaptcha=recaptcha)
    async with account_server(sqlite_database, config=configured(registration=registration)) as server:
        session = (await begin(server))["session"]
        auth = {"type": "m.login.recaptcha", "session": session, "response": "human"}
        assert (await server.refused("POST", "/register", {**BODY, "auth": auth}))[0] == 504
        fields = {"g-recaptcha-response": "human"}
        assert (await press(server, "m.login.recaptcha", session, **fields))[0] == 502
        waiting = await server.call("POST", "/register", {**BODY, "auth": {"session": session}})
        assert "completed" not in waiting[1]


@pytest.mark.parametrize("stage", ["m.login.password", "m.login.dummy", "m.login.sso", "unknown"])
async def test_a_page_is_for_a_session_that_asks_for_it(server: AccountServer, stage: str) -> None:
    session = (await begin(server))["session"]
    wrong = "<script>alert(1)</script>"
    status, _, shown = await show(server, stage, wrong)
    assert (status, wrong in shown) == (404, False)
    async with server.client.get(fallback(stage)) as response:
        assert response.status == 400
    if stage != "m.login.dummy":
        assert (await show(server, stage, session))[0] == 404
        assert (await press(server, stage, session))[0] == 404
    async with server.client.post(fallback(stage), data=b"\xff\xfe=%ff&session") as response:
        assert response.status == 404


async def test_a_page_shows_what_it_was_given_as_text(sqlite_database: Database) -> None:
    registration = Registration(mode="token", tokens=("always",))
    async with account_server(sqlite_database, config=configured(registration=registration)) as server:
        session = (await begin(server))["session"]
        token = '"><script>alert(1)</script>'
        _, again = await press(server, "m.login.registration_token", session, token=token)
        assert "alert(1)" not in again
