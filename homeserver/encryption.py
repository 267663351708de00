"""End-to-end encryption, wired: keys of devices and users, here and at other servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from homeserver.core import Core
from homeserver.e2e.backup import KeyBackups
from homeserver.e2e.changes import KeyChanges
from homeserver.e2e.claims import KeyClaims
from homeserver.e2e.cross_signing import CrossSigning
from homeserver.e2e.device_lists import DeviceLists
from homeserver.e2e.joining import Joining
from homeserver.e2e.key_counts import KeyCounts
from homeserver.e2e.queries import KeyQueries
from homeserver.e2e.remote import RemoteKeys
from homeserver.e2e.remote_lists import RemoteDeviceLists
from homeserver.e2e.uploads import KeyUploads
from homeserver.rooms.edus import RemoteEdus


class Encryption(msgspec.Struct, frozen=True, kw_only=True):
    """Who has which keys, and who is told when they change.

    ``start`` before clients or servers ask anything.
    """

    changes: KeyChanges
    counts: KeyCounts
    lists: DeviceLists
    remote_lists: RemoteDeviceLists
    uploads: KeyUploads
    claims: KeyClaims
    queries: KeyQueries
    cross_signing: CrossSigning
    backups: KeyBackups

    async def start(self) -> None:
        """Go on with what was left undone."""
        await self.remote_lists.start()
        await self.lists.start()

    def edu_receivers(self) -> Mapping[str, Callable[[str, dict[str, Any]], Awaitable[None]]]:
        """Who takes in another server's EDU, as its origin and content, by EDU type."""
        return {
            "m.device_list_update": self.remote_lists.receive_update,
            "m.signing_key_update": self.remote_lists.receive_signing_keys,
        }


def wire_encryption(
    core: Core, edus: RemoteEdus, remote: RemoteKeys, *, send_device_names: bool = False
) -> Encryption:
    """Wire it; ``remote`` asks other servers, which learn what devices are called only if they may."""
    changes = KeyChanges(core.db, core.positions, core.notifier)
    counts = KeyCounts(core.db)
    counts.listeners.append(lambda user_id, _device_id: core.notifier.wake_user(user_id))
    joining = Joining(core.states, core.events)
    lists = DeviceLists(
        db=core.db,
        changes=changes,
        edus=edus,
        joining=joining,
        background=core.background,
        server_name=core.server_name,
        send_names=send_device_names,
    )
    remote_lists = RemoteDeviceLists(
        db=core.db,
        changes=changes,
        joining=joining,
        remote=remote,
        background=core.background,
        clock=core.clock,
        server_name=core.server_name,
    )
    queries = KeyQueries(
        db=core.db,
        lists=remote_lists,
        remote=remote,
        server_name=core.server_name,
        send_names=send_device_names,
    )
    core.notifier.state_listeners += [lists.new_events, remote_lists.new_events]
    return Encryption(
        changes=changes,
        counts=counts,
        lists=lists,
        remote_lists=remote_lists,
        uploads=KeyUploads(core.db, lists, counts, core.clock),
        claims=KeyClaims(
            db=core.db, counts=counts, remote=remote, clock=core.clock, server_name=core.server_name
        ),
        queries=queries,
        cross_signing=CrossSigning(db=core.db, changes=changes, lists=lists, queries=queries),
        backups=KeyBackups(core.db),
    )
