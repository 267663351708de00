"""What is known of a page or an image, and what the processes that read them are asked."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from homeserver.previews.texts import name_in

Properties = dict[str, str]

#: Addresses of images that are tried.
MAX_IMAGES: Final = 3


class Job(msgspec.Struct, frozen=True):
    """What to do with some bytes; ``charset`` and ``url`` are those of the answer they came in."""

    task: Literal["html", "text", "oembed-json", "oembed-xml", "image"]
    charset: str | None = None
    url: str = ""


class ImageKind(msgspec.Struct, frozen=True):
    """The type of an image, and its sides in pixels as it is to be shown."""

    content_type: str
    width: int
    height: int


class Found(msgspec.Struct, frozen=True):
    """What is known of a page.

    ``own_words`` stand in for ``properties`` that nobody states.  ``images`` are addresses to try in
    turn; ``oembed`` the kind (``json`` or ``xml``) and address of more, where the page is
    silent on something that matters.
    """

    properties: Properties
    own_words: Properties = {}
    images: list[str] = []
    oembed: tuple[str, str] | None = None

    def told(self) -> Properties:
        """Everything that is told of it, but for images."""
        return {**self.own_words, **self.properties}

    def completed(self, other: Found) -> Found:
        """Both; what this one states stays."""
        images = list(dict.fromkeys([*self.images, *other.images]))[:MAX_IMAGES]
        return Found({**other.properties, **self.properties}, self.own_words, images)


def described_file(content_type: str, url: str) -> Found:
    """What can be told of a file that is not read; empty for what is neither sound nor film."""
    kind = content_type.partition("/")[0]
    if kind not in ("audio", "video"):
        return Found({})
    # OpenGraph has no type for a sound by itself.
    properties = {"og:title": name_in(url), f"og:{kind}": url, f"og:{kind}:type": content_type[:100]}
    if kind == "video":
        properties["og:type"] = "video.other"
    return Found({name: text for name, text in properties.items() if text})
