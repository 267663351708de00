"""What this server publishes as its own keys.  Specification: server-server API, "Publishing keys"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from homeserver.protocol.signing import SigningKey, sign_json

#: Others ask again after half of this; less than an hour would have them ask all the time.
DEFAULT_LIFETIME_MS: Final = 24 * 3600 * 1000


class OldKey(msgspec.Struct, frozen=True):
    """A key this server signed with until ``expired_ts`` (ms since the epoch)."""

    key_id: str
    verify_key_base64: str
    expired_ts: int


def server_keys_response(
    server_name: str,
    keys: Sequence[SigningKey],
    old_keys: Sequence[OldKey],
    now_ms: int,
    lifetime_ms: int = DEFAULT_LIFETIME_MS,
) -> dict[str, Any]:
    """The body of ``GET /_matrix/key/v2/server``, signed with every key in use."""
    response: dict[str, Any] = {
        "server_name": server_name,
        "valid_until_ts": now_ms + lifetime_ms,
        "verify_keys": {key.key_id: {"key": key.verify_key_base64} for key in keys},
        "old_verify_keys": {
            key.key_id: {"key": key.verify_key_base64, "expired_ts": key.expired_ts} for key in old_keys
        },
    }
    for key in keys:
        response = sign_json(response, server_name, key)
    return response
