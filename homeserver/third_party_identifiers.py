"""Third-party identifiers, wired: email, identity servers, and what else registering asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from homeserver.config import Config
from homeserver.core import Core
from homeserver.egress import WaysOut
from homeserver.people import People
from homeserver.users.address_validation import AddressValidation, Mail, ValidationRules
from homeserver.users.identity_servers import IdentityBindings, IdentityServers, Sign
from homeserver.users.registration import (
    EMAIL_IDENTITY,
    RECAPTCHA,
    TERMS,
    EmailUse,
    Registration,
    RegistrationMode,
)
from homeserver.users.registration_stages import EmailStage, Policy, RecaptchaStage, TermsStage
from homeserver.users.third_party_ids import ThirdPartyIds

if TYPE_CHECKING:
    from homeserver.email.mailer import Mailer

_HOUR_MS = 3_600_000


class ThirdPartyIdentifiers(msgspec.Struct, frozen=True, kw_only=True):
    """Who has which address, and who is told of it; what is not configured is ``None``."""

    ids: ThirdPartyIds
    mailer: Mailer | None = None
    validation: AddressValidation | None = None
    servers: IdentityServers | None = None
    bindings: IdentityBindings | None = None
    #: The identity server that clients are told to use.
    recommended: str | None = None
    #: Where the captcha of the web pages comes from.
    captcha_script: str | None = None


def registration_policy(core: Core, config: Config) -> Registration:
    """Who may register, and what is asked of them."""
    settings = config.registration
    more = [
        *([RECAPTCHA] if settings.recaptcha is not None else []),
        *([TERMS] if settings.terms else []),
    ]
    email = EmailUse.NO if config.email.smtp_host is None else EmailUse.OPTIONAL
    return Registration(
        core.db,
        core.clock,
        RegistrationMode(settings.mode),
        settings.tokens,
        more_stages=more,
        email=EmailUse.REQUIRED if settings.require_email else email,
    )


def wire_identifiers(
    core: Core,
    config: Config,
    people: People,
    ways: WaysOut,
    *,
    sign: Sign,
    check_attempt: Callable[[str], None],
) -> ThirdPartyIdentifiers:
    """Wire what the configuration asks for, and add its stages to interactive authentication.

    ``sign`` signs requests to identity servers in this server's name; ``check_attempt(address)``
    is called before each message to an address, as ``AddressValidation`` has it.
    """
    ids, settings = ThirdPartyIds(core.db, core.clock), config.registration
    stages = people.interactive_auth.stages
    if settings.terms:
        stages[TERMS] = TermsStage(
            [Policy(each.id, each.version, each.language, each.name, each.url) for each in settings.terms]
        )
    if settings.recaptcha is not None:
        stages[RECAPTCHA] = RecaptchaStage(
            ways.own,
            site_key=settings.recaptcha.site_key,
            secret_key=settings.recaptcha.secret_key,
            verify_url=settings.recaptcha.verify_url,
        )
    mailer, validation = None, None
    if config.email.smtp_host is not None:
        from homeserver.email.mailer import Mailer  # noqa: PLC0415  for what it loads only to send mail

        mailer = Mailer(config.email, core.clock, config.server_name)
        validation = wire_validation(core, config, mailer, check_attempt)
        stages[EMAIL_IDENTITY] = EmailStage(validation, ids)
    trusted = config.identity_servers.trusted
    servers = IdentityServers(ways.own, trusted, sign) if trusted else None
    return ThirdPartyIdentifiers(
        ids=ids,
        mailer=mailer,
        validation=validation,
        servers=servers,
        bindings=None if servers is None else IdentityBindings(core.db, servers),
        recommended=config.identity_servers.recommend,
        captcha_script=None if settings.recaptcha is None else settings.recaptcha.script_url,
    )


def wire_validation(
    core: Core, config: Config, mail: Mail, check_attempt: Callable[[str], None]
) -> AddressValidation:
    """Validation of addresses by ``mail``, under the rules of the configuration."""
    settings = config.email
    rules = ValidationRules(
        link_base=config.public_base_url or f"https://{config.server_name}",
        next_link_domains=tuple(domain.lower() for domain in settings.next_link_domains),
        lifetime_ms=settings.link_lifetime_hours * _HOUR_MS,
        hide_known_addresses=settings.hide_known_addresses,
    )
    return AddressValidation(
        core.db,
        core.clock,
        mail,
        rules,
        start=core.background.start,
        check_attempt=check_attempt,
    )
