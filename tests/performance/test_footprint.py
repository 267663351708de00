"""What a server has loaded while nobody uses it, and what it holds of the events it keeps."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homeserver.new_server import write_new_server
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.sealing import seal_event
from homeserver.protocol.signing import generate_signing_key
from homeserver.rooms.event_cache import EventCache
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from tests.processes import free_port

#: What only some servers, or only some of their moments, have a use for.
LOADED_WHEN_NEEDED = {
    *("typer", "rich", "pygments", "pydantic", "greenlet"),
    *("jinja2", "aiosmtplib", "joserfc", "cryptography"),
    *("lxml", "PIL", "asyncpg", "botocore", "aiobotocore"),
    *("aiodns", "pycares", "prometheus_client", "wsgiref"),
    *("zipfile", "argparse", "http.server", "importlib.metadata"),
    *("aiohttp.web", "aiohttp.web_app", "aiohttp.web_urldispatcher", "aiohttp.web_fileresponse"),
}

#: The ``inglenook`` command, which tells what it has loaded and which threads it has when asked to.
_TELLING = """
import gc, json, signal, ssl, sys, threading
def tell(*_):
    modules, threads = sorted(sys.modules), [thread.name for thread in threading.enumerate()]
    gc.unfreeze()
    contexts = [one for one in gc.get_objects() if isinstance(one, ssl.SSLContext)]
    authorities = sum(one.cert_store_stats()["x509_ca"] for one in contexts)
    said = {"modules": modules, "threads": threads, "contexts": len(contexts), "authorities": authorities}
    print(json.dumps(said), flush=True)
signal.signal(signal.SIGUSR1, tell)
from homeserver.cli import main
main()
"""


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What a new server on SQLite has when it listens, by the names that ``_TELLING`` gives it."""
    folder = tmp_path_factory.mktemp("idle")
    config = write_new_server(folder, server_name="example.org", port=free_port(), database="inglenook.db")
    with subprocess.Popen(
        [sys.executable, "-c", _TELLING, "run", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        said = next((line for line in server.stderr if "listening" in line), None)
        assert said is not None, "it ended before it listened"
        server.send_signal(signal.SIGUSR1)
        yield json.loads(server.stdout.readline())
        server.terminate()


def test_an_idle_server_has_not_loaded_what_it_may_never_need(idle: dict[str, Any]) -> None:
    assert LOADED_WHEN_NEEDED.intersection(idle["modules"]) == set()


def test_an_idle_server_has_not_read_the_certificate_authorities(idle: dict[str, Any]) -> None:
    assert idle["contexts"] > 0
    assert idle["authorities"] == 0


def test_an_idle_server_has_few_threads(idle: dict[str, Any]) -> None:
    assert len(idle["threads"]) <= 12


def test_events_take_the_memory_of_their_json_and_little_more() -> None:
    tracemalloc.start()
    try:
        events = [message(number) for number in range(300)]
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 3.5 * sum(len(event.json) for event in events)


async def test_kept_events_are_bounded_in_bytes_however_many_there_are(sqlite_database: Database) -> None:
    capacity = 256 * 1024
    cache = EventCache(sqlite_database, capacity)
    message(0)
    tracemalloc.start()
    try:
        for number in range(600):
            cache.put(stored(number))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 2 * capacity
    assert set(await cache.by_nids([599])) == {599}


def message(number: int) -> Event:
    """An event such as clients send, with nothing in it that another has."""
    pdu = {
        "type": "m.room.message",
        "room_id": "!room:example.org",
        "sender": "@alice:example.org",
        "origin_server_ts": 1_700_000_000_000 + number,
        "depth": number,
        "prev_events": [f"${number:043d}"],
        "auth_events": [f"${number + each:043d}" for each in range(3)],
        "content": {"msgtype": "m.text", "body": f"Message number {number}"},
    }
    return seal_event(pdu, ROOM_VERSIONS["11"], "example.org", _KEY)


def stored(number: int) -> StoredEvent:
    return StoredEvent(
        nid=number,
        room_nid=1,
        event=message(number),
        pos=number,
        flags=0,
        state_before=None,
        state_after=None,
        auth_nids=(1, 2, 3),
    )


_KEY = generate_signing_key("a_test")
