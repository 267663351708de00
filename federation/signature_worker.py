"""A process that verifies signatures: batches on its standard input, verdicts on its standard output.

Started by ``signature_workers.py`` as a program of its own.  It imports nothing but the rules, keeps
nothing, and ends when its input ends.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import BinaryIO, Final, TypeAlias

import msgspec

from homeserver.protocol.canonical_json import decode
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing import BadSignature
from homeserver.protocol.unsealing import Signer, Unsealed, unseal

#: Bytes of the length before each batch and each answer.
LENGTH: Final = 4

#: What became of a PDU, or the sentence that says why it is not signed.
Verdict: TypeAlias = Unsealed | str


class Batch(msgspec.Struct, array_like=True):
    """PDUs of one room version, as canonical JSON, each with those who must have signed it."""

    room_version: str
    pdus: Sequence[tuple[bytes, Sequence[Signer]]]


encode_batch = msgspec.msgpack.Encoder().encode
decode_verdicts = msgspec.msgpack.Decoder(list[Verdict]).decode
_decode_batch = msgspec.msgpack.Decoder(Batch).decode


def verdicts(batch: Batch) -> list[Verdict]:
    """The verdict on each PDU of a batch."""
    rules = ROOM_VERSIONS[batch.room_version]
    found: list[Verdict] = []
    for json, signers in batch.pdus:
        try:
            found.append(unseal(decode(json), rules, signers))
        except BadSignature as error:
            found.append(str(error))
    return found


def framed(message: bytes) -> Sequence[bytes]:
    """A message with its length before it."""
    return len(message).to_bytes(LENGTH, "big"), message


def _serve(into: BinaryIO, out: BinaryIO) -> None:
    while len(length := into.read(LENGTH)) == LENGTH:
        batch = _decode_batch(into.read(int.from_bytes(length, "big")))
        out.writelines(framed(encode_batch(verdicts(batch))))
        out.flush()


if __name__ == "__main__":
    os.nice(5)  # who waits for the server comes before what is verified in bulk
    _serve(sys.stdin.buffer, sys.stdout.buffer)
