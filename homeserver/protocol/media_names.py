"""Which media of a server an event names (client-server API, "Matrix Content URIs").

A name counts wherever it stands: in ``url`` and ``info.thumbnail_url``, in ``file.url`` of an
encrypted file, as an avatar, in the HTML of a message, in fields that nobody has thought of yet.
Nothing here tells whether there is such media, nor reads what is encrypted.
"""

from __future__ import annotations

import re
from functools import lru_cache


def media_named(json: bytes, server_name: str) -> set[str]:
    """The ids of a server's media that some JSON names.

    JSON in which slashes are escaped names nothing; canonical JSON escapes none.  There are
    fewer names than the JSON has bytes.
    """
    prefix, names = _reading(server_name)
    # Nearly all events name none, which is seen without a search for the pattern.
    return {found.decode() for found in names.findall(json)} if prefix in json else set()


@lru_cache(maxsize=16)
def _reading(server_name: str) -> tuple[bytes, re.Pattern[bytes]]:
    prefix = f"mxc://{server_name}/".encode()
    return prefix, re.compile(re.escape(prefix) + rb"([A-Za-z0-9_-]{1,255})(?![A-Za-z0-9_-])")
