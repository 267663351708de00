"""Servers in memory that speak to each other through their own federation APIs, without a network.

A request goes through the real client, signatures, dispatcher and routes; only the
sockets are left out.  Time stands still until a test moves it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from aiohttp import web

from federation.auth import ServerAuthentication
from federation.client import FederationClient
from federation.event_signatures import KeyringVerifier
from federation.events import Events
from federation.invites import InviteEndpoints
from federation.joins import Joins
from federation.key_routes import KeyRoutes
from federation.key_store import DatabaseKeyStore
from federation.keyring import Keyring
from federation.queries import Queries
from federation.remote_rooms import FederationRooms
from federation.routes import routes
from federation.sender import Sender
from federation.signatures import authorization_header
from federation.state_replies import StateReplies
from federation.transactions import ReceiveEdu, Transactions
from federation.transport import Query, Transport, malformed, unreachable
from federation.visible_events import VisibleEvents
from homeserver.clock import FakeClock
from homeserver.errors import RemoteError, forbidden, not_found
from homeserver.protocol.canonical_json import encode
from homeserver.protocol.signing import SigningKey, generate_signing_key
from homeserver.ratelimit import RateLimiter
from homeserver.rooms.adopt import Adoption
from homeserver.rooms.backfill import Backfill
from homeserver.rooms.create import CreateRoom
from homeserver.rooms.event_cache import EventCache
from homeserver.rooms.inbound import Inbound
from homeserver.rooms.invites import Invites
from homeserver.rooms.membership import Membership
from homeserver.rooms.missing import Missing
from homeserver.rooms.new_room import InitialState, NewRoom
from homeserver.rooms.outliers import Outliers
from homeserver.rooms.remote_join import RemoteJoin
from homeserver.rooms.resolution import Resolution
from homeserver.rooms.restricted_join import RestrictedJoin
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, Send
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.timeline import Timeline
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.storage.keys import Keys
from homeserver.storage.numbers import Sequence as NumberSequence
from homeserver.storage.rooms import LocalMembership
from homeserver.sync.notifier import Notifier
from homeserver.tasks import Background
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

    async def settle(self) -> None:
        """Wait until no server has anything more to say."""
        asked = -1
        while len(self.asked) > asked:
            asked = len(self.asked)
            for server in self.servers.values():
                await server.sender.idle()

    def asked_for(self, path: str) -> int:
        """How often some path was asked for."""
        return sum(path in asked[3] for asked in self.asked)


class Wire(Transport):
    """A transport that hands requests straight to the other server's dispatcher."""

    def __init__(self, network: Network, server_name: str, key: SigningKey) -> None:
        self._network = network
        self._name = server_name
        self._signing_key = key

    async def send(
        self,
        method: str,
        server_name: str,
        path: str,
        *,
        query: Query | None = None,
        content: Mapping[str, Any] | bytes | None = None,
        timeout: float = 30.0,
        max_bytes: int = 0,
        signed: bool = True,
    ) -> Any:
        server = self._network.servers.get(server_name)
        if server is None or server_name in self._network.down:
            raise unreachable(server_name, "It is not there")
        uri = path if not query else f"{path}?{urlencode(query, doseq=True, quote_via=quote, safe='')}"
        body = content if isinstance(content, bytes) or content is None else encode(content)
        headers = {}
        if signed:
            headers["Authorization"] = authorization_header(
                method=method,
                uri=uri,
                origin=self._name,
                destination=server_name,
                body=body,
                key=self._signing_key,
            )
        self._network.asked.append((self._name, server_name, method, path))
        status, reply = await server.answer(method, uri, headers, body)
        if status != 200:
            raise RemoteError(
                server_name,
                reply.get("error", ""),
                reachable=True,
                transient=status >= 500,
                status=status,
                errcode=reply.get("errcode"),
            )
        if reply is None:
            raise malformed(server_name, "The response is not JSON")
        return reply


class _Http:
    """What the dispatcher reads of a request."""

    def __init__(self, method: str, uri: str, headers: Mapping[str, str], body: bytes | None) -> None:
        self.method = method
        self.raw_path = uri
        self.headers = dict(headers)
        self.remote = "192.0.2.1"
        self.transport = None
        self.body_exists = body is not None
        self.content_length = len(body or b"")
        self.content = asyncio.StreamReader()
        self.content.readany = lambda: self.content.read(1 << 20)  # type: ignore[attr-defined]
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


@dataclass
class Server:
    """A homeserver's rooms and its federation API."""

    name: str
    network: Network
    db: Database
    key: SigningKey
    users: set[str]
    events: EventCache
    rooms: Rooms
    states: StateStore
    timeline: Timeline
    send: Send
    inbound: Inbound
    outliers: Outliers
    backfill: Backfill
    membership: Membership
    create: CreateRoom
    client: FederationClient
    keyring: Keyring
    verifier: KeyringVerifier
    notifier: Notifier
    sender: Sender
    dispatcher: Dispatcher
    background: Background
    edus: list[tuple[str, str, dict[str, Any]]]

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
    ) -> Server:
        """A server over ``db``, known to the network by its name; a restarted one keeps its key."""
        clock, key, background = network.clock, key or generate_signing_key("a_test"), Background()
        numbers = {
            each: await NumberSequence.open(db, each)
            for each in ("positions", "events", "rooms", "keys", "overlays", "outbox")
        }
        events, keys = EventCache(db), Keys(db.read, db.scan, numbers["keys"])
        notifier = Notifier(numbers["positions"].last)
        states = StateStore(db, keys, events, numbers["overlays"])
        resolution = Resolution(db, keys, events, states)
        rooms = Rooms(db, events, numbers["rooms"], name)
        timeline = Timeline(
            db=db,
            keys=keys,
            events=events,
            states=states,
            resolution=resolution,
            positions=numbers["positions"],
            event_nids=numbers["events"],
            server_name=name,
            announce=notifier.announce_events,
            background=background,
        )
        send = Send(
            rooms=rooms, states=states, timeline=timeline, clock=clock, server_name=name, signing_key=key
        )
        client = FederationClient(Wire(network, name, key))
        keyring = Keyring(
            server_name=name,
            own_keys=[key],
            store=DatabaseKeyStore(db),
            fetch=client.get_server_keys,
            clock=clock,
        )
        verifier = KeyringVerifier(keyring)
        remote = FederationRooms(client)
        outliers, missing = Outliers(db, keys, events, numbers["events"]), Missing(remote, events)
        inbound = Inbound(
            rooms=rooms,
            events=events,
            states=states,
            resolution=resolution,
            timeline=timeline,
            outliers=outliers,
            missing=missing,
            verifier=verifier,
        )
        adoption = Adoption(
            keys=keys,
            outliers=outliers,
            timeline=timeline,
            positions=numbers["positions"],
            event_nids=numbers["events"],
        )
        remote_join = RemoteJoin(
            db=db,
            rooms=rooms,
            send=send,
            inbound=inbound,
            adoption=adoption,
            remote=remote,
            positions=numbers["positions"],
            announce=notifier.announce,
            clock=clock,
            server_name=name,
            signing_key=key,
        )
        backfill = Backfill(
            db=db,
            keys=keys,
            rooms=rooms,
            events=events,
            states=states,
            timeline=timeline,
            inbound=inbound,
            missing=missing,
            remote=remote,
            event_nids=numbers["events"],
            server_name=name,
        )
        users: set[str] = set()
        profiles = NoProfiles(users)
        membership = Membership(
            db=db,
            rooms=rooms,
            states=states,
            timeline=timeline,
            send=send,
            profiles=profiles,
            remote=remote_join,
            server_name=name,
        )
        create = CreateRoom(
            db=db,
            rooms=rooms,
            timeline=timeline,
            membership=membership,
            profiles=profiles,
            clock=clock,
            server_name=name,
            signing_key=key,
        )
        sender = Sender(
            db=db,
            events=events,
            client=client,
            outbox_positions=numbers["outbox"],
            clock=clock,
            server_name=name,
            allows=lambda server: True,
        )
        notifier.listeners.append(sender.new_events)
        received: list[tuple[str, str, dict[str, Any]]] = []
        replies = StateReplies(db, states)
        invites = Invites(db=db, rooms=rooms, positions=numbers["positions"], announce=notifier.announce)

        async def is_local_user(user_id: str) -> bool:
            return user_id in users

        authentication = ServerAuthentication(
            server_name=name, keyring=keyring, heard_from=sender.peer_is_alive, allows=lambda server: True
        )
        table = routes(
            keys=KeyRoutes(
                server_name=name,
                keys=[key],
                old_keys=[],
                fetch=client.get_server_keys,
                allows=lambda server: True,
                clock=clock,
            ),
            transactions=Transactions(
                db=db,
                rooms=rooms,
                inbound=inbound,
                invites=invites,
                edu_receivers=edu_receivers or _recording(received),
                background=background,
                clock=clock,
                patience=patience,
            ),
            events=Events(
                db=db,
                rooms=rooms,
                events=events,
                replies=replies,
                visible=VisibleEvents(states=states, events=events, keys=keys),
                clock=clock,
                server_name=name,
            ),
            joins=Joins(
                rooms=rooms,
                send=send,
                inbound=inbound,
                states=states,
                restricted=RestrictedJoin(db, states, name),
                replies=replies,
                server_name=name,
                signing_key=key,
            ),
            invites=InviteEndpoints(
                rooms=rooms,
                inbound=inbound,
                invites=invites,
                is_local_user=is_local_user,
                server_name=name,
                signing_key=key,
            ),
            queries=Queries(db=db, rooms=rooms, profiles=profiles, server_name=name, version="0"),
        )
        dispatcher = Dispatcher(
            table,
            authenticate_user=_nobody,
            authenticate_server=authentication.authenticate_server,
            rate_limiter=RateLimiter({}, clock, enabled=False),
        )
        await sender.start(notifier.position)
        server = cls(
            name=name,
            network=network,
            db=db,
            key=key,
            users=users,
            events=events,
            rooms=rooms,
            states=states,
            timeline=timeline,
            send=send,
            inbound=inbound,
            outliers=outliers,
            backfill=backfill,
            membership=membership,
            create=create,
            client=client,
            keyring=keyring,
            verifier=verifier,
            notifier=notifier,
            sender=sender,
            dispatcher=dispatcher,
            background=background,
            edus=received,
        )
        network.servers[name] = server
        return server

    async def close(self) -> None:
        """Stop; the database stays open."""
        await self.sender.close()
        await self.background.close()
        await self.keyring.close()
        await self.verifier.close()

    async def restarted(self) -> Server:
        """The same server after a clean stop."""
        await self.close()
        return await Server.open(self.network, self.name, self.db, key=self.key)

    async def answer(
        self, method: str, uri: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[int, Any]:
        """Status and JSON of a request."""
        response = await self.dispatcher(_Http(method, uri, headers, body))  # type: ignore[arg-type]
        assert isinstance(response, web.Response)
        assert isinstance(response.body, bytes)
        return response.status, json.loads(response.body)

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
        """The current state as event ids."""
        room = await self.room(room_id)
        events = await self.states.events_at(room, room.state_ver)
        return {key: stored.id for key, stored in events.items()}


async def _nobody(headers: Mapping[str, str], query: Mapping[str, str]) -> Requester:
    raise forbidden("No users here")


def _recording(received: list[tuple[str, str, dict[str, Any]]]) -> dict[str, ReceiveEdu]:
    """Receivers that put origin, type and content into a list."""

    def receiver(edu_type: str) -> ReceiveEdu:
        async def receive(origin: str, content: dict[str, Any]) -> None:
            received.append((origin, edu_type, content))

        return receive

    return {each: receiver(each) for each in ("m.typing", "m.receipt", "m.presence", "m.direct_to_device")}
