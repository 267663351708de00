"""A bridge that others' library makes: people on Matrix and on another network meet in its portals."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from tests.interop.client import Client
from tests.interop.inglenook import inglenook
from tests.processes import LOOPBACK, Authority, Server, free_port

pytest.importorskip("mautrix")

AS_TOKEN, HS_TOKEN, PUPPET_TOKEN = "as token of the bridge", "hs token of the bridge", "token of puppets"
PATIENCE = 60.0
CHANNEL = "c-tea"


@dataclass
class Network:
    """The other network: what it heard from the bridge, and the bridge itself, a process."""

    server: Server
    folder: Path
    port: int
    bridge_port: int
    puppets: dict[str, str] = field(default_factory=dict)
    heard: list[dict[str, Any]] = field(default_factory=list)
    bridge: subprocess.Popen[bytes] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def texts(self) -> list[str]:
        """What was said on Matrix, as often as it was heard here."""
        return [each["text"] for each in self.heard if each["what"] == "message"]

    async def hear(self, request: web.Request) -> web.Response:
        """The bridge tells of something."""
        self.heard.append(await request.json())
        self._news.set()
        return web.json_response({})

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something to be heard."""
        async with asyncio.timeout(PATIENCE):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    async def does(self, what: str, **said: Any) -> dict[str, Any]:
        """Somebody on the network does something, and the bridge has carried it over."""
        url = f"http://{LOOPBACK}:{self.bridge_port}/network/{what}"
        async with (
            aiohttp.ClientSession() as http,
            http.post(url, json={"channel": CHANNEL, **said}) as reply,
        ):
            assert reply.status == 200, (self.folder / "bridge.log").read_text()[-3000:]
            answer: dict[str, Any] = await reply.json()
            return answer

    async def start_bridge(self) -> None:
        """Start the bridge and wait until it has reached the server and the server has reached it."""
        settings = {
            "homeserver": self.server.client_url,
            "domain": self.server.server_name,
            "as_token": AS_TOKEN,
            "hs_token": HS_TOKEN,
            "port": self.bridge_port,
            "network": f"http://{LOOPBACK}:{self.port}",
            "folder": str(self.folder),
            "puppets": self.puppets,
            "puppet_token": PUPPET_TOKEN,
        }
        (self.folder / "bridge.json").write_text(json.dumps(settings))
        before = len(self._times_ready())
        self._launch()
        try:
            await self.until(lambda: len(self._times_ready()) > before)
        except TimeoutError:
            raise AssertionError("not ready: " + (self.folder / "bridge.log").read_text()[-3000:]) from None

    def _launch(self) -> None:
        with (self.folder / "bridge.log").open("ab") as log:
            self.bridge = subprocess.Popen(
                [sys.executable, "-m", "tests.clients.bridge", str(self.folder / "bridge.json")],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
            )

    async def end_bridge(self, how: signal.Signals) -> None:
        """Stop the bridge, or kill it."""
        if self.bridge is not None:
            self.bridge.send_signal(how)
            # In a thread: a bridge that stops may still have something to tell.
            await asyncio.to_thread(self.bridge.wait, 20)
            self.bridge = None

    def _times_ready(self) -> list[dict[str, Any]]:
        return [each for each in self.heard if each["what"] == "ready"]


def registrations(folder: Path, domain: str, bridge_port: int) -> list[str]:
    """The files of the bridge, and of its double puppeting."""
    ours = {
        "id": "fake",
        "url": f"http://{LOOPBACK}:{bridge_port}",
        "as_token": AS_TOKEN,
        "hs_token": HS_TOKEN,
        "sender_localpart": "_fake_bot",
        "rate_limited": False,
        "de.sorunome.msc2409.push_ephemeral": True,
        "namespaces": {
            "users": [{"exclusive": True, "regex": f"@_fake_.*:{domain}"}],
            "aliases": [{"exclusive": True, "regex": f"#_fake_.*:{domain}"}],
        },
    }
    puppets = {
        "id": "doublepuppet",
        "url": None,
        "as_token": PUPPET_TOKEN,
        "hs_token": "never used by anybody",
        "sender_localpart": "_doublepuppet",
        "rate_limited": False,
        "namespaces": {"users": [{"exclusive": False, "regex": f"@.*:{domain}"}]},
    }
    for name, registration in (("fake.yaml", ours), ("puppets.yaml", puppets)):
        (folder / name).write_text(yaml.safe_dump(registration))
    return ["fake.yaml", "puppets.yaml"]


@pytest.fixture
def bridged_server(tmp_path: Path) -> Iterator[tuple[Server, int]]:
    """A server as a process that knows a bridge, and the port the bridge is to listen at."""
    server, bridge_port = inglenook(tmp_path / "server", Authority(tmp_path / "authority")), free_port()
    path = server.folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["application_services"] = registrations(server.folder, server.server_name, bridge_port)
    path.write_text(yaml.safe_dump(config))
    server.start()
    yield server, bridge_port
    server.stop()


@pytest.fixture
async def network(bridged_server: tuple[Server, int], tmp_path: Path) -> AsyncIterator[Network]:
    """The network, without its bridge as yet."""
    server, bridge_port = bridged_server
    folder = tmp_path / "bridge"
    folder.mkdir()
    network = Network(server, folder, free_port(), bridge_port)
    app = web.Application()
    app.router.add_post("/heard", network.hear)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, network.port).start()
    yield network
    await network.end_bridge(signal.SIGKILL)
    await runner.cleanup()


@pytest.fixture
async def alice(bridged_server: tuple[Server, int]) -> AsyncIterator[Client]:
    """A person on Matrix."""
    async with aiohttp.ClientSession() as http:
        client = Client(http, bridged_server[0])
        await client.register("alice", "correct horse battery staple")
        yield client


@pytest.fixture
async def portal(network: Network, alice: Client) -> str:
    """The room that stands for a channel, which the bridge makes because alice looks for it."""
    network.puppets["alice-elsewhere"] = alice.user_id
    await network.start_bridge()
    return await alice.join(f"#_fake_{CHANNEL}:{network.server.server_name}")


async def test_people_of_two_networks_talk(network: Network, alice: Client, portal: str) -> None:
    await network.does("name", nick="carol", name="Carol")
    sent = await network.does("message", nick="carol", text="hello, Matrix", at=1234567890123, id="n1")
    heard = await alice.hears(portal, sent["event_id"])
    profile = await alice.profile(heard["sender"])
    await alice.say(portal, "hello, network")
    await network.until(lambda: bool(network.texts))

    assert heard["sender"] == f"@_fake_carol:{network.server.server_name}"
    assert (heard["content"]["body"], heard["origin_server_ts"]) == ("hello, Matrix", 1234567890123)
    assert profile["displayname"] == "Carol"
    assert network.texts == ["hello, network"]


async def test_typing_and_reading_are_seen_on_both_sides(
    network: Network, alice: Client, portal: str
) -> None:
    ghost = f"@_fake_carol:{network.server.server_name}"
    sent = await network.does("message", nick="carol", text="are you there?", at=1, id="n1")
    await alice.hears(portal, sent["event_id"])
    await alice.type_in(portal, True)
    await alice.read(portal, sent["event_id"])
    await network.until(lambda: any(each["what"] == "read" for each in network.heard))
    await network.until(lambda: any(each["what"] == "typing" for each in network.heard))
    mine = await alice.say(portal, "yes")
    await network.does("typing", nick="carol")
    await network.does("read", nick="carol", id=mine)

    typing = [each["people"] for each in network.heard if each["what"] == "typing"]
    read = [(each["by"], each["id"]) for each in network.heard if each["what"] == "read"]
    assert [alice.user_id] in typing
    assert (alice.user_id, sent["event_id"]) in read
    await alice.until("typing", lambda view: ghost in view.typing.get(portal, []))
    await alice.until("a receipt", lambda view: view.receipts[portal].get(ghost) == mine)


async def test_what_somebody_says_over_there_is_said_by_their_own_account(
    network: Network, alice: Client, portal: str
) -> None:
    sent = await network.does("message", nick="alice-elsewhere", text="from my other phone", at=5, id="n1")
    heard = await alice.hears(portal, sent["event_id"])
    await alice.say(portal, "from this one")
    await network.until(lambda: bool(network.texts))

    assert heard["sender"] == alice.user_id
    assert heard["content"]["fi.mau.double_puppet_source"] == "fake"
    assert network.texts == ["from this one"]  # and not what came from there


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_nothing_is_lost_while_the_bridge_is_away(
    network: Network, alice: Client, portal: str, how: signal.Signals
) -> None:
    said = [f"message {number}" for number in range(60)]
    for text in said[:20]:
        await alice.say(portal, text)
    await network.end_bridge(how)
    for text in said[20:40]:
        await alice.say(portal, text)
    await network.start_bridge()
    for text in said[40:]:
        await alice.say(portal, text)
    await network.until(lambda: len(set(network.texts)) == len(said))

    assert list(dict.fromkeys(network.texts)) == said
    # One that was on its way when the bridge was killed may come again: with the same id.
    repeated = len(network.texts) - len({each["id"] for each in network.heard if each["what"] == "message"})
    assert repeated <= (1 if how is signal.SIGKILL else 0)


async def test_nothing_is_lost_when_the_server_is_killed(
    network: Network, alice: Client, portal: str
) -> None:
    said = [f"message {number}" for number in range(40)]
    for text in said[:20]:
        await alice.say(portal, text)
    network.server.kill()
    network.server.start()
    for text in said[20:]:
        await alice.say(portal, text)
    await network.until(lambda: len(set(network.texts)) == len(said))

    assert list(dict.fromkeys(network.texts)) == said
    # The transaction that was on its way comes again; mautrix knows it only once it is done with it.
    repeated = len(network.texts) - len({each["id"] for each in network.heard if each["what"] == "message"})
    assert len(network.texts) - len(said) == repeated
