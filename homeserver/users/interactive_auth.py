"""User-interactive authentication: proving who one is, for one operation.

A session belongs to one operation from its start, and to one request body from the
first completed stage on: what is authorised is what was asked for.  Sessions are kept
in memory, bounded in number and time; a client whose session is gone is given another.
Specification: client-server API, "User-Interactive Authentication API".
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from homeserver.clock import Clock
from homeserver.errors import MatrixError, bad_json, forbidden
from homeserver.users.accounts import Accounts
from homeserver.users.registration import DUMMY, REGISTRATION_TOKEN, Registration

PASSWORD = "m.login.password"

_LIFETIME_S = 15 * 60
_MAX_SESSIONS = 5_000


@dataclass(frozen=True, slots=True)
class Operation:
    """What is to be authorised: an endpoint (``POST /delete_devices``), and whose account it is about."""

    endpoint: str
    user_id: str | None = None


class AuthenticationNeeded(MatrixError):
    """The 401 that tells the client what to do next; without ``errcode`` unless a stage failed."""

    def __init__(self, state: Mapping[str, Any], failure: MatrixError | None = None) -> None:
        errcode = failure.errcode if failure else "M_UNAUTHORIZED"
        super().__init__(401, errcode, failure.message if failure else "Authentication is needed", **state)
        self._failed = failure is not None

    def body(self) -> dict[str, Any]:
        """The reply's JSON body."""
        return super().body() if self._failed else dict(self.fields)


@dataclass(slots=True)
class _Session:
    id: str
    operation: Operation
    expires_at: float
    #: By stage, what completing it yielded: a user id, a registration token, or nothing.
    completed: dict[str, str] = field(default_factory=dict)
    #: Of the request, from the first completed stage on.
    digest: bytes | None = None


class InteractiveAuth:
    """Leads clients through the stages of an operation's flows."""

    def __init__(
        self,
        clock: Clock,
        accounts: Accounts,
        registration: Registration,
        *,
        max_sessions: int = _MAX_SESSIONS,
    ) -> None:
        self._clock = clock
        self._accounts = accounts
        self._registration = registration
        self._max_sessions = max_sessions
        self._sessions: OrderedDict[str, _Session] = OrderedDict()

    async def authorise(
        self, operation: Operation, body: Mapping[str, Any], flows: Sequence[Sequence[str]]
    ) -> dict[str, str]:
        """What each completed stage yielded, once all stages of one flow are completed.

        Raises ``AuthenticationNeeded`` until then, and 403 ``M_FORBIDDEN`` for a session
        that was begun for something else.
        """
        auth = body.get("auth")
        if auth is None:
            raise AuthenticationNeeded(_state(self._begin(operation), flows))
        stage = auth.get("type") if isinstance(auth, dict) else None
        if not isinstance(auth, dict) or not isinstance(stage, str | None):
            raise bad_json("'auth' must be an object, and its 'type' a string")
        digest = _digest({name: value for name, value in body.items() if name != "auth"})
        session = self._session(auth.get("session"), operation, digest)
        if stage is not None and stage not in session.completed:
            await self._complete_stage(session, stage, auth, flows)
            session.digest = digest
        if any(all(step in session.completed for step in flow) for flow in flows):
            self._sessions.pop(session.id, None)
            return session.completed
        raise AuthenticationNeeded(_state(session, flows))

    def _begin(self, operation: Operation) -> _Session:
        while self._sessions and (
            len(self._sessions) >= self._max_sessions
            or next(iter(self._sessions.values())).expires_at <= self._clock.monotonic()
        ):
            self._sessions.popitem(last=False)
        session = _Session(secrets.token_urlsafe(18), operation, self._clock.monotonic() + _LIFETIME_S)
        self._sessions[session.id] = session
        return session

    def _session(self, session_id: Any, operation: Operation, digest: bytes) -> _Session:
        """The session named, or a new one for clients that name none or one that is gone."""
        session = self._sessions.get(session_id) if isinstance(session_id, str) else None
        if session is None or session.expires_at <= self._clock.monotonic():
            return self._begin(operation)
        if session.operation != operation or session.digest not in (None, digest):
            raise forbidden("This session was begun for another request")
        return session

    async def _complete_stage(
        self, session: _Session, stage: str, auth: Mapping[str, Any], flows: Sequence[Sequence[str]]
    ) -> None:
        """Stages are completed in the order of a flow; a failure leaves the session as it was."""
        done = list(session.completed)
        try:
            if not any(list(flow[: len(done) + 1]) == [*done, stage] for flow in flows):
                raise MatrixError(401, "M_UNRECOGNIZED", f"'{stage[:50]}' is not the next stage of any flow")
            session.completed[stage] = await self._check(stage, auth, session.operation)
        except MatrixError as failure:
            if failure.status not in (401, 403):
                raise
            raise AuthenticationNeeded(_state(session, flows), failure) from None

    async def _check(self, stage: str, auth: Mapping[str, Any], operation: Operation) -> str:
        if stage == DUMMY:
            return ""
        if stage == REGISTRATION_TOKEN:
            token = auth.get("token")
            if not isinstance(token, str) or not await self._registration.is_valid(token):
                raise MatrixError(401, "M_UNAUTHORIZED", "The registration token is not valid")
            return token
        user, password = identified_user(auth), auth.get("password")
        if user is None or not isinstance(password, str):
            raise bad_json("The user identifier or the password is missing")
        user_id = await self._accounts.authenticate(user, password)
        if operation.user_id not in (None, user_id):
            raise forbidden("That is another user than the one who is logged in")
        return user_id


def identified_user(fields: Mapping[str, Any]) -> str | None:
    """The user id or localpart a client names (spec: "Identifier types"), if it names one.

    COMPAT: ``user`` beside ``type``, as older clients send it.
    """
    identifier = fields.get("identifier")
    if isinstance(identifier, dict):
        user = identifier.get("user") if identifier.get("type", "m.id.user") == "m.id.user" else None
    else:
        user = fields.get("user")
    return user if isinstance(user, str) and user else None


def _digest(request: Mapping[str, Any]) -> bytes:
    """Stands for a request without keeping it: it may be large, or hold a new password."""
    return hashlib.sha256(orjson.dumps(request, option=orjson.OPT_SORT_KEYS)).digest()


def _state(session: _Session, flows: Sequence[Sequence[str]]) -> dict[str, Any]:
    state: dict[str, Any] = {
        "session": session.id,
        "flows": [{"stages": list(flow)} for flow in flows],
        "params": {},
    }
    if session.completed:
        state["completed"] = list(session.completed)
    return state
