"""A world with people who sync: ``World``, and over it all that clients read and are told."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from client_api.routes import client_routes
from client_api.wiring import wire_client_api
from federation.waiting_edus import said_of
from homeserver.application_services import wire_application_services
from homeserver.config import Media
from homeserver.config.push import Push
from homeserver.content_repository import wire_content_repository
from homeserver.encryption import wire_encryption
from homeserver.ephemeral import wire_ephemeral
from homeserver.finding import wire_finding
from homeserver.people import wire_people
from homeserver.protocol.filters import Filter
from homeserver.protocol.retention import Lifetimes
from homeserver.push.unsubscribing import Unsubscribing
from homeserver.pushing import wire_pushers
from homeserver.reading import wire_reading
from homeserver.rooms.room import Room
from homeserver.searching import Searching
from homeserver.storage import devices
from homeserver.storage.database import Database, Transaction
from homeserver.storage.events import StoredEvent
from homeserver.storage.moments import Direction
from homeserver.storage.receipts import Receipt
from homeserver.sync.positions import SyncToken
from homeserver.sync.request import SyncRequest
from homeserver.users.passwords import Passwords
from homeserver.users.registration import Registration, RegistrationMode
from homeserver.web import Route
from tests.world import SERVER, World, unreachable


@dataclass
class SentEdus:
    """EDUs that would have gone to other servers."""

    sent: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def send_edu(self, destination: str, edu_type: str, content: dict[str, Any], durable: bool) -> None:
        self.sent.append((destination, edu_type, content))

    def durable(self, edus: Iterable[tuple[str, str, Mapping[str, Any]]]) -> _Stored:
        return _Stored(self, [(server, edu_type, dict(content)) for server, edu_type, content in edus])

    def send_typing(self, room: Room, user_id: str, typing: bool) -> None:
        content = {"room_id": room.room_id, "user_id": user_id, "typing": typing}
        self._send_all(room.servers, "m.typing", content)

    def send_presence(self, servers: Collection[str], update: Mapping[str, Any]) -> None:
        self._send_all(servers, "m.presence", {"push": [dict(update)]})

    def send_receipts(self, room: Room, receipts: Sequence[Receipt]) -> None:
        for one in receipts:
            said = said_of(one.event_id, one.ts, one.thread_id)
            self._send_all(room.servers, "m.receipt", {room.room_id: {"m.read": {one.user_id: said}}})

    def _send_all(self, servers: Collection[str], edu_type: str, content: dict[str, Any]) -> None:
        for server in servers:
            if server != SERVER:
                self.send_edu(server, edu_type, content, durable=False)


@dataclass
class _Stored:
    """EDUs that wait for what they are stored with."""

    edus: SentEdus
    sent: list[tuple[str, str, dict[str, Any]]]

    async def store(self, tx: Transaction) -> None:
        return

    def send(self) -> None:
        self.edus.sent.extend(self.sent)


class NoRemoteKeys:
    """Other servers' users, who have no keys."""

    async def user_devices(self, server_name: str, user_id: str, *, timeout: float) -> dict[str, Any]:
        return {"stream_id": 0, "devices": []}

    async def query_user_keys(
        self, server_name: str, device_keys: Mapping[str, Sequence[str]], *, timeout: float
    ) -> dict[str, Any]:
        return {"device_keys": {}}

    async def claim_user_keys(
        self, server_name: str, one_time_keys: Mapping[str, Mapping[str, str]], *, timeout: float
    ) -> dict[str, Any]:
        return {"one_time_keys": {}}


class AskedForHistory:
    """Notes what history other servers would be asked for; they have none."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    async def fill(self, room: Room, low: int, high: int, limit: int) -> bool:
        self.asked.append((low, high))
        return False

    async def bring(
        self, room: Room, ts: int, direction: Direction, low: int, high: int
    ) -> StoredEvent | None:
        return None


class NoLists:
    """Other servers, none of which tells of its rooms."""

    async def public_rooms(self, server_name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        raise unreachable(server_name)

    async def hierarchy(
        self, server_name: str, room_id: str, *, suggested_only: bool = False
    ) -> dict[str, Any]:
        raise unreachable(server_name)


class NoHttp:
    """The way out to application services, of which there are none."""

    async def get_json(self, url: str, **_: Any) -> tuple[int, Any]:
        raise unreachable(url)

    async def put_json(self, url: str, body: Any, **_: Any) -> tuple[int, Any]:
        raise unreachable(url)

    async def post_json(self, url: str, body: Any, **_: Any) -> tuple[int, Any]:
        raise unreachable(url)


class SyncServer:
    """A world, what is passed on in it beside events, and what its people read."""

    def __init__(self, world: World, *, presence: bool = False, thread_subscriptions: bool = False) -> None:
        self.world = world
        self.notifier = world.core.notifier
        self.edus = SentEdus()
        self.elsewhere = AskedForHistory()
        self.ephemeral = wire_ephemeral(world.core, self.edus, presence=presence)
        self.receipts = self.ephemeral.receipts
        self.typing = self.ephemeral.typing
        self.presence = self.ephemeral.presence
        self.to_device = self.ephemeral.to_device
        self.encryption = wire_encryption(world.core, self.edus, NoRemoteKeys())
        self.unsubscribing: Unsubscribing | None = None
        self.searching: Searching | None = None
        self.pushers = wire_pushers(world.core, Push(allow_http=True))
        self.people = wire_people(
            world.core,
            registration=Registration(world.db, world.clock, RegistrationMode.CLOSED),
            passwords=Passwords(memory_kib=8, time_cost=1),
            devices=(self.to_device, self.encryption.lists, self.pushers),
            thread_subscriptions=thread_subscriptions,
        )
        self.account_data = self.people.account_data
        self.reading = wire_reading(
            world.core, self.people.push_rules, self.ephemeral, self.elsewhere, self.encryption
        )
        self.finding = wire_finding(world.core, self.reading, NoLists(), self.elsewhere)
        self.visibility = self.reading.visibility
        self.client_events = self.reading.client_events
        self.sync = self.reading.sync

    @classmethod
    async def open(
        cls,
        db: Database,
        *,
        lifetimes: Lifetimes | None = None,
        keep_redacted_ms: int = 0,
        **settings: bool,
    ) -> SyncServer:
        """A server over ``db``; opened again over the same database it is the server after a restart."""
        world = await World.open(db, lifetimes=lifetimes, keep_redacted_ms=keep_redacted_ms)
        return cls(world, **settings)

    def routes(self) -> list[Route]:
        """The client-server API."""
        api = wire_client_api(
            self.world.core,
            self.people,
            self.world.actions,
            self.ephemeral,
            self.reading,
            encryption=self.encryption,
            content=wire_content_repository(self.world.core, Media(), None),
            finding=self.finding,
            application_services=wire_application_services(
                self.world.core, self.people, self.ephemeral, self.reading, self.encryption, http=NoHttp()
            ),
            pushers=self.pushers,
            unsubscribing=self.unsubscribing,
            searching=self.searching,
        )
        return client_routes(api)

    def client(self, name: str, *, device: str = "PHONE", displayname: str | None = None) -> Client:
        """A person at a client."""
        return Client(self, self.world.user(name, displayname=displayname), device)

    async def add_device(self, user_id: str, device_id: str) -> None:
        """Store a device, so that messages can be sent to it."""

        async def add(tx: Transaction) -> None:
            await devices.add(tx, user_id, device_id, display_name=None, now=0)

        await self.world.db.write(add)


@dataclass
class Client:
    """A client that syncs and remembers its token; what it saw is kept by room."""

    server: SyncServer
    user_id: str
    device: str = "PHONE"
    token: str | None = None
    seen: defaultdict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))

    async def sync(
        self, *, filter: dict[str, Any] | None = None, timeout: float = 0, **fields: Any
    ) -> dict[str, Any]:
        """The next response, decoded; the token moves on.  ``timeout`` in seconds."""
        request = SyncRequest(
            user_id=self.user_id,
            device_id=self.device,
            filter=Filter.parse(filter or {}),
            since=SyncToken.parse(self.token) if self.token else None,
            timeout_ms=round(timeout * 1000),
            **fields,
        )
        response: dict[str, Any] = orjson.loads(
            orjson.dumps(await self.server.sync.wait_and_collect(request))
        )
        self.token = response["next_batch"]
        for room_id, room in response["rooms"].get("join", {}).items():
            self.seen[room_id] += room["timeline"]["events"]
        return response

    def wait(self, **fields: Any) -> asyncio.Task[dict[str, Any]]:
        """A sync that waits for news."""
        return asyncio.get_running_loop().create_task(self.sync(timeout=30, **fields))


def bodies(section: dict[str, Any]) -> list[str]:
    """The texts in a room's timeline."""
    events = section["timeline"]["events"]
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


def keys(section: dict[str, Any], name: str = "state") -> set[tuple[str, str]]:
    """What a room's state section tells of."""
    return {(event["type"], event["state_key"]) for event in section[name]["events"]}
