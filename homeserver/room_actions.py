"""What local users do to rooms, wired: create, upgrade, name, join and leave them.

Sending into a room that is there needs nothing beyond the core: ``Core.send``.
"""

from __future__ import annotations

import msgspec

from homeserver.core import Core
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION, RoomVersion
from homeserver.rooms.address_invites import AddressInvites, IdentityServers
from homeserver.rooms.create import CreateRoom
from homeserver.rooms.directory import Directory
from homeserver.rooms.membership import Membership
from homeserver.rooms.redaction import RedactionRights
from homeserver.rooms.related_redactions import RelatedRedactions
from homeserver.rooms.remote import RemoteMemberships
from homeserver.rooms.shown_profile import Profiles
from homeserver.rooms.upgrade import UpgradeRoom


class RoomActions(msgspec.Struct, frozen=True, kw_only=True):
    """The actions, by what they are about."""

    membership: Membership
    address_invites: AddressInvites
    create: CreateRoom
    upgrade: UpgradeRoom
    directory: Directory
    related_redactions: RelatedRedactions


def wire_room_actions(
    core: Core,
    profiles: Profiles,
    remote: RemoteMemberships,
    default_version: RoomVersion = DEFAULT_ROOM_VERSION,
    identity_servers: IdentityServers | None = None,
) -> RoomActions:
    """Wire the actions; ``remote`` does what other servers have a hand in.

    Without ``identity_servers`` nobody is invited by their address.
    """
    membership = Membership(
        db=core.db,
        rooms=core.rooms,
        states=core.states,
        timeline=core.timeline,
        send=core.send,
        profiles=profiles,
        remote=remote,
        server_name=core.server_name,
        changed=lambda user_id, room_nid: core.notifier.announce_memberships(
            core.notifier.position, room_nid=room_nid, users=(user_id,)
        ),
    )
    address_invites = AddressInvites(
        rooms=core.rooms, send=core.send, membership=membership, profiles=profiles, servers=identity_servers
    )
    create = CreateRoom(
        db=core.db,
        rooms=core.rooms,
        timeline=core.timeline,
        membership=membership,
        profiles=profiles,
        address_invites=address_invites,
        clock=core.clock,
        server_name=core.server_name,
        signing_key=core.signing_key,
        default_version=default_version,
    )
    related_redactions = _related_redactions(core)
    core.notifier.listeners.append(related_redactions.look)
    return RoomActions(
        membership=membership,
        address_invites=address_invites,
        create=create,
        upgrade=UpgradeRoom(
            db=core.db,
            rooms=core.rooms,
            states=core.states,
            send=core.send,
            create=create,
            profiles=profiles,
        ),
        directory=Directory(
            db=core.db,
            rooms=core.rooms,
            states=core.states,
            send=core.send,
            remote=remote,
            server_name=core.server_name,
        ),
        related_redactions=related_redactions,
    )


def _related_redactions(core: Core) -> RelatedRedactions:
    return RelatedRedactions(
        db=core.db,
        clock=core.clock,
        rooms=core.rooms,
        events=core.events,
        rights=RedactionRights(core.rooms, core.events, core.states, core.server_name),
        send=core.send,
        background=core.background,
    )
