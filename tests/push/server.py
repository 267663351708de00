"""A server that pushes: people with pushers, a clock that stands still, a real way out over HTTP."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from homeserver.config.egress import Egress
from homeserver.config.email import Email
from homeserver.config.push import Push
from homeserver.egress import open_egress
from homeserver.email.mailer import Mailer
from homeserver.push.push_reader import PushReader
from homeserver.pushing import wire_push_mail, wire_push_reader
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.users.third_party_ids import ThirdPartyIds
from tests.email.mail_server import MailServer
from tests.push.gateway import Gateway
from tests.sync.server import SyncServer
from tests.world import WorldRoom

LOCAL = Egress(allowed_addresses=(ipaddress.ip_network("127.0.0.0/8"),))


class PushServer(SyncServer):
    """The server, with what pushes."""

    reader: PushReader

    async def pusher(
        self, user_id: str, gateway: Gateway, *, device: str = "PHONE", pushkey: str = "key", **data: str
    ) -> None:
        """Have a user's notifications pushed to a gateway."""
        await self.pushers.set(user_id, device, http_pusher(gateway.url, pushkey, **data))
        await self.reader.idle()

    async def settle(self, seconds: float = 0) -> None:
        """Let time pass, and everything be pushed that is due."""
        self.world.clock.advance(seconds)
        await self.reader.idle()
        self.reader.tick()
        await self.reader.idle()


def http_pusher(url: str, pushkey: str = "key", **data: str) -> dict[str, Any]:
    """A request that sets a pusher."""
    return {
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": pushkey,
        "app_display_name": "App",
        "device_display_name": "Phone",
        "lang": "en",
        "data": {"url": url, **data},
    }


BASE_URL = "https://matrix.here.example"


@asynccontextmanager
async def push_server(
    db: Database, mail: MailServer | None = None, *, network: Egress = LOCAL
) -> AsyncIterator[PushServer]:
    """A server that pushes; over the same database it is the server after a restart."""
    async with AsyncExitStack() as opened:
        server = await PushServer.open(db)
        assert isinstance(server, PushServer)
        ways = open_egress(network, opened)
        core, push_mail = server.world.core, None
        if mail is not None:
            settings = Email(
                smtp_host="127.0.0.1", smtp_port=mail.port, smtp_tls="none", sender="matrix@here.example"
            )
            push_mail = wire_push_mail(
                core,
                server.pushers,
                Mailer(settings, core.clock, core.server_name),
                ThirdPartyIds(core.db, core.clock),
                Push(by_email=True),
                app_name="Test",
                base_url=BASE_URL,
            )
            assert push_mail is not None
            server.unsubscribing = push_mail.unsubscribing
        server.reader = wire_push_reader(
            core, server.pushers, server.reading, server.ephemeral, ways.strangers, mail=push_mail
        )
        await server.reader.start()
        opened.push_async_callback(server.reader.close)
        yield server


async def mention(room: WorldRoom, sender: str, user_id: str) -> StoredEvent:
    """A message that names somebody."""
    content = {"msgtype": "m.text", "body": "you!", "m.mentions": {"user_ids": [user_id]}}
    return await room.send_event(sender, "m.room.message", content)
