"""Memberships in rooms this server is not in: no timeline has them, and services are told all the same."""

from __future__ import annotations

from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION
from homeserver.rooms.invites import Invites
from homeserver.storage.database import Database
from tests.appservices.bridge_app import BOT, Bridged, bridged


def invite(target: str) -> Event:
    """An invite by somebody elsewhere, as its server sends it."""
    return Event(
        event_id="$invite",
        room_id="!far:elsewhere.example",
        sender="@erin:elsewhere.example",
        type="m.room.member",
        state_key=target,
        origin_server_ts=1,
        depth=5,
        prev_events=(),
        auth_events=(),
        redacts=None,
        json=b'{"content":{"membership":"invite"},"origin_server_ts":1,"type":"m.room.member"}',
    )


def invites_of(bridge: Bridged) -> Invites:
    core = bridge.server.core
    invites = Invites(
        db=core.db, rooms=core.rooms, positions=core.positions, announce=core.notifier.announce_memberships
    )
    invites.recorders.append(bridge.server.services.follower.record)
    return invites


async def test_an_invite_from_elsewhere_is_told_to_the_service_of_who_is_invited(
    sqlite_database: Database,
) -> None:
    async with bridged(sqlite_database) as bridge:
        invites = invites_of(bridge)
        for target in (BOT, "@alice:a.org"):
            await invites.invited(DEFAULT_ROOM_VERSION, invite(target), [])
        await bridge.delivered()

        (told,) = bridge.app.events
        assert (told["type"], told["state_key"], told["event_id"]) == ("m.room.member", BOT, "$invite")
        assert (told["room_id"], told["content"]) == ("!far:elsewhere.example", {"membership": "invite"})
