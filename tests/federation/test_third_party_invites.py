"""Third-party invites that come true, within a server and between servers."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from nacl.signing import SigningKey

from homeserver.errors import RemoteError
from homeserver.protocol.canonical_json import encode
from tests.remote import Network, Server

VALID = "https://id.example/_matrix/identity/v2/pubkey/isvalid"
TOKEN = "a-token"


def unpadded(value: bytes) -> str:
    return base64.b64encode(value).decode().rstrip("=")


class IdentityServer:
    """Signs whose an address has turned out to be."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()

    def content(self, url: str | None = VALID) -> dict[str, Any]:
        """That of the ``m.room.third_party_invite``."""
        key = {"public_key": unpadded(bytes(self.key.verify_key))}
        key |= {"key_validity_url": url} if url else {}
        return {**key, "display_name": "b...@example.org", "public_keys": [key]}

    def signed(self, user_id: str, token: str = TOKEN) -> dict[str, Any]:
        statement = {"mxid": user_id, "token": token}
        signature = unpadded(self.key.sign(encode(statement)).signature)
        return {**statement, "signatures": {"id.example": {"ed25519:0": signature}}}


class Story:
    """Alice, here, has invited an address into a private room; it is bob's."""

    def __init__(self, here: Server, bob: str) -> None:
        self.here, self.bob = here, bob
        self.alice = here.user("alice")
        self.identity = IdentityServer()
        self.room_id = ""

    async def begin(self, url: str | None = VALID) -> Story:
        self.room_id = await self.here.private_room(self.alice)
        content = self.identity.content(url)
        await self.here.set_state(self.room_id, self.alice, "m.room.third_party_invite", content, TOKEN)
        self.here.valid_keys[VALID] = True
        return self

    def notification(self, **changes: Any) -> dict[str, Any]:
        """What the identity server tells bob's homeserver."""
        invite = {
            "medium": "email",
            "address": "bob@example.org",
            "mxid": self.bob,
            "room_id": self.room_id,
            "sender": self.alice,
            "signed": self.identity.signed(self.bob),
            **changes,
        }
        return {"medium": "email", "address": "bob@example.org", "mxid": self.bob, "invites": [invite]}

    def partial_invite(self, **changes: Any) -> dict[str, Any]:
        """What bob's homeserver asks alice's for."""
        proof = {"display_name": "b", "signed": self.identity.signed(self.bob)}
        return {
            "type": "m.room.member",
            "room_id": self.room_id,
            "sender": self.alice,
            "state_key": self.bob,
            "content": {"membership": "invite", "third_party_invite": proof},
            **changes,
        }


async def notify(server: Server, body: dict[str, Any]) -> int:
    """Tell a homeserver, as an identity server does; the status, when all that follows is done."""
    status, _ = await server.answer("PUT", "/_matrix/federation/v1/3pid/onbind", {}, encode(body))
    await server.idle()
    return status


async def test_a_user_of_the_inviting_server_is_invited(here: Server) -> None:
    story = await Story(here, here.user("bob")).begin()

    assert await notify(here, story.notification()) == 200

    member = await here.states.member(await here.room(story.room_id), story.bob)
    assert member is not None
    assert member.event.sender == story.alice
    assert member.event.content["membership"] == "invite"
    assert member.event.content["third_party_invite"]["display_name"] == "b...@example.org"
    await here.join(story.bob, story.room_id)
    assert await here.membership_of(story.room_id, story.bob) == "join"


async def test_a_user_of_another_server_is_invited_by_an_exchange(
    here: Server, there: Server, network: Network
) -> None:
    story = await Story(here, there.user("bob")).begin()

    assert await notify(there, story.notification()) == 200

    local = await there.local_membership(story.room_id, story.bob)
    assert local is not None
    assert (local.membership, local.sender) == ("invite", story.alice)
    await there.join(story.bob, story.room_id)
    await network.settle()
    assert await here.membership_of(story.room_id, story.bob) == "join"


async def test_a_key_without_a_place_to_ask_is_taken_as_it_is(here: Server, there: Server) -> None:
    story = await Story(here, there.user("bob")).begin(url=None)

    await there.client.exchange_third_party_invite(here.name, story.room_id, story.partial_invite())

    assert await here.membership_of(story.room_id, story.bob) == "invite"


async def test_a_key_that_is_revoked_signs_nothing(here: Server, there: Server) -> None:
    story = await Story(here, there.user("bob")).begin()
    here.valid_keys[VALID] = False

    with pytest.raises(RemoteError) as refused:
        await there.client.exchange_third_party_invite(here.name, story.room_id, story.partial_invite())

    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    assert await here.membership_of(story.room_id, story.bob) is None


async def test_only_what_the_identity_server_signed_counts(here: Server, there: Server) -> None:
    bob, mallory = there.user("bob"), there.user("mallory")
    story = await Story(here, bob).begin()
    forged = IdentityServer().signed(mallory)
    stolen = story.identity.signed(bob)
    other_token = story.identity.signed(mallory, "another token")

    for signed in (forged, stolen, other_token):
        content = {
            "membership": "invite",
            "third_party_invite": {"display_name": "m", "signed": signed},
        }
        invite = story.partial_invite(state_key=mallory, content=content)
        with pytest.raises(RemoteError) as refused:
            await there.client.exchange_third_party_invite(here.name, story.room_id, invite)
        assert refused.value.errcode == "M_FORBIDDEN"
    assert await here.membership_of(story.room_id, mallory) is None


async def test_an_exchange_has_to_make_sense(here: Server, there: Server) -> None:
    story = await Story(here, there.user("bob")).begin()

    for changes, errcode in (
        ({"state_key": "@carol:third.example"}, "M_FORBIDDEN"),
        ({"sender": story.bob}, "M_INVALID_PARAM"),
        ({"type": "m.room.message"}, "M_INVALID_PARAM"),
        ({"content": {"membership": "join"}}, "M_INVALID_PARAM"),
        ({"content": {"membership": "invite", "third_party_invite": {"signed": 1}}}, "M_INVALID_PARAM"),
        ({"room_id": "!another:here.example"}, "M_INVALID_PARAM"),
        ({"sender": None}, "M_BAD_JSON"),
    ):
        with pytest.raises(RemoteError) as refused:
            await there.client.exchange_third_party_invite(
                here.name, story.room_id, story.partial_invite(**changes)
            )
        assert refused.value.errcode == errcode


async def test_a_notification_about_nobody_is_refused(here: Server) -> None:
    story = await Story(here, "@nobody:here.example").begin()

    assert await notify(here, story.notification()) == 404
    many = story.notification()
    many["invites"] *= 51
    assert await notify(here, many) == 400


async def test_one_bad_invite_does_not_cost_the_others(here: Server, there: Server) -> None:
    story = await Story(here, there.user("bob")).begin()
    body = story.notification()
    body["invites"] = [
        {**body["invites"][0], "mxid": "@carol:there.example"},
        {**body["invites"][0], "room_id": "!nowhere:here.example"},
        {**body["invites"][0], "sender": "@gone:gone.example"},
        *body["invites"],
    ]

    assert await notify(there, body) == 200

    assert await here.membership_of(story.room_id, story.bob) == "invite"
