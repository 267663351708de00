"""Which characters the bytes of a page are: its byte order mark, the header, the page itself, a guess.

Only encodings that pages are written in have names here: Python knows others, which
decompress, or execute what they find.  Standard: HTML, "The input byte stream"; the Encoding Standard.
"""

from __future__ import annotations

import re
from typing import Final

_MARKS: Final = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
#: How far into a page its own word on its encoding is looked for.
_PRESCAN: Final = 4096
_DECLARED = re.compile(
    rb"""<(?:meta|\?xml)\b[^>]{0,500}?(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I
)
_SEPARATORS = re.compile(r"[^a-z0-9]+")

_JAPANESE: Final = {"shiftjis": "cp932", "sjis": "cp932", "xsjis": "cp932", "windows31j": "cp932"}
_CHINESE: Final = {
    **dict.fromkeys(("gb2312", "gbk", "gb18030", "xgbk"), "gb18030"),
    **dict.fromkeys(("big5", "big5hkscs", "xxbig5"), "big5hkscs"),
}
_KOREAN: Final = dict.fromkeys(("euckr", "ksc56011987", "ksc5601", "cp949", "windows949"), "cp949")
_WINDOWS: Final = {f"{prefix}125{n}": f"cp125{n}" for prefix in ("windows", "cp", "xcp") for n in range(9)}
_ISO: Final = {f"iso8859{n}": f"iso8859-{n}" for n in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)}
#: Encodings by their labels, in lower case and without punctuation, as browsers understand them.
_CODECS: Final = {
    **dict.fromkeys(("utf8", "unicode11utf8"), "utf-8"),
    **dict.fromkeys(("utf16", "utf16le"), "utf-16-le"),
    "utf16be": "utf-16-be",
    **dict.fromkeys(("iso88591", "latin1", "ascii", "usascii", "iso885911"), "cp1252"),
    **dict.fromkeys(("iso88599", "latin5"), "cp1254"),
    **dict.fromkeys(("iso885911", "tis620", "windows874"), "cp874"),
    **dict.fromkeys(("koi8r", "koi8"), "koi8-r"),
    "koi8u": "koi8-u",
    "ibm866": "cp866",
    "cp866": "cp866",
    "macintosh": "mac-roman",
    "eucjp": "euc_jp",
    "xeucjp": "euc_jp",
    "iso2022jp": "iso2022_jp",
    **_JAPANESE,
    **_CHINESE,
    **_KOREAN,
    **_WINDOWS,
    **_ISO,
}


def decode(body: bytes, charset: str | None) -> str:
    """The text of a page; ``charset`` is what the header says.  What cannot be read becomes U+FFFD."""
    for mark, codec in _MARKS:
        if body.startswith(mark):
            return body.decode(codec, "replace")
    codec = _codec(charset) or _codec(_declared(body)) or _guess(body)
    return body.decode(codec, "replace")


def _codec(label: str | None) -> str | None:
    return _CODECS.get(_SEPARATORS.sub("", label.lower())) if label and len(label) <= 40 else None


def _declared(body: bytes) -> str | None:
    found = _DECLARED.search(body[:_PRESCAN])
    label = found[1].decode("ascii", "replace") if found else None
    # A page in which this can be read is not in UTF-16, whatever it says.
    return "utf-8" if label and label.lower().startswith("utf-16") else label


def _guess(body: bytes) -> str:
    """UTF-8 if the page could be, its last character perhaps cut off; what browsers assume otherwise."""
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        return "utf-8" if len(body) - error.start < 4 and error.start > 0 else "cp1252"
    return "utf-8"
