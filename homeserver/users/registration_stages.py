"""Stages that a registration can ask for beside a token: terms, a captcha, an email address.

Specification: client-server API, "Terms of service at registration", "Google ReCaptcha"
and "Email-based (identity / homeserver)".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from homeserver.errors import MatrixError, bad_json, forbidden
from homeserver.users.address_validation import AddressValidation, Purpose, in_use, not_known
from homeserver.users.interactive_auth import Operation
from homeserver.users.third_party_ids import ThirdPartyIds

_MAX_CAPTCHA_CHARS: Final = 10_000
_PURPOSES: Final = {
    "POST /register": Purpose.REGISTRATION,
    "POST /account/password": Purpose.PASSWORD_RESET,
}


class Policy(msgspec.Struct, frozen=True):
    """A document that who registers accepts, in one language."""

    id: str
    version: str
    language: str
    name: str
    url: str


class Forms(Protocol):
    """Sends forms to web servers (``egress.Egress``)."""

    async def post_form(self, url: str, fields: Mapping[str, str]) -> tuple[int, Any]:
        """Status and JSON of the answer; raises ``RemoteError``."""
        ...


class TermsStage:
    """Documents to accept; to complete the stage is to accept those it shows."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._params: dict[str, Any] = {"policies": {}}
        for policy in policies:
            shown = self._params["policies"].setdefault(policy.id, {"version": policy.version})
            shown[policy.language] = {"name": policy.name, "url": policy.url}

    async def check(self, auth: Mapping[str, Any], operation: Operation) -> str:
        """Always an empty text."""
        return ""

    def params(self, session: str) -> dict[str, Any]:
        """The documents."""
        return self._params


class RecaptchaStage:
    """A challenge that a verification service judges."""

    def __init__(self, forms: Forms, *, site_key: str, secret_key: str, verify_url: str) -> None:
        self._forms = forms
        self._site_key = site_key
        self._secret_key = secret_key
        self._verify_url = verify_url

    async def check(self, auth: Mapping[str, Any], operation: Operation) -> str:
        """An empty text once the service is content; ``RemoteError`` where it cannot be asked."""
        response = auth.get("response")
        if not isinstance(response, str) or not 0 < len(response) <= _MAX_CAPTCHA_CHARS:
            raise bad_json("The captcha's response is missing")
        fields = {"secret": self._secret_key, "response": response}
        _, answer = await self._forms.post_form(self._verify_url, fields)
        if not isinstance(answer, dict) or answer.get("success") is not True:
            raise MatrixError(401, "M_UNAUTHORIZED", "The captcha was not solved")
        return ""

    def params(self, session: str) -> dict[str, Any]:
        """The key that the challenge is shown with."""
        return {"public_key": self._site_key}


class EmailStage:
    """An email address that was validated; yields the validation's id."""

    def __init__(self, validation: AddressValidation, ids: ThirdPartyIds) -> None:
        self._validation = validation
        self._ids = ids

    async def check(self, auth: Mapping[str, Any], operation: Operation) -> str:
        """The id of a validation for this operation, whose address fits it.

        Raises ``M_THREEPID_AUTH_FAILED`` until the link was followed, ``M_THREEPID_IN_USE`` for an
        address that an account has, ``M_THREEPID_NOT_FOUND`` for a reset where none has it.
        """
        # COMPAT: older clients write `threepidCreds`.
        given = auth.get("threepid_creds", auth.get("threepidCreds"))
        sid, secret = (
            (given.get("sid"), given.get("client_secret")) if isinstance(given, dict) else (None, None)
        )
        if not isinstance(sid, str) or not isinstance(secret, str):
            raise bad_json("'threepid_creds' with 'sid' and 'client_secret' is missing")
        purpose = _PURPOSES.get(operation.endpoint)
        if purpose is None:
            raise forbidden("An email address does not authorise this")
        validation = await self._validation.validated(purpose, sid, secret)
        owner = await self._ids.owner(validation.medium, validation.address)
        if purpose is Purpose.REGISTRATION and owner is not None:
            raise in_use()
        if purpose is Purpose.PASSWORD_RESET and owner is None:
            raise not_known()
        if operation.user_id not in (None, owner):
            raise forbidden("That is the address of another user than the one who is logged in")
        return sid

    def params(self, session: str) -> dict[str, Any]:
        """Nothing."""
        return {}
