"""Servers in memory that speak to each other through their own federation APIs, without a network.

A request goes through the real client, signatures, dispatcher and routes; only the
sockets are left out.  Time stands still until a test moves it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from federation.transactions import ReceiveEdu
from federation.transport import Exchange, WireRequest, unreachable
from federation.wiring import Federation, open_federation, open_federation_api
from homeserver.clock import FakeClock
from homeserver.config import Media
from homeserver.content_repository import wire_content_repository
from homeserver.core import Core, open_core
from homeserver.encryption import wire_encryption
from homeserver.ephemeral import wire_ephemeral
from homeserver.errors import forbidden, not_found
from homeserver.finding import wire_finding
from homeserver.protocol.retention import Lifetimes
from homeserver.protocol.signing import SigningKey, generate_signing_key
from homeserver.ratelimit import RateLimiter
from homeserver.reading import wire_reading
from homeserver.room_actions import wire_room_actions
from homeserver.rooms.new_room import InitialState, NewRoom
from homeserver.rooms.room import Room
from homeserver.rooms.send import Draft
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.rooms import LocalMembership
from homeserver.users.account_data import AccountData
from homeserver.users.openid import OpenIdTokens
from homeserver.users.push_rules import PushRules
from homeserver.users.requester import Requester
from homeserver.web import Dispatcher


@dataclass
class Network:
    """Who can be reached by which name."""

    clock: FakeClock = field(default_factory=FakeClock)
    servers: dict[str, Server] = field(default_factory=dict)
    #: Servers that do not answer.
    down: set[str] = field(default_factory=set)
    #: Every request that arrived: origin, destination, method and path.
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)
    #: Paths, with a server's name before them or not, that are not answered before the event is set.
    held: dict[str, asyncio.Event] = field(default_factory=dict)
    #: Set by every request that arrives.
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def hold(self, path: str) -> asyncio.Event:
        """Keep requests with some path waiting for an answer until the event is set."""
        return self.held.setdefault(path, asyncio.Event())

    async def until_asked_for(self, path: str) -> None:
        """Wait until a request with some path has arrived."""
        while not self.asked_for(path):
            self.arrived.clear()
            await self.arrived.wait()

    async def settle(self) -> None:
        """Wait until no server has anything more to say."""
        asked = -1
        while len(self.asked) > asked:
            asked = len(self.asked)
            for server in self.servers.values():
                await server.sender.idle()
                if all(released.is_set() for released in self.held.values()):
                    await server.federation.rooms.completion.idle()

    def asked_for(self, path: str) -> int:
        """How often some path was asked for."""
        return sum(path in asked[3] for asked in self.asked)


def wire(network: Network, origin: str) -> Exchange:
    """Hands a server's requests straight to the dispatcher of the server that is asked."""

    async def exchange(request: WireRequest) -> tuple[int, bytes]:
        server = network.servers.get(request.server_name)
        if server is None or request.server_name in network.down:
            raise unreachable(request.server_name, "It is not there")
        path = request.uri.partition("?")[0]
        network.asked.append((origin, request.server_name, request.method, path))
        network.arrived.set()
        for held, released in network.held.items():
            if held in request.server_name + path:
                await released.wait()
        return await server.exchange(request.method, request.uri, request.headers, request.body)

    return exchange


class _Http:
    """What the dispatcher reads of a request."""

    def __init__(self, method: str, uri: str, headers: Mapping[str, str], body: bytes | None) -> None:
        self.method = method
        self.raw_path = uri
        self.headers = dict(headers)
        self.remote = "192.0.2.1"
        self.transport = None
        self.keep_alive = False  # so that what is answered has a body to look at
        self.body_exists = body is not None
        self.content_length = len(body or b"")
        self.content = asyncio.StreamReader()
        self.content.readany = lambda: self.content.read(1 << 20)  # type: ignore[attr-defined]
        self.content.is_eof = lambda: False  # type: ignore[attr-defined]
        self.content.feed_data(body or b"")
        self.content.feed_eof()
        self.writer = type("Writer", (), {"output_size": 0})()


@dataclass
class NoProfiles:
    """Local users as a server's profile store knows them."""

    users: set[str]

    async def of(self, user_id: str) -> dict[str, Any]:
        return {}

    async def name_and_avatar(self, user_id: str) -> tuple[str | None, str | None]:
        return None, None

    async def local_profile(self, user_id: str, field: str | None = None) -> dict[str, Any]:
        if user_id not in self.users:
            raise not_found("There is no such user")
        return {"displayname": user_id[1:]}


class Server:
    """A homeserver's rooms and its federation API."""

    def __init__(self, network: Network, core: Core, federation: Federation, closing: AsyncExitStack) -> None:
        self.network = network
        self.core = core
        self.federation = federation
        self._closing = closing
        self.name = core.server_name
        self.db = core.db
        self.key = core.signing_key
        self.events = core.events
        self.rooms = core.rooms
        self.states = core.states
        self.send = core.send
        self.notifier = core.notifier
        self.client = federation.client
        self.keyring = federation.keyring
        self.sender = federation.sender
        self.inbound = federation.rooms.inbound
        self.backfill = federation.rooms.backfill
        self.encryption = wire_encryption(core, federation.sender, federation.client)
        self.users: set[str] = set()
        self.profiles = NoProfiles(self.users)
        actions = wire_room_actions(core, self.profiles, federation.rooms.remote_join)
        self.upgrade = actions.upgrade
        self.directory = actions.directory
        self.openid = OpenIdTokens(core.db, core.clock)
        #: What identity servers say of their keys.
        self.valid_keys: dict[str, bool] = {}
        ephemeral = wire_ephemeral(core, self.sender, presence=False)
        account_data = AccountData(core.db, core.positions, core.account_data_positions, _unheard)
        rules = PushRules(account_data)
        self.reading = wire_reading(core, rules, ephemeral, self.backfill, self.encryption)
        self.finding = wire_finding(core, self.reading, self.client, self.backfill)
        self.membership = actions.membership
        self.create = actions.create
        #: EDUs that came: origin, type and content.
        self.edus: list[tuple[str, str, dict[str, Any]]] = []
        self.dispatcher: Dispatcher

    @classmethod
    async def open(
        cls,
        network: Network,
        name: str,
        db: Database,
        *,
        key: SigningKey | None = None,
        edu_receivers: Mapping[str, ReceiveEdu] | None = None,
        patience: float = 20.0,
        lists_rooms: bool = True,
        lifetimes: Lifetimes | None = None,
        **federation_options: Any,
    ) -> Server:
        """A server over ``db``, known to the network by its name; a restarted one keeps its key."""
        closing = AsyncExitStack()
        key = key or generate_signing_key("a_test")
        core = await open_core(db, network.clock, name, key, lifetimes=lifetimes)
        closing.push_async_callback(core.background.close)
        federation = await open_federation(
            core, wire(network, name), everybody, closing, **federation_options
        )
        server = cls(network, core, federation, closing)
        closing.callback(server.encryption.remote_lists.fetching.close)
        await server.encryption.start()
        server.dispatcher = Dispatcher(
            await open_federation_api(
                core,
                federation,
                is_local_user=server.is_local_user,
                profiles=server.profiles,
                finding=server.finding,
                membership=server.membership,
                openid=server.openid,
                is_key_valid=server.is_key_valid,
                lists_rooms=lists_rooms,
                encryption=server.encryption,
                edu_receivers=edu_receivers
                or {**_recording(server.edus), **server.encryption.edu_receivers()},
                content=wire_content_repository(core, Media(), None),
                version=lambda: "0",
                patience=patience,
            ),
            authenticate_user=_nobody,
            authenticate_server=federation.authentication.authenticate_server,
            rate_limiter=RateLimiter({}, core.clock, enabled=False),
        )
        network.servers[name] = server
        return server

    async def close(self) -> None:
        """Stop; the database stays open."""
        await self._closing.aclose()

    async def idle(self) -> None:
        """Wait until what goes on in the background has ended."""
        await asyncio.gather(*self.core.background._tasks)

    async def restarted(self) -> Server:
        """The same server after a clean stop."""
        await self.close()
        return await Server.open(self.network, self.name, self.db, key=self.key)

    async def answer(
        self, method: str, uri: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, Any]:
        """Status and JSON of a request."""
        status, reply = await self.exchange(method, uri, headers, body)
        return status, json.loads(reply)

    async def exchange(
        self, method: str, uri: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        """Status and body of the response to a request."""
        response = await self.dispatcher(_Http(method, uri, headers, body))  # type: ignore[arg-type]
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        return response.status, response.body

    async def is_key_valid(self, url: str, public_key: str) -> bool:
        """Identity servers that were made known by ``valid_keys``."""
        return self.valid_keys.get(url, False)

    async def is_local_user(self, user_id: str) -> bool:
        """Whether somebody was made known by ``user``."""
        return user_id in self.users

    def user(self, name: str) -> str:
        """A local user, who exists from now on."""
        user_id = f"@{name}:{self.name}"
        self.users.add(user_id)
        return user_id

    async def public_room(self, creator: str, *, version: str | None = None, **fields: Any) -> str:
        """A room that everybody may join."""
        return await self.create.create(
            creator, NewRoom(preset="public_chat", room_version=version, **fields)
        )

    async def private_room(self, creator: str, *, version: str | None = None, **fields: Any) -> str:
        """A room for those who are invited."""
        return await self.create.create(
            creator, NewRoom(preset="private_chat", room_version=version, **fields)
        )

    async def room_with_join_rule(self, creator: str, content: dict[str, Any], version: str = "11") -> str:
        """A private room with other join rules."""
        rules = InitialState("m.room.join_rules", content)
        return await self.private_room(creator, version=version, initial_state=[rules])

    async def join(self, user_id: str, room_id: str, *servers: Server) -> None:
        """Join through other servers."""
        await self.membership.join(user_id, room_id, [server.name for server in servers])

    async def say(self, room_id: str, sender: str, body: str) -> StoredEvent:
        """A text message."""
        return await self.send.send(
            room_id, Draft(sender, "m.room.message", {"msgtype": "m.text", "body": body})
        )

    async def set_state(
        self, room_id: str, sender: str, type_: str, content: Mapping[str, Any], state_key: str = ""
    ) -> StoredEvent:
        """A state event."""
        return await self.send.send(room_id, Draft(sender, type_, content, state_key=state_key))

    async def room(self, room_id: str) -> Room:
        """The room in memory."""
        return await self.rooms.get(room_id)

    async def membership_of(self, room_id: str, user_id: str) -> str | None:
        """A membership in the room's state here."""
        member = await self.states.member(await self.room(room_id), user_id)
        return member.event.content["membership"] if member else None

    async def local_membership(self, room_id: str, user_id: str) -> LocalMembership | None:
        """What a local user sees of the room."""
        room = await self.rooms.find(room_id)
        return await room_storage.local_membership(self.db.read, user_id, room.nid) if room else None

    async def bodies(self, room_id: str) -> list[str]:
        """The newest text messages, oldest first."""
        recent = (await self.room(room_id)).recent
        return [each.event.content["body"] for each in recent if each.event.type == "m.room.message"]

    async def state_ids(self, room_id: str) -> dict[tuple[str, str], str]:
        """The current state as event ids, once all of it is here."""
        room = await self.rooms.whole(await self.room(room_id))
        events = await self.states.events_at(room, room.state_ver)
        return {key: stored.id for key, stored in events.items()}


def _unheard(pos: int, user_id: str) -> None:
    """Nobody waits for account data here."""


def everybody(_server_name: str) -> bool:
    """Whom these servers talk with."""
    return True


async def _nobody(headers: Mapping[str, str], query: Mapping[str, str]) -> Requester:
    raise forbidden("No users here")


def _recording(received: list[tuple[str, str, dict[str, Any]]]) -> dict[str, ReceiveEdu]:
    """Receivers that put origin, type and content into a list."""

    def receiver(edu_type: str) -> ReceiveEdu:
        async def receive(origin: str, content: dict[str, Any]) -> None:
            received.append((origin, edu_type, content))

        return receive

    return {each: receiver(each) for each in ("m.typing", "m.receipt", "m.presence", "m.direct_to_device")}
