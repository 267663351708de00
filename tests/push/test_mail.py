"""Notifications by email: when a mail is sent, what it says, and how it is ended."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from aiohttp.test_utils import RawTestServer, TestClient

from homeserver.errors import MatrixError
from homeserver.ratelimit import RateLimiter
from homeserver.rooms.receipts import READ
from homeserver.storage import third_party_ids
from homeserver.storage.database import Database, Transaction
from homeserver.storage.third_party_ids import ThirdPartyId
from homeserver.web import Dispatcher
from tests.client_api.room_server import believe, nobody
from tests.email.mail_server import MailServer, mail_server, text_of
from tests.push.server import BASE_URL, PushServer, push_server
from tests.world import WorldRoom

MINUTE, HOUR = 60, 3600
ADDRESS = "bob@example.org"
ALICE, BOB = "@alice:here.example", "@bob:here.example"

PUSHER: dict[str, Any] = {
    "kind": "email",
    "app_id": "m.email",
    "pushkey": "Bob@Example.org",
    "app_display_name": "Email",
    "device_display_name": ADDRESS,
    "lang": "en",
    "data": {},
}


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with mail_server() as running:
        yield running


@pytest.fixture
async def server(sqlite_database: Database, mail: MailServer) -> AsyncIterator[PushServer]:
    async with push_server(sqlite_database, mail) as running:
        yield running


async def give_address(server: PushServer, user_id: str, address: str) -> None:
    added = ThirdPartyId("email", address, 0, 0)

    async def add(tx: Transaction) -> None:
        await third_party_ids.add(tx, user_id, added)

    await server.world.db.write(add)


async def room_with_mail(server: PushServer) -> WorldRoom:
    """A room of Alice and Bob, who wants mail."""
    server.world.user("alice", displayname="Alice")
    room = await server.world.public_room(ALICE, name="Plans <b>")
    await room.join(BOB)
    await give_address(server, BOB, ADDRESS)
    await server.pushers.set(BOB, "PHONE", PUSHER)
    await server.settle()
    return room


async def test_one_mail_tells_what_was_unread_for_a_while(server: PushServer, mail: MailServer) -> None:
    room = await room_with_mail(server)
    await room.send(ALICE, "first\r\nX-Evil: 1")
    await server.settle(5 * MINUTE)
    await room.send(ALICE, "<script>second</script>")
    await room.send_event(ALICE, "m.room.encrypted", {"algorithm": "m.megolm.v1.aes-sha2", "body": "secret"})
    await server.settle(4 * MINUTE)
    assert mail.messages == []
    await server.settle(2 * MINUTE)
    (message,) = mail.to(ADDRESS)
    assert message["Subject"] == "[Test] You have 3 unread messages in Plans <b>"
    text, html = text_of(message), text_of(message, "html")
    assert "first" in text
    assert "Alice: <script>second</script>" in text
    assert "Alice sent an encrypted message" in text
    assert "secret" not in text + html
    assert "&lt;script&gt;second" in html
    assert "<script>" not in html
    assert "Plans &lt;b&gt;" in html
    await server.settle(24 * HOUR)
    assert len(mail.messages) == 1


async def test_what_is_read_meanwhile_is_not_mailed(server: PushServer, mail: MailServer) -> None:
    room = await room_with_mail(server)
    sent = await room.send(ALICE, "hello")
    await server.settle(5 * MINUTE)
    await server.receipts.read(BOB, room.room_id, READ, sent.id)
    await server.settle(HOUR)
    assert mail.messages == []


async def test_a_busy_room_makes_mail_less_and_less_often(server: PushServer, mail: MailServer) -> None:
    room = await room_with_mail(server)
    minutes = []
    for minute in range(10 * 60):
        if minute % 5 == 0:
            await room.send(ALICE, str(minute))
        before = len(mail.messages)
        await server.settle(MINUTE)
        minutes += [minute] if len(mail.messages) > before else []
    pauses = [late - early for early, late in itertools.pairwise(minutes)]
    assert minutes[0] in range(8, 12)
    assert pauses == sorted(pauses)
    assert len(minutes) <= 4
    other = await server.world.public_room(ALICE)
    await other.join(BOB)
    await other.send(ALICE, "another room has its own pace")
    before = len(mail.messages)
    await server.settle(11 * MINUTE)
    assert len(mail.messages) == before + 1


async def test_a_mail_server_that_is_away_is_tried_again(server: PushServer, mail: MailServer) -> None:
    room = await room_with_mail(server)
    mail.busy = True
    await room.send(ALICE, "hello")
    await server.settle(11 * MINUTE)
    assert mail.messages == []
    mail.busy = False
    await server.settle(HOUR)
    assert len(mail.messages) == 1


async def test_mail_waits_through_a_restart(database: Database, mail: MailServer) -> None:
    async with push_server(database, mail) as server:
        room = await room_with_mail(server)
        await room.send(ALICE, "hello")
        await server.settle(5 * MINUTE)
    async with push_server(database, mail) as server:
        await server.settle()
        await server.settle(11 * MINUTE)
        assert len(mail.messages) == 1
    async with push_server(database, mail) as server:
        await server.settle(HOUR)
        assert len(mail.messages) == 1


async def test_only_addresses_of_ones_own_are_mailed_to(server: PushServer, mail: MailServer) -> None:
    await give_address(server, ALICE, ADDRESS)
    with pytest.raises(MatrixError) as refused:
        await server.pushers.set(BOB, "PHONE", PUSHER)
    assert refused.value.errcode == "M_INVALID_PARAM"


async def test_mail_ends_with_the_address(server: PushServer, mail: MailServer) -> None:
    room = await room_with_mail(server)
    await server.world.db.write(partial(third_party_ids.remove_all, user_id=BOB))
    await room.send(ALICE, "hello")
    await server.settle(HOUR)
    assert mail.messages == []
    assert await server.pushers.of(BOB) == []


async def test_mail_stays_when_the_device_goes(server: PushServer, mail: MailServer) -> None:
    room = await room_with_mail(server)
    await server.add_device(BOB, "PHONE")
    await server.people.sessions.log_out(BOB, ["PHONE"])
    await room.send(ALICE, "hello")
    await server.settle(HOUR)
    assert len(mail.messages) == 1


async def test_the_link_in_a_mail_ends_it(server: PushServer, mail: MailServer) -> None:
    room = await room_with_mail(server)
    await room.send(ALICE, "hello")
    await server.settle(HOUR)
    (message,) = mail.to(ADDRESS)
    link = message["List-Unsubscribe"].strip("<>").replace(" ", "")
    assert link in text_of(message)
    assert link.startswith(BASE_URL)
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    dispatcher = Dispatcher(
        server.routes(),
        authenticate_user=believe,
        authenticate_server=nobody,
        rate_limiter=RateLimiter({}, server.world.clock, enabled=False),
    )
    path = link.removeprefix(BASE_URL)
    async with TestClient(RawTestServer(dispatcher)) as client:
        async with client.get(path) as reply:
            assert reply.status == 200
            assert ADDRESS in await reply.text()
        assert len(await server.pushers.of(BOB)) == 1
        for wrong in (path[:-2], path.replace("token=", "token=AAAA"), path.partition("?")[0], f"{path}%ff"):
            async with client.post(wrong) as reply:
                assert reply.status in (400, 403)
        assert len(await server.pushers.of(BOB)) == 1
        async with client.post(path, data={"List-Unsubscribe": "One-Click"}) as reply:
            assert reply.status == 200
    assert await server.pushers.of(BOB) == []
    await room.send(ALICE, "no more")
    await server.settle(HOUR)
    assert len(mail.messages) == 1


async def test_of_an_account_that_is_ended_no_address_stays(server: PushServer) -> None:
    await room_with_mail(server)
    await server.people.accounts.deactivate(BOB)
    assert await server.pushers.of(BOB) == []
