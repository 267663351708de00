"""Sending: from what a local user wants to say to an event in the room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from homeserver.clock import Clock
from homeserver.errors import MatrixError, bad_json, forbidden
from homeserver.protocol.auth_rules import (
    StateLookup,
    auth_types_for,
    auth_types_of,
    check_against_state,
    says_nothing_of_itself,
)
from homeserver.protocol.event_format import InvalidEvent
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.signing import SigningKey
from homeserver.rooms.again import again_when_stale
from homeserver.rooms.compose import seal, template
from homeserver.rooms.extremities import Base, Extremities
from homeserver.rooms.policy import Policy, PolicyServer, policy_server_of
from homeserver.rooms.room import MEMBER, Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.timeline import Addition, Timeline
from homeserver.storage.append import Also
from homeserver.storage.events import SENT_HERE, StoredEvent

#: More work for the transaction of an event, decided once the event (and so its id) is known.
AlsoFor: TypeAlias = Callable[[Event], Also]


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An event as its sender wants it."""

    sender: str
    type: str
    content: Mapping[str, Any]
    #: ``None`` for a message event.
    state_key: str | None = None
    #: The event to redact, for ``m.room.redaction``.
    redacts: str | None = None
    #: Milliseconds since the epoch; the clock's time when ``None`` (appservices may say otherwise).
    origin_server_ts: int | None = None
    #: How long it sticks, in milliseconds, where it does (``protocol/sticky.py``).
    sticky_ms: int | None = None


class Send:
    """Composes, checks and appends local events.

    ``policy`` has them signed by the policy servers of their rooms; without it there are
    no other servers to ask.
    """

    def __init__(
        self,
        *,
        rooms: Rooms,
        states: StateStore,
        extremities: Extremities,
        timeline: Timeline,
        clock: Clock,
        server_name: str,
        signing_key: SigningKey,
    ) -> None:
        self._rooms = rooms
        self._states = states
        self._extremities = extremities
        self._timeline = timeline
        self._clock = clock
        self._server_name = server_name
        self._key = signing_key
        self.policy: Policy | None = None

    @again_when_stale
    async def send(self, room_id: str, draft: Draft, also: AlsoFor | None = None) -> StoredEvent:
        """Send one event; it is on disk when this returns.

        State that the sender has set just so already is not set again: that event is returned.
        ``also`` gives more work for the same transaction.  Raises ``NotAllowed`` when the
        auth rules refuse it, ``M_NOT_FOUND`` for a room this server does not know,
        ``M_FORBIDDEN`` for one it is not in, ``M_TOO_LARGE`` and ``M_BAD_JSON`` for an event
        that cannot be, and what ``Policy.signed`` does where the room's policy server has a say.
        """
        async with self._rooms.lock(room_id) as room:
            if not self._rooms.is_in(room):
                raise forbidden("You are not in this room")
            addition = await self.compose(room, draft)
            if draft.state_key is not None and (said := _said_already(room, addition.event)) is not None:
                await room.settle()
                room.check_sound()
                return said
            written = await self._stage(room, addition, also)
        return (await written)[0]

    async def stage(
        self, room: Room, draft: Draft, also: AlsoFor | None = None
    ) -> asyncio.Future[list[StoredEvent]]:
        """The same up to the queued write (see ``Timeline.stage``).  Caller holds the room lock.

        Where the room has a policy server the future includes asking it, which is done
        without the lock: the caller lets go of that before awaiting the future.
        """
        return await self._stage(room, await self.compose(room, draft), also)

    async def compose(self, room: Room, draft: Draft) -> Addition:
        """The signed event on top of the room's extremities, checked and ready to be appended.

        It is allowed by the state before it and by the current state, which are the same as a
        rule.  Caller holds the room lock.
        """
        if self._policy_server(room, draft.type, draft.state_key) is not None:
            # It will be put into the room later, and must not build on what may not be stored then.
            await room.settle()
            room.check_sound()
        base = await self._extremities.base(room)
        is_plain = base.state == room.state_ver and says_nothing_of_itself(draft.type, draft.state_key)
        allowed = room.allowed(draft.sender, draft.type) if is_plain else None
        auth = await self._auth_events(room, draft, base) if allowed is None else allowed
        event = self.sealed(self._template(room, draft, base, auth), room, again=allowed is not None)
        if allowed is None:
            _check(room, event, base, auth)
            if is_plain:
                room.note_allowed(draft.sender, draft.type, auth)
        return Addition(
            event=event,
            auth_nids=tuple([stored.nid for stored in auth]),
            state_before=base.state,
            flags=SENT_HERE,
            overlay=base.overlay,
        )

    async def with_recommendation(self, room: Room, event: Event) -> Event:
        """A composed event with the signature of the room's policy server, if there is one.

        Raises what ``Policy.signed`` does.  Caller does not hold the room lock: another server may be asked.
        """
        server = self._policy_server(room, event.type, event.state_key)
        if server is None or self.policy is None:
            return event
        return await self.policy.signed(server, room.rules, event)

    async def check_current(self, room: Room, event: Event) -> None:
        """Raises ``NotAllowed`` where the room's current state does not allow an event.

        Caller holds the room lock.
        """
        keys = auth_types_of(room.rules, event)
        await self._states.load_members(room, [key[1] for key in keys if key[0] == MEMBER])
        check_against_state(room.rules, event, current_state_of(room))

    async def _stage(
        self, room: Room, addition: Addition, also: AlsoFor | None
    ) -> asyncio.Future[list[StoredEvent]]:
        event = addition.event
        if self._policy_server(room, event.type, event.state_key) is None:
            more = None if also is None else also(event)
            return await self._timeline.stage(room, [addition], more)
        return asyncio.create_task(self._stage_recommended(room, addition, also))

    async def _stage_recommended(
        self, room: Room, addition: Addition, also: AlsoFor | None
    ) -> list[StoredEvent]:
        """Have the policy server sign an event, then put it into the room, as a fork if that has moved on.

        It is given up where the room would not allow it any more.
        """
        event = await self.with_recommendation(room, addition.event)
        async with self._rooms.lock(room.room_id) as locked:
            if not self._rooms.is_in(locked):
                raise forbidden("You are not in this room")
            await self.check_current(locked, event)
            more = None if also is None else also(event)
            signed = msgspec.structs.replace(addition, event=event)
            written = await self._timeline.stage(locked, [signed], more)
        return await written

    def _policy_server(self, room: Room, type_: str, state_key: str | None) -> PolicyServer | None:
        return None if self.policy is None else policy_server_of(room, type_, state_key)

    async def template(self, room: Room, draft: Draft) -> tuple[dict[str, Any], list[StoredEvent]]:
        """The event without hashes and signatures, not checked; and its auth events.

        Caller holds the room lock.
        """
        base = await self._extremities.base(room)
        auth = await self._auth_events(room, draft, base)
        return self._template(room, draft, base, auth), auth

    async def _auth_events(self, room: Room, draft: Draft, base: Base) -> list[StoredEvent]:
        """What an event cites of the state before it; memberships that matter are loaded then."""
        keys = auth_types_for(
            room.rules,
            type=draft.type,
            sender=draft.sender,
            state_key=draft.state_key,
            content=draft.content,
        )
        if unknown := [key[1] for key in keys if key[0] == MEMBER and key[1] not in room.members]:
            await self._states.load_members(room, unknown)
        if base.state == room.state_ver:
            found = [room.current(key) for key in keys]
        else:
            found = [await self._states.event_at(room, base.state, key) for key in keys]
        return [stored for stored in found if stored is not None]

    def _template(self, room: Room, draft: Draft, base: Base, auth: Sequence[StoredEvent]) -> dict[str, Any]:
        return template(
            rules=room.rules,
            room_id=room.room_id,
            sender=draft.sender,
            type=draft.type,
            state_key=draft.state_key,
            content=draft.content,
            prev_events=[tip.event for tip in base.prev_events],
            auth_events=[stored.event for stored in auth],
            now_ms=self._clock.now_ms() if draft.origin_server_ts is None else draft.origin_server_ts,
            redacts=draft.redacts,
            sticky_ms=draft.sticky_ms,
        )

    def sealed(self, pdu: dict[str, Any], room: Room, *, again: bool = False) -> Event:
        """A template hashed and signed by this server; raises what ``send`` does for impossible events.

        ``again``: the room's state has allowed another such message (``Room.allowed``), whose form
        was checked.
        """
        try:
            return seal(pdu, room.rules, self._server_name, self._key, again=again)
        except InvalidEvent as error:
            raise impossible_event(error) from error


def impossible_event(error: InvalidEvent) -> MatrixError:
    """The reply to a client whose event cannot be."""
    if "bytes" in str(error):
        return MatrixError(413, "M_TOO_LARGE", str(error))
    return bad_json(str(error))


def current_state_of(room: Room) -> StateLookup:
    """The room's current state as the auth rules look it up; members that matter must be loaded."""

    def state(type_: str, state_key: str) -> Event | None:
        stored = room.current((type_, state_key))
        return stored.event if stored else None

    return state


def _check(room: Room, event: Event, base: Base, auth: Sequence[StoredEvent]) -> None:
    """Raises ``NotAllowed`` for an event that the current state or the state before it does not allow."""
    check_against_state(room.rules, event, current_state_of(room))
    if base.state != room.state_ver:
        before: dict[StateKey, Event] = {room.create.event.key: room.create.event}
        before |= {stored.event.key: stored.event for stored in auth}
        check_against_state(room.rules, event, lambda type_, key: before.get((type_, key)))


def _said_already(room: Room, event: Event) -> StoredEvent | None:
    """The current state event by which its sender has said just what a new one says."""
    said = room.current(event.key)
    if said is not None and said.event.sender == event.sender and said.event.content == event.content:
        return said
    return None
