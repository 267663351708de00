"""Content URIs: ``mxc://server-name/media-id`` (client-server API, "Matrix Content URIs").

Nothing else may become the name of media: what a client or another server sends goes
through ``Mxc.parse`` first, and no file is ever named after it.
"""

from __future__ import annotations

import re
import secrets

import msgspec

from homeserver.errors import not_found
from homeserver.protocol.ids import is_server_name

_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)


class Mxc(msgspec.Struct, frozen=True):
    """The name of some media: the server it was uploaded to, and its id there."""

    server_name: str
    media_id: str

    @classmethod
    def parse(cls, server_name: str, media_id: str) -> Mxc:
        """The two segments of a path; ``M_NOT_FOUND`` for what no media can be called."""
        if not is_server_name(server_name) or not _MEDIA_ID.fullmatch(media_id):
            raise not_found("There is no such media")
        return cls(server_name, media_id)

    def __str__(self) -> str:
        return f"mxc://{self.server_name}/{self.media_id}"


def new_media_id() -> str:
    """An id that nobody can guess: whoever has it may have the media."""
    return secrets.token_urlsafe(18)
