"""The people of this server, wired: their accounts, devices and profiles, and what they keep here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from homeserver.core import Core
from homeserver.users.account_data import AccountData
from homeserver.users.accounts import Accounts, no_limit
from homeserver.users.interactive_auth import InteractiveAuth
from homeserver.users.openid import OpenIdTokens
from homeserver.users.passwords import Passwords
from homeserver.users.profiles import Profiles, RemoteProfiles
from homeserver.users.push_rules import PushRules
from homeserver.users.registration import Registration
from homeserver.users.sessions import DeviceObserver, Sessions
from homeserver.users.stages import basic_stages


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """Who there is, how they prove it, and what is theirs."""

    accounts: Accounts
    sessions: Sessions
    registration: Registration
    interactive_auth: InteractiveAuth
    profiles: Profiles
    account_data: AccountData
    push_rules: PushRules
    openid: OpenIdTokens


def wire_people(
    core: Core,
    *,
    registration: Registration,
    passwords: Passwords,
    devices: Sequence[DeviceObserver],
    remote: RemoteProfiles | None = None,
    check_attempt: Callable[[str], None] = no_limit,
) -> People:
    """Wire the people; ``Profiles.memberships`` is to be set once there are memberships.

    ``devices`` are told of devices that come and go, ``remote`` asks other servers (without
    it there are none); ``check_attempt(user_id)`` is called before each password check,
    as ``Accounts`` has it.
    """
    accounts = Accounts(core.db, core.clock, passwords, core.server_name, check_attempt=check_attempt)
    account_data = AccountData(
        core.db, core.positions, lambda pos, user_id: core.notifier.announce(pos, users=(user_id,))
    )
    return People(
        accounts=accounts,
        sessions=Sessions(core.db, core.clock, observers=devices),
        registration=registration,
        interactive_auth=InteractiveAuth(core.clock, basic_stages(accounts, registration)),
        profiles=Profiles(core.db, core.server_name, remote=remote),
        account_data=account_data,
        push_rules=PushRules(account_data),
        openid=OpenIdTokens(core.db, core.clock),
    )
