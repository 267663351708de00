"""What people read, wired: ``/sync``, the history of rooms, and events as clients see them."""

from __future__ import annotations

import msgspec

from homeserver.core import Core
from homeserver.encryption import Encryption
from homeserver.ephemeral import Ephemeral
from homeserver.rooms.bundles import Bundles
from homeserver.rooms.history import Backfill, History
from homeserver.rooms.ignored import IgnoredUsers
from homeserver.rooms.invite_permission import InvitePermissions
from homeserver.rooms.relations import Relations
from homeserver.rooms.thread_subscriptions import ThreadSubscriptions
from homeserver.rooms.thread_updates import UpdatedThreads
from homeserver.rooms.visibility import Visibility
from homeserver.sync.client_events import ClientEvents
from homeserver.sync.device_lists import DeviceListNews
from homeserver.sync.event_stream import EventStream
from homeserver.sync.follow import Follow
from homeserver.sync.initial_sync import InitialSync
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.memberships import Memberships
from homeserver.sync.notices import Notices
from homeserver.sync.notifications import Notifications
from homeserver.sync.room_section import RoomSections
from homeserver.sync.rulesets import KnownRules
from homeserver.sync.state_changes import StateChanges
from homeserver.sync.sticky_section import StickySections
from homeserver.sync.sync import Sync
from homeserver.sync.timeline_window import TimelineWindows
from homeserver.sync.unread import Unread
from homeserver.sync.watch import Watches
from homeserver.users.push_rules import PushRules


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The readers, and what decides what they may show."""

    visibility: Visibility
    ignored: IgnoredUsers
    invite_permissions: InvitePermissions
    client_events: ClientEvents
    history: History
    relations: Relations
    thread_subscriptions: ThreadSubscriptions
    updated_threads: UpdatedThreads
    memberships: Memberships
    rules: KnownRules
    notices: Notices
    unread: Unread
    notifications: Notifications
    sync: Sync
    follow: Follow
    event_stream: EventStream
    initial_sync: InitialSync
    sticky: StickySections
    watches: Watches


class _Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What all readers build on."""

    visibility: Visibility
    ignored: IgnoredUsers
    invite_permissions: InvitePermissions
    bundles: Bundles
    client_events: ClientEvents
    sticky: StickySections
    windows: TimelineWindows
    history: History
    memberships: Memberships
    watches: Watches


def wire_reading(
    core: Core, push_rules: PushRules, ephemeral: Ephemeral, backfill: Backfill, encryption: Encryption
) -> Reading:
    """Wire the readers; ``backfill`` fetches what history this server lacks."""
    shown = _shown(core, backfill)
    rules = KnownRules(push_rules, core.notifier)
    notices = Notices(core.db, core.events, core.states, shown.visibility)
    threads = _thread_subscriptions(core, shown)
    unread = Unread(
        db=core.db,
        events=core.events,
        states=core.states,
        visibility=shown.visibility,
        receipts=ephemeral.receipts.newest,
        rules=rules,
        ignored=shown.ignored,
        notices=notices,
        threads=threads,
    )
    stream = _event_stream(core, shown, ephemeral)
    lazy_members = LazyMembers()
    sync = _sync(core, shown, unread, push_rules, ephemeral, encryption=encryption, lazy_members=lazy_members)
    return Reading(
        visibility=shown.visibility,
        ignored=shown.ignored,
        invite_permissions=shown.invite_permissions,
        client_events=shown.client_events,
        history=shown.history,
        relations=_relations(core, shown),
        thread_subscriptions=threads,
        updated_threads=UpdatedThreads(
            db=core.db,
            rooms=core.rooms,
            events=core.events,
            visibility=shown.visibility,
            ignored=shown.ignored,
            newest=sync.newest,
        ),
        memberships=shown.memberships,
        rules=rules,
        notices=notices,
        unread=unread,
        notifications=_notifications(core, shown, notices, unread),
        sync=sync,
        follow=Follow(
            collect=sync.collect,
            memberships=shown.memberships,
            presence=ephemeral.presence,
            lazy_members=lazy_members,
            notifier=core.notifier,
            watches=shown.watches,
        ),
        event_stream=stream,
        initial_sync=_initial_sync(core, shown, ephemeral, stream),
        sticky=shown.sticky,
        watches=shown.watches,
    )


def _shown(core: Core, backfill: Backfill) -> _Shown:
    visibility = Visibility(core.db, core.keys, core.events, core.states, core.retention)
    ignored = IgnoredUsers(core.db)
    bundles = Bundles(core.db, core.events, visibility, ignored)
    client_events = ClientEvents(
        core.db,
        core.events,
        core.states,
        core.clock,
        bundles,
        sticky=core.sticky,
        transactions=core.transactions,
    )
    return _Shown(
        visibility=visibility,
        ignored=ignored,
        invite_permissions=InvitePermissions(core.db),
        bundles=bundles,
        client_events=client_events,
        sticky=StickySections(core.sticky, core.events, client_events),
        windows=TimelineWindows(core.db, visibility),
        history=History(
            db=core.db,
            rooms=core.rooms,
            keys=core.keys,
            events=core.events,
            states=core.states,
            visibility=visibility,
            backfill=backfill,
            retention=core.retention,
        ),
        memberships=Memberships(core.db, core.rooms, visibility, core.notifier),
        watches=Watches(core.notifier, core.clock),
    )


def _relations(core: Core, shown: _Shown) -> Relations:
    return Relations(
        db=core.db,
        events=core.events,
        history=shown.history,
        visibility=shown.visibility,
        ignored=shown.ignored,
        bundles=shown.bundles,
    )


def _thread_subscriptions(core: Core, shown: _Shown) -> ThreadSubscriptions:
    return ThreadSubscriptions(
        db=core.db,
        events=core.events,
        history=shown.history,
        positions=core.positions,
        news=core.notifier,
    )


def _notifications(core: Core, shown: _Shown, notices: Notices, unread: Unread) -> Notifications:
    return Notifications(
        db=core.db,
        rooms=core.rooms,
        events=core.events,
        memberships=shown.memberships,
        notices=notices,
        unread=unread,
        client_events=shown.client_events,
        notifier=core.notifier,
    )


def _sync(
    core: Core,
    shown: _Shown,
    unread: Unread,
    push_rules: PushRules,
    ephemeral: Ephemeral,
    *,
    encryption: Encryption,
    lazy_members: LazyMembers,
) -> Sync:
    sections = RoomSections(
        db=core.db,
        visibility=shown.visibility,
        windows=shown.windows,
        changes=StateChanges(core.keys, core.events, core.states),
        client_events=shown.client_events,
        lazy_members=lazy_members,
        unread=unread,
        typing=ephemeral.typing,
        sticky=shown.sticky,
    )
    device_lists = DeviceListNews(
        db=core.db,
        rooms=core.rooms,
        keys=core.keys,
        events=core.events,
        visibility=shown.visibility,
        changes=encryption.changes,
    )
    return Sync(
        db=core.db,
        rooms=core.rooms,
        events=core.events,
        memberships=shown.memberships,
        sections=sections,
        lazy_members=lazy_members,
        receipts=ephemeral.receipts,
        typing=ephemeral.typing,
        presence=ephemeral.presence,
        to_device=ephemeral.to_device,
        account_data_positions=core.account_data_positions,
        push_rules=push_rules,
        ignored=shown.ignored,
        invite_permissions=shown.invite_permissions,
        notifier=core.notifier,
        ephemeral=ephemeral.positions,
        device_lists=device_lists,
        key_counts=encryption.counts,
        sticky=shown.sticky,
        watches=shown.watches,
    )


def _event_stream(core: Core, shown: _Shown, ephemeral: Ephemeral) -> EventStream:
    return EventStream(
        db=core.db,
        rooms=core.rooms,
        events=core.events,
        memberships=shown.memberships,
        history=shown.history,
        visibility=shown.visibility,
        client_events=shown.client_events,
        ignored=shown.ignored,
        presence=ephemeral.presence,
        notifier=core.notifier,
        ephemeral=ephemeral.positions,
    )


def _initial_sync(core: Core, shown: _Shown, ephemeral: Ephemeral, stream: EventStream) -> InitialSync:
    return InitialSync(
        db=core.db,
        rooms=core.rooms,
        events=core.events,
        memberships=shown.memberships,
        history=shown.history,
        visibility=shown.visibility,
        windows=shown.windows,
        client_events=shown.client_events,
        ignored=shown.ignored,
        presence=ephemeral.presence,
        stream=stream,
    )
