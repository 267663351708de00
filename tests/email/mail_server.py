"""A real mail server on a free port, which keeps what it is given."""

from __future__ import annotations

import asyncio
import re
import ssl
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "matrix", "let me send"


@dataclass
class MailServer:
    """Whoever is in ``unknown`` is refused; while it is ``busy``, every message."""

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[list[str]] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    busy: bool = False
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address in self.unknown:
            return "550 No such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.busy:
            return "451 Come again later"
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        self.recipients.append(list(envelope.rcpt_tos))
        self._arrived.set()
        return "250 OK"

    async def next_message(self) -> None:
        """Wait until there is another message."""
        self._arrived.clear()
        await self._arrived.wait()

    def to(self, address: str) -> list[EmailMessage]:
        """What was sent to an address."""
        return [message for message, to in zip(self.messages, self.recipients, strict=True) if address in to]


def text_of(message: EmailMessage, kind: str = "plain") -> str:
    """One of the two bodies of a message."""
    part = message.get_body((kind,))
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    return content


def link_in(message: EmailMessage) -> str:
    """The link that a message holds."""
    found = re.search(r"https?://\S+", text_of(message))
    assert found is not None
    return found[0]


def _check_login(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    given = data if isinstance(data, LoginPassword) else LoginPassword(b"", b"")
    known = (given.login, given.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=known, handled=False)


@asynccontextmanager
async def mail_server(
    *, tls: ssl.SSLContext | None = None, starttls: ssl.SSLContext | None = None, login: bool = False
) -> AsyncIterator[MailServer]:
    """A mail server at 127.0.0.1, in TLS from the start, after STARTTLS, or not at all."""
    kept = MailServer()
    loop = asyncio.get_running_loop()

    def conversation() -> SMTP:
        with warnings.catch_warnings():
            # It does not see that all of the conversation may be in TLS.
            warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS")
            return SMTP(
                kept,
                loop=loop,
                hostname="mail.test",
                enable_SMTPUTF8=True,
                tls_context=starttls,
                require_starttls=starttls is not None,
                authenticator=_check_login if login else None,
                auth_required=login,
                auth_require_tls=starttls is not None,
            )

    listening = await loop.create_server(conversation, "127.0.0.1", 0, ssl=tls)
    kept.port = listening.sockets[0].getsockname()[1]
    try:
        yield kept
    finally:
        listening.close()
