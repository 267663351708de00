"""A homeserver made up by a test, for real: HTTPS on a loopback port, with keys and rooms of its own.

It answers what it was told to answer, as external conformance suites do it: everything else
is kept in ``unexpected`` and answered with a 404 that is not even JSON.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias
from urllib.parse import parse_qs, quote, unquote

import aiohttp
from aiohttp import web
from yarl import URL

from federation.server_keys import server_keys_response
from federation.signatures import authorization_header, parse_authorization
from homeserver.protocol.canonical_json import encode
from homeserver.protocol.event_format import parse_event
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.protocol.signing import SigningKey, sign_event, verify_json
from homeserver.rooms.compose import references, template
from tests.conformance.outsider_room import OutsiderRoom, pdus
from tests.processes import LOOPBACK, Authority, Server
from tests.signed_requests import signed_request

V1, V2 = "/_matrix/federation/v1", "/_matrix/federation/v2"
PATIENCE = 30.0
_numbers = itertools.count()


class Asked:
    """A request that came: ``params`` are the named groups of the path it was found by."""

    def __init__(self, method: str, uri: str, body: bytes, params: Mapping[str, str]) -> None:
        self.method, self.uri, self.body = method, uri, body
        self.params = {name: unquote(value) for name, value in params.items()}
        self.query = parse_qs(uri.partition("?")[2], keep_blank_values=True)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


#: Status and JSON of an answer.
Answer: TypeAlias = "tuple[int, Any]"
AnswerTo: TypeAlias = "Callable[[Asked], Answer | Awaitable[Answer]]"


class Outsider:
    """The server; ``tested`` is the one it plays with."""

    def __init__(self, tested: Server, http: aiohttp.ClientSession, tls: ssl.SSLContext) -> None:
        # As long an id as a conformance suite's: its public key in hexadecimal.
        self.key = SigningKey(f"ed25519:outsider_{secrets.token_hex(32)}", secrets.token_bytes(32))
        self.name = ""
        self.tested = tested
        self.rooms: dict[str, OutsiderRoom] = {}
        self.aliases: dict[str, str] = {}
        self.received: list[Event] = []
        self.edus: list[dict[str, Any]] = []
        self.invites: list[Event] = []
        self.asked: list[Asked] = []
        self.unexpected: list[str] = []
        self.tls = tls
        self._http = http
        self._routes: list[tuple[str, re.Pattern[str], AnswerTo]] = []
        self._verify_keys: dict[str, str] = {}
        self._news = asyncio.Event()

    # What it answers.

    def answers(self, method: str, path: str, answer: AnswerTo) -> None:
        """Answer a path, whose variable segments are ``{name}``; the newest answer counts."""
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
        self._routes.insert(0, (method, re.compile(pattern), answer))

    def answers_joins(self) -> None:
        """Let everybody into its rooms, and say where they are."""
        self.answers("GET", f"{V1}/make_join/{{room}}/{{user}}", self.make_join)
        self.answers("PUT", f"{V2}/send_join/{{room}}/{{event}}", self.send_join)
        self.answers("GET", f"{V1}/query/directory", self._directory)

    def answers_transactions(self) -> None:
        """Take in what is sent to it."""
        self.answers("PUT", f"{V1}/send/{{transaction}}", self._transaction)

    def answers_invites(self) -> None:
        """Sign invitations."""
        self.answers("PUT", f"{V2}/invite/{{room}}/{{event}}", self._invite)

    def answers_events(self) -> None:
        """Give away any event it knows."""
        self.answers("GET", f"{V1}/event/{{event}}", self._event)

    def make_join(self, asked: Asked) -> Answer:
        """A template as bare as such suites make it: without hashes, origin or time."""
        room, user_id = self.rooms.get(asked.params["room"]), asked.params["user"]
        if room is None:
            return 404, {"errcode": "M_NOT_FOUND", "error": "Unknown room"}
        assert room.rules.id in asked.query["ver"]
        content = {"membership": "join"}
        auth = room.authorising("m.room.member", user_id, user_id, content)
        pdu = {
            "sender": user_id,
            "room_id": room.room_id,
            "type": "m.room.member",
            "state_key": user_id,
            "prev_events": references([room.tip], room.rules),
            "auth_events": references(auth, room.rules),
            "depth": room.tip.depth + 1,
            "content": content,
        }
        return 200, {"event": pdu, "room_version": room.rules.id}

    def send_join(self, asked: Asked) -> Answer:
        """The whole state and its auth chain, without the join itself."""
        room = self.rooms[asked.params["room"]]
        state = list(room.state.values())
        servers = {event.sender.partition(":")[2] for event in state if event.type == "m.room.member"}
        answer = {
            "origin": self.name,
            "auth_chain": pdus(room.auth_chain(state)),
            "state": pdus(state),
            "members_omitted": False,
            "servers_in_room": sorted(servers),
        }
        room.add(parse_event(asked.json, room.rules))
        return 200, answer

    def _directory(self, asked: Asked) -> Answer:
        room_id = self.aliases.get(asked.query["room_alias"][0])
        if room_id is None:
            return 404, {"errcode": "M_NOT_FOUND", "error": "Room alias not found."}
        return 200, {"room_id": room_id, "servers": [self.name]}

    def _transaction(self, asked: Asked) -> Answer:
        transaction, results = asked.json, {}
        assert len(transaction["pdus"]) <= 50
        assert len(transaction.get("edus", [])) <= 100
        for pdu in transaction["pdus"]:
            room = self.rooms.get(pdu["room_id"])
            if room is not None:
                event = parse_event(pdu, room.rules)
                room.add(event)
                self.received.append(event)
                results[event.event_id] = {}
        self.edus += transaction.get("edus", [])
        return 200, {"pdus": results}

    def _invite(self, asked: Asked) -> Answer:
        rules = ROOM_VERSIONS[asked.json["room_version"]]
        signed = sign_event(asked.json["event"], rules, self.name, self.key)
        self.invites.append(parse_event(signed, rules))
        return 200, {"event": signed}

    def _event(self, asked: Asked) -> Answer:
        for room in self.rooms.values():
            event = room.known.get(asked.params["event"])
            if event is not None:
                return 200, {"origin": self.name, "origin_server_ts": _now_ms(), "pdus": [event.pdu]}
        return 404, "no such event"

    # What it does.

    def user(self, name: str) -> str:
        """The id of one of its users."""
        return f"@{name}:{self.name}"

    def room(self, version: str, creator: str, levels: Mapping[str, Any] | None = None) -> OutsiderRoom:
        """A public room of its own."""
        rules = ROOM_VERSIONS[version]
        content: dict[str, Any] = {"room_version": version, "entropy": secrets.token_hex(8)}
        if not rules.implicit_room_creator:
            content["creator"] = creator
        room = OutsiderRoom(rules, f"!{next(_numbers)}-{secrets.token_hex(9)}:{self.name}")
        create = self.event(room, "m.room.create", content, sender=creator, state_key="")
        room.room_id = create.room_id
        room.add(create)
        users = {} if rules.hash_room_ids else {creator: 100}
        for type_, state_key, first in (
            ("m.room.member", creator, {"membership": "join"}),
            ("m.room.power_levels", "", {"users": users, "events": {"m.room.name": 50}, **(levels or {})}),
            ("m.room.join_rules", "", {"join_rule": "public"}),
        ):
            room.add(self.event(room, type_, first, sender=creator, state_key=state_key))
        self.rooms[room.room_id] = room
        return room

    def alias(self, localpart: str, room: OutsiderRoom) -> str:
        """A name for a room."""
        alias = f"#{localpart}:{self.name}"
        self.aliases[alias] = room.room_id
        return alias

    def event(
        self,
        room: OutsiderRoom,
        type_: str,
        content: dict[str, Any],
        *,
        sender: str,
        state_key: str | None = None,
        prev: Sequence[Event] | None = None,
        auth: Sequence[Event] | None = None,
        rules: RoomVersion | None = None,
    ) -> Event:
        """A signed event on top of the room, not added to it; ``rules`` stand in for the room's."""
        rules = rules or room.rules
        is_create = type_ == "m.room.create"
        pdu = template(
            rules=rules,
            room_id=None if is_create and rules.hash_room_ids else room.room_id,
            sender=sender,
            type=type_,
            state_key=state_key,
            content=content,
            prev_events=(room.timeline[-1:] if prev is None else prev),
            auth_events=room.authorising(type_, sender, state_key, content) if auth is None else auth,
            now_ms=_now_ms(),
        )
        # As servers did it once; nobody may mind.
        return parse_event(sign_event({**pdu, "origin": self.name}, rules, self.name, self.key), rules)

    def say(self, room: OutsiderRoom, sender: str, body: str, **fields: Any) -> Event:
        """A text message, not sent."""
        return self.event(
            room, "m.room.message", {"msgtype": "m.text", "body": body}, sender=sender, **fields
        )

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A signed request to the server under test; ``path`` is as it is to be sent."""
        content = None if body is None else encode(body)
        header = authorization_header(
            method=method,
            uri=path,
            origin=self.name,
            destination=self.tested.server_name,
            body=content,
            key=self.key,
        )
        url = URL(f"https://{self.tested.server_name}{path}", encoded=True)
        headers = {"Authorization": header, "Content-Type": "application/json"}
        async with self._http.request(
            method, url, data=content, headers=headers, ssl=self.tls, timeout=aiohttp.ClientTimeout(PATIENCE)
        ) as reply:
            return reply.status, await reply.json()

    async def send(self, *events: Event, edus: Sequence[Any] = ()) -> dict[str, dict[str, Any]]:
        """One transaction; what became of each PDU.

        COMPAT: where there are no PDUs they are ``null``, as Go's servers write an empty list.
        """
        body = {
            "origin": self.name,
            "origin_server_ts": _now_ms(),
            "destination": self.tested.server_name,
            "pdus": pdus(events) or None,
        }
        if edus:
            body["edus"] = list(edus)
        status, answer = await self.ask("PUT", f"{V1}/send/outsider-{next(_numbers)}", body)
        assert status == 200, answer
        results: dict[str, dict[str, Any]] = answer["pdus"]
        return results

    async def make_membership(self, action: str, room_id: str, user_id: str) -> tuple[RoomVersion, Any]:
        """The rules and the template of a membership in a room of the tested server's."""
        versions = "&".join(f"ver={version}" for version in [*ROOM_VERSIONS, "org.example.7"])
        place = f"{quote(room_id, safe='')}/{quote(user_id, safe='')}"
        status, made = await self.ask("GET", f"{V1}/make_{action}/{place}?{versions}")
        assert status == 200, made
        return ROOM_VERSIONS[made["room_version"]], made["event"]

    def signed(self, rules: RoomVersion, pdu: Mapping[str, Any]) -> Event:
        """A completed template."""
        return parse_event(
            sign_event({**pdu, "origin_server_ts": _now_ms()}, rules, self.name, self.key), rules
        )

    def parsed(self, room: OutsiderRoom, pdu: dict[str, Any]) -> Event:
        """An event as it came."""
        return parse_event(pdu, room.rules)

    async def hand_in(self, endpoint: str, event: Event, *, query: str = "") -> tuple[int, Any]:
        """``PUT`` an event to an endpoint such as ``v2/send_join``."""
        place = f"{quote(event.room_id, safe='')}/{quote(event.event_id, safe='')}"
        return await self.ask("PUT", f"/_matrix/federation/{endpoint}/{place}{query}", event.pdu)

    async def join(self, room_id: str, user_id: str) -> OutsiderRoom:
        """Join a room of the tested server's; the room as it told."""
        rules, made = await self.make_membership("join", room_id, user_id)
        event = self.signed(rules, made)
        status, answer = await self.hand_in("v2/send_join", event)
        assert status == 200, answer
        room = self.rooms.setdefault(room_id, OutsiderRoom(rules, room_id))
        state = [parse_event(pdu, rules) for pdu in answer["state"]]
        room.learn(parse_event(pdu, rules) for pdu in answer["auth_chain"])
        room.learn(state)
        room.state = {each.key: each for each in state}
        room.add(event)
        return room

    async def until(self, what: str, holds: Callable[[], object], patience: float = PATIENCE) -> None:
        """Wait until something holds, looking again at every request."""
        try:
            async with asyncio.timeout(patience):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            heard = [(event.type, event.content) for event in self.received]
            raise AssertionError(f"waited in vain for {what}; heard {heard}") from None

    async def hears(self, room: OutsiderRoom, event_id: str) -> Event:
        """An event, once it was sent here."""
        await self.until(event_id, lambda: event_id in room.known)
        return room.known[event_id]

    # How it is asked.

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        uri, body = request.raw_path, await request.read()
        path = uri.partition("?")[0]
        if path == "/_matrix/key/v2/server":
            return web.json_response(server_keys_response(self.name, [self.key], [], _now_ms()))
        for method, pattern, answer in list(self._routes):
            if method == request.method and (found := pattern.fullmatch(path)):
                asked = Asked(method, uri, body, found.groupdict())
                await self._check_signature(request, asked)
                self.asked.append(asked)
                replied = answer(asked)
                status, reply = replied if isinstance(replied, tuple) else await replied
                self._news.set()
                return web.json_response(reply, status=status)
        self.unexpected.append(f"{request.method} {unquote(path)}")
        self._news.set()
        return web.Response(status=404, text="outsider: nothing listens to this path")

    async def _check_signature(self, request: web.BaseRequest, asked: Asked) -> None:
        signature = parse_authorization(request.headers["Authorization"])
        assert (signature.origin, signature.destination) == (self.tested.server_name, self.name)
        if not self._verify_keys:
            url = f"https://{self.tested.server_name}/_matrix/key/v2/server"
            async with self._http.get(url, ssl=self.tls) as reply:
                keys = (await reply.json())["verify_keys"]
            self._verify_keys = {key_id: key["key"] for key_id, key in keys.items()}
        content = asked.json if asked.body else None
        signed = signed_request(
            signature, method=asked.method, uri=asked.uri, destination=self.name, content=content
        )
        verify_json(signed, signature.origin, signature.key_id, self._verify_keys[signature.key_id])


@asynccontextmanager
async def running_outsider(tested: Server, authority: Authority) -> AsyncIterator[Outsider]:
    """An outsider that can be found by its name."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(authority.certificate, authority.private_key)
    trusting = ssl.create_default_context(cafile=str(authority.ca_file))
    async with aiohttp.ClientSession() as http:
        outsider = Outsider(tested, http, trusting)
        runner = web.ServerRunner(web.Server(outsider.handle))
        await runner.setup()
        try:
            await web.TCPSite(runner, LOOPBACK, 0, ssl_context=tls).start()
            outsider.name = f"localhost:{runner.addresses[0][1]}"
            yield outsider
        finally:
            await runner.cleanup()


def _now_ms() -> int:
    return int(time.time() * 1000)
