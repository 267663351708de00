"""Invitations across servers."""

from __future__ import annotations

import json

import pytest

from homeserver.errors import RemoteError
from homeserver.rooms.invite_permission import InvitePermissions
from homeserver.storage import account_data
from tests.remote import Network, Server


@pytest.mark.parametrize("version", ["1", "6", "11", "12"])
async def test_an_invited_user_is_shown_the_room_and_may_join_it(
    here: Server, there: Server, network: Network, version: str
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.private_room(alice, version=version, name="Cellar")

    with there.notifier.waiter(bob, []) as waiter:
        await here.membership.invite(alice, room_id, bob)
        assert await waiter.wait(0)

    local = await there.local_membership(room_id, bob)
    assert local is not None
    assert (local.membership, local.sender) == ("invite", alice)
    shown = {event["type"]: event["content"] for event in json.loads(local.stripped_state or b"")}
    assert shown["m.room.name"] == {"name": "Cellar"}
    assert shown["m.room.member"]["membership"] == "invite"
    assert "m.room.create" in shown
    member = await here.states.member(await here.room(room_id), bob)
    assert member is not None
    assert set(member.event.pdu["signatures"]) == {here.name, there.name}

    await there.join(bob, room_id, here)
    await network.settle()
    assert await here.membership_of(room_id, bob) == "join"
    assert await here.state_ids(room_id) == await there.state_ids(room_id)


async def test_an_invite_can_be_declined(here: Server, there: Server, network: Network) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.private_room(alice)
    await here.membership.invite(alice, room_id, bob)

    await there.membership.leave(bob, room_id)
    await network.settle()

    assert await here.membership_of(room_id, bob) == "leave"
    local = await there.local_membership(room_id, bob)
    assert local is not None
    assert local.membership == "leave"


async def test_an_invite_can_be_taken_back(here: Server, there: Server, network: Network) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.private_room(alice)
    await here.membership.invite(alice, room_id, bob)

    await here.set_state(room_id, alice, "m.room.member", {"membership": "leave"}, bob)
    await network.settle()

    local = await there.local_membership(room_id, bob)
    assert local is not None
    assert local.membership == "leave"


async def test_an_invite_to_a_room_that_is_known_comes_in_the_usual_way(
    here: Server, there: Server, network: Network
) -> None:
    alice, bob, carol = here.user("alice"), there.user("bob"), there.user("carol")
    room_id = await here.public_room(alice)
    await there.join(bob, room_id, here)

    await here.membership.invite(alice, room_id, carol)
    await network.settle()

    assert await there.membership_of(room_id, carol) == "invite"
    local = await there.local_membership(room_id, carol)
    assert local is not None
    assert (local.membership, local.stripped_state) == ("invite", None)


async def test_nobody_is_invited_who_does_not_exist(here: Server, there: Server) -> None:
    alice = here.user("alice")
    room_id = await here.private_room(alice)

    with pytest.raises(RemoteError) as refused:
        await here.membership.invite(alice, room_id, f"@nobody:{there.name}")

    assert refused.value.errcode == "M_FORBIDDEN"


@pytest.mark.parametrize("version", ["1", "12"])
async def test_whoever_wants_no_invites_gets_none_from_other_servers(
    here: Server, there: Server, version: str
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.private_room(alice, version=version)
    await there.db.write(
        lambda tx: account_data.set_content(
            tx,
            bob,
            account_data.GLOBAL,
            "m.invite_permission_config",
            content_json='{"default_action": "block"}',
            pos=1,
        )
    )

    with pytest.raises(RemoteError) as refused:
        await here.membership.invite(alice, room_id, bob)

    assert (refused.value.status, refused.value.errcode) == (403, "M_INVITE_BLOCKED")
    assert await there.local_membership(room_id, bob) is None
    assert await here.membership_of(room_id, bob) is None


async def test_only_invites_are_signed(here: Server, there: Server) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.private_room(alice)
    message = (await here.say(room_id, alice, "sign this")).event

    with pytest.raises(RemoteError) as refused:
        await here.client.invite(
            there.name, room_id, message.event_id, room_version="12", pdu=message.pdu, invite_room_state=[]
        )
    assert (refused.value.status, refused.value.errcode) == (400, "M_INVALID_PARAM")
    assert await there.local_membership(room_id, bob) is None


async def test_a_room_version_from_the_future_is_refused(here: Server, there: Server) -> None:
    with pytest.raises(RemoteError) as refused:
        await here.client.invite(
            there.name, "!room:here.example", "$event", room_version="99", pdu={}, invite_room_state=[]
        )
    assert (refused.value.status, refused.value.errcode) == (400, "M_INCOMPATIBLE_ROOM_VERSION")


async def test_an_invite_that_is_filtered_out_is_refused_or_taken_in_silence(
    here: Server, there: Server
) -> None:
    alice, mallory, bob = here.user("alice"), here.user("mallory"), there.user("bob")
    filters = {"allowed_users": [alice], "ignored_users": [mallory], "blocked_servers": [here.name]}
    await there.db.write(
        lambda tx: account_data.set_content(
            tx,
            bob,
            account_data.GLOBAL,
            "org.matrix.msc4155.invite_permission_config",
            content_json=json.dumps(filters),
            pos=1,
        )
    )
    permissions = InvitePermissions(there.db)

    for sender, shown in ((alice, True), (mallory, False)):
        room_id = await here.private_room(sender)
        await here.membership.invite(sender, room_id, bob)
        assert await here.membership_of(room_id, bob) == "invite"
        assert await permissions.shows(bob, sender) == shown

    eve = here.user("eve")
    with pytest.raises(RemoteError) as refused:
        await here.membership.invite(eve, await here.private_room(eve), bob)
    assert (refused.value.status, refused.value.errcode) == (403, "M_INVITE_BLOCKED")
