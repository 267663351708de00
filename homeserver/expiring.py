"""What ends by itself in rooms, wired: old and redacted messages, and stays of guests who may not stay."""

from __future__ import annotations

from collections.abc import Sequence

from homeserver.chores import every
from homeserver.core import Core
from homeserver.rooms.expiry import Expiry
from homeserver.rooms.guest_access import GuestAccess
from homeserver.rooms.membership import Membership
from homeserver.rooms.purge import AlsoForget, Purge
from homeserver.rooms.redacted_content import RedactedContent
from homeserver.rooms.related_redactions import RelatedRedactions
from homeserver.storage import redacted_content

#: Guests are sent away at once; this is for what a stop of the server left undone.
_GUESTS_EVERY_S = 3600.0
_REDACTED_EVERY_S = 3600.0


def start_expiring(
    core: Core, membership: Membership, purge_interval: float, *, also: Sequence[AlsoForget] = ()
) -> None:
    """Purge what is over every so many seconds, where that is wanted, and send guests away in time.

    ``also`` as ``Purge`` has it.
    """
    if core.retention.enabled:
        expiry = Expiry(
            db=core.db,
            rooms=core.rooms,
            keys=core.keys,
            events=core.events,
            retention=core.retention,
            purge=Purge(core.db, core.rooms, core.events, also=(redacted_content.forget, *also)),
        )
        core.background.start(every(purge_interval, expiry.round), "messages that are over")
    redacted = RedactedContent(core.db, core.states, core.clock, core.keep_redacted_ms)
    core.background.start(every(_REDACTED_EVERY_S, redacted.forget_expired), "redacted content")
    guests = GuestAccess(core.db, core.rooms, membership, core.background)
    core.notifier.state_listeners.append(guests.look)
    core.background.start(every(_GUESTS_EVERY_S, guests.enforce), "guests who may not stay")


def start_related_redactions(core: Core, related: RelatedRedactions) -> None:
    """Go on with what a stop of the server left undone, and forget in time what is done."""
    core.background.start(related.resume(), "redactions to go on with")
    core.background.start(every(_REDACTED_EVERY_S, related.forget_expired), "old related redactions")
