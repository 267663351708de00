"""The client-server API, wired: each module is given the parts of the server it uses."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from client_api.account_data import AccountDataApi
from client_api.accounts import AccountApi
from client_api.administration import AdministrationApi
from client_api.apis import ClientApi
from client_api.appservices import AppServicesApi
from client_api.calls import CallsApi
from client_api.dehydration import DehydratedDeviceApi
from client_api.delayed_events import DelayedEventsApi
from client_api.devices import DeviceApi
from client_api.directory import DirectoryApi
from client_api.discovery import DiscoveryApi
from client_api.ephemeral import EphemeralApi
from client_api.etag_rendezvous import EtagRendezvousApi
from client_api.event_streams import EventStreamsApi
from client_api.fallback import FallbackApi
from client_api.filters import FilterApi
from client_api.key_backup import KeyBackupApi
from client_api.keys import KeysApi
from client_api.live.event_source import EventSourceApi
from client_api.live.streaming import Streaming
from client_api.live.web_socket import WebSocketApi
from client_api.media import MediaApi
from client_api.membership import MembershipApi
from client_api.messages import MessagesApi
from client_api.moments import MomentsApi
from client_api.mutual_rooms import MutualRoomsApi
from client_api.openid import OpenIdApi
from client_api.previews import PreviewsApi
from client_api.profile import ProfileApi
from client_api.public_rooms import PublicRoomsApi
from client_api.push_rules import PushRulesApi
from client_api.pushers import PushersApi
from client_api.relations import RelationsApi
from client_api.rendezvous import RendezvousApi
from client_api.reports import ReportsApi
from client_api.rooms import RoomsApi
from client_api.search import SearchApi
from client_api.send import SendApi
from client_api.sessions import SessionApi
from client_api.shared_secret import SharedSecretApi
from client_api.sliding_sync import SlidingSyncApi
from client_api.spaces import SpacesApi
from client_api.sso import SsoApi
from client_api.sync import SyncApi, SyncParameters
from client_api.third_party import ThirdPartyApi
from client_api.third_party_ids import ThirdPartyIdApi
from client_api.threads import ThreadsApi
from client_api.to_device import ToDeviceApi
from client_api.unsubscribing import UnsubscribingApi
from client_api.user_directory import UserDirectoryApi
from homeserver.application_services import ApplicationServices
from homeserver.appservices.services import AppServices
from homeserver.calls import Calls, wire_calls
from homeserver.config.login import Login
from homeserver.config.rendezvous import Rendezvous
from homeserver.config.surroundings import Support, Turn
from homeserver.contacts import Contacts, wire_contacts
from homeserver.content_repository import ContentRepository
from homeserver.core import Core
from homeserver.e2e.dehydration import DehydratedDevices
from homeserver.encryption import Encryption
from homeserver.ephemeral import Ephemeral
from homeserver.finding import Finding
from homeserver.live import LiveStreams
from homeserver.origins import Origins
from homeserver.people import People
from homeserver.previews.url_previews import UrlPreviews
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION
from homeserver.push.pushers import Pushers
from homeserver.push.unsubscribing import Unsubscribing
from homeserver.reading import Reading
from homeserver.room_actions import RoomActions
from homeserver.rooms.redacted_content import RedactedContent
from homeserver.rooms.transactions import Transactions
from homeserver.searching import Searching
from homeserver.single_sign_on import base_url_of
from homeserver.sliding import wire_sliding
from homeserver.sliding_extensions import wire_extensions
from homeserver.sso.sign_on import SingleSignOn
from homeserver.sync.thread_updates import ThreadUpdateWriter
from homeserver.third_party_identifiers import ThirdPartyIdentifiers
from homeserver.users.confirmation import SSO
from homeserver.users.rendezvous import RendezvousSessions
from homeserver.users.shared_secret import SharedSecret
from homeserver.users.third_party_ids import ThirdPartyIds


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the configuration says of it.

    Clients are told the base URL and the room version; who knows ``registration_secret`` may register.
    ``ways`` are those to log in, beside single sign-on.
    """

    public_base_url: str | None = None
    default_room_version: str = DEFAULT_ROOM_VERSION.id
    registration_secret: str | None = None
    forgets_on_leave: bool = False
    ways: Login = msgspec.field(default_factory=Login)
    support: Support | None = None
    turn: Turn = msgspec.field(default_factory=Turn)
    rendezvous: Rendezvous = msgspec.field(default_factory=Rendezvous)
    live: LiveStreams = msgspec.field(default_factory=LiveStreams)
    origins: Origins = msgspec.field(default_factory=Origins)


def wire_client_api(
    core: Core,
    people: People,
    actions: RoomActions,
    ephemeral: Ephemeral,
    reading: Reading,
    *,
    encryption: Encryption,
    content: ContentRepository,
    finding: Finding,
    application_services: ApplicationServices,
    pushers: Pushers,
    settings: Settings | None = None,
    unsubscribing: Unsubscribing | None = None,
    sign_on: SingleSignOn | None = None,
    identifiers: ThirdPartyIdentifiers | None = None,
    contacts: Contacts | None = None,
    calls: Calls | None = None,
    previews: UrlPreviews | None = None,
    searching: Searching | None = None,
) -> ClientApi:
    """The modules that answer clients.

    Without ``identifiers`` nobody can add an address, without ``searching`` search messages.
    """
    settings = settings or Settings()
    identifiers = identifiers or ThirdPartyIdentifiers(ids=ThirdPartyIds(core.db, core.clock))
    contacts = contacts or wire_contacts(core, people, actions, reading)
    calls = calls or wire_calls(core, actions, reading)
    transactions = Transactions(core.db, core.clock, core.transactions)
    delayed = DelayedEventsApi(calls.delayed, transactions)
    services = application_services.services
    parameters = SyncParameters(core.db)
    streaming = Streaming(parameters, reading.follow, settings.live, settings.origins)
    sso = SsoApi(sign_on, base_url_of(settings.public_base_url, core.server_name))
    return ClientApi(
        discovery=_discovery(
            _optional_features(core, people, settings), settings, identifiers, contacts, calls
        ),
        accounts=_accounts(people, actions, identifiers),
        shared_secret=_shared_secret(core, people, settings),
        sessions=_sessions(people, settings, sign_on),
        administration=_administration(core, people),
        calls=CallsApi(settings.turn, core.clock, calls.rtc_transports),
        sso=sso,
        devices=DeviceApi(people.sessions, people.confirmation, people.last_seen),
        profile=ProfileApi(people.profiles, contacts.profile_access),
        account_data=AccountDataApi(people.account_data, people.push_rules),
        filters=FilterApi(core.db),
        push_rules=PushRulesApi(people.push_rules),
        pushers=PushersApi(pushers, reading.notifications),
        unsubscribing=UnsubscribingApi(unsubscribing),
        sync=SyncApi(parameters, reading.sync),
        sliding_sync=_sliding_sync(core, people, ephemeral, reading, encryption),
        event_source=EventSourceApi(streaming),
        web_socket=WebSocketApi(streaming),
        rooms=_rooms(core, actions, services),
        directory=DirectoryApi(actions.directory, services),
        membership=MembershipApi(actions.membership, actions.directory, actions.address_invites),
        send=SendApi(calls.submit, transactions, delayed),
        delayed_events=delayed,
        messages=_messages(core, reading),
        ephemeral=EphemeralApi(ephemeral.typing, ephemeral.receipts, ephemeral.presence),
        to_device=ToDeviceApi(ephemeral.to_device),
        keys=_keys(people, encryption, reading),
        key_backup=KeyBackupApi(encryption.backups),
        dehydrated=_dehydrated(core, ephemeral, encryption),
        media=_media(content),
        previews=PreviewsApi(previews),
        public_rooms=PublicRoomsApi(finding.published, core.server_name),
        spaces=SpacesApi(finding.hierarchy, actions.directory),
        moments=MomentsApi(finding.moments),
        openid=OpenIdApi(people.openid, core.server_name),
        appservices=_appservices(people, application_services),
        third_party=ThirdPartyApi(application_services.third_party),
        event_streams=_event_streams(core, reading),
        third_party_ids=_third_party_ids(people, identifiers),
        fallback=_fallback(people, identifiers, sso if sign_on else None),
        relations=RelationsApi(reading.relations, reading.history, reading.client_events),
        threads=_threads(core, reading),
        user_directory=UserDirectoryApi(contacts.directory),
        mutual_rooms=MutualRoomsApi(core.db),
        reports=ReportsApi(contacts.reports),
        search=_search(core, reading, searching),
        rendezvous=RendezvousApi(settings.rendezvous, _sessions_of(core, settings.rendezvous)),
        etag_rendezvous=_etag_rendezvous(core, settings),
    )


def _sessions_of(core: Core, settings: Rendezvous) -> RendezvousSessions:
    return RendezvousSessions(core.clock, lifetime=settings.lifetime)


def _etag_rendezvous(core: Core, settings: Settings) -> EtagRendezvousApi:
    base_url = base_url_of(settings.public_base_url, core.server_name)
    rendezvous = settings.rendezvous
    return EtagRendezvousApi(rendezvous, _sessions_of(core, rendezvous), base_url)


def _discovery(
    features: Mapping[str, bool],
    settings: Settings,
    identifiers: ThirdPartyIdentifiers,
    contacts: Contacts,
    calls: Calls,
) -> DiscoveryApi:
    return DiscoveryApi(
        default_room_version=settings.default_room_version,
        public_base_url=settings.public_base_url,
        unstable_features=features,
        login_tokens=settings.ways.token_login,
        support=settings.support,
        identity_server=identifiers.recommended,
        takes_addresses=identifiers.validation is not None,
        forgets_on_leave=settings.forgets_on_leave,
        profile_settings=contacts.settings.profiles,
        delayed_events=calls.delayed,
        rtc_transports=calls.rtc_transports,
    )


def _optional_features(core: Core, people: People, settings: Settings) -> dict[str, bool]:
    """What is served before it is specified, as far as the configuration says so.

    Clients that know MSC4108 create sessions without an access token.
    """
    rendezvous = settings.rendezvous
    return {
        "fi.mau.msc2815": core.keep_redacted_ms > 0,
        "io.element.msc4388": rendezvous.enabled,
        "org.matrix.msc4306": people.push_rules.thread_subscriptions,
        "org.matrix.msc4108": rendezvous.enabled and rendezvous.public,
    }


def _accounts(people: People, actions: RoomActions, identifiers: ThirdPartyIdentifiers) -> AccountApi:
    return AccountApi(
        people.accounts,
        people.sessions,
        people.registration,
        people.interactive_auth,
        actions.membership,
        guests=people.guests,
        confirmation=people.confirmation,
        ids=identifiers.ids,
        validation=identifiers.validation,
        bindings=identifiers.bindings,
    )


def _shared_secret(core: Core, people: People, settings: Settings) -> SharedSecretApi:
    secret = SharedSecret(settings.registration_secret, core.clock)
    return SharedSecretApi(secret, people.accounts, people.sessions, people.profiles)


def _sessions(people: People, settings: Settings, sign_on: SingleSignOn | None) -> SessionApi:
    return SessionApi(
        people.accounts,
        people.sessions,
        settings.public_base_url,
        ways=settings.ways,
        login_tokens=people.login_tokens,
        confirmation=people.confirmation,
        identity_providers=sign_on.providers() if sign_on else (),
    )


def _administration(core: Core, people: People) -> AdministrationApi:
    return AdministrationApi(people.moderation, people.accounts, people.last_seen, core.server_name)


def _rooms(core: Core, actions: RoomActions, services: AppServices) -> RoomsApi:
    return RoomsApi(
        actions.create,
        actions.upgrade,
        actions.membership,
        actions.directory,
        services=services,
        server_name=core.server_name,
    )


def _sliding_sync(
    core: Core, people: People, ephemeral: Ephemeral, reading: Reading, encryption: Encryption
) -> SlidingSyncApi:
    extensions = wire_extensions(core, ephemeral, reading, people, encryption)
    return SlidingSyncApi(wire_sliding(core, ephemeral, reading, extensions))


def _threads(core: Core, reading: Reading) -> ThreadsApi:
    return ThreadsApi(
        reading.thread_subscriptions,
        reading.updated_threads,
        ThreadUpdateWriter(reading.client_events),
        reading.memberships,
        core.notifier,
    )


def _messages(core: Core, reading: Reading) -> MessagesApi:
    redacted = RedactedContent(core.db, core.states, core.clock, core.keep_redacted_ms)
    return MessagesApi(reading.history, reading.client_events, reading.ignored, redacted)


def _event_streams(core: Core, reading: Reading) -> EventStreamsApi:
    return EventStreamsApi(
        stream=reading.event_stream,
        initial=reading.initial_sync,
        events=core.events,
        history=reading.history,
        client_events=reading.client_events,
    )


def _keys(people: People, encryption: Encryption, reading: Reading) -> KeysApi:
    return KeysApi(
        uploads=encryption.uploads,
        queries=encryption.queries,
        claims=encryption.claims,
        cross_signing=encryption.cross_signing,
        confirmation=people.confirmation,
        sync=reading.sync,
    )


def _dehydrated(core: Core, ephemeral: Ephemeral, encryption: Encryption) -> DehydratedDeviceApi:
    return DehydratedDeviceApi(
        DehydratedDevices(
            db=core.db,
            clock=core.clock,
            uploads=encryption.uploads,
            observers=(ephemeral.to_device, encryption.lists),
            position=lambda: core.notifier.position,
        )
    )


def _media(content: ContentRepository) -> MediaApi:
    return MediaApi(
        uploads=content.uploads,
        media=content.media,
        thumbnails=content.thumbnails,
        max_upload_bytes=content.settings.max_upload_bytes,
    )


def _appservices(people: People, services: ApplicationServices) -> AppServicesApi:
    return AppServicesApi(
        services=services.services,
        accounts=services.accounts,
        sessions=people.sessions,
        client=services.client,
        networks=services.networks,
        traffic=services.traffic,
    )


def _fallback(people: People, identifiers: ThirdPartyIdentifiers, sso: SsoApi | None) -> FallbackApi:
    fallback = FallbackApi(people.interactive_auth, captcha_script=identifiers.captcha_script)
    if sso is not None:
        fallback.elsewhere[SSO] = sso.fallback
    return fallback


def _third_party_ids(people: People, identifiers: ThirdPartyIdentifiers) -> ThirdPartyIdApi:
    return ThirdPartyIdApi(
        identifiers.ids,
        people.confirmation,
        people.registration,
        validation=identifiers.validation,
        bindings=identifiers.bindings,
    )


def _search(core: Core, reading: Reading, searching: Searching | None) -> SearchApi:
    return SearchApi(
        None if searching is None else searching.search,
        None if searching is None else searching.contexts,
        reading.history,
        core.states,
        reading.client_events,
    )
