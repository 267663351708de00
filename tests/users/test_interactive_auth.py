"""User-interactive authentication: flows of several stages, and sessions that are bound and bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from homeserver.clock import FakeClock
from homeserver.errors import MatrixError
from homeserver.storage.database import Database
from homeserver.users.accounts import Accounts
from homeserver.users.interactive_auth import AuthenticationNeeded, InteractiveAuth, Operation
from homeserver.users.passwords import Passwords
from homeserver.users.registration import Registration, RegistrationMode
from homeserver.users.stages import basic_stages

DUMMY, TOKEN, PASSWORD = "m.login.dummy", "m.login.registration_token", "m.login.password"
REGISTER = Operation("POST /register")


class World:
    def __init__(self, db: Database) -> None:
        self.clock = FakeClock()
        accounts = Accounts(db, self.clock, Passwords(memory_kib=8, time_cost=1), "a.org")
        registration = Registration(db, self.clock, RegistrationMode.TOKEN, ["good"])
        self.auth = InteractiveAuth(self.clock, basic_stages(accounts, registration), max_sessions=3)

    async def needed(
        self,
        body: dict[str, Any],
        flows: Sequence[Sequence[str]] = ((TOKEN, DUMMY),),
        operation: Operation = REGISTER,
    ) -> dict[str, Any]:
        with pytest.raises(AuthenticationNeeded) as caught:
            await self.auth.authorise(operation, body, flows)
        return caught.value.body()


@pytest.fixture
def world(sqlite_database: Database) -> World:
    return World(sqlite_database)


def auth(stage: str | None, session: str | None = None, **fields: Any) -> dict[str, Any]:
    given = {"type": stage, "session": session, **fields}
    return {name: value for name, value in given.items() if value is not None}


async def test_the_stages_of_a_flow_are_completed_in_order(world: World) -> None:
    flows = [[TOKEN, DUMMY]]
    session = (await world.needed({"a": 1}))["session"]
    too_early = await world.needed({"a": 1, "auth": auth(DUMMY, session)})
    assert (too_early["errcode"], "completed" in too_early) == ("M_UNRECOGNIZED", False)
    halfway = await world.needed({"a": 1, "auth": auth(TOKEN, session, token="good")})
    assert (halfway["completed"], "errcode" in halfway) == ([TOKEN], False)
    repeated = await world.needed({"a": 1, "auth": auth(TOKEN, session, token="bad")})
    assert repeated["completed"] == [TOKEN]
    body = {"a": 1, "auth": auth(DUMMY, session)}
    assert await world.auth.authorise(REGISTER, body, flows) == {TOKEN: "good", DUMMY: ""}


async def test_a_failed_stage_leaves_the_session_as_it_was(world: World) -> None:
    session = (await world.needed({}))["session"]
    failed = await world.needed({"auth": auth(TOKEN, session, token="bad")})
    assert (failed["errcode"], failed["session"]) == ("M_UNAUTHORIZED", session)
    assert (await world.needed({"auth": auth(TOKEN, session, token="good")}))["completed"] == [TOKEN]


async def test_a_session_without_a_stage_says_how_far_it_is(world: World) -> None:
    session = (await world.needed({"auth": auth(TOKEN, token="good")}))["session"]
    assert (await world.needed({"auth": auth(None, session)}))["completed"] == [TOKEN]


async def test_once_a_stage_is_completed_the_request_may_not_change(world: World) -> None:
    session = (await world.needed({}))["session"]
    await world.needed({"name": "x", "auth": auth(TOKEN, session, token="good")})
    with pytest.raises(MatrixError) as caught:
        await world.auth.authorise(REGISTER, {"name": "y", "auth": auth(DUMMY, session)}, [[TOKEN, DUMMY]])
    assert caught.value.status == 403


async def test_a_session_does_not_serve_another_operation_or_user(world: World) -> None:
    session = (await world.needed({}, operation=Operation("DELETE /devices/A", "@a:a.org")))["session"]
    for other in (Operation("DELETE /devices/B", "@a:a.org"), Operation("DELETE /devices/A", "@b:a.org")):
        with pytest.raises(MatrixError) as caught:
            await world.auth.authorise(other, {"auth": auth(DUMMY, session)}, [[DUMMY]])
        assert caught.value.errcode == "M_FORBIDDEN"


async def test_a_session_serves_once(world: World) -> None:
    session = (await world.needed({}, [[DUMMY]]))["session"]
    body = {"auth": auth(DUMMY, session)}
    await world.auth.authorise(REGISTER, body, [[DUMMY]])
    again = await world.needed({"auth": auth(None, session)}, [[DUMMY]])
    assert again["session"] != session


class Slow:
    """A stage that is completed by whoever waits, once it is let go."""

    def __init__(self) -> None:
        self.waiting = asyncio.Semaphore(0)
        self.let_go = asyncio.Event()

    async def check(self, auth: Mapping[str, Any], operation: Operation) -> str:
        self.waiting.release()
        await self.let_go.wait()
        return ""

    def params(self, session: str) -> dict[str, Any]:
        return {}


async def test_a_session_serves_one_of_two_requests_at_the_same_moment(world: World) -> None:
    slow = world.auth.stages["slow"] = Slow()
    session = (await world.needed({}, [["slow"]]))["session"]
    async with asyncio.timeout(10), asyncio.TaskGroup() as both:
        asked = [both.create_task(authorised(world, auth("slow", session))) for _ in range(2)]
        for _ in asked:
            await slow.waiting.acquire()
        slow.let_go.set()
    assert sorted(task.result() for task in asked) == [False, True]


async def authorised(world: World, given: dict[str, Any]) -> bool:
    try:
        await world.auth.authorise(REGISTER, {"auth": given}, [["slow"]])
    except AuthenticationNeeded:
        return False
    return True


@pytest.mark.parametrize("loses_by", ["time", "number"])
async def test_a_session_that_is_gone_is_replaced_by_an_empty_one(world: World, loses_by: str) -> None:
    session = (await world.needed({"auth": auth(TOKEN, token="good")}))["session"]
    if loses_by == "time":
        world.clock.advance(16 * 60)
    else:
        for _ in range(3):
            await world.needed({})
    replaced = await world.needed({"auth": auth(None, session)})
    assert replaced["session"] != session
    assert "completed" not in replaced


async def test_a_stage_of_the_wrong_shape_is_the_clients_mistake(world: World) -> None:
    wrong: list[Any] = [{"type": PASSWORD}, {"type": PASSWORD, "identifier": {"user": "x"}}, []]
    for given in wrong:
        with pytest.raises(MatrixError) as caught:
            await world.auth.authorise(REGISTER, {"auth": given}, [[PASSWORD]])
        assert caught.value.errcode == "M_BAD_JSON"


async def test_a_stage_completed_elsewhere_counts_once_the_client_names_its_session(world: World) -> None:
    flows = [[TOKEN, DUMMY]]
    session = (await world.needed({}))["session"]
    world.auth.complete(session, TOKEN, "good")
    assert (await world.needed({"name": "x", "auth": {"session": session}}))["completed"] == [TOKEN]
    world.auth.complete(session, DUMMY, "")
    body = {"name": "x", "auth": {"session": session}}
    assert await world.auth.authorise(REGISTER, body, flows) == {TOKEN: "good", DUMMY: ""}


async def test_what_was_proved_elsewhere_is_for_what_was_asked_for_on_an_account(world: World) -> None:
    deletion = Operation("POST /delete_devices", "@a:a.org")
    session = (await world.needed({"devices": ["A"]}, [[PASSWORD]], deletion))["session"]
    world.auth.complete(session, PASSWORD, "@a:a.org")
    with pytest.raises(MatrixError) as caught:
        await world.auth.authorise(deletion, {"devices": ["B"], "auth": {"session": session}}, [[PASSWORD]])
    assert caught.value.errcode == "M_FORBIDDEN"
    body = {"devices": ["A"], "auth": {"session": session}}
    assert await world.auth.authorise(deletion, body, [[PASSWORD]]) == {PASSWORD: "@a:a.org"}


async def test_only_the_next_stage_of_a_session_can_be_completed_elsewhere(world: World) -> None:
    session = (await world.needed({}))["session"]
    for session_id, stage in (("unknown", TOKEN), (session, DUMMY), (session, PASSWORD)):
        with pytest.raises(MatrixError) as caught:
            world.auth.complete(session_id, stage, "")
        assert caught.value.errcode == "M_NOT_FOUND"
    assert world.auth.awaits(session, TOKEN) == REGISTER
    world.clock.advance(16 * 60)
    with pytest.raises(MatrixError):
        world.auth.awaits(session, TOKEN)
