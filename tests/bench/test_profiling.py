"""From folded stacks to where the time went."""

from __future__ import annotations

from bench.profiling.folded import shares

START = "run (homeserver/cli.py:78);run_server (homeserver/cli.py:112);Runner.run (asyncio/runners.py:118)"
LOOP = f"thread (25709): MainThread;{START}"


def test_what_a_library_does_for_a_module_is_that_modules_cost() -> None:
    found = shares(
        [
            f"{LOOP};send (client_api/send.py:36);sign (homeserver/protocol/signing.py:9);x (nacl/x.py:1) 3",
            "thread (25711): sqlite-writer;_run (threading.py:9);end (/opt/homeserver/storage/sqlite.py:7) 5",
        ]
    )

    assert found.samples == 8
    assert found.modules == {"homeserver/protocol/signing.py": 3, "homeserver/storage/sqlite.py": 5}
    assert found.parts == {"homeserver/protocol": 3, "homeserver/storage": 5}
    assert found.threads == {"MainThread": 3, "sqlite-writer": 5}


def test_how_the_programme_was_started_is_nobodys_cost() -> None:
    found = shares([f"{LOOP} 2", f"{LOOP};data_received (aiohttp/web_protocol.py:300) 1"])

    assert found.modules == {"asyncio (library)": 2, "aiohttp (library)": 1}
    assert found.parts == {"libraries under nothing of ours": 3}


def test_modules_that_every_request_passes_are_one_part() -> None:
    found = shares([f"{LOOP};handle (homeserver/web.py:30) 1", f"{LOOP};match (homeserver/routing.py:30) 1"])

    assert found.parts == {"homeserver (requests and replies)": 2}


def test_the_threads_of_a_pool_are_one_line() -> None:
    found = shares([f"thread ({number}): reader_{number};read (x.py:1) 1" for number in range(3)])

    assert found.threads == {"reader": 3}


def test_only_the_stacks_asked_for_count() -> None:
    lines = [
        f"{LOOP};sync (client_api/sync.py:30) 4",
        f"{LOOP};log_in (client_api/login.py:30) 9",
    ]

    assert shares(lines, within="client_api/sync.py").samples == 4
