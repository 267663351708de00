"""Media in an S3 store: the server as a whole, and a store that fails or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import pytest
from aiobotocore.session import get_session  # type: ignore[import-untyped]

from homeserver.config.media import S3
from homeserver.errors import MatrixError
from homeserver.media import s3_bucket, s3_files
from homeserver.media.s3_bucket import Bucket, S3Refused
from homeserver.media.s3_files import PART_BYTES, S3Files
from homeserver.storage import event_media
from tests.media.conftest import StartServer
from tests.media.pictures import opened, picture
from tests.media.server import OLD, V1
from tests.processes import free_port


@pytest.fixture
async def bucket(s3: S3) -> AsyncIterator[Bucket]:
    bucket = Bucket(s3)
    await bucket.open()
    yield bucket
    await bucket.close()


async def inside(s3: S3) -> tuple[list[str], list[str]]:
    """The names of what is in a bucket, and of what was begun and not completed."""
    client = get_session().create_client(
        "s3",
        endpoint_url=s3.endpoint,
        region_name="us-east-1",
        aws_access_key_id="another",
        aws_secret_access_key="another-secret",
    )
    async with client as store:
        objects: Any = await store.list_objects_v2(Bucket=s3.bucket)
        begun: Any = await store.list_multipart_uploads(Bucket=s3.bucket)
    return [each["Key"] for each in objects.get("Contents", [])], [
        each["Key"] for each in begun.get("Uploads", [])
    ]


async def test_a_server_keeps_its_media_there(start: StartServer, s3: S3) -> None:
    here = await start("here.example", s3=s3)
    data = picture(600, 300) + bytes(7_000_000)
    mxc = await here.upload(data, "image/png", "?filename=big.png")

    whole = await here.get(f"{V1}/download/{mxc}")
    assert (whole.status, whole.body) == (200, data)
    assert whole.headers["Content-Disposition"] == "inline; filename=big.png"
    part = await here.get(f"{V1}/download/{mxc}", Range="bytes=5242870-5242889")
    assert (part.status, part.body) == (206, data[5242870:5242890])
    for _ in range(2):
        thumbnail = await here.get(f"{V1}/thumbnail/{mxc}?width=96&height=96&method=crop")
        assert opened(thumbnail.body).size == (96, 96)

    names, begun = await inside(s3)
    assert sorted(name.split("/")[:2] for name in names) == [["ours", "local"], ["ours", "thumbnails"]]
    assert begun == []


async def test_copies_of_other_servers_media_are_kept_there(start: StartServer, s3: S3) -> None:
    here, there = await start("here.example", s3=s3), await start("there.example")
    mxc = await there.upload(b"hello" * 2_000_000)
    for _ in range(2):
        answer = await here.get(f"{V1}/download/{mxc}")
        assert (answer.status, answer.body) == (200, b"hello" * 2_000_000)

    assert len(here.town.asked) == 1
    assert [name.split("/")[1] for name in (await inside(s3))[0]] == ["remote"]


async def test_what_is_let_go_is_gone_there_too(start: StartServer, s3: S3) -> None:
    here = await start("here.example", s3=s3)
    mxc = await here.upload(picture(200, 200), "image/png")
    await here.get(f"{V1}/thumbnail/{mxc}?width=32&height=32&method=crop")
    assert len((await inside(s3))[0]) == 2
    await here.core.db.write(lambda tx: event_media.let_go(tx, [mxc.partition("/")[2]]))
    await here.content.forsaken.round()

    assert (await here.get(f"{V1}/download/{mxc}")).error == (404, "M_NOT_FOUND")
    assert await inside(s3) == ([], [])


async def test_refused_and_broken_uploads_leave_nothing(start: StartServer, s3: S3) -> None:
    here = await start("here.example", s3=s3, max_upload_bytes=12_000_000, max_bytes_per_user=8_000_000)

    async def too_much(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 1_000_000):
            yield bytes(1_000_000)

    refused = await here.call(here.alice, "POST", f"{OLD}/upload", too_much(9_000_000))
    assert refused.error == (403, "M_FORBIDDEN")
    try:
        cut_off = await here.call(here.alice, "POST", f"{OLD}/upload", too_much(13_000_000))
        assert cut_off.error == (413, "M_TOO_LARGE")
    except OSError:
        pass  # cut off before the answer was read

    assert await inside(s3) == ([], [])


async def test_a_file_whose_row_outlives_it_is_not_found(start: StartServer, s3: S3) -> None:
    here = await start("here.example", s3=s3)
    mxc = await here.upload(b"hello")
    [name], _ = await inside(s3)
    files = here.content.files["local_media"]
    await files.remove([name.removeprefix("ours/local/").replace("/", "")])

    answer = await here.get(f"{V1}/download/{mxc}")
    assert answer.error == (404, "M_NOT_FOUND")


async def test_what_a_crash_left_begun_is_given_up(bucket: Bucket, s3: S3) -> None:
    before, after = S3Files(bucket, "files"), S3Files(bucket, "files")
    # Entered and never left, as when the process is killed.
    file = await before.create().__aenter__()
    await file.write(bytes(PART_BYTES + 1))

    async def nobody(file_ids: Sequence[str]) -> set[str]:
        return set()

    await before.remove_orphans(nobody, age=-5)
    assert len((await inside(s3))[1]) == 1  # it is still being written there
    await after.remove_orphans(nobody, age=-5)
    assert await inside(s3) == ([], [])


async def test_others_in_the_bucket_are_left_alone(bucket: Bucket, s3: S3) -> None:
    for name in ("files", "filesystem"):
        async with S3Files(bucket, name).create() as file:
            await file.write(b"x")
            await file.keep()

    async def nobody(file_ids: Sequence[str]) -> set[str]:
        return set()

    await bucket.ask("put_object", Key="ours/files/readme", Body=b"somebody else's")
    assert await S3Files(bucket, "files").remove_orphans(nobody, age=-5) == 1
    assert sorted(name.split("/")[1] for name in (await inside(s3))[0]) == ["files", "filesystem"]


async def test_an_upload_that_is_cancelled_is_given_up(bucket: Bucket, s3: S3) -> None:
    files, begun = S3Files(bucket, "files"), asyncio.Event()

    async def upload() -> None:
        async with files.create() as file:
            await file.write(bytes(PART_BYTES))
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(upload())
    await asyncio.wait_for(begun.wait(), 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await inside(s3) == ([], [])


async def test_a_store_that_is_gone_is_nobodys_bug(
    s3: S3, start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = await start("here.example", s3=s3)
    mxc = await here.upload(b"hello")

    async def gone(*_: Any, **__: Any) -> None:
        raise ConnectionResetError

    bucket = here.content.bucket
    assert bucket is not None
    monkeypatch.setattr(bucket._client, "get_object", gone)
    monkeypatch.setattr(bucket._client, "put_object", gone)
    assert (await here.get(f"{V1}/download/{mxc}")).error[0] in (502, 503)
    refused = await here.call(here.alice, "POST", f"{OLD}/upload", b"x")
    assert refused.error == (503, "M_UNKNOWN")


async def test_a_server_does_not_start_without_its_bucket(s3: S3) -> None:
    wrong = replace(s3, bucket="no-such-bucket")
    with pytest.raises(S3Refused, match=r"media\.s3\.bucket: there is no bucket"):
        await Bucket(wrong).open()


async def test_nor_without_its_store(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_bucket, "_CONNECT_S", 1)
    gone = replace(s3, endpoint=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(S3Refused, match=r"media\.s3\.endpoint: the store cannot be reached"):
        await Bucket(gone).open()


async def test_nor_without_a_name_to_ask_by(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    nameless = replace(s3, access_key=None, secret_key=None)
    with pytest.raises(S3Refused, match=r"media\.s3\.access_key: there is none"):
        await Bucket(nameless).open()


async def test_names_may_come_from_the_environment(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    bucket = Bucket(replace(s3, access_key=None, secret_key=None))
    await bucket.open()
    async with AsyncExitStack() as closing:
        closing.push_async_callback(bucket.close)

        assert not await S3Files(bucket, "files").has("0" * 32)


@pytest.mark.parametrize(
    ("code", "key"),
    [
        ("InvalidAccessKeyId", "access_key"),
        ("SignatureDoesNotMatch", "secret_key"),
        ("AccessDenied", "access_key"),
        ("PermanentRedirect", "region"),
    ],
)
def test_every_refusal_names_the_key_to_correct(code: str, key: str) -> None:
    refusal = s3_bucket.ClientError({"Error": {"Code": code}}, "PutObject")

    assert s3_bucket._advice(refusal).startswith(f"media.s3.{key}: ")


async def test_a_file_has_as_many_parts_as_are_allowed(
    bucket: Bucket, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_files, "_MAX_PARTS", 1)
    with pytest.raises(MatrixError) as refused:
        async with S3Files(bucket, "files").create() as file:
            await file.write(bytes(2 * PART_BYTES))

    assert refused.value.errcode == "M_TOO_LARGE"
    assert await inside(s3) == ([], [])
