"""A stock client library, matrix-nio, drives our server through a day of ordinary use.

nio checks the shape of every reply with its own schemas, and turns one it does not understand into
an error response; ``expect`` therefore also proves that the replies are what a client expects.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import nio
import pytest

from tests.interop.conftest import PASSWORD
from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

pytestmark = pytest.mark.xdist_group("interop-two-of-ours")

T = TypeVar("T")
NewPerson = Callable[[str], Awaitable[nio.AsyncClient]]


def expect(answer: object, kind: type[T]) -> T:
    """The answer, which must be of that kind."""
    assert isinstance(answer, kind), answer
    return answer


async def sync_until(
    client: nio.AsyncClient, found: Callable[[nio.SyncResponse], bool], patience: float = 15.0
) -> nio.SyncResponse:
    """Sync on until a reply has what is looked for."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        reply = expect(await client.sync(timeout=1000), nio.SyncResponse)
        if found(reply):
            return reply
    raise AssertionError(f"{client.user_id} waited {patience:.0f} s in vain")


def timeline(reply: nio.SyncResponse, room: str) -> list[nio.Event]:
    return reply.rooms.join[room].timeline.events if room in reply.rooms.join else []


def texts(events: list[nio.Event]) -> list[str]:
    return [event.body for event in events if isinstance(event, nio.RoomMessageText)]


async def say(client: nio.AsyncClient, room: str, text: str) -> str:
    answer = await client.room_send(room, "m.room.message", {"msgtype": "m.text", "body": text})
    return expect(answer, nio.RoomSendResponse).event_id


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, running: Callable[..., None]
) -> Server:
    server = inglenook(tmp_path_factory.mktemp("inglenook"), authority)
    running(server)
    return server


@pytest.fixture
async def new_person(server: Server, request: pytest.FixtureRequest) -> AsyncIterator[NewPerson]:
    """Registers people under names of their own in each test."""
    clients: list[nio.AsyncClient] = []

    async def register(name: str) -> nio.AsyncClient:
        client = nio.AsyncClient(server.client_url)
        clients.append(client)
        localpart = f"{name}-{request.node.name.replace('_', '-')}"
        expect(await client.register(localpart, PASSWORD), nio.RegisterResponse)
        return client

    yield register
    for client in clients:
        await client.close()


@pytest.fixture
async def alice(new_person: NewPerson) -> nio.AsyncClient:
    return await new_person("alice")


@pytest.fixture
async def bob(new_person: NewPerson) -> nio.AsyncClient:
    return await new_person("bob")


async def shared_room(alice: nio.AsyncClient, bob: nio.AsyncClient, **options: object) -> str:
    """A room of Alice's that Bob was invited to and has joined."""
    answer = await alice.room_create(invite=[bob.user_id], **options)
    room = expect(answer, nio.RoomCreateResponse).room_id
    expect(await bob.join(room), nio.JoinResponse)
    return room


async def test_a_password_logs_in_and_a_logout_ends_the_device(
    server: Server, alice: nio.AsyncClient
) -> None:
    flows = expect(await alice.login_info(), nio.LoginInfoResponse).flows
    assert "m.login.password" in flows

    phone = nio.AsyncClient(server.client_url, alice.user_id)
    try:
        assert isinstance(await phone.login("wrong"), nio.LoginError)
        session = expect(await phone.login(PASSWORD, device_name="phone"), nio.LoginResponse)
        assert session.user_id == alice.user_id
        whoami = expect(await phone.whoami(), nio.WhoamiResponse)
        assert (whoami.user_id, whoami.device_id) == (alice.user_id, session.device_id)
        devices = expect(await alice.devices(), nio.DevicesResponse).devices
        assert {device.id: device.display_name for device in devices}[session.device_id] == "phone"

        ended = phone.access_token
        expect(await phone.logout(), nio.LogoutResponse)
        phone.access_token = ended
        assert expect(await phone.whoami(), nio.WhoamiError).status_code == "M_UNKNOWN_TOKEN"
    finally:
        await phone.close()
    devices = expect(await alice.devices(), nio.DevicesResponse).devices
    assert [device.id for device in devices] == [alice.device_id]


async def test_two_people_talk_in_a_room(alice: nio.AsyncClient, bob: nio.AsyncClient) -> None:
    room = await shared_room(alice, bob, name="The inglenook", topic="Firewood")
    first = await sync_until(bob, lambda reply: room in reply.rooms.join)
    assert bob.rooms[room].name == "The inglenook"
    assert bob.rooms[room].topic == "Firewood"
    assert set(bob.rooms[room].users) == {alice.user_id, bob.user_id}

    said = await say(alice, room, "Good evening")
    heard = await sync_until(bob, lambda reply: "Good evening" in texts(timeline(reply, room)))
    assert [event.event_id for event in timeline(heard, room)] == [said]
    assert heard.next_batch != first.next_batch
    await say(bob, room, "And to you")
    await sync_until(alice, lambda reply: "And to you" in texts(timeline(reply, room)))

    members = expect(await alice.joined_members(room), nio.JoinedMembersResponse).members
    assert {member.user_id for member in members} == {alice.user_id, bob.user_id}
    assert expect(await bob.joined_rooms(), nio.JoinedRoomsResponse).rooms == [room]


async def test_the_same_transaction_id_sends_once(alice: nio.AsyncClient, bob: nio.AsyncClient) -> None:
    room = await shared_room(alice, bob)
    content = {"msgtype": "m.text", "body": "Only once"}
    first = expect(await alice.room_send(room, "m.room.message", content, tx_id="once"), nio.RoomSendResponse)
    again = expect(await alice.room_send(room, "m.room.message", content, tx_id="once"), nio.RoomSendResponse)
    assert first.event_id == again.event_id
    history = expect(await bob.room_messages(room, limit=50), nio.RoomMessagesResponse)
    assert texts(history.chunk) == ["Only once"]


async def test_invitations_are_accepted_rejected_and_withdrawn(
    alice: nio.AsyncClient, bob: nio.AsyncClient
) -> None:
    rooms = [
        expect(await alice.room_create(name=f"Room {n}"), nio.RoomCreateResponse).room_id for n in (1, 2)
    ]
    for room in rooms:
        expect(await alice.room_invite(room, bob.user_id), nio.RoomInviteResponse)
    while set(bob.invited_rooms) != set(rooms):
        await sync_until(bob, lambda reply: bool(reply.rooms.invite))
    assert bob.invited_rooms[rooms[0]].name == "Room 1"
    assert bob.invited_rooms[rooms[0]].inviter == alice.user_id

    expect(await bob.join(rooms[0]), nio.JoinResponse)
    expect(await bob.room_leave(rooms[1]), nio.RoomLeaveResponse)
    await sync_until(bob, lambda reply: rooms[1] in reply.rooms.leave)
    assert rooms[0] in bob.rooms
    assert expect(await bob.join(rooms[1]), nio.JoinError).status_code == "M_FORBIDDEN"

    expect(await alice.room_kick(rooms[0], bob.user_id, "bedtime"), nio.RoomKickResponse)
    await sync_until(bob, lambda reply: rooms[0] in reply.rooms.leave)
    expect(await bob.room_forget(rooms[0]), nio.RoomForgetResponse)
    assert expect(await bob.joined_rooms(), nio.JoinedRoomsResponse).rooms == []


async def test_history_is_paged_in_both_directions(alice: nio.AsyncClient, bob: nio.AsyncClient) -> None:
    room = await shared_room(alice, bob)
    said = [f"Line {number}" for number in range(25)]
    ids = [await say(alice, room, text) for text in said]

    backwards: list[str] = []
    pages, start = 0, None
    while True:
        page = expect(await bob.room_messages(room, start=start, limit=10), nio.RoomMessagesResponse)
        backwards += texts(page.chunk)
        pages, start = pages + 1, page.end
        if not start or not page.chunk:
            break
    assert backwards == said[::-1]
    assert pages >= 3

    middle = expect(await bob.room_context(room, ids[12], limit=4), nio.RoomContextResponse)
    assert middle.event.event_id == ids[12]
    assert texts(middle.events_before) == ["Line 11", "Line 10"]
    assert texts(middle.events_after) == ["Line 13", "Line 14"]
    onward = expect(
        await bob.room_messages(room, start=middle.end, direction=nio.MessageDirection.front, limit=3),
        nio.RoomMessagesResponse,
    )
    assert texts(onward.chunk) == ["Line 15", "Line 16", "Line 17"]


async def test_typing_and_receipts_are_seen(alice: nio.AsyncClient, bob: nio.AsyncClient) -> None:
    room = await shared_room(alice, bob)
    said = await say(alice, room, "Read me")
    await sync_until(alice, lambda reply: said in [event.event_id for event in timeline(reply, room)])

    expect(await bob.room_typing(room, True), nio.RoomTypingResponse)
    await sync_until(alice, lambda _: bob.user_id in alice.rooms[room].typing_users)
    expect(await bob.room_typing(room, False), nio.RoomTypingResponse)
    await sync_until(alice, lambda _: bob.user_id not in alice.rooms[room].typing_users)

    expect(await bob.update_receipt_marker(room, said), nio.UpdateReceiptMarkerResponse)
    receipts = alice.rooms[room].threaded_read_receipts
    await sync_until(alice, lambda _: bob.user_id in receipts)
    assert receipts[bob.user_id]["main"].event_id == said
    expect(await bob.room_read_markers(room, said, said), nio.RoomReadMarkersResponse)
    await sync_until(bob, lambda _: room in bob.rooms and bob.rooms[room].fully_read_marker == said)


async def test_unread_messages_are_counted(alice: nio.AsyncClient, bob: nio.AsyncClient) -> None:
    room = await shared_room(alice, bob)
    expect(await bob.set_displayname("Robert"), nio.ProfileSetDisplayNameResponse)
    await sync_until(bob, lambda reply: room in reply.rooms.join)
    await say(alice, room, "One")
    said = await say(alice, room, "Two")
    await sync_until(bob, lambda _: bob.rooms[room].unread_notifications == 2)
    expect(await bob.update_receipt_marker(room, said), nio.UpdateReceiptMarkerResponse)
    await sync_until(bob, lambda _: bob.rooms[room].unread_notifications == 0)


async def test_state_is_set_and_read(alice: nio.AsyncClient, bob: nio.AsyncClient) -> None:
    room = await shared_room(alice, bob)
    expect(await alice.room_put_state(room, "m.room.topic", {"topic": "Peat"}), nio.RoomPutStateResponse)
    expect(
        await alice.room_put_state(room, "org.example.log", {"kind": "birch"}, state_key="a/b c"),
        nio.RoomPutStateResponse,
    )
    topic = expect(await bob.room_get_state_event(room, "m.room.topic"), nio.RoomGetStateEventResponse)
    assert topic.content == {"topic": "Peat"}
    events = expect(await bob.room_get_state(room), nio.RoomGetStateResponse).events
    assert ("org.example.log", "a/b c") in [(event["type"], event["state_key"]) for event in events]
    refused = expect(await bob.room_put_state(room, "m.room.topic", {"topic": "Coal"}), nio.RoomPutStateError)
    assert refused.status_code == "M_FORBIDDEN"


async def test_a_redaction_empties_the_event(alice: nio.AsyncClient, bob: nio.AsyncClient) -> None:
    room = await shared_room(alice, bob)
    said = await say(alice, room, "A slip of the tongue")
    await sync_until(bob, lambda reply: "A slip of the tongue" in texts(timeline(reply, room)))

    expect(await alice.room_redact(room, said, reason="slip"), nio.RoomRedactResponse)

    def redactions(reply: nio.SyncResponse) -> list[str]:
        return [event.redacts for event in timeline(reply, room) if isinstance(event, nio.RedactionEvent)]

    await sync_until(bob, lambda reply: redactions(reply) == [said])
    event = expect(await bob.room_get_event(room, said), nio.RoomGetEventResponse).event
    assert isinstance(event, nio.RedactedEvent)
    assert (event.redacter, event.reason) == (alice.user_id, "slip")


async def test_a_profile_is_set_and_told_to_the_rooms(alice: nio.AsyncClient, bob: nio.AsyncClient) -> None:
    room = await shared_room(alice, bob)
    await sync_until(alice, lambda _: room in alice.rooms)

    expect(await bob.set_displayname("Bob by the fire"), nio.ProfileSetDisplayNameResponse)
    expect(await bob.set_avatar("mxc://example.org/fire"), nio.ProfileSetAvatarResponse)

    profile = expect(await alice.get_profile(bob.user_id), nio.ProfileGetResponse)
    assert (profile.displayname, profile.avatar_url) == ("Bob by the fire", "mxc://example.org/fire")
    await sync_until(alice, lambda _: alice.rooms[room].avatar_url(bob.user_id) == "mxc://example.org/fire")
    assert alice.rooms[room].user_name(bob.user_id) == "Bob by the fire"


async def test_a_room_has_an_alias(alice: nio.AsyncClient, bob: nio.AsyncClient, server: Server) -> None:
    created = await alice.room_create(alias="nio-hearth", preset=nio.RoomPreset.public_chat)
    room = expect(created, nio.RoomCreateResponse).room_id
    alias = f"#nio-hearth:{server.server_name}"
    found = expect(await bob.room_resolve_alias(alias), nio.RoomResolveAliasResponse)
    assert found.room_id == room
    assert expect(await bob.join(alias), nio.JoinResponse).room_id == room
    expect(await alice.room_delete_alias(alias), nio.RoomDeleteAliasResponse)
    assert isinstance(await bob.room_resolve_alias(alias), nio.RoomResolveAliasError)


async def test_a_sync_from_the_start_and_one_from_a_token_tell_the_same(
    alice: nio.AsyncClient, bob: nio.AsyncClient, server: Server
) -> None:
    room = await shared_room(alice, bob, name="Twice told")
    await sync_until(bob, lambda reply: room in reply.rooms.join)
    for number in range(5):
        await say(alice, room, f"Tale {number}")
    followed: list[str] = []
    while len(followed) < 5:
        reply = await sync_until(bob, lambda reply: bool(texts(timeline(reply, room))))
        followed += texts(timeline(reply, room))

    tablet = nio.AsyncClient(server.client_url, bob.user_id)
    try:
        expect(await tablet.login(PASSWORD), nio.LoginResponse)
        anew = expect(await tablet.sync(timeout=0, full_state=True), nio.SyncResponse)
        assert texts(timeline(anew, room)) == followed == [f"Tale {number}" for number in range(5)]
        assert tablet.rooms[room].name == bob.rooms[room].name == "Twice told"
    finally:
        await tablet.close()
