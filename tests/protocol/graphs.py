"""Event graphs with readable ids, built without hashing or signing.

A ``Graph`` makes events named ``$create``, ``$alice-joins``…; times and depths count up in
the order of making.  ``@alice`` is short for ``@alice:here``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson

from homeserver.protocol.auth_rules import auth_types_for
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion

State = dict[StateKey, str]


def full_user_id(user: str) -> str:
    return f"{user}:here" if user.startswith("@") and ":" not in user else user


class Graph:
    """The events of one room, by id."""

    def __init__(self, version: str) -> None:
        self.rules: RoomVersion = ROOM_VERSIONS[version]
        self.room_id = "!create" if self.rules.hash_room_ids else "!room:here"
        self.events: dict[str, Event] = {}

    def add(
        self,
        name: str,
        type: str,
        sender: str,
        state_key: str | None,
        content: dict[str, Any],
        *,
        auth: Iterable[str] = (),
        prev: Iterable[str] | None = None,
        ts: int | None = None,
        depth: int | None = None,
        rejected: bool = False,
    ) -> Event:
        """Make an event; ``auth`` and ``prev`` are ids, ``prev`` is the event made last by default."""
        number = len(self.events) + 1
        last = list(self.events)[-1:]
        event = make_event(
            self.rules,
            event_id=f"${name}",
            room_id=self.room_id,
            type=type,
            sender=full_user_id(sender),
            state_key=None if state_key is None else full_user_id(state_key),
            content=content,
            auth_events=tuple(auth),
            prev_events=tuple(last if prev is None else prev),
            origin_server_ts=number * 1000 if ts is None else ts,
            depth=number if depth is None else depth,
            rejected=rejected,
        )
        self.events[event.event_id] = event
        return event

    def create(self, sender: str = "@alice", *, content: dict[str, Any] | None = None) -> Event:
        """The create event, ``$create``; ``content`` adds to what its version asks for."""
        creator = {} if self.rules.implicit_room_creator else {"creator": full_user_id(sender)}
        content = {"room_version": self.rules.id, **creator, **(content or {})}
        return self.add("create", "m.room.create", sender, "", content)

    def send(  # noqa: PLR0917
        self,
        state: State,
        name: str,
        type: str,
        sender: str,
        state_key: str | None,
        content: dict[str, Any],
        **more: Any,
    ) -> Event:
        """Make an event that cites what the auth events selection picks from a state, and add it to it."""
        auth_types = auth_types_for(
            self.rules,
            type=type,
            sender=full_user_id(sender),
            state_key=None if state_key is None else full_user_id(state_key),
            content=content,
        )
        auth = [state[key] for key in auth_types if key in state]
        event = self.add(name, type, sender, state_key, content, auth=auth, **more)
        if event.is_state:
            state[event.key] = event.event_id
        return event

    def member(
        self, state: State, name: str, sender: str, target: str, membership: str, **more: Any
    ) -> Event:
        """Make a membership event and add it to the state."""
        return self.send(state, name, "m.room.member", sender, target, {"membership": membership}, **more)

    def lookup(self, state: State) -> Any:
        """A state as the auth rules read it."""
        return lambda type, state_key: self.events.get(state.get((type, state_key), ""))

    def state_of(self, *event_ids: str) -> State:
        """The state these events make."""
        return {self.events[event_id].key: event_id for event_id in event_ids}


def make_event(rules: RoomVersion, **fields: Any) -> Event:
    """An ``Event`` whose JSON says what its fields say."""
    content = fields.pop("content")
    redacts = fields.pop("redacts", None)
    rejected = fields.pop("rejected", False)
    pdu = {name: value for name, value in fields.items() if value is not None}
    if rules.hash_room_ids and fields["type"] == "m.room.create":
        del pdu["room_id"]
    json = orjson.dumps({**pdu, "content": content}, option=orjson.OPT_SORT_KEYS)
    return Event(**fields, redacts=redacts, json=json, rejected=rejected)
