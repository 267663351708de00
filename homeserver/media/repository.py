"""Where media is found, whosever it is (client-server API, "Content repository").

The deprecated endpoints, which ask nobody who they are, get what was made public when it
came here; only while that is done with new media do they make this server fetch any.
"""

from __future__ import annotations

from homeserver.errors import not_found
from homeserver.media.content import Content
from homeserver.media.files import Files
from homeserver.media.headers import DEFAULT_TYPE
from homeserver.media.mxc import Mxc
from homeserver.media.remote import RemoteCopies
from homeserver.media.uploads import Uploads


class Media:
    """Finds media of this server and of others."""

    def __init__(
        self,
        *,
        uploads: Uploads,
        files: Files,
        copies: RemoteCopies,
        copied: Files,
        server_name: str,
        public: bool,
    ) -> None:
        self._uploads = uploads
        self._files = files
        self._copies = copies
        self._copied = copied
        self._server_name = server_name
        self._public = public

    async def find(self, mxc: Mxc, *, to_anybody: bool, may_fetch: bool, wait_ms: int) -> Content:
        """The content of some media; ``to_anybody`` where it is not known who asks.

        Waits up to ``wait_ms`` for content that is not uploaded yet.  ``M_NOT_FOUND``,
        ``M_NOT_YET_UPLOADED``, and as ``RemoteMedia.fetch``.
        """
        if mxc.server_name == self._server_name:
            content = await self._local(mxc, 0 if to_anybody else wait_ms)
        else:
            content = await self._remote(mxc, may_fetch and (self._public or not to_anybody), wait_ms)
        if to_anybody and not content.is_public:
            raise not_found("There is no such media")
        return content

    async def _local(self, mxc: Mxc, wait_ms: int) -> Content:
        media = await self._uploads.uploaded(mxc.media_id, wait_ms / 1000)
        if media is None or media.file_id is None:
            raise not_found("There is no such media")
        return Content(
            files=self._files,
            file_id=media.file_id,
            size=media.size,
            content_type=media.content_type or DEFAULT_TYPE,
            filename=media.filename,
            is_public=media.is_public,
            is_remote=False,
        )

    async def _remote(self, mxc: Mxc, may_fetch: bool, wait_ms: int) -> Content:
        copy = await self._copies.find(mxc, may_fetch=may_fetch, wait_ms=wait_ms)
        return Content(
            files=self._copied,
            file_id=copy.file_id,
            size=copy.size,
            content_type=copy.content_type,
            filename=copy.filename,
            is_public=copy.is_public,
            is_remote=True,
        )
