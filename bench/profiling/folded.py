"""From py-spy's folded stacks to shares: of each thread, of each part of the server, of each module.

A sample counts for the innermost frame of ours: what a module has done for it by a library is its
own cost.  Where no frame of ours is on the stack, it counts for the library.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

_FRAME = re.compile(r"(?P<name>.+) \((?P<file>[^():]+)(?::\d+)?\)$")
_THREAD = re.compile(r"(?:process \d+:.*;)?thread \(\w+\)(?:: (?P<name>[^;]+))?$")
_OURS = ("homeserver/", "client_api/", "federation/")
#: On every stack of the main thread: how the programme was started says nothing.
_START = frozenset({"homeserver/__main__.py", "homeserver/cli.py", "homeserver/main.py"})
#: Modules of ``homeserver/`` itself that are named where the packages are, as all requests pass them.
_REQUESTS = "homeserver (requests and replies)"


@dataclass
class Shares:
    """How many of ``samples`` were in what."""

    samples: int = 0
    threads: Counter[str] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)
    modules: Counter[str] = field(default_factory=Counter)


def shares(lines: Iterable[str], *, within: str = "") -> Shares:
    """Count folded stacks, ``outermost;…;innermost COUNT``; only those in which ``within`` occurs."""
    found = Shares()
    for line in lines:
        if within not in line:
            continue
        stack, _, count = line.rstrip("\n").rpartition(" ")
        thread, *frames = stack.split(";")
        module = _module(frames)
        found.samples += int(count)
        found.threads[_thread(thread)] += int(count)
        found.parts[_part(module)] += int(count)
        found.modules[module] += int(count)
    return found


def _thread(frame: str) -> str:
    matched = _THREAD.match(frame)
    # A pool's threads are alike: "name_0" and "name_1".
    return re.sub(r"[-_]?\d+$", "", (matched and matched["name"]) or "a thread without a name")


def _module(frames: list[str]) -> str:
    innermost = ""
    for frame in reversed(frames):
        matched = _FRAME.match(frame)
        file = matched["file"] if matched else ""
        innermost = innermost or file
        ours = next((file[file.index(each) :] for each in _OURS if each in file), "")
        if ours and ours not in _START:
            return ours
    return f"{innermost.partition('/')[0].removesuffix('.py') or 'unknown'} (library)"


def _part(module: str) -> str:
    if module.endswith("(library)"):
        return "libraries under nothing of ours"
    folder = module.rpartition("/")[0]
    return _REQUESTS if folder == "homeserver" else folder
