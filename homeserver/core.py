"""The core of a server, wired: storage, rooms and who waits for them, without any API.

What wires the other parts builds on it, as do the small servers of tests.
"""

from __future__ import annotations

import msgspec

from homeserver.clock import Clock
from homeserver.protocol.retention import Lifetimes
from homeserver.protocol.signing import SigningKey
from homeserver.rooms.event_cache import EVENT_BYTES, EventCache
from homeserver.rooms.extremities import Extremities
from homeserver.rooms.newest import UserPositions
from homeserver.rooms.outliers import Outliers
from homeserver.rooms.recent_transactions import RecentTransactions
from homeserver.rooms.resolution import Resolution
from homeserver.rooms.retention import Retention
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Send
from homeserver.rooms.state_store import StateStore
from homeserver.rooms.sticky_checks import StickyChecks
from homeserver.rooms.sticky_events import StickyEvents
from homeserver.rooms.timeline import Timeline
from homeserver.storage.database import Database
from homeserver.storage.keys import Keys
from homeserver.storage.numbers import Sequence
from homeserver.sync.notifier import Notifier
from homeserver.tasks import Background


class Core(msgspec.Struct, frozen=True):
    """What everything else is given parts of; only what wires is given the whole."""

    db: Database
    clock: Clock
    server_name: str
    signing_key: SigningKey
    background: Background
    positions: Sequence
    event_nids: Sequence
    keys: Keys
    events: EventCache
    states: StateStore
    resolution: Resolution
    rooms: Rooms
    outliers: Outliers
    notifier: Notifier
    #: When each user's account data last changed.
    account_data_positions: UserPositions
    transactions: RecentTransactions
    timeline: Timeline
    send: Send
    retention: Retention
    sticky: StickyEvents
    sticky_checks: StickyChecks
    #: How long what redactions take away is kept, in milliseconds; 0: not at all.
    keep_redacted_ms: int


async def open_core(
    db: Database,
    clock: Clock,
    server_name: str,
    signing_key: SigningKey,
    *,
    lifetimes: Lifetimes | None = None,
    forget_on_leave: bool = False,
    keep_redacted_ms: int = 0,
    event_cache_bytes: int = EVENT_BYTES,
) -> Core:
    """Wire the core over an open database; without ``lifetimes`` events are kept for ever.

    ``forget_on_leave``: who leaves a room has forgotten it.
    """
    background = Background()
    positions = await Sequence.open(db, "positions")
    event_nids = await Sequence.open(db, "events")
    keys = Keys(db.read, db.scan, await Sequence.open(db, "keys"))
    events = EventCache(db, event_cache_bytes)
    states = StateStore(db, keys, events, await Sequence.open(db, "overlays"))
    resolution = Resolution(db, keys, events, states)
    rooms = Rooms(db, events, await Sequence.open(db, "rooms"), server_name)
    notifier = Notifier(positions.last)
    sticky = StickyEvents(db, clock, server_name)
    await sticky.load()
    timeline = Timeline(
        db=db,
        keys=keys,
        events=events,
        states=states,
        resolution=resolution,
        positions=positions,
        event_nids=event_nids,
        server_name=server_name,
        announce=notifier.announce_events,
        background=background,
        sticky=sticky,
        forget_on_leave=forget_on_leave,
        keep_redacted_until=lambda: clock.now_ms() + keep_redacted_ms if keep_redacted_ms else None,
    )
    send = Send(
        rooms=rooms,
        states=states,
        extremities=Extremities(states, resolution),
        timeline=timeline,
        clock=clock,
        server_name=server_name,
        signing_key=signing_key,
    )
    sticky_checks = StickyChecks(
        db=db,
        rooms=rooms,
        events=events,
        send=send,
        sticky=sticky,
        positions=positions,
        announce=lambda pos, room_nid: notifier.announce(pos, rooms=(room_nid,)),
        background=background,
    )
    notifier.listeners.append(sticky_checks.new_events)
    return Core(
        db=db,
        clock=clock,
        server_name=server_name,
        signing_key=signing_key,
        background=background,
        positions=positions,
        event_nids=event_nids,
        keys=keys,
        events=events,
        states=states,
        resolution=resolution,
        rooms=rooms,
        outliers=Outliers(db, keys, events, event_nids, server_name),
        notifier=notifier,
        account_data_positions=UserPositions(positions.last),
        transactions=RecentTransactions(positions),
        timeline=timeline,
        send=send,
        retention=Retention(clock, lifetimes),
        sticky=sticky,
        sticky_checks=sticky_checks,
        keep_redacted_ms=keep_redacted_ms,
    )
