"""A server whose people branch a room's history: it signs what it likes, on top of what it likes.

It joins a room of a running server through the front door, composes events on any of
those it knows, each by the state its branch gives, and delivers them in the order it chooses.
"""

from __future__ import annotations

import itertools
import json
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from homeserver.protocol.auth_rules import auth_types_for
from homeserver.protocol.canonical_json import encode
from homeserver.protocol.event_format import parse_event
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.protocol.signing import sign_event
from homeserver.protocol.state_res import resolve
from homeserver.rooms.compose import template
from tests.flows.stranger import Stranger
from tests.processes import Server

_FEDERATION = "/_matrix/federation"
_transactions = itertools.count()


@dataclass
class Branches:
    """One room as the branching server knows it."""

    http: aiohttp.ClientSession
    stranger: Stranger
    server: Server
    room_id: str
    version: str
    events: dict[str, Event] = field(default_factory=dict)
    #: The state after each event.
    after: dict[str, dict[StateKey, str]] = field(default_factory=dict)
    now_ms: int = 1_700_000_000_000

    @property
    def rules(self) -> RoomVersion:
        return ROOM_VERSIONS[self.version]

    def user(self, name: str) -> str:
        return f"@{name}:{self.stranger.name}"

    async def join(self, name: str) -> Event:
        """Have somebody join through the front door."""
        place = f"{quote(self.room_id, safe='')}/{quote(self.user(name), safe='')}"
        made = await self._ask("GET", f"{_FEDERATION}/v1/make_join/{place}?ver={self.version}")
        join = self._signed({**made["event"], "origin_server_ts": self._tick()})
        place = f"{quote(self.room_id, safe='')}/{quote(join.event_id, safe='')}"
        answer = await self._ask("PUT", f"{_FEDERATION}/v2/send_join/{place}", join.pdu)
        for pdu in (*answer["state"], *answer["auth_chain"]):
            event = parse_event(pdu, self.rules)
            self.events.setdefault(event.event_id, event)
        state = [parse_event(pdu, self.rules) for pdu in answer["state"]]
        self._add(join, {event.key: event.event_id for event in state})
        return join

    async def knows(self, event_id: str, before: Event) -> Event:
        """Fetch a state event that the room's server made right after ``before``."""
        answer = await self._ask("GET", f"{_FEDERATION}/v1/event/{quote(event_id, safe='')}")
        event = parse_event(answer["pdus"][0], self.rules)
        self._add(event, self.after[before.event_id])
        return event

    def compose(
        self,
        sender: str,
        type_: str,
        content: Mapping[str, Any],
        state_key: str | None = None,
        *,
        on: Sequence[Event],
    ) -> Event:
        """An event on top of others, with the auth events that its branch's state asks for."""
        state = self.before(on)
        keys = auth_types_for(
            self.rules,
            type=type_,
            sender=self.user(sender),
            state_key=state_key,
            content=dict(content),
        )
        pdu = template(
            rules=self.rules,
            room_id=self.room_id,
            sender=self.user(sender),
            type=type_,
            state_key=state_key,
            content=content,
            prev_events=on,
            auth_events=[self.events[state[key]] for key in keys if key in state],
            now_ms=self._tick(),
        )
        event = self._signed(pdu)
        self._add(event, state)
        return event

    def member(self, sender: str, target: str, membership: str, *, on: Sequence[Event]) -> Event:
        """A membership, most likely another's."""
        content = {"membership": membership}
        return self.compose(sender, "m.room.member", content, self.user(target), on=on)

    def before(self, on: Sequence[Event]) -> dict[StateKey, str]:
        """The resolution of the states after some events, as the definitions give it."""
        return resolve(self.rules, [self.after[event.event_id] for event in on], self.events)

    async def deliver(self, *events: Event) -> None:
        """One transaction."""
        content = {
            "origin": self.stranger.name,
            "origin_server_ts": self.now_ms,
            "pdus": [event.pdu for event in events],
        }
        await self._ask("PUT", f"{_FEDERATION}/v1/send/branches-{next(_transactions)}", content)

    def _add(self, event: Event, before: Mapping[StateKey, str]) -> None:
        self.events[event.event_id] = event
        changed = {event.key: event.event_id} if event.is_state else {}
        self.after[event.event_id] = {**before, **changed}

    def _tick(self) -> int:
        self.now_ms += 1000
        return self.now_ms

    def _signed(self, pdu: Mapping[str, Any]) -> Event:
        return parse_event(
            sign_event(dict(pdu), self.rules, self.stranger.name, self.stranger.key), self.rules
        )

    async def _ask(self, method: str, uri: str, content: Mapping[str, Any] | None = None) -> Any:
        body = None if content is None else encode(content)
        headers = {"Authorization": self.stranger.authorization(method, uri, self.server.server_name, body)}
        url = f"https://{self.server.server_name}{uri}"
        async with self.http.request(
            method, _verbatim(url), data=body, headers=headers, ssl=_anybody()
        ) as reply:
            answer = json.loads(await reply.read())
            assert reply.status == 200, f"{method} {uri}: {reply.status} {answer}"
            return answer


def _verbatim(url: str) -> Any:
    return URL(url, encoded=True)


def _anybody() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
