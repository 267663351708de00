"""User-interactive authentication: proving who one is, for one operation.

A session belongs to one operation from its start, and to one request body from the
first completed stage on: what is authorised is what was asked for.  Sessions are kept
in memory, bounded in number and time; a client whose session is gone is given another.
What a stage asks for and how it is checked is the stage's own business (``stages``);
one that is completed elsewhere, as in a browser, is reported with ``complete``.
Specification: client-server API, "User-Interactive Authentication API".
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
import orjson

from homeserver.clock import Clock
from homeserver.errors import MatrixError, bad_json, forbidden, not_found

PASSWORD = "m.login.password"

_LIFETIME_S = 15 * 60
_MAX_SESSIONS = 5_000


class Operation(msgspec.Struct, frozen=True):
    """What is to be authorised: an endpoint (``POST /delete_devices``), and whose account it is about."""

    endpoint: str
    user_id: str | None = None


class Stage(Protocol):
    """One kind of proof that a flow can ask for."""

    async def check(self, auth: Mapping[str, Any], operation: Operation) -> str:
        """What a client's ``auth`` proves: a user id, a token, or an empty text where it yields nothing.

        Raises ``MatrixError`` when it proves nothing; a 401 or 403 leads to another attempt.
        """
        ...

    def params(self, session: str) -> dict[str, Any]:
        """What a client has to know to complete the stage in this session; empty for nothing."""
        ...


class AuthenticationNeeded(MatrixError):
    """The 401 that tells the client what to do next; without ``errcode`` unless a stage failed."""

    def __init__(self, state: Mapping[str, Any], failure: MatrixError | None = None) -> None:
        errcode = failure.errcode if failure else "M_UNAUTHORIZED"
        super().__init__(401, errcode, failure.message if failure else "Authentication is needed", **state)
        self._failed = failure is not None

    def body(self) -> dict[str, Any]:
        """The reply's JSON body."""
        return super().body() if self._failed else dict(self.fields)


class _Session(msgspec.Struct):
    id: str
    operation: Operation
    expires_at: float
    flows: Sequence[Sequence[str]]
    #: Of the latest request, which is the one that a stage completed elsewhere was completed for.
    asked: bytes | None = None
    #: By stage, what completing it yielded: a user id, a registration token, or nothing.
    completed: dict[str, str] = msgspec.field(default_factory=dict)
    #: Of the request, from the first completed stage on.
    digest: bytes | None = None


class InteractiveAuth:
    """Leads clients through the stages of an operation's flows.

    ``stages`` are those that a flow may name, by their types; more may be added
    before the first request.
    """

    def __init__(
        self, clock: Clock, stages: Mapping[str, Stage], *, max_sessions: int = _MAX_SESSIONS
    ) -> None:
        self._clock = clock
        self.stages = dict(stages)
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
        digest = _digest({name: value for name, value in body.items() if name != "auth"})
        if auth is None:
            raise AuthenticationNeeded(self._state(self._begin(operation, flows, digest)))
        stage = auth.get("type") if isinstance(auth, dict) else None
        if not isinstance(auth, dict) or not isinstance(stage, str | None):
            raise bad_json("'auth' must be an object, and its 'type' a string")
        session = self._session(auth.get("session"), operation, flows, digest)
        if stage is not None and stage not in session.completed:
            await self._complete_stage(session, stage, auth)
        if session.completed:
            session.digest = digest
        if any(all(step in session.completed for step in flow) for flow in flows):
            if self._sessions.pop(session.id, None) is None:
                # Another request ended it while a stage was checked, and a session serves once.
                raise AuthenticationNeeded(self._state(self._begin(operation, flows, digest)))
            return session.completed
        raise AuthenticationNeeded(self._state(session))

    def awaits(self, session_id: str, stage: str) -> Operation:
        """The operation of a session whose next stage may be this one, or was.

        Raises ``M_NOT_FOUND`` when there is no such session or it asks for something else.
        """
        session = self._sessions.get(session_id)
        if session is None or session.expires_at <= self._clock.monotonic():
            raise not_found("There is no such session, or it has ended")
        if stage not in session.completed and not _is_next(session, stage):
            raise not_found("The session does not ask for that now")
        return session.operation

    def complete(self, session_id: str, stage: str, yielded: str) -> None:
        """Note that a stage was completed elsewhere than in a request of the client.

        What it proved counts for the latest request of the session if that is about an
        account.  Raises as ``awaits``.
        """
        self.awaits(session_id, stage)
        session = self._sessions[session_id]
        session.completed.setdefault(stage, yielded)
        # Who registers may still choose a name: nothing is theirs yet that the request could change.
        if session.operation.user_id is not None and session.digest is None:
            session.digest = session.asked

    async def answer(self, session_id: str, stage: str, auth: Mapping[str, Any]) -> None:
        """Complete a stage with what somebody gave elsewhere than in a request of the client.

        Raises as ``awaits`` and ``Stage.check``.
        """
        operation = self.awaits(session_id, stage)
        self.complete(session_id, stage, await self.stages[stage].check(auth, operation))

    def _begin(self, operation: Operation, flows: Sequence[Sequence[str]], digest: bytes) -> _Session:
        now = self._clock.monotonic()
        while self._sessions and (
            len(self._sessions) >= self._max_sessions or next(iter(self._sessions.values())).expires_at <= now
        ):
            self._sessions.popitem(last=False)
        session = _Session(secrets.token_urlsafe(18), operation, now + _LIFETIME_S, flows, digest)
        self._sessions[session.id] = session
        return session

    def _session(
        self, session_id: Any, operation: Operation, flows: Sequence[Sequence[str]], digest: bytes
    ) -> _Session:
        """The session named, or a new one for clients that name none or one that is gone."""
        session = self._sessions.get(session_id) if isinstance(session_id, str) else None
        if session is None or session.expires_at <= self._clock.monotonic():
            return self._begin(operation, flows, digest)
        if session.operation != operation or session.digest not in (None, digest):
            raise forbidden("This session was begun for another request")
        session.flows, session.asked = flows, digest
        return session

    async def _complete_stage(self, session: _Session, stage: str, auth: Mapping[str, Any]) -> None:
        """Stages are completed in the order of a flow; a failure leaves the session as it was."""
        try:
            if stage not in self.stages or not _is_next(session, stage):
                raise MatrixError(401, "M_UNRECOGNIZED", f"'{stage[:50]}' is not the next stage of any flow")
            session.completed[stage] = await self.stages[stage].check(auth, session.operation)
        except MatrixError as failure:
            if failure.status not in (401, 403):
                raise
            raise AuthenticationNeeded(self._state(session), failure) from None

    def _state(self, session: _Session) -> dict[str, Any]:
        """What a client is told of a session that is not complete."""
        offered = dict.fromkeys(stage for flow in session.flows for stage in flow)
        params = {name: self.stages[name].params(session.id) for name in offered if name in self.stages}
        state: dict[str, Any] = {
            "session": session.id,
            "flows": [{"stages": list(flow)} for flow in session.flows],
            "params": {name: fields for name, fields in params.items() if fields},
        }
        if session.completed:
            state["completed"] = list(session.completed)
        return state


def _is_next(session: _Session, stage: str) -> bool:
    """Whether a flow goes on with this stage after those that are completed."""
    done = [*session.completed, stage]
    return any(list(flow[: len(done)]) == done for flow in session.flows)


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
