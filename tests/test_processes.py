"""Starting and stopping servers, with a server that is a few lines of Python."""

from __future__ import annotations

import sys
import urllib.request
from pathlib import Path

import pytest

from tests.processes import LOOPBACK, Server, StartFailed, free_port, start_all

_ANSWERS = """
import http.server, sys
class Everything(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Everything).serve_forever()
"""
_GIVES_UP = "raise SystemExit('no signing key')"


def server(folder: Path, program: str) -> Server:
    folder.mkdir()
    port = free_port()
    command = [sys.executable, "-c", program, str(port)]
    return Server("stand-in", "localhost", f"http://{LOOPBACK}:{port}", [port], command, folder)


def answers(running: Server) -> bool:
    with urllib.request.urlopen(f"{running.client_url}/_matrix/client/versions", timeout=5) as reply:
        return bool(reply.status == 200)


def test_a_started_server_answers_until_it_is_stopped_and_can_start_again(tmp_path: Path) -> None:
    stand_in = server(tmp_path / "a", _ANSWERS)
    try:
        stand_in.start()
        assert answers(stand_in)
        assert stand_in.resident_bytes() > 0
        stand_in.stop()
        with pytest.raises(OSError, match="refused"):
            answers(stand_in)
        stand_in.start()
        assert answers(stand_in)
    finally:
        stand_in.stop()


def test_a_server_that_ends_while_it_starts_tells_why(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="no signing key"):
        server(tmp_path / "a", _GIVES_UP).start()


def test_when_one_server_fails_the_other_does_not_stay(tmp_path: Path) -> None:
    well, ill = server(tmp_path / "well", _ANSWERS), server(tmp_path / "ill", _GIVES_UP)
    with pytest.raises(StartFailed):
        start_all([well, ill])
    with pytest.raises(OSError, match="refused"):
        answers(well)
