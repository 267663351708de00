"""Creating rooms: all first events composed one upon the other, and stored together or not at all."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from homeserver.clock import Clock
from homeserver.errors import MatrixError, RemoteError, invalid_param
from homeserver.protocol.auth_rules import NotAllowed, auth_types_for, check_against_state
from homeserver.protocol.event_format import InvalidEvent
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.ids import is_room_alias, is_user_id
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION, RoomVersion
from homeserver.protocol.signing import SigningKey
from homeserver.rooms.address_invites import AddressInvites
from homeserver.rooms.compose import seal, template
from homeserver.rooms.membership import Membership
from homeserver.rooms.new_room import (
    NewRoom,
    create_content,
    first_events,
    invalid_room_state,
    supported_version,
)
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, impossible_event
from homeserver.rooms.shown_profile import Profiles, shown_profile
from homeserver.rooms.timeline import Addition, Timeline
from homeserver.storage import rooms as room_storage
from homeserver.storage.append import Also
from homeserver.storage.database import Database, Transaction
from homeserver.storage.events import SENT_HERE

_log = structlog.get_logger()

#: Each may take several requests to an identity server.
_MAX_ADDRESSES = 50


class CreateRoom:
    """Creates rooms for local users."""

    def __init__(
        self,
        *,
        db: Database,
        rooms: Rooms,
        timeline: Timeline,
        membership: Membership,
        profiles: Profiles,
        address_invites: AddressInvites,
        clock: Clock,
        server_name: str,
        signing_key: SigningKey,
        default_version: RoomVersion = DEFAULT_ROOM_VERSION,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._timeline = timeline
        self._membership = membership
        self._profiles = profiles
        self._address_invites = address_invites
        self._clock = clock
        self._server_name = server_name
        self._key = signing_key
        self._default_version = default_version
        self._newest_ms = 0

    async def create(self, creator: str, wish: NewRoom) -> str:
        """Create the room a client asks for; its id.

        The room with its alias and its place in the room directory is stored at once;
        then its users are invited.  An invite that is refused is raised after all others
        were sent, and leaves the room as it is; one whose server cannot be reached is logged.
        Raises ``M_UNSUPPORTED_ROOM_VERSION``, ``M_ROOM_IN_USE``, ``M_INVALID_ROOM_STATE``,
        ``M_INVALID_PARAM``, ``M_BAD_JSON``, ``M_THREEPID_DENIED``, ``M_TOO_LARGE``, and what
        ``Membership.invite`` does.  Specification: ``POST /createRoom``.
        """
        rules = supported_version(wish.room_version) if wish.room_version else self._default_version
        _check_invites(wish)
        for invited in wish.invite_3pid:
            self._address_invites.check(invited)
        alias = await self._free_alias(wish.room_alias_name)
        equals = wish.invite if wish.preset_in_force == "trusted_private_chat" else ()
        content = create_content(rules, creator, wish.creation_content or {}, equals)
        profile = await shown_profile(self._profiles, creator)
        drafts = first_events(rules, creator, wish, alias, profile)
        room, events = self.compose(rules, creator, content, drafts)

        async def also(tx: Transaction) -> None:
            if alias is not None and not await room_storage.add_alias(tx, alias, room.room_id, creator):
                raise _alias_in_use(alias)
            if wish.visibility == "public":
                await room_storage.set_published(tx, room.nid, True)

        await self.store(room, events, also)
        await self._invite(creator, room.room_id, wish)
        return room.room_id

    def compose(
        self, rules: RoomVersion, creator: str, content: Mapping[str, Any], drafts: Sequence[Draft]
    ) -> tuple[Room, list[Event]]:
        """A room that is not stored, and the signed events it is to start with.

        ``content`` is that of ``m.room.create``; each draft builds on the one before.
        Raises ``M_INVALID_ROOM_STATE`` when the auth rules refuse one of them.
        """
        room_id = None if rules.hash_room_ids else f"!{secrets.token_urlsafe(13)}:{self._server_name}"
        # Since v12 two create events that say the same at the same time would be one and the same room.
        self._newest_ms = max(self._clock.now_ms(), self._newest_ms + 1)
        create = Draft(creator, "m.room.create", content, state_key="", origin_server_ts=self._newest_ms)
        events: list[Event] = []
        state: dict[StateKey, Event] = {}
        try:
            for draft in (create, *drafts):
                event = self._sealed(rules, room_id, draft, events[-1:], state)
                check_against_state(rules, event, lambda type_, state_key: state.get((type_, state_key)))
                state[event.key] = event
                events.append(event)
                room_id = event.room_id
        except NotAllowed as error:
            raise invalid_room_state(str(error)) from error
        except InvalidEvent as error:
            raise impossible_event(error) from error
        return self._rooms.new(events[0].room_id, rules), events

    async def store(self, room: Room, events: Sequence[Event], also: Also | None = None) -> None:
        """Store a composed room in one transaction; it can be used and is announced when this returns."""
        async with room.lock:
            additions = [
                Addition(event, auth_nids=(), state_before=None, flags=SENT_HERE) for event in events
            ]
            written = await self._timeline.stage(room, additions, also)
            self._rooms.add(room)
        try:
            await written
        except BaseException:
            self._rooms.discard(room)
            raise

    def _sealed(
        self,
        rules: RoomVersion,
        room_id: str | None,
        draft: Draft,
        prev_events: Sequence[Event],
        state: Mapping[StateKey, Event],
    ) -> Event:
        keys = auth_types_for(
            rules,
            type=draft.type,
            sender=draft.sender,
            state_key=draft.state_key,
            content=draft.content,
        )
        pdu = template(
            rules=rules,
            room_id=room_id,
            sender=draft.sender,
            type=draft.type,
            state_key=draft.state_key,
            content=draft.content,
            prev_events=prev_events,
            auth_events=[state[key] for key in keys if key in state],
            now_ms=draft.origin_server_ts or self._clock.now_ms(),
        )
        return seal(pdu, rules, self._server_name, self._key)

    async def _free_alias(self, localpart: str | None) -> str | None:
        if not localpart:
            return None
        alias = f"#{localpart}:{self._server_name}"
        if ":" in localpart or any(char.isspace() for char in localpart) or not is_room_alias(alias):
            raise invalid_param("room_alias_name is not the localpart of a room alias")
        if await room_storage.alias(self._db.read, alias):
            raise _alias_in_use(alias)
        return alias

    async def _invite(self, creator: str, room_id: str, wish: NewRoom) -> None:
        content = {"is_direct": True} if wish.is_direct else {}
        refusal: Exception | None = None
        invites: list[Callable[[], Awaitable[object]]] = [
            *(
                partial(self._membership.invite, creator, room_id, user_id, content)
                for user_id in dict.fromkeys(wish.invite)
            ),
            *(
                partial(self._address_invites.invite, creator, room_id, invited, content)
                for invited in wish.invite_3pid
            ),
        ]
        for invite in invites:
            try:
                await invite()
            except RemoteError as error:
                _log.warning("invite not delivered", room_id=room_id, reason=str(error))
                if error.reachable and not error.transient:
                    refusal = refusal or error
            except (MatrixError, NotAllowed) as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal


def _check_invites(wish: NewRoom) -> None:
    if len(wish.invite_3pid) > _MAX_ADDRESSES:
        raise invalid_param(f"invite_3pid has at most {_MAX_ADDRESSES} addresses")
    for user_id in wish.invite:
        if not is_user_id(user_id):
            raise invalid_param(f"{user_id[:100]!r} in invite is not a user id")


def _alias_in_use(alias: str) -> MatrixError:
    return MatrixError(400, "M_ROOM_IN_USE", f"The room alias {alias} is taken")
