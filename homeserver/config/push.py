"""Notifications to people who are away: push gateways, and email."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from homeserver.config.rules import number


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What pushers may ask for; times in minutes."""

    #: Push gateways without TLS: for tests.
    allow_http: bool = False
    #: Whether people may have their notifications sent by email.
    by_email: bool = False
    #: Whether threads notify those who are subscribed to them, and nobody else (MSC4306).
    thread_subscriptions: bool = False
    #: How long something must be unread before it is mailed.
    email_delay: Annotated[float, number(float, 0, 10_080)] = 10.0
    #: How long a room waits between its first two mails; from one to the next it is longer.
    email_pause: Annotated[float, number(float, 0, 10_080)] = 10.0
