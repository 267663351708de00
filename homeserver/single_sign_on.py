"""Single sign-on, wired: the providers of the configuration, and the stage they make possible."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.config.login import Sso as Settings
from homeserver.core import Core
from homeserver.people import People
from homeserver.sso.accounts import SsoAccounts
from homeserver.sso.seals import Seals
from homeserver.sso.sign_on import SingleSignOn, SsoStage
from homeserver.users.confirmation import SSO

if TYPE_CHECKING:
    from homeserver.sso.provider import Web

CALLBACK = "/_inglenook/sso/oidc/callback"


def base_url_of(public_base_url: str | None, server_name: str) -> str:
    """Where clients and browsers reach this server, without a slash at the end."""
    return public_base_url or f"https://{server_name}"


def wire_single_sign_on(
    core: Core, people: People, settings: Settings, web: Web, *, base_url: str
) -> SingleSignOn | None:
    """Wire it, if there are providers; ``base_url`` is where browsers reach this server."""
    if not settings.providers:
        return None
    # Takes along a cryptography library of nine MiB, which without providers nothing needs.
    from homeserver.sso.provider import Provider  # noqa: PLC0415

    people.interactive_auth.stages[SSO] = SsoStage()
    return SingleSignOn(
        providers=[
            Provider(each, web, core.clock, redirect_uri=base_url + CALLBACK) for each in settings.providers
        ],
        accounts=SsoAccounts(core.db, core.clock, people.accounts, people.profiles),
        seals=Seals(core.signing_key.seed, core.clock),
        login_tokens=people.login_tokens,
        interactive_auth=people.interactive_auth,
        confirmation=people.confirmation,
        clock=core.clock,
        # This server's own login page is as trustworthy as it is.
        trusted=[*settings.trusted_redirects, base_url + "/_matrix/static/client/login/"],
        token_lifetime_s=settings.token_lifetime,
    )
