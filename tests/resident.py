"""A server that has a big room and lets others in: a process of its own, its events signed for true.

``python -m tests.resident CERTIFICATE KEY NAMES``.  It answers what a joining server asks, and believes
whatever it is sent.  On its first port it also answers ``/test/…``, by which a test makes rooms and holds
answers back.  Its members belong to several server names, all of which it answers for.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from aiohttp import web

from federation.server_keys import server_keys_response
from homeserver.protocol.auth_rules import auth_types_for
from homeserver.protocol.canonical_json import decode
from homeserver.protocol.event_format import parse_event
from homeserver.protocol.events import Event, StateKey
from homeserver.protocol.ids import server_name_of
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.protocol.signing import generate_signing_key
from homeserver.rooms.compose import seal, template
from tests.processes import LOOPBACK, Authority, free_port

_VERSION = "11"
_MEMBER = "m.room.member"


@dataclass
class BigRoom:
    """Its events in the order they were made; nothing forks."""

    room_id: str
    rules: RoomVersion
    events: dict[str, Event] = field(default_factory=dict)
    state: dict[StateKey, Event] = field(default_factory=dict)
    #: The number of events in the state before an event, by its id; the state as it grew.
    history: list[tuple[str, StateKey | None, Event | None]] = field(default_factory=list)

    @property
    def newest(self) -> list[Event]:
        return [self.events[self.history[-1][0]]] if self.history else []

    def draft(self, sender: str, type_: str, content: Mapping[str, Any], key: str | None) -> dict[str, Any]:
        keys = auth_types_for(self.rules, type=type_, sender=sender, state_key=key, content=content)
        return template(
            rules=self.rules,
            room_id=self.room_id,
            sender=sender,
            type=type_,
            state_key=key,
            content=content,
            prev_events=self.newest,
            auth_events=[self.state[each] for each in keys if each in self.state],
            now_ms=int(time.time() * 1000),
        )

    def add(self, event: Event) -> None:
        replaced = self.state.get(event.key) if event.is_state else None
        self.history.append((event.event_id, event.key if event.is_state else None, replaced))
        self.events[event.event_id] = event
        if event.is_state:
            self.state[event.key] = event

    def state_before(self, event_id: str) -> list[Event]:
        state = dict(self.state)
        for known, key, replaced in reversed(self.history):
            if key is not None and replaced is None:
                del state[key]
            elif key is not None and replaced is not None:
                state[key] = replaced
            if known == event_id:
                return list(state.values())
        raise KeyError(event_id)

    def auth_chain(self, events: Iterable[Event]) -> list[Event]:
        chain: dict[str, Event] = {}
        pending = [auth for event in events for auth in event.auth_events]
        while pending:
            auth = pending.pop()
            if auth not in chain:
                chain[auth] = self.events[auth]
                pending += self.events[auth].auth_events
        return list(chain.values())


class Host:
    """Answers for its rooms and names; what the process runs."""

    def __init__(self, names: list[str]) -> None:
        self.keys = {name: generate_signing_key("a_big") for name in names}
        self._names = names
        self.rooms: dict[str, BigRoom] = {}
        self._released = asyncio.Event()
        self._released.set()
        self._takes = asyncio.Event()
        self._takes.set()
        #: Transactions that wait for an answer, and PDUs in those that were answered.
        self._waiting = self._taken = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Any request."""
        name = request.host
        path = [part for part in request.path.split("/") if part]
        try:
            match [request.method, *path]:
                case [_, "_matrix", "key", "v2", "server"]:
                    now = int(time.time() * 1000)
                    return web.json_response(server_keys_response(name, [self.keys[name]], [], now))
                case [_, "test", *what]:
                    return web.json_response(self._told(what))
                case [_, "_matrix", "federation", _, *what]:
                    body = decode(await request.read()) if request.method == "PUT" else {}
                    return _json(await self._asked(what, request.query, body))
        except KeyError as error:
            return web.json_response({"errcode": "M_NOT_FOUND", "error": str(error)}, status=404)
        return web.json_response({"errcode": "M_UNRECOGNIZED", "error": "Nothing here"}, status=404)

    def _told(self, what: list[str]) -> dict[str, Any]:
        match what:
            case ["room", members]:
                room = self.make(int(members))
                return {"room_id": room.room_id, "members": sum(key[0] == _MEMBER for key in room.state)}
            case ["hold"]:
                self._released.clear()
            case ["release"]:
                self._released.set()
            case ["hold", "transactions"]:
                self._takes.clear()
            case ["release", "transactions"]:
                self._takes.set()
            case ["transactions"]:
                return {"waiting": self._waiting, "taken": self._taken}
        return {}

    async def _asked(self, what: list[str], query: Mapping[str, str], body: Any) -> Callable[[], bytes]:
        match what:
            case ["make_join", room_id, user_id]:
                room = self.rooms[room_id]
                draft = room.draft(user_id, _MEMBER, {"membership": "join"}, user_id)
                return lambda: _dumps({"room_version": room.rules.id, "event": draft})
            case ["send_join", room_id, _]:
                return self._join(self.rooms[room_id], body, omits=query.get("omit_members") == "true")
            case ["state_ids", room_id]:
                await self._released.wait()
                room = self.rooms[room_id]
                state = room.state_before(query["event_id"])
                chain = room.auth_chain(state)
                return lambda: _dumps(
                    {
                        "pdu_ids": [event.event_id for event in state],
                        "auth_chain_ids": [event.event_id for event in chain],
                    }
                )
            case ["state", room_id]:
                await self._released.wait()
                room = self.rooms[room_id]
                state = room.state_before(query["event_id"])
                chain = room.auth_chain(state)
                return lambda: b'{"pdus":' + _array(state) + b',"auth_chain":' + _array(chain) + b"}"
            case ["event", event_id]:
                found = [room.events[event_id] for room in self.rooms.values() if event_id in room.events]
                return lambda: b'{"origin":"x","origin_server_ts":1,"pdus":' + _array(found[:1]) + b"}"
            case ["event_auth", room_id, event_id]:
                room = self.rooms[room_id]
                return lambda: b'{"auth_chain":' + _array(room.auth_chain([room.events[event_id]])) + b"}"
            case ["send", _]:
                self._waiting += 1
                await self._takes.wait()
                self._waiting -= 1
                self._take(body["pdus"])
                return lambda: b'{"pdus":{}}'
        raise KeyError("/".join(what))

    def _take(self, pdus: list[dict[str, Any]]) -> None:
        """Events of others: what is made next builds upon them."""
        self._taken += len(pdus)
        for pdu in pdus:
            if (room := self.rooms.get(pdu["room_id"])) is not None:
                event = parse_event(pdu, room.rules)
                if event.event_id not in room.events:
                    room.add(event)

    def _join(self, room: BigRoom, pdu: dict[str, Any], *, omits: bool) -> Callable[[], bytes]:
        before = list(room.state.values())
        event = parse_event(pdu, room.rules)
        state = [one for one in before if one.type != _MEMBER] if omits else before
        room.add(event)
        shown = {one.event_id for one in state}
        chain = [one for one in room.auth_chain([*state, event]) if not (omits and one.event_id in shown)]
        head = {"origin": self._names[0], "members_omitted": omits, "servers_in_room": self._names}
        return lambda: (
            _dumps(head)[:-1] + b',"event":' + event.json + b',"state":' + _array(state)
            + b',"auth_chain":' + _array(chain) + b"}"
        )  # fmt: skip

    def make(self, members: int) -> BigRoom:
        """A public room of so many members."""
        name = self._names[0]
        room = BigRoom(f"!big{len(self.rooms)}-{int(time.time() * 1000)}:{name}", ROOM_VERSIONS[_VERSION])
        creator = f"@creator:{name}"

        def sends(sender: str, type_: str, content: Mapping[str, Any], key: str) -> None:
            server = server_name_of(sender)
            room.add(seal(room.draft(sender, type_, content, key), room.rules, server, self.keys[server]))

        sends(creator, "m.room.create", {"room_version": _VERSION}, "")
        sends(creator, _MEMBER, {"membership": "join"}, creator)
        # Everybody may set its name and topic.
        levels = {"users": {creator: 100}, "state_default": 0}
        sends(creator, "m.room.power_levels", levels, "")
        sends(creator, "m.room.join_rules", {"join_rule": "public"}, "")
        sends(creator, "m.room.history_visibility", {"history_visibility": "shared"}, "")
        sends(creator, "m.room.name", {"name": "A big room"}, "")
        for number in range(1, members):
            user_id = f"@member{number}:{self._names[number % len(self._names)]}"
            content = {"membership": "join", "displayname": f"Member number {number}"}
            sends(user_id, _MEMBER, content, user_id)
        self.rooms[room.room_id] = room
        return room


def _array(events: Iterable[Event]) -> bytes:
    return b"[" + b",".join(event.json for event in events) + b"]"


def _dumps(value: Any) -> bytes:
    return json.dumps(value).encode()


def _json(body: Callable[[], bytes]) -> web.Response:
    return web.Response(body=body(), content_type="application/json")


async def _serve(certificate: str, key: str, names: list[str]) -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    runner = web.ServerRunner(web.Server(Host(names).answer, access_log=None))
    await runner.setup()
    for name in names:
        await web.TCPSite(runner, LOOPBACK, int(name.rpartition(":")[2]), ssl_context=tls).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


class Resident:
    """The process, started and told what to do; a context manager."""

    def __init__(self, authority: Authority, names: int = 5) -> None:
        self._ca = authority.ca_file
        ports: set[int] = set()
        while len(ports) < names:  # of very many, two may well be the same
            ports.add(free_port())
        self.names = [f"localhost:{port}" for port in ports]
        files = [str(authority.certificate), str(authority.private_key)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.resident", *files, *self.names],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def __enter__(self) -> Resident:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()

    def room(self, members: int) -> tuple[str, int]:
        """Make a room: its id, and how many members it has."""
        made = self._tell(f"room/{members}")
        return made["room_id"], made["members"]

    def hold(self, what: str = "") -> None:
        """Leave questions about state without an answer; or ``transactions``."""
        self._tell(f"hold/{what}")

    def release(self, what: str = "") -> None:
        """Answer them."""
        self._tell(f"release/{what}")

    def transactions(self) -> tuple[int, int]:
        """How many wait for an answer, and how many PDUs were in those that had one."""
        told = self._tell("transactions")
        return told["waiting"], told["taken"]

    def _tell(self, what: str) -> dict[str, Any]:
        tls = ssl.create_default_context(cafile=str(self._ca))
        url = f"https://{self.names[0]}/test/{quote(what)}"
        with urllib.request.urlopen(url, timeout=300, context=tls) as reply:
            told: dict[str, Any] = json.load(reply)
        return told


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], sys.argv[2], sys.argv[3:]))
