"""Another server as the core sees it: PDUs that come in, and answers to what is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from homeserver.protocol.auth_rules import auth_types_for
from homeserver.protocol.event_format import InvalidEvent, read_pdu
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing import generate_signing_key
from homeserver.protocol.unsealing import unseal, unsealed_event
from homeserver.rooms.compose import seal, template
from homeserver.rooms.remote import RemoteRooms
from homeserver.rooms.send import Draft
from homeserver.shared_rooms import wire_shared_rooms
from homeserver.storage.events import StoredEvent
from tests.world import ELSEWHERE, World, unreachable

_KEY = generate_signing_key("a_elsewhere")


class Elsewhere(RemoteRooms):
    """A server that answers from what the test told it, and refuses everything else."""

    def __init__(self, world: World) -> None:
        self.known: dict[str, Event] = {}
        #: What ``/get_missing_events`` answers.
        self.gap: list[Event] = []
        #: What ``/state_ids`` answers, by the event it is asked about.
        self.states: dict[str, list[Event]] = {}
        self.world = world
        shared = wire_shared_rooms(world.core, self, Trusting())
        self.inbound, self.adoption = shared.inbound, shared.adoption
        self.completion = shared.completion

    async def sends(self, event: Event) -> StoredEvent:
        """Have the server under test receive an event."""
        self.known[event.event_id] = event
        return await self.inbound.receive(ELSEWHERE, event.room_id, event.pdu)

    def compose(
        self,
        rules: RoomVersion,
        room_id: str | None,
        prev: Sequence[Event],
        state: Mapping[StateKey, Event],
        draft: Draft,
    ) -> Event:
        """An event of this server's, on top of ``prev`` with ``state`` before it; not judged."""
        keys = auth_types_for(
            rules,
            type=draft.type,
            sender=draft.sender,
            state_key=draft.state_key,
            content=dict(draft.content),
        )
        pdu = template(
            rules=rules,
            room_id=room_id,
            sender=draft.sender,
            type=draft.type,
            state_key=draft.state_key,
            content=draft.content,
            prev_events=prev,
            auth_events=[state[key] for key in keys if key in state],
            now_ms=draft.origin_server_ts or self.world.clock.now_ms(),
            redacts=draft.redacts,
        )
        event = seal(pdu, rules, ELSEWHERE, _KEY)
        self.known[event.event_id] = event
        return event

    def auth_chain(self, events: Iterable[Event]) -> list[Event]:
        """The auth chain of events this server knows, earlier ones first."""
        chain: dict[str, Event] = {}
        pending = [auth for event in events for auth in event.auth_events]
        while pending:
            event = self.known[pending.pop()]
            if event.event_id not in chain:
                chain[event.event_id] = event
                pending += event.auth_events
        return sorted(chain.values(), key=lambda event: event.depth)

    async def missing_events(
        self,
        server: str,
        room_id: str,
        earliest: Sequence[str],
        latest: Sequence[str],
        limit: int,
        *,
        min_depth: int = 0,
    ) -> list[dict[str, Any]]:
        return [event.pdu for event in self.gap]

    async def state_ids(self, server: str, room_id: str, event_id: str) -> tuple[list[str], list[str]]:
        if event_id not in self.states:
            raise unreachable(server)
        state = self.states[event_id]
        return [event.event_id for event in state], [event.event_id for event in self.auth_chain(state)]

    async def state(
        self, server: str, room_id: str, event_id: str
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        state = self.states[event_id]
        return [event.pdu for event in state], [event.pdu for event in self.auth_chain(state)]

    async def event(self, server: str, event_id: str) -> dict[str, Any]:
        if event_id not in self.known:
            raise unreachable(server)
        return self.known[event_id].pdu

    async def event_auth(self, server: str, room_id: str, event_id: str) -> list[dict[str, Any]]:
        return [event.pdu for event in self.auth_chain([self.known[event_id]])]

    async def make_membership(self, server: str, *asked: Any) -> Any:
        raise unreachable(server)

    async def send_membership(self, server: str, *asked: Any) -> Any:
        raise unreachable(server)

    async def invite(self, server: str, *asked: Any) -> Any:
        raise unreachable(server)

    async def backfill(self, server: str, *asked: Any) -> Any:
        raise unreachable(server)

    async def directory(self, room_alias: str) -> Any:
        raise unreachable(ELSEWHERE)


class Trusting:
    """Finds every signature good."""

    async def verified(self, pdus: Sequence[Mapping[str, Any]], rules: RoomVersion) -> list[Event | str]:
        return [_trusted(dict(pdu), rules) for pdu in pdus]


def _trusted(pdu: dict[str, Any], rules: RoomVersion) -> Event | str:
    try:
        read, encoded = read_pdu(pdu, rules)
    except InvalidEvent as error:
        return f"invalid event: {error}"
    return unsealed_event(read, encoded, rules, unseal(read, rules, []))
