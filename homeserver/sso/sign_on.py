"""Signing on, step by step, whatever a browser and a provider do meanwhile.

1. ``begin`` sends the browser to a provider; what has to be known when it comes back it keeps
   itself, sealed, in a cookie.
2. ``come_back`` opens that, lets the provider say who it is, and finds or makes the account.
3. Who may be surprised by what comes next is asked (``Asked``); ``agree`` is the answer.
4. A client gets its user back with a login token, or the stage of its session is complete.

Specification: client-server API, "SSO client login/authentication".
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import structlog

from homeserver.clock import Clock
from homeserver.errors import MatrixError
from homeserver.sso.accounts import SsoAccounts
from homeserver.sso.failure import SignOnFailed
from homeserver.sso.redirects import check_redirect, is_trusted, with_login_token
from homeserver.sso.seals import Attempt, Goal, Question, Seals
from homeserver.users.confirmation import SSO, Confirmation
from homeserver.users.interactive_auth import InteractiveAuth, Operation
from homeserver.users.login_tokens import LoginTokens

if TYPE_CHECKING:
    from homeserver.sso.provider import Provider

_log = structlog.get_logger()

#: For the whole visit at the provider, and for the answer to a question, in milliseconds.
ATTEMPT_LIFETIME_MS = 15 * 60 * 1000
_BEGIN_AGAIN = "This page was opened too late, twice, or in another browser. Please begin again in your app."


class Sent(msgspec.Struct, frozen=True):
    """The browser goes to ``url``, and keeps ``cookie``."""

    url: str
    cookie: str


class Asked(msgspec.Struct, frozen=True):
    """The person is asked whether they meant to; their answer brings ``id`` back, and ``cookie``.

    ``operation`` is what a client wants to do to the account, ``None`` if it is to be logged in at
    ``redirect_url``.
    """

    id: str
    cookie: str
    user_id: str
    redirect_url: str | None
    operation: Operation | None


class SignedOn(msgspec.Struct, frozen=True):
    """The browser goes back to the client at ``url``; ``None`` where a session's stage is complete."""

    url: str | None


Outcome: TypeAlias = Asked | SignedOn


class SsoStage:
    """The stage ``m.login.sso``, which is completed in a browser; yields the user id."""

    async def check(self, auth: Mapping[str, Any], operation: Operation) -> str:
        """Never: a client has nothing to show for it."""
        raise MatrixError(401, "M_UNAUTHORIZED", "Single sign-on has to be completed in a browser first")

    def params(self, session: str) -> dict[str, Any]:
        """Nothing."""
        return {}


class SingleSignOn:
    """Signs people on with the providers that are configured; without any there is nothing to sign on with.

    ``trusted`` are beginnings of clients' URLs that people are sent back to without a question.
    """

    def __init__(
        self,
        *,
        providers: Sequence[Provider],
        accounts: SsoAccounts,
        seals: Seals,
        login_tokens: LoginTokens,
        interactive_auth: InteractiveAuth,
        confirmation: Confirmation,
        clock: Clock,
        trusted: Sequence[str] = (),
        token_lifetime_s: int,
    ) -> None:
        self._providers = {provider.settings.id: provider for provider in providers}
        self._accounts = accounts
        self._seals = seals
        self._login_tokens = login_tokens
        self._interactive_auth = interactive_auth
        self._confirmation = confirmation
        self._clock = clock
        self._trusted = tuple(trusted)
        self._token_lifetime_s = token_lifetime_s

    def providers(self) -> list[dict[str, str]]:
        """The providers as clients are told of them (``identity_providers``)."""
        listed = (provider.settings for provider in self._providers.values())
        return [
            {
                "id": each.id,
                "name": each.name,
                **({"icon": each.icon} if each.icon else {}),
                **({"brand": each.brand} if each.brand else {}),
            }
            for each in listed
        ]

    async def providers_for_session(self, session: str) -> tuple[Operation, list[str]]:
        """What a session wants to do, and the ids of the providers that can tell who its user is."""
        operation = self._operation(session)
        return operation, await self._confirmation.providers(operation.user_id or "")

    async def begin(self, provider_id: str, goal: Goal, *, action: str | None = None) -> Sent:
        """Step 1.  ``action`` is ``register`` for somebody who wants a new account."""
        provider = self._provider(provider_id)
        prompt = "create" if action == "register" else None
        if goal.redirect_url is not None:
            try:
                check_redirect(goal.redirect_url)
            except ValueError as error:
                raise SignOnFailed(str(error), status=400) from None
        if goal.session is not None:
            self._operation(goal.session)
            prompt = "login"
        attempt = Attempt(
            id=secrets.token_urlsafe(24),
            ends_at=self._clock.now_ms() + ATTEMPT_LIFETIME_MS,
            provider=provider_id,
            nonce=secrets.token_urlsafe(24),
            verifier=secrets.token_urlsafe(48),
            goal=goal,
        )
        url = await provider.authorization_url(
            state=attempt.id, nonce=attempt.nonce, verifier=attempt.verifier, prompt=prompt
        )
        return Sent(url, self._seals.seal(attempt))

    async def come_back(self, cookie: str, answer: Mapping[str, str]) -> Outcome:
        """Steps 2 and 3, with the provider's ``answer`` (``state``, and ``code`` or ``error``)."""
        attempt = self._seals.open(cookie)
        state = answer.get("state", "")
        if not isinstance(attempt, Attempt) or not _same(attempt.id, state):
            raise SignOnFailed(_BEGIN_AGAIN, status=400)
        self._seals.use_up(attempt)
        provider = self._provider(attempt.provider)
        if "code" not in answer:
            raise SignOnFailed(
                f"{provider.settings.name} did not sign you on. You can begin again in your app.",
                detail=f"{attempt.provider}: {answer.get('error', 'no code')[:100]}",
            )
        claims = await provider.identify(answer["code"], nonce=attempt.nonce, verifier=attempt.verifier)
        user_id = await self._accounts.known(provider.settings, claims)
        goal = attempt.goal
        if user_id is None:
            if goal.session is not None:
                raise SignOnFailed("That is not the account that is to be changed.")
            user_id = await self._accounts.make(provider.settings, claims)
        _log.info("signed on", provider=attempt.provider, user_id=user_id)
        if goal.redirect_url is not None and is_trusted(goal.redirect_url, self._trusted):
            return self._reached(user_id, goal)
        return self._ask(user_id, goal)

    def agree(self, cookie: str, question_id: str) -> SignedOn:
        """Step 4, after the question was answered with yes."""
        question = self._seals.open(cookie)
        if not isinstance(question, Question) or not _same(question.id, question_id):
            raise SignOnFailed(_BEGIN_AGAIN, status=400)
        self._seals.use_up(question)
        return self._reached(question.user_id, question.goal)

    def _ask(self, user_id: str, goal: Goal) -> Asked:
        operation = None
        if goal.session is not None:
            operation = self._operation(goal.session)
            if operation.user_id != user_id:
                raise SignOnFailed(f"You are signed on as {user_id}, whose account this is not about.")
        question = Question(
            id=secrets.token_urlsafe(24),
            ends_at=self._clock.now_ms() + ATTEMPT_LIFETIME_MS,
            user_id=user_id,
            goal=goal,
        )
        return Asked(question.id, self._seals.seal(question), user_id, goal.redirect_url, operation)

    def _reached(self, user_id: str, goal: Goal) -> SignedOn:
        if goal.session is not None:
            if self._operation(goal.session).user_id != user_id:
                raise SignOnFailed(f"You are signed on as {user_id}, whose account this is not about.")
            self._interactive_auth.complete(goal.session, SSO, user_id)
            return SignedOn(None)
        token = self._login_tokens.issue(user_id, self._token_lifetime_s)
        return SignedOn(with_login_token(goal.redirect_url or "", token))

    def _operation(self, session: str) -> Operation:
        try:
            return self._interactive_auth.awaits(session, SSO)
        except MatrixError:
            raise SignOnFailed(
                "What your app wanted to do is over. Please begin again there.", status=404
            ) from None

    def _provider(self, provider_id: str) -> Provider:
        provider = self._providers.get(provider_id)
        if provider is None:
            raise SignOnFailed("This server knows no such provider to sign on with.", status=404)
        return provider


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "replace"))
