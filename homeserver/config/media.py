"""Files that people upload: the ``media`` section."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, TypeAlias

from homeserver.config.reader import Rule
from homeserver.config.rules import BaseUrl, Bytes, Folder, Secret, number, text

BucketName: TypeAlias = Annotated[
    str, text(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", "the name of a bucket, without s3:// and without a path")
]
Region: TypeAlias = Annotated[str, text(r"[A-Za-z0-9-]{1,64}", "the name of a region, such as eu-central-1")]


def _prefix(value: str, _folder: Path) -> str:
    names = value.strip("/")
    if len(names) > 200 or not all(each.isprintable() and each.isascii() for each in names):
        raise ValueError
    return names + "/" if names else ""


Prefix: TypeAlias = Annotated[str, Rule("what names begin with, such as inglenook/media", _prefix)]


@dataclass(frozen=True, slots=True, kw_only=True)
class S3:
    """A bucket of an S3 store; who asks is told by the environment where it is not told here."""

    bucket: BucketName
    endpoint: BaseUrl | None = None
    region: Region | None = None
    access_key: str | None = None
    secret_key: Secret | None = field(default=None, repr=False)
    prefix: Prefix = ""

    def __post_init__(self) -> None:
        if (self.access_key is None) != (self.secret_key is None):
            raise ValueError("access_key and secret_key belong together")
        if find_spec("aiobotocore") is None:
            raise ValueError("needs the package aiobotocore: pip install 'inglenook[s3]'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """What people upload, and what is fetched for them from other servers; sizes in bytes."""

    #: ``load_config`` places the default beside the configuration file.
    folder: Folder = Path("media")
    max_upload_bytes: Bytes = 104_857_600
    max_bytes_per_user: Bytes | None = None
    allow_remote: bool = True
    max_remote_bytes: Bytes = 104_857_600
    remote_cache_bytes: Bytes = 10_737_418_240
    #: Days after which a copy that nobody asked for goes.
    remote_cache_days: Annotated[float, number(float, 0.01, 100_000)] | None = None
    max_image_pixels: Annotated[int, number(int, 1_000_000, 100_000_000)] = 40_000_000
    animated_thumbnails: bool = True
    #: Whether a file goes with the last event that named it.
    delete_with_events: bool = True
    unauthenticated_access: bool = False
    #: In place of ``folder``.
    s3: S3 | None = None

    def __post_init__(self) -> None:
        # So that what was just fetched is never what has to give way.
        if self.remote_cache_bytes < 2 * self.max_remote_bytes:
            raise ValueError("remote_cache_bytes must be at least twice max_remote_bytes")
