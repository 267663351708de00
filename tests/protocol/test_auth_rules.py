"""The auth rules, rule by rule, in the numbering of v12."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from homeserver.protocol import canonical_json
from homeserver.protocol.auth_rules import (
    NotAllowed,
    auth_types_for,
    check_against_state,
    check_auth_events,
    says_nothing_of_itself,
)
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.protocol.graphs import Graph, State, make_event
from tests.protocol.json_values import json_values

ALICE, BOB, CAROL, EVE = "@alice:here", "@bob:here", "@carol:there", "@eve:there"
ALL = list(ROOM_VERSIONS)
HASHED = ["12"]
UNHASHED = ALL[:-1]
MEMBER, POWER = "m.room.member", "m.room.power_levels"


class Room:
    """A public room of Alice's (100), with Bob (50) and Carol (0) in it."""

    def __init__(
        self, version: str, *, power: dict[str, Any] | None = None, create: dict[str, Any] | None = None
    ) -> None:
        self.graph = Graph(version)
        self.rules = self.graph.rules
        self.state = State()
        created = self.graph.create(content=create or {})
        self.state[created.key] = created.event_id
        self.put(MEMBER, ALICE, ALICE, {"membership": "join"})
        self.power(power or {})
        self.join_rule("public")
        self.put(MEMBER, BOB, BOB, {"membership": "join"})
        self.put(MEMBER, CAROL, CAROL, {"membership": "join"})

    def put(self, type: str, sender: str, state_key: str, content: dict[str, Any]) -> Event:
        """Put an event into the state, allowed or not."""
        return self.graph.send(self.state, f"e{len(self.graph.events)}", type, sender, state_key, content)

    def power(self, content: dict[str, Any]) -> None:
        users = {BOB: 50} if self.rules.hash_room_ids else {ALICE: 100, BOB: 50}
        self.put(POWER, ALICE, "", {"users": users, **content})

    def join_rule(self, join_rule: Any) -> None:
        self.put("m.room.join_rules", ALICE, "", {"join_rule": join_rule})

    def member(self, user: str, membership: Any) -> None:
        self.put(MEMBER, user, user, {"membership": membership})

    def check(
        self, type: str, sender: str, state_key: str | None, content: dict[str, Any], **more: Any
    ) -> None:
        event = self.graph.send(dict(self.state), "new", type, sender, state_key, content, **more)
        check_against_state(self.rules, event, self.graph.lookup(self.state))

    def allows(self, *event: Any, **more: Any) -> bool:
        try:
            self.check(*event, **more)
        except NotAllowed:
            return False
        return True

    def allows_member(self, sender: str, target: str, membership: Any, **content: Any) -> bool:
        return self.allows(MEMBER, sender, target, {"membership": membership, **content})


@pytest.fixture(params=ALL)
def room(request: pytest.FixtureRequest) -> Room:
    return Room(request.param)


# --- rule 1: create ---------------------------------------------------------------------------


def create_event(version: str, content: dict[str, Any] | None = None, **fields: Any) -> Event:
    rules = ROOM_VERSIONS[version]
    base: dict[str, Any] = {
        "event_id": "$create",
        "room_id": "!create" if rules.hash_room_ids else "!room:here",
    }
    base |= {"type": "m.room.create", "sender": ALICE, "state_key": "", "origin_server_ts": 1, "depth": 1}
    creator = {} if rules.implicit_room_creator else {"creator": ALICE}
    return make_event(
        rules,
        **base | {"prev_events": (), "auth_events": (), "content": creator | (content or {})} | fields,
    )


def allowed_create(version: str, event: Event) -> bool:
    try:
        check_against_state(ROOM_VERSIONS[version], event, lambda type, state_key: None)
    except NotAllowed:
        return False
    return True


@pytest.mark.parametrize("version", ALL)
def test_create(version: str) -> None:
    assert allowed_create(version, create_event(version, {"room_version": version}))
    assert not allowed_create(version, create_event(version, prev_events=("$other",)))
    assert not allowed_create(version, create_event(version, {"room_version": "none such"}))
    assert not allowed_create(version, create_event(version, {"room_version": ["1"]}))


@pytest.mark.parametrize("version", UNHASHED)
def test_create_is_of_the_server_in_the_room_id(version: str) -> None:
    assert not allowed_create(version, create_event(version, sender=CAROL))
    assert not allowed_create(version, create_event(version, room_id="!noserver"))


@pytest.mark.parametrize("version", ALL)
def test_create_names_a_creator_until_v10(version: str) -> None:
    event = create_event(version)
    nameless = msgspec.structs.replace(event, json=event.json.replace(b'"creator"', b'"builder"'))
    assert allowed_create(version, nameless) == (version in ("11", "12"))


def test_create_has_no_room_id_since_v12() -> None:
    event = create_event("12")
    with_room_id = msgspec.structs.replace(event, json=b'{"room_id":"!create",' + event.json[1:])
    assert not allowed_create("12", with_room_id)


@pytest.mark.parametrize("creators", ["x", {}, None, [7], [ALICE, "bob"], [[ALICE]]])
def test_additional_creators_are_user_ids_since_v12(creators: Any) -> None:
    assert allowed_create("12", create_event("12", {"additional_creators": [BOB, CAROL]}))
    assert not allowed_create("12", create_event("12", {"additional_creators": creators}))
    assert allowed_create("11", create_event("11", {"additional_creators": creators}))


# --- rules 2 and 3: auth events ---------------------------------------------------------------


def cite(room: Room, *names: str, content: dict[str, Any] | None = None, **fields: Any) -> None:
    """Check a topic of Bob's that cites these events."""
    events = room.graph.events
    event = room.graph.add("cites", "m.room.topic", BOB, "", content or {}, auth=names)
    check_auth_events(room.rules, event, [events[name] for name in names], events["$create"])


def cited(room: Room) -> list[str]:
    create = [] if room.rules.hash_room_ids else ["$create"]
    return [*create, room.state[POWER, ""], room.state[MEMBER, BOB]]


def test_auth_events_as_selected_are_fine(room: Room) -> None:
    cite(room, *cited(room))


def test_auth_events_hold_no_two_for_one_key(room: Room) -> None:
    old = room.state[MEMBER, BOB]
    room.member(BOB, "join")
    with pytest.raises(NotAllowed, match="same piece of state"):
        cite(room, *cited(room), old)


def test_auth_events_hold_nothing_uncalled_for(room: Room) -> None:
    with pytest.raises(NotAllowed, match="does not belong"):
        cite(room, *cited(room), room.state[MEMBER, CAROL])
    message = room.graph.add("message", "m.room.message", BOB, None, {})
    with pytest.raises(NotAllowed, match="does not belong"):
        cite(room, *cited(room), message.event_id)


def test_auth_events_hold_no_rejected_event(room: Room) -> None:
    bad = room.graph.add("bad", MEMBER, BOB, BOB, {"membership": "join"}, rejected=True)
    with pytest.raises(NotAllowed, match="rejected"):
        cite(room, *cited(room)[:-1], bad.event_id)


@pytest.mark.parametrize("version", UNHASHED)
def test_auth_events_hold_the_create_event_until_v11(version: str) -> None:
    room = Room(version)
    with pytest.raises(NotAllowed, match="missing"):
        cite(room, *cited(room)[1:])


def test_auth_events_do_not_hold_the_create_event_since_v12() -> None:
    room = Room("12")
    with pytest.raises(NotAllowed, match="does not belong"):
        cite(room, "$create", *cited(room))


def test_auth_events_are_of_the_same_room(room: Room) -> None:
    room.graph.room_id, here = "!elsewhere:here", room.graph.room_id
    room.member(BOB, "join")
    room.graph.room_id = here
    with pytest.raises(NotAllowed, match="another room"):
        cite(room, *cited(room))


def test_room_id_stands_for_an_accepted_create_event_since_v12() -> None:
    room = Room("12")
    event = room.graph.add("topic", "m.room.topic", BOB, "", {})
    with pytest.raises(NotAllowed, match="no accepted create"):
        check_auth_events(room.rules, event, [], None)
    with pytest.raises(NotAllowed, match="no accepted create"):
        check_auth_events(room.rules, event, [], create_event("12", rejected=True))
    with pytest.raises(NotAllowed, match="does not stand"):
        check_auth_events(room.rules, event, [], create_event("12", event_id="$other"))


def test_selection() -> None:
    def select(version: str, membership: str, **content: Any) -> set[tuple[str, str]]:
        content["membership"] = membership
        rules = ROOM_VERSIONS[version]
        keys = auth_types_for(rules, type=MEMBER, sender=ALICE, state_key=BOB, content=content)
        assert len(keys) == len(set(keys))
        return set(keys)

    base = {("m.room.create", ""), (POWER, ""), (MEMBER, ALICE), (MEMBER, BOB)}
    rules_too = base | {("m.room.join_rules", "")}
    assert select("11", "leave") == select("11", "ban") == base
    assert select("11", "join") == select("11", "invite") == select("11", "knock") == rules_too
    invite = {"signed": {"token": "abc"}}
    assert select("11", "invite", third_party_invite=invite) == rules_too | {
        ("m.room.third_party_invite", "abc")
    }
    assert select("8", "join", join_authorised_via_users_server=EVE) == rules_too | {(MEMBER, EVE)}
    assert select("7", "join", join_authorised_via_users_server=EVE) == rules_too
    assert select("12", "leave") == base - {("m.room.create", "")}
    create = auth_types_for(ROOM_VERSIONS["1"], type="m.room.create", sender=ALICE, state_key="", content={})
    assert create == []


# --- rule 4: federation, aliases --------------------------------------------------------------


@pytest.mark.parametrize("version", ALL)
def test_a_room_that_does_not_federate_takes_no_events_from_elsewhere(version: str) -> None:
    room = Room(version, create={"m.federate": False})
    assert room.allows("m.room.message", BOB, None, {})
    assert not room.allows("m.room.message", CAROL, None, {})


@pytest.mark.parametrize("version", ALL)
def test_aliases_belong_to_their_server_until_v5(version: str) -> None:
    room = Room(version)
    special = version in ("1", "2", "3", "4", "5")
    assert room.allows("m.room.aliases", CAROL, "there", {}) == special
    assert not room.allows("m.room.aliases", CAROL, "here", {})
    assert room.allows("m.room.aliases", EVE, "there", {}) == special
    assert room.allows("m.room.aliases", ALICE, "there", {}) != special


# --- rule 5: membership -----------------------------------------------------------------------


def test_membership_needs_a_state_key_and_a_membership(room: Room) -> None:
    assert not room.allows(MEMBER, BOB, None, {"membership": "join"})
    assert not room.allows(MEMBER, BOB, BOB, {})
    for odd in ("dance", "", None, 7, ["join"], {"join": 1}):
        assert not room.allows_member(BOB, BOB, odd)


def test_the_creators_first_join(room: Room) -> None:
    empty = {("m.room.create", ""): "$create"}
    for user, prev, expected in [
        (ALICE, ["$create"], True),
        (BOB, ["$create"], False),
        (ALICE, ["$x"], False),
    ]:
        event = room.graph.send(dict(empty), "first", MEMBER, user, user, {"membership": "join"}, prev=prev)
        try:
            check_against_state(room.rules, event, room.graph.lookup(empty))
        except NotAllowed:
            assert not expected
        else:
            assert expected


def test_joining_a_public_room(room: Room) -> None:
    assert room.allows_member(EVE, EVE, "join")
    assert not room.allows_member(ALICE, EVE, "join")
    room.member(EVE, "ban")
    assert not room.allows_member(EVE, EVE, "join")


def test_joining_by_invitation(room: Room) -> None:
    room.join_rule("invite")
    assert not room.allows_member(EVE, EVE, "join")
    assert room.allows_member(BOB, BOB, "join")
    room.member(EVE, "invite")
    assert room.allows_member(EVE, EVE, "join")


def test_a_room_without_join_rules_is_by_invitation(room: Room) -> None:
    del room.state["m.room.join_rules", ""]
    assert not room.allows_member(EVE, EVE, "join")
    room.member(EVE, "invite")
    assert room.allows_member(EVE, EVE, "join")


@pytest.mark.parametrize("join_rule", ["private", "dance", None, 7, ["public"]])
def test_under_unknown_join_rules_nobody_joins(room: Room, join_rule: Any) -> None:
    room.join_rule(join_rule)
    room.member(EVE, "invite")
    assert not room.allows_member(EVE, EVE, "join")


@pytest.mark.parametrize(("join_rule", "since"), [("knock", 7), ("restricted", 8), ("knock_restricted", 10)])
def test_join_rules_are_known_since_their_version(room: Room, join_rule: str, since: int) -> None:
    room.join_rule(join_rule)
    room.member(EVE, "invite")
    assert room.allows_member(EVE, EVE, "join") == (int(room.rules.id) >= since)


@pytest.mark.parametrize("version", ["8", "9", "10", "11", "12"])
def test_restricted_joins_need_a_member_who_may_invite(version: str) -> None:
    room = Room(version, power={"invite": 50})
    room.join_rule("restricted")

    def joins(**content: Any) -> bool:
        return room.allows_member(EVE, EVE, "join", **content)

    assert not joins()
    assert joins(join_authorised_via_users_server=BOB)
    assert not joins(join_authorised_via_users_server=CAROL)
    assert not joins(join_authorised_via_users_server="@stranger:here")
    for odd in ("bob", None, 7, [BOB]):
        assert not joins(join_authorised_via_users_server=odd)
    room.member(EVE, "invite")
    assert joins()


def test_inviting(room: Room) -> None:
    assert room.allows_member(CAROL, EVE, "invite")
    assert not room.allows_member(EVE, "@frank:here", "invite")
    assert not room.allows_member(ALICE, BOB, "invite")
    room.member(EVE, "ban")
    assert not room.allows_member(ALICE, EVE, "invite")
    room.power({"invite": 50})
    assert room.allows_member(BOB, "@frank:here", "invite")
    assert not room.allows_member(CAROL, "@frank:here", "invite")


def test_leaving(room: Room) -> None:
    assert room.allows_member(CAROL, CAROL, "leave")
    assert not room.allows_member(EVE, EVE, "leave")
    for membership, may in [("invite", True), ("ban", False), ("leave", False)]:
        room.member(EVE, membership)
        assert room.allows_member(EVE, EVE, "leave") == may
    room.member(EVE, "knock")
    assert room.allows_member(EVE, EVE, "leave") == room.rules.knocking


def test_kicking(room: Room) -> None:
    assert room.allows_member(BOB, CAROL, "leave")
    assert not room.allows_member(CAROL, BOB, "leave")
    assert not room.allows_member(BOB, ALICE, "leave")
    assert not room.allows_member(EVE, CAROL, "leave")
    room.power({"kick": 60})
    assert not room.allows_member(BOB, CAROL, "leave")
    assert room.allows_member(ALICE, BOB, "leave")


def test_banning_and_lifting_a_ban(room: Room) -> None:
    assert room.allows_member(BOB, EVE, "ban")
    assert not room.allows_member(CAROL, EVE, "ban")
    assert not room.allows_member(BOB, ALICE, "ban")
    room.member(EVE, "ban")
    assert room.allows_member(BOB, EVE, "leave")
    room.power({"ban": 60})
    assert not room.allows_member(BOB, EVE, "leave")
    assert not room.allows_member(BOB, CAROL, "ban")


def test_knocking(room: Room) -> None:
    assert not room.allows_member(EVE, EVE, "knock")
    room.join_rule("knock")
    assert room.allows_member(EVE, EVE, "knock") == room.rules.knocking
    assert not room.allows_member(ALICE, EVE, "knock")
    for membership in ("ban", "invite", "join"):
        room.member(EVE, membership)
        assert not room.allows_member(EVE, EVE, "knock")
    room.member(EVE, "leave")
    room.join_rule("knock_restricted")
    assert room.allows_member(EVE, EVE, "knock") == room.rules.knock_restricted_joins


# --- rule 5.4.1: third-party invites ----------------------------------------------------------


def unpadded(data: bytes, *, url_safe: bool = False) -> str:
    encode = base64.urlsafe_b64encode if url_safe else base64.b64encode
    return encode(data).decode().rstrip("=")


def signed_by(key: SigningKey, mxid: str = EVE, token: str = "abc") -> dict[str, Any]:
    body = {"mxid": mxid, "token": token}
    signature = unpadded(key.sign(canonical_json.encode(body)).signature)
    return body | {"signatures": {"id.example": {"ed25519:0": signature}}}


@pytest.fixture
def key() -> SigningKey:
    return SigningKey(bytes(range(32)))


def issue(room: Room, content: dict[str, Any]) -> None:
    room.put("m.room.third_party_invite", BOB, "abc", content)


def redeems(room: Room, third_party_invite: Any, sender: str = BOB) -> bool:
    return room.allows_member(sender, EVE, "invite", third_party_invite=third_party_invite)


@pytest.mark.parametrize("url_safe", [False, True])
def test_third_party_invite(room: Room, key: SigningKey, url_safe: bool) -> None:
    invite = {"display_name": "e…", "signed": signed_by(key)}
    assert not redeems(room, invite)
    public_key = unpadded(key.verify_key.encode(), url_safe=url_safe)
    issue(room, {"public_key": public_key})
    assert redeems(room, invite)
    issue(room, {"public_keys": [{"public_key": "x"}, 7, {"public_key": public_key}]})
    assert redeems(room, invite)
    assert not redeems(room, invite, sender=ALICE)
    room.member(EVE, "ban")
    assert not redeems(room, invite)


def test_third_party_invite_must_be_signed_for_the_target(room: Room, key: SigningKey) -> None:
    issue(room, {"public_key": unpadded(key.verify_key.encode())})
    other = SigningKey(bytes(32))
    assert not redeems(room, {"signed": signed_by(other)})
    assert not redeems(room, {"signed": signed_by(key, mxid=CAROL)})
    assert not redeems(room, {"signed": signed_by(key, token="other")})
    assert not redeems(room, {"signed": signed_by(key) | {"more": 1}})
    for part in ("mxid", "token", "signatures"):
        signed = signed_by(key)
        del signed[part]
        assert not redeems(room, {"signed": signed})
    odd_ones: list[Any] = [None, 7, [], "x", {}, {"signed": []}, {"signed": {"mxid": EVE, "token": {}}}]
    for odd in odd_ones:
        assert not redeems(room, odd)


def test_third_party_invite_of_a_thousand_signatures_is_not_tried(key: SigningKey) -> None:
    room = Room("11")
    issue(room, {"public_key": unpadded(key.verify_key.encode())})
    signed = signed_by(key)
    signed["signatures"]["id.example"] |= {
        f"ed25519:{number}": unpadded(number.to_bytes(64)) for number in range(1, 1001)
    }
    with pytest.raises(NotAllowed, match="too many"):
        room.check(MEMBER, BOB, EVE, {"membership": "invite", "third_party_invite": {"signed": signed}})


# --- rules 6 to 9 -----------------------------------------------------------------------------


def test_only_members_send(room: Room) -> None:
    assert room.allows("m.room.message", CAROL, None, {})
    assert not room.allows("m.room.message", EVE, None, {})
    for membership in ("invite", "leave", "ban", "knock", None):
        room.member(EVE, membership)
        assert not room.allows("m.room.message", EVE, None, {})


def test_third_party_invites_need_the_invite_level_only(room: Room) -> None:
    assert room.allows("m.room.third_party_invite", CAROL, "abc", {})
    room.power({"invite": 50})
    assert room.allows("m.room.third_party_invite", BOB, "abc", {})
    assert not room.allows("m.room.third_party_invite", CAROL, "abc", {})


def test_events_need_the_power_their_type_requires(room: Room) -> None:
    assert room.allows("m.room.topic", BOB, "", {})
    assert not room.allows("m.room.topic", CAROL, "", {})
    room.power({"events": {"m.room.message": 60}})
    assert room.allows("m.room.message", ALICE, None, {})
    assert not room.allows("m.room.message", BOB, None, {})


def test_state_of_a_user_is_sent_by_that_user(room: Room) -> None:
    assert room.allows("org.example.mood", BOB, BOB, {})
    assert not room.allows("org.example.mood", ALICE, BOB, {})
    assert room.allows("org.example.mood", ALICE, "bob", {})


# --- rule 10: power levels --------------------------------------------------------------------


def test_the_first_power_levels_may_be_anything(room: Room) -> None:
    del room.state[POWER, ""]
    assert room.allows(POWER, ALICE, "", {"users": {BOB: 500}, "ban": 900})


@pytest.mark.parametrize("value", [None, [], {}, True, "x", "1.5", 10**400])
@pytest.mark.parametrize("name", ["users_default", "events_default", "state_default", "ban", "invite"])
def test_levels_are_levels(name: str, value: Any) -> None:
    if value == 10**400:
        value = "9" * 400
    for version in ALL:
        assert not Room(version).allows(POWER, ALICE, "", {name: value})


@pytest.mark.parametrize("name", ["users", "events", "notifications"])
@pytest.mark.parametrize("value", [None, [], 7, "x", {"@a:b": None}, {"@a:b": "x"}, {"@a:b": True}])
def test_objects_of_levels_are_objects_of_levels(room: Room, name: str, value: Any) -> None:
    assert not room.allows(POWER, ALICE, "", {name: value})


@pytest.mark.parametrize("user_id", ["", "bob", "@bob", "bob:here", "@bob:"])
def test_users_have_user_ids(room: Room, user_id: str) -> None:
    assert not room.allows(POWER, ALICE, "", {"users": {user_id: 0}})


def test_strings_and_floats_in_old_versions(room: Room) -> None:
    version = int(room.rules.id)
    content = {"users": {BOB: "50"}} if room.rules.hash_room_ids else {"users": {ALICE: "100", BOB: "50"}}
    assert room.allows(POWER, ALICE, "", content) == (version < 10)
    assert room.allows(POWER, ALICE, "", {"ban": 50.57}) == (version < 6)


def test_creators_are_not_listed_since_v12() -> None:
    room = Room("12", create={"additional_creators": [CAROL]})
    assert not room.allows(POWER, ALICE, "", {"users": {ALICE: 100}})
    assert not room.allows(POWER, ALICE, "", {"users": {CAROL: 100}})
    assert room.allows(POWER, CAROL, "", {"users": {BOB: 2**53 - 1}})


def changed(room: Room, sender: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether this sender may change the power levels, Alice's and Bob's own staying the same."""
    room.power(old)
    users = {BOB: 50} if room.rules.hash_room_ids else {ALICE: 100, BOB: 50}
    users |= new.pop("more_users", {})
    return room.allows(POWER, sender, "", {"users": users, **new})


def test_single_levels_change_within_the_senders_power(room: Room) -> None:
    assert changed(room, BOB, {"ban": 50}, {"ban": 40})
    assert changed(room, BOB, {"ban": 50}, {})
    assert changed(room, BOB, {"ban": 60}, {"ban": 60})
    assert not changed(room, BOB, {"ban": 60}, {"ban": 50})
    assert not changed(room, BOB, {"ban": 60}, {})
    assert not changed(room, BOB, {}, {"ban": 60})
    assert changed(room, ALICE, {"ban": 60}, {"ban": 70})


@pytest.mark.parametrize("name", ["events", "notifications"])
def test_entries_change_within_the_senders_power(room: Room, name: str) -> None:
    protected = name == "events" or room.rules.limit_notifications_power_levels
    assert changed(room, BOB, {name: {"x": 50}}, {name: {"x": 40, "y": 50}})
    assert changed(room, BOB, {name: {"x": 50}}, {})
    assert changed(room, BOB, {name: {"x": 60}}, {name: {"x": 60}})
    assert changed(room, BOB, {name: {"x": 60}}, {name: {"x": 50}}) != protected
    assert changed(room, BOB, {name: {"x": 60}}, {}) != protected
    assert changed(room, BOB, {}, {name: {"x": 60}}) != protected


def test_other_peoples_power_changes_only_below_ones_own(room: Room) -> None:
    assert changed(room, BOB, {}, {"more_users": {CAROL: 50}})
    assert not changed(room, BOB, {}, {"more_users": {CAROL: 51}})
    assert changed(room, BOB, {}, {"more_users": {BOB: 10}})
    assert not changed(room, BOB, {}, {"more_users": {BOB: 51}})
    equal = {BOB: 50, CAROL: 50} if room.rules.hash_room_ids else {ALICE: 100, BOB: 50, CAROL: 50}
    room.power({"users": equal})
    assert not room.allows(POWER, BOB, "", {"users": equal | {CAROL: 0}})
    assert not room.allows(POWER, BOB, "", {"users": {user: equal[user] for user in equal if user != CAROL}})
    assert room.allows(POWER, ALICE, "", {"users": equal | {CAROL: 0}})


def test_a_level_written_otherwise_is_not_a_change() -> None:
    assert changed(Room("9"), BOB, {"ban": 60}, {"ban": "60"})


# --- redactions, and what nobody may have thought of ------------------------------------------


def test_redactions_in_v1_and_v2(room: Room) -> None:
    def allows(sender: str, redacts: str | None) -> bool:
        event = make_event(
            room.rules,
            event_id="$redaction:there",
            room_id=room.graph.room_id,
            type="m.room.redaction",
            sender=sender,
            state_key=None,
            origin_server_ts=1,
            depth=1,
            prev_events=(),
            auth_events=(),
            content={},
            redacts=redacts,
        )
        try:
            check_against_state(room.rules, event, room.graph.lookup(room.state))
        except NotAllowed:
            return False
        return True

    only_later = not room.rules.redaction_needs_power
    assert allows(BOB, "$x:here")
    assert allows(CAROL, "$x:there")
    assert allows(CAROL, "$x:here") == only_later
    assert allows(CAROL, "$x") == only_later
    assert allows(CAROL, None) == only_later


def test_a_room_without_a_create_event_takes_nothing(room: Room) -> None:
    room.graph.events.pop("$create")
    assert not room.allows("m.room.message", ALICE, None, {})


contents = st.dictionaries(
    st.sampled_from(
        [
            "membership",
            "third_party_invite",
            "join_authorised_via_users_server",
            "users",
            "events",
            "ban",
            "notifications",
            "join_rule",
            "creator",
            "additional_creators",
            "room_version",
            "m.federate",
            "public_key",
            "public_keys",
            "users_default",
            "invite",
        ]
    ),
    json_values,
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_whatever_events_say_the_answer_is_yes_or_not_allowed(data: st.DataObject) -> None:
    room = Room(data.draw(st.sampled_from(ALL)))
    types = st.sampled_from([MEMBER, POWER, "m.room.join_rules", "m.room.third_party_invite"])
    keys = st.sampled_from(["", BOB, EVE, "token"])
    for _ in range(data.draw(st.integers(0, 3))):
        room.put(data.draw(types), BOB, data.draw(keys), data.draw(contents))
    if data.draw(st.booleans()):
        room.graph.create(content=data.draw(contents))
    more_types = types | st.sampled_from(
        ["m.room.create", "m.room.aliases", "m.room.redaction", "m.room.topic"]
    )
    event = room.graph.send(
        dict(room.state),
        "new",
        data.draw(more_types),
        data.draw(st.sampled_from([ALICE, BOB, EVE])),
        data.draw(keys | st.none()),
        data.draw(contents),
    )
    try:
        check_against_state(room.rules, event, room.graph.lookup(room.state))
        cited = [room.graph.events[event_id] for event_id in event.auth_events]
        check_auth_events(room.rules, event, cited, room.graph.events["$create"])
    except NotAllowed as error:
        refusal = str(error)
    else:
        refusal = "none"
    assert refusal


@given(
    version=st.sampled_from(ALL),
    type_=st.sampled_from(["m.room.message", "m.room.topic", "m.room.join_rules", "m.reaction"]),
    sender=st.sampled_from([ALICE, BOB, EVE]),
    membership=st.sampled_from(["join", "leave", "ban"]),
    needed=st.sampled_from([0, 50, 101]),
)
def test_what_says_nothing_of_itself_is_judged_by_its_sender_and_type_alone(
    version: str, type_: str, sender: str, membership: str, needed: int
) -> None:
    room = Room(version)
    room.put(MEMBER, BOB, BOB, {"membership": membership})
    room.put(POWER, ALICE, "", {"users": {ALICE: 100}, "events": {type_: needed}})
    assert says_nothing_of_itself(type_, None)

    def verdict(name: str, content: dict[str, Any]) -> str:
        event = room.graph.send(dict(room.state), name, type_, sender, None, content)
        try:
            check_against_state(room.rules, event, room.graph.lookup(room.state))
        except NotAllowed as error:
            return str(error)
        return "allowed"

    said = {"membership": "join", "users": {EVE: 100}, "redacts": "$create", "join_rule": "public"}
    assert verdict("one", {}) == verdict("another", said)
