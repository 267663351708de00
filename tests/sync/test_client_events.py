"""What ``unsigned`` tells, and how events look."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.rooms.send import AlsoFor, Draft
from homeserver.rooms.transactions import Transactions
from homeserver.storage import transaction_ids
from homeserver.storage.database import Transaction
from homeserver.storage.events import StoredEvent
from tests.sync.server import SyncServer
from tests.world import WorldRoom


async def last_event(server: SyncServer, room: WorldRoom, reader: str, **fields: Any) -> dict[str, Any]:
    client = server.client(reader, device=fields.pop("device", "PHONE"))
    section = (await client.sync(**fields))["rooms"]["join"][room.room_id]
    event: dict[str, Any] = section["timeline"]["events"][-1]
    return event


async def test_a_message(server: SyncServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    sent = await room.send(alice, "hi")
    server.world.clock.advance(2)
    assert await last_event(server, room, "alice") == {
        "type": "m.room.message",
        "event_id": sent.id,
        "sender": alice,
        "origin_server_ts": sent.event.origin_server_ts,
        "content": {"msgtype": "m.text", "body": "hi"},
        "unsigned": {"age": 2000, "membership": "join"},
    }


async def test_the_sending_device_alone_sees_its_transaction_id(server: SyncServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    sent = await room.send(alice, "hi")

    async def note(tx: Transaction) -> None:
        await transaction_ids.add(tx, alice, "PHONE", "send", "txn1", event_id=sent.id, now=0)

    await server.world.db.write(note)
    assert (await last_event(server, room, "alice"))["unsigned"]["transaction_id"] == "txn1"
    assert "transaction_id" not in (await last_event(server, room, "alice", device="TABLET"))["unsigned"]


async def test_the_sending_device_is_told_its_transaction_id_as_news(server: SyncServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    transactions = Transactions(server.world.db, server.world.clock, server.world.core.transactions)
    devices = {name: server.client("alice", device=name) for name in ("PHONE", "TABLET")}
    for device in devices.values():
        await device.sync()

    async def send(also: AlsoFor) -> StoredEvent:
        draft = Draft(alice, "m.room.message", {"msgtype": "m.text", "body": "hi"})
        return await server.world.send.send(room.room_id, draft, also)

    await transactions.once(alice, "PHONE", "send", "txn1", send)
    told = {}
    for name, device in devices.items():
        (event,) = (await device.sync())["rooms"]["join"][room.room_id]["timeline"]["events"]
        told[name] = event["unsigned"].get("transaction_id")
    assert told == {"PHONE": "txn1", "TABLET": None}


async def test_a_state_event_tells_what_it_replaces(server: SyncServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    old = await room.set_state(alice, "m.room.topic", {"topic": "old"})
    await room.set_state(alice, "m.room.topic", {"topic": "new"})
    unsigned = (await last_event(server, room, "alice"))["unsigned"]
    assert unsigned["prev_content"] == {"topic": "old"}
    assert unsigned["replaces_state"] == old.id


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_a_redacted_event_tells_why(server: SyncServer, version: str) -> None:
    alice = server.client("alice")
    room = await server.world.public_room(alice.user_id, version=version)
    sent = await room.send(alice.user_id, "oops")
    await alice.sync()
    redaction = await room.redact(alice.user_id, sent.id)
    (told,) = (await alice.sync())["rooms"]["join"][room.room_id]["timeline"]["events"]
    assert told["redacts"] == told["content"]["redacts"] == sent.id
    alice.token = None
    events = (await alice.sync())["rooms"]["join"][room.room_id]["timeline"]["events"]
    emptied = next(event for event in events if event["event_id"] == sent.id)
    assert emptied["content"] == {}
    assert emptied["unsigned"]["redacted_because"]["event_id"] == redaction.id


async def test_fields_and_format_are_the_clients_choice(server: SyncServer) -> None:
    alice = server.world.user("alice")
    room = await server.world.public_room(alice)
    await server.world.send.send(
        room.room_id, Draft(alice, "m.room.message", {"msgtype": "m.text", "body": "hi", "more": 1})
    )
    event = await last_event(server, room, "alice", filter={"event_fields": ["type", "content.body"]})
    assert event == {"type": "m.room.message", "content": {"body": "hi"}}
    event = await last_event(server, room, "alice", filter={"event_format": "federation"})
    assert {"prev_events", "auth_events", "hashes", "signatures", "depth"} <= event.keys()
