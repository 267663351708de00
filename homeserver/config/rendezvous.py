"""Where two devices meet when one of them logs in by a QR code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from homeserver.config.rules import number


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Rendezvous sessions: whether there are any, and for whom."""

    enabled: bool = True
    #: Whether also those may begin one who are not logged in, as new devices do that show a QR code.
    public: bool = True
    #: How long one lives, in seconds.
    lifetime: Annotated[float, number(float, 60, 300)] = 300.0
