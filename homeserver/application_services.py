"""Application services, wired: what they may do here, and what they are told and asked."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from homeserver.appservices.accounts import ServiceAccounts
from homeserver.appservices.authentication import Authentication
from homeserver.appservices.client import Client, Http
from homeserver.appservices.delivery import Delivery
from homeserver.appservices.device_news import DeviceNews
from homeserver.appservices.ephemeral_news import EphemeralNews
from homeserver.appservices.follower import Follower
from homeserver.appservices.interest import Interest
from homeserver.appservices.networks import NetworkRooms
from homeserver.appservices.packing import Packing
from homeserver.appservices.providing import Providing
from homeserver.appservices.services import AppServices
from homeserver.appservices.third_party import ThirdPartyNetworks
from homeserver.appservices.traffic import Traffic
from homeserver.config.appservices import Registration
from homeserver.core import Core
from homeserver.encryption import Encryption
from homeserver.ephemeral import Ephemeral
from homeserver.people import People
from homeserver.reading import Reading
from homeserver.room_actions import RoomActions
from homeserver.rooms.invites import Invites
from homeserver.storage import appservices as storage


class ApplicationServices(msgspec.Struct, frozen=True, kw_only=True):
    """What there is for them; ``start`` before clients or servers ask anything."""

    services: AppServices
    accounts: ServiceAccounts
    authentication: Authentication
    client: Client
    networks: NetworkRooms
    third_party: ThirdPartyNetworks
    providing: Providing
    interest: Interest
    follower: Follower
    traffic: Traffic

    async def start(
        self, core: Core, people: People, actions: RoomActions, invites: Invites | None = None
    ) -> None:
        """Make their users, introduce them to the rest, and go on sending.

        ``invites`` are those of other servers.  Where there are no services, nothing is left of earlier ones.
        """
        ids, position = list(self.services.by_id), core.notifier.position
        await core.db.write(lambda tx: storage.keep_only(tx, ids, position))
        if not ids:
            return
        await self.accounts.make_senders()
        people.accounts.check_reserved = self.services.check_new_user
        people.profiles.provider = actions.membership.provider = self.providing
        actions.directory.provider = self.providing
        actions.directory.aliases_changed.append(self.interest.forget)
        if self.traffic.deliveries:
            if invites is not None:
                invites.recorders.append(self.follower.record)
            await self.traffic.start()
            core.background.start(self.traffic.run(), "news for application services")

    async def is_there(self, people: People, user_id: str) -> bool:
        """Whether a local user is there, made by a service if need be."""
        if await people.accounts.is_active(user_id):
            return True
        return await self.providing.provides_user(user_id) and await people.accounts.is_active(user_id)


def wire_application_services(
    core: Core,
    people: People,
    ephemeral: Ephemeral,
    reading: Reading,
    encryption: Encryption,
    *,
    http: Http,
    registrations: Sequence[Registration] = (),
) -> ApplicationServices:
    """Wire them; ``http`` leads to the URLs of the registrations."""
    services = AppServices(registrations, core.server_name)
    reachable = [service for service in services.all if service.registration.url is not None]
    interest = Interest(db=core.db, rooms=core.rooms, states=core.states, services=services)
    follower = Follower(db=core.db, rooms=core.rooms, events=core.events, interest=interest)
    ephemeral_news = EphemeralNews(
        db=core.db,
        rooms=core.rooms,
        interest=interest,
        services=[service for service in reachable if service.registration.wants_ephemeral],
        typing=ephemeral.typing,
        receipts=ephemeral.receipts,
        presence=ephemeral.presence,
        positions=ephemeral.positions,
        position=core.notifier.position,
    )
    devices = DeviceNews(
        db=core.db,
        interest=interest,
        services=[service for service in reachable if service.registration.encryption],
        changes=encryption.changes,
        counts=encryption.counts,
    )
    packing = Packing(
        db=core.db,
        rooms=core.rooms,
        events=core.events,
        client_events=reading.client_events,
        ephemeral=ephemeral_news,
        devices=devices,
        notifier=core.notifier,
        clock=core.clock,
    )
    client = Client(http)
    deliveries = {
        service.id: Delivery(
            service,
            db=core.db,
            client=client,
            packing=packing,
            clock=core.clock,
            background=core.background,
        )
        for service in reachable
    }
    authentication = Authentication(core.db, core.clock, services, people.sessions.authenticate)
    people.moderation.listeners.append(authentication.look_again)
    people.accounts.listeners.append(authentication.look_again)
    return ApplicationServices(
        services=services,
        accounts=ServiceAccounts(core.db, core.clock, services, core.server_name),
        authentication=authentication,
        client=client,
        networks=NetworkRooms(core.db, core.rooms),
        third_party=ThirdPartyNetworks(services, client, core.clock),
        providing=Providing(services, client, core.clock),
        interest=interest,
        follower=follower,
        traffic=Traffic(
            db=core.db,
            notifier=core.notifier,
            follower=follower,
            ephemeral=ephemeral_news,
            devices=devices,
            deliveries=deliveries,
            counts=encryption.counts,
        ),
    )
