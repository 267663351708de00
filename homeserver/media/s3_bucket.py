"""A bucket of an S3 store: how it is reached, what it is asked, and what its refusals mean.

Needs ``aiobotocore``, which nothing else may need: import this module only where it is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, Protocol

import structlog
from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiobotocore.session import get_session  # type: ignore[import-untyped]
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as StoreUnreachable

from homeserver.errors import MatrixError

_log = structlog.get_logger()

_CONNECT_S: Final = 10
_ANSWER_S: Final = 60
_CONNECTIONS: Final = 64
_NOT_THERE: Final = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchUpload"})

_RIGHTS: Final = (
    "s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload, s3:ListBucket and"
    " s3:ListBucketMultipartUploads"
)
#: What a refusal at the start means: the key of the configuration, and what to do.
_FIXES: Final[Mapping[str, tuple[str, str]]] = {
    "NoSuchBucket": ("bucket", "there is no bucket of this name: make it, or correct the name"),
    "404": ("bucket", "there is no bucket of this name: make it, or correct the name"),
    "InvalidAccessKeyId": ("access_key", "the store does not know it: correct it, or make a new key"),
    "SignatureDoesNotMatch": ("secret_key", "it does not belong to access_key: correct one of the two"),
    "AccessDenied": ("access_key", f"it is not allowed enough: it needs {_RIGHTS}"),
    "403": ("access_key", f"it is not allowed enough: it needs {_RIGHTS}"),
    "PermanentRedirect": ("region", "the bucket is in another region: set the one it is in"),
    "301": ("region", "the bucket is in another region: set the one it is in"),
    "AuthorizationHeaderMalformed": ("region", "the bucket is in another region: set the one it is in"),
}


class S3Refused(OSError):
    """A store that cannot be used; the sentence names the key of the configuration, and the fix."""


class Settings(Protocol):
    """Where a bucket is, and who asks; ``None`` for what the environment says."""

    @property
    def bucket(self) -> str: ...

    @property
    def endpoint(self) -> str | None: ...

    @property
    def region(self) -> str | None: ...

    @property
    def access_key(self) -> str | None: ...

    @property
    def secret_key(self) -> str | None: ...

    @property
    def prefix(self) -> str: ...


class Bucket:
    """A bucket and the connections to it; ``open`` comes before anything else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._closing = AsyncExitStack()
        self._client: Any = None

    async def open(self) -> None:
        """Connect, and see whether everything that will be needed is allowed.  ``S3Refused``."""
        settings = self._settings
        config = AioConfig(
            connect_timeout=_CONNECT_S,
            read_timeout=_ANSWER_S,
            max_pool_connections=_CONNECTIONS,
            retries={"max_attempts": 3, "mode": "standard"},
            # Where an endpoint is given, its name is all that is sure to resolve.
            s3={"addressing_style": "path" if settings.endpoint else "auto"},
            # COMPAT: many stores beside Amazon's do not know the checksums that are sent by default.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        client = get_session().create_client(
            "s3",
            endpoint_url=settings.endpoint,
            region_name=settings.region or ("us-east-1" if settings.endpoint else None),
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            config=config,
        )
        try:
            self._client = await self._closing.enter_async_context(client)
            await self._try_out()
        except (ClientError, BotoCoreError) as error:
            await self.close()
            raise S3Refused(_advice(error)) from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the connections."""
        await self._closing.aclose()

    def key(self, name: str) -> str:
        """The key of an object."""
        return self._settings.prefix + name

    async def ask(self, operation: str, **parameters: Any) -> Any:
        """Ask the store for something.  ``FileNotFoundError``, and 503 where it fails."""
        return await self.guard(getattr(self._client, operation)(Bucket=self._settings.bucket, **parameters))

    async def guard(self, question: Awaitable[Any]) -> Any:
        """The same for anything that waits for the store."""
        try:
            return await question
        except Exception as error:
            # Between the store and here there are several libraries, each with errors of its own.
            code = _code(error)
            if code in _NOT_THERE:
                raise FileNotFoundError(code) from error
            if code in ("416", "InvalidRange"):
                raise EOFError("the object is shorter than it was") from error
            _log.warning("file store failed", error=f"{type(error).__name__}: {error}")
            raise MatrixError(503, "M_UNKNOWN", "The files of this server cannot be reached") from error

    async def _try_out(self) -> None:
        bucket, key = self._settings.bucket, self.key("try-out")
        await self._client.put_object(Bucket=bucket, Key=key, Body=b"")
        await self._client.head_object(Bucket=bucket, Key=key)
        await self._client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
        await self._client.list_multipart_uploads(Bucket=bucket, Prefix=key, MaxUploads=1)
        await self._client.delete_object(Bucket=bucket, Key=key)


def _code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _advice(error: ClientError | BotoCoreError) -> str:
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return (
            "media.s3.access_key: there is none, nor one in the environment: set access_key and secret_key,"
            " or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the machine a role"
        )
    if isinstance(error, HTTPClientError | StoreUnreachable):
        return f"media.s3.endpoint: the store cannot be reached ({error}): correct it, or start the store"
    key, fix = _FIXES.get(_code(error), ("", f"the store refuses to be used: {error}"))
    return f"media.s3.{key}: {fix}" if key else f"media.s3: {fix}"
