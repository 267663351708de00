"""Servers that lie while somebody joins, leaves, knocks or invites, from either side."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from federation.signatures import authorization_header
from homeserver.errors import MatrixError, RemoteError
from homeserver.protocol.canonical_json import MAX_DEPTH, encode
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing import event_id_of
from tests.hostile.conftest import VERSIONS, Set, Start
from tests.hostile.harm import STORED, Scene, refused
from tests.hostile.peer import Asked, HostilePeer, Pdu, Reply
from tests.remote import Server

#: Rows that the keys of a server take that was not known.
FIRST_SEEN = 2


def nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


# Others who want into our rooms, or out of them.


async def join_of(scene: Scene, user_id: str, **changed: Any) -> Pdu:
    return await scene.evil.event(
        scene.room_id, user_id, "m.room.member", {"membership": "join"}, state_key=user_id, **changed
    )


@pytest.mark.parametrize("action", ["make_join", "make_leave", "make_knock"])
async def test_a_template_is_made_for_the_servers_own_users(scene: Scene, action: str) -> None:
    for user_id in (scene.alice, "@x:third.example", "evil.example", "@x:evil.example:80", "@x\r\n:y"):
        async with refused(scene, rows=0):
            status, answer = await scene.evil.asks(
                scene.here, "GET", "v1", action, scene.room_id, user_id, query="?ver=11"
            )
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")


async def test_a_template_is_for_a_room_version_both_know(scene: Scene) -> None:
    eve = scene.evil.user("eve")
    for query in ("", "?ver=1", "?ver=12&ver=x", "?ver=", "?ver=11%00", "?ver=" + "9" * 1000):
        async with refused(scene, rows=0):
            status, answer = await scene.evil.asks(
                scene.here, "GET", "v1", "make_join", scene.room_id, eve, query=query
            )
            assert status == 400
            assert answer["errcode"] in ("M_INCOMPATIBLE_ROOM_VERSION", "M_INVALID_PARAM")


async def test_an_event_handed_in_is_what_the_endpoint_is_for(scene: Scene) -> None:
    eve = scene.evil.user("eve")
    join = await join_of(scene, eve)
    name = await scene.evil.id_of(scene.room_id, join)
    leave = await scene.evil.event(
        scene.room_id, scene.mallory, "m.room.member", {"membership": "leave"}, state_key=scene.mallory
    )
    kick = await scene.evil.event(
        scene.room_id, scene.mallory, "m.room.member", {"membership": "leave"}, state_key=scene.alice
    )
    message = await scene.evil.message(scene.room_id, scene.mallory)
    ours = await scene.evil.event(
        scene.room_id, scene.alice, "m.room.member", {"membership": "join"}, state_key=scene.alice
    )
    attempts = [
        ("send_join", scene.room_id, "$other", join),
        ("send_join", scene.other_id, name, join),
        ("send_leave", scene.room_id, name, join),
        ("send_knock", scene.room_id, name, join),
        ("send_join", scene.room_id, await scene.evil.id_of(scene.room_id, leave), leave),
        ("send_leave", scene.room_id, await scene.evil.id_of(scene.room_id, kick), kick),
        ("send_join", scene.room_id, await scene.evil.id_of(scene.room_id, message), message),
        ("send_join", scene.room_id, await scene.evil.id_of(scene.room_id, ours), ours),
        ("send_join", scene.room_id, name, {}),
        ("send_join", scene.room_id, name, {**join, "content": []}),
        ("send_join", scene.room_id, name, {**join, "signatures": {}}),
        ("send_join", "!nowhere:here.example", name, join),
    ]
    for action, room_id, event_id, pdu in attempts:
        async with refused(scene, rows=0, lines=2):
            status, answer = await scene.evil.asks(
                scene.here, "PUT", "v1" if action == "send_knock" else "v2", action, room_id, event_id,
                content=pdu,
            )  # fmt: skip
            assert status in (400, 403, 404), (action, answer)
            assert answer["errcode"] in ("M_INVALID_PARAM", "M_BAD_JSON", "M_NOT_FOUND", "M_FORBIDDEN")


async def test_a_join_into_a_room_by_invitation_is_refused(set_scene: Set) -> None:
    """Whatever its own auth events and its own past of the room say."""
    scene = await set_scene()
    await scene.here.set_state(scene.room_id, scene.alice, "m.room.join_rules", {"join_rule": "invite"})
    old = await scene.evil.state_at_tips(scene.room_id)
    eve = scene.evil.user("eve")
    before = await join_of(scene, eve)
    await scene.here.network.settle()
    after = await join_of(scene, eve)
    for join in (before, after):
        name = await scene.evil.id_of(scene.room_id, join)
        async with refused(scene, rows=STORED, lines=2):
            status, answer = await scene.evil.asks(
                scene.here, "PUT", "v2", "send_join", scene.room_id, name, content=join
            )
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
    assert old


async def test_a_knock_where_nobody_may_knock_is_refused(scene: Scene) -> None:
    eve = scene.evil.user("eve")
    knock = await scene.evil.event(
        scene.room_id, eve, "m.room.member", {"membership": "knock"}, state_key=eve
    )
    name = await scene.evil.id_of(scene.room_id, knock)
    async with refused(scene, rows=STORED, lines=2):
        status, answer = await scene.evil.asks(
            scene.here, "PUT", "v1", "send_knock", scene.room_id, name, content=knock
        )
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")


async def test_a_denied_server_stays_out_however_it_writes_its_name(scene: Scene, start: Start) -> None:
    acl = {"allow": ["*"], "deny": ["*.Denied.example", "denied.example"], "allow_ip_literals": False}
    await scene.here.set_state(scene.room_id, scene.alice, "m.room.server_acl", acl)
    await scene.here.network.settle()
    for name in (
        "denied.example",
        "DENIED.example",
        "denied.example:8448",
        "x.dEnIeD.example:1",
        "192.0.2.7",
        "192.0.2.7:8448",
        "[2001:db8::1]",
        "[2001:db8::1]:8448",
    ):
        denied: HostilePeer = await start(name, HostilePeer)
        for place in (("make_join", f"@x:{name}"), ("state_ids",), ("backfill",)):
            async with refused(scene, rows=FIRST_SEEN, requests=1, names=name):
                status, answer = await denied.asks(
                    scene.here, "GET", "v1", place[0], scene.room_id, *place[1:], query="?ver=11&event_id=$x"
                )
                assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        pdu = await scene.evil.message(scene.room_id, scene.mallory)
        async with refused(scene, names=name):
            (result,) = (await denied.sends(scene.here, pdu)).values()
            assert "access list" in result["error"]


async def test_the_events_of_a_room_are_for_the_servers_in_it(scene: Scene, start: Start) -> None:
    stranger: HostilePeer = await start("stranger.example", HostilePeer)
    last = (await scene.here.room(scene.room_id)).recent[-1].id
    secret = (await scene.here.room(scene.other_id)).tips[0].id
    asked = [
        ("GET", ("event", last), "", None),
        ("GET", ("state", scene.room_id), f"?event_id={last}", None),
        ("GET", ("state_ids", scene.room_id), f"?event_id={last}", None),
        ("GET", ("event_auth", scene.room_id, last), "", None),
        ("GET", ("backfill", scene.room_id), f"?v={last}&limit=10", None),
        (
            "POST",
            ("get_missing_events", scene.room_id),
            "",
            {"earliest_events": [], "latest_events": [last]},
        ),
    ]
    for method, segments, query, content in asked:
        async with refused(scene, rows=FIRST_SEEN, requests=1, names="stranger.example"):
            status, answer = await stranger.asks(
                scene.here, method, "v1", *segments, query=query, content=content
            )
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
    # Who is in one room does not get the events of another through it.
    for segments, query in (
        (("event", secret), ""),
        (("state", scene.room_id), f"?event_id={secret}"),
        (("event_auth", scene.room_id, secret), ""),
        (("state", scene.other_id), f"?event_id={secret}"),
    ):
        async with refused(scene, rows=0):
            status, answer = await scene.evil.asks(scene.here, "GET", "v1", *segments, query=query)
            assert answer["errcode"] in ("M_FORBIDDEN", "M_NOT_FOUND")
    status, answer = await scene.evil.asks(
        scene.here, "GET", "v1", "backfill", scene.room_id, query=f"?v={secret}&limit=10"
    )
    assert (status, answer["pdus"]) == (200, [])


async def test_a_deep_join_does_not_come_between_two_others(scene: Scene, start: Start) -> None:
    """What is handed on to the other servers in the room must not make them refuse all that comes with it."""
    third: Server = await start("third.example", Server)
    carol = third.user("carol")
    await third.join(carol, scene.room_id, scene.here)
    await scene.here.network.settle()
    eve = scene.evil.user("eve")
    template = await scene.evil.template(
        scene.room_id, eve, "m.room.member", {"membership": "join"}, state_key=eve
    )
    rules = await scene.evil.rules(scene.room_id)
    for depth in range(MAX_DEPTH - 16, MAX_DEPTH):
        pdu = {**template, "content": {"membership": "join", "x": nested(depth)}}
        try:
            pdu = scene.evil.signed(pdu, rules)
            await scene.evil.asks(
                scene.here, "PUT", "v2", "send_join", scene.room_id, event_id_of(pdu, rules), content=pdu
            )
        except ValueError:
            break
    await scene.here.say(scene.room_id, scene.alice, "can you hear me")
    await scene.here.network.settle()
    assert (await third.bodies(scene.room_id))[-1] == "can you hear me"


# Our joining of their rooms.


class Invited:
    """alice wants into a room of the hostile server; ``joins`` says what came of it."""

    def __init__(self, here: Server, evil: HostilePeer, room_id: str, version: str) -> None:
        self.here, self.evil, self.room_id, self.version = here, evil, room_id, version
        self.alice = here.user("alice")

    async def joins(self) -> str:
        """Empty, or the error."""
        try:
            await self.here.join(self.alice, self.room_id, self.evil)
        except (MatrixError, RemoteError) as error:
            return str(error) or "refused"
        return ""

    async def honest(self, pdu: Pdu) -> Any:
        """What the server would truly answer to a ``send_join``."""
        name = event_id_of(pdu, (await self.evil.rooms.get(self.room_id)).rules)
        status, answer = await self.here_asks(name, pdu)
        assert status == 200, answer
        return answer

    async def here_asks(self, name: str, pdu: Pdu) -> tuple[int, Any]:
        uri = f"/_matrix/federation/v2/send_join/{quote(self.room_id, safe='')}/{quote(name, safe='')}"
        body = encode(pdu)
        header = authorization_header(
            method="PUT",
            uri=uri,
            origin=self.here.name,
            destination=self.evil.name,
            body=body,
            key=self.here.key,
        )
        lies, self.evil.lies = self.evil.lies, {}
        try:
            return await self.evil.answer("PUT", uri, {"Authorization": header}, body)
        finally:
            self.evil.lies = lies

    def lies_of_state(self, lie: Any) -> None:
        """Answer ``send_join`` with what ``lie`` makes of the truth."""

        async def answer(asked: Asked) -> Any:
            truth = await self.honest(asked.json)
            return lie(truth)

        self.evil.lies_about("v2/send_join", answer)


@pytest.fixture(params=VERSIONS)
async def invited(request: pytest.FixtureRequest, here: Server, evil: HostilePeer) -> Invited:
    room_id = await evil.public_room(evil.user("mallory"), version=request.param)
    return Invited(here, evil, room_id, request.param)


def only(*types: str) -> Any:
    return lambda truth: {**truth, "state": [pdu for pdu in truth["state"] if pdu["type"] in types]}


def without(*types: str) -> Any:
    def lie(truth: Any) -> Any:
        left = {
            name: [pdu for pdu in truth[name] if pdu["type"] not in types] for name in ("state", "auth_chain")
        }
        return {**truth, **left}

    return lie


def unsigned(truth: Any) -> Any:
    bare = {name: [{**pdu, "signatures": {}} for pdu in truth[name]] for name in ("state", "auth_chain")}
    return {**truth, **bare}


def changed(type_: str, **content: Any) -> Any:
    """Content is changed after it was signed."""

    def lie(truth: Any) -> Any:
        def one(pdu: Pdu) -> Pdu:
            return {**pdu, "content": {**pdu["content"], **content}} if pdu["type"] == type_ else pdu

        return {**truth, "state": [one(pdu) for pdu in truth["state"]], "auth_chain": [
            one(pdu) for pdu in truth["auth_chain"]]}  # fmt: skip

    return lie


IMPOSSIBLE: dict[str, Any] = {
    "no state": lambda truth: {**truth, "state": []},
    "no create event": without("m.room.create"),
    "no events at all": lambda truth: {"state": [], "auth_chain": []},
    "nothing signed": unsigned,
    "a changed create event": changed("m.room.create", room_version="3", creator="@x:y"),
    "no lists": lambda truth: {"state": {}, "auth_chain": None},
    "lists of nonsense": lambda truth: {"state": [1, None, [], "x"], "auth_chain": []},
    "lists of empty objects": lambda truth: {"state": [{}] * 1000, "auth_chain": [{}]},
    "an error": lambda truth: Reply({"errcode": "M_FORBIDDEN", "error": "x" * 100_000}, 403),
    "an error that is none": lambda truth: Reply({"errcode": ["M"], "error": {"a": 1}}, 418),
    "nothing": lambda truth: Reply(b""),
    "deep nesting": lambda truth: Reply(b'{"state":' + b"[" * 50_000),
    "a list": lambda truth: [truth],
}


@pytest.mark.parametrize("lie", IMPOSSIBLE)
async def test_a_state_that_cannot_be_is_not_joined(invited: Invited, lie: str) -> None:
    invited.lies_of_state(IMPOSSIBLE[lie])
    assert await invited.joins()
    room = await invited.here.rooms.find(invited.room_id)
    assert room is None or not invited.here.rooms.is_in(room)
    assert await invited.here.local_membership(invited.room_id, invited.alice) is None


async def test_events_that_do_not_belong_are_left_out_of_a_state(invited: Invited) -> None:
    """Unsigned ones, ones of another room, forged ones in our own name: the rest is joined."""
    other = await invited.evil.public_room("@mallory:evil.example", version=invited.version)
    others = [event.pdu for event in (await invited.evil.state_at_tips(other)).values()]
    forged = await invited.evil.event(
        invited.room_id,
        "@bob:here.example",
        "m.room.member",
        {"membership": "join"},
        state_key="@bob:here.example",
    )

    def lie(truth: Any) -> Any:
        return {
            **truth,
            "state": [*truth["state"], *others, forged, {**truth["state"][0], "depth": 5}],
            "auth_chain": [*truth["auth_chain"], forged, *others],
            "servers_in_room": ["127.0.0.1", "x\r\ny", 7],
        }

    invited.lies_of_state(lie)
    assert await invited.joins() == ""
    state = await invited.here.state_ids(invited.room_id)
    assert ("m.room.member", "@bob:here.example") not in state
    assert (await invited.here.room(invited.room_id)).servers == {"evil.example": 1, "here.example": 1}


async def test_a_state_with_two_values_for_a_key_is_not_joined(invited: Invited) -> None:
    rename = await invited.evil.set_state(
        invited.room_id, "@mallory:evil.example", "m.room.name", {"name": "one"}
    )
    await invited.evil.set_state(invited.room_id, "@mallory:evil.example", "m.room.name", {"name": "two"})
    invited.lies_of_state(lambda truth: {**truth, "state": [*truth["state"], rename.event.pdu]})
    assert "two events for one key" in await invited.joins()


async def test_a_join_comes_back_as_it_was_signed(invited: Invited) -> None:
    """The resident server may add its signature, and nothing else."""

    def lie(truth: Any) -> Any:
        event = truth["event"]
        content = {**event["content"], "displayname": "I am a fool", "avatar_url": "mxc://evil.example/x"}
        return {**truth, "event": {**event, "content": content, "injected": True}}

    invited.lies_of_state(lie)
    assert await invited.joins() == ""
    join = (await invited.here.room(invited.room_id)).tips[0].event
    assert "displayname" not in join.content
    assert "injected" not in join.pdu


TEMPLATES: dict[str, Any] = {
    "another room": {"room_id": "!other:evil.example"},
    "another user": {"sender": "@mallory:evil.example", "state_key": "@mallory:evil.example"},
    "another type": {"type": "m.room.power_levels", "state_key": ""},
    "another membership": {"content": {"membership": "ban"}},
    "more content": {"content": {"membership": "join", "displayname": "a fool"}},
}


@pytest.mark.parametrize("lie", TEMPLATES)
async def test_a_template_for_something_else_is_not_signed(here: Server, evil: HostilePeer, lie: str) -> None:
    """Of a template only the place in the graph is taken."""
    alice, mallory = here.user("alice"), evil.user("mallory")
    room_id = await evil.public_room(mallory, version="11")
    template = await evil.template(room_id, alice, "m.room.member", {"membership": "join"}, state_key=alice)
    signed: list[Pdu] = []
    evil.lies_about("v1/make_join", {"room_version": "11", "event": {**template, **TEMPLATES[lie]}})

    def keep(asked: Asked) -> Any:
        signed.append(asked.json)
        return Reply({"errcode": "M_FORBIDDEN", "error": ""}, 403)

    evil.lies_about("v2/send_join", keep)
    with pytest.raises(MatrixError):
        await here.join(alice, room_id, evil)
    (pdu,) = signed
    assert (pdu["type"], pdu["room_id"]) == ("m.room.member", room_id)
    assert (pdu["sender"], pdu["state_key"]) == (alice, alice)
    assert pdu["content"] == {"membership": "join"}


NO_TEMPLATES: list[Any] = [
    {},
    {"event": []},
    {"room_version": 11, "event": {}},
    {"room_version": "11", "event": {"prev_events": "x", "auth_events": [], "depth": 1}},
    {"room_version": "11", "event": {"prev_events": ["$x"] * 21, "auth_events": [], "depth": 1}},
    {"room_version": "11", "event": {"prev_events": ["$x"], "auth_events": [], "depth": 2**60}},
    {"room_version": "11", "event": {"prev_events": ["$x"], "auth_events": [], "depth": 1.5}},
    {"room_version": "11", "event": {"prev_events": [nested(200)], "auth_events": [], "depth": 1}},
    {"room_version": "99", "event": {"prev_events": ["$x"], "auth_events": [], "depth": 1}},
    {"room_version": "x" * 5000, "event": {"prev_events": ["$x"], "auth_events": [], "depth": 1}},
    {"event": {"prev_events": ["$x"], "auth_events": [], "depth": 1}},
]


@pytest.mark.parametrize("template", NO_TEMPLATES, ids=range(len(NO_TEMPLATES)))
async def test_a_template_that_makes_no_event_is_refused(
    here: Server, evil: HostilePeer, template: Any
) -> None:
    alice, mallory = here.user("alice"), evil.user("mallory")
    room_id = await evil.public_room(mallory, version="11")
    evil.lies_about("v1/make_join", template)
    with pytest.raises((MatrixError, RemoteError)):
        await here.join(alice, room_id, evil)
    assert here.network.asked_for("send_join") == 0


# Invitations.


async def invite(evil: HostilePeer, room_id: str, target: str, **changed: Any) -> Pdu:
    return await evil.event(
        room_id, "@mallory:evil.example", "m.room.member", {"membership": "invite"}, state_key=target,
        **changed,
    )  # fmt: skip


async def sends_invite(
    evil: HostilePeer, here: Server, pdu: Pdu, *, version: str = "11", room_id: str = "", state: Any = ()
) -> tuple[int, Any]:
    name = event_id_of(pdu, ROOM_VERSIONS[version])
    content = {"room_version": version, "event": pdu, "invite_room_state": list(state)}
    return await evil.asks(here, "PUT", "v2", "invite", room_id or pdu["room_id"], name, content=content)


async def test_an_invite_is_of_a_user_here_by_one_of_theirs(scene: Scene) -> None:
    evil, here = scene.evil, scene.here
    room_id = await evil.public_room(scene.mallory, version="11")
    rules = await evil.rules(room_id)
    bob = here.user("bob")
    good = await invite(evil, room_id, bob)
    by_alice = await evil.event(
        room_id, scene.alice, "m.room.member", {"membership": "invite"}, state_key=bob
    )
    join = await evil.event(room_id, scene.mallory, "m.room.member", {"membership": "join"}, state_key=bob)
    attempts: list[tuple[Pdu, dict[str, Any]]] = [
        (await invite(evil, room_id, "@bob:third.example"), {}),
        (await invite(evil, room_id, "@nobody:here.example"), {}),
        (await invite(evil, room_id, "bob"), {}),
        (await invite(evil, room_id, "@bob:here.example:80"), {}),
        (by_alice, {}),
        (join, {}),
        (await evil.message(room_id, scene.mallory), {}),
        ({**good, "signatures": {}}, {}),
        ({**good, "content": {"membership": "invite", "displayname": "forged"}}, {}),
        (good, {"room_id": scene.other_id}),
        (good, {"version": "12"}),
    ]
    assert rules.id == "11"
    for pdu, options in attempts:
        async with refused(scene, rows=0):
            status, answer = await sends_invite(evil, here, pdu, **options)
            assert status in (400, 403), (answer, pdu)
            assert "signatures" not in str(answer)
        assert await here.local_membership(room_id, bob) is None


async def test_an_invite_to_a_room_we_are_in_changes_nothing_by_itself(scene: Scene) -> None:
    """It is signed, and counts when it comes as an event and the room allows it."""
    bob = scene.here.user("bob")
    pdu = await scene.evil.event(
        scene.room_id, scene.mallory, "m.room.member", {"membership": "invite"}, state_key=bob
    )
    async with refused(scene, rows=0, lines=0):
        status, _ = await sends_invite(scene.evil, scene.here, pdu)
        assert status == 200


async def test_what_an_invite_shows_of_a_room_is_bounded(scene: Scene) -> None:
    evil, here, bob = scene.evil, scene.here, scene.here.user("bob")
    room_id = await evil.public_room(scene.mallory, version="11")
    shown = {"type": "m.room.name", "state_key": "", "sender": "@x:y", "content": {"name": "x" * 10_000}}
    nonsense = [None, 3, [], {}, {"type": 1}, {**shown, "content": []}, {**shown, "state_key": None}]
    state = [*nonsense, *[{**shown, "state_key": str(n)} for n in range(60)]]
    status, _ = await sends_invite(evil, here, await invite(evil, room_id, bob), state=state)
    assert status == 200
    told = await here.local_membership(room_id, bob)
    assert told is not None
    assert told.membership == "invite"
    assert len(told.stripped_state or b"") < 1024 * 1024
    await scene.works()


async def test_a_room_cannot_be_given_another_version_before_we_know_it(
    here: Server, evil: HostilePeer, start: Start
) -> None:
    """An invite to somebody else's room, with a version that is not the room's, keeps nobody out of it."""
    third: Server = await start("third.example", Server)
    room_id = await third.public_room(third.user("carol"), version="11")
    bob, mallory = here.user("bob"), evil.user("mallory")
    own = await evil.public_room(mallory, version="5")
    pdu = await evil.template(own, mallory, "m.room.member", {"membership": "invite"}, state_key=bob)
    pdu = evil.signed({**pdu, "room_id": room_id}, await evil.rules(own))
    await sends_invite(evil, here, pdu, version="5")

    await here.join(here.user("alice"), room_id, third)

    assert (await here.room(room_id)).rules.id == "11"
    restarted = await here.restarted()
    assert (await restarted.room(room_id)).rules.id == "11"
