"""What rooms ask of other servers, asked with the federation client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from federation.client import FederationClient
from federation.transport import malformed
from homeserver.protocol.events import Event
from homeserver.protocol.ids import server_name_of
from homeserver.protocol.room_versions import RoomVersion

#: What a server means that does not name the version of a room.
_UNNAMED_VERSION = "1"


class FederationRooms:
    """``homeserver.rooms.remote.RemoteRooms`` over ``FederationClient``; raises ``RemoteError`` alike."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def make_membership(
        self, server: str, action: str, room_id: str, user_id: str, versions: Sequence[str]
    ) -> tuple[str, dict[str, Any]]:
        """``(room_version, template)`` of a ``join``, ``leave`` or ``knock``."""
        match action:
            case "join":
                reply = await self._client.make_join(server, room_id, user_id, versions)
            case "knock":
                reply = await self._client.make_knock(server, room_id, user_id, versions)
            case "leave":
                reply = await self._client.make_leave(server, room_id, user_id)
            case _:
                raise ValueError(f"nobody makes a {action}")
        version = reply.get("room_version", _UNNAMED_VERSION)
        if not isinstance(version, str):
            raise malformed(server, "'room_version' of the response is not a string")
        return version, reply["event"]

    async def send_membership(
        self, server: str, action: str, event: Event, *, omit_members: bool = False
    ) -> dict[str, Any]:
        """Hand in a ``join``, ``leave`` or ``knock``; the body of the answer."""
        room_id, event_id, pdu = event.room_id, event.event_id, event.pdu
        match action:
            case "join":
                return await self._client.send_join(server, room_id, event_id, pdu, omit_members=omit_members)
            case "knock":
                state = await self._client.send_knock(server, room_id, event_id, pdu)
                return {"knock_room_state": state}
            case "leave":
                await self._client.send_leave(server, room_id, event_id, pdu)
                return {}
            case _:
                raise ValueError(f"nobody sends a {action}")

    async def invite(
        self, server: str, rules: RoomVersion, event: Event, invite_room_state: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The invite event with the invited server's signature."""
        return await self._client.invite(
            server,
            event.room_id,
            event.event_id,
            room_version=rules.id,
            pdu=event.pdu,
            invite_room_state=invite_room_state,
        )

    async def event(self, server: str, event_id: str) -> dict[str, Any]:
        """One PDU."""
        return await self._client.get_event(server, event_id)

    async def state_ids(self, server: str, room_id: str, event_id: str) -> tuple[list[str], list[str]]:
        """Ids of the state before an event, and of its auth chain."""
        reply = await self._client.get_state_ids(server, room_id, event_id)
        return reply["pdu_ids"], reply["auth_chain_ids"]

    async def state(
        self, server: str, room_id: str, event_id: str
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The state before an event, and its auth chain."""
        reply = await self._client.get_state(server, room_id, event_id)
        return reply["pdus"], reply["auth_chain"]

    async def event_auth(self, server: str, room_id: str, event_id: str) -> list[dict[str, Any]]:
        """The auth chain of an event."""
        return await self._client.event_auth(server, room_id, event_id)

    async def backfill(
        self, server: str, room_id: str, event_ids: Sequence[str], limit: int
    ) -> list[dict[str, Any]]:
        """PDUs that come before the given events, those included."""
        return await self._client.backfill(server, room_id, event_ids, limit)

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
        """PDUs between ``earliest`` and ``latest``."""
        return await self._client.get_missing_events(
            server,
            room_id,
            earliest_events=earliest,
            latest_events=latest,
            limit=limit,
            min_depth=min_depth,
        )

    async def timestamp_to_event(self, server: str, room_id: str, ts: int, direction: str) -> tuple[str, int]:
        """Id and time of the event closest to a time, after it (``f``) or before (``b``)."""
        return await self._client.timestamp_to_event(server, room_id, ts, direction)

    async def ask_policy_server(self, server: str, event: Event) -> Mapping[str, Any]:
        """A policy server's signatures on an event, by server and key id."""
        return await self._client.ask_policy_server(server, event.pdu)

    async def directory(self, room_alias: str) -> tuple[str, list[str]]:
        """Room id and servers that the alias's server names."""
        reply = await self._client.query_directory(server_name_of(room_alias), room_alias)
        return reply["room_id"], reply["servers"]
