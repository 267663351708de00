"""A homeserver's rooms in one process, for tests that read like the story they tell.

``World`` is the core over a database a fixture opened, with a clock that stands still and
nobody on the other side of the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from homeserver.clock import FakeClock
from homeserver.core import Core, open_core
from homeserver.errors import RemoteError
from homeserver.protocol.auth_rules import auth_types_for, check_against_state
from homeserver.protocol.events import Event
from homeserver.protocol.retention import Lifetimes
from homeserver.protocol.signing import generate_signing_key
from homeserver.room_actions import wire_room_actions
from homeserver.rooms.announcement import NewEvents
from homeserver.rooms.compose import template
from homeserver.rooms.new_room import InitialState, NewRoom, Preset
from homeserver.rooms.room import Room
from homeserver.rooms.send import Draft
from homeserver.rooms.timeline import Addition
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent

SERVER = "here.example"
ELSEWHERE = "elsewhere.example"

_NOTHING: Mapping[str, Any] = {}


@dataclass
class KnownProfiles:
    """Profiles as the test sets them."""

    names: dict[str, str] = field(default_factory=dict)
    avatars: dict[str, str] = field(default_factory=dict)

    async def name_and_avatar(self, user_id: str) -> tuple[str | None, str | None]:
        return self.names.get(user_id), self.avatars.get(user_id)


@dataclass
class NobodyElse:
    """Other servers, none of which can be reached; what they were asked for is kept."""

    asked: list[tuple[Any, ...]] = field(default_factory=list)
    aliases: dict[str, tuple[str, list[str]]] = field(default_factory=dict)

    async def join(self, room_id: str, servers: Sequence[str], user_id: str, content: dict[str, Any]) -> None:
        self.asked.append(("join", room_id, list(servers), user_id, content))
        raise unreachable(servers[0])

    async def leave(self, room: Room, servers: Sequence[str], user_id: str, content: dict[str, Any]) -> None:
        self.asked.append(("leave", room.room_id, list(servers), user_id, content))

    async def knock(
        self, room_id: str, servers: Sequence[str], user_id: str, content: dict[str, Any]
    ) -> None:
        self.asked.append(("knock", room_id, list(servers), user_id, content))
        raise unreachable(servers[0])

    async def sign_invite(self, room: Room, event: Event, invite_room_state: list[dict[str, Any]]) -> Event:
        self.asked.append(("invite", room.room_id, event.state_key, invite_room_state))
        raise unreachable(ELSEWHERE)

    async def resolve_alias(self, room_alias: str) -> tuple[str, list[str]]:
        if room_alias not in self.aliases:
            raise unreachable(ELSEWHERE)
        return self.aliases[room_alias]


def unreachable(server_name: str) -> RemoteError:
    return RemoteError(server_name, "no route to host", reachable=False, transient=True)


class World:
    """The core of a server and what people do to rooms; ``announced`` is what readers were told of."""

    def __init__(self, core: Core, clock: FakeClock, remote: NobodyElse) -> None:
        self.core = core
        self.clock = clock
        self.db = core.db
        self.key = core.signing_key
        self.positions = core.positions
        self.event_nids = core.event_nids
        self.events = core.events
        self.keys = core.keys
        self.states = core.states
        self.rooms = core.rooms
        self.timeline = core.timeline
        self.send = core.send
        self.background = core.background
        self.profiles = KnownProfiles()
        self.remote = remote
        self.actions = wire_room_actions(core, self.profiles, remote)
        self.membership = self.actions.membership
        self.create = self.actions.create
        self.directory = self.actions.directory
        self.upgrade = self.actions.upgrade
        self.announced: list[NewEvents] = []
        core.notifier.listeners.append(self.announced.append)

    @classmethod
    async def open(
        cls,
        db: Database,
        *,
        remote: NobodyElse | None = None,
        lifetimes: Lifetimes | None = None,
        keep_redacted_ms: int = 0,
    ) -> World:
        """A world over ``db``; opened again over the same database it is the server after a restart."""
        clock = FakeClock()
        core = await open_core(
            db,
            clock,
            SERVER,
            generate_signing_key("a_test"),
            lifetimes=lifetimes,
            keep_redacted_ms=keep_redacted_ms,
        )
        return cls(core, clock, remote or NobodyElse())

    async def reopen(self) -> World:
        """The server after a restart: nothing in memory, the same database."""
        return await World.open(self.db, remote=self.remote)

    def user(self, name: str, *, displayname: str | None = None) -> str:
        """A local user's id."""
        user_id = f"@{name}:{SERVER}"
        if displayname is not None:
            self.profiles.names[user_id] = displayname
        return user_id

    async def room(self, creator: str, wish: NewRoom) -> WorldRoom:
        """A room as a ``/createRoom`` request asks for it."""
        return WorldRoom(self, await self.create.create(creator, wish))

    async def public_room(self, creator: str, *, version: str | None = None, **fields: Any) -> WorldRoom:
        """A room that everybody may join."""
        return await self._preset_room("public_chat", creator, version, fields)

    async def private_room(self, creator: str, *, version: str | None = None, **fields: Any) -> WorldRoom:
        """A room for those who are invited."""
        return await self._preset_room("private_chat", creator, version, fields)

    async def restricted_room(
        self, creator: str, allow: WorldRoom, *, version: str | None = None
    ) -> WorldRoom:
        """A room that the members of another may join."""
        rule = {
            "join_rule": "restricted",
            "allow": [{"type": "m.room_membership", "room_id": allow.room_id}],
        }
        return await self.private_room(
            creator, version=version, initial_state=[InitialState("m.room.join_rules", rule)]
        )

    async def _preset_room(
        self, preset: Preset, creator: str, version: str | None, fields: Mapping[str, Any]
    ) -> WorldRoom:
        return await self.room(creator, NewRoom(preset=preset, room_version=version, **fields))


@dataclass
class WorldRoom:
    """A room by its id, and what people do in it."""

    world: World
    room_id: str

    async def live(self) -> Room:
        """The room in memory."""
        return await self.world.rooms.get(self.room_id)

    async def join(self, user_id: str) -> None:
        await self.world.membership.join(user_id, self.room_id)

    async def leave(self, user_id: str) -> None:
        await self.world.membership.leave(user_id, self.room_id)

    async def invite(self, sender: str, target: str) -> StoredEvent:
        return await self.world.membership.invite(sender, self.room_id, target)

    async def send(self, sender: str, body: str) -> StoredEvent:
        """A text message."""
        return await self.send_event(sender, "m.room.message", {"msgtype": "m.text", "body": body})

    async def send_event(self, sender: str, type_: str, content: Mapping[str, Any]) -> StoredEvent:
        return await self.world.send.send(self.room_id, Draft(sender, type_, content))

    async def set_state(
        self, sender: str, type_: str, content: Mapping[str, Any], state_key: str = ""
    ) -> StoredEvent:
        return await self.world.send.send(self.room_id, Draft(sender, type_, content, state_key=state_key))

    async def redact(self, sender: str, event_id: str) -> StoredEvent:
        draft = Draft(sender, "m.room.redaction", {}, redacts=event_id)
        return await self.world.send.send(self.room_id, draft)

    async def append_after(
        self, parents: Sequence[StoredEvent], draft: Draft, *, flags: int = 0
    ) -> StoredEvent:
        """Put an event on top of earlier ones that share one state, as a peer might.

        Raises ``NotAllowed`` when that state does not allow it.
        """
        return await self.append(await self.compose_after(parents, draft, flags=flags))

    async def append(self, addition: Addition) -> StoredEvent:
        """Append what ``compose_after`` made."""
        async with self.world.rooms.lock(self.room_id) as room:
            return await self.world.timeline.append(room, addition)

    async def compose_after(
        self, parents: Sequence[StoredEvent], draft: Draft, *, flags: int = 0
    ) -> Addition:
        """An event that is not in the room yet, on top of earlier ones that share one state."""
        world, parent = self.world, parents[0]
        assert parent.state_after is not None
        async with world.rooms.lock(self.room_id) as room:
            keys = auth_types_for(
                room.rules,
                type=draft.type,
                sender=draft.sender,
                state_key=draft.state_key,
                content=draft.content,
            )
            found = {key: await world.states.event_at(room, parent.state_after, key) for key in keys}
            state = {key: stored for key, stored in found.items() if stored is not None}
            pdu = template(
                rules=room.rules,
                room_id=self.room_id,
                sender=draft.sender,
                type=draft.type,
                state_key=draft.state_key,
                content=draft.content,
                prev_events=[one.event for one in parents],
                auth_events=[stored.event for stored in state.values()],
                now_ms=world.clock.now_ms(),
                redacts=draft.redacts,
            )
            event = world.send.sealed(pdu, room)
            state.setdefault(("m.room.create", ""), room.create)

            def lookup(type_: str, state_key: str) -> Event | None:
                stored = state.get((type_, state_key))
                return stored.event if stored else None

            check_against_state(room.rules, event, lookup)
            return Addition(
                event=event,
                auth_nids=tuple(state[key].nid for key in keys if key in state),
                state_before=parent.state_after,
                flags=flags,
            )

    async def state(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The whole current state: contents by ``(type, state_key)``, as the database has it."""
        room = await self.live()
        events = await self.world.states.events_at(room, room.state_ver)
        return {key: stored.event.content for key, stored in events.items()}

    async def content(self, type_: str, state_key: str = "") -> dict[str, Any] | None:
        """The content of one piece of current state."""
        room = await self.live()
        stored = await self.world.states.event_at(room, room.state_ver, (type_, state_key))
        return stored.event.content if stored else None

    async def membership(self, user_id: str) -> str | None:
        """A user's membership in the room's state."""
        content = await self.content("m.room.member", user_id)
        return content["membership"] if content else None

    async def timeline(self) -> list[StoredEvent]:
        """The newest events, oldest first."""
        return list((await self.live()).recent)
