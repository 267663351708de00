"""A server that sends email, and what people do with the messages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

from yarl import URL

from homeserver.config.email import Email
from homeserver.storage.database import Database
from tests.client_api.account_server import AccountServer, account_server, configured
from tests.email.mail_server import MailServer, link_in, mail_server

SECRET = "a.client=secret_1"


@dataclass
class MailingServer:
    """The server, and the mail server it hands messages to."""

    server: AccountServer
    mail: MailServer

    async def ask(
        self, operation: str, address: str, attempt: int = 1, secret: str = SECRET, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        """``requestToken``."""
        body = {"client_secret": secret, "email": address, "send_attempt": attempt, **more}
        return await self.server.call("POST", f"/{operation}/email/requestToken", body)

    async def message(self, address: str, number: int = 1) -> Any:
        """The newest message to an address, once there are so many."""
        async with asyncio.timeout(10):
            while len(self.mail.to(address)) < number:
                await self.mail.next_message()
        return self.mail.to(address)[-1]

    async def follow(self, link: str) -> tuple[int, str]:
        """Press the button on the page that a link leads to: status and text of what comes then."""
        parts = urlsplit(link)
        target = URL(f"{parts.path}?{parts.query}", encoded=True)
        async with self.server.client.get(target) as response:
            shown = await response.text()
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', shown))
        form = {name: unescape(value) for name, value in fields.items()}
        async with self.server.client.post(parts.path, data=form) as response:
            return response.status, await response.text()

    async def validated(self, operation: str, address: str, secret: str = SECRET) -> dict[str, str]:
        """``threepid_creds`` of an address whose link was followed."""
        number = len(self.mail.to(address.lower())) + 1
        _, reply = await self.ask(operation, address, secret=secret)
        status, _ = await self.follow(link_in(await self.message(address.lower(), number)))
        assert status == 200
        return {"sid": reply["sid"], "client_secret": secret}


def parts_of(link: str) -> dict[str, str]:
    """The query of a link."""
    return {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}


@asynccontextmanager
async def mailing_server(
    db: Database, *, email: dict[str, Any] | None = None, **sections: Any
) -> AsyncIterator[MailingServer]:
    """A running server with a mail server; ``email`` are more settings of that section."""
    async with mail_server() as mail:
        settings = Email(
            smtp_host="127.0.0.1",
            smtp_port=mail.port,
            smtp_tls="none",
            sender="matrix@a.org",
            **(email or {}),
        )
        async with account_server(db, config=configured(email=settings, **sections)) as server:
            yield MailingServer(server, mail)
