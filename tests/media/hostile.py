"""Files that are made to do harm: to whoever decodes them, or to whoever opens them in a browser."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from PIL import Image

from tests.media.pictures import animation, bomb, chunk, picture, text_bomb

SCRIPT = b"<script>alert(document.domain)</script>"
PAGE = b"<!DOCTYPE html><html><body>" + SCRIPT + b"</body></html>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)">' + SCRIPT + b"</svg>"


def _gif(width: int, height: int) -> bytes:
    """A GIF that claims to be of a size, and has one pixel."""
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0;"


def _many_frames(count: int) -> bytes:
    """Each frame of this GIF takes some twenty bytes, and a whole picture to show."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1000, 1000, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"!\xf9\x04\x08\x01\0\0\0," + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\0"
    return screen + frame * count + b";"


def _jpeg(width: int, height: int) -> bytes:
    """A JPEG whose head claims another size than it has."""
    whole = picture(16, 16, "JPEG")
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + struct.pack(">HH", height, width) + whole[at + 4 :]


def _webp(width: int, height: int) -> bytes:
    """An animated WebP of a size, whose frames are not there."""
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _tiff(width: int, height: int) -> bytes:
    """A TIFF head with a size."""
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8)]
    directory = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + directory + bytes(4)


def _profile_bomb() -> bytes:
    """A small PNG whose colour profile is large."""
    whole = picture(100, 100)
    return whole[:33] + chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(200_000_000), 9)) + whole[33:]


def _animated_bomb() -> bytes:
    """An animated PNG that says it has thousands of millions of frames."""
    whole = animation(300, 300, "PNG")
    at = whole.index(b"acTL") - 4
    return whole[:at] + chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + whole[at + 20 :]


def _icon(inner: bytes) -> bytes:
    """An icon file around another image."""
    return b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(inner), 22) + inner


def _archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Evil.class", bytes(10_000_000))
    return out.getvalue()


def _noise() -> bytes:
    """As large as is allowed, with as much to decode as there can be."""
    image = Image.effect_noise((6000, 6000), 100)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=30)
    return out.getvalue()


#: What costs more than it seems to.
BOMBS = {
    "a gigantic PNG": bomb(),
    "a PNG of one long line": bomb(2**31 - 1, 1),
    "a gigantic GIF": _gif(65_535, 65_535),
    "a GIF of many frames": _many_frames(50_000),
    "a gigantic JPEG": _jpeg(65_500, 65_500),
    "a JPEG with less than it says": _jpeg(6_000, 6_000),
    "a gigantic WebP": _webp(2**24, 2**24),
    "a WebP without frames": _webp(500, 500),
    "a gigantic TIFF": _tiff(2**31, 2**31),
    "a PNG with a large comment": text_bomb(),
    "a PNG with a large profile": _profile_bomb(),
    "a PNG with endless frames": _animated_bomb(),
    "a bomb in an icon": _icon(bomb()),
    "an icon in an icon in an icon": _icon(_icon(_icon(picture(64, 64)))),
    "an archive": _archive(),
    "noise": _noise(),
}

#: What is several things at once, or another than it says; with the type it says it has.
POLYGLOTS = {
    "a page that says it is a PNG": (PAGE, "image/png"),
    "a page": (PAGE, "text/html"),
    "a page in capitals": (PAGE, "TEXT/HTML; charset=utf-7"),
    "an XHTML page": (PAGE, "application/xhtml+xml"),
    "a drawing with a script": (SVG, "image/svg+xml"),
    "a drawing that says it is a PNG": (SVG, "image/png"),
    "XML with a stylesheet": (b'<?xml version="1.0"?><?xml-stylesheet href="x.xsl"?><a/>', "text/xml"),
    "a PNG with a page behind it": (picture(400, 400) + PAGE, "image/png"),
    "a PNG that says it is a page": (picture(400, 400) + PAGE, "text/html"),
    "a PNG with a page in it": (
        picture(400, 400)[:33] + chunk(b"tEXt", b"Comment\0" + PAGE) + picture(400, 400)[33:],
        "image/png",
    ),
    "a GIF and a Java archive": (picture(400, 400, "GIF") + _archive(), "application/java-archive"),
    "a GIF and a script": (b"GIF89a/*" + bytes(4) + b"*/=1;alert(1)", "image/gif"),
    "a script": (b"alert(1)", "text/javascript"),
    "a PDF with a script": (
        b"%PDF-1.7\n1 0 obj<</OpenAction<</S/JavaScript/JS(app.alert(1))>>>>",
        "application/pdf",
    ),
    "a PDF that says it is a GIF": (b"GIF89a%PDF-1.7\n", "image/gif"),
    "several at once": (b"--x\r\nContent-Type: text/html\r\n\r\n" + PAGE, "multipart/x-mixed-replace"),
    "a saved page": (PAGE, "message/rfc822"),
    "a program": (b"MZ" + bytes(100), "application/x-msdownload"),
}

#: Names as they stand in a URL.
NAMES = {
    "another folder": "..%2F..%2F..%2Fetc%2Fpasswd",
    "another folder, elsewhere": "..%5C..%5CWindows%5Cwin.ini",
    "the folder itself": "%2E%2E",
    "an absolute path": "%2Fetc%2Fpasswd",
    "an end of text": "picture.png%00.exe",
    "a second header": "a%0D%0AContent-Type%3A%20text%2Fhtml%0D%0A%0D%0A%3Cscript%3E",
    "a header in Unicode": "a%E5%98%8D%E5%98%8ASet-Cookie%3A%20x",
    "another direction": "annual%E2%80%AEgpj.exe",
    "isolated directions": "%E2%81%A6a%E2%81%A9.png",
    "an end of its quotes": "a%22%3B%20filename%3D%22evil.exe",
    "an extended name": "x%27%3B%20filename%2A%3Dutf-8%27%27evil.exe",
    "an encoded word": "%3D%3Futf-8%3FQ%3Fevil%3D2Eexe%3F%3D",
    "half a character": "a%FF%FE.png",
}
