"""The client-server API as a table, in the specification's order of paths.

Each row: method, path as the specification writes it, handler, who may call, rate limit.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from client_api.guests import open_to_guests
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
from client_api.proposed_routes import account_data_deletion_rows, rendezvous_rows
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
from homeserver.push.unsubscribing import PATH as UNSUBSCRIBE
from homeserver.users.address_validation import LINK_PATH
from homeserver.web import Access, Route

_PUBLIC, _MAYBE = Access.PUBLIC, Access.USER_OR_NOBODY
_BY_SECRET = "/_synapse/admin/v1/register"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientApi:
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


def client_routes(api: ClientApi) -> list[Route]:
    """Every row."""
    rows = [
        *_account_rows(api),
        *_login_rows(api),
        *_address_rows(api),
        *_user_rows(api),
        *_key_backup_rows(api.key_backup),
        *_dehydrated_device_rows(api.dehydrated),
        *_room_rows(api),
        *_event_stream_rows(api),
        *_relation_rows(api),
        *_thread_rows(api.threads),
        *_pusher_rows(api),
        *media_rows(api.media),
        *preview_rows(api.previews),
        *_appservice_rows(api),
        *_contact_rows(api),
        *_search_rows(api.search),
        *account_data_deletion_rows(api.account_data),
        *rendezvous_rows(api.rendezvous, api.etag_rendezvous),
        *_sliding_sync_rows(api.sliding_sync),
        *_live_rows(api.event_source, api.web_socket),
        *_call_rows(api.calls, api.delayed_events),
    ]
    return open_to_guests(rows)


def _account_rows(api: ClientApi) -> list[Route]:
    accounts, sessions, devices, discovery = api.accounts, api.sessions, api.devices, api.discovery
    return [
        Route("GET", "/.well-known/matrix/client", discovery.well_known, _PUBLIC),
        Route("GET", "/_matrix/client/versions", discovery.versions, _PUBLIC),
        Route("GET", "/_matrix/client/v3/capabilities", discovery.capabilities),
        Route("GET", "/_matrix/client/v3/login", sessions.login_flows, _PUBLIC),
        Route(
            "POST",
            "/_matrix/client/v3/login",
            api.appservices.logging_in(sessions.log_in),
            _PUBLIC,
            "login",
        ),
        Route("POST", "/_matrix/client/v3/logout", sessions.log_out, for_locked=True),
        Route("POST", "/_matrix/client/v3/logout/all", sessions.log_out_everywhere, for_locked=True),
        Route("POST", "/_matrix/client/v3/refresh", sessions.refresh, _PUBLIC, "login"),
        Route(
            "POST",
            "/_matrix/client/v3/register",
            api.appservices.registering(accounts.register),
            _PUBLIC,
            "registration",
        ),
        Route(
            "GET",
            "/_matrix/client/v3/register/available",
            accounts.username_available,
            _PUBLIC,
            "registration",
        ),
        Route(
            "GET",
            "/_matrix/client/v1/register/m.login.registration_token/validity",
            accounts.registration_token_validity,
            _PUBLIC,
            "registration",
        ),
        Route("GET", _BY_SECRET, api.shared_secret.nonce, _PUBLIC, "registration"),
        Route("POST", _BY_SECRET, api.shared_secret.register, _PUBLIC, "registration"),
        Route("GET", "/_matrix/client/v3/account/whoami", accounts.whoami),
        Route("POST", "/_matrix/client/v3/account/password", accounts.change_password, _MAYBE, "login"),
        Route("POST", "/_matrix/client/v3/account/deactivate", accounts.deactivate, _MAYBE, "login"),
        Route("GET", "/_matrix/client/v3/devices", devices.devices),
        Route("GET", "/_matrix/client/v3/devices/{deviceId}", devices.device),
        Route("PUT", "/_matrix/client/v3/devices/{deviceId}", devices.rename_device),
        Route("DELETE", "/_matrix/client/v3/devices/{deviceId}", devices.delete_device),
        Route("POST", "/_matrix/client/v3/delete_devices", devices.delete_devices),
    ]


def _login_rows(api: ClientApi) -> list[Route]:
    """Other ways to log in, administrators, and what clients find out about the server's surroundings."""
    sso, administration, discovery = api.sso, api.administration, api.discovery
    redirect, lock = "/_matrix/client/v3/login/sso/redirect", "/_matrix/client/v1/admin/lock/{userId}"
    suspend = "/_matrix/client/v1/admin/suspend/{userId}"
    return [
        Route("POST", "/_matrix/client/v1/login/get_token", api.sessions.login_token, limit="login"),
        Route("GET", redirect, sso.redirect, _PUBLIC, "login"),
        Route("GET", f"{redirect}/{{idpId}}", sso.redirect_to, _PUBLIC, "login"),
        Route("GET", "/_inglenook/sso/oidc/callback", sso.come_back, _PUBLIC, "login"),
        Route("POST", "/_inglenook/sso/confirm", sso.confirm, _PUBLIC, max_body=65_536),
        Route("GET", "/_matrix/client/v1/auth_metadata", discovery.auth_metadata, _PUBLIC),
        Route("GET", "/.well-known/matrix/support", discovery.support, _PUBLIC),
        Route("GET", "/_matrix/client/v3/voip/turnServer", api.calls.turn_server),
        Route("GET", "/_matrix/client/v3/admin/whois/{userId}", administration.whois),
        Route("GET", lock, administration.lock),
        Route("PUT", lock, administration.set_lock),
        Route("GET", suspend, administration.suspension),
        Route("PUT", suspend, administration.set_suspension),
    ]


def _address_rows(api: ClientApi) -> list[Route]:
    ids, limit, v3 = api.third_party_ids, "email", "/_matrix/client/v3"
    fallback = f"{v3}/auth/{{authType}}/fallback/web"
    return [
        Route("GET", fallback, api.fallback.show, _PUBLIC),
        Route("POST", fallback, api.fallback.submit, _PUBLIC, "registration"),
        Route("GET", LINK_PATH, ids.show_link, _PUBLIC),
        Route("POST", LINK_PATH, ids.follow_link, _PUBLIC),
        Route("POST", f"{v3}/register/email/requestToken", ids.request_to_register, _PUBLIC, limit),
        Route("POST", f"{v3}/register/msisdn/requestToken", ids.refuse_number, _PUBLIC),
        Route("POST", f"{v3}/account/password/email/requestToken", ids.request_to_reset, _PUBLIC, limit),
        Route("POST", f"{v3}/account/password/msisdn/requestToken", ids.refuse_number, _PUBLIC),
        Route("GET", f"{v3}/account/3pid", ids.addresses),
        Route("POST", f"{v3}/account/3pid", ids.add_as_before),
        Route("POST", f"{v3}/account/3pid/add", ids.add),
        Route("POST", f"{v3}/account/3pid/bind", ids.bind),
        Route("POST", f"{v3}/account/3pid/delete", ids.delete, for_suspended=False),
        Route("POST", f"{v3}/account/3pid/unbind", ids.unbind),
        Route("POST", f"{v3}/account/3pid/email/requestToken", ids.request_to_add, _PUBLIC, limit),
        Route("POST", f"{v3}/account/3pid/msisdn/requestToken", ids.refuse_number_to_add, _PUBLIC),
    ]


def _user_rows(api: ClientApi) -> list[Route]:
    data, rules, ephemeral, profile = api.account_data, api.push_rules, api.ephemeral, api.profile
    rule = "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}"
    return [
        Route("GET", "/_matrix/client/v3/profile/{userId}", profile.profile, _MAYBE),
        Route("GET", "/_matrix/client/v3/profile/{userId}/{keyName}", profile.field, _MAYBE),
        Route(
            "PUT",
            "/_matrix/client/v3/profile/{userId}/{keyName}",
            profile.set_field,
            limit="message",
            for_suspended=False,
        ),
        Route(
            "DELETE",
            "/_matrix/client/v3/profile/{userId}/{keyName}",
            profile.remove_field,
            limit="message",
            for_suspended=False,
        ),
        Route("GET", "/_matrix/client/v3/presence/{userId}/status", ephemeral.presence),
        Route(
            "PUT", "/_matrix/client/v3/presence/{userId}/status", ephemeral.set_presence, for_suspended=False
        ),
        Route("GET", "/_matrix/client/v3/user/{userId}/account_data/{type}", data.content),
        Route("PUT", "/_matrix/client/v3/user/{userId}/account_data/{type}", data.set_content),
        Route("GET", "/_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}", data.content),
        Route("PUT", "/_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}", data.set_content),
        Route("GET", "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags", data.tags),
        Route("PUT", "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}", data.set_tag),
        Route("DELETE", "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}", data.remove_tag),
        Route("POST", "/_matrix/client/v3/user/{userId}/openid/request_token", api.openid.request_token),
        Route("POST", "/_matrix/client/v3/user/{userId}/filter", api.filters.define),
        Route("GET", "/_matrix/client/v3/user/{userId}/filter/{filterId}", api.filters.definition),
        Route("GET", "/_matrix/client/v3/pushrules/", rules.all_rulesets),
        Route("GET", "/_matrix/client/v3/pushrules/global/", rules.global_ruleset),
        Route("GET", rule, rules.rule),
        Route("PUT", rule, rules.put_rule),
        Route("DELETE", rule, rules.delete_rule),
        Route("GET", f"{rule}/enabled", rules.enabled),
        Route("PUT", f"{rule}/enabled", rules.set_enabled),
        Route("GET", f"{rule}/actions", rules.actions),
        Route("PUT", f"{rule}/actions", rules.set_actions),
        Route(
            "PUT", "/_matrix/client/v3/sendToDevice/{eventType}/{txnId}", api.to_device.send, limit="message"
        ),
        Route("POST", "/_matrix/client/v3/keys/upload", api.keys.upload),
        Route("POST", "/_matrix/client/v3/keys/query", api.keys.query),
        Route("POST", "/_matrix/client/v3/keys/claim", api.keys.claim),
        Route("GET", "/_matrix/client/v3/keys/changes", api.keys.changes),
        Route("POST", "/_matrix/client/v3/keys/device_signing/upload", api.keys.upload_signing_keys),
        Route("POST", "/_matrix/client/v3/keys/signatures/upload", api.keys.upload_signatures),
        Route("GET", "/_matrix/client/v3/sync", api.sync.sync),
    ]


def _sliding_sync_rows(sliding: SlidingSyncApi) -> list[Route]:
    return [
        Route("POST", "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", sliding.unstable),
        Route("POST", "/_matrix/client/v4/sync", sliding.stable),
    ]


def _key_backup_rows(backup: KeyBackupApi) -> list[Route]:
    versions, keys = "/_matrix/client/v3/room_keys/version", "/_matrix/client/v3/room_keys/keys"
    version, room, session = (
        f"{versions}/{{version}}",
        f"{keys}/{{roomId}}",
        f"{keys}/{{roomId}}/{{sessionId}}",
    )
    return [
        Route("POST", versions, backup.create),
        Route("GET", versions, backup.current),
        Route("GET", version, backup.backup),
        Route("PUT", version, backup.update),
        Route("DELETE", version, backup.delete),
        Route("PUT", keys, backup.add_all),
        Route("GET", keys, backup.all),
        Route("DELETE", keys, backup.remove),
        Route("PUT", room, backup.add_to_room),
        Route("GET", room, backup.of_room),
        Route("DELETE", room, backup.remove),
        Route("PUT", session, backup.add_session),
        Route("GET", session, backup.of_session),
        Route("DELETE", session, backup.remove),
    ]


def _dehydrated_device_rows(dehydrated: DehydratedDeviceApi) -> list[Route]:
    path = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
    return [
        Route("PUT", path, dehydrated.put),
        Route("GET", path, dehydrated.device),
        Route("DELETE", path, dehydrated.delete),
        Route("GET", f"{path}/{{device_id}}/events", dehydrated.events),
        Route("POST", f"{path}/{{device_id}}/events", dehydrated.events_as_before),
    ]


def _room_rows(api: ClientApi) -> list[Route]:
    membership, messages, send, directory = api.membership, api.messages, api.send, api.directory
    room = "/_matrix/client/v3/rooms/{roomId}"
    alias = "/_matrix/client/v3/directory/room/{roomAlias}"
    return [
        Route(
            "POST", "/_matrix/client/v3/createRoom", api.rooms.create_room, limit="join", for_suspended=False
        ),
        Route("GET", "/_matrix/client/v3/joined_rooms", api.rooms.joined_rooms),
        Route("GET", alias, directory.alias, _PUBLIC),
        Route("PUT", alias, directory.add_alias, for_suspended=False),
        Route("DELETE", alias, directory.remove_alias, for_suspended=False),
        Route("GET", "/_matrix/client/v3/directory/list/room/{roomId}", directory.visibility, _PUBLIC),
        Route(
            "PUT",
            "/_matrix/client/v3/directory/list/room/{roomId}",
            directory.set_visibility,
            for_suspended=False,
        ),
        Route("GET", "/_matrix/client/v3/publicRooms", api.public_rooms.list),
        Route("POST", "/_matrix/client/v3/publicRooms", api.public_rooms.search),
        Route("GET", "/_matrix/client/v1/room_summary/{roomIdOrAlias}", api.spaces.summary, _MAYBE),
        Route("GET", "/_matrix/client/v1/rooms/{roomId}/hierarchy", api.spaces.hierarchy),
        Route("GET", "/_matrix/client/v1/rooms/{roomId}/timestamp_to_event", api.moments.closest),
        Route(
            "POST",
            "/_matrix/client/v3/join/{roomIdOrAlias}",
            membership.join,
            limit="join",
            for_suspended=False,
        ),
        Route(
            "POST",
            "/_matrix/client/v3/knock/{roomIdOrAlias}",
            membership.knock,
            limit="join",
            for_suspended=False,
        ),
        Route("POST", f"{room}/join", membership.join_by_id, limit="join", for_suspended=False),
        Route("POST", f"{room}/leave", membership.leave),
        Route("POST", f"{room}/forget", membership.forget),
        Route("POST", f"{room}/invite", membership.invite, limit="invite", for_suspended=False),
        Route("POST", f"{room}/kick", membership.kick, for_suspended=False),
        Route("POST", f"{room}/ban", membership.ban, for_suspended=False),
        Route("POST", f"{room}/unban", membership.unban, for_suspended=False),
        Route("POST", f"{room}/upgrade", api.rooms.upgrade_room, limit="join", for_suspended=False),
        Route("GET", f"{room}/aliases", api.rooms.aliases),
        Route("GET", f"{room}/context/{{eventId}}", messages.context),
        Route("GET", f"{room}/event/{{eventId}}", messages.event),
        Route("GET", f"{room}/joined_members", messages.joined_members),
        Route("GET", f"{room}/members", messages.members),
        Route("GET", f"{room}/messages", messages.messages),
        Route("GET", f"{room}/state", messages.state),
        Route("GET", f"{room}/state/{{eventType}}", messages.state_event),
        Route("GET", f"{room}/state/{{eventType}}/{{stateKey}}", messages.state_event),
        Route("PUT", f"{room}/state/{{eventType}}", send.set_state, limit="message"),
        Route("PUT", f"{room}/state/{{eventType}}/{{stateKey}}", send.set_state, limit="message"),
        Route("PUT", f"{room}/send/{{eventType}}/{{txnId}}", send.send_message, limit="message"),
        Route("POST", f"{room}/send/{{eventType}}", send.send_message_anew, limit="message"),
        Route("PUT", f"{room}/redact/{{eventId}}/{{txnId}}", send.redact, limit="message"),
        Route("POST", f"{room}/read_markers", api.ephemeral.set_read_markers),
        Route("POST", f"{room}/receipt/{{receiptType}}/{{eventId}}", api.ephemeral.send_receipt),
        Route("PUT", f"{room}/typing/{{userId}}", api.ephemeral.set_typing),
    ]


def _event_stream_rows(api: ClientApi) -> list[Route]:
    streams = api.event_streams
    return [
        Route("GET", "/_matrix/client/v3/events", streams.events),
        Route("GET", "/_matrix/client/v3/events/{eventId}", streams.event),
        Route("GET", "/_matrix/client/v3/initialSync", streams.initial_sync),
        Route("GET", "/_matrix/client/v3/rooms/{roomId}/initialSync", streams.room_initial_sync),
    ]


def _relation_rows(api: ClientApi) -> list[Route]:
    room, relations = "/_matrix/client/v1/rooms/{roomId}", api.relations
    children = f"{room}/relations/{{eventId}}"
    return [
        Route("GET", children, relations.children),
        Route("GET", f"{children}/{{relType}}", relations.children),
        Route("GET", f"{children}/{{relType}}/{{eventType}}", relations.children),
        Route("GET", f"{room}/threads", relations.threads),
    ]


def _thread_rows(threads: ThreadsApi) -> list[Route]:
    unstable = "/_matrix/client/unstable"
    subscription = f"{unstable}/io.element.msc4306/rooms/{{roomId}}/thread/{{threadRootId}}/subscription"
    return [
        Route("GET", subscription, threads.subscription),
        Route("PUT", subscription, threads.subscribe),
        Route("DELETE", subscription, threads.unsubscribe),
        Route("GET", f"{unstable}/io.element.msc4308/thread_subscriptions", threads.changes),
        Route("GET", f"{unstable}/io.element.msc4360/thread_updates", threads.updates),
    ]


def _pusher_rows(api: ClientApi) -> list[Route]:
    pushers, unsubscribing = api.pushers, api.unsubscribing
    return [
        Route("GET", UNSUBSCRIBE, unsubscribing.show, _PUBLIC, "login"),
        Route("POST", UNSUBSCRIBE, unsubscribing.submit, _PUBLIC, "login"),
        Route("GET", "/_matrix/client/v3/notifications", pushers.notifications),
        Route("GET", "/_matrix/client/v3/pushers", pushers.pushers),
        Route("POST", "/_matrix/client/v3/pushers/set", pushers.set_pusher),
    ]


def _contact_rows(api: ClientApi) -> list[Route]:
    profile, reports = api.profile, api.reports
    unstable = "/_matrix/client/unstable"
    unstable_field = f"{unstable}/uk.tcpip.msc4133/profile/{{userId}}/{{keyName}}"
    mutual = f"{unstable}/uk.half-shot.msc2666/user/mutual_rooms"
    room = "/_matrix/client/v3/rooms/{roomId}/report"
    return [
        Route("POST", "/_matrix/client/v3/user_directory/search", api.user_directory.search, limit="message"),
        Route("GET", "/_matrix/client/v1/mutual_rooms", api.mutual_rooms.mutual_rooms),
        Route("GET", mutual, api.mutual_rooms.unstable),
        Route("POST", room, reports.room, limit="report"),
        Route("POST", f"{room}/{{eventId}}", reports.event, limit="report"),
        Route("POST", "/_matrix/client/v3/users/{userId}/report", reports.user, limit="report"),
        Route("GET", f"{unstable}/uk.tcpip.msc4133/profile/{{userId}}", profile.profile, _MAYBE),
        Route("GET", unstable_field, profile.field, _MAYBE),
        Route("PUT", unstable_field, profile.set_field, limit="message", for_suspended=False),
        Route("DELETE", unstable_field, profile.remove_field, limit="message", for_suspended=False),
    ]


def _live_rows(events: EventSourceApi, socket: WebSocketApi) -> list[Route]:
    unstable = "/_matrix/client/unstable"
    return [
        Route("GET", "/_matrix/client/v3/sync/sse", events.events, streams=True),
        Route("GET", f"{unstable}/org.matrix.msc2108/sync/sse", events.events, streams=True),
        Route("GET", "/_matrix/client/v3/stream", socket.stream, streams=True),
        Route("GET", f"{unstable}/stream", socket.stream, streams=True),
    ]


def _call_rows(calls: CallsApi, delayed: DelayedEventsApi) -> list[Route]:
    """What MatrixRTC is made of; by the unstable path, knowing a delay id is enough to manage the event."""
    v1, unstable = "/_matrix/client/v1", "/_matrix/client/unstable"
    before = f"{unstable}/org.matrix.msc4140"
    rows = [
        Route("GET", f"{v1}/rtc/transports", calls.rtc_transports),
        Route("GET", f"{unstable}/org.matrix.msc4143/rtc/transports", calls.rtc_transports),
        Route("POST", f"{before}/delayed_events/{{delayId}}", delayed.manage_as_before, _MAYBE, "message"),
    ]
    for prefix, events, access in (
        ("/_matrix/client/v3", f"{v1}/delayed_events", Access.USER),
        (before, f"{before}/delayed_events", _MAYBE),
    ):
        schedule = f"{prefix}/rooms/{{roomId}}/delayed_event/{{eventType}}/{{txnId}}"
        rows += [
            Route("PUT", schedule, delayed.schedule, limit="message"),
            Route("GET", events, delayed.all),
            Route("GET", f"{events}/{{delayId}}", delayed.one),
            Route("POST", f"{events}/{{delayId}}/{{action}}", delayed.manage, access, "message"),
        ]
    return rows


def media_rows(media: MediaApi) -> list[Route]:
    """The rows of the content repository; uploads are bounded, and streamed, by their rows."""
    v1, old, limit = "/_matrix/client/v1/media", "/_matrix/media/v3", "media"
    mxc = "{serverName}/{mediaId}"
    return [
        Route("GET", f"{v1}/config", media.config),
        Route("GET", f"{v1}/download/{mxc}", media.download, limit=limit),
        Route("GET", f"{v1}/download/{mxc}/{{fileName}}", media.download, limit=limit),
        Route("GET", f"{v1}/thumbnail/{mxc}", media.thumbnail, limit=limit),
        Route(
            "POST",
            f"{old}/upload",
            media.upload,
            limit=limit,
            max_body=media.max_upload_bytes,
            streams=True,
        ),
        Route(
            "PUT",
            f"{old}/upload/{mxc}",
            media.upload_to,
            limit=limit,
            max_body=media.max_upload_bytes,
            streams=True,
        ),
        Route("POST", "/_matrix/media/v1/create", media.create, limit=limit),
        Route("GET", f"{old}/config", media.config),
        Route("GET", f"{old}/download/{mxc}", media.download, _MAYBE, limit),
        Route("GET", f"{old}/download/{mxc}/{{fileName}}", media.download, _MAYBE, limit),
        Route("GET", f"{old}/thumbnail/{mxc}", media.thumbnail, _MAYBE, limit),
    ]


def preview_rows(previews: PreviewsApi) -> list[Route]:
    """The rows of previews of links."""
    return [
        Route("GET", "/_matrix/client/v1/media/preview_url", previews.preview, limit="preview"),
        Route("GET", "/_matrix/media/v3/preview_url", previews.preview, limit="preview"),
    ]


def _appservice_rows(api: ClientApi) -> list[Route]:
    networks, services = "/_matrix/client/v3/thirdparty", api.appservices
    directory = "/_matrix/client/v3/directory/list/appservice/{networkId}/{roomId}"
    return [
        Route("POST", "/_matrix/client/v1/appservice/{appserviceId}/ping", services.ping),
        Route("PUT", directory, services.set_visibility),
        Route("GET", f"{networks}/protocols", api.third_party.protocols),
        Route("GET", f"{networks}/protocol/{{protocol}}", api.third_party.protocol),
        Route("GET", f"{networks}/location", api.third_party.about_alias),
        Route("GET", f"{networks}/location/{{protocol}}", api.third_party.locations),
        Route("GET", f"{networks}/user", api.third_party.about_user),
        Route("GET", f"{networks}/user/{{protocol}}", api.third_party.users),
    ]


def _search_rows(search: SearchApi) -> list[Route]:
    return [Route("POST", "/_matrix/client/v3/search", search.search, limit="search")]
