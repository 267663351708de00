"""The people of this server, wired: their accounts, devices and profiles, and what they keep here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from homeserver.core import Core
from homeserver.storage import sharing
from homeserver.users.account_data import AccountData
from homeserver.users.accounts import Accounts, no_limit
from homeserver.users.confirmation import Confirmation
from homeserver.users.guests import Guests
from homeserver.users.interactive_auth import InteractiveAuth
from homeserver.users.last_seen import LastSeen
from homeserver.users.login_tokens import LoginTokens
from homeserver.users.moderation import Moderation
from homeserver.users.openid import OpenIdTokens
from homeserver.users.passwords import Passwords
from homeserver.users.profiles import Profiles, RemoteProfiles
from homeserver.users.push_rules import PushRules
from homeserver.users.registration import Registration
from homeserver.users.sessions import DeviceObserver, Sessions
from homeserver.users.stages import basic_stages


class People(msgspec.Struct, frozen=True, kw_only=True):
    """Who there is, how they prove it, and what is theirs."""

    accounts: Accounts
    sessions: Sessions
    registration: Registration
    interactive_auth: InteractiveAuth
    profiles: Profiles
    account_data: AccountData
    push_rules: PushRules
    openid: OpenIdTokens
    guests: Guests
    confirmation: Confirmation
    login_tokens: LoginTokens
    last_seen: LastSeen
    moderation: Moderation


def wire_people(
    core: Core,
    *,
    registration: Registration,
    passwords: Passwords,
    devices: Sequence[DeviceObserver],
    remote: RemoteProfiles | None = None,
    check_attempt: Callable[[str], None] = no_limit,
    allow_guests: bool = False,
    sso_providers: Sequence[str] = (),
    password_login: bool = True,
    thread_subscriptions: bool = False,
) -> People:
    """Wire the people; ``Profiles.memberships`` is to be set once there are memberships.

    ``devices`` are told of devices that come and go, ``remote`` asks other servers (without
    it there are none); ``check_attempt(user_id)`` is called before each password check,
    as ``Accounts`` has it.  ``sso_providers`` and ``password_login`` are how people may prove who they are;
    ``thread_subscriptions`` as ``PushRules`` has it.
    """
    accounts = Accounts(core.db, core.clock, passwords, core.server_name, check_attempt=check_attempt)
    account_data = AccountData(
        core.db, core.positions, core.account_data_positions, core.notifier.announce_account_data
    )
    sessions = Sessions(core.db, core.clock, observers=devices)
    # So that streams look whether they may go on.
    sessions.listeners.append(core.notifier.wake_user)
    interactive_auth = InteractiveAuth(core.clock, basic_stages(accounts, registration))
    return People(
        accounts=accounts,
        sessions=sessions,
        registration=registration,
        interactive_auth=interactive_auth,
        profiles=_profiles(core, remote),
        account_data=account_data,
        push_rules=PushRules(account_data, thread_subscriptions=thread_subscriptions),
        openid=OpenIdTokens(core.db, core.clock),
        guests=Guests(core.db, core.clock, sessions, passwords, core.server_name, allowed=allow_guests),
        confirmation=Confirmation(
            core.db, interactive_auth, providers=sso_providers, passwords=password_login
        ),
        login_tokens=LoginTokens(core.clock),
        last_seen=LastSeen(core.db, core.clock),
        moderation=Moderation(core.db, core.server_name, sessions, core.notifier.dismiss),
    )


def _profiles(core: Core, remote: RemoteProfiles | None) -> Profiles:
    async def announce(pos: int, user_id: str) -> None:
        rooms = await sharing.rooms_of(core.db.read, [user_id])
        core.notifier.announce(pos, rooms=rooms, users=(user_id,))

    return Profiles(core.db, core.server_name, core.positions, announce, remote=remote)
