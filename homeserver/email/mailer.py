"""Sending email: templates in, a message of text and HTML out, handed to the administrator's SMTP server.

Nothing that others write reaches a header but through the canonical address and the
subject, and neither can end one.  There is no queue: who sends learns whether the mail
server took the message, and decides what then.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import format_datetime, make_msgid
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import aiosmtplib
import structlog
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined

from homeserver.clock import Clock
from homeserver.config.email import Email as Settings
from homeserver.email.failure import EmailNotSent
from homeserver.protocol.third_party_ids import canonical_email

_log = structlog.get_logger()

_TEMPLATES: Final = Path(__file__).parent / "templates"
_CONCURRENT: Final = 5
_MAX_SUBJECT: Final = 200
_MAX_HEADER: Final = 2_000
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
#: From here on a mail server that refuses will not change its mind.
_PERMANENT: Final = 500


class Mailer:
    """Sends what templates say.

    A template is a pair of files, ``NAME.txt`` and ``NAME.html``; those in the configured
    folder come before the server's own.  Beside the values given, each knows ``app_name``
    and ``server_name``.
    """

    def __init__(self, settings: Settings, clock: Clock, server_name: str) -> None:
        if settings.smtp_host is None or settings.sender is None:
            raise ValueError("email is not configured")
        self._settings = settings
        self._host = settings.smtp_host
        self._sender = settings.sender
        self._clock = clock
        self._server_name = server_name
        self._slots = asyncio.Semaphore(_CONCURRENT)
        folders = [_TEMPLATES] if settings.template_folder is None else [settings.template_folder, _TEMPLATES]
        self._templates = Environment(
            loader=ChoiceLoader([FileSystemLoader(folder) for folder in folders]),
            autoescape=lambda name: name is None or not name.endswith(".txt"),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def send(
        self,
        to: str,
        template_name: str,
        subject: str,
        values: Mapping[str, Any],
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Send one message to one address, with more ``headers`` if need be.

        Raises ``ValueError`` for what is not an email address, ``EmailNotSent`` when the
        mail server did not take it.
        """
        message = self._message(canonical_email(to), template_name, subject, values)
        for name, value in headers.items():
            message[name] = _one_line(value, _MAX_HEADER)
        settings = self._settings
        async with self._slots:
            try:
                await aiosmtplib.send(
                    message,
                    hostname=self._host,
                    port=settings.smtp_port,
                    username=settings.smtp_user,
                    password=settings.smtp_password,
                    use_tls=settings.smtp_tls == "tls",
                    start_tls=settings.smtp_tls == "starttls",
                    cert_bundle=None if settings.smtp_ca_file is None else str(settings.smtp_ca_file),
                    timeout=settings.smtp_timeout,
                )
            except (aiosmtplib.SMTPException, OSError) as error:
                _log.warning("email not sent", template=template_name, reason=str(error))
                raise EmailNotSent(str(error), permanent=_is_permanent(error)) from error

    def _message(self, to: str, template_name: str, subject: str, values: Mapping[str, Any]) -> EmailMessage:
        known = {"app_name": self._settings.app_name, "server_name": self._server_name, **values}
        text = self._templates.get_template(f"{template_name}.txt").render(known)
        html = self._templates.get_template(f"{template_name}.html").render(known)
        message = EmailMessage(policy=SMTP if to.isascii() else SMTPUTF8)
        message["From"] = Address(_one_line(self._settings.app_name), *_parts(self._sender))
        message["To"] = Address("", *_parts(to))
        message["Subject"] = _one_line(subject)
        message["Date"] = format_datetime(datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC))
        message["Message-ID"] = make_msgid(domain=self._sender.rpartition("@")[2])
        # RFC 3834: so that nobody's absence is announced to the server.
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        message.add_alternative(html, subtype="html")
        return message


def _parts(address: str) -> tuple[str, str]:
    user, _, domain = address.rpartition("@")
    return user, domain


def _one_line(text: str, most: int = _MAX_SUBJECT) -> str:
    return _CONTROLS.sub(" ", text).strip()[:most]


def _is_permanent(error: Exception) -> bool:
    if isinstance(error, aiosmtplib.SMTPRecipientsRefused):
        return all(refused.code >= _PERMANENT for refused in error.recipients)
    return isinstance(error, aiosmtplib.SMTPResponseException) and error.code >= _PERMANENT
