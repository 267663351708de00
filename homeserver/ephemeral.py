"""What is passed on beside the events of rooms, wired: typing, receipts, presence, to-device messages.

Each goes to local clients through the notifier and to other servers as EDUs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from homeserver.core import Core
from homeserver.rooms.edus import RemoteEdus
from homeserver.rooms.receipts import Receipts
from homeserver.sync.positions import EphemeralPositions
from homeserver.sync.typing import Typing
from homeserver.users.presence import Presence
from homeserver.users.to_device import ToDevice


class Ephemeral(msgspec.Struct, frozen=True, kw_only=True):
    """The kinds of such data, and the positions of those that are never stored."""

    positions: EphemeralPositions
    typing: Typing
    receipts: Receipts
    presence: Presence
    to_device: ToDevice

    def edu_receivers(self) -> Mapping[str, Callable[[str, dict[str, Any]], Awaitable[None]]]:
        """Who takes in another server's EDU, as its origin and content, by EDU type."""
        return {
            "m.typing": self.typing.receive,
            "m.receipt": self.receipts.receive,
            "m.presence": self.presence.receive,
            "m.direct_to_device": self.to_device.receive,
        }


def wire_ephemeral(core: Core, edus: RemoteEdus, *, presence: bool) -> Ephemeral:
    """Wire what is passed on; without ``presence`` nobody is told who is online."""
    positions = EphemeralPositions(core.clock.now_ms())
    ephemeral = Ephemeral(
        positions=positions,
        typing=Typing(
            rooms=core.rooms,
            states=core.states,
            positions=positions,
            clock=core.clock,
            notifier=core.notifier,
            edus=edus,
            server_name=core.server_name,
        ),
        receipts=Receipts(
            db=core.db,
            rooms=core.rooms,
            states=core.states,
            events=core.events,
            positions=core.positions,
            account_data_positions=core.account_data_positions,
            clock=core.clock,
            news=core.notifier,
            edus=edus,
            server_name=core.server_name,
        ),
        presence=Presence(
            db=core.db,
            clock=core.clock,
            news=core.notifier,
            edus=edus,
            next_position=positions.next,
            server_name=core.server_name,
            enabled=presence,
        ),
        to_device=ToDevice(
            db=core.db,
            positions=core.positions,
            clock=core.clock,
            news=core.notifier,
            edus=edus,
            server_name=core.server_name,
        ),
    )
    core.notifier.state_listeners.append(ephemeral.presence.new_events)
    return ephemeral
