"""What rooms ask of other servers; ``federation/`` fulfils it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.room import Room


class RemoteRooms(Protocol):
    """Requests to other servers about rooms.

    Every method raises ``RemoteError`` when the server cannot be reached, refuses
    or answers nonsense; PDUs come back as decoded JSON, unchecked.
    """

    async def make_membership(
        self, server: str, action: str, room_id: str, user_id: str, versions: Sequence[str]
    ) -> tuple[str, dict[str, Any]]:
        """``GET /make_join``, ``/make_leave`` or ``/make_knock``: ``(room_version, template)``.

        ``action`` is ``join``, ``leave`` or ``knock``.
        """
        ...

    async def send_membership(
        self, server: str, action: str, event: Event, *, omit_members: bool = False
    ) -> dict[str, Any]:
        """``PUT /send_join`` (v2), ``/send_leave`` (v2) or ``/send_knock``: the body of the answer.

        ``omit_members`` lets the answer to a join leave members out of the state.
        """
        ...

    async def invite(
        self, server: str, rules: RoomVersion, event: Event, invite_room_state: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """``PUT /invite`` (v2, else v1): the invite event with the invited server's signature."""
        ...

    async def event(self, server: str, event_id: str) -> dict[str, Any]:
        """``GET /event``: the PDU."""
        ...

    async def state_ids(self, server: str, room_id: str, event_id: str) -> tuple[list[str], list[str]]:
        """``GET /state_ids``: ids of the state before an event, and of its auth chain."""
        ...

    async def state(
        self, server: str, room_id: str, event_id: str
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """``GET /state``: the state before an event, and its auth chain, as PDUs."""
        ...

    async def event_auth(self, server: str, room_id: str, event_id: str) -> list[dict[str, Any]]:
        """``GET /event_auth``: the auth chain of an event."""
        ...

    async def backfill(
        self, server: str, room_id: str, event_ids: Sequence[str], limit: int
    ) -> list[dict[str, Any]]:
        """``GET /backfill``: PDUs that come before the given events, those included."""
        ...

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
        """``POST /get_missing_events``: PDUs between ``earliest`` and ``latest``."""
        ...

    async def timestamp_to_event(self, server: str, room_id: str, ts: int, direction: str) -> tuple[str, int]:
        """``GET /timestamp_to_event``: id and time of the event closest to ``ts``, after it or before."""
        ...

    async def ask_policy_server(self, server: str, event: Event) -> Mapping[str, Any]:
        """``POST /sign`` of a policy server: its signatures on an event, by server and key id."""
        ...

    async def directory(self, room_alias: str) -> tuple[str, list[str]]:
        """``GET /query/directory`` of the alias's server: room id and servers."""
        ...


class RemoteMemberships(Protocol):
    """Memberships that other servers have a hand in.

    Every method raises ``RemoteError`` or ``MatrixError`` when it cannot be done.
    ``servers`` are those to ask, the most promising first.
    """

    async def join(self, room_id: str, servers: Sequence[str], user_id: str, content: dict[str, Any]) -> None:
        """Join a local user to a room; this server is in it when this returns."""
        ...

    async def leave(self, room: Room, servers: Sequence[str], user_id: str, content: dict[str, Any]) -> None:
        """Reject an invite to a room, or take a knock back.

        The local membership is ``leave`` when this returns, whether or not a server could be told.
        """
        ...

    async def knock(
        self, room_id: str, servers: Sequence[str], user_id: str, content: dict[str, Any]
    ) -> None:
        """Knock on a room; the knock is a local membership when this returns."""
        ...

    async def sign_invite(self, room: Room, event: Event, invite_room_state: list[dict[str, Any]]) -> Event:
        """The invite event with the signature of the invited user's server.

        ``invite_room_state`` are PDUs.
        """
        ...

    async def resolve_alias(self, room_alias: str) -> tuple[str, list[str]]:
        """Room id and servers of another server's alias."""
        ...
