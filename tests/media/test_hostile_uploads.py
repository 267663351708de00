"""Whatever is uploaded: nothing falls, nothing runs, and who asks is told what is wrong."""

from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from email.message import Message
from pathlib import Path

import pytest
from PIL import Image

from homeserver.media.headers import INLINE_TYPES, SECURITY_HEADERS, essence
from homeserver.media.image_workers import ImageJob, ImageWorkers, NotAnImage, Picture, TooCostly
from tests.media.conftest import StartServer
from tests.media.hostile import BOMBS, NAMES, POLYGLOTS, SVG
from tests.media.pictures import animation, opened, picture
from tests.media.server import FEDERATION, OLD, V1, Answer, MediaServer

_THUMBNAIL_TYPES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
#: Beyond what the interpreter and the decoders take; a process may address 1.5 GB.
_MOST_MEMORY = 700 * 1024 * 1024


def is_harmless(answer: Answer) -> bool:
    """Whether a browser that opens it runs nothing of it, in whatever way it may be opened."""
    headers = answer.headers
    kind = headers["Content-Disposition"].partition(";")[0]
    return (
        all(headers[name] == value for name, value in SECURITY_HEADERS.items())
        and (kind == "attachment" or essence(headers["Content-Type"]) in INLINE_TYPES)
        and all(value.isprintable() for value in headers.values())
    )


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 65_536):
        yield data[start : start + 65_536]


def peak_of(pid: int) -> int:
    """The most memory a process had, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@pytest.fixture
async def workers() -> AsyncIterator[ImageWorkers]:
    workers = ImageWorkers(processes=1)
    yield workers
    await workers.close()


def job(data: bytes, *, animated: bool) -> ImageJob:
    return ImageJob(len(data), 96, 96, "scale", animated, 40_000_000)


async def outcome(workers: ImageWorkers, data: bytes, *, animated: bool) -> str:
    """What becomes of a job."""
    try:
        made = await workers.make(in_pieces(data), job(data, animated=animated))
    except TooCostly:
        return "too costly"
    except NotAnImage:
        return "no image"
    image = Image.open(io.BytesIO(made.data or data))
    return "still" if getattr(image, "n_frames", 1) == 1 else "moving"


@pytest.mark.parametrize("animated", [False, True], ids=["still", "moving"])
async def test_no_bomb_takes_much_memory_or_the_process_with_it(
    workers: ImageWorkers, animated: bool
) -> None:
    outcomes, peaks = {}, {}
    for name, data in BOMBS.items():
        outcomes[name] = await outcome(workers, data, animated=animated)
        peaks[name] = max((peak_of(worker._process.pid) for worker in workers._idle), default=0)

    assert outcomes == {
        "a gigantic PNG": "too costly",
        "a PNG of one long line": "too costly",
        "a gigantic GIF": "too costly",
        "a GIF of many frames": "still",
        "a gigantic JPEG": "too costly",
        "a JPEG with less than it says": "still",
        "a gigantic WebP": "no image",
        "a WebP without frames": "no image",
        "a gigantic TIFF": "no image",
        "a PNG with a large comment": "no image",
        "a PNG with a large profile": "no image",
        "a PNG with endless frames": "still",
        "a bomb in an icon": "no image",
        "an icon in an icon in an icon": "no image",
        "an archive": "no image",
        "noise": "still",
    }
    assert {name: peak for name, peak in peaks.items() if peak > _MOST_MEMORY} == {}
    assert await outcome(workers, picture(300, 300), animated=animated) == "still"


async def test_every_bomb_can_be_kept_and_none_breaks_the_server(start: StartServer) -> None:
    here = await start("here.example")
    for name, data in BOMBS.items():
        mxc = await here.upload(data, "image/png")
        whole = await here.get(f"{V1}/download/{mxc}")
        assert (whole.status, whole.body) == (200, data), name
        made = await here.get(f"{V1}/thumbnail/{mxc}?width=96&height=96&animated=true")
        if made.status == 200:
            assert is_harmless(made), name
        else:
            assert made.error in ((400, "M_UNKNOWN"), (413, "M_TOO_LARGE")), name

    good = await here.get(f"{V1}/thumbnail/{await here.upload(picture(300, 300))}?width=96&height=96")
    assert opened(good.body).size == (96, 96)


async def test_a_process_that_dies_is_replaced(workers: ImageWorkers) -> None:
    data = picture(300, 300)
    assert await outcome(workers, data, animated=False) == "still"
    [worker] = workers._idle
    os.kill(worker._process.pid, signal.SIGKILL)
    await worker._process.wait()

    assert "still" in [await outcome(workers, data, animated=False) for _ in range(2)]


@pytest.mark.parametrize("name", POLYGLOTS)
async def test_nothing_runs_in_a_browser(here: MediaServer, there: MediaServer, name: str) -> None:
    data, kind = POLYGLOTS[name]
    mxc = await here.upload(data, kind, "?filename=picture.png")
    for server in (here, there):
        for path in (f"{V1}/download/{mxc}", f"{V1}/download/{mxc}/picture.png", f"{OLD}/download/{mxc}"):
            answer = await server.get(path)
            assert (answer.status, answer.body) == (200, data)
            assert is_harmless(answer)
        made = await server.get(f"{V1}/thumbnail/{mxc}?width=96&height=96")
        assert made.status == 400 or (is_harmless(made) and made.headers["Content-Type"] in _THUMBNAIL_TYPES)


async def test_no_page_comes_through_a_thumbnail(here: MediaServer) -> None:
    for name in ("a PNG with a page behind it", "a PNG that says it is a page", "a PNG with a page in it"):
        mxc = await here.upload(*POLYGLOTS[name])
        made = await here.get(f"{V1}/thumbnail/{mxc}?width=96&height=96")
        assert (made.status, b"script" in made.body) == (200, False), name


async def test_drawings_are_never_drawn(here: MediaServer) -> None:
    for kind in ("image/svg+xml", "image/png", "image/svg+xml; charset=utf-8"):
        mxc = await here.upload(SVG, kind)
        made = await here.get(f"{V1}/thumbnail/{mxc}?width=96&height=96")
        assert made.error == (400, "M_UNKNOWN")


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_is_only_a_name(here: MediaServer, there: MediaServer, name: str) -> None:
    upload = f"{OLD}/upload?filename={NAMES[name]}"
    uploaded = await here.call(here.alice, "POST", upload, b"x", Content_Type="image/png")
    if uploaded.status == 400:  # what is no text is no name
        assert uploaded.error == (400, "M_INVALID_PARAM")
        return
    mxc = uploaded.json["content_uri"].removeprefix("mxc://")
    answers = [
        await here.get(f"{V1}/download/{mxc}"),
        await here.get(f"{V1}/download/{mxc}/{NAMES[name]}"),
        await there.get(f"{V1}/download/{mxc}"),
    ]
    for answer in answers:
        message = Message()
        message["Content-Disposition"] = answer.headers["Content-Disposition"]
        shown = message.get_filename() or ""
        assert is_harmless(answer)
        assert answer.headers["Content-Type"] == "image/png"
        assert "Set-Cookie" not in answer.headers
        assert not {"/", "\\", "\0", "\r", "\n", "\u202e", "\u2066"} & set(shown)
        assert shown not in ("..", ".", "evil.exe")


async def test_names_of_any_length_are_answered(here: MediaServer) -> None:
    mxc = await here.upload(b"x", "image/png", "?filename=short.png")
    refused = await here.call(here.alice, "POST", f"{OLD}/upload?filename={'x' * 1000}", b"x")
    assert refused.error == (400, "M_INVALID_PARAM")
    long = await here.get(f"{V1}/download/{mxc}/{'(' * 2000}")
    assert (long.status, long.headers["Content-Disposition"]) == (200, "inline")


async def test_a_type_that_is_none_does_not_come_back(here: MediaServer) -> None:
    for kind in ("image/" + "a" * 300, "image/", "*", "text/html, image/png", "image/png; x=\u2603"):
        answer = await here.get(f"{V1}/download/{await here.upload(b'x', kind)}")
        assert answer.headers["Content-Type"] == "application/octet-stream", kind
        assert is_harmless(answer), kind


async def test_another_server_gets_what_is_harmless_too(here: MediaServer, there: MediaServer) -> None:
    mxc = await there.upload(b"x", "text/html", f"?filename={NAMES['a second header']}")
    answer = await here.ask(there, f"{FEDERATION}/download/{mxc.partition('/')[2]}")

    assert answer.status == 200
    assert b"\r\nContent-Disposition: attachment; filename=" in answer.body
    assert answer.body.count(b"Content-Type:") == 2 + answer.body.count(b"__Content-Type:")


# Thumbnails that move.


async def test_an_animation_that_is_too_much_is_shown_still(start: StartServer) -> None:
    here = await start("here.example")
    mxc = await here.upload(BOMBS["a GIF of many frames"], "image/gif")
    made = await here.get(f"{V1}/thumbnail/{mxc}?width=96&height=96&animated=true")

    assert made.headers["Content-Type"] == "image/png"
    assert opened(made.body).size == (96, 96)


async def test_nothing_moves_where_the_configuration_says_so(start: StartServer) -> None:
    here = await start("here.example", animated_thumbnails=False)
    mxc = await here.upload(animation(300, 300), "image/gif")
    made = await here.get(f"{V1}/thumbnail/{mxc}?width=96&height=96&animated=true")

    assert made.headers["Content-Type"] == "image/png"


async def test_what_cannot_move_is_shown_still(here: MediaServer) -> None:
    for kind in ("PNG", "JPEG", "GIF", "WEBP"):
        mxc = await here.upload(picture(300, 300, kind))
        made = await here.get(f"{V1}/thumbnail/{mxc}?width=96&height=96&animated=true")
        assert (made.status, opened(made.body).size) == (200, (96, 96)), kind


async def test_an_animation_cut_off_is_shown_still_or_not_at_all(workers: ImageWorkers) -> None:
    for kind in ("GIF", "PNG", "WEBP"):
        whole = animation(300, 300, kind)
        for share in (0.3, 0.6, 0.9):
            cut = whole[: int(len(whole) * share)]
            assert await outcome(workers, cut, animated=True) in ("still", "moving", "no image"), kind


async def test_a_bomb_is_tried_once_in_however_many_sizes_it_is_wanted(
    start: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[ImageJob] = []
    make = ImageWorkers.make

    async def counted(workers: ImageWorkers, image: AsyncIterator[bytes], job: ImageJob) -> Picture:
        tried.append(job)
        return await make(workers, image, job)

    monkeypatch.setattr(ImageWorkers, "make", counted)
    here = await start("here.example")
    path = f"{V1}/thumbnail/{await here.upload(b'no image', 'image/png')}?height=32&width="
    answers = await asyncio.gather(*(here.get(f"{path}{width}") for width in (32, 96, 320, 640)))

    assert [answer.error for answer in answers] == [(400, "M_UNKNOWN")] * 4
    assert (await here.get(f"{path}800")).error == (400, "M_UNKNOWN")
    assert len(tried) == 1


async def test_many_bombs_at_once_do_not_keep_others_waiting_for_ever(start: StartServer) -> None:
    here = await start("here.example")
    bombs = [await here.upload(BOMBS["a GIF of many frames"], "image/gif") for _ in range(4)]
    waiting = [here.get(f"{V1}/thumbnail/{mxc}?width=96&height=96&animated=true") for mxc in bombs]
    good = here.get(f"{V1}/thumbnail/{await here.upload(picture(300, 300))}?width=96&height=96")
    answers = await asyncio.wait_for(asyncio.gather(good, *waiting), 60)

    assert {answer.status for answer in answers} <= {200, 413}
    assert answers[0].status == 200
