"""What people do with media on their own server: upload, download, look at thumbnails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from homeserver.media.uploads import MAX_PENDING, PENDING_MS
from tests.media.conftest import StartServer
from tests.media.pictures import animation, bomb, opened, picture
from tests.media.server import OLD, V1, MediaServer

CREATE = "/_matrix/media/v1/create"


async def created(server: MediaServer) -> str:
    answer = await server.call(server.alice, "POST", CREATE)
    assert answer.status == 200
    assert answer.json["unused_expires_at"] == server.town.clock.now_ms() + PENDING_MS
    return str(answer.json["content_uri"]).removeprefix("mxc://")


async def test_what_was_uploaded_can_be_downloaded(here: MediaServer) -> None:
    mxc = await here.upload(b"hello", "text/plain; charset=utf-8", "?filename=a%20file.txt")
    answer = await here.get(f"{V1}/download/{mxc}")

    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Content-Disposition"] == 'inline; filename="a file.txt"'
    assert answer.headers["Content-Length"] == "5"


async def test_downloads_carry_what_protects_those_who_open_them(here: MediaServer) -> None:
    answer = await here.get(f"{V1}/download/{await here.upload(b'x', 'image/png')}")

    assert answer.headers["Content-Security-Policy"].startswith(
        "sandbox; default-src 'none'; script-src 'none';"
    )
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "private" in answer.headers["Cache-Control"]
    assert "immutable" in answer.headers["Cache-Control"]


async def test_a_page_with_a_script_is_never_shown(here: MediaServer) -> None:
    for kind in ("text/html", "image/svg+xml", "IMAGE/SVG+XML", "application/xml"):
        mxc = await here.upload(b"<svg><script>alert(1)</script></svg>", kind)
        answer = await here.get(f"{V1}/download/{mxc}/picture.png")
        assert answer.headers["Content-Disposition"] == "attachment; filename=picture.png", kind


async def test_a_name_in_the_path_goes_before_the_uploaded_one(here: MediaServer) -> None:
    mxc = await here.upload(b"x", "image/png", "?filename=test.png")
    for path, name in (("other.png", "filename=other.png"), ("%E2%98%95", "filename*=utf-8''%E2%98%95")):
        answer = await here.get(f"{V1}/download/{mxc}/{path}")
        assert answer.headers["Content-Disposition"] == f"inline; {name}"


async def test_a_name_cannot_add_a_header(here: MediaServer) -> None:
    mxc = await here.upload(b"x", "image/png", "?filename=a%0d%0aSet-Cookie%3a%20b")
    answer = await here.get(f"{V1}/download/{mxc}")

    assert "Set-Cookie" not in answer.headers
    assert answer.headers["Content-Disposition"] == 'inline; filename="a__Set-Cookie: b"'


async def test_uploads_without_a_type_are_of_the_default_one(here: MediaServer) -> None:
    mxc = await here.upload(b"", "none")
    answer = await here.get(f"{V1}/download/{mxc}")

    assert (answer.body, answer.headers["Content-Type"]) == (b"", "application/octet-stream")


async def test_a_part_is_given_to_who_asks_for_it(here: MediaServer) -> None:
    path = f"{V1}/download/{await here.upload(b'0123456789', 'video/mp4')}"
    part = await here.get(path, Range="bytes=2-4")

    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    assert (await here.get(path)).headers["Accept-Ranges"] == "bytes"
    beyond = await here.get(path, Range="bytes=10-")
    assert (beyond.status, beyond.body, beyond.headers["Content-Range"]) == (416, b"", "bytes */10")


async def test_who_has_it_already_is_told_so(here: MediaServer) -> None:
    path = f"{V1}/download/{await here.upload(b'hello')}"
    etag = (await here.get(path)).headers["ETag"]
    again = await here.get(path, If_None_Match=etag)

    assert (again.status, again.body) == (304, b"")


async def test_a_head_says_what_a_get_would(here: MediaServer) -> None:
    path = f"{V1}/download/{await here.upload(b'hello')}"
    head = await here.call(here.alice, "HEAD", path)

    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "5")


@pytest.mark.parametrize(
    "mxc",
    [
        "here.example/nothing",
        "here.example/..",
        "here.example/..%2f..%2fetc%2fpasswd",
        "here.example/%2e%2e",
        "here.example/a.b",
        "..%2f..%2f/abc",
        "not%20a%20server/abc",
        "/abc",
        "here.example/",
        "elsewhere.example/abc?allow_remote=false",
    ],
)
@pytest.mark.parametrize("endpoint", [f"{V1}/download", f"{OLD}/download", f"{V1}/thumbnail"])
async def test_what_is_not_there_is_not_found(here: MediaServer, endpoint: str, mxc: str) -> None:
    size = ("&" if "?" in mxc else "?") + "width=32&height=32" if "thumbnail" in endpoint else ""

    assert (await here.get(f"{endpoint}/{mxc}{size}")).error == (404, "M_NOT_FOUND")


async def test_the_largest_size_is_told_and_held(start: StartServer) -> None:
    here = await start("here.example", max_upload_bytes=70_000)
    for path in (f"{V1}/config", f"{OLD}/config", "/_matrix/media/r0/config"):
        assert (await here.get(path)).json == {"m.upload.size": 70_000}

    await here.upload(b"x" * 70_000)
    answer = await here.call(here.alice, "POST", f"{OLD}/upload", b"x" * 70_001)
    assert answer.error == (413, "M_TOO_LARGE")


async def test_a_body_without_an_end_is_cut_off(start: StartServer, tmp_path: Path) -> None:
    here = await start("here.example", max_upload_bytes=1_000_000)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000
            await asyncio.sleep(0)

    try:
        answer = await here.call(here.alice, "POST", f"{OLD}/upload", endless())
        assert answer.error == (413, "M_TOO_LARGE")
    except OSError:
        pass  # cut off before the answer was read
    assert not list((tmp_path / "here.example" / "local" / "incoming").iterdir())


async def test_a_user_has_a_quota_if_the_server_says_so(start: StartServer) -> None:
    here = await start("here.example", max_bytes_per_user=100_000)
    await here.upload(b"x" * 60_000)

    async def without_length() -> AsyncIterator[bytes]:
        yield b"x" * 60_000

    refused = await here.call(here.alice, "POST", f"{OLD}/upload", b"x" * 60_000)
    assert refused.error == (403, "M_FORBIDDEN")
    refused = await here.call(here.alice, "POST", f"{OLD}/upload", without_length())
    assert refused.error == (403, "M_FORBIDDEN")
    assert (await here.call(here.bob, "POST", f"{OLD}/upload", b"x" * 60_000)).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{OLD}/upload"),
        ("POST", CREATE),
        ("PUT", f"{OLD}/upload/here.example/abc"),
        ("GET", f"{V1}/config"),
        ("GET", f"{V1}/download/here.example/abc"),
        ("GET", f"{V1}/thumbnail/here.example/abc?width=1&height=1"),
    ],
)
async def test_nobody_is_nobody(here: MediaServer, method: str, path: str) -> None:
    assert (await here.call(None, method, path)).error == (401, "M_MISSING_TOKEN")


async def test_an_upload_survives_a_restart(start: StartServer) -> None:
    mxc = await (await start("here.example")).upload(b"hello")
    restarted = await start("here.example")

    assert (await restarted.get(f"{V1}/download/{mxc}")).body == b"hello"


# The deprecated endpoints.


async def test_new_media_is_for_those_alone_who_say_who_they_are(here: MediaServer) -> None:
    mxc = await here.upload(picture(100, 100), "image/png")
    for path in (f"download/{mxc}", f"download/{mxc}/name.png", f"thumbnail/{mxc}?width=32&height=32"):
        assert (await here.call(None, "GET", f"{OLD}/{path}")).error == (404, "M_NOT_FOUND")
        assert (await here.get(f"{OLD}/{path}")).status == 200
        assert (await here.get(f"/_matrix/media/r0/{path}")).status == 200


async def test_what_was_public_when_it_came_stays_so(start: StartServer) -> None:
    before = await start("here.example", unauthenticated_access=True)
    old = await before.upload(b"old")
    assert (await before.call(None, "GET", f"{OLD}/download/{old}")).body == b"old"

    after = await start("here.example")
    new = await after.upload(b"new")
    assert (await after.call(None, "GET", f"{OLD}/download/{old}")).body == b"old"
    assert (await after.call(None, "GET", f"{OLD}/download/{new}")).error == (404, "M_NOT_FOUND")


# Uploads to an id that was made before.


async def test_content_can_be_uploaded_once_to_an_id_made_before(here: MediaServer) -> None:
    mxc = await created(here)
    put = f"{OLD}/upload/{mxc}"

    answer = await here.call(here.alice, "PUT", f"{put}?filename=a.png", b"first", Content_Type="image/png")
    assert (answer.status, answer.json) == (200, {})
    again = await here.call(here.alice, "PUT", put, b"second")
    assert again.error == (409, "M_CANNOT_OVERWRITE_MEDIA")
    found = await here.get(f"{V1}/download/{mxc}")
    assert (found.body, found.headers["Content-Disposition"]) == (b"first", "inline; filename=a.png")


async def test_of_two_uploads_at_once_one_wins_whole(here: MediaServer) -> None:
    mxc = await created(here)
    bodies = [bytes([letter]) * 600_000 for letter in b"ab"]
    answers = await asyncio.gather(
        *(here.call(here.alice, "PUT", f"{OLD}/upload/{mxc}", body) for body in bodies)
    )

    assert sorted(answer.status for answer in answers) == [200, 409]
    won = bodies[[answer.status for answer in answers].index(200)]
    assert (await here.get(f"{V1}/download/{mxc}")).body == won


async def test_content_that_is_not_there_yet_is_waited_for(here: MediaServer) -> None:
    mxc = await created(here)
    waiting = asyncio.create_task(here.get(f"{V1}/download/{mxc}?timeout_ms=30000"))
    assert not (await asyncio.wait([waiting], timeout=0.2))[0]
    await here.call(here.alice, "PUT", f"{OLD}/upload/{mxc}", b"at last")

    assert (await waiting).body == b"at last"


@pytest.mark.parametrize(
    "path", [f"{V1}/download/{{}}?", f"{V1}/thumbnail/{{}}?width=9&height=9&", f"{OLD}/download/{{}}?"]
)
async def test_but_not_for_ever(here: MediaServer, path: str) -> None:
    answer = await here.get(path.format(await created(here)) + "timeout_ms=10")

    assert answer.error == (504, "M_NOT_YET_UPLOADED")


async def test_an_id_belongs_to_who_made_it(here: MediaServer) -> None:
    mxc = await created(here)

    assert (await here.call(here.bob, "PUT", f"{OLD}/upload/{mxc}", b"x")).error == (403, "M_FORBIDDEN")
    for unknown in ("here.example/unknown", "there.example/abc", "here.example/a.b"):
        answer = await here.call(here.alice, "PUT", f"{OLD}/upload/{unknown}", b"x")
        assert answer.error == (404, "M_NOT_FOUND")


async def test_an_id_without_content_expires(here: MediaServer) -> None:
    mxc = await created(here)
    here.town.clock.advance(PENDING_MS / 1000)

    assert (await here.call(here.alice, "PUT", f"{OLD}/upload/{mxc}", b"x")).error == (404, "M_NOT_FOUND")
    assert (await here.get(f"{V1}/download/{mxc}")).error == (404, "M_NOT_FOUND")
    await here.content.uploads.forget_expired()
    assert (await here.get(f"{V1}/download/{mxc}")).error == (404, "M_NOT_FOUND")


async def test_nobody_has_too_many_of_them(here: MediaServer) -> None:
    first = await created(here)
    for _ in range(MAX_PENDING - 1):
        await created(here)
    assert (await here.call(here.alice, "POST", CREATE)).error == (429, "M_LIMIT_EXCEEDED")

    await here.call(here.alice, "PUT", f"{OLD}/upload/{first}", b"x")
    assert (await here.call(here.alice, "POST", CREATE)).status == 200


# Thumbnails.


async def test_a_thumbnail_is_made_once(here: MediaServer) -> None:
    mxc = await here.upload(picture(1000, 500), "image/png")
    path = f"{V1}/thumbnail/{mxc}?width=100&height=100&method=crop"
    first, second = await here.get(path), await here.get(path)

    assert opened(first.body).size == (128, 128)
    assert first.headers["Content-Type"] == "image/png"
    assert first.headers["Content-Disposition"] == "inline; filename=thumbnail.png"
    assert first.headers["X-Content-Type-Options"] == "nosniff"
    assert first.headers["ETag"] == second.headers["ETag"]


async def test_an_original_that_is_small_serves_as_its_thumbnail_whatever_it_is_called(
    here: MediaServer,
) -> None:
    small = picture(30, 30)
    answer = await here.get(f"{V1}/thumbnail/{await here.upload(small, 'text/html')}?width=64&height=64")

    assert (answer.body, answer.headers["Content-Type"]) == (small, "image/png")
    assert answer.headers["Content-Disposition"] == "inline; filename=thumbnail.png"


async def test_thumbnails_move_if_that_is_asked_for(here: MediaServer) -> None:
    mxc = await here.upload(animation(300, 300), "image/gif")
    moving = await here.get(f"{V1}/thumbnail/{mxc}?width=64&height=64&animated=true")
    still = await here.get(f"{V1}/thumbnail/{mxc}?width=64&height=64")

    assert moving.headers["Content-Type"] == "image/webp"
    assert opened(moving.body).n_frames == 3  # type: ignore[attr-defined]
    assert still.headers["Content-Type"] == "image/png"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "width=32",
        "width=0&height=32",
        "width=-1&height=32",
        "width=x&height=32",
        "width=9&height=9&method=squash",
    ],
)
async def test_requests_that_make_no_sense_are_refused(here: MediaServer, query: str) -> None:
    mxc = await here.upload(picture(100, 100), "image/png")

    assert (await here.get(f"{V1}/thumbnail/{mxc}?{query}")).status == 400


async def test_what_is_no_image_has_no_thumbnail(here: MediaServer) -> None:
    for body in (b"text", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b""):
        path = f"{V1}/thumbnail/{await here.upload(body, 'image/png')}?width=32&height=32"
        for _ in range(2):
            assert (await here.get(path)).error == (400, "M_UNKNOWN")


async def test_a_bomb_is_too_large_for_one(here: MediaServer) -> None:
    mxc = await here.upload(bomb(), "image/png")

    assert (await here.get(f"{V1}/thumbnail/{mxc}?width=32&height=32")).error == (413, "M_TOO_LARGE")


async def test_the_thumbnails_of_one_image_are_bounded(here: MediaServer, tmp_path: Path) -> None:
    mxc = await here.upload(picture(200, 200), "image/png")
    for height in range(1, 40):
        here.town.clock.advance(1)
        path = f"{V1}/thumbnail/{mxc}?width=96&height={height}&method=crop"
        assert (await here.get(path)).status == 200

    kept = [file for file in (tmp_path / "here.example" / "thumbnails").rglob("*") if file.is_file()]
    assert len(kept) == 32
