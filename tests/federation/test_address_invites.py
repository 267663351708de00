"""Inviting by address, from the invite to the join, with a real identity server between the homeservers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from homeserver.config.egress import Egress
from homeserver.egress import open_egress
from homeserver.protocol.canonical_json import encode
from homeserver.rooms.address_invites import AddressInvites, InvitedAddress
from homeserver.users.identity_servers import IdentityServers
from tests.client_api.account_server import signature
from tests.identity_server import TOKEN, IdentityServer, ca_file, identity_server
from tests.remote import Network, Server

ADDRESS = "bob@example.org"


@dataclass
class Story:
    """Alice, here, invites an address that the identity server does not know yet."""

    here: Server
    identity: IdentityServer
    asking: IdentityServers

    async def invite(self, sender: str, room_id: str) -> None:
        here = self.here
        invites = AddressInvites(
            rooms=here.rooms,
            send=here.send,
            membership=here.membership,
            profiles=here.profiles,
            servers=self.asking,
        )
        await invites.invite(sender, room_id, InvitedAddress("email", ADDRESS, self.identity.name, TOKEN), {})

    async def bind(self, user_id: str) -> None:
        """Somebody shows the identity server that the address is theirs."""
        creds = self.identity.validate(ADDRESS)
        await self.asking.bind(self.identity.name, TOKEN, **creds, user_id=user_id)


@pytest.fixture
async def story(here: Server, network: Network, tmp_path: Path) -> AsyncIterator[Story]:
    async def notify(server_name: str, body: dict[str, Any]) -> None:
        server = network.servers[server_name]
        await server.answer("PUT", "/_matrix/federation/v1/3pid/onbind", {}, encode(body))
        await server.idle()

    authority = trustme.CA()
    async with identity_server(authority, notify) as identity, AsyncExitStack() as closing:
        ways = open_egress(Egress(ca_file=ca_file(authority, tmp_path)), closing)
        asking = IdentityServers(ways.own, [identity.name], partial(signature, here.core))
        here.valid_keys[identity.validity_url] = True
        yield Story(here, identity, asking)


async def test_who_turns_out_to_be_of_this_server_is_invited_and_joins(story: Story, here: Server) -> None:
    alice, bob = here.user("alice"), here.user("bob")
    room_id = await here.private_room(alice)
    await story.invite(alice, room_id)
    assert await here.membership_of(room_id, bob) is None

    await story.bind(bob)

    assert await here.membership_of(room_id, bob) == "invite"
    await here.join(bob, room_id)
    assert await here.membership_of(room_id, bob) == "join"


async def test_who_turns_out_to_be_of_another_server_is_invited_and_joins(
    story: Story, here: Server, there: Server, network: Network
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.private_room(alice)
    await story.invite(alice, room_id)

    await story.bind(bob)

    local = await there.local_membership(room_id, bob)
    assert local is not None
    assert (local.membership, local.sender) == ("invite", alice)
    await there.join(bob, room_id)
    await network.settle()
    assert await here.membership_of(room_id, bob) == "join"
    assert await there.membership_of(room_id, bob) == "join"


async def test_one_address_is_invited_to_many_rooms(story: Story, here: Server, there: Server) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    rooms = [await here.private_room(alice) for _ in range(3)]
    for room_id in rooms:
        await story.invite(alice, room_id)

    await story.bind(bob)

    assert [await here.membership_of(room_id, bob) for room_id in rooms] == ["invite"] * 3


async def test_who_is_known_already_is_invited_at_once(story: Story, here: Server, there: Server) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    await story.bind(bob)
    room_id = await here.private_room(alice)

    await story.invite(alice, room_id)

    assert await here.membership_of(room_id, bob) == "invite"
    assert story.identity.invites == []


async def test_a_key_that_was_revoked_meanwhile_invites_nobody(
    story: Story, here: Server, there: Server
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.private_room(alice)
    await story.invite(alice, room_id)
    here.valid_keys.clear()

    await story.bind(bob)

    assert await here.membership_of(room_id, bob) is None
