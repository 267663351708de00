"""Rooms shared with other servers, wired: what takes their events in and asks them for more.

Knows other servers only as ``RemoteRooms`` and has signatures checked by the verifier it
is given; ``federation/wiring.py`` brings both, tests bring their own.
"""

from __future__ import annotations

import msgspec

from homeserver.core import Core
from homeserver.rooms.adopt import Adoption
from homeserver.rooms.backfill import Backfill
from homeserver.rooms.completion import Completion
from homeserver.rooms.dummy_events import DummyEvents
from homeserver.rooms.inbound import EventVerifier, Inbound
from homeserver.rooms.invites import Invites
from homeserver.rooms.missing import Missing
from homeserver.rooms.policy import Policy
from homeserver.rooms.remote import RemoteRooms
from homeserver.rooms.remote_join import RemoteJoin
from homeserver.rooms.whole_state import WholeState


class SharedRooms(msgspec.Struct, frozen=True, kw_only=True):
    """The ways into a room from outside."""

    inbound: Inbound
    adoption: Adoption
    remote_join: RemoteJoin
    backfill: Backfill
    invites: Invites
    completion: Completion
    dummy_events: DummyEvents


def wire_shared_rooms(
    core: Core, remote: RemoteRooms, verifier: EventVerifier, *, omit_members: bool = True
) -> SharedRooms:
    """Wire what rooms have to do with other servers.

    With ``omit_members`` rooms are joined with a part of their state first.
    """
    missing = Missing(remote, core.events, core.server_name)
    policy = Policy(remote, core.clock, core.server_name)
    core.send.policy = policy
    inbound = Inbound(
        rooms=core.rooms,
        events=core.events,
        states=core.states,
        resolution=core.resolution,
        timeline=core.timeline,
        outliers=core.outliers,
        missing=missing,
        verifier=verifier,
        policy=policy,
        sticky=core.sticky_checks,
    )
    adoption = _adoption(core)
    completion = _completion(core, inbound, missing, remote)
    return SharedRooms(
        inbound=inbound,
        adoption=adoption,
        remote_join=RemoteJoin(
            db=core.db,
            rooms=core.rooms,
            send=core.send,
            inbound=inbound,
            adoption=adoption,
            remote=remote,
            positions=core.positions,
            announce=core.notifier.announce_memberships,
            clock=core.clock,
            server_name=core.server_name,
            signing_key=core.signing_key,
            complete_later=completion.begin if omit_members else None,
        ),
        backfill=Backfill(
            db=core.db,
            keys=core.keys,
            rooms=core.rooms,
            events=core.events,
            states=core.states,
            timeline=core.timeline,
            inbound=inbound,
            missing=missing,
            remote=remote,
            event_nids=core.event_nids,
            background=core.background,
            server_name=core.server_name,
        ),
        invites=Invites(
            db=core.db,
            rooms=core.rooms,
            positions=core.positions,
            announce=core.notifier.announce_memberships,
        ),
        completion=completion,
        dummy_events=_dummy_events(core),
    )


def _adoption(core: Core) -> Adoption:
    return Adoption(
        db=core.db,
        keys=core.keys,
        outliers=core.outliers,
        timeline=core.timeline,
        positions=core.positions,
        event_nids=core.event_nids,
        server_name=core.server_name,
    )


def _completion(core: Core, inbound: Inbound, missing: Missing, remote: RemoteRooms) -> Completion:
    whole = WholeState(
        db=core.db,
        keys=core.keys,
        events=core.events,
        states=core.states,
        timeline=core.timeline,
        positions=core.positions,
        server_name=core.server_name,
    )
    return Completion(
        db=core.db,
        rooms=core.rooms,
        events=core.events,
        inbound=inbound,
        missing=missing,
        remote=remote,
        whole=whole,
        background=core.background,
        server_name=core.server_name,
    )


def _dummy_events(core: Core) -> DummyEvents:
    dummy_events = DummyEvents(
        db=core.db,
        rooms=core.rooms,
        states=core.states,
        send=core.send,
        clock=core.clock,
        background=core.background,
        server_name=core.server_name,
    )
    core.notifier.listeners.append(dummy_events.new_events)
    return dummy_events
