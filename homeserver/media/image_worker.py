"""Makes thumbnails, in a process of its own: decoders are where malicious images strike.

Runs as a script and imports nothing of ours.  It reads jobs from standard input (a line
of JSON, then the image), writes results to standard output in the same form, and ends
with its input.  It opens no files, and its memory is bounded.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image, ImageSequence

#: Pillow's names of what is decoded; all else is refused before a decoder sees it.
CONTENT_TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    # Photographs with another photograph behind them; browsers show the first.
    "MPO": "image/jpeg",
}
_FORMATS = ("PNG", "JPEG", "GIF", "WEBP")
#: Of an animated thumbnail: frames, frames times its pixels, and times those of the original, all of
#: which are decoded; and seconds.  Beyond that the first frame has to do.
_MAX_FRAMES = 500
_MAX_ANIMATED_PIXELS = 32_000_000
_MAX_DECODED_PIXELS = 100_000_000
_ANIMATION_SECONDS = 8.0
_MEMORY = 1536 * 1024 * 1024
_ORIENTATION = 0x0112
#: EXIF orientations from 5 on lie on their side.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Size = tuple[int, int]

# The size is checked in ``make``, against the bound of the job.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Job:
    """What is wanted: at least ``width`` x ``height``, ``scale`` or ``crop``."""

    width: int
    height: int
    method: str
    animated: bool
    max_pixels: int


@dataclass(frozen=True)
class Result:
    """``made`` with a thumbnail, ``original`` if that serves as it is, ``unsupported`` or ``too_large``."""

    outcome: str
    content_type: str = ""
    data: bytes = b""


def scaled_size(original: Size, wanted: Size) -> Size:
    """The smallest size of the same shape with neither side below what is wanted, never an enlargement."""
    factor = min(1.0, max(wanted[0] / original[0], wanted[1] / original[1]))
    return max(1, round(original[0] * factor)), max(1, round(original[1] * factor))


def cropped_size(original: Size, wanted: Size) -> Size:
    """What is wanted, or the largest size of that shape within the original."""
    factor = min(1.0, original[0] / wanted[0], original[1] / wanted[1])
    return max(1, round(wanted[0] * factor)), max(1, round(wanted[1] * factor))


def centred_box(around: Size, size: Size) -> tuple[int, int, int, int]:
    """Where ``size`` lies in the middle of ``around``: left, upper, right, lower."""
    left, upper = (around[0] - size[0]) // 2, (around[1] - size[1]) // 2
    return left, upper, left + size[0], upper + size[1]


def make(data: bytes, job: Job) -> Result:
    """The thumbnail of an image."""
    image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > job.max_pixels:
        return Result("too_large")
    turned = orientation(image)
    size = (image.height, image.width) if turned >= 5 else image.size
    moves = image.format != "MPO" and bool(getattr(image, "is_animated", False))
    if size[0] <= job.width and size[1] <= job.height and (job.animated or not moves):
        return Result("original", CONTENT_TYPES[image.format or ""])
    if moves and job.animated and (animation := _animation(data, size, job)) is not None:
        return Result("made", "image/webp", animation)
    # JPEG can be decoded smaller in the first place.
    smallest = scaled_size(size, (job.width, job.height))
    image.draft(None, (smallest[1], smallest[0]) if turned >= 5 else smallest)
    return _still(image, turned, job)


def orientation(image: Image.Image) -> int:
    """How the image is to be turned, 1 to 8 as EXIF has it."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # EXIF that cannot be read says nothing of the image
        return 1
    return value if value in _TURNS else 1


def _still(image: Image.Image, turned: int, job: Job) -> Result:
    is_photograph = image.format in ("JPEG", "MPO", "WEBP")
    profile = image.info.get("icc_profile")
    picture = _with_plain_colours(image)
    if turned in _TURNS:
        picture = picture.transpose(_TURNS[turned])
    picture = _resized(picture, job)
    out = io.BytesIO()
    if is_photograph and picture.mode != "RGBA":
        picture.save(out, "JPEG", quality=85, progressive=True, icc_profile=profile)
        return Result("made", "image/jpeg", out.getvalue())
    picture.save(out, "PNG", icc_profile=profile)
    return Result("made", "image/png", out.getvalue())


def _with_plain_colours(image: Image.Image) -> Image.Image:
    """The same picture as greys, RGB or RGBA of eight bits."""
    if image.has_transparency_data:
        return image.convert("RGBA")
    if image.mode.startswith("I"):
        return image.point(lambda value: value / 256).convert("L")
    return image.convert("RGB") if image.mode not in ("L", "RGB") else image


def _resized(picture: Image.Image, job: Job) -> Image.Image:
    wanted = (job.width, job.height)
    if job.method == "scale":
        size = scaled_size(picture.size, wanted)
        return picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    size = cropped_size(picture.size, wanted)
    covering = scaled_size(picture.size, size)
    picture = picture.resize(covering, Image.Resampling.LANCZOS, reducing_gap=2.0)
    return picture.crop(centred_box(covering, size))


def _animation(data: bytes, size: Size, job: Job) -> bytes | None:
    """The thumbnail, moving; ``None`` where that is too much, or cannot be done."""
    wanted = (job.width, job.height)
    made = scaled_size(size, wanted) if job.method == "scale" else cropped_size(size, wanted)
    most = min(
        _MAX_FRAMES,
        _MAX_ANIMATED_PIXELS // (made[0] * made[1]),
        _MAX_DECODED_PIXELS // (size[0] * size[1]),
    )
    until = time.monotonic() + _ANIMATION_SECONDS
    durations: list[int] = []
    frames: list[Image.Image] = []
    try:
        # Opened anew: whatever becomes of it, the first frame can still be had from the other.
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        for frame in ImageSequence.Iterator(image):
            if len(frames) == most or time.monotonic() > until:
                return None
            frames.append(_resized(frame.convert("RGBA"), job))
            durations.append(int(frame.info.get("duration", 100)))
        out = io.BytesIO()
        loop = int(image.info.get("loop", 0))
        first, *rest = frames
        options = {"duration": durations, "loop": loop, "quality": 75, "method": 0}
        first.save(out, "WEBP", save_all=True, append_images=rest, **options)
    except Exception:  # decoders stumble over bad images in every way there is
        return None
    return out.getvalue()


def _answer(data: bytes, job: Job) -> Result:
    try:
        return make(data, job)
    except MemoryError:
        return Result("too_large")
    except Exception:  # decoders stumble over bad images in every way there is
        return Result("unsupported")


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    while line := requests.readline():
        request: dict[str, Any] = json.loads(line)
        data = requests.read(request.pop("size"))
        result = _answer(data, Job(**request))
        head = {"outcome": result.outcome, "content_type": result.content_type, "size": len(result.data)}
        replies.write(json.dumps(head).encode() + b"\n" + result.data)
        replies.flush()


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # People who chat come before people who look at pictures.
    os.nice(5)
    Image.init()
    _serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    _main()
