"""Servers as real processes: started, waited for, measured, stopped.

Knows nothing of Matrix beyond the two facts every homeserver shares here: a name
and a base URL for its clients.  How each software is configured is told in
``tests/interop/synapse.py`` and ``tests/interop/inglenook.py``; ``bench`` starts
its servers with the same code.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trustme

LOOPBACK = "127.0.0.1"
# Below the range Linux takes the ports of outgoing connections from, so that no connection made
# between the choice of a port and the server's bind can take it.
_PORTS = range(20_000, 32_000)
#: What was given out last: whoever has asked for a port may not have bound it yet.
_given: deque[int] = deque(maxlen=1_000)
_chance = random.SystemRandom()
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class StartFailed(Exception):
    """A server did not come up; the message ends with the end of its log."""


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on, and that was not given out lately."""
    while True:
        port = _chance.choice(_PORTS)
        if port in _given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
        _given.append(port)
        return port


class Authority:
    """A certificate authority of the tests, and the certificates it gave out, as files in ``folder``.

    In a folder that has one it is that one.
    """

    def __init__(self, folder: Path) -> None:
        self.ca_file = folder / "ca.pem"
        self.certificate = folder / "server.pem"
        self.private_key = folder / "server.key"
        if not self.ca_file.exists():
            self._issue(folder)

    def _issue(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        ca = trustme.CA()
        certificate = ca.issue_cert("localhost", LOOPBACK)
        ca.cert_pem.write_to_path(self.ca_file)
        certificate.private_key_pem.write_to_path(self.private_key)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))


@dataclass
class Server:
    """A homeserver that can be started, stopped and started again on the same data and ports.

    ``ready_ports`` are the ports that must accept connections before it counts as started,
    besides ``client_url`` answering ``/_matrix/client/versions``.
    """

    software: str
    server_name: str
    client_url: str
    ready_ports: Sequence[int]
    command: Sequence[str]
    folder: Path
    start_timeout: float = 90.0

    def __post_init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """The file its standard output and error go to, across restarts."""
        return self.folder / "server.log"

    @property
    def pid(self) -> int:
        """The process id; the server must have been launched."""
        assert self._process is not None, f"{self.software} is not running"
        return self._process.pid

    def start(self) -> None:
        """Launch it and wait until it serves.  Raises ``StartFailed``."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Create the process and return at once."""
        assert self._process is None, f"{self.software} is already running"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
            )

    def wait_until_ready(self) -> None:
        """Return when it serves clients and listens on all its ports.  Raises ``StartFailed``."""
        deadline = time.monotonic() + self.start_timeout
        while not self._is_ready():
            if self._process is None or self._process.poll() is not None:
                raise StartFailed(f"{self.software} ended while it started\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise StartFailed(
                    f"{self.software} did not serve within {self.start_timeout:.0f} s\n{self.log_tail()}"
                )
            time.sleep(0.05)

    def stop(self, timeout: float = 20.0) -> int | None:
        """Ask it to finish (SIGTERM) and wait; a process that does not finish in time is killed.

        Returns its exit status, and None where it was not running or had to be killed.
        """
        if self._process is None:
            return None
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        self._process = None
        return status

    def kill(self) -> None:
        """End it at once (SIGKILL), as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log_tail(self, lines: int = 40) -> str:
        """The last lines it wrote, long ones cut; the whole is in ``log``."""
        if not self.log.exists():
            return "(no log)"
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join([f"--- {self.log}", *(line[:240] for line in text[-lines:])])

    def resident_bytes(self) -> int:
        """Its resident memory (Linux only)."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise ProcessLookupError(self.pid)

    def cpu_seconds(self) -> float:
        """Processor time it has used since its start, user and system (Linux only)."""
        # The second field is the command's name and may hold spaces, so count from its closing bracket.
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _CLOCK_TICKS

    def _is_ready(self) -> bool:
        try:
            for port in self.ready_ports:
                socket.create_connection((LOOPBACK, port), timeout=1).close()
            with urllib.request.urlopen(f"{self.client_url}/_matrix/client/versions", timeout=5) as reply:
                return bool(reply.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def start_all(servers: Sequence[Server]) -> None:
    """Start several at the same time; when one fails, none is left running."""
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait_until_ready()
    except BaseException:
        stop_all(servers)
        raise


def stop_all(servers: Sequence[Server]) -> None:
    """Stop several."""
    for server in servers:
        server.stop()
