"""The client-server API, wired: each module is given the parts of the server it uses."""

from __future__ import annotations

from client_api.account_data import AccountDataApi
from client_api.accounts import AccountApi
from client_api.administration import AdministrationApi
from client_api.appservices import AppServicesApi
from client_api.calls import CallsApi
from client_api.dehydration import DehydratedDeviceApi
from client_api.devices import DeviceApi
from client_api.directory import DirectoryApi
from client_api.discovery import DiscoveryApi
from client_api.ephemeral import EphemeralApi
from client_api.event_streams import EventStreamsApi
from client_api.fallback import FallbackApi
from client_api.filters import FilterApi
from client_api.key_backup import KeyBackupApi
from client_api.keys import KeysApi
from client_api.media import MediaApi
from client_api.membership import MembershipApi
from client_api.messages import MessagesApi
from client_api.moments import MomentsApi
from client_api.mutual_rooms import MutualRoomsApi
from client_api.openid import OpenIdApi
from client_api.profile import ProfileApi
from client_api.public_rooms import PublicRoomsApi
from client_api.push_rules import PushRulesApi
from client_api.pushers import PushersApi
from client_api.relations import RelationsApi
from client_api.reports import ReportsApi
from client_api.rooms import RoomsApi
from client_api.routes import ClientApi
from client_api.send import SendApi
from client_api.sessions import SessionApi
from client_api.shared_secret import SharedSecretApi
from client_api.spaces import SpacesApi
from client_api.sso import SsoApi
from client_api.sync import SyncApi
from client_api.third_party import ThirdPartyApi
from client_api.third_party_ids import ThirdPartyIdApi
from client_api.to_device import ToDeviceApi
from client_api.unsubscribing import UnsubscribingApi
from client_api.user_directory import UserDirectoryApi
from homeserver.application_services import ApplicationServices
from homeserver.config.login import Login
from homeserver.config.surroundings import Support, Turn
from homeserver.contact import Contact
from homeserver.contacts import Contacts, wire_contacts
from homeserver.content_repository import ContentRepository
from homeserver.core import Core
from homeserver.e2e.dehydration import DehydratedDevices
from homeserver.encryption import Encryption
from homeserver.ephemeral import Ephemeral
from homeserver.finding import Finding
from homeserver.people import People
from homeserver.protocol.room_versions import DEFAULT_ROOM_VERSION
from homeserver.push.pushers import Pushers
from homeserver.push.unsubscribing import Unsubscribing
from homeserver.reading import Reading
from homeserver.room_actions import RoomActions
from homeserver.rooms.redaction import RedactionRights
from homeserver.rooms.related_sends import RelatedSends
from homeserver.rooms.transactions import Transactions
from homeserver.single_sign_on import base_url_of
from homeserver.sso.sign_on import SingleSignOn
from homeserver.users.confirmation import SSO
from homeserver.users.shared_secret import SharedSecret
from homeserver.users.third_party_ids import ThirdPartyIds


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
    unsubscribing: Unsubscribing | None = None,
    public_base_url: str | None,
    default_room_version: str = DEFAULT_ROOM_VERSION.id,
    registration_secret: str | None = None,
    forgets_on_leave: bool = False,
    ways: Login | None = None,
    support: Support | None = None,
    turn: Turn | None = None,
    sign_on: SingleSignOn | None = None,
    contact: Contact | None = None,
    contacts: Contacts | None = None,
) -> ClientApi:
    """The modules that answer clients.

    Clients are told the base URL and the room version; who knows ``registration_secret`` may register.
    ``ways`` are those to log in, beside those that ``sign_on`` has.  Without ``contact`` nobody can add an
    address.
    """
    ways, contact = ways or Login(), contact or Contact(ids=ThirdPartyIds(core.db, core.clock))
    sso = SsoApi(sign_on, base_url_of(public_base_url, core.server_name))
    fallback = FallbackApi(people.interactive_auth, captcha_script=contact.captcha_script)
    if sign_on is not None:
        fallback.elsewhere[SSO] = sso.fallback
    contacts = contacts or wire_contacts(core, people, actions, reading)
    return ClientApi(
        discovery=DiscoveryApi(
            default_room_version=default_room_version,
            public_base_url=public_base_url,
            login_tokens=ways.token_login,
            support=support,
            identity_server=contact.recommended,
            takes_addresses=contact.validation is not None,
            forgets_on_leave=forgets_on_leave,
            profile_settings=contacts.settings.profiles,
        ),
        accounts=_accounts(people, actions, contact),
        shared_secret=SharedSecretApi(
            SharedSecret(registration_secret, core.clock), people.accounts, people.sessions, people.profiles
        ),
        sessions=_sessions(people, public_base_url, ways, sign_on),
        administration=AdministrationApi(
            people.moderation, people.accounts, people.last_seen, core.server_name
        ),
        calls=CallsApi(turn or Turn(), core.clock),
        sso=sso,
        devices=DeviceApi(people.sessions, people.confirmation, people.last_seen),
        profile=ProfileApi(people.profiles, contacts.profile_access),
        account_data=AccountDataApi(people.account_data, people.push_rules),
        filters=FilterApi(core.db),
        push_rules=PushRulesApi(people.push_rules),
        pushers=PushersApi(pushers, reading.notifications),
        unsubscribing=UnsubscribingApi(unsubscribing),
        sync=SyncApi(core.db, reading.sync),
        rooms=RoomsApi(
            actions.create,
            actions.upgrade,
            actions.membership,
            actions.directory,
            services=application_services.services,
            server_name=core.server_name,
        ),
        directory=DirectoryApi(actions.directory, application_services.services),
        membership=MembershipApi(actions.membership, actions.directory, actions.address_invites),
        send=SendApi(
            send=core.send,
            membership=actions.membership,
            directory=actions.directory,
            redaction_rights=RedactionRights(core.rooms, core.events, core.states, core.server_name),
            transactions=Transactions(core.db, core.clock),
            related=RelatedSends(core.db, core.events),
        ),
        messages=MessagesApi(reading.history, reading.client_events, reading.ignored),
        ephemeral=EphemeralApi(ephemeral.typing, ephemeral.receipts, ephemeral.presence),
        to_device=ToDeviceApi(ephemeral.to_device),
        keys=KeysApi(
            uploads=encryption.uploads,
            queries=encryption.queries,
            claims=encryption.claims,
            cross_signing=encryption.cross_signing,
            confirmation=people.confirmation,
            sync=reading.sync,
        ),
        key_backup=KeyBackupApi(encryption.backups),
        dehydrated=DehydratedDeviceApi(
            DehydratedDevices(
                db=core.db,
                clock=core.clock,
                uploads=encryption.uploads,
                observers=(ephemeral.to_device, encryption.lists),
                position=lambda: core.notifier.position,
            )
        ),
        media=MediaApi(
            uploads=content.uploads,
            media=content.media,
            thumbnails=content.thumbnails,
            max_upload_bytes=content.settings.max_upload_bytes,
        ),
        public_rooms=PublicRoomsApi(finding.published, core.server_name),
        spaces=SpacesApi(finding.hierarchy, actions.directory),
        moments=MomentsApi(finding.moments),
        openid=OpenIdApi(people.openid, core.server_name),
        appservices=AppServicesApi(
            services=application_services.services,
            accounts=application_services.accounts,
            sessions=people.sessions,
            client=application_services.client,
            networks=application_services.networks,
            traffic=application_services.traffic,
        ),
        third_party=ThirdPartyApi(application_services.third_party),
        event_streams=EventStreamsApi(
            stream=reading.event_stream,
            initial=reading.initial_sync,
            events=core.events,
            history=reading.history,
            client_events=reading.client_events,
        ),
        third_party_ids=_third_party_ids(people, contact),
        fallback=fallback,
        relations=RelationsApi(reading.relations, reading.history, reading.client_events),
        user_directory=UserDirectoryApi(contacts.directory),
        mutual_rooms=MutualRoomsApi(core.db),
        reports=ReportsApi(contacts.reports),
    )


def _accounts(people: People, actions: RoomActions, contact: Contact) -> AccountApi:
    return AccountApi(
        people.accounts,
        people.sessions,
        people.registration,
        people.interactive_auth,
        actions.membership,
        guests=people.guests,
        confirmation=people.confirmation,
        ids=contact.ids,
        validation=contact.validation,
        bindings=contact.bindings,
    )


def _sessions(
    people: People, public_base_url: str | None, ways: Login, sign_on: SingleSignOn | None
) -> SessionApi:
    return SessionApi(
        people.accounts,
        people.sessions,
        public_base_url,
        ways=ways,
        login_tokens=people.login_tokens,
        confirmation=people.confirmation,
        identity_providers=sign_on.providers() if sign_on else (),
    )


def _third_party_ids(people: People, contact: Contact) -> ThirdPartyIdApi:
    return ThirdPartyIdApi(
        contact.ids,
        people.interactive_auth,
        people.registration,
        validation=contact.validation,
        bindings=contact.bindings,
    )
