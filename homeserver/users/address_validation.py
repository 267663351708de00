"""Finding out that an email address is whose it is said to be: a link is sent there, and followed.

A validation serves one purpose, for which the message asked, and one client, which
knows its secret.  Which addresses are known here is told to nobody who cannot read
them, if so configured: the client gets the same answer, and the address a message that
says what there is to say.  Nothing is validated by merely opening a link, because
mail servers open links too.
Specification: client-server API, "Adding Account Administrative Contact Information";
identity service API, "Establishing associations".
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Coroutine, Mapping
from enum import Enum
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec
import structlog

from homeserver.clock import Clock
from homeserver.errors import MatrixError, invalid_param, limit_exceeded
from homeserver.protocol.third_party_ids import EMAIL, canonical_email
from homeserver.storage import address_validations, third_party_ids
from homeserver.storage.address_validations import Validation
from homeserver.storage.database import Database

_log = structlog.get_logger()

#: Below the server's public address.
LINK_PATH: Final = "/_inglenook/client/email/submit_token"

_HOUR_MS: Final = 3_600_000
#: Messages that wait to be sent at once.
_MOST_UNDER_WAY: Final = 200
_RETRY_AFTER_MS: Final = 60_000
_MAX_LINK_CHARS: Final = 2_000
#: Specification: identity service API, ``requestToken``.
_CLIENT_SECRET: Final = re.compile(r"[0-9a-zA-Z.=_-]{1,255}", re.ASCII)


class Purpose(Enum):
    """What an address is validated for; the values name the templates of the messages."""

    REGISTRATION = "registration"
    ADDING = "add_address"
    PASSWORD_RESET = "password_reset"


_SUBJECTS: Final = {
    Purpose.REGISTRATION: "Confirm your email address",
    Purpose.ADDING: "Confirm your email address",
    Purpose.PASSWORD_RESET: "Choose a new password",
}


class Mail(Protocol):
    """Sends email (``email.mailer.Mailer``)."""

    async def send(self, to: str, template_name: str, subject: str, values: Mapping[str, Any]) -> None:
        """Send one message; raises ``MatrixError`` when it cannot be sent."""
        ...


class TokenRequest(msgspec.Struct, frozen=True):
    """The body of ``POST …/email/requestToken``."""

    client_secret: str
    email: str
    send_attempt: int
    next_link: str | None = None


class ValidationRules(msgspec.Struct, frozen=True, kw_only=True):
    """``link_base`` is the server's public address; people are sent on to ``next_link_domains`` alone."""

    link_base: str
    next_link_domains: tuple[str, ...] = ()
    lifetime_ms: int = 24 * _HOUR_MS
    hide_known_addresses: bool = True


class AddressValidation:
    """Validates email addresses.

    ``check_attempt(address)`` is called before each message and raises ``M_LIMIT_EXCEEDED``
    when there were too many; ``start`` runs work in the background.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        mail: Mail,
        rules: ValidationRules,
        *,
        start: Callable[[Coroutine[Any, Any, None], str], object],
        check_attempt: Callable[[str], None] = lambda address: None,
    ) -> None:
        self._db = db
        self._clock = clock
        self._mail = mail
        self._rules = rules
        self._start = start
        self._check_attempt = check_attempt
        self._under_way = 0

    async def request(self, purpose: Purpose, asked: TokenRequest) -> str:
        """Send a message to an address; the id of the validation that its link completes.

        A request that was made before (by ``send_attempt``) sends nothing.  Raises
        ``M_INVALID_PARAM``, ``M_LIMIT_EXCEEDED``, what ``Mail.send`` does, and, where that is not to
        be hidden, ``M_THREEPID_IN_USE`` and ``M_THREEPID_NOT_FOUND``.
        """
        address, next_link = _email(asked.email), self._next_link(asked.next_link)
        secret = _hash(_client_secret(asked.client_secret))
        before = await address_validations.by_secret(self._db.read, purpose.value, EMAIL, address, secret)
        if before is not None and before.expires_at <= self._clock.now_ms():
            before = None
        if before is not None and (before.validated_at or asked.send_attempt <= before.send_attempt):
            return before.sid
        self._check_attempt(address)
        if self._under_way >= _MOST_UNDER_WAY:
            raise limit_exceeded(_RETRY_AFTER_MS)
        owner = await third_party_ids.owner(self._db.read, EMAIL, address)
        known_is_wrong = purpose is not Purpose.PASSWORD_RESET
        refused = (owner is not None) == known_is_wrong
        if refused and not self._rules.hide_known_addresses:
            raise in_use() if known_is_wrong else not_known()
        token = None if refused else secrets.token_urlsafe(32)
        validation = Validation(
            sid=before.sid if before else secrets.token_urlsafe(18),
            purpose=purpose.value,
            medium=EMAIL,
            address=address,
            client_secret=secret,
            token=None if token is None else _hash(token),
            send_attempt=asked.send_attempt,
            next_link=next_link,
            expires_at=self._clock.now_ms() + self._rules.lifetime_ms,
            validated_at=None,
        )
        await self._db.write(partial(address_validations.put, validation=validation))
        message = self._message(validation, asked.client_secret, token, owner)
        if message is not None:
            await self._tell(validation, message)
        return validation.sid

    async def pending(self, sid: str, client_secret: str, token: str) -> Validation:
        """The validation that a link belongs to, which may be completed already.

        Raises 400 ``M_NO_VALID_SESSION``.
        """
        found = await address_validations.by_sid(self._db.read, sid)
        if (
            found is None
            or found.token is None
            or found.expires_at <= self._clock.now_ms()
            or not hmac.compare_digest(found.client_secret, _hash(client_secret))
            or not hmac.compare_digest(found.token, _hash(token))
        ):
            raise MatrixError(400, "M_NO_VALID_SESSION", "The link is not valid, or not any more")
        return found

    async def complete(self, sid: str, client_secret: str, token: str) -> Validation:
        """Note that a link was followed; raises as ``pending``."""
        found = await self.pending(sid, client_secret, token)
        if found.validated_at is None:
            now = self._clock.now_ms()
            expires_at = now + self._rules.lifetime_ms
            await self._db.write(
                partial(address_validations.validated, sid=sid, at=now, expires_at=expires_at)
            )
        return found

    async def validated(self, purpose: Purpose, sid: str, client_secret: str) -> Validation:
        """The validation of this id once its link was followed; 403 ``M_THREEPID_AUTH_FAILED`` before."""
        found = await address_validations.by_sid(self._db.read, sid)
        if (
            found is None
            or found.validated_at is None
            or found.purpose != purpose.value
            or found.expires_at <= self._clock.now_ms()
            or not hmac.compare_digest(found.client_secret, _hash(client_secret))
        ):
            raise _not_validated()
        return found

    async def proved(self, sid: str) -> Validation:
        """The validation of an id that a completed stage yielded; raises as ``validated``."""
        found = await address_validations.by_sid(self._db.read, sid)
        if found is None or found.validated_at is None:
            raise _not_validated()
        return found

    async def use_up(self, validation: Validation) -> None:
        """End a validation, so that it serves once; raises as ``validated`` where it has served already."""
        if not await self._removed(validation):
            raise _not_validated()

    async def _removed(self, validation: Validation) -> bool:
        return await self._db.write(partial(address_validations.remove, sid=validation.sid))

    async def forget_expired(self) -> None:
        """Forget the validations that nobody can use any more."""
        now = self._clock.now_ms()
        await self._db.write(lambda tx: address_validations.remove_expired(tx, now))

    def _next_link(self, text: str | None) -> str | None:
        """Where to send people on to, if that is a web page, of a domain that is allowed."""
        if text is None or text == "":
            return None
        domain = _domain(text)
        if domain is None:
            raise invalid_param("'next_link' is not the address of a web page")
        return text if domain in self._rules.next_link_domains else None

    def _message(
        self, validation: Validation, client_secret: str, token: str | None, owner: str | None
    ) -> tuple[str, str, dict[str, Any]] | None:
        """Template, subject and values of the message there is to send, if any."""
        if token is not None:
            query = {"token": token, "client_secret": client_secret, "sid": validation.sid}
            link = f"{self._rules.link_base}{LINK_PATH}?{urlencode(query)}"
            return validation.purpose, _SUBJECTS[Purpose(validation.purpose)], {"link": link}
        if owner is not None:
            return "already_registered", "Your account", {"user_id": owner}
        return None

    async def _tell(self, validation: Validation, message: tuple[str, str, dict[str, Any]]) -> None:
        sending = self._sent(validation, message)
        if self._rules.hide_known_addresses:
            # How long sending takes, and whether it works, would tell which message there was to send.
            self._start(sending, "email")
        else:
            await sending

    async def _sent(self, validation: Validation, message: tuple[str, str, dict[str, Any]]) -> None:
        """Send a message; a validation whose message was not sent is none."""
        self._under_way += 1
        try:
            await self._mail.send(validation.address, *message)
        except MatrixError as error:
            await self._removed(validation)
            if not self._rules.hide_known_addresses:
                raise
            _log.warning("validation not sent", reason=str(error))
        finally:
            self._under_way -= 1


def in_use() -> MatrixError:
    """400 ``M_THREEPID_IN_USE``."""
    return MatrixError(400, "M_THREEPID_IN_USE", "An account has this address already")


def not_known() -> MatrixError:
    """400 ``M_THREEPID_NOT_FOUND``."""
    return MatrixError(400, "M_THREEPID_NOT_FOUND", "No account has this address")


def _not_validated() -> MatrixError:
    return MatrixError(403, "M_THREEPID_AUTH_FAILED", "The address has not been validated")


def _domain(link: str) -> str | None:
    """The domain of a web page, with the port if there is one; ``None`` for other links.

    What browsers and ``urlsplit`` could read differently is none: ``https://evil.org\\@allowed.org``.
    """
    try:
        parts = urlsplit(link)
        port = parts.port
    except ValueError:
        return None
    odd = "\\" in link or "@" in parts.netloc or " " in link or not link.isprintable()
    if odd or len(link) > _MAX_LINK_CHARS or parts.scheme not in ("http", "https") or not parts.hostname:
        return None
    return parts.hostname if port is None else f"{parts.hostname}:{port}"


def _email(text: str) -> str:
    try:
        return canonical_email(text)
    except ValueError as error:
        raise invalid_param(str(error)) from None


def _client_secret(text: str) -> str:
    if not _CLIENT_SECRET.fullmatch(text):
        raise invalid_param("'client_secret' has 1 to 255 of the characters 0-9 a-z A-Z . = _ -")
    return text


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
