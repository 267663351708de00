"""What a client asks ``/sync`` for, and one reading of it at one point in time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from homeserver.protocol.filters import Filter
from homeserver.storage.account_data import AccountDatum
from homeserver.storage.receipts import Receipt
from homeserver.sync.client_events import Form, LookedUp
from homeserver.sync.positions import SyncToken
from homeserver.users.presence import PresenceState


class SyncRequest(msgspec.Struct, frozen=True):
    """The parameters of ``GET /sync``."""

    user_id: str
    #: ``None`` for tokens that belong to no device.
    device_id: str | None
    filter: Filter
    since: SyncToken | None = None
    full_state: bool = False
    set_presence: PresenceState = "online"
    timeout_ms: int = 0
    use_state_after: bool = False
    #: One stream of several that a device may have open; ``None`` for the long polls of a device.
    stream: str | None = None
    #: Whether the client has shown that it has everything up to ``since``, or was merely written it.
    has_received: bool = True

    @property
    def shown_to(self) -> tuple[str, str | None]:
        """Who knows the members that it was shown: a device, or one stream of it."""
        return self.user_id, self.device_id if self.stream is None else self.stream

    @property
    def since_pos(self) -> int:
        """The stream position the client has seen everything up to; 0 for a first sync."""
        return self.since.pos if self.since else 0

    @property
    def since_ephemeral(self) -> int:
        """The same for what is only kept in memory."""
        return self.since.ephemeral if self.since else 0

    @property
    def since_sticky(self) -> int:
        """The same for sticky events."""
        if self.since is None:
            return 0
        return self.since.pos if self.since.sticky is None else self.since.sticky

    @property
    def form(self) -> Form:
        """How events of rooms are to be written."""
        return Form(
            room_id=False,
            event_fields=self.filter.event_fields,
            event_format=self.filter.event_format,
        )


class ReadAtOnce(msgspec.Struct, frozen=True):
    """What was read for several rooms with one query each; ``None``: every room reads its own."""

    looked_up: LookedUp | None = None
    #: All receipts of each room that has any.
    receipts: Mapping[int, Sequence[Receipt]] | None = None


NOTHING_READ = ReadAtOnce()


class Reading(msgspec.Struct, frozen=True):
    """A request with what all its rooms are read against: nothing after ``now`` is shown."""

    request: SyncRequest
    now: SyncToken
    #: Rooms with new receipts, and with other people typing than before.
    with_receipts: frozenset[int]
    with_typing: frozenset[int]
    #: Changed account data by room id.
    account_data: Mapping[str, Sequence[AccountDatum]]
    #: Users whose messages are not shown.
    ignored: frozenset[str]
    #: Numbers of sticky events that are news, by room.
    sticky: Mapping[int, Sequence[int]]
    #: What was read for several rooms at once.
    at_once: ReadAtOnce = NOTHING_READ

    @property
    def user_id(self) -> str:
        """Who syncs."""
        return self.request.user_id
