"""Sending email, to a real mail server."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from homeserver.clock import FakeClock
from homeserver.config.email import Email as Settings
from homeserver.email.failure import EmailNotSent
from homeserver.email.mailer import Mailer
from tests.email.mail_server import PASSWORD, USER, MailServer, mail_server, text_of

LINK = "https://a.org/confirm?x=1&y=2"


def mailer(server: MailServer, **settings: Any) -> Mailer:
    given: dict[str, Any] = {"smtp_tls": "none", "sender": "matrix@a.org", "app_name": "Café", **settings}
    return Mailer(Settings(smtp_host="127.0.0.1", smtp_port=server.port, **given), FakeClock(), "a.org")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


async def test_a_message_has_text_and_html_and_says_whom_it_is_from() -> None:
    async with mail_server() as server:
        await mailer(server).send("Bob@B.org", "registration", "Confirm your address", {"link": LINK})
    (message,) = server.to("bob@b.org")
    assert (message["To"], message["Subject"]) == ("bob@b.org", "Confirm your address")
    assert (message["From"], message["Auto-Submitted"]) == ("Café <matrix@a.org>", "auto-generated")
    assert message["Date"]
    assert message["Message-ID"].endswith("@a.org>")
    assert LINK in text_of(message)
    assert "https://a.org/confirm?x=1&amp;y=2" in text_of(message, "html")


async def test_what_others_wrote_is_text_in_the_html() -> None:
    async with mail_server() as server:
        values = {"user_id": "@<script>:a.org"}
        await mailer(server).send("bob@b.org", "already_registered", "x", values)
    assert "&lt;script&gt;" in text_of(server.messages[0], "html")
    assert "@<script>:a.org" in text_of(server.messages[0])


@pytest.mark.parametrize(
    "subject",
    ["Hi\r\nBcc: eve@e.org", "Hi\nBcc: eve@e.org\n\nbody", "Hi\x00\x85\u2028Bcc: eve@e.org", "ü" * 999],
)
async def test_a_subject_cannot_begin_another_header(subject: str) -> None:
    async with mail_server() as server:
        await mailer(server).send("bob@b.org", "registration", subject, {"link": LINK})
    (message,) = server.messages
    assert (message["Bcc"], server.recipients) == (None, [["bob@b.org"]])
    assert len(message["Subject"]) <= 200


async def test_what_is_not_an_address_is_not_sent_to() -> None:
    async with mail_server() as server:
        for to in ("bob@b.org\r\nBcc: eve@e.org", "bob@b.org, eve@e.org", "bob"):
            with pytest.raises(ValueError, match="not an email address"):
                await mailer(server).send(to, "registration", "x", {"link": LINK})
    assert server.messages == []


async def test_an_address_beyond_ascii_is_written_to() -> None:
    async with mail_server() as server:
        await mailer(server).send("Jörg@b.org", "registration", "x", {"link": LINK})
    assert server.recipients == [["jörg@b.org"]]


@pytest.mark.parametrize("mode", ["tls", "starttls"])
async def test_the_conversation_is_encrypted_and_begins_with_a_login(
    mode: str, tls: ssl.SSLContext, ca_file: Path
) -> None:
    contexts = {"tls": tls} if mode == "tls" else {"starttls": tls}
    async with mail_server(**contexts, login=True) as server:
        settings = {"smtp_tls": mode, "smtp_ca_file": ca_file, "smtp_user": USER, "smtp_password": PASSWORD}
        await mailer(server, **settings).send("bob@b.org", "registration", "x", {"link": LINK})
        assert len(server.messages) == 1
        wrong_password = mailer(server, **{**settings, "smtp_password": "wrong"})
        with pytest.raises(EmailNotSent) as wrong:
            await wrong_password.send("bob@b.org", "registration", "x", {"link": LINK})
        assert wrong.value.permanent
        stranger = mailer(server, **{**settings, "smtp_ca_file": None})
        with pytest.raises(EmailNotSent) as unproved:
            await stranger.send("bob@b.org", "registration", "x", {"link": LINK})
        assert "certificate" in unproved.value.reason.lower()


async def test_encryption_that_is_asked_for_is_insisted_on() -> None:
    async with mail_server() as server:
        with pytest.raises(EmailNotSent):
            await mailer(server, smtp_tls="starttls").send("bob@b.org", "registration", "x", {"link": LINK})
    assert server.messages == []


async def test_whether_it_helps_to_try_again(unused_tcp_port: int) -> None:
    async with mail_server() as server:
        server.unknown.add("nobody@b.org")
        with pytest.raises(EmailNotSent) as refused:
            await mailer(server).send("nobody@b.org", "registration", "x", {"link": LINK})
        server.busy = True
        with pytest.raises(EmailNotSent) as busy:
            await mailer(server).send("bob@b.org", "registration", "x", {"link": LINK})
    nowhere = MailServer(port=unused_tcp_port)
    with pytest.raises(EmailNotSent) as absent:
        await mailer(nowhere).send("bob@b.org", "registration", "x", {"link": LINK})
    assert [error.value.permanent for error in (refused, busy, absent)] == [True, False, False]


async def test_the_administrators_templates_come_first(tmp_path: Path) -> None:
    (tmp_path / "registration.txt").write_text("Welcome to {{ app_name }} at {{ server_name }}: {{ link }}")
    async with mail_server() as server:
        sending = mailer(server, template_folder=tmp_path)
        await sending.send("bob@b.org", "registration", "x", {"link": LINK})
    assert text_of(server.messages[0]).strip() == f"Welcome to Café at a.org: {LINK}"
    assert "Confirm this address" in text_of(server.messages[0], "html")
