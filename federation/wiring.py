"""Federation, wired: the way to other servers, the rooms shared with them, and the API they call."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack
from functools import cache, partial
from random import SystemRandom

import msgspec

from federation import key_validity
from federation.auth import ServerAuthentication
from federation.client import FederationClient
from federation.device_keys import DeviceKeyEndpoints
from federation.discovery import Discovery, PermittedServers
from federation.event_signatures import KeyringVerifier
from federation.events import Events
from federation.finding import FindingEndpoints
from federation.invites import InviteEndpoints
from federation.joins import Joins
from federation.key_routes import KeyRoutes
from federation.key_store import DatabaseKeyStore
from federation.keyring import Keyring
from federation.media import FederationMedia, open_url
from federation.media_routes import MediaRoutes
from federation.notary import Notary
from federation.openid import OpenIdEndpoint
from federation.published_keys import VerifyKey
from federation.queries import LocalProfiles, Queries, provides_none
from federation.remote_rooms import FederationRooms
from federation.routes import routes
from federation.sender import Sender
from federation.server_keys import OldKey
from federation.srv import LookUpSrv, SrvRecord
from federation.state_replies import StateReplies
from federation.third_party_invites import ThirdPartyInviteEndpoints
from federation.transactions import PATIENCE_SECONDS, ReceiveEdu, Transactions
from federation.transport import (
    DEFAULT_TIMEOUT_SECONDS,
    Exchange,
    Https,
    Transport,
)
from federation.visible_events import VisibleEvents
from federation.well_known import fetch_well_known
from homeserver.addresses import DENIED_BY_DEFAULT, AddressPolicy, address_policy
from homeserver.clock import Clock
from homeserver.config import Federation as Settings
from homeserver.content_repository import ContentRepository
from homeserver.core import Core
from homeserver.egress import open_session, tls_context
from homeserver.encryption import Encryption
from homeserver.finding import Finding
from homeserver.late import have_loaded
from homeserver.rooms.membership import Membership
from homeserver.rooms.restricted_join import RestrictedJoin
from homeserver.rooms.third_party_invites import KeyValidity, ThirdPartyInvites
from homeserver.shared_rooms import SharedRooms, wire_shared_rooms
from homeserver.storage.numbers import Sequence
from homeserver.users.openid import OpenIdTokens
from homeserver.web import Route

#: Whether to have anything to do with a server of this name.
Allows = Callable[[str], bool]


class Federation(msgspec.Struct, frozen=True, kw_only=True):
    """What has to do with other servers."""

    client: FederationClient
    keyring: Keyring
    verifier: KeyringVerifier
    key_routes: KeyRoutes
    sender: Sender
    authentication: ServerAuthentication
    rooms: SharedRooms


def open_https(settings: Settings, clock: Clock, allows: Allows, closing: AsyncExitStack) -> Https:
    """The way to other servers over the network; ``closing`` closes it."""
    session = open_session(_addresses(settings), _outbound_tls(settings))
    closing.push_async_callback(session.close)
    discovery = Discovery(
        fetch_well_known=partial(fetch_well_known, session),
        look_up_srv=_late_srv_lookup(),
        clock=clock,
        random=SystemRandom(),
    )
    closing.push_async_callback(discovery.close)
    return Https(PermittedServers(discovery, allows), session)


def _late_srv_lookup() -> LookUpSrv:
    @cache
    def opened() -> LookUpSrv:
        from federation.srv_lookup import open_srv_lookup  # noqa: PLC0415  see there

        return open_srv_lookup()

    async def look_up(name: str) -> list[SrvRecord]:
        await have_loaded("federation.srv_lookup")
        return await opened()(name)

    return look_up


def federation_media(core: Core, https: Https) -> FederationMedia:
    """Fetches the media of other servers over the network."""
    return FederationMedia(
        server_name=core.server_name,
        key=core.signing_key,
        open_response=https.open,
        open_url=open_url(https.session),
    )


def open_key_validity(settings: Settings, closing: AsyncExitStack) -> KeyValidity:
    """The way to identity servers' keys over the network; ``closing`` closes it."""
    session = open_session(_addresses(settings), _outbound_tls(settings))
    closing.push_async_callback(session.close)
    return partial(key_validity.is_key_valid, session)


async def open_federation(
    core: Core,
    exchange: Exchange,
    allows: Allows,
    closing: AsyncExitStack,
    *,
    timeout: float = DEFAULT_TIMEOUT_SECONDS,
    omit_members: bool = True,
    old_keys: Collection[OldKey] = (),
    trusted_key_servers: Collection[str] = (),
) -> Federation:
    """Wire federation over a way to other servers, and begin to send; ``closing`` closes it.

    ``timeout`` in seconds is what other servers get for an answer, unless a request says otherwise.
    With ``omit_members`` rooms are joined with a part of their state first.
    ``old_keys`` are those this server signed with, ``trusted_key_servers`` the notaries it asks.
    """

    def heard_from(peer: str) -> None:
        sender.peer_is_alive(peer)

    client = FederationClient(
        Transport(
            server_name=core.server_name,
            key=core.signing_key,
            exchange=exchange,
            timeout=timeout,
            heard_from=heard_from,
        )
    )
    keyring, key_routes = _keys(core, client, allows, old_keys, trusted_key_servers)
    closing.push_async_callback(keyring.close)
    verifier = KeyringVerifier(keyring)
    closing.push_async_callback(verifier.close)
    sender = Sender(
        db=core.db,
        events=core.events,
        client=client,
        outbox_positions=await Sequence.open(core.db, "outbox"),
        clock=core.clock,
        server_name=core.server_name,
        allows=allows,
        sticky=core.sticky,
    )
    core.notifier.listeners.append(sender.new_events)
    await sender.start(core.notifier.position)
    closing.push_async_callback(sender.close)
    rooms = wire_shared_rooms(core, FederationRooms(client), verifier, omit_members=omit_members)
    await rooms.completion.start()
    return Federation(
        client=client,
        keyring=keyring,
        verifier=verifier,
        key_routes=key_routes,
        sender=sender,
        authentication=ServerAuthentication(
            server_name=core.server_name, keyring=keyring, heard_from=sender.peer_is_alive, allows=allows
        ),
        rooms=rooms,
    )


def _keys(
    core: Core,
    client: FederationClient,
    allows: Allows,
    old_keys: Collection[OldKey],
    trusted_key_servers: Collection[str],
) -> tuple[Keyring, KeyRoutes]:
    """Who knows the keys of other servers, and what tells them ours and, as a notary, each other's."""
    store = DatabaseKeyStore(core.db)
    keyring = Keyring(
        server_name=core.server_name,
        own_keys=[core.signing_key],
        old_keys=[VerifyKey(old.key_id, old.verify_key_base64, old.expired_ts, True) for old in old_keys],
        store=store,
        fetch=client.get_server_keys,
        notaries=list(trusted_key_servers),
        query=client.query_keys_via_notary,
        clock=core.clock,
    )
    notary = Notary(
        server_name=core.server_name,
        keys=[core.signing_key],
        store=store,
        refresh=keyring.refresh,
        allows=allows,
        clock=core.clock,
    )
    key_routes = KeyRoutes(
        server_name=core.server_name,
        keys=[core.signing_key],
        old_keys=list(old_keys),
        notary=notary,
        clock=core.clock,
    )
    return keyring, key_routes


async def open_federation_api(
    core: Core,
    federation: Federation,
    *,
    is_local_user: Callable[[str], Awaitable[bool]],
    profiles: LocalProfiles,
    encryption: Encryption,
    finding: Finding,
    membership: Membership,
    openid: OpenIdTokens,
    is_key_valid: KeyValidity,
    lists_rooms: bool = True,
    edu_receivers: Mapping[str, ReceiveEdu],
    content: ContentRepository,
    version: Callable[[], str],
    provides_alias: Callable[[str], Awaitable[bool]] = provides_none,
    patience: float = PATIENCE_SECONDS,
) -> list[Route]:
    """The server-server API, going on with what was received and not yet taken in.

    ``patience`` is as ``Transactions`` has it, ``provides_alias`` as ``Queries``;
    ``lists_rooms``: others see the published rooms.
    """
    shared = federation.rooms
    replies = StateReplies(core.db, core.states)
    visible = VisibleEvents(states=core.states, events=core.events, keys=core.keys, retention=core.retention)
    return routes(
        keys=federation.key_routes,
        transactions=await _transactions(core, shared, edu_receivers, patience),
        events=Events(
            db=core.db,
            rooms=core.rooms,
            events=core.events,
            replies=replies,
            visible=visible,
            clock=core.clock,
            server_name=core.server_name,
        ),
        joins=_joins(core, shared, replies),
        invites=InviteEndpoints(
            rooms=core.rooms,
            inbound=shared.inbound,
            invites=shared.invites,
            is_local_user=is_local_user,
            server_name=core.server_name,
            signing_key=core.signing_key,
        ),
        queries=Queries(
            db=core.db,
            rooms=core.rooms,
            profiles=profiles,
            server_name=core.server_name,
            version=version,
            provides_alias=provides_alias,
        ),
        media=MediaRoutes(media=content.media, thumbnails=content.thumbnails, server_name=core.server_name),
        third_party_invites=ThirdPartyInviteEndpoints(
            invites=_third_party_invites(core, federation, membership, is_key_valid),
            is_local_user=is_local_user,
            background=core.background,
        ),
        finding=FindingEndpoints(
            rooms=core.rooms,
            published=finding.published,
            hierarchy=finding.hierarchy,
            moments=finding.moments,
            visible=visible,
            lists_rooms=lists_rooms,
        ),
        openid=OpenIdEndpoint(openid),
        device_keys=DeviceKeyEndpoints(
            lists=encryption.lists,
            queries=encryption.queries,
            claims=encryption.claims,
            server_name=core.server_name,
        ),
    )


def _third_party_invites(
    core: Core, federation: Federation, membership: Membership, is_key_valid: KeyValidity
) -> ThirdPartyInvites:
    return ThirdPartyInvites(
        rooms=core.rooms,
        membership=membership,
        remote=federation.client,
        is_valid=is_key_valid,
        server_name=core.server_name,
    )


def _joins(core: Core, shared: SharedRooms, replies: StateReplies) -> Joins:
    return Joins(
        rooms=core.rooms,
        send=core.send,
        inbound=shared.inbound,
        dummy_events=shared.dummy_events,
        states=core.states,
        restricted=RestrictedJoin(core.db, core.states, core.server_name),
        replies=replies,
        server_name=core.server_name,
        signing_key=core.signing_key,
    )


async def _transactions(
    core: Core, shared: SharedRooms, edu_receivers: Mapping[str, ReceiveEdu], patience: float
) -> Transactions:
    transactions = Transactions(
        db=core.db,
        rooms=core.rooms,
        inbound=shared.inbound,
        invites=shared.invites,
        edu_receivers=edu_receivers,
        background=core.background,
        clock=core.clock,
        patience=patience,
    )
    await transactions.start()
    return transactions


def _addresses(settings: Settings) -> AddressPolicy:
    denied = () if settings.allow_private_addresses else DENIED_BY_DEFAULT
    return address_policy(
        denied=(*denied, *map(str, settings.denied_addresses)),
        allowed=map(str, settings.allowed_addresses),
    )


def _outbound_tls(settings: Settings) -> ssl.SSLContext:
    return tls_context(settings.ca_file, verifies=settings.verify_certificates)
