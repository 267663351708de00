"""Making thumbnails: sizes, shapes, colours, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.errors import MatrixError
from homeserver.media.image_worker import Job, cropped_size, make, scaled_size
from homeserver.media.image_workers import ImageJob, ImageWorkers, NotAnImage, TooCostly
from homeserver.media.thumbnails import STEPS, Wanted
from tests.media.pictures import animation, bomb, is_red, opened, picture, text_bomb

sides = st.integers(1, 5000)
sizes = st.tuples(sides, sides)


def job(width: int, height: int, method: str = "scale", *, animated: bool = False) -> Job:
    return Job(width, height, method, animated, 40_000_000)


@given(sizes, sizes)
def test_scaling_covers_what_is_wanted_and_never_enlarges(
    original: tuple[int, int], wanted: tuple[int, int]
) -> None:
    made = scaled_size(original, wanted)

    for side in (0, 1):
        assert min(wanted[side], original[side]) <= made[side] <= original[side]


@given(sizes, sizes)
def test_cropping_never_enlarges_and_keeps_the_shape(
    original: tuple[int, int], wanted: tuple[int, int]
) -> None:
    made = cropped_size(original, wanted)

    assert made[0] <= original[0]
    assert made[1] <= original[1]
    # To the pixel: neither side is more than half a pixel from its share.
    factor = min(1.0, original[0] / wanted[0], original[1] / wanted[1])
    assert all(made[side] == max(1, round(wanted[side] * factor)) for side in (0, 1))


@given(st.integers(1, 100_000), st.integers(1, 100_000), st.sampled_from(["scale", "crop"]))
def test_requests_are_rounded_up_to_few_kinds(width: int, height: int, method: str) -> None:
    kind = Wanted.nearest(width, height, "crop" if method == "crop" else "scale", False)

    assert max(kind.width, kind.height) in STEPS
    assert kind.width >= min(width, 1) and kind.height >= min(height, 1)  # noqa: PT018
    if max(width, height) <= STEPS[-1]:
        assert kind.width >= width
        assert kind.height >= height


@pytest.mark.parametrize(
    ("width", "height", "method"),
    [(32, 32, "crop"), (96, 96, "crop"), (320, 240, "scale"), (640, 480, "scale"), (800, 600, "scale")],
)
def test_the_recommended_sizes_are_made_as_they_are(width: int, height: int, method: str) -> None:
    kind = Wanted.nearest(width, height, "crop" if method == "crop" else "scale", False)

    assert (kind.width, kind.height) == (width, height)


def test_a_scaled_thumbnail_keeps_the_shape() -> None:
    made = make(picture(1000, 400), job(320, 240))

    assert made.content_type == "image/png"
    assert opened(made.data).size == (600, 240)


def test_a_cropped_one_is_the_middle() -> None:
    image = opened(make(picture(1000, 400), job(96, 96, "crop")).data)

    assert image.size == (96, 96)
    assert is_red(image, 0.1, 0.1)
    assert not is_red(image, 0.9, 0.1)


def test_photographs_stay_photographs() -> None:
    made = make(picture(3000, 2000, "JPEG"), job(800, 600))

    assert made.content_type == "image/jpeg"
    assert opened(made.data).size == (900, 600)


@pytest.mark.parametrize("method", ["scale", "crop"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_what_is_small_enough_serves_as_it_is(kind: str, method: str) -> None:
    made = make(picture(30, 20, kind), job(32, 32, method))

    assert (made.outcome, made.content_type, made.data) == ("original", f"image/{kind.lower()}", b"")


def test_what_is_small_in_one_direction_alone_is_not_enlarged() -> None:
    assert opened(make(picture(1000, 20), job(96, 96)).data).size == (1000, 20)
    assert opened(make(picture(1000, 20), job(96, 96, "crop")).data).size == (20, 20)


#: How the picture is stored when, turned as EXIF says, its red quarter is at the upper left.
@pytest.mark.parametrize(
    ("orientation", "corner"),
    [(1, (0, 0)), (2, (1, 0)), (3, (1, 1)), (4, (0, 1)), (5, (0, 0)), (6, (1, 0)), (7, (1, 1)), (8, (0, 1))],
)
def test_photographs_are_turned_as_their_camera_was(orientation: int, corner: tuple[int, int]) -> None:
    image = opened(make(picture(1200, 800, "JPEG", orientation=orientation), job(96, 96)).data)

    assert (image.width > image.height) == (orientation < 5)
    assert is_red(image, 0.25 + 0.5 * corner[0], 0.25 + 0.5 * corner[1])
    assert not is_red(image, 0.75 - 0.5 * corner[0], 0.75 - 0.5 * corner[1])
    assert "exif" not in image.info


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1", "I;16"])
def test_every_kind_of_colour_is_understood(mode: str) -> None:
    assert opened(make(picture(400, 400, mode=mode), job(96, 96)).data).size == (96, 96)


def test_printers_colours_are_understood() -> None:
    image = opened(make(picture(400, 400, "JPEG", mode="CMYK"), job(96, 96)).data)

    assert image.mode == "RGB"
    assert is_red(image, 0.2, 0.2)


def test_what_is_transparent_stays_so() -> None:
    made = make(picture(400, 400, "WEBP", mode="RGBA"), job(96, 96))

    assert made.content_type in ("image/png", "image/jpeg")


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_what_moves_moves_only_if_that_is_wanted(kind: str) -> None:
    moving = animation(400, 300, kind)
    still = make(moving, job(96, 96))
    moved = make(moving, job(96, 96, animated=True))

    assert not getattr(opened(still.data), "is_animated", False)
    assert moved.content_type == "image/webp"
    assert opened(moved.data).n_frames == 3  # type: ignore[attr-defined]
    assert opened(moved.data).size == (128, 96)


def test_a_small_animation_is_made_still_unless_wanted() -> None:
    small = animation(20, 20)

    assert make(small, job(96, 96, animated=True)).outcome == "original"
    assert not getattr(opened(make(small, job(96, 96)).data), "is_animated", False)


def test_a_bomb_is_refused_before_it_is_decoded() -> None:
    assert make(bomb(), job(96, 96)).outcome == "too_large"


# In a process of its own.


async def whole(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 50_000):
        yield data[start : start + 50_000]


def image_job(data: bytes, max_pixels: int = 40_000_000) -> ImageJob:
    return ImageJob(len(data), 96, 96, "scale", False, max_pixels)


@pytest.fixture
async def workers() -> AsyncIterator[ImageWorkers]:
    workers = ImageWorkers(processes=1)
    yield workers
    await workers.close()


async def test_one_process_makes_many_thumbnails(workers: ImageWorkers) -> None:
    data = picture(640, 480)
    made = await asyncio.gather(*(workers.make(whole(data), image_job(data)) for _ in range(5)))

    assert all(opened(each.data or b"").size == (128, 96) for each in made)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"GIF89a" + bytes(100),
        picture(640, 480)[:200],
        picture(640, 480, "JPEG")[:300],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        picture(64, 64, "TIFF"),
        text_bomb(),
    ],
    ids=["nothing", "text", "svg", "gif", "cut png", "cut jpeg", "postscript", "tiff", "text bomb"],
)
async def test_what_is_no_image_is_refused_and_the_process_goes_on(
    workers: ImageWorkers, data: bytes
) -> None:
    with pytest.raises((NotAnImage, TooCostly)):
        await workers.make(whole(data), image_job(data))

    good = picture(640, 480)
    assert (await workers.make(whole(good), image_job(good))).data


async def test_a_bomb_is_too_costly(workers: ImageWorkers) -> None:
    data = bomb()
    with pytest.raises(TooCostly):
        await workers.make(whole(data), image_job(data))


async def test_memory_is_bounded_even_for_what_the_count_of_pixels_allows(workers: ImageWorkers) -> None:
    data = bomb()
    with pytest.raises(TooCostly):
        await workers.make(whole(data), image_job(data, max_pixels=10**12))


async def test_what_takes_too_long_is_ended() -> None:
    workers = ImageWorkers(processes=1, seconds=0.5)
    never = asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        yield b"x"
        await never.wait()

    with pytest.raises(TooCostly):
        await workers.make(stalls(), ImageJob(100, 96, 96, "scale", False, 1_000_000))
    await workers.close()


async def test_too_many_at_once_are_told_to_come_again() -> None:
    workers, never = ImageWorkers(processes=1), asyncio.Event()

    async def stalls() -> AsyncIterator[bytes]:
        await never.wait()
        yield b""

    stalled = ImageJob(100, 96, 96, "scale", False, 1_000_000)
    tasks = [asyncio.create_task(workers.make(stalls(), stalled)) for _ in range(64)]
    await asyncio.sleep(0)
    with pytest.raises(MatrixError) as refused:
        await workers.make(stalls(), stalled)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await workers.close()

    assert refused.value.status == 429
