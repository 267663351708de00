"""Nothing holds the event loop for more than 20 ms, whatever else the machine is doing.

A server in this process, its clients in another thread, and another server's big room in another
process; what is measured is the processor time of the loop's thread.  A machine that others share
may take it away in the middle of a turn and charge it to that turn: it does not do so every time,
so that the best of a few rounds counts.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

import orjson
import pytest

from bench.generator.person import Person
from federation import transport as transport_module
from federation.transport import Transport, WireRequest
from homeserver.config import load_config
from homeserver.errors import RemoteError
from homeserver.exposition import exposition
from homeserver.health import Metrics
from homeserver.main import Server as Running
from homeserver.memory import collect_rarely
from homeserver.protocol.signing import generate_signing_key
from homeserver.turns import TURN_S, each_in_turns, in_turns
from tests.interop.inglenook import inglenook
from tests.performance.counting import counted_calls
from tests.performance.turns import longest_turn, yardstick
from tests.processes import Authority, Server
from tests.resident import Resident

#: The longest turn allowed, in seconds.
_ALLOWED = 0.02
_ROUNDS = 4
_MEMBERS = 3_000
_ROOMS = 60


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
async def server(tmp_path: Path, authority: Authority) -> AsyncIterator[Server]:
    """A whole server that runs in the loop of the test, with the collector as a server has it."""
    configured = inglenook(tmp_path / "here", authority)
    running = await Running.start(load_config(configured.folder / "config.yaml", {}))
    before = gc.get_threshold()
    collect_rarely()
    yield configured
    gc.unfreeze()
    gc.set_threshold(*before)
    await running.stop()


async def elsewhere(work: Callable[[], Awaitable[None]]) -> None:
    """Have clients do something in a thread and a loop of their own."""

    async def done() -> None:
        await work()

    await asyncio.to_thread(asyncio.run, done())


async def test_the_metrics_of_many_routes_are_written_out_beside_the_loop() -> None:
    metrics = Metrics()
    for number in range(300):
        metrics.observe_request("GET", f"/_matrix/client/v3/some/{number}", 200, 0.01)
    factor = yardstick()

    with longest_turn() as turns:
        await asyncio.sleep(0)  # whole turns are measured
        shown = await exposition(metrics)
        await asyncio.sleep(0)

    assert shown.count(b"inglenook_request_seconds_count{") == 300
    assert turns.longest < _ALLOWED * factor, turns.what


@pytest.mark.timeout(180)
async def test_no_turn_of_the_loop_is_long_while_rooms_are_joined_read_and_searched(
    server: Server, authority: Authority
) -> None:
    async def prepare() -> None:
        alice = await Person.register(server)
        names = [await alice.create_room(f"Room {number}") for number in range(_ROOMS)]
        for room in names[:10]:
            await alice.send(room, "a word to be found")
        alice.close()
        prepared.append(alice)

    async def mixed() -> None:
        (alice,) = prepared
        device = await alice.on_a_new_device()
        bob = await Person.register(server)
        await asyncio.gather(device.sync(), bob.join(room, through=resident.names[0]))
        assert len(await bob.members(room)) == count + 1
        path = f"/rooms/{quote(room)}"
        assert len((await bob.call("GET", f"{path}/joined_members"))["joined"]) == count + 1
        assert len(await bob.call("GET", f"{path}/state")) > count
        found = {"room_events": {"search_term": "word", "include_state": True, "event_context": {}}}
        await asyncio.gather(
            bob.sync(),
            device.request("POST", "/_matrix/media/v3/upload", bytes(5_000_000)),
            alice.call("POST", "/search", {"search_categories": found}),
        )
        await device.sliding_sync()
        for person in (alice, device, bob):
            person.close()

    prepared: list[Person] = []
    await elsewhere(prepare)
    longest: list[tuple[float, str]] = []
    for _ in range(_ROUNDS):
        with Resident(authority) as resident:
            room, count = await asyncio.to_thread(resident.room, _MEMBERS)
            with longest_turn() as turns:
                await elsewhere(mixed)
        longest.append((turns.longest / yardstick(), turns.what))
        if longest[-1][0] <= _ALLOWED:
            break
    assert min(longest)[0] <= _ALLOWED, longest


def asks(answer: bytes) -> Transport:
    """A way to other servers, all of which answer the same."""

    async def exchange(_: WireRequest) -> tuple[int, bytes]:
        return 200, answer

    return Transport(server_name="here.example", key=generate_signing_key("a_1"), exchange=exchange)


async def test_a_large_answer_is_decoded_one_event_after_the_other_and_comes_to_the_same() -> None:
    pdus = [{"content": {"body": "x" * 1000}, "depth": number} for number in range(1_000)]
    told = {"origin": "there.example", "pdus": pdus, "auth_chain": [], "more": {"of": [1, None]}}
    transport = asks(orjson.dumps(told))

    with counted_calls(transport_module, "decode") as decoded:
        answer = await transport.send("GET", "there.example", "/state")

    assert answer == told
    assert len(decoded) == len(pdus) + 2


@pytest.mark.parametrize("wrong", [b"[1,]", b'[{"a":}]', b'[{"a":NaN}]', b'["\xff"]', b"[1] 2"])
async def test_a_large_answer_that_is_no_json_is_refused_like_a_small_one(wrong: bytes) -> None:
    for padding in (b"", b"x" * 300_000):
        with pytest.raises(RemoteError, match="not JSON"):
            await asks(b'{"padding":"%b","pdus":%b}' % (padding, wrong)).send(
                "GET", "there.example", "/state"
            )


async def test_work_in_turns_gives_way_whenever_a_turn_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[int] = []
    made: list[int] = []

    async def look() -> None:
        while True:
            others.append(len(made))
            await asyncio.sleep(0)

    def work(number: int) -> int:
        made.append(number)
        return number * number

    # Every look at the clock finds that a turn has passed.
    clock = iter(range(1_000_000))
    monkeypatch.setattr("homeserver.turns.perf_counter", lambda: next(clock) * 2 * TURN_S)
    looking = asyncio.create_task(look())

    squares = await each_in_turns(work, range(10))
    walked = [number async for number in in_turns(range(10))]
    looking.cancel()

    assert squares == [number * number for number in range(10)]
    assert walked == list(range(10))
    assert {*range(1, 10)} <= {*others}
