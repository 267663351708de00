"""Reads one page, oEmbed answer or image in a process of its own: what strangers send is read by C code.

A job comes by standard input (a line of JSON, then the bytes), its result goes to standard output as
JSON, and the process ends.  Memory and time are bounded, and nothing is opened.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import Final

import msgspec

from homeserver.previews.describing import describe_html, describe_oembed, describe_text
from homeserver.previews.found import Found, ImageKind, Job
from homeserver.previews.images import identify

_MEMORY: Final = 768 * 1024 * 1024
_CPU_SECONDS: Final = 10


def work(job: Job, body: bytes) -> Found | ImageKind | None:
    """The result: of an image its kind, if it is one; of all else what was found."""
    match job.task:
        case "image":
            return identify(body)
        case "html":
            return describe_html(body, job.charset, job.url)
        case "text":
            return describe_text(body, job.charset, job.url)
        case "oembed-json":
            return describe_oembed(body, "json", job.url)
        case "oembed-xml":
            return describe_oembed(body, "xml", job.url)


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # People who chat come before people who look at links.
    os.nice(5)
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    result = work(job, sys.stdin.buffer.read())
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    _main()
