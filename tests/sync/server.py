"""A world with people who sync: ``World`` and everything in ``homeserver/sync/`` over it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson

from homeserver.protocol.filters import Filter
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.receipts import Receipts
from homeserver.rooms.visibility import Visibility
from homeserver.storage import devices
from homeserver.storage.database import Database, Transaction
from homeserver.sync.client_events import ClientEvents
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.memberships import Memberships
from homeserver.sync.notifier import Notifier
from homeserver.sync.positions import EphemeralPositions, SyncToken
from homeserver.sync.request import SyncRequest
from homeserver.sync.room_section import RoomSections
from homeserver.sync.state_changes import StateChanges
from homeserver.sync.sync import Sync
from homeserver.sync.timeline_window import TimelineWindows
from homeserver.sync.typing import Typing
from homeserver.sync.unread import Unread
from homeserver.users.account_data import AccountData
from homeserver.users.presence import Presence
from homeserver.users.push_rules import PushRules
from homeserver.users.to_device import ToDevice
from tests.world import SERVER, World


@dataclass
class SentEdus:
    """EDUs that would have gone to other servers."""

    sent: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)

    def send_edu(self, destination: str, edu_type: str, content: dict[str, Any], durable: bool) -> None:
        self.sent.append((destination, edu_type, content))


@dataclass
class SyncServer:
    """The parts that serve ``/sync``, wired as ``main.py`` does."""

    world: World
    notifier: Notifier
    edus: SentEdus
    visibility: Visibility
    receipts: Receipts
    typing: Typing
    presence: Presence
    to_device: ToDevice
    account_data: AccountData
    client_events: ClientEvents
    state_changes: StateChanges
    lazy_members: LazyMembers
    sync: Sync

    @classmethod
    async def open(cls, db: Database, *, presence: bool = False) -> SyncServer:
        """A server over ``db``; opened again over the same database it is the server after a restart."""
        world = await World.open(db)
        notifier, edus = Notifier(world.positions.last), SentEdus()
        world.listeners.append(notifier.announce_events)
        ephemeral = EphemeralPositions(world.clock.now_ms())
        visibility = Visibility(db, world.keys, world.events, world.states)
        receipts = Receipts(
            db=db,
            rooms=world.rooms,
            states=world.states,
            events=world.events,
            positions=world.positions,
            clock=world.clock,
            news=notifier,
            edus=edus,
            server_name=SERVER,
        )
        typing = Typing(
            rooms=world.rooms,
            states=world.states,
            positions=ephemeral,
            clock=world.clock,
            notifier=notifier,
            edus=edus,
            server_name=SERVER,
        )
        people = Presence(
            db=db,
            rooms=world.rooms,
            clock=world.clock,
            news=notifier,
            edus=edus,
            next_position=ephemeral.next,
            server_name=SERVER,
            enabled=presence,
        )
        to_device = ToDevice(
            db=db,
            positions=world.positions,
            clock=world.clock,
            news=notifier,
            edus=edus,
            server_name=SERVER,
        )
        account_data = AccountData(
            db,
            world.positions,
            lambda pos, user_id: notifier.announce(pos, users=(user_id,)),
        )
        rules = PushRules(account_data)
        lazy_members = LazyMembers()
        client_events = ClientEvents(db, world.events, world.states, world.clock)
        state_changes = StateChanges(db, world.keys, world.events, world.states)
        sections = RoomSections(
            db=db,
            visibility=visibility,
            windows=TimelineWindows(db, visibility),
            changes=state_changes,
            client_events=client_events,
            lazy_members=lazy_members,
            unread=Unread(
                db=db,
                events=world.events,
                states=world.states,
                visibility=visibility,
                receipts=receipts.newest,
                rulesets=rules,
                notifier=notifier,
            ),
            typing=typing,
        )
        sync = Sync(
            db=db,
            rooms=world.rooms,
            events=world.events,
            memberships=Memberships(db, world.rooms, visibility, notifier),
            sections=sections,
            lazy_members=lazy_members,
            receipts=receipts,
            typing=typing,
            presence=people,
            to_device=to_device,
            push_rules=rules,
            ignored=IgnoredUsers(db),
            notifier=notifier,
            ephemeral=ephemeral,
        )
        return cls(
            world=world,
            notifier=notifier,
            edus=edus,
            visibility=visibility,
            receipts=receipts,
            typing=typing,
            presence=people,
            to_device=to_device,
            account_data=account_data,
            client_events=client_events,
            state_changes=state_changes,
            lazy_members=lazy_members,
            sync=sync,
        )

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
