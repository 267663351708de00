"""Another server with a room of its own, within the generator: it signs its transactions ahead of time.

It serves its keys and lets others join, and does nothing else while it is measured how fast what it
made is taken in.
"""

from __future__ import annotations

import itertools
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web

from bench.generator.connection import Connection, Unexpected
from bench.generator.site import Site
from federation.signatures import authorization_header
from homeserver.protocol.canonical_json import encode
from homeserver.protocol.events import Event
from homeserver.protocol.ids import server_name_of
from homeserver.rooms.compose import seal
from tests.processes import LOOPBACK, Authority, free_port
from tests.resident import BigRoom, Host

#: As many as the specification allows in a transaction.
PDUS_EACH = 50


@dataclass(frozen=True)
class Transaction:
    """A request that is signed and ready to be sent."""

    path: str
    authorization: str
    body: bytes
    events: Sequence[Event]


class Peer:
    """The server by its one name."""

    def __init__(self, site: Site, name: str, host: Host, connection: Connection) -> None:
        self.name = name
        self._site = site
        self._host = host
        self._connection = connection
        self._numbers = itertools.count()

    def room(self, members: int) -> BigRoom:
        """A new public room of the peer's."""
        return self._host.make(members)

    def senders(self, room: BigRoom, count: int) -> list[str]:
        """So many of the peer's members of a room, its creator first."""
        members = (key for type_, key in room.state if type_ == "m.room.member")
        return list(itertools.islice((each for each in members if server_name_of(each) == self.name), count))

    def sealed(self, room: BigRoom, draft: Mapping[str, Any]) -> Event:
        """A draft as an event, which is not in the peer's room yet."""
        return seal(dict(draft), room.rules, self.name, self._host.keys[self.name])

    def message(self, room: BigRoom) -> Event:
        """A new message of the room's creator, after all that is in the peer's room."""
        (sender,) = self.senders(room, 1)
        content = {"msgtype": "m.text", "body": f"Message {next(self._numbers)} of the peer's"}
        event = self.sealed(room, room.draft(sender, "m.room.message", content, None))
        room.add(event)
        return event

    def transactions(self, room: BigRoom, count: int) -> list[Transaction]:
        """So many transactions full of new messages of the room's creator, each after the last."""
        return [self.transaction([self.message(room) for _ in range(PDUS_EACH)]) for _ in range(count)]

    def transaction(self, events: Sequence[Event]) -> Transaction:
        """Events in a request that is signed."""
        path = f"/_matrix/federation/v1/send/t{next(self._numbers)}"
        now = int(time.time() * 1000)
        pdus = [orjson.loads(event.json) for event in events]
        body = encode({"origin": self.name, "origin_server_ts": now, "pdus": pdus, "edus": []})
        authorization = authorization_header(
            method="PUT",
            uri=path,
            origin=self.name,
            destination=self._site.server_name,
            body=body,
            key=self._host.keys[self.name],
        )
        return Transaction(path, authorization, body, events)

    async def deliver(self, transaction: Transaction) -> None:
        """Send it.  Raises ``Unexpected`` where one of its events was refused."""
        answer = await self._connection.request(
            "PUT", transaction.path, authorization=transaction.authorization, body=transaction.body
        )
        answers: dict[str, Any] = orjson.loads(answer)["pdus"]
        if answers != {event.event_id: {} for event in transaction.events}:
            raise Unexpected(f"a transaction was answered with {answer[:300]!r}")


@asynccontextmanager
async def running_peer(site: Site) -> AsyncIterator[Peer]:
    """A peer that answers until the block ends."""
    # The one the servers trust, made beside them.
    authority = Authority(site.authority)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.certificate, authority.private_key)
    name = f"localhost:{free_port()}"
    host = Host([name])
    runner = web.ServerRunner(web.Server(host.answer, access_log=None))
    await runner.setup()
    trusting = ssl.create_default_context(cafile=str(authority.ca_file))
    connection = Connection(site.federation_url, tls=trusting)
    try:
        await web.TCPSite(runner, LOOPBACK, int(name.rpartition(":")[2]), ssl_context=tls).start()
        yield Peer(site, name, host, connection)
    finally:
        connection.close()
        await runner.cleanup()
