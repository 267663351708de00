"""The parts of the client-server API, each of which answers what one topic asks."""

from __future__ import annotations

import msgspec

from client_api.account_data import AccountDataApi
from client_api.accounts import AccountApi
from client_api.administration import AdministrationApi
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
from client_api.sync import SyncApi
from client_api.third_party import ThirdPartyApi
from client_api.third_party_ids import ThirdPartyIdApi
from client_api.threads import ThreadsApi
from client_api.to_device import ToDeviceApi
from client_api.unsubscribing import UnsubscribingApi
from client_api.user_directory import UserDirectoryApi


class ClientApi(msgspec.Struct, frozen=True, kw_only=True):
    """The modules that answer clients."""

    discovery: DiscoveryApi
    accounts: AccountApi
    shared_secret: SharedSecretApi
    sessions: SessionApi
    devices: DeviceApi
    profile: ProfileApi
    account_data: AccountDataApi
    filters: FilterApi
    push_rules: PushRulesApi
    pushers: PushersApi
    unsubscribing: UnsubscribingApi
    sync: SyncApi
    sliding_sync: SlidingSyncApi
    event_source: EventSourceApi
    web_socket: WebSocketApi
    rooms: RoomsApi
    directory: DirectoryApi
    membership: MembershipApi
    send: SendApi
    messages: MessagesApi
    ephemeral: EphemeralApi
    to_device: ToDeviceApi
    keys: KeysApi
    key_backup: KeyBackupApi
    dehydrated: DehydratedDeviceApi
    media: MediaApi
    previews: PreviewsApi
    public_rooms: PublicRoomsApi
    spaces: SpacesApi
    moments: MomentsApi
    openid: OpenIdApi
    appservices: AppServicesApi
    third_party: ThirdPartyApi
    event_streams: EventStreamsApi
    administration: AdministrationApi
    calls: CallsApi
    sso: SsoApi
    third_party_ids: ThirdPartyIdApi
    fallback: FallbackApi
    relations: RelationsApi
    threads: ThreadsApi
    user_directory: UserDirectoryApi
    mutual_rooms: MutualRoomsApi
    reports: ReportsApi
    search: SearchApi
    delayed_events: DelayedEventsApi
    rendezvous: RendezvousApi
    etag_rendezvous: EtagRendezvousApi
