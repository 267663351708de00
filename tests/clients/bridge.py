"""A bridge to a network that exists in a test only, written on mautrix as real bridges are.

A process of its own: ``python -m tests.clients.bridge SETTINGS.json``.  The network is a program
the bridge speaks HTTP with: it tells the bridge of its people at ``/network/…``, and is told of
Matrix's at ``/heard``.  What was told is noted in a file, so that a transaction that comes
again after a crash tells the network nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from mautrix.appservice import AppService, IntentAPI
from mautrix.appservice.state_store import FileASStateStore
from mautrix.types import EventType, RoomCreatePreset, UserID

SOURCE = "fake"


class Bridge:
    """The bridge, and which room stands for which channel."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.domain: str = settings["domain"]
        self.folder = Path(settings["folder"])
        self.portals: dict[str, str] = self._stored("portals.json")
        self.told: set[str] = set(self._stored("told.json"))
        self.appservice = AppService(
            server=settings["homeserver"],
            domain=self.domain,
            as_token=settings["as_token"],
            hs_token=settings["hs_token"],
            bot_localpart="_fake_bot",
            id="fake",
            bridge_name=SOURCE,
            state_store=FileASStateStore(path=str(self.folder / "mautrix.json"), binary=False),
            ephemeral_events=True,
            default_http_retry_count=4,
        )
        self.appservice.synchronous_handlers = True  # a transaction is done when the network knows of it
        self.appservice.matrix_event_handler(self.on_event)
        self.appservice.query_alias = self.on_alias
        self.appservice.app.router.add_post("/network/{what}", self.on_network)

    async def run(self) -> None:
        """Until SIGTERM."""
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        async with aiohttp.ClientSession() as self.http:
            await self.appservice.start(port=self.settings["port"])
            await self.appservice.intent.ensure_registered()
            await self.appservice.ping_self()
            await self._tell("ready", {})
            await stopped.wait()
            await self.appservice.stop()

    async def on_alias(self, alias: str) -> dict[str, Any] | None:
        """Somebody looks for a channel: make the room that stands for it."""
        channel = alias.partition(":")[0].removeprefix("#_fake_")
        if not channel.startswith("c-"):
            return None
        room_id = await self.appservice.intent.create_room(
            alias_localpart=f"_fake_{channel}", name=channel, preset=RoomCreatePreset.PUBLIC
        )
        self.portals[channel] = room_id
        self._store("portals.json", self.portals)
        return {"room_id": room_id}  # mautrix takes nothing for no

    async def on_event(self, event: Any) -> None:
        """Something happened in a room."""
        room_id = getattr(event, "room_id", None)
        channel = next((name for name, room in self.portals.items() if room == room_id), None)
        if channel is None:
            return
        if event.type == EventType.ROOM_MESSAGE and not self._is_ours(event):
            if event.event_id not in self.told:
                said = {"id": event.event_id, "from": event.sender, "text": event.content.body}
                await self._tell("message", {"channel": channel, **said})
                self.told.add(event.event_id)
                self._store("told.json", sorted(self.told))
        elif event.type == EventType.TYPING:
            people = [user for user in event.content.user_ids if not user.startswith("@_fake_")]
            await self._tell("typing", {"channel": channel, "people": people})
        elif event.type == EventType.RECEIPT:
            for event_id, by_type in event.content.items():
                for by_user in by_type.values():
                    for user in by_user:
                        await self._tell("read", {"channel": channel, "by": user, "id": event_id})

    async def on_network(self, request: web.Request) -> web.Response:
        """Somebody on the network does something."""
        wanted = await request.json()
        room_id = self.portals[wanted["channel"]]
        intent = self._intent(wanted["nick"])
        answer: dict[str, Any] = {}
        if request.match_info["what"] == "message":
            await intent.ensure_joined(room_id)
            answer["event_id"] = await intent.send_text(
                room_id, wanted["text"], timestamp=wanted["at"], txn_id=wanted["id"]
            )
        elif request.match_info["what"] == "name":
            await intent.ensure_registered()
            await intent.set_displayname(wanted["name"])
        elif request.match_info["what"] == "typing":
            await intent.set_typing(room_id, timeout=20_000)
        elif request.match_info["what"] == "read":
            await intent.mark_read(room_id, wanted["id"])
        return web.json_response(answer)

    def _intent(self, nick: str) -> IntentAPI:
        """A ghost, or a person on Matrix whose account on the network this is."""
        api = self.appservice.intent.api
        puppet = self.settings["puppets"].get(nick)
        if puppet is None:
            return api.intent(UserID(f"@_fake_{nick}:{self.domain}"))
        return api.intent(UserID(puppet), token=self.settings["puppet_token"], real_user_as_token=True)

    def _is_ours(self, event: Any) -> bool:
        return (
            event.sender.startswith("@_fake_") or event.content.get("fi.mau.double_puppet_source") == SOURCE
        )

    async def _tell(self, what: str, said: dict[str, Any]) -> None:
        async with self.http.post(f"{self.settings['network']}/heard", json={"what": what, **said}) as reply:
            assert reply.status == 200, await reply.text()

    def _stored(self, name: str) -> Any:
        path = self.folder / name
        return json.loads(path.read_text()) if path.exists() else {}

    def _store(self, name: str, value: Any) -> None:
        written = self.folder / f"{name}.new"
        written.write_text(json.dumps(value))
        written.replace(self.folder / name)  # so that a kill in the middle leaves the former one


async def be(settings: dict[str, Any]) -> None:
    """Be the bridge that is described."""
    await Bridge(settings).run()


if __name__ == "__main__":
    asyncio.run(be(json.loads(Path(sys.argv[1]).read_text())))
