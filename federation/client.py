"""What this server can ask of others: one method for each endpoint.

Checks that an answer has the shape the spec gives it, so that callers may rely on
it; whether the events inside are true and allowed is for ``homeserver.rooms`` to
find out.  Every method raises ``RemoteError``.  Specification: server-server API.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from federation.transport import (
    DEFAULT_MAX_BYTES,
    Query,
    Transport,
    malformed,
    path_segment,
)
from homeserver.errors import RemoteError

_V1: Final = "/_matrix/federation/v1"
_V2: Final = "/_matrix/federation/v2"

#: Whole states of rooms: some 100,000 events of a kilobyte and their auth chains.
STATE_MAX_BYTES: Final = 256 * 1024 * 1024
STATE_TIMEOUT_SECONDS: Final = 180.0
SEND_TIMEOUT_SECONDS: Final = 60.0
#: Somebody waits for the answer, and it can do without.
QUESTION_TIMEOUT_SECONDS: Final = 10.0
KEYS_MAX_BYTES: Final = 256 * 1024
#: Somebody waits for the keys of many servers, some of which are gone for good.
KEYS_TIMEOUT_SECONDS: Final = 10.0
#: A notary asks others in turn.
NOTARY_TIMEOUT_SECONDS: Final = 30.0
#: A person waits for their message to go out.
POLICY_TIMEOUT_SECONDS: Final = 10.0


class FederationClient:
    """Asks other servers."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def request(
        self,
        method: str,
        server_name: str,
        path: str,
        *,
        query: Query | None = None,
        content: Mapping[str, Any] | bytes | None = None,
        timeout: float | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        signed: bool = True,
    ) -> dict[str, Any]:
        """The JSON object a server answers with; arguments as for ``Transport.send``."""
        reply = await self._transport.send(
            method,
            server_name,
            path,
            query=query,
            content=content,
            timeout=timeout,
            max_bytes=max_bytes,
            signed=signed,
        )
        if not isinstance(reply, dict):
            raise malformed(server_name, "The response is not an object")
        return reply

    # Joining, knocking and leaving.

    async def make_join(
        self, server_name: str, room_id: str, user_id: str, room_versions: Sequence[str]
    ) -> dict[str, Any]:
        """A join to fill in and sign: ``event`` (an object) and perhaps ``room_version``."""
        return await self._make("join", server_name, room_id, user_id, {"ver": room_versions})

    async def make_knock(
        self, server_name: str, room_id: str, user_id: str, room_versions: Sequence[str]
    ) -> dict[str, Any]:
        """A knock to fill in and sign, as ``make_join``."""
        return await self._make("knock", server_name, room_id, user_id, {"ver": room_versions})

    async def make_leave(self, server_name: str, room_id: str, user_id: str) -> dict[str, Any]:
        """A leave to fill in and sign, as ``make_join``."""
        return await self._make("leave", server_name, room_id, user_id, None)

    async def send_join(
        self,
        server_name: str,
        room_id: str,
        event_id: str,
        pdu: Mapping[str, Any],
        *,
        omit_members: bool = False,
    ) -> dict[str, Any]:
        """Join: the room's ``state`` and ``auth_chain`` (lists of PDUs) before the join.

        Perhaps also ``event`` (the join as the server signed it), ``members_omitted``
        and ``servers_in_room``.  Falls back to version 1 of the endpoint.
        """
        query = {"omit_members": "true"} if omit_members else None
        reply = await self._send_v2_or_v1(
            "send_join", server_name, room_id, event_id, pdu, query=query, max_bytes=STATE_MAX_BYTES
        )
        _objects(server_name, reply, "state")
        _objects(server_name, reply, "auth_chain")
        return reply

    async def send_leave(self, server_name: str, room_id: str, event_id: str, pdu: Mapping[str, Any]) -> None:
        """Leave, or refuse an invitation.  Falls back to version 1 of the endpoint."""
        await self._send_v2_or_v1("send_leave", server_name, room_id, event_id, pdu)

    async def send_knock(
        self, server_name: str, room_id: str, event_id: str, pdu: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """Knock: the events that show the knocking user what room it is (``knock_room_state``)."""
        path = f"{_V1}/send_knock/{path_segment(room_id)}/{path_segment(event_id)}"
        reply = await self.request("PUT", server_name, path, content=pdu, timeout=SEND_TIMEOUT_SECONDS)
        return _objects(server_name, reply, "knock_room_state")

    async def invite(
        self,
        server_name: str,
        room_id: str,
        event_id: str,
        *,
        room_version: str,
        pdu: Mapping[str, Any],
        invite_room_state: Sequence[Mapping[str, Any]],
    ) -> dict[str, Any]:
        """Invite a user of the server: the invitation PDU with that server's signature added.

        Version 1 of the endpoint, which knows only room versions 1 and 2, is tried
        in those when the server does not know version 2.
        """
        tail = f"invite/{path_segment(room_id)}/{path_segment(event_id)}"
        content = {"room_version": room_version, "event": pdu, "invite_room_state": list(invite_room_state)}
        try:
            reply = await self.request("PUT", server_name, f"{_V2}/{tail}", content=content)
        except RemoteError as error:
            if not is_unrecognized(error) or room_version not in ("1", "2"):
                raise
            unsigned = {**pdu.get("unsigned", {}), "invite_room_state": list(invite_room_state)}
            content = {**pdu, "unsigned": unsigned}
            reply = _unwrapped(
                server_name,
                await self._transport.send("PUT", server_name, f"{_V1}/{tail}", content=content),
            )
        return _object(server_name, reply, "event")

    # Transactions and events.

    async def send_transaction(
        self, server_name: str, transaction_id: str, transaction: Mapping[str, Any] | bytes
    ) -> dict[str, Any]:
        """Deliver PDUs and EDUs; ``transaction`` may be given as canonical JSON bytes.

        Returns ``pdus``: an object from event id to what became of it, ``{}`` or an ``error``.
        """
        path = f"{_V1}/send/{path_segment(transaction_id)}"
        reply = await self.request(
            "PUT", server_name, path, content=transaction, timeout=SEND_TIMEOUT_SECONDS
        )
        results = reply.get("pdus")
        return results if isinstance(results, dict) else {}

    async def get_event(self, server_name: str, event_id: str) -> dict[str, Any]:
        """One PDU by its id."""
        reply = await self.request("GET", server_name, f"{_V1}/event/{path_segment(event_id)}")
        pdus = _objects(server_name, reply, "pdus")
        if not pdus:
            raise malformed(server_name, "The response holds no event")
        return pdus[0]

    async def get_state(self, server_name: str, room_id: str, event_id: str) -> dict[str, Any]:
        """The room's state before an event: ``pdus`` and ``auth_chain``, lists of PDUs."""
        reply = await self._state("state", server_name, room_id, event_id)
        _objects(server_name, reply, "pdus")
        _objects(server_name, reply, "auth_chain")
        return reply

    async def get_state_ids(self, server_name: str, room_id: str, event_id: str) -> dict[str, Any]:
        """The same as ids: ``pdu_ids`` and ``auth_chain_ids``, lists of strings."""
        reply = await self._state("state_ids", server_name, room_id, event_id)
        _strings(server_name, reply, "pdu_ids")
        _strings(server_name, reply, "auth_chain_ids")
        return reply

    async def backfill(
        self, server_name: str, room_id: str, event_ids: Sequence[str], limit: int
    ) -> list[dict[str, Any]]:
        """The given events and what came before them, at most ``limit`` PDUs in all."""
        query = {"v": event_ids, "limit": str(limit)}
        path = f"{_V1}/backfill/{path_segment(room_id)}"
        reply = await self.request("GET", server_name, path, query=query, timeout=SEND_TIMEOUT_SECONDS)
        return _objects(server_name, reply, "pdus")

    async def get_missing_events(
        self,
        server_name: str,
        room_id: str,
        *,
        earliest_events: Sequence[str],
        latest_events: Sequence[str],
        limit: int,
        min_depth: int = 0,
    ) -> list[dict[str, Any]]:
        """The PDUs between those this server has and the later ones it was sent."""
        content = {
            "earliest_events": list(earliest_events),
            "latest_events": list(latest_events),
            "limit": limit,
            "min_depth": min_depth,
        }
        path = f"{_V1}/get_missing_events/{path_segment(room_id)}"
        return _objects(server_name, await self.request("POST", server_name, path, content=content), "events")

    async def event_auth(self, server_name: str, room_id: str, event_id: str) -> list[dict[str, Any]]:
        """The whole auth chain of an event, as PDUs."""
        path = f"{_V1}/event_auth/{path_segment(room_id)}/{path_segment(event_id)}"
        reply = await self.request(
            "GET", server_name, path, timeout=STATE_TIMEOUT_SECONDS, max_bytes=STATE_MAX_BYTES
        )
        return _objects(server_name, reply, "auth_chain")

    # Questions.

    async def query_profile(self, server_name: str, user_id: str, field: str | None = None) -> dict[str, Any]:
        """A user's profile, or one field of it, as an object of fields."""
        query = {"user_id": user_id} if field is None else {"user_id": user_id, "field": field}
        return await self.request("GET", server_name, f"{_V1}/query/profile", query=query)

    async def query_directory(self, server_name: str, room_alias: str) -> dict[str, Any]:
        """What an alias stands for: ``room_id`` and ``servers``, a list of server names."""
        reply = await self.request(
            "GET", server_name, f"{_V1}/query/directory", query={"room_alias": room_alias}
        )
        if not isinstance(reply.get("room_id"), str):
            raise malformed(server_name, "The response has no 'room_id'")
        _strings(server_name, reply, "servers")
        return reply

    async def public_rooms(self, server_name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """A page of the server's published rooms: ``chunk``, a list of objects, and page tokens.

        ``wanted`` is the body of the request: ``limit``, ``since``, ``filter`` and networks.
        """
        reply = await self.request("POST", server_name, f"{_V1}/publicRooms", content=wanted)
        _objects(server_name, reply, "chunk")
        return reply

    async def hierarchy(
        self, server_name: str, room_id: str, *, suggested_only: bool = False
    ) -> dict[str, Any]:
        """A space as far as the server knows it: ``room`` (an object), ``children`` and more."""
        reply = await self.request(
            "GET",
            server_name,
            f"{_V1}/hierarchy/{path_segment(room_id)}",
            query={"suggested_only": "true" if suggested_only else "false"},
            timeout=QUESTION_TIMEOUT_SECONDS,
        )
        _object(server_name, reply, "room")
        return reply

    async def timestamp_to_event(
        self, server_name: str, room_id: str, ts: int, direction: str
    ) -> tuple[str, int]:
        """Id and time of the event closest to a time, after (``f``) or before it (``b``)."""
        reply = await self.request(
            "GET",
            server_name,
            f"{_V1}/timestamp_to_event/{path_segment(room_id)}",
            query={"ts": str(ts), "dir": direction},
            timeout=QUESTION_TIMEOUT_SECONDS,
        )
        event_id, found_ts = reply.get("event_id"), reply.get("origin_server_ts")
        if not isinstance(event_id, str) or not isinstance(found_ts, int):
            raise malformed(server_name, "The response names no event")
        return event_id, found_ts

    async def exchange_third_party_invite(
        self, server_name: str, room_id: str, event: Mapping[str, Any]
    ) -> None:
        """Have the inviting server turn a third-party invite, now redeemed, into an invite."""
        path = f"{_V1}/exchange_third_party_invite/{path_segment(room_id)}"
        await self.request("PUT", server_name, path, content=event)

    # Devices and their keys.

    async def user_devices(
        self, server_name: str, user_id: str, *, timeout: float | None = None
    ) -> dict[str, Any]:
        """A user's ``devices``, a list of objects, and up to which change it is: ``stream_id``."""
        path = f"{_V1}/user/devices/{path_segment(user_id)}"
        reply = await self.request("GET", server_name, path, timeout=timeout)
        if not isinstance(reply.get("stream_id"), int):
            raise malformed(server_name, "'stream_id' of the response is not an integer")
        _objects(server_name, reply, "devices")
        return reply

    async def query_user_keys(
        self,
        server_name: str,
        device_keys: Mapping[str, Sequence[str]],
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """The keys of users' devices (all of them where none are named): ``device_keys``, an object."""
        reply = await self.request(
            "POST",
            server_name,
            f"{_V1}/user/keys/query",
            content={"device_keys": {user_id: list(devices) for user_id, devices in device_keys.items()}},
            timeout=timeout,
        )
        _object(server_name, reply, "device_keys")
        return reply

    async def claim_user_keys(
        self,
        server_name: str,
        one_time_keys: Mapping[str, Mapping[str, str]],
        *,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """One key for each of the devices, named with an algorithm: ``one_time_keys``, an object."""
        reply = await self.request(
            "POST",
            server_name,
            f"{_V1}/user/keys/claim",
            content={"one_time_keys": {user_id: dict(devices) for user_id, devices in one_time_keys.items()}},
            timeout=timeout,
        )
        _object(server_name, reply, "one_time_keys")
        return reply

    # Keys of servers.

    async def get_server_keys(self, server_name: str) -> dict[str, Any]:
        """What a server publishes as its keys, not verified.  The request is not signed."""
        return await self.request(
            "GET",
            server_name,
            "/_matrix/key/v2/server",
            signed=False,
            timeout=KEYS_TIMEOUT_SECONDS,
            max_bytes=KEYS_MAX_BYTES,
        )

    async def query_keys_via_notary(
        self, notary: str, wanted: Mapping[str, Mapping[str, int]]
    ) -> list[dict[str, Any]]:
        """Other servers' published keys as a notary knows and signs them, not verified.

        ``wanted`` maps server names to key ids to the time, in ms, they must be valid
        until; no key ids asks for all keys.
        """
        server_keys = {
            server: {key_id: {"minimum_valid_until_ts": valid_until} for key_id, valid_until in keys.items()}
            for server, keys in wanted.items()
        }
        reply = await self.request(
            "POST",
            notary,
            "/_matrix/key/v2/query",
            content={"server_keys": server_keys},
            signed=False,
            timeout=NOTARY_TIMEOUT_SECONDS,
        )
        return _objects(notary, reply, "server_keys")

    # Policy servers.

    async def ask_policy_server(self, server_name: str, pdu: Mapping[str, Any]) -> dict[str, Any]:
        """A policy server's signatures on an event: an object from server to key id to signature."""
        return await self.request(
            "POST",
            server_name,
            "/_matrix/policy/v1/sign",
            content=pdu,
            timeout=POLICY_TIMEOUT_SECONDS,
            max_bytes=KEYS_MAX_BYTES,
        )

    async def _make(
        self, membership: str, server_name: str, room_id: str, user_id: str, query: Query | None
    ) -> dict[str, Any]:
        path = f"{_V1}/make_{membership}/{path_segment(room_id)}/{path_segment(user_id)}"
        reply = await self.request("GET", server_name, path, query=query)
        _object(server_name, reply, "event")
        return reply

    async def _state(self, endpoint: str, server_name: str, room_id: str, event_id: str) -> dict[str, Any]:
        return await self.request(
            "GET",
            server_name,
            f"{_V1}/{endpoint}/{path_segment(room_id)}",
            query={"event_id": event_id},
            timeout=STATE_TIMEOUT_SECONDS,
            max_bytes=STATE_MAX_BYTES,
        )

    async def _send_v2_or_v1(
        self,
        endpoint: str,
        server_name: str,
        room_id: str,
        event_id: str,
        pdu: Mapping[str, Any],
        *,
        query: Query | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> dict[str, Any]:
        """Hand in a membership event; only version 1 wraps its answer as ``[200, answer]``."""
        tail = f"{endpoint}/{path_segment(room_id)}/{path_segment(event_id)}"
        try:
            return await self.request(
                "PUT",
                server_name,
                f"{_V2}/{tail}",
                query=query,
                content=pdu,
                timeout=STATE_TIMEOUT_SECONDS,
                max_bytes=max_bytes,
            )
        except RemoteError as error:
            if not is_unrecognized(error):
                raise
        reply = await self._transport.send(
            "PUT",
            server_name,
            f"{_V1}/{tail}",
            content=pdu,
            timeout=STATE_TIMEOUT_SECONDS,
            max_bytes=max_bytes,
        )
        return _unwrapped(server_name, reply)


def is_unrecognized(error: RemoteError) -> bool:
    """Whether the server does not know the endpoint, in the ways servers have said so.

    COMPAT: servers older than the spec's "Unsupported endpoints" answer 400, or 404
    without a Matrix error.
    """
    if error.errcode is None:
        return error.status == 404
    return error.errcode == "M_UNRECOGNIZED" and error.status in (400, 404, 405)


def _unwrapped(server_name: str, reply: Any) -> dict[str, Any]:
    match reply:
        case [200, dict() as content]:
            return content
        case _:
            raise malformed(server_name, "The response is not a pair of 200 and an object")


def _object(server_name: str, reply: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = reply.get(name)
    if not isinstance(value, dict):
        raise malformed(server_name, f"'{name}' of the response is not an object")
    return value


def _objects(server_name: str, reply: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return _list_of(dict, server_name, reply, name)


def _strings(server_name: str, reply: Mapping[str, Any], name: str) -> list[str]:
    return _list_of(str, server_name, reply, name)


def _list_of(kind: type[Any], server_name: str, reply: Mapping[str, Any], name: str) -> list[Any]:
    values = reply.get(name)
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise malformed(server_name, f"'{name}' of the response is not a list of {kind.__name__}")
    return values
