"""Pictures for tests, some of them malicious."""

from __future__ import annotations

import io
import struct
import zlib

from PIL import Image

RED, BLUE = (255, 0, 0), (0, 0, 255)


def picture(width: int, height: int, kind: str = "PNG", *, mode: str = "RGB", orientation: int = 1) -> bytes:
    """The upper left quarter is red, the rest blue."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height // 2))
    exif = Image.Exif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.convert(mode).save(out, kind, **({"exif": exif} if orientation != 1 else {}))
    return out.getvalue()


def animation(width: int, height: int, kind: str = "GIF", *, frames: int = 3) -> bytes:
    """Frames of different colours."""
    first, *rest = [Image.new("RGB", (width, height), (80 * number, 9, 9)) for number in range(frames)]
    out = io.BytesIO()
    first.save(out, kind, save_all=True, append_images=rest, duration=50, loop=0)
    return out.getvalue()


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few kilobytes that claims, and begins, to be gigabytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A small PNG whose compressed comment is large."""
    whole = picture(10, 10)
    comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9))
    return whole[:33] + comment + whole[33:]


def opened(data: bytes) -> Image.Image:
    """The picture that some bytes are."""
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def is_red(image: Image.Image, x: float, y: float) -> bool:
    """Whether a place, given in shares of width and height, is red."""
    at = (int(x * image.width), int(y * image.height))
    red, _, blue = image.convert("RGB").getpixel(at)  # type: ignore[misc]
    return red > 200 and blue < 60


def chunk(kind: bytes, data: bytes) -> bytes:
    """A piece of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
