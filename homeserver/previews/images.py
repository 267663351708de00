"""Which image some bytes are: nothing that its sender says is believed."""

from __future__ import annotations

import io
from typing import Final

from PIL import Image

from homeserver.previews.found import ImageKind

#: What browsers and our thumbnails can show, by Pillow's names; above all nothing that runs scripts.
_CONTENT_TYPES: Final = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "MPO": "image/jpeg",
}
_ORIENTATION: Final = 0x0112

# Nothing is decoded here but the head.
Image.MAX_IMAGE_PIXELS = None


def identify(data: bytes) -> ImageKind | None:
    """What image ``data`` is, by its head; ``None`` for what is none."""
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "GIF", "WEBP"))
        width, height = image.size
        if image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8):
            width, height = height, width
    except Exception:  # decoders stumble over bad images in every way there is
        return None
    return ImageKind(_CONTENT_TYPES[image.format or ""], width, height)
