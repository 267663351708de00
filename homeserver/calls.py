"""What calls need of the server, wired: events that are sent later, and where to find transports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from homeserver.chores import every
from homeserver.config import Config, RateLimits
from homeserver.config.calls import DelayedEvents as DelayedEventSettings
from homeserver.core import Core
from homeserver.ratelimit import RateLimiter
from homeserver.reading import Reading
from homeserver.room_actions import RoomActions
from homeserver.rooms.delayed_events import DelayedEvents
from homeserver.rooms.redaction import RedactionRights
from homeserver.rooms.related_sends import RelatedSends
from homeserver.rooms.submit import Submit

_HOUR_S = 3600.0
_MINUTE_S = 60.0


class Calls(msgspec.Struct, frozen=True):
    """What sends for clients, at once and later; and the MatrixRTC transports that they are told of."""

    submit: Submit
    delayed: DelayedEvents
    rtc_transports: Sequence[Mapping[str, Any]] = ()


def wire_calls(
    core: Core,
    actions: RoomActions,
    reading: Reading,
    config: Config | None = None,
) -> Calls:
    """Wire it; without a configuration there are no transports, and everybody sends as fast as they like."""
    settings = config.delayed_events if config else DelayedEventSettings()
    limits = config.rate_limits if config else RateLimits(enabled=False)
    # Not the buckets that requests are counted in: in those, scheduling has taken its token already.
    limiter = RateLimiter(limits.limits(), core.clock, enabled=limits.enabled)
    submit = Submit(
        send=core.send,
        membership=actions.membership,
        directory=actions.directory,
        redaction_rights=RedactionRights(core.rooms, core.events, core.states, core.server_name),
        related=RelatedSends(core.db, core.events),
        related_redactions=actions.related_redactions,
    )
    delayed = DelayedEvents(
        db=core.db,
        clock=core.clock,
        submit=submit,
        background=core.background,
        max_delay_ms=round(settings.max_delay * 1000),
        max_scheduled=settings.max_per_user if settings.enabled else 0,
        check_sending=partial(limiter.check, "message"),
    )
    core.notifier.state_listeners.append(delayed.new_events)
    reading.client_events.delayed = delayed
    return Calls(submit, delayed, config.rtc_transports if config else ())


def start_calls(core: Core, calls: Calls) -> None:
    """Send from now on what is due, and forget in time what became of it."""
    core.background.start(calls.delayed.run(), "delayed events")
    core.background.start(every(_MINUTE_S, core.sticky.forget_expired), "sticky events that are over")
    core.background.start(every(_HOUR_S, calls.delayed.forget_old), "outcomes of delayed events")
