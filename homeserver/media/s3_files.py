"""Files in a bucket of an S3 store (Amazon's, MinIO, Garage, Ceph, R2, and what else speaks it).

The names of objects are those that files have in a folder, so that what a folder holds can be copied
into a bucket and back.  A large file goes up in parts, which become an object all at once or not at
all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Final

import structlog

from homeserver.errors import MatrixError
from homeserver.lookups import Recent
from homeserver.media.files import FILE_ID, ORPHAN_AGE_S, PIECE, NewFile, new_file_id
from homeserver.media.s3_bucket import Bucket

_log = structlog.get_logger()

#: The smallest part that is allowed; all but the last have this size, which some stores insist on.
PART_BYTES: Final = 5 * 1024 * 1024
_MAX_PARTS: Final = 10_000
#: Objects deleted at the same time.
_DELETES: Final = 16
_REMEMBERED: Final = 10_000


class S3Files:
    """Files below one name in a bucket, which others may share."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self._prefix = bucket.key(f"{name}/")
        #: What is known to be there: it goes only through ``remove``, or behind our back.
        self._there: Recent[str, bool] = Recent(_REMEMBERED)
        #: Uploads in parts that are going on here, whatever the store's clock says.
        self._begun: set[str] = set()

    async def open(self) -> None:
        """See ``Files``; the bucket is opened by itself."""

    async def close(self) -> None:
        """See ``Files``."""

    def create(self) -> NewFile:
        """See ``Files``."""
        file_id = new_file_id()
        return _S3File(file_id, self._bucket, self._key(file_id), self._begun)

    async def read(self, file_id: str, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """See ``Files``."""
        key = self._key(file_id)
        try:
            if length <= 0:
                await self._bucket.ask("head_object", Key=key)
                return
            part = f"bytes={start}-{start + length - 1}"
            body = (await self._bucket.ask("get_object", Key=key, Range=part))["Body"]
        except FileNotFoundError:
            self._there.forget(file_id)
            raise
        try:
            while length > 0:
                piece = await self._bucket.guard(body.read(min(length, PIECE)))
                if not piece:
                    raise EOFError(f"the media file {file_id} is shorter than it was")
                length -= len(piece)
                yield piece
        finally:
            body.close()

    async def has(self, file_id: str) -> bool:
        """See ``Files``."""
        key = self._key(file_id)
        if not self._there.get(file_id):
            try:
                await self._bucket.ask("head_object", Key=key)
            except FileNotFoundError:
                return False
            self._there.put(file_id, True)
        return True

    async def remove(self, file_ids: Iterable[str]) -> None:
        """See ``Files``."""
        keys = {file_id: self._key(file_id) for file_id in file_ids}
        slots = asyncio.Semaphore(_DELETES)

        # COMPAT: one by one, for not all stores know how to delete several at once.
        async def delete(file_id: str, key: str) -> None:
            async with slots:
                self._there.forget(file_id)
                await self._bucket.ask("delete_object", Key=key)

        async with asyncio.TaskGroup() as deletions:
            for file_id, key in keys.items():
                deletions.create_task(delete(file_id, key))

    async def remove_orphans(
        self, known: Callable[[Sequence[str]], Awaitable[set[str]]], *, age: float = ORPHAN_AGE_S
    ) -> int:
        """See ``Files``; parts of files that were never completed go, too."""
        before, removed = time.time() - age, 0
        async for page in self._pages("list_objects_v2", ("ContinuationToken", "NextContinuationToken")):
            old = [
                file_id
                for found in page.get("Contents", ())
                if found["LastModified"].timestamp() < before
                and FILE_ID.fullmatch(file_id := found["Key"].removeprefix(self._prefix).replace("/", ""))
            ]
            orphans = set(old) - await known(old)
            await self.remove(orphans)
            removed += len(orphans)
        async for page in self._pages("list_multipart_uploads", ("KeyMarker", "NextKeyMarker")):
            for upload in page.get("Uploads", ()):
                if upload["Initiated"].timestamp() < before and upload["UploadId"] not in self._begun:
                    await _abort(self._bucket, upload["Key"], upload["UploadId"])
        return removed

    async def _pages(self, operation: str, marker: tuple[str, str]) -> AsyncIterator[Any]:
        more: dict[str, str] = {}
        while True:
            page = await self._bucket.ask(operation, Prefix=self._prefix, **more)
            yield page
            if not page.get("IsTruncated") or not page.get(marker[1]):
                return
            more = {marker[0]: page[marker[1]]}

    def _key(self, file_id: str) -> str:
        if not FILE_ID.fullmatch(file_id):
            raise ValueError(f"{file_id!r} is not the id of a file")
        return f"{self._prefix}{file_id[:2]}/{file_id[2:]}"


class _S3File:
    def __init__(self, file_id: str, bucket: Bucket, key: str, begun: set[str]) -> None:
        self.file_id = file_id
        self.size = 0
        self._bucket = bucket
        self._key = key
        self._waiting = bytearray()
        self._begun = begun
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []

    async def __aenter__(self) -> _S3File:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        upload_id, self._upload_id = self._upload_id, None
        if upload_id is not None:
            self._begun.discard(upload_id)
            # Also when cancelled: what is left of it takes space that nobody sees.
            await asyncio.shield(asyncio.ensure_future(_abort(self._bucket, self._key, upload_id)))

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        rest = memoryview(data)
        while rest:
            fitting = PART_BYTES - len(self._waiting)
            self._waiting += rest[:fitting]
            rest = rest[fitting:]
            if len(self._waiting) == PART_BYTES:
                await self._send_part()

    async def keep(self) -> None:
        if self._upload_id is None:
            await self._bucket.ask("put_object", Key=self._key, Body=bytes(self._waiting))
            return
        if self._waiting:
            await self._send_part()
        await self._bucket.ask(
            "complete_multipart_upload",
            Key=self._key,
            UploadId=self._upload_id,
            MultipartUpload={"Parts": self._parts},
        )
        self._begun.discard(self._upload_id)
        self._upload_id = None

    async def _send_part(self) -> None:
        if self._upload_id is None:
            answer = await self._bucket.ask("create_multipart_upload", Key=self._key)
            self._upload_id = str(answer["UploadId"])
            self._begun.add(self._upload_id)
        number = len(self._parts) + 1
        if number > _MAX_PARTS:
            raise MatrixError(413, "M_TOO_LARGE", f"Files have {_MAX_PARTS * PART_BYTES} bytes at most here")
        data, self._waiting = self._waiting, bytearray()
        answer = await self._bucket.ask(
            "upload_part", Key=self._key, UploadId=self._upload_id, PartNumber=number, Body=data
        )
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})


async def _abort(bucket: Bucket, key: str, upload_id: str) -> None:
    """Give an upload up; what fails here is done by the search for orphans."""
    try:
        await bucket.ask("abort_multipart_upload", Key=key, UploadId=upload_id)
    except (FileNotFoundError, MatrixError):
        _log.warning("parts of a file are left behind for now", key=key)
