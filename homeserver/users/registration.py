"""Who may register: everybody, those with a token, or nobody; and what else is asked of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import Enum

from homeserver.clock import Clock
from homeserver.errors import forbidden
from homeserver.storage import registration_tokens
from homeserver.storage.database import Database

DUMMY = "m.login.dummy"
REGISTRATION_TOKEN = "m.login.registration_token"
TERMS = "m.login.terms"
RECAPTCHA = "m.login.recaptcha"
EMAIL_IDENTITY = "m.login.email.identity"


class RegistrationMode(Enum):
    """How accounts come to be, other than by the server's administrator."""

    OPEN = "open"
    TOKEN = "token"
    CLOSED = "closed"


class EmailUse(Enum):
    """Whether who registers shows an email address to be theirs."""

    NO = "no"
    OPTIONAL = "optional"
    REQUIRED = "required"


class Registration:
    """The server's registration policy.

    ``fixed_tokens`` (from the configuration) can be used any number of times; those in
    the database may be limited in number and time.  ``more_stages`` are asked of everybody.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        mode: RegistrationMode,
        fixed_tokens: Collection[str] = (),
        *,
        more_stages: Sequence[str] = (),
        email: EmailUse = EmailUse.NO,
    ) -> None:
        self._db = db
        self._clock = clock
        self._mode = mode
        self._fixed_tokens = frozenset(fixed_tokens)
        self._more_stages = tuple(more_stages)
        self._email = email

    def flows(self) -> list[list[str]]:
        """The flows of stages that lead to an account; ``M_FORBIDDEN`` when registration is closed."""
        if self._mode is RegistrationMode.CLOSED:
            raise forbidden("Registration is closed on this server")
        token = [REGISTRATION_TOKEN] if self._mode is RegistrationMode.TOKEN else []
        stages = [*token, *self._more_stages]
        with_email = [[*stages, EMAIL_IDENTITY]] if self._email is not EmailUse.NO else []
        without = [stages or [DUMMY]] if self._email is not EmailUse.REQUIRED else []
        return [*without, *with_email]

    async def is_valid(self, token: str) -> bool:
        """Whether somebody could register with this token now."""
        if token in self._fixed_tokens:
            return True
        return await registration_tokens.is_usable(self._db.read, token, self._clock.now_ms())

    def to_be_used_up(self, token: str | None) -> str | None:
        """The token whose uses have to be counted when the account is made, if any."""
        return None if token in self._fixed_tokens else token
