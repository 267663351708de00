"""Asking another server over real TLS on loopback: what is sent, what comes back, what goes wrong."""

from __future__ import annotations

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import trustme

from federation.client import FederationClient
from federation.discovery import Destination, Destinations, NoService, PermittedServers
from federation.signatures import parse_authorization
from federation.transport import Https, Transport
from homeserver.addresses import address_policy
from homeserver.egress import open_session, tls_context
from homeserver.errors import RemoteError
from homeserver.protocol.signing import SigningKey, verify_json
from tests.federation.peer import PEER_NAME, Answer, Asked, Peer, running_peer
from tests.signed_requests import signed_request

KEY = SigningKey("ed25519:k", bytes(range(32)))
OUR_NAME = "us.example"
ROOM = "!room:peer.example"
EVENT = "$event/with:slash"
UNRECOGNIZED = {"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}


class Directory:
    """Tells where servers are; whoever is not listed cannot be found."""

    def __init__(self) -> None:
        self.servers: dict[str, list[Destination]] = {}

    def put(self, server_name: str, peer: Peer, host: str = "127.0.0.1") -> None:
        self.servers.setdefault(server_name, []).append(
            Destination(host, peer.port, server_name, server_name)
        )

    async def destinations(self, server_name: str) -> list[Destination]:
        if server_name not in self.servers:
            raise NoService("There is no such server")
        return self.servers[server_name]


@pytest.fixture
async def peer(authority: trustme.CA) -> AsyncIterator[Peer]:
    async with running_peer(authority, PEER_NAME, "second.example") as running:
        yield running


@pytest.fixture
def directory(peer: Peer) -> Directory:
    directory = Directory()
    directory.put(PEER_NAME, peer)
    return directory


def over_https(directory: Destinations, session: aiohttp.ClientSession) -> Transport:
    return Transport(server_name=OUR_NAME, key=KEY, exchange=Https(directory, session).exchange)


@pytest.fixture
async def client(directory: Directory, tls: ssl.SSLContext) -> AsyncIterator[FederationClient]:
    policy = address_policy(allowed=["127.0.0.1/32"])
    async with open_session(policy, tls) as session:
        yield FederationClient(over_https(directory, session))


def verify(asked: Asked) -> None:
    """Check the signature the way a receiving server does."""
    signature = parse_authorization(asked.headers["authorization"])
    assert (signature.origin, signature.destination) == (OUR_NAME, PEER_NAME)
    request = signed_request(
        signature,
        method=asked.method,
        uri=asked.raw_path,
        destination=PEER_NAME,
        content=asked.json if asked.body else None,
    )
    verify_json(request, OUR_NAME, KEY.key_id, KEY.verify_key_base64)


async def test_a_request_is_signed_as_it_is_sent(client: FederationClient, peer: Peer) -> None:
    peer.answers(Answer(body={"a": 1}))
    reply = await client.request(
        "PUT", PEER_NAME, "/_matrix/x/%24y", query={"q": "a b/ä&", "v": ["1", "2"]}, content={"ü": 1}
    )
    assert reply == {"a": 1}
    [asked] = peer.asked
    assert asked.raw_path == "/_matrix/x/%24y?q=a%20b%2F%C3%A4%26&v=1&v=2"
    assert asked.headers["host"] == PEER_NAME
    assert asked.headers["content-type"] == "application/json"
    verify(asked)


async def test_bytes_that_are_canonical_json_are_sent_as_they_are(
    client: FederationClient, peer: Peer
) -> None:
    peer.answers(Answer(body={"pdus": {"$e": {"error": "no"}}}))
    results = await client.send_transaction(PEER_NAME, "t1", b'{"origin":"us.example","pdus":[]}')
    assert results == {"$e": {"error": "no"}}
    [asked] = peer.asked
    assert asked.body == b'{"origin":"us.example","pdus":[]}'
    verify(asked)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(404, {"errcode": "M_NOT_FOUND", "error": "Gone"}), (True, False, 404, "M_NOT_FOUND")),
        (Answer(403, {"errcode": "M_FORBIDDEN"}), (True, False, 403, "M_FORBIDDEN")),
        (Answer(429, {"errcode": "M_LIMIT_EXCEEDED"}), (True, True, 429, "M_LIMIT_EXCEEDED")),
        (Answer(502, b"<html>Bad gateway</html>"), (True, True, 502, None)),
        (Answer(500, {"errcode": 1}), (True, True, 500, None)),
        (Answer(302, b"", {"Location": "/elsewhere"}), (True, False, 302, None)),
        (Answer(200, b"not json"), (True, False, None, None)),
        (Answer(200, []), (True, False, None, None)),
    ],
)
async def test_whose_fault_an_answer_is(
    client: FederationClient, peer: Peer, answer: Answer, expected: tuple[Any, ...]
) -> None:
    peer.answers(answer)
    with pytest.raises(RemoteError) as caught:
        await client.get_server_keys(PEER_NAME)
    error = caught.value
    assert (error.reachable, error.transient, error.status, error.errcode) == expected
    assert len(peer.asked) == 1


async def test_a_response_may_not_be_larger_than_asked_for(client: FederationClient, peer: Peer) -> None:
    peer.answer = lambda asked: Answer(body={"a": "x" * 2000})
    assert await client.request("GET", PEER_NAME, "/x", max_bytes=3000)
    with pytest.raises(RemoteError, match="larger than 1000 bytes"):
        await client.request("GET", PEER_NAME, "/x", max_bytes=1000)


async def test_a_small_response_may_not_unpack_to_a_large_one(client: FederationClient, peer: Peer) -> None:
    packed = gzip.compress(b'{"a": "' + b"x" * 5_000_000 + b'"}')
    assert len(packed) < 10_000
    peer.answers(Answer(200, packed, {"Content-Encoding": "gzip"}))
    with pytest.raises(RemoteError, match="larger than"):
        await client.request("GET", PEER_NAME, "/x", max_bytes=100_000)


async def test_a_response_may_not_be_made_of_too_many_values(client: FederationClient, peer: Peer) -> None:
    for little in (b"[],", b"1,"):
        peer.answers(Answer(200, b'{"a": [' + little * 3_000_000 + b"1]}", {}))
        with pytest.raises(RemoteError, match="too many values"):
            await client.request("GET", PEER_NAME, "/x", max_bytes=100_000_000)


async def test_a_server_that_does_not_answer_in_time(client: FederationClient, directory: Directory) -> None:
    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silence, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        directory.servers["slow.example"] = [Destination("127.0.0.1", port, "slow.example", "slow.example")]
        with pytest.raises(RemoteError, match=r"within 0\.05 seconds") as caught:
            await client.request("GET", "slow.example", "/x", timeout=0.05)
    assert (caught.value.reachable, caught.value.transient) == (False, True)


async def test_a_server_that_is_not_permitted_refuses_whoever_asked(
    directory: Directory, tls: ssl.SSLContext
) -> None:
    permitted = PermittedServers(directory, lambda name: name != PEER_NAME)
    async with open_session(address_policy(allowed=["127.0.0.1/32"]), tls) as session:
        client = FederationClient(over_https(permitted, session))
        with pytest.raises(RemoteError, match="does not talk with that one") as caught:
            await client.request("GET", PEER_NAME, "/x")
    assert (caught.value.status, caught.value.errcode) == (403, "M_FORBIDDEN")


async def test_a_server_that_cannot_be_found(client: FederationClient) -> None:
    with pytest.raises(RemoteError, match="no such server") as caught:
        await client.get_server_keys("nowhere.example")
    assert (caught.value.reachable, caught.value.transient) == (False, False)


async def test_a_certificate_for_another_name_is_refused(
    client: FederationClient, directory: Directory, peer: Peer
) -> None:
    directory.put("impostor.example", peer)
    with pytest.raises(RemoteError) as caught:
        await client.get_server_keys("impostor.example")
    assert not caught.value.reachable
    assert not peer.asked


async def test_a_connection_is_only_used_for_the_name_it_was_verified_for(
    client: FederationClient, directory: Directory, peer: Peer
) -> None:
    directory.put("second.example", peer)
    directory.put("impostor.example", peer)
    await client.get_server_keys(PEER_NAME)
    await client.get_server_keys("second.example")
    await client.get_server_keys(PEER_NAME)
    assert len(peer.connections) == 2
    with pytest.raises(RemoteError):
        await client.get_server_keys("impostor.example")


async def test_an_unknown_authority_is_refused(directory: Directory, peer: Peer) -> None:
    policy = address_policy(allowed=["127.0.0.1/32"])
    async with open_session(policy, tls_context()) as session:
        transport = over_https(directory, session)
        with pytest.raises(RemoteError) as caught:
            await transport.send("GET", PEER_NAME, "/x")
    assert not caught.value.reachable
    assert not peer.asked


@pytest.mark.parametrize("host", ["127.0.0.2", "localhost"])
async def test_an_address_that_may_not_be_contacted(directory: Directory, peer: Peer, host: str) -> None:
    directory.servers[PEER_NAME] = [Destination(host, peer.port, PEER_NAME, PEER_NAME)]
    async with open_session(address_policy(), tls_context()) as session:
        transport = over_https(directory, session)
        with pytest.raises(RemoteError, match="may not be contacted") as caught:
            await transport.send("GET", PEER_NAME, "/x")
    assert (caught.value.reachable, caught.value.transient) == (False, False)
    assert not peer.connections


async def test_the_next_destination_is_tried_when_one_cannot_be_connected_to(
    client: FederationClient, directory: Directory, peer: Peer
) -> None:
    refused = Destination("127.0.0.2", peer.port, PEER_NAME, PEER_NAME)
    directory.servers[PEER_NAME].insert(0, refused)
    assert await client.get_server_keys(PEER_NAME) == {}


async def test_joining(client: FederationClient, peer: Peer) -> None:
    peer.answers(Answer(body={"event": {"type": "m.room.member"}, "room_version": "12"}))
    made = await client.make_join(PEER_NAME, ROOM, "@us:us.example", ["11", "12"])
    assert made == {"event": {"type": "m.room.member"}, "room_version": "12"}
    peer.answers(Answer(body={"state": [{"a": 1}], "auth_chain": [], "event": {}}))
    joined = await client.send_join(PEER_NAME, ROOM, EVENT, {"type": "m.room.member"}, omit_members=True)
    assert joined["state"] == [{"a": 1}]
    assert [asked.raw_path for asked in peer.asked] == [
        "/_matrix/federation/v1/make_join/%21room%3Apeer.example/%40us%3Aus.example?ver=11&ver=12",
        "/_matrix/federation/v2/send_join/%21room%3Apeer.example/%24event%2Fwith%3Aslash?omit_members=true",
    ]
    assert peer.asked[1].json == {"type": "m.room.member"}
    for asked in peer.asked:
        verify(asked)


@pytest.mark.parametrize(
    "refusal", [Answer(404, UNRECOGNIZED), Answer(400, UNRECOGNIZED), Answer(404, b"not found")]
)
async def test_version_1_is_used_with_servers_that_know_no_other(
    client: FederationClient, peer: Peer, refusal: Answer
) -> None:
    peer.answers(refusal, Answer(body=[200, {"state": [], "auth_chain": []}]))
    assert await client.send_join(PEER_NAME, ROOM, EVENT, {}) == {"state": [], "auth_chain": []}
    peer.answers(refusal, Answer(body=[200, {}]))
    await client.send_leave(PEER_NAME, ROOM, EVENT, {})
    peer.answers(refusal, Answer(body=[200, {"event": {"signed": True}}]))
    invited = await client.invite(
        PEER_NAME, ROOM, EVENT, room_version="2", pdu={"unsigned": {"age": 1}}, invite_room_state=[{"s": 1}]
    )
    assert invited == {"signed": True}
    assert peer.asked[-1].json == {"unsigned": {"age": 1, "invite_room_state": [{"s": 1}]}}
    assert ["v2" in asked.raw_path for asked in peer.asked] == [True, False] * 3


async def test_an_invitation_of_a_newer_room_does_not_fall_back(client: FederationClient, peer: Peer) -> None:
    peer.answers(Answer(404, UNRECOGNIZED))
    with pytest.raises(RemoteError):
        await client.invite(PEER_NAME, ROOM, EVENT, room_version="3", pdu={}, invite_room_state=[])
    assert len(peer.asked) == 1


async def test_a_refusal_is_not_taken_for_ignorance(client: FederationClient, peer: Peer) -> None:
    peer.answers(Answer(404, {"errcode": "M_NOT_FOUND", "error": "No such room"}))
    with pytest.raises(RemoteError, match="No such room"):
        await client.send_join(PEER_NAME, ROOM, EVENT, {})
    assert len(peer.asked) == 1


async def test_inviting(client: FederationClient, peer: Peer) -> None:
    peer.answers(Answer(body={"event": {"type": "m.room.member"}}))
    invited = await client.invite(
        PEER_NAME, ROOM, EVENT, room_version="12", pdu={"p": 1}, invite_room_state=[{"s": 1}]
    )
    assert invited == {"type": "m.room.member"}
    assert peer.asked[0].json == {"room_version": "12", "event": {"p": 1}, "invite_room_state": [{"s": 1}]}


_ROOM_PATH = "%21room%3Apeer.example"
_EVENT_PATH = "%24event%2Fwith%3Aslash"


@pytest.mark.parametrize(
    ("call", "answer", "result", "request_line"),
    [
        (
            lambda c: c.make_leave(PEER_NAME, ROOM, "@us:us.example"),
            {"event": {}},
            {"event": {}},
            f"GET /_matrix/federation/v1/make_leave/{_ROOM_PATH}/%40us%3Aus.example",
        ),
        (
            lambda c: c.make_knock(PEER_NAME, ROOM, "@us:us.example", ["12"]),
            {"event": {}},
            {"event": {}},
            f"GET /_matrix/federation/v1/make_knock/{_ROOM_PATH}/%40us%3Aus.example?ver=12",
        ),
        (
            lambda c: c.send_knock(PEER_NAME, ROOM, EVENT, {}),
            {"knock_room_state": [{"type": "t"}]},
            [{"type": "t"}],
            f"PUT /_matrix/federation/v1/send_knock/{_ROOM_PATH}/{_EVENT_PATH}",
        ),
        (
            lambda c: c.get_event(PEER_NAME, EVENT),
            {"pdus": [{"a": 1}]},
            {"a": 1},
            f"GET /_matrix/federation/v1/event/{_EVENT_PATH}",
        ),
        (
            lambda c: c.get_state(PEER_NAME, ROOM, "$e"),
            {"pdus": [{}], "auth_chain": []},
            {"pdus": [{}], "auth_chain": []},
            f"GET /_matrix/federation/v1/state/{_ROOM_PATH}?event_id=%24e",
        ),
        (
            lambda c: c.get_state_ids(PEER_NAME, ROOM, "$e"),
            {"pdu_ids": ["$a"], "auth_chain_ids": ["$b"]},
            {"pdu_ids": ["$a"], "auth_chain_ids": ["$b"]},
            f"GET /_matrix/federation/v1/state_ids/{_ROOM_PATH}?event_id=%24e",
        ),
        (
            lambda c: c.backfill(PEER_NAME, ROOM, ["$a", "$b"], 20),
            {"pdus": [{"a": 1}]},
            [{"a": 1}],
            f"GET /_matrix/federation/v1/backfill/{_ROOM_PATH}?v=%24a&v=%24b&limit=20",
        ),
        (
            lambda c: c.get_missing_events(
                PEER_NAME, ROOM, earliest_events=["$a"], latest_events=["$b"], limit=10
            ),
            {"events": [{"a": 1}]},
            [{"a": 1}],
            f"POST /_matrix/federation/v1/get_missing_events/{_ROOM_PATH}",
        ),
        (
            lambda c: c.event_auth(PEER_NAME, ROOM, EVENT),
            {"auth_chain": [{"a": 1}]},
            [{"a": 1}],
            f"GET /_matrix/federation/v1/event_auth/{_ROOM_PATH}/{_EVENT_PATH}",
        ),
        (
            lambda c: c.query_profile(PEER_NAME, "@a:peer.example", "displayname"),
            {"displayname": "A"},
            {"displayname": "A"},
            "GET /_matrix/federation/v1/query/profile?user_id=%40a%3Apeer.example&field=displayname",
        ),
        (
            lambda c: c.query_directory(PEER_NAME, "#a:peer.example"),
            {"room_id": ROOM, "servers": [PEER_NAME]},
            {"room_id": ROOM, "servers": [PEER_NAME]},
            "GET /_matrix/federation/v1/query/directory?room_alias=%23a%3Apeer.example",
        ),
        (
            lambda c: c.public_rooms(PEER_NAME, {"limit": 5}),
            {"chunk": []},
            {"chunk": []},
            "POST /_matrix/federation/v1/publicRooms",
        ),
        (
            lambda c: c.get_server_keys(PEER_NAME),
            {"server_name": PEER_NAME},
            {"server_name": PEER_NAME},
            "GET /_matrix/key/v2/server",
        ),
        (
            lambda c: c.query_keys_via_notary(PEER_NAME, {"a.example": {"ed25519:1": 5}}),
            {"server_keys": [{"server_name": "a.example"}]},
            [{"server_name": "a.example"}],
            "POST /_matrix/key/v2/query",
        ),
    ],
)
async def test_endpoints(
    client: FederationClient, peer: Peer, *, call: Any, answer: dict[str, Any], result: Any, request_line: str
) -> None:
    peer.answers(Answer(body=answer))
    assert await call(client) == result
    [asked] = peer.asked
    assert f"{asked.method} {asked.raw_path}" == request_line
    if "/key/" in asked.raw_path:
        assert "authorization" not in asked.headers
    else:
        verify(asked)


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.make_join(PEER_NAME, ROOM, "@us:us.example", ["12"]),
        lambda c: c.send_join(PEER_NAME, ROOM, EVENT, {}),
        lambda c: c.get_event(PEER_NAME, EVENT),
        lambda c: c.get_state_ids(PEER_NAME, ROOM, EVENT),
        lambda c: c.query_directory(PEER_NAME, "#a:peer.example"),
        lambda c: c.query_keys_via_notary(PEER_NAME, {}),
    ],
)
@pytest.mark.parametrize("field", [1, [1], {"a": []}])
async def test_an_answer_of_another_shape_is_the_servers_fault(
    client: FederationClient, peer: Peer, call: Any, field: Any
) -> None:
    names = ("event", "state", "auth_chain", "pdus", "pdu_ids", "auth_chain_ids", "servers", "server_keys")
    peer.answer = lambda asked: Answer(body={name: field for name in names if name != "event"})
    with pytest.raises(RemoteError) as caught:
        await call(client)
    assert (caught.value.reachable, caught.value.transient) == (True, False)
