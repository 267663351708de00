"""How servers that are no homeservers are reached over HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from homeserver.config.rules import AddressRange, ReadableFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """Which addresses may be contacted in spite of being private, and whose certificates are trusted."""

    allowed_addresses: tuple[AddressRange, ...] = ()
    ca_file: ReadableFile | None = None
