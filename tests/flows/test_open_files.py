"""A server that was given few open files takes as many as it may: each client that waits holds one."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.interop.inglenook import inglenook
from tests.processes import Authority, Server

_FEW, _CLIENTS = 128, 200

_WITH_FEW = f"""
import os, resource, sys
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, ({_FEW}, hard))
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = inglenook(tmp_path / "server", Authority(tmp_path / "authority"))
    server.command = [sys.executable, "-c", _WITH_FEW, *server.command]
    server.start()
    yield server
    server.stop()


def test_more_clients_are_served_than_the_server_was_given_files(server: Server) -> None:
    address = urlsplit(server.client_url)
    assert address.hostname is not None
    assert address.port is not None
    request = f"GET /_matrix/client/versions HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()

    with contextlib.ExitStack() as closing:
        clients = [
            closing.enter_context(socket.create_connection((address.hostname, address.port), timeout=20))
            for _ in range(_CLIENTS)
        ]
        for client in clients:
            client.sendall(request)
        replies = [client.recv(16) for client in clients]

    assert replies == [b"HTTP/1.1 200 OK\r"] * _CLIENTS
