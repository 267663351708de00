"""A server with a sender, and a peer that takes what it is sent, or does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from federation.packing import MAX_CAUGHT_UP
from federation.sender import Sender
from homeserver.errors import RemoteError
from homeserver.protocol.canonical_json import encode
from homeserver.rooms.room import Room
from homeserver.storage.database import Database
from homeserver.storage.numbers import Sequence
from tests.remote import Server

PEER = "peer.example"


@dataclass
class Recorded:
    """A server that takes transactions, or does not, and remembers those it was asked to take."""

    transactions: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    refuses: RemoteError | None = None
    #: Those that ``PEER`` acknowledged.
    taken: list[dict[str, Any]] = field(default_factory=list)
    #: What it cannot bear to find in a transaction, which it then refuses as a whole.
    allergy: str | None = None
    #: After how many more transactions it is gone.
    takes: int | None = None
    #: What it does before it answers.
    while_asked: Callable[[], None] | None = None

    async def send_transaction(
        self, server_name: str, transaction_id: str, transaction: Mapping[str, Any] | bytes
    ) -> dict[str, Any]:
        assert isinstance(transaction, bytes)
        content = json.loads(transaction)
        assert encode(content) == transaction, "what is signed is canonical JSON"
        self.transactions.append((server_name, transaction_id, content))
        if self.while_asked is not None:
            self.while_asked()
        if self.refuses is not None:
            raise self.refuses
        if self.allergy is not None and self.allergy in transaction.decode():
            raise away(400, "M_BAD_JSON")
        if self.takes is not None:
            if not self.takes:
                raise away()
            self.takes -= 1
        if server_name == PEER:
            self.taken.append(content)
        return {}

    def bodies(self, server_name: str = PEER) -> list[str]:
        """The text messages a server was sent, in order."""
        return [
            pdu["content"]["body"]
            for name, _, content in self.transactions
            for pdu in content["pdus"]
            if name == server_name and pdu["type"] == "m.room.message"
        ]

    def taken_bodies(self) -> list[str]:
        """The text messages that were acknowledged, in order."""
        return [
            pdu["content"]["body"]
            for content in self.taken
            for pdu in content["pdus"]
            if pdu["type"] == "m.room.message"
        ]

    def edus(self) -> list[tuple[str, Any]]:
        return [
            (edu["edu_type"], edu["content"])
            for _, _, content in self.transactions
            for edu in content["edus"]
        ]


def away(status: int | None = None, errcode: str | None = None, **more: Any) -> RemoteError:
    return RemoteError(
        PEER,
        "no answer",
        reachable=status is not None,
        transient=True,
        status=status,
        errcode=errcode,
        **more,
    )


@dataclass
class Story:
    """A server with a room that a user of ``PEER`` is in, and a sender whose peer is recorded."""

    server: Server
    room_id: str
    alice: str
    peer: Recorded
    sender: Sender
    max_caught_up: int = MAX_CAUGHT_UP

    async def say(self, *bodies: str) -> None:
        for body in bodies:
            await self.server.say(self.room_id, self.alice, body)
        await self.sender.idle()

    async def room(self) -> Room:
        return await self.server.room(self.room_id)

    async def wait(self, seconds: float) -> None:
        self.server.network.clock.advance(seconds)
        self.sender.tick()
        await self.sender.idle()

    async def restart(self, *, crash: bool = False) -> None:
        """The sender ends, or just stops existing, and another one begins."""
        self.server.notifier.listeners.remove(self.sender.new_events)
        if not crash:
            await self.sender.close()
        self.sender = await start_sender(self.server, self.peer, max_caught_up=self.max_caught_up)

    async def end(self) -> None:
        await self.sender.close()


async def start_sender(server: Server, peer: Recorded, *, max_caught_up: int = MAX_CAUGHT_UP) -> Sender:
    sender = Sender(
        db=server.db,
        events=server.events,
        client=peer,
        outbox_positions=await Sequence.open(server.db, "outbox"),
        clock=server.network.clock,
        server_name=server.name,
        allows=lambda name: name != "unwanted.example",
        sticky=server.core.sticky,
        max_caught_up=max_caught_up,
    )
    await sender.start(server.notifier.position)
    server.notifier.listeners.append(sender.new_events)
    return sender


async def written(db: Database) -> None:
    """Everything queued so far is on disk, and those who waited for it know."""

    async def nothing(_: object) -> None:
        return

    await db.write(nothing)
