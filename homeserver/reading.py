"""What people read, wired: ``/sync``, the history of rooms, and events as clients see them."""

from __future__ import annotations

from dataclasses import dataclass

from homeserver.core import Core
from homeserver.encryption import Encryption
from homeserver.ephemeral import Ephemeral
from homeserver.rooms.bundles import Bundles
from homeserver.rooms.history import Backfill, History
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.invite_permission import InvitePermissions
from homeserver.rooms.relations import Relations
from homeserver.rooms.visibility import Visibility
from homeserver.sync.client_events import ClientEvents
from homeserver.sync.device_lists import DeviceListNews
from homeserver.sync.event_stream import EventStream
from homeserver.sync.initial_sync import InitialSync
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.memberships import Memberships
from homeserver.sync.notices import Notices
from homeserver.sync.notifications import Notifications
from homeserver.sync.room_section import RoomSections
from homeserver.sync.rulesets import KnownRules
from homeserver.sync.state_changes import StateChanges
from homeserver.sync.sync import Sync
from homeserver.sync.timeline_window import TimelineWindows
from homeserver.sync.unread import Unread
from homeserver.users.push_rules import PushRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The readers, and what decides what they may show."""

    visibility: Visibility
    ignored: IgnoredUsers
    invite_permissions: InvitePermissions
    client_events: ClientEvents
    history: History
    relations: Relations
    memberships: Memberships
    rules: KnownRules
    notices: Notices
    unread: Unread
    notifications: Notifications
    sync: Sync
    event_stream: EventStream
    initial_sync: InitialSync


def wire_reading(
    core: Core, push_rules: PushRules, ephemeral: Ephemeral, backfill: Backfill, encryption: Encryption
) -> Reading:
    """Wire the readers; ``backfill`` fetches what history this server lacks."""
    visibility = Visibility(core.db, core.keys, core.events, core.states, core.retention)
    ignored = IgnoredUsers(core.db)
    invite_permissions = InvitePermissions(core.db)
    bundles = Bundles(core.db, core.events, visibility, ignored)
    client_events = ClientEvents(core.db, core.events, core.states, core.clock, bundles)
    windows = TimelineWindows(core.db, visibility)
    history = History(
        db=core.db,
        rooms=core.rooms,
        keys=core.keys,
        events=core.events,
        states=core.states,
        visibility=visibility,
        backfill=backfill,
        retention=core.retention,
    )
    lazy_members = LazyMembers()
    memberships = Memberships(core.db, core.rooms, visibility, core.notifier)
    rules = KnownRules(push_rules, core.notifier)
    notices = Notices(core.db, core.events, core.states, visibility)
    unread = Unread(
        db=core.db,
        events=core.events,
        states=core.states,
        visibility=visibility,
        receipts=ephemeral.receipts.newest,
        rules=rules,
        ignored=ignored,
        notices=notices,
    )
    sections = RoomSections(
        db=core.db,
        visibility=visibility,
        windows=windows,
        changes=StateChanges(core.db, core.keys, core.events, core.states),
        client_events=client_events,
        lazy_members=lazy_members,
        unread=unread,
        typing=ephemeral.typing,
    )
    stream, initial = _older_streams(
        core,
        ephemeral,
        history,
        memberships,
        visibility=visibility,
        windows=windows,
        client_events=client_events,
        ignored=ignored,
    )
    return Reading(
        visibility=visibility,
        ignored=ignored,
        invite_permissions=invite_permissions,
        client_events=client_events,
        history=history,
        relations=Relations(
            db=core.db,
            events=core.events,
            history=history,
            visibility=visibility,
            ignored=ignored,
            bundles=bundles,
        ),
        memberships=memberships,
        rules=rules,
        notices=notices,
        unread=unread,
        notifications=Notifications(
            db=core.db,
            rooms=core.rooms,
            events=core.events,
            memberships=memberships,
            notices=notices,
            unread=unread,
            client_events=client_events,
            notifier=core.notifier,
        ),
        sync=Sync(
            db=core.db,
            rooms=core.rooms,
            events=core.events,
            memberships=memberships,
            sections=sections,
            lazy_members=lazy_members,
            receipts=ephemeral.receipts,
            typing=ephemeral.typing,
            presence=ephemeral.presence,
            to_device=ephemeral.to_device,
            push_rules=push_rules,
            ignored=ignored,
            invite_permissions=invite_permissions,
            notifier=core.notifier,
            ephemeral=ephemeral.positions,
            device_lists=DeviceListNews(
                db=core.db,
                rooms=core.rooms,
                keys=core.keys,
                events=core.events,
                visibility=visibility,
                changes=encryption.changes,
            ),
            key_counts=encryption.counts,
        ),
        event_stream=stream,
        initial_sync=initial,
    )


def _older_streams(
    core: Core,
    ephemeral: Ephemeral,
    history: History,
    memberships: Memberships,
    *,
    visibility: Visibility,
    windows: TimelineWindows,
    client_events: ClientEvents,
    ignored: IgnoredUsers,
) -> tuple[EventStream, InitialSync]:
    """What clients read that do not know ``/sync``."""
    stream = EventStream(
        db=core.db,
        rooms=core.rooms,
        events=core.events,
        memberships=memberships,
        history=history,
        visibility=visibility,
        client_events=client_events,
        ignored=ignored,
        presence=ephemeral.presence,
        notifier=core.notifier,
        ephemeral=ephemeral.positions,
    )
    initial = InitialSync(
        db=core.db,
        rooms=core.rooms,
        events=core.events,
        memberships=memberships,
        history=history,
        visibility=visibility,
        windows=windows,
        client_events=client_events,
        ignored=ignored,
        presence=ephemeral.presence,
        stream=stream,
    )
    return stream, initial
