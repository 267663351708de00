"""What a request's signature is of, as the specification writes it: an object, apart from our own code."""

from __future__ import annotations

from typing import Any

from federation.signatures import RequestSignature


def signed_request(
    signature: RequestSignature, *, method: str, uri: str, destination: str, content: Any | None
) -> dict[str, Any]:
    """The object that a header signs, its signature included, ready to be verified."""
    request: dict[str, Any] = {
        "method": method,
        "uri": uri,
        "origin": signature.origin,
        "destination": destination,
        "signatures": {signature.origin: {signature.key_id: signature.signature}},
    }
    return request if content is None else request | {"content": content}
