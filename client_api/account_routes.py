"""Rows of the client-server API's table about people: accounts, ways to log in, addresses, keys, contacts."""

from __future__ import annotations

from client_api.apis import ClientApi
from client_api.key_backup import KeyBackupApi
from homeserver.push.unsubscribing import PATH as UNSUBSCRIBE
from homeserver.users.address_validation import LINK_PATH
from homeserver.web import Access, Route

_PUBLIC, _MAYBE = Access.PUBLIC, Access.USER_OR_NOBODY
_BY_SECRET = "/_synapse/admin/v1/register"


def account_rows(api: ClientApi) -> list[Route]:
    """Accounts, sessions and devices."""
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


def login_rows(api: ClientApi) -> list[Route]:
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


def address_rows(api: ClientApi) -> list[Route]:
    """Email addresses and telephone numbers, and what a browser is sent to for them."""
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


def user_rows(api: ClientApi) -> list[Route]:
    """What belongs to a user: profile, presence, account data, rules of push, keys; and ``/sync``."""
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


def key_backup_rows(backup: KeyBackupApi) -> list[Route]:
    """Backups of room keys."""
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


def contact_rows(api: ClientApi) -> list[Route]:
    """Finding people, and reporting them; profiles under their unstable prefix."""
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


def pusher_rows(api: ClientApi) -> list[Route]:
    """Pushers and notifications."""
    pushers, unsubscribing = api.pushers, api.unsubscribing
    return [
        Route("GET", UNSUBSCRIBE, unsubscribing.show, _PUBLIC, "login"),
        Route("POST", UNSUBSCRIBE, unsubscribing.submit, _PUBLIC, "login"),
        Route("GET", "/_matrix/client/v3/notifications", pushers.notifications),
        Route("GET", "/_matrix/client/v3/pushers", pushers.pushers),
        Route("POST", "/_matrix/client/v3/pushers/set", pushers.set_pusher),
    ]
