"""Rooms whose events a policy server has to recommend."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from homeserver.errors import MatrixError
from homeserver.protocol.signing import (
    countersign_event,
    generate_signing_key,
    verify_event_signature,
)
from homeserver.rooms.policy import POLICY, POLICY_SERVER_KEY_ID
from homeserver.storage.events import StoredEvent
from tests.federation.conftest import StartServer
from tests.remote import Network, Server

SIGN = "/_matrix/policy/v1/sign"


class PolicyServer:
    """Signs events beside what its homeserver does, but for those that speak of ham."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.name = server.name
        self.key = generate_signing_key("policy_server")
        #: Types of the events it was asked about.
        self.asked: list[str] = []
        self.refusal: tuple[int, dict[str, Any]] = (400, {"errcode": "M_FORBIDDEN", "error": "No ham here"})
        self.says_nothing = False
        server.send.policy = None  # what it sends itself it would sign itself
        self._others = server.exchange
        server.exchange = self.exchange  # type: ignore[method-assign]

    def content(self) -> dict[str, Any]:
        """What a room that uses it has as its ``m.room.policy``."""
        return {"via": self.name, "public_keys": {"ed25519": self.key.verify_key_base64}}

    async def exchange(
        self, method: str, uri: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        if uri != SIGN:
            return await self._others(method, uri, headers, body)
        await self.server.federation.authentication.authenticate_server(method, uri, headers, body or b"")
        pdu = json.loads(body or b"")
        self.asked.append(pdu["type"])
        if "ham" in json.dumps(pdu["content"]):
            status, refusal = self.refusal
            return status, json.dumps(refusal).encode()
        room = await self.server.room(pdu["room_id"])
        signed = countersign_event(pdu, room.rules, self.name, self.key)
        signatures = {
            self.name: {POLICY_SERVER_KEY_ID: signed["signatures"][self.name][POLICY_SERVER_KEY_ID]}
        }
        return 200, json.dumps({} if self.says_nothing else signatures).encode()


@pytest.fixture
async def policy(start: StartServer) -> PolicyServer:
    return PolicyServer(await start("policy.example"))


async def protected_room(here: Server, policy: PolicyServer, *others: Server) -> tuple[str, str]:
    """A room of Alice's that uses the policy server; its id and hers."""
    alice = here.user("alice")
    room_id = await here.public_room(alice)
    for server in (policy.server, *others):
        await server.join(server.user("member"), room_id, here)
    await here.set_state(room_id, alice, POLICY, policy.content())
    await here.network.settle()
    policy.asked.clear()
    return room_id, alice


def is_recommended(stored: StoredEvent, policy: PolicyServer, server: Server) -> bool:
    pdu = stored.event.pdu
    rules = server.rooms._rooms[stored.room_nid].rules
    verify_event_signature(pdu, rules, policy.name, POLICY_SERVER_KEY_ID, policy.key.verify_key_base64)
    return not stored.hidden


async def test_what_is_sent_is_signed_first_and_needs_no_second_question(
    here: Server, there: Server, policy: PolicyServer, network: Network
) -> None:
    room_id, alice = await protected_room(here, policy, there)

    said = await here.say(room_id, alice, "hello")
    named = await here.set_state(room_id, alice, "m.room.name", {"name": "Hall"})
    await network.settle()

    assert policy.asked == ["m.room.message", "m.room.name"]
    assert is_recommended(said, policy, here)
    assert is_recommended(named, policy, here)
    received = (await there.room(room_id)).recent
    assert [stored.id for stored in received][-2:] == [said.id, named.id]
    assert all(is_recommended(stored, policy, there) for stored in list(received)[-2:])
    assert (await here.room(room_id)).state[("m.room.name", "")].id == named.id


async def test_what_is_refused_is_not_sent_and_the_client_hears_why(
    here: Server, policy: PolicyServer
) -> None:
    room_id, alice = await protected_room(here, policy)
    with pytest.raises(MatrixError) as refused:
        await here.say(room_id, alice, "ham")
    assert (refused.value.status, refused.value.body()) == policy.refusal
    assert await here.bodies(room_id) == []


@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (
            (429, {"errcode": "M_LIMIT_EXCEEDED", "error": "Slowly", "retry_after_ms": 2000}),
            (429, "M_LIMIT_EXCEEDED"),
        ),
        ((403, {"errcode": "M_FORBIDDEN", "error": "ACL"}), (403, "M_FORBIDDEN")),
        ((404, {"errcode": "M_UNRECOGNIZED", "error": "No policy here"}), (403, "M_FORBIDDEN")),
        ((401, {"errcode": "M_UNKNOWN_TOKEN", "error": "Log out"}), (403, "M_FORBIDDEN")),
        ((400, {"errcode": "M_UNKNOWN_TOKEN", "error": "Log out"}), (403, "M_FORBIDDEN")),
        ((500, {"errcode": "M_UNKNOWN", "error": "Oh"}), (502, "M_UNKNOWN")),
    ],
)
async def test_a_policy_server_cannot_tell_a_client_just_anything(
    here: Server, policy: PolicyServer, answer: tuple[int, dict[str, Any]], heard: tuple[int, str]
) -> None:
    room_id, alice = await protected_room(here, policy)
    policy.refusal = answer
    with pytest.raises(MatrixError) as refused:
        await here.say(room_id, alice, "ham")
    assert (refused.value.status, refused.value.errcode) == heard
    assert refused.value.fields.get("retry_after_ms") == answer[1].get("retry_after_ms")


async def test_nothing_is_sent_while_the_policy_server_is_gone_but_it_can_be_given_up(
    here: Server, policy: PolicyServer, network: Network
) -> None:
    room_id, alice = await protected_room(here, policy)
    network.down.add(policy.name)
    with pytest.raises(MatrixError) as refused:
        await here.say(room_id, alice, "hello")
    assert (refused.value.status, refused.value.errcode) == (504, "M_UNKNOWN")

    await here.set_state(room_id, alice, POLICY, {})
    await here.say(room_id, alice, "hello again")

    assert await here.bodies(room_id) == ["hello again"]


async def test_a_signature_that_is_missing_or_wrong_does_not_count(
    here: Server, policy: PolicyServer
) -> None:
    room_id, alice = await protected_room(here, policy)
    policy.says_nothing = True
    with pytest.raises(MatrixError, match="has not signed"):
        await here.say(room_id, alice, "hello")
    policy.says_nothing, policy.key = False, generate_signing_key("policy_server")
    with pytest.raises(MatrixError, match="has not signed"):
        await here.say(room_id, alice, "hello")
    assert await here.bodies(room_id) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"via": None},
        {"via": "nobody.example"},
        {"public_keys": {}},
        {"public_keys": {"ed25519": 5}},
        {"public_keys": "key"},
    ],
)
async def test_a_room_without_a_whole_policy_asks_nobody(
    here: Server, policy: PolicyServer, changes: dict[str, Any]
) -> None:
    room_id, alice = await protected_room(here, policy)
    await here.set_state(room_id, alice, POLICY, {**policy.content(), **changes})
    await here.say(room_id, alice, "ham")
    assert policy.asked == []


async def test_a_policy_server_that_leaves_has_no_say_any_more(here: Server, policy: PolicyServer) -> None:
    room_id, alice = await protected_room(here, policy)
    await policy.server.membership.leave(policy.server.user("member"), room_id)
    await here.network.settle()
    policy.asked.clear()
    await here.say(room_id, alice, "ham")
    assert policy.asked == []


async def test_only_the_policy_itself_is_exempt(here: Server, policy: PolicyServer) -> None:
    room_id, alice = await protected_room(here, policy)
    await here.set_state(room_id, alice, POLICY, policy.content() | {"x": 1})
    assert policy.asked == []
    await here.set_state(room_id, alice, POLICY, {}, state_key="other")
    assert policy.asked == [POLICY]


async def test_a_room_that_names_this_server_cannot_be_spoken_in(here: Server, policy: PolicyServer) -> None:
    room_id, alice = await protected_room(here, policy)
    await here.set_state(room_id, alice, POLICY, {**policy.content(), "via": here.name})
    with pytest.raises(MatrixError, match="which it is not"):
        await here.say(room_id, alice, "hello")
    await here.membership.leave(alice, room_id)
    status, reply = await here.answer("POST", SIGN, {}, b"{}")
    assert (status, reply["errcode"]) == (404, "M_UNRECOGNIZED")


async def test_received_events_that_lack_the_signature_are_asked_about(
    here: Server, there: Server, policy: PolicyServer, network: Network
) -> None:
    room_id, _ = await protected_room(here, policy, there)
    there.send.policy = None  # a server that knows nothing of policy servers
    member = there.user("member")

    good = await there.say(room_id, member, "hello")
    spam = await there.say(room_id, member, "ham")
    await network.settle()

    stored = await here.events.by_ids([good.id, spam.id])
    assert is_recommended(stored[good.id], policy, here)
    assert stored[spam.id].hidden
    assert not stored[spam.id].rejected
    assert await here.bodies(room_id) == ["hello"]


async def test_a_policy_server_that_is_gone_is_not_asked_about_every_event(
    here: Server, there: Server, policy: PolicyServer, network: Network
) -> None:
    room_id, _ = await protected_room(here, policy, there)
    there.send.policy = None
    asked: list[str] = []
    ask = here.client.ask_policy_server

    async def counted(server: str, pdu: Mapping[str, Any]) -> dict[str, Any]:
        asked.append(server)
        return await ask(server, pdu)

    here.client.ask_policy_server = counted  # type: ignore[method-assign]
    network.down.add(policy.name)
    for number in range(3):
        await there.say(room_id, there.user("member"), f"hello {number}")
    await network.settle()
    assert (await here.bodies(room_id), len(asked)) == ([], 1)

    network.down.clear()
    network.clock.advance(31)
    await there.say(room_id, there.user("member"), "back")
    await network.settle()
    assert await here.bodies(room_id) == ["back"]


async def test_a_join_through_this_server_needs_the_recommendation_too(
    here: Server, there: Server, policy: PolicyServer
) -> None:
    room_id, _ = await protected_room(here, policy)
    bob = there.user("bob")
    await there.join(bob, room_id, here)
    assert policy.asked == ["m.room.member"]
    member = await here.states.member(await here.room(room_id), bob)
    assert member is not None
    assert is_recommended(member, policy, here)


async def test_a_join_that_is_not_recommended_is_refused(
    here: Server, there: Server, policy: PolicyServer
) -> None:
    room_id, _ = await protected_room(here, policy)
    with pytest.raises(MatrixError) as refused:
        await there.membership.join(there.user("bob"), room_id, [here.name], {"reason": "ham"})
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    assert await there.rooms.find(room_id) is None


async def test_memberships_of_local_users_are_signed_as_well(
    here: Server, there: Server, policy: PolicyServer
) -> None:
    room_id, alice = await protected_room(here, policy)
    bob, carol = here.user("bob"), there.user("carol")

    await here.membership.invite(alice, room_id, bob)
    await here.membership.join(bob, room_id)
    await here.membership.invite(alice, room_id, carol)
    await here.membership.leave(bob, room_id)

    assert policy.asked == ["m.room.member"] * 4
    for user in (bob, carol):
        member = await here.states.member(await here.room(room_id), user)
        assert member is not None
        assert is_recommended(member, policy, here)


async def test_others_speak_while_the_policy_server_thinks(
    here: Server, there: Server, policy: PolicyServer, network: Network
) -> None:
    """The room is not locked for as long as the policy server is asked: what comes meanwhile makes a fork."""
    room_id, alice = await protected_room(here, policy, there)
    ask = here.client.ask_policy_server

    async def slowly(server: str, pdu: Mapping[str, Any]) -> dict[str, Any]:
        here.client.ask_policy_server = ask  # type: ignore[method-assign]
        await there.say(room_id, there.user("member"), "first")
        await network.settle()
        assert await here.bodies(room_id) == ["first"]
        return await ask(server, pdu)

    here.client.ask_policy_server = slowly  # type: ignore[method-assign]
    await here.set_state(room_id, alice, "m.room.name", {"name": "Hall"})
    await network.settle()

    room = await here.room(room_id)
    assert len(room.tips) == 2
    for server in (here, there):
        assert (await server.room(room_id)).state[("m.room.name", "")].event.content == {"name": "Hall"}
