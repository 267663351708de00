"""Trains the zstd dictionary that stored events are compressed with.

Run ``python -m bench.train_event_dictionary`` from the repository's root.  The
samples are invented events with the shapes, keys and values that rooms are full
of; ids and texts are random, so that only what events share is learned.
"""

from __future__ import annotations

import base64
import random
from pathlib import Path

import orjson
import zstandard

_WORDS = Path(__file__).with_name("words.txt").read_text().split()


def _token(rng: random.Random, size: int) -> str:
    return base64.urlsafe_b64encode(rng.randbytes(size)).decode().rstrip("=")


def _event(rng: random.Random) -> bytes:
    server = rng.choice(["matrix.org", "example.org", "chat.example.com", "home.example.net", "m.example.de"])
    sender = f"@{rng.choice(_WORDS)}{rng.randrange(999)}:{server}"
    text = " ".join(rng.choices(_WORDS, k=rng.randint(1, 25)))
    profile = {
        "membership": "join",
        "displayname": rng.choice(_WORDS),
        "avatar_url": f"mxc://{server}/{_token(rng, 18)}",
    }
    ratchet = {
        "algorithm": "m.megolm.v1.aes-sha2",
        "ciphertext": "AwgA" + _token(rng, 120),
        "device_id": _token(rng, 8).upper(),
        "sender_key": _token(rng, 32),
        "session_id": _token(rng, 32),
    }
    kind, content = rng.choice(
        [
            ("m.room.message", {"body": text, "msgtype": "m.text"}),
            ("m.room.message", {"body": text, "msgtype": "m.text", "m.mentions": {}}),
            (
                "m.room.message",
                {
                    "body": text,
                    "format": "org.matrix.custom.html",
                    "formatted_body": f"<p>{text}</p>",
                    "m.mentions": {"user_ids": [sender]},
                    "m.relates_to": {"m.in_reply_to": {"event_id": "$" + _token(rng, 32)}},
                    "msgtype": "m.text",
                },
            ),
            ("m.room.encrypted", ratchet),
            (
                "m.reaction",
                {
                    "m.relates_to": {
                        "event_id": "$" + _token(rng, 32),
                        "key": "+1",
                        "rel_type": "m.annotation",
                    }
                },
            ),
            ("m.room.member", profile),
            ("m.room.member", {**profile, "membership": "leave"}),
            ("m.room.topic", {"topic": text}),
            ("m.room.redaction", {"redacts": "$" + _token(rng, 32), "reason": text}),
        ]
    )
    event = {
        "auth_events": ["$" + _token(rng, 32) for _ in range(rng.randint(2, 4))],
        "content": content,
        "depth": rng.randrange(1, 100_000),
        "hashes": {"sha256": base64.b64encode(rng.randbytes(32)).decode().rstrip("=")},
        "origin_server_ts": 1_700_000_000_000 + rng.randrange(10**11),
        "prev_events": ["$" + _token(rng, 32)],
        "room_id": f"!{_token(rng, 32)}" if rng.random() < 0.5 else f"!{_token(rng, 13)}:{server}",
        "sender": sender,
        "signatures": {server: {f"ed25519:a_{_token(rng, 3)}": _token(rng, 64)}},
        "type": kind,
    }
    if kind in {"m.room.member", "m.room.topic"}:
        event["state_key"] = sender if kind == "m.room.member" else ""
    return orjson.dumps(event, option=orjson.OPT_SORT_KEYS)


def main() -> None:
    """Write the dictionary where ``storage/event_json.py`` reads it."""
    rng = random.Random(20)
    samples: list[bytes | bytearray | memoryview] = [_event(rng) for _ in range(6000)]
    dictionary = zstandard.train_dictionary(4096, samples, level=3)
    target = Path(__file__).parent.parent / "homeserver/storage/schema/events.zdict"
    target.write_bytes(dictionary.as_bytes())
    compressor = zstandard.ZstdCompressor(dict_data=dictionary, write_dict_id=False)
    fresh = [_event(rng) for _ in range(2000)]
    packed = sum(len(compressor.compress(sample)) for sample in fresh)
    print(
        f"{target.name}: {len(dictionary.as_bytes())} bytes; "
        f"{sum(map(len, fresh)) // len(fresh)} -> {packed // len(fresh)} bytes an event"
    )


if __name__ == "__main__":
    main()
