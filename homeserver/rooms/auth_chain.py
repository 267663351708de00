"""The events that authorise events, all the way down."""

from __future__ import annotations

from collections.abc import Iterable

from homeserver.storage import events
from homeserver.storage.database import Reader


async def auth_chain(scan: Reader, nids: Iterable[int]) -> set[int]:
    """The ``event_nid``s of the auth chains of events: one query for each step down, not for each event.

    An event is in its own answer only when another of the events is authorised by it.
    """
    chain: set[int] = set()
    followed: set[int] = set()
    wanted = set(nids)
    while wanted:
        followed |= wanted
        links = await events.auth_links(scan, list(wanted))
        found = {auth for auth_nids in links.values() for auth in auth_nids}
        chain |= found
        wanted = found - followed
    return chain
