"""How the JSON of an event lies on disk: one format byte, then the bytes.

Format 0 is the canonical JSON itself, format 1 the same compressed with zstd
and the dictionary ``events.zdict`` beside the schema, which was trained on events
of every common type (``python -m bench.train_event_dictionary`` makes it anew;
a new dictionary needs a new format byte, since old rows keep theirs).
"""

from __future__ import annotations

import threading
from pathlib import Path

import zstandard

_PLAIN, _ZSTD = b"\x00", b"\x01"

#: Shorter than this, compressing gains less than it costs.
_WORTH_COMPRESSING = 120

_DICTIONARY = zstandard.ZstdCompressionDict(
    Path(__file__).with_name("schema").joinpath("events.zdict").read_bytes()
)
_DICTIONARY.precompute_compress(level=1)

#: No event is larger (spec: "Size limits"); a stored one that claims to be is damaged.
_MAX_EVENT_BYTES = 1 << 20


class _Codec(threading.local):
    """Compressors are not safe to share between threads."""

    def __init__(self) -> None:
        self.compress = zstandard.ZstdCompressor(
            dict_data=_DICTIONARY, write_checksum=False, write_content_size=True, write_dict_id=False
        ).compress
        self.decompress = zstandard.ZstdDecompressor(dict_data=_DICTIONARY).decompress


_codec = _Codec()


def encode_event_json(json: bytes) -> bytes:
    """The bytes to store for an event."""
    if len(json) < _WORTH_COMPRESSING:
        return _PLAIN + json
    packed: bytes = _codec.compress(json)
    return _ZSTD + packed if len(packed) < len(json) else _PLAIN + json


def decode_event_json(stored: bytes) -> bytes:
    """The canonical JSON of a stored event."""
    if stored[:1] == _PLAIN:
        return stored[1:]
    json: bytes = _codec.decompress(stored[1:], max_output_size=_MAX_EVENT_BYTES)
    return json
