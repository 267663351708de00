"""What this server is and can do: versions, capabilities, where clients find it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from homeserver.config.people import Profiles
from homeserver.config.surroundings import Support
from homeserver.errors import MatrixError, not_found
from homeserver.protocol.profile_fields import AVATAR_URL, DISPLAYNAME
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.replies import Reply
from homeserver.rooms.delayed_events import DelayedEvents
from homeserver.web import Request

#: Every version of the specification whose endpoints are served.
SPEC_VERSIONS = (
    "r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1",
    *(f"v1.{minor}" for minor in range(1, 20)),
)  # fmt: skip

#: What is served before it is specified, and what clients ask for by the names it had before it was.
UNSTABLE_FEATURES = {
    "org.matrix.msc2108": True,
    "org.matrix.msc3391": True,
    "org.matrix.msc3814": True,
    "org.matrix.msc3912": True,
    "org.matrix.msc4143": True,
    "org.matrix.msc4155": True,
    "org.matrix.msc4262": True,
    "org.matrix.msc4354": True,
    "org.matrix.msc4380": True,
    "org.matrix.msc4380.stable": True,
    "org.matrix.simplified_msc3575": True,
    "uk.half-shot.msc2666.query_mutual_rooms": True,
    "uk.half-shot.msc2666.query_mutual_rooms.stable": True,
    "uk.tcpip.msc4133": True,
    "uk.tcpip.msc4133.stable": True,
}


class DiscoveryApi:
    """Endpoints that describe the server; ``unstable_features`` are for ``/versions``.

    ``takes_addresses`` says whether people can add email addresses to their accounts.
    """

    def __init__(
        self,
        *,
        default_room_version: str,
        public_base_url: str | None = None,
        unstable_features: Mapping[str, bool] | None = None,
        login_tokens: bool = False,
        support: Support | None = None,
        identity_server: str | None = None,
        takes_addresses: bool = False,
        profile_settings: Profiles | None = None,
        forgets_on_leave: bool = False,
        delayed_events: DelayedEvents | None = None,
        rtc_transports: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._delayed_events = delayed_events if delayed_events and delayed_events.max_scheduled else None
        self._rtc_transports = [dict(transport) for transport in rtc_transports]
        self._forgets_on_leave = forgets_on_leave
        self._default_room_version = default_room_version
        self._public_base_url = public_base_url
        delays = {"org.matrix.msc4140": True} if self._delayed_events else {}
        self._unstable_features = {**UNSTABLE_FEATURES, **delays, **(unstable_features or {})}
        self._login_tokens = login_tokens
        self._support = support or Support()
        self._identity_server = identity_server
        self._takes_addresses = takes_addresses
        self._profile_settings = profile_settings or Profiles()

    async def versions(self, request: Request) -> Reply:
        """``GET /_matrix/client/versions``."""
        return {"versions": list(SPEC_VERSIONS), "unstable_features": self._unstable_features}

    async def capabilities(self, request: Request) -> Reply:
        """``GET /capabilities``."""
        moderation = {"m.account_moderation": {"suspend": True, "lock": True}}
        profiles = self._profile_settings
        return {
            "capabilities": {
                "m.change_password": {"enabled": True},
                "m.room_versions": {
                    "default": self._default_room_version,
                    "available": dict.fromkeys(ROOM_VERSIONS, "stable"),
                },
                "m.profile_fields": _changeable_fields(profiles),
                "m.set_displayname": {"enabled": profiles.may_change(DISPLAYNAME)},
                "m.set_avatar_url": {"enabled": profiles.may_change(AVATAR_URL)},
                "m.3pid_changes": {"enabled": self._takes_addresses},
                "m.get_login_token": {"enabled": self._login_tokens},
                "m.forget_forced_upon_leave": {"enabled": self._forgets_on_leave},
                **self._delay_limits(),
                **(moderation if request.requester.is_admin else {}),
            }
        }

    def _delay_limits(self) -> dict[str, object]:
        """The capability of MSC4140."""
        if self._delayed_events is None:
            return {}
        delayed = self._delayed_events
        limits = {"max_delay_ms": delayed.max_delay_ms, "max_scheduled": delayed.max_scheduled}
        return {"org.matrix.msc4140.delayed_events": limits}

    async def well_known(self, request: Request) -> Reply:
        """``GET /.well-known/matrix/client``."""
        if self._public_base_url is None:
            raise not_found("This server does not say where clients find it")
        found: dict[str, Any] = {"m.homeserver": {"base_url": self._public_base_url}}
        if self._identity_server is not None:
            found["m.identity_server"] = {"base_url": self._identity_server}
        if self._rtc_transports:
            # COMPAT: where clients looked for them before there was an endpoint (MSC4143).
            found["org.matrix.msc4143.rtc_foci"] = self._rtc_transports
        return found

    async def support(self, request: Request) -> Reply:
        """``GET /.well-known/matrix/support``."""
        contacts = [
            {name: value for name, value in dataclasses.asdict(each).items() if value is not None}
            for each in self._support.contacts
        ]
        if not contacts and self._support.page is None:
            raise not_found("This server does not say who can help")
        page = {"support_page": self._support.page} if self._support.page else {}
        return {**({"contacts": contacts} if contacts else {}), **page}

    async def auth_metadata(self, request: Request) -> Reply:
        """``GET /auth_metadata``: there is none (spec: "Authentication API discovery")."""
        raise MatrixError(404, "M_UNRECOGNIZED", "This server has no OAuth 2.0 API: clients log in at /login")


def _changeable_fields(profiles: Profiles) -> dict[str, object]:
    """The capability ``m.profile_fields``."""
    fields: dict[str, object] = {"enabled": profiles.changes}
    if profiles.allowed_fields is not None:
        fields["allowed"] = list(profiles.allowed_fields)
    elif profiles.disallowed_fields:
        fields["disallowed"] = list(profiles.disallowed_fields)
    return fields
