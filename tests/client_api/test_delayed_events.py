"""Events that are sent later (MSC4140): scheduled, managed and looked up over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from homeserver.calls import Calls
from homeserver.config import RateLimits
from homeserver.config.calls import DelayedEvents
from homeserver.rooms import delayed_events
from homeserver.rooms.delayed_events import KEPT_MS
from homeserver.storage.database import Database
from homeserver.storage.events import StoredEvent
from homeserver.users.requester import Requester
from tests.client_api.account_server import AccountServer, account_server, configured, segment
from tests.client_api.person import Person
from tests.followers import until

UNSTABLE = "/_matrix/client/unstable/org.matrix.msc4140"
EVENTS = f"{UNSTABLE}/delayed_events"
STABLE = "/_matrix/client/v1/delayed_events"
MEMBER = "org.matrix.msc3401.call.member"
HELLO = {"msgtype": "m.text", "body": "hello"}


async def room_of(person: Person, **settings: Any) -> str:
    levels = {"events": {MEMBER: 0, "org.example.state": 0}}
    wish = {"preset": "public_chat", "power_level_content_override": levels, **settings}
    room_id: str = (await person.call("POST", "/createRoom", wish))["room_id"]
    return room_id


def send_path(room: str, txn: str = "t1", delay: object = 1000, type_: str = "m.room.message") -> str:
    return f"/rooms/{segment(room)}/send/{type_}/{txn}?org.matrix.msc4140.delay={delay}"


def state_path(room: str, key: str, delay: object = 1000, type_: str = MEMBER) -> str:
    return f"/rooms/{segment(room)}/state/{type_}/{segment(key)}?org.matrix.msc4140.delay={delay}"


async def schedule(person: Person, path: str, content: dict[str, Any] | None = None) -> str:
    delay_id: str = (await person.call("PUT", path, HELLO if content is None else content))["delay_id"]
    return delay_id


async def scheduled(person: Person) -> list[str]:
    return [one["delay_id"] for one in (await person.call("GET", EVENTS))["delayed_events"]]


async def time_passes(server: AccountServer, seconds: float) -> None:
    server.clock.advance(seconds)
    await server.calls.delayed.send_due()


async def said(person: Person, room: str) -> list[str]:
    """The texts in a room, oldest first."""
    reply = await person.call("GET", f"/rooms/{segment(room)}/messages?dir=f&limit=100")
    return [one["content"]["body"] for one in reply["chunk"] if one["type"] == "m.room.message"]


async def test_a_message_is_sent_when_its_time_has_come(server: AccountServer, alice: Person) -> None:
    room = await room_of(alice)
    delay_id = await schedule(alice, send_path(room, delay=1500))
    await time_passes(server, 1.4)
    assert (await said(alice, room), await scheduled(alice)) == ([], [delay_id])
    await time_passes(server, 0.1)
    assert (await said(alice, room), await scheduled(alice)) == (["hello"], [])
    one = await alice.call("GET", f"{EVENTS}/{delay_id}")
    assert one["event_id"].startswith("$")
    assert one["finalised_ts"] == one["scheduled_at"] + one["delay_ms"]
    await time_passes(server, 60)
    assert await said(alice, room) == ["hello"]


async def test_several_are_sent_in_the_order_of_their_times(server: AccountServer, alice: Person) -> None:
    room = await room_of(alice)
    for delay in (900, 700, 800):
        await schedule(alice, send_path(room, f"t{delay}", delay), {"msgtype": "m.text", "body": str(delay)})
    assert len(await scheduled(alice)) == 3
    await time_passes(server, 10)
    assert await said(alice, room) == ["700", "800", "900"]


async def test_a_repeated_request_schedules_nothing_more(server: AccountServer, alice: Person) -> None:
    room = await room_of(alice)
    delay_id = await schedule(alice, send_path(room))
    # The body is not looked at any more.
    assert await alice.call("PUT", send_path(room)) == {"delay_id": delay_id}
    both = await asyncio.gather(*(schedule(alice, send_path(room, "t2")) for _ in range(2)))
    assert both[0] == both[1] != delay_id
    await time_passes(server, 2)
    assert await said(alice, room) == ["hello", "hello"]
    assert await alice.call("PUT", send_path(room)) == {"delay_id": delay_id}


async def test_the_endpoint_of_its_own(server: AccountServer, alice: Person) -> None:
    room = await room_of(alice)
    for number, prefix in enumerate((UNSTABLE, "/_matrix/client/v3")):
        path = f"{prefix}/rooms/{segment(room)}/delayed_event/{MEMBER}/t{number}"
        body = {"delay_ms": 1000, "state_key": f"k{number}", "content": {"n": number}}
        delay_id = await schedule(alice, path, body)
        one = await alice.call("GET", f"{STABLE}/{delay_id}")
        shown = {name: one[name] for name in ("type", "state_key", "delay_ms", "content", "room_id")}
        assert shown == {"type": MEMBER, **body, "room_id": room}
        assert "finalised_ts" not in one
    await time_passes(server, 1)
    assert await alice.call("GET", f"/rooms/{segment(room)}/state/{MEMBER}/k1") == {"n": 1}


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"delay_ms": 0, "content": {}}, "M_INVALID_PARAM"),
        ({"delay_ms": -5, "content": {}}, "M_INVALID_PARAM"),
        ({"content": {}}, "M_BAD_JSON"),
        ({"delay_ms": 5}, "M_BAD_JSON"),
        ({"delay_ms": "5", "content": {}}, "M_BAD_JSON"),
        ({"delay_ms": 5, "content": []}, "M_BAD_JSON"),
        ({"delay_ms": 5, "content": {}, "state_key": 7}, "M_BAD_JSON"),
    ],
)
async def test_what_it_takes(alice: Person, body: dict[str, Any], errcode: str) -> None:
    path = f"{UNSTABLE}/rooms/!r:a.org/delayed_event/m.x/t"
    assert await alice.server.refused("PUT", path, body, token=alice.token) == (400, errcode)


@pytest.mark.parametrize("delay", ["0", "-1", "soon", "", "1.5"])
async def test_a_delay_is_a_number_of_milliseconds(alice: Person, delay: str) -> None:
    room = await room_of(alice)
    for path in (send_path(room, delay=delay), state_path(room, "k", delay)):
        assert await alice.server.refused("PUT", path, HELLO, token=alice.token) == (400, "M_INVALID_PARAM")
    assert await scheduled(alice) == []


async def test_delays_do_not_wait_for_each_other(alice: Person) -> None:
    path = send_path(await room_of(alice)) + "&org.matrix.msc4140.parent_delay_id=x"
    assert await alice.server.refused("PUT", path, HELLO, token=alice.token) == (400, "M_INVALID_PARAM")


async def test_what_can_never_be_sent_is_not_scheduled(alice: Person) -> None:
    room = await room_of(alice)
    large = {"body": "x" * 70_000}
    refused = await alice.server.refused("PUT", send_path(room), large, token=alice.token)
    assert refused == (413, "M_TOO_LARGE")
    endpoint = f"{UNSTABLE}/rooms/{segment(room)}/delayed_event/{MEMBER}/t9"
    body = {"delay_ms": 1000, "state_key": "k" * 256, "content": {}}
    assert await alice.server.refused("PUT", endpoint, body, token=alice.token) == (413, "M_TOO_LARGE")
    long_type = send_path(room, type_="m" * 256)
    assert await alice.server.refused("PUT", long_type, {}, token=alice.token) == (413, "M_TOO_LARGE")
    create = send_path(room, type_="m.room.create")
    assert await alice.server.refused("PUT", create, {}, token=alice.token) == (400, "M_INVALID_PARAM")
    nowhere = send_path("nowhere")
    assert await alice.server.refused("PUT", nowhere, {}, token=alice.token) == (400, "M_INVALID_PARAM")


async def test_a_delay_has_a_limit(alice: Person) -> None:
    room, day = await room_of(alice), 24 * 3600 * 1000
    status, reply = await alice.server.call("PUT", send_path(room, delay=day + 1), HELLO, token=alice.token)
    assert (status, reply["errcode"]) == (400, "M_UNKNOWN")
    assert reply["org.matrix.msc4140.errcode"] == "M_MAX_DELAY_EXCEEDED"
    assert reply["org.matrix.msc4140.max_delay"] == day
    path, body = f"{UNSTABLE}/rooms/{room}/delayed_event/m.x/t", {"delay_ms": day + 1, "content": {}}
    assert await alice.server.refused("PUT", path, body, token=alice.token) == (403, "M_FORBIDDEN")
    assert await schedule(alice, send_path(room, "t2", day))


@pytest.fixture
async def strict(sqlite_database: Database) -> AsyncIterator[Person]:
    """Somebody who may have two events scheduled."""
    limits = DelayedEvents(max_per_user=2, max_delay=3600)
    async with account_server(sqlite_database, config=configured(delayed_events=limits)) as server:
        yield await Person.arrives(server, "alice")


async def test_only_so_many_are_scheduled_at_a_time(strict: Person) -> None:
    room, server = await room_of(strict), strict.server
    await schedule(strict, send_path(room, "t1", 30_500))
    await schedule(strict, state_path(room, "k", 60_000))
    status, reply = await server.call("PUT", send_path(room, "t2"), HELLO, token=strict.token)
    assert (status, reply["errcode"]) == (400, "M_UNKNOWN")
    assert reply["org.matrix.msc4140.errcode"] == "M_MAX_DELAYED_EVENTS_EXCEEDED"
    path, body = f"{UNSTABLE}/rooms/{room}/delayed_event/m.x/t", {"delay_ms": 5, "content": {}}
    status, reply = await server.call("PUT", path, body, token=strict.token)
    assert (status, reply["errcode"], reply["retry_after_ms"]) == (429, "M_LIMIT_EXCEEDED", 30_500)
    other = await Person.arrives(server, "bob")
    assert await schedule(other, send_path(room))
    await time_passes(server, 31)
    assert await schedule(strict, path, body)
    capabilities = (await strict.call("GET", "/capabilities"))["capabilities"]
    limits = {"max_delay_ms": 3_600_000, "max_scheduled": 2}
    assert capabilities["org.matrix.msc4140.delayed_events"] == limits


async def test_they_may_be_switched_off(sqlite_database: Database) -> None:
    off = configured(delayed_events=DelayedEvents(enabled=False))
    async with account_server(sqlite_database, config=off) as server:
        alice = await Person.arrives(server, "alice")
        path = send_path(await room_of(alice))
        assert await server.refused("PUT", path, HELLO, token=alice.token) == (403, "M_FORBIDDEN")
        features = (await alice.call("GET", "/_matrix/client/versions"))["unstable_features"]
        assert "org.matrix.msc4140" not in features
        assert not {
            one for one in (await alice.call("GET", "/capabilities"))["capabilities"] if "4140" in one
        }


async def test_they_are_advertised(alice: Person) -> None:
    features = (await alice.call("GET", "/_matrix/client/versions"))["unstable_features"]
    assert features["org.matrix.msc4140"] is True


async def in_path(person: Person, delay_id: str, action: str) -> tuple[int, Any]:
    return await person.server.call("POST", f"{EVENTS}/{delay_id}/{action}", token=person.token)


async def in_body(person: Person, delay_id: str, action: str) -> tuple[int, Any]:
    return await person.server.call("POST", f"{EVENTS}/{delay_id}", {"action": action}, token=person.token)


async def stably(person: Person, delay_id: str, action: str) -> tuple[int, Any]:
    return await person.server.call("POST", f"{STABLE}/{delay_id}/{action}", {}, token=person.token)


async def by_nobody(person: Person, delay_id: str, action: str) -> tuple[int, Any]:
    return await person.server.call("POST", f"{EVENTS}/{delay_id}/{action}", {})


@pytest.mark.parametrize("manage", [in_path, in_body, stably, by_nobody])
async def test_it_is_cancelled_restarted_and_sent_before_its_time(
    server: AccountServer,
    alice: Person,
    manage: Callable[[Person, str, str], Awaitable[tuple[int, Any]]],
) -> None:
    room = await room_of(alice)
    cancelled = await schedule(alice, send_path(room, "t1"), {"body": "cancelled", "msgtype": "m.text"})
    restarted = await schedule(alice, send_path(room, "t2"), {"body": "restarted", "msgtype": "m.text"})
    hurried = await schedule(alice, send_path(room, "t3"), {"body": "hurried", "msgtype": "m.text"})
    server.clock.advance(0.9)
    for delay_id, action in ((cancelled, "cancel"), (restarted, "restart"), (hurried, "send")):
        assert await manage(alice, delay_id, action) == (200, {})
    assert await said(alice, room) == ["hurried"]
    await time_passes(server, 0.9)
    assert await said(alice, room) == ["hurried"]
    await time_passes(server, 0.1)
    assert await said(alice, room) == ["hurried", "restarted"]
    # The same again does nothing more, and something else is too late.
    for delay_id, action in ((cancelled, "cancel"), (restarted, "send"), (hurried, "send")):
        assert await manage(alice, delay_id, action) == (200, {})
    for delay_id, action in ((cancelled, "send"), (cancelled, "restart"), (hurried, "cancel")):
        status, reply = await manage(alice, delay_id, action)
        assert (status, reply["errcode"]) == (409, "M_UNKNOWN")
    # Who kept a call alive is to begin anew.
    status, reply = await manage(alice, restarted, "restart")
    assert (status, reply["errcode"]) == (404, "M_NOT_FOUND")
    assert await said(alice, room) == ["hurried", "restarted"]


async def test_nobody_manages_what_others_scheduled(
    server: AccountServer, alice: Person, bob: Person
) -> None:
    room = await room_of(alice)
    delay_id = await schedule(alice, send_path(room))
    for action in ("cancel", "restart", "send"):
        path = f"{EVENTS}/{delay_id}/{action}"
        assert await server.refused("POST", path, {}, token=bob.token) == (404, "M_NOT_FOUND")
        assert await server.refused("POST", f"{STABLE}/{delay_id}/{action}", {}) == (401, "M_MISSING_TOKEN")
        assert await server.refused("POST", f"{EVENTS}/abc/{action}", {}) == (404, "M_NOT_FOUND")
    assert await server.refused("POST", f"{EVENTS}/abc/oops", {}) == (404, "M_UNRECOGNIZED")
    assert await server.refused("POST", f"{EVENTS}/abc", {}) == (400, "M_BAD_JSON")
    assert await server.refused("GET", f"{EVENTS}/{delay_id}", token=bob.token) == (404, "M_NOT_FOUND")
    assert await server.refused("GET", EVENTS) == (401, "M_MISSING_TOKEN")
    assert (await scheduled(bob), await scheduled(alice)) == ([], [delay_id])


async def test_who_may_send_is_asked_when_the_time_has_come(
    server: AccountServer, alice: Person, bob: Person
) -> None:
    room = await room_of(alice)
    early = await schedule(bob, send_path(room))
    await time_passes(server, 1)
    one = await bob.call("GET", f"{EVENTS}/{early}")
    assert one["error"]["errcode"] == "M_FORBIDDEN"
    assert "event_id" not in one
    late = await schedule(bob, send_path(room, "t2"))
    await bob.call("POST", f"/rooms/{segment(room)}/join", {})
    await time_passes(server, 1)
    assert (await bob.call("GET", f"{EVENTS}/{late}"))["event_id"]
    kicked = await schedule(bob, state_path(room, bob.user_id), {})
    await alice.call("POST", f"/rooms/{segment(room)}/kick", {"user_id": bob.user_id})
    await time_passes(server, 1)
    assert (await bob.call("GET", f"{EVENTS}/{kicked}"))["error"]["errcode"] == "M_FORBIDDEN"


async def test_what_cannot_be_sent_now_may_be_sent_later(
    server: AccountServer, alice: Person, bob: Person
) -> None:
    room = await room_of(alice)
    delay_id = await schedule(bob, send_path(room))
    status, reply = await in_path(bob, delay_id, "send")
    assert (status, reply["errcode"], await scheduled(bob)) == (403, "M_FORBIDDEN", [delay_id])
    await bob.call("POST", f"/rooms/{segment(room)}/join", {})
    assert await in_path(bob, delay_id, "send") == (200, {})
    assert await said(alice, room) == ["hello"]


async def test_a_hang_up_is_put_off_by_heartbeats(server: AccountServer, alice: Person) -> None:
    """As Element Call does it: first the delayed leaving, then the membership, then restarts."""
    room, key = await room_of(alice), f"_{alice.user_id}_PHONE_m.call"
    delay_id = await schedule(alice, state_path(room, key, 8000), {})
    path = f"/rooms/{segment(room)}/state/{MEMBER}/{segment(key)}"
    await alice.call("PUT", path, {"application": "m.call", "device_id": "PHONE"})
    for _ in range(5):
        await time_passes(server, 5)
        assert await in_path(alice, delay_id, "restart") == (200, {})
    assert (await alice.call("GET", path))["application"] == "m.call"
    await time_passes(server, 8)
    assert await alice.call("GET", path) == {}
    assert (await in_path(alice, delay_id, "restart"))[0] == 404


async def test_state_of_somebody_else_cancels_it(server: AccountServer, alice: Person, bob: Person) -> None:
    room = await room_of(alice)
    await bob.call("POST", f"/rooms/{segment(room)}/join", {})
    kind = "org.example.state"
    delay_id = await schedule(alice, state_path(room, "k", type_=kind), {"by": "alice, later"})
    other_key = await schedule(alice, state_path(room, "other", type_=kind), {"by": "alice, later"})
    await alice.call("PUT", f"/rooms/{segment(room)}/state/{kind}/k", {"by": "alice"})
    assert await scheduled(alice) == [delay_id, other_key] or await scheduled(alice) == [other_key, delay_id]
    await bob.call("PUT", f"/rooms/{segment(room)}/state/{kind}/k", {"by": "bob"})
    async with asyncio.timeout(30):
        while await scheduled(alice) != [other_key]:
            continue
    await time_passes(server, 1)
    assert await alice.call("GET", f"/rooms/{segment(room)}/state/{kind}/k") == {"by": "bob"}
    one = await alice.call("GET", f"{EVENTS}/{delay_id}")
    assert "finalised_ts" in one
    assert not {"event_id", "error"} & one.keys()


async def test_redactions_and_memberships_can_wait_too(
    server: AccountServer, alice: Person, bob: Person
) -> None:
    room = await room_of(alice)
    await bob.call("POST", f"/rooms/{segment(room)}/join", {})
    event_id = (await alice.call("PUT", f"/rooms/{segment(room)}/send/m.room.message/x", HELLO))["event_id"]
    await schedule(alice, send_path(room, "t1", type_="m.room.redaction"), {"redacts": event_id})
    leaving = state_path(room, bob.user_id, type_="m.room.member")
    kicked = await schedule(alice, leaving, {"membership": "leave"})
    unknown = await schedule(alice, send_path(room, "t2", type_="m.room.redaction"), {"redacts": "$no"})
    await time_passes(server, 1)
    event = await alice.call("GET", f"/rooms/{segment(room)}/event/{event_id}")
    assert event["content"] == {}
    assert bob.user_id not in (await alice.call("GET", f"/rooms/{segment(room)}/joined_members"))["joined"]
    assert (await alice.call("GET", f"{EVENTS}/{kicked}"))["event_id"]
    assert (await alice.call("GET", f"{EVENTS}/{unknown}"))["error"]["errcode"] == "M_NOT_FOUND"


async def test_state_that_is_so_already_counts_as_sent(server: AccountServer, alice: Person) -> None:
    room = await room_of(alice)
    path = f"/rooms/{segment(room)}/state/{MEMBER}/k"
    event_id = (await alice.call("PUT", path, {"n": 1}))["event_id"]
    delay_id = await schedule(alice, state_path(room, "k"), {"n": 1})
    await time_passes(server, 1)
    assert (await alice.call("GET", f"{EVENTS}/{delay_id}"))["event_id"] == event_id


async def test_the_sender_alone_is_told_which_it_was(
    server: AccountServer, alice: Person, bob: Person
) -> None:
    room = await room_of(alice)
    await bob.call("POST", f"/rooms/{segment(room)}/join", {})
    delay_id = await schedule(alice, send_path(room))
    await time_passes(server, 1)

    async def told(person: Person) -> list[str | None]:
        events = (await person.sync())["rooms"]["join"][room]["timeline"]["events"]
        unsigned = [one["unsigned"] for one in events if one["type"] == "m.room.message"]
        return [one.get("org.matrix.msc4140.delay_id") for one in unsigned]

    assert await told(alice) == [delay_id]
    assert await told(bob) == [None]


async def test_what_became_of_them_is_told_page_by_page(server: AccountServer, alice: Person) -> None:
    room = await room_of(alice)
    ids = []
    for number in range(55):
        ids.append(await schedule(alice, send_path(room, f"t{number}", 10 + number)))
        if number >= 50:
            await in_path(alice, ids[-1], "cancel")
    await time_passes(server, 1)
    first = await alice.call("GET", f"{EVENTS}?status=finalised")
    second = await alice.call("GET", f"{EVENTS}?status=finalised&from={first['next_batch']}")
    assert "next_batch" not in second
    outcomes = [*first["finalised"], *second["finalised"]]
    assert sorted(one["delayed_event"]["delay_id"] for one in outcomes) == sorted(ids)
    kinds = {(one["outcome"], one["reason"]) for one in outcomes}
    assert kinds == {("send", "delay"), ("cancel", "action")}
    one_of_them = await alice.call("GET", f"{EVENTS}?status=finalised&delay_id={ids[54]}")
    assert len(one_of_them["finalised"]) == 1
    waiting = await schedule(alice, send_path(room, "waiting"))
    reply = await alice.call("GET", f"{EVENTS}?status=scheduled&delay_id={waiting}")
    assert [one["delay_id"] for one in reply["scheduled"]] == [waiting]
    for query in ("status=lost", "status=finalised&from=x_y"):
        refused = await server.refused("GET", f"{EVENTS}?{query}", token=alice.token)
        assert refused == (400, "M_INVALID_PARAM")


async def test_outcomes_are_forgotten_after_a_week(server: AccountServer, alice: Person) -> None:
    room = await room_of(alice)
    old = await schedule(alice, send_path(room))
    await in_path(alice, old, "cancel")
    server.clock.advance(KEPT_MS / 1000 + 1)
    young = await schedule(alice, send_path(room, "t2"))
    await in_path(alice, young, "cancel")
    await server.calls.delayed.forget_old()
    assert await server.refused("GET", f"{EVENTS}/{old}", token=alice.token) == (404, "M_NOT_FOUND")
    assert await alice.call("GET", f"{EVENTS}/{young}")


async def test_nothing_is_sent_for_an_account_that_has_ended(server: AccountServer, alice: Person) -> None:
    bob = await Person.arrives(server, "bob")
    room = await room_of(bob)
    await alice.call("POST", f"/rooms/{segment(room)}/join", {})
    await schedule(alice, send_path(room))
    await schedule(alice, state_path(room, "k"), {"by": "alice"})
    await server.accounts.deactivate(alice.user_id)
    await time_passes(server, 1)
    assert await said(bob, room) == []
    assert await server.refused("GET", f"/rooms/{segment(room)}/state/{MEMBER}/k", token=bob.token) == (
        404,
        "M_NOT_FOUND",
    )


async def test_but_for_a_device_that_has_logged_out(
    server: AccountServer, alice: Person, bob: Person
) -> None:
    room = await room_of(bob)
    await alice.call("POST", f"/rooms/{segment(room)}/join", {})
    await schedule(alice, send_path(room))
    await alice.call("POST", "/logout", {})
    await time_passes(server, 1)
    assert await said(bob, room) == ["hello"]


@pytest.mark.parametrize(
    ("standing", "errcode"),
    [({"suspended": True}, "M_USER_SUSPENDED"), ({"locked": True}, "M_USER_LOCKED")],
)
async def test_the_account_counts_as_it_stands_then(
    server: AccountServer, alice: Person, standing: dict[str, bool], errcode: str
) -> None:
    room = await room_of(alice)
    delay_id = await schedule(alice, send_path(room))
    await server.people.moderation.change(alice.user_id, **standing)
    await time_passes(server, 1)
    one = await server.calls.delayed.one(alice.user_id, delay_id)
    assert one.error is not None
    assert errcode in one.error.decode()
    if errcode == "M_USER_SUSPENDED":
        path = send_path(room, "t2")
        assert await server.refused("PUT", path, HELLO, token=alice.token) == (403, errcode)


async def test_who_sends_too_fast_then_is_told_so_afterwards(sqlite_database: Database) -> None:
    slow = RateLimits(message=RateLimits().message.__class__(per_second=0.1, burst=2))
    async with account_server(sqlite_database, config=configured(rate_limits=slow)) as server:
        alice = await Person.arrives(server, "alice")
        room = await room_of(alice)
        for number in range(3):
            await schedule(alice, send_path(room, f"t{number}"))
        await time_passes(server, 1)
        assert await said(alice, room) == ["hello", "hello"]
        outcomes = (await alice.call("GET", f"{EVENTS}?status=finalised"))["finalised"]
        errors = [one["error"]["errcode"] for one in outcomes if "error" in one]
        assert errors == ["M_LIMIT_EXCEEDED"]


async def test_guests_have_them_too(sqlite_database: Database) -> None:
    async with account_server(sqlite_database, allow_guests=True) as server:
        alice = await Person.arrives(server, "alice")
        room = await room_of(alice, guest_can_join=True)
        opened = {"guest_access": "can_join"}
        await alice.call("PUT", f"/rooms/{segment(room)}/state/m.room.guest_access/", opened)
        _, guest = await server.call("POST", "/register?kind=guest", {})
        token = guest["access_token"]
        status, _ = await server.call("POST", f"/rooms/{segment(room)}/join", {}, token=token)
        assert status == 200
        status, reply = await server.call("PUT", send_path(room), HELLO, token=token)
        assert status == 200
        assert (await server.call("POST", f"{EVENTS}/{reply['delay_id']}/send", {}, token=token))[0] == 200
        assert await said(alice, room) == ["hello"]


async def test_after_a_restart_they_are_still_there(sqlite_database: Database) -> None:
    async with account_server(sqlite_database) as before:
        alice = await Person.arrives(before, "alice")
        room = await room_of(alice)
        await schedule(alice, send_path(room, "late", 100_000))
        await schedule(alice, send_path(room, "overdue", 1000), {"msgtype": "m.text", "body": "overdue"})
        state = await schedule(alice, state_path(room, "k", 100_000), {})
    async with account_server(sqlite_database) as after:
        after.clock.advance(60)
        calls: Calls = after.calls
        running = asyncio.create_task(calls.delayed.run())
        token = await after.user("alice")
        again = Person(after, "alice", token, "PHONE")
        async with asyncio.timeout(30):
            while len(await scheduled(again)) != 2:
                continue
        assert await said(again, room) == ["overdue"]
        assert state in await scheduled(again)
        running.cancel()


async def test_a_room_that_takes_long_holds_up_no_other(
    server: AccountServer, alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = await room_of(alice), await room_of(alice)
    delayed = server.calls.delayed
    submit, goes_on = server.calls.submit.submit, asyncio.Event()

    async def slowly(requester: Requester, room_id: str, *more: Any) -> StoredEvent:
        if room_id == slow:
            await goes_on.wait()
        return await submit(requester, room_id, *more)

    monkeypatch.setattr(server.calls.submit, "submit", slowly)
    monkeypatch.setattr(delayed_events, "_PATIENCE_S", 0.01)
    ids = [
        await schedule(alice, send_path(room, f"t{number}", 1000 + number), {"body": str(number)})
        for number, room in enumerate((slow, slow, quick))
    ]
    await time_passes(server, 2)
    slow_ids = [*ids[:2], await schedule(alice, send_path(slow, "t3", 1000), {"body": "3"})]
    await time_passes(server, 2)
    await until(lambda: delayed._on_their_way == set(slow_ids), "the others have been sent")
    assert await said(alice, quick) == ["2"]
    assert await said(alice, slow) == []
    goes_on.set()
    await until(lambda: not delayed._on_their_way, "all have been sent")
    assert await said(alice, slow) == ["0", "1", "3"]
    assert await scheduled(alice) == []
