"""A small Matrix client for stories: what a person does, and waiting until they see it.

Speaks the specification's client-server API only, so that any homeserver will do.  Everything a
``/sync`` brings is kept in ``Client.view``; the waiting methods look there first and sync on until
what they wait for has come, or fail telling what did come.
"""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp

from tests.processes import Server

Event = dict[str, Any]
RoomState = dict[tuple[str, str], str]
T = TypeVar("T")

PATIENCE = 20.0
_transactions = itertools.count()
# Wide enough that no story has a gap in a timeline.
_FILTER = '{"room":{"timeline":{"limit":100}}}'


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, errcode: str, request: str, body: Any) -> None:
        super().__init__(f"{request}: {status} {body}")
        self.status = status
        self.errcode = errcode


class NotSeen(AssertionError):
    """What was waited for did not come in time."""


@dataclass
class View:
    """What one person's syncs have brought so far, by room.

    An event that comes twice fails the test unless ``repeats`` allows it.
    """

    repeats: bool = False
    timeline: dict[str, list[Event]] = field(default_factory=lambda: defaultdict(list))
    state: dict[str, dict[tuple[str, str], Event]] = field(default_factory=lambda: defaultdict(dict))
    invites: dict[str, list[Event]] = field(default_factory=dict)
    left: set[str] = field(default_factory=set)
    joined: set[str] = field(default_factory=set)
    typing: dict[str, list[str]] = field(default_factory=dict)
    receipts: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    presence: dict[str, str] = field(default_factory=dict)
    #: Users whose devices have to be looked at again, or no longer.
    devices_changed: set[str] = field(default_factory=set)
    devices_left: set[str] = field(default_factory=set)
    to_device: list[Event] = field(default_factory=list)

    def take(self, reply: Mapping[str, Any]) -> None:
        """Add one ``/sync`` reply."""
        rooms = reply.get("rooms", {})
        lists = reply.get("device_lists", {})
        self.devices_changed |= set(lists.get("changed", ()))
        self.devices_left |= set(lists.get("left", ()))
        self.to_device += reply.get("to_device", {}).get("events", [])
        for event in reply.get("presence", {}).get("events", []):
            self.presence[event["sender"]] = event["content"]["presence"]
        for room_id, room in rooms.get("join", {}).items():
            self.joined.add(room_id)
            self.left.discard(room_id)
            self.invites.pop(room_id, None)
            self._take_events(room_id, room)
            self._take_ephemeral(room_id, room)
        for room_id, room in rooms.get("leave", {}).items():
            self.left.add(room_id)
            self.joined.discard(room_id)
            self.invites.pop(room_id, None)
            self._take_events(room_id, room)
        for room_id, room in rooms.get("invite", {}).items():
            self.invites[room_id] = room["invite_state"]["events"]

    def event(self, room_id: str, event_id: str) -> Event | None:
        """The timeline's event of that id."""
        return next((event for event in self.timeline[room_id] if event["event_id"] == event_id), None)

    def _take_events(self, room_id: str, room: Mapping[str, Any]) -> None:
        for event in room.get("state", {}).get("events", []):
            self.state[room_id][event["type"], event["state_key"]] = event
        for event in room.get("timeline", {}).get("events", []):
            if self.event(room_id, event["event_id"]) is None:
                self.timeline[room_id].append(event)
            else:
                assert self.repeats, f"came twice in /sync: {event}"
            if "state_key" in event:
                self.state[room_id][event["type"], event["state_key"]] = event

    def _take_ephemeral(self, room_id: str, room: Mapping[str, Any]) -> None:
        for event in room.get("ephemeral", {}).get("events", []):
            if event["type"] == "m.typing":
                self.typing[room_id] = event["content"]["user_ids"]
            elif event["type"] == "m.receipt":
                for event_id, kinds in event["content"].items():
                    for user_id in kinds.get("m.read", {}):
                        self.receipts[room_id][user_id] = event_id


class Client:
    """One device of one person."""

    def __init__(self, http: aiohttp.ClientSession, server: Server) -> None:
        # COMPAT: Synapse shows a room anew once it has fetched the state it joined without.
        self.view = View(repeats=server.software == "synapse")
        self.user_id = ""
        self.device_id = ""
        self.access_token = ""
        self._http = http
        self.base_url = server.client_url
        self._since: str | None = None

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        api: str = "v3",
        **query: str | int | list[str],
    ) -> Any:
        """One request below ``/_matrix/client/{api}``; the reply's JSON.  Raises ``Refused``."""
        headers = {"Authorization": f"Bearer {self.access_token}"} if self.access_token else {}
        url = f"{self.base_url}/_matrix/client/{api}{path}"
        json = body if body is not None or method == "GET" else {}
        async with self._http.request(method, url, json=json, params=query, headers=headers) as reply:
            answer = await reply.json()
            if reply.status != 200:
                raise Refused(reply.status, answer.get("errcode", ""), f"{method} {path}", answer)
            return answer

    # Accounts

    async def register(self, localpart: str, password: str) -> None:
        """Make the account and use its first device; agrees to the ``m.login.dummy`` stage when asked."""
        wanted = {"username": localpart, "password": password}
        self._use(await self.request("POST", "/register", {**wanted, "auth": {"type": "m.login.dummy"}}))

    async def login(self, localpart: str, password: str) -> None:
        """A new device by password."""
        identifier = {"type": "m.id.user", "user": localpart}
        login = {"type": "m.login.password", "identifier": identifier, "password": password}
        self._use(await self.request("POST", "/login", login))

    def _use(self, session: Mapping[str, str]) -> None:
        self.user_id = session["user_id"]
        self.device_id = session["device_id"]
        self.access_token = session["access_token"]

    async def set_displayname(self, name: str) -> None:
        """Change one's own display name."""
        await self.request("PUT", f"/profile/{quote(self.user_id)}/displayname", {"displayname": name})

    async def profile(self, user_id: str) -> dict[str, Any]:
        """Anyone's profile."""
        profile: dict[str, Any] = await self.request("GET", f"/profile/{quote(user_id)}")
        return profile

    # Rooms

    async def create_room(self, **body: Any) -> str:
        """Returns the new room's id."""
        reply = await self.request("POST", "/createRoom", body)
        return str(reply["room_id"])

    async def join(self, room: str, *via: str) -> str:
        """Join by id or alias, through the servers ``via``; returns the room's id."""
        # Servers that are older than the parameter `via` (v1.12) know it as `server_name`.
        query = {"via": list(via), "server_name": list(via)} if via else {}
        reply = await self.request("POST", f"/join/{quote(room)}", **query)
        return str(reply["room_id"])

    async def knock(self, room_id: str, *via: str, reason: str = "") -> None:
        """Ask to be let in."""
        query = {"via": list(via), "server_name": list(via)} if via else {}
        await self.request("POST", f"/knock/{quote(room_id)}", {"reason": reason}, **query)

    async def leave(self, room_id: str) -> None:
        """Leave, or reject an invitation."""
        await self.request("POST", f"/rooms/{quote(room_id)}/leave")

    async def forget(self, room_id: str) -> None:
        """Forget a room one has left."""
        await self.request("POST", f"/rooms/{quote(room_id)}/forget")

    async def invite(self, room_id: str, user_id: str) -> None:
        """Invite a user of any server."""
        await self.request("POST", f"/rooms/{quote(room_id)}/invite", {"user_id": user_id})

    async def kick(self, room_id: str, user_id: str, reason: str = "") -> None:
        """Make a member leave."""
        await self.request("POST", f"/rooms/{quote(room_id)}/kick", {"user_id": user_id, "reason": reason})

    async def ban(self, room_id: str, user_id: str) -> None:
        """Ban a user."""
        await self.request("POST", f"/rooms/{quote(room_id)}/ban", {"user_id": user_id})

    async def unban(self, room_id: str, user_id: str) -> None:
        """Lift a ban."""
        await self.request("POST", f"/rooms/{quote(room_id)}/unban", {"user_id": user_id})

    async def find_alias(self, alias: str) -> dict[str, Any]:
        """``{"room_id", "servers"}``."""
        answer: dict[str, Any] = await self.request("GET", f"/directory/room/{quote(alias)}")
        return answer

    # Events

    async def send(self, room_id: str, type: str, content: Mapping[str, Any]) -> str:
        """Send a message event; returns its id."""
        path = f"/rooms/{quote(room_id)}/send/{quote(type)}/t{next(_transactions)}"
        return str((await self.request("PUT", path, content))["event_id"])

    async def say(self, room_id: str, text: str) -> str:
        """Send a text message; returns its id."""
        return await self.send(room_id, "m.room.message", {"msgtype": "m.text", "body": text})

    async def set_state(
        self, room_id: str, type: str, content: Mapping[str, Any], state_key: str = ""
    ) -> str:
        """Send a state event; returns its id."""
        path = f"/rooms/{quote(room_id)}/state/{quote(type)}/{quote(state_key)}"
        return str((await self.request("PUT", path, content))["event_id"])

    async def set_topic(self, room_id: str, topic: str) -> str:
        """Returns the event's id."""
        return await self.set_state(room_id, "m.room.topic", {"topic": topic})

    async def set_power(self, room_id: str, user_id: str, level: int) -> str:
        """Give one user a power level and leave the rest as it is; returns the event's id."""
        levels = await self.state_content(room_id, "m.room.power_levels")
        levels["users"] = {**levels.get("users", {}), user_id: level}
        return await self.set_state(room_id, "m.room.power_levels", levels)

    async def redact(self, room_id: str, event_id: str, reason: str = "") -> str:
        """Returns the id of the redaction."""
        path = f"/rooms/{quote(room_id)}/redact/{quote(event_id)}/t{next(_transactions)}"
        return str((await self.request("PUT", path, {"reason": reason}))["event_id"])

    async def state_content(self, room_id: str, type: str, state_key: str = "") -> dict[str, Any]:
        """The content of one state event now."""
        path = f"/rooms/{quote(room_id)}/state/{quote(type)}/{quote(state_key)}"
        content: dict[str, Any] = await self.request("GET", path)
        return content

    async def state(self, room_id: str) -> RoomState:
        """The whole current state: event ids by type and state key."""
        events = await self.request("GET", f"/rooms/{quote(room_id)}/state")
        return {(event["type"], event["state_key"]): event["event_id"] for event in events}

    async def event(self, room_id: str, event_id: str) -> Event:
        """One event."""
        event: Event = await self.request("GET", f"/rooms/{quote(room_id)}/event/{quote(event_id)}")
        return event

    async def members(self, room_id: str, membership: str = "join") -> set[str]:
        """Who has that membership."""
        reply = await self.request("GET", f"/rooms/{quote(room_id)}/members", membership=membership)
        return {event["state_key"] for event in reply["chunk"]}

    async def history(self, room_id: str, *, page: int = 7, pages: int = 60) -> list[Event]:
        """Everything readable, newest first, in pages of ``page`` from the end backwards."""
        query: dict[str, str | int] = {"dir": "b", "limit": page}
        events: list[Event] = []
        for _ in range(pages):
            reply = await self.request("GET", f"/rooms/{quote(room_id)}/messages", **query)
            events += reply["chunk"]
            if "end" not in reply or (not reply["chunk"] and reply["end"] == query.get("from")):
                return events
            query["from"] = reply["end"]
        raise NotSeen(f"the beginning of {room_id} in {pages} pages of {page}: {_told(events)}")

    async def type_in(self, room_id: str, typing: bool) -> None:
        """Say that one types, or stopped."""
        body = {"typing": typing, "timeout": 30_000} if typing else {"typing": False}
        await self.request("PUT", f"/rooms/{quote(room_id)}/typing/{quote(self.user_id)}", body)

    async def read(self, room_id: str, event_id: str) -> None:
        """Send a public read receipt."""
        await self.request("POST", f"/rooms/{quote(room_id)}/receipt/m.read/{quote(event_id)}")

    # Media

    async def upload(self, content: bytes, content_type: str, filename: str = "") -> str:
        """Returns the content's ``mxc://`` URI."""
        url = f"{self.base_url}/_matrix/media/v3/upload"
        headers = {"Authorization": f"Bearer {self.access_token}", "Content-Type": content_type}
        query = {"filename": filename} if filename else {}
        async with self._http.post(url, data=content, params=query, headers=headers) as reply:
            answer = await reply.json()
            if reply.status != 200:
                raise Refused(reply.status, answer.get("errcode", ""), "upload", answer)
            return str(answer["content_uri"])

    async def download(
        self, mxc: str, *, of: str = "download", **query: str | int
    ) -> tuple[bytes, Mapping[str, str]]:
        """Content, or another endpoint's (``of="thumbnail"``), and its headers."""
        url = f"{self.base_url}/_matrix/client/v1/media/{of}/{mxc.removeprefix('mxc://')}"
        headers = {"Authorization": f"Bearer {self.access_token}"}
        async with self._http.get(url, params=query, headers=headers) as reply:
            if reply.status != 200:
                answer = await reply.json()
                raise Refused(reply.status, answer.get("errcode", ""), of, answer)
            return await reply.read(), reply.headers.copy()

    async def be(self, presence: str) -> None:
        """Say that one is ``online``, ``unavailable`` or ``offline``."""
        await self.request("PUT", f"/presence/{quote(self.user_id)}/status", {"presence": presence})

    # Waiting

    async def sync(self, *, wait_ms: int = 0) -> dict[str, Any]:
        """One ``/sync`` on from the last; the reply is in the view, too."""
        query: dict[str, str | int] = {"timeout": wait_ms, "filter": _FILTER}
        if self._since is not None:
            query["since"] = self._since
        reply: dict[str, Any] = await self.request("GET", "/sync", **query)
        self.view.take(reply)
        self._since = reply["next_batch"]
        return reply

    async def until(self, what: str, find: Callable[[View], T | None], *, patience: float = PATIENCE) -> T:
        """Sync on until ``find`` finds something in the view, and return it.  Raises ``NotSeen``."""
        deadline = time.monotonic() + patience
        while not (found := find(self.view)):
            if time.monotonic() > deadline:
                raise NotSeen(f"{self.user_id} waited {patience:.0f} s for {what}; seen: {self._seen()}")
            await self.sync(wait_ms=1000)
        return found

    async def hears(self, room_id: str, event_id: str, *, patience: float = PATIENCE) -> Event:
        """The event, once it is in the room's timeline."""
        return await self.until(
            f"event {event_id}", lambda view: view.event(room_id, event_id), patience=patience
        )

    async def is_invited(self, room_id: str) -> list[Event]:
        """The invitation's stripped state, once it is there."""
        return await self.until(f"an invitation to {room_id}", lambda view: view.invites.get(room_id))

    async def is_out(self, room_id: str) -> None:
        """Wait until the room is among those one has left."""
        await self.until(f"having left {room_id}", lambda view: room_id in view.left)

    async def sees_membership(self, room_id: str, user_id: str, membership: str) -> Event:
        """The member event, once that user's membership is ``membership``."""

        def find(view: View) -> Event | None:
            member = view.state[room_id].get(("m.room.member", user_id))
            return member if member and member["content"]["membership"] == membership else None

        return await self.until(f"{user_id} to be: {membership}", find)

    def _seen(self) -> str:
        rooms = {room_id: _told(events) for room_id, events in self.view.timeline.items()}
        return f"joined {self.view.joined}, left {self.view.left}, invited {set(self.view.invites)}, {rooms}"


def _told(events: list[Event]) -> str:
    return "; ".join(f"{event['type']} {event['sender']} {event['content']}"[:120] for event in events[-12:])
