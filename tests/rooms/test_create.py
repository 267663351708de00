"""Creating rooms."""

from __future__ import annotations

from typing import Any

import pytest

from homeserver.errors import MatrixError
from homeserver.protocol.auth_rules import check_against_state, check_auth_events
from homeserver.protocol.events import Event
from homeserver.protocol.power_levels import CREATOR_LEVEL
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.address_invites import InvitedAddress
from homeserver.rooms.new_room import InitialState, NewRoom
from homeserver.storage import rooms as room_storage
from homeserver.storage.database import Database
from tests.world import ELSEWHERE, World

ALL_VERSIONS = [pytest.param(version, id=f"v{version}") for version in ROOM_VERSIONS]


@pytest.fixture
async def world(sqlite_database: Database) -> World:
    return await World.open(sqlite_database)


async def refused(world: World, creator: str, wish: NewRoom) -> tuple[int, str]:
    with pytest.raises(MatrixError) as refusal:
        await world.create.create(creator, wish)
    return refusal.value.status, refusal.value.errcode


async def test_the_events_come_in_the_order_of_the_specification(world: World) -> None:
    alice = world.user("alice")
    room = await world.room(
        alice,
        NewRoom(
            preset="private_chat",
            room_alias_name="pub",
            name="The Pub",
            topic="Happy hour",
            initial_state=[InitialState("m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})],
            invite=[world.user("bob")],
        ),
    )
    assert [(stored.event.type, stored.event.state_key) for stored in await room.timeline()] == [
        ("m.room.create", ""),
        ("m.room.member", alice),
        ("m.room.power_levels", ""),
        ("m.room.canonical_alias", ""),
        ("m.room.join_rules", ""),
        ("m.room.history_visibility", ""),
        ("m.room.guest_access", ""),
        ("m.room.encryption", ""),
        ("m.room.name", ""),
        ("m.room.topic", ""),
        ("m.room.member", world.user("bob")),
    ]


@pytest.mark.parametrize("version", ALL_VERSIONS)
async def test_every_event_is_allowed_by_what_it_cites_and_by_what_came_before(
    world: World, version: str
) -> None:
    room = await world.public_room(world.user("alice"), version=version, name="Any version")
    rules = ROOM_VERSIONS[version]
    by_id: dict[str, Event] = {}
    nids: dict[str, int] = {}
    state: dict[tuple[str, str], Event] = {}
    for stored in await room.timeline():
        event = stored.event
        cited = [by_id[event_id] for event_id in event.auth_events]
        check_auth_events(rules, event, cited, state.get(("m.room.create", "")))
        check_against_state(rules, event, lambda type_, key: state.get((type_, key)))
        assert event.prev_events == tuple(by_id)[-1:]
        assert {nids[event_id] for event_id in event.auth_events} == set(stored.auth_nids)
        nids[event.event_id] = stored.nid
        by_id[event.event_id] = state[event.key] = event
    assert len(by_id) == 6


async def test_since_v12_the_room_id_is_the_hash_of_the_create_event(world: World) -> None:
    room = await world.public_room(world.user("alice"), version="12")
    create = (await room.live()).create
    assert room.room_id == "!" + create.id[1:]
    assert "room_id" not in create.event.pdu


async def test_two_rooms_made_at_the_same_moment_are_two_rooms(world: World) -> None:
    alice = world.user("alice")
    first = await world.public_room(alice, version="12")
    second = await world.public_room(alice, version="12")
    assert first.room_id != second.room_id


async def test_creators_since_v12_have_unbounded_power_and_no_level(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.room(
        alice, NewRoom(room_version="12", preset="trusted_private_chat", invite=[bob, bob])
    )
    assert (await room.content("m.room.create") or {})["additional_creators"] == [bob]
    levels = (await room.live()).power_levels
    assert levels.of_user(alice) == levels.of_user(bob) == CREATOR_LEVEL
    content = await room.content("m.room.power_levels") or {}
    assert content["users"] == {}
    assert content["events"]["m.room.tombstone"] > content["state_default"]


async def test_before_v12_trusted_invitees_have_the_creators_level(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.room(alice, NewRoom(room_version="11", preset="trusted_private_chat", invite=[bob]))
    assert (await room.content("m.room.power_levels") or {})["users"] == {alice: 100, bob: 100}
    assert "additional_creators" not in (await room.content("m.room.create") or {})


@pytest.mark.parametrize(
    ("wish", "join_rule", "guest_access"),
    [
        (NewRoom(preset="private_chat"), "invite", "can_join"),
        (NewRoom(preset="trusted_private_chat"), "invite", "can_join"),
        (NewRoom(preset="public_chat"), "public", "forbidden"),
        (NewRoom(), "invite", "can_join"),
        (NewRoom(visibility="public"), "public", "forbidden"),
        (NewRoom(visibility="private"), "invite", "can_join"),
    ],
)
async def test_presets(world: World, wish: NewRoom, join_rule: str, guest_access: str) -> None:
    room = await world.room(world.user("alice"), wish)
    state = await room.state()
    assert state["m.room.join_rules", ""] == {"join_rule": join_rule}
    # Without the event guests are forbidden.
    assert state.get(("m.room.guest_access", ""), {"guest_access": "forbidden"}) == {
        "guest_access": guest_access
    }
    assert state["m.room.history_visibility", ""] == {"history_visibility": "shared"}


async def test_what_is_given_explicitly_takes_precedence(world: World) -> None:
    room = await world.room(
        world.user("alice"),
        NewRoom(
            preset="public_chat",
            name="By name",
            power_level_content_override={"events_default": 10},
            creation_content={
                "m.federate": False,
                "type": "m.space",
                "creator": "@eve:x",
                "room_version": "1",
            },
            initial_state=[
                InitialState("m.room.name", {"name": "By state"}),
                InitialState("m.room.join_rules", {"join_rule": "knock"}),
            ],
        ),
    )
    state = await room.state()
    assert state["m.room.name", ""] == {"name": "By name"}
    assert state["m.room.join_rules", ""] == {"join_rule": "knock"}
    assert state["m.room.create", ""] == {"m.federate": False, "type": "m.space", "room_version": "12"}
    assert state["m.room.power_levels", ""]["events_default"] == 10
    types = [stored.event.type for stored in await room.timeline()]
    assert len(types) == len(set(types))


async def test_power_levels_in_initial_state_take_the_place_of_the_default_ones(world: World) -> None:
    alice = world.user("alice")
    levels = InitialState("m.room.power_levels", {"users": {alice: 100}, "state_default": 70})
    room = await world.room(alice, NewRoom(room_version="10", initial_state=[levels]))
    assert await room.content("m.room.power_levels") == levels.content
    assert [stored.event.type for stored in await room.timeline()][2] == "m.room.power_levels"


async def test_the_topic_has_a_plain_text_representation(world: World) -> None:
    room = await world.public_room(world.user("alice"), topic="Beer")
    assert await room.content("m.room.topic") == {
        "topic": "Beer",
        "m.topic": {"m.text": [{"body": "Beer", "mimetype": "text/plain"}]},
    }


async def test_invitees_of_a_direct_chat_are_told_so(world: World) -> None:
    alice, bob = world.user("alice", displayname="Alice"), world.user("bob", displayname="Bob")
    room = await world.room(alice, NewRoom(invite=[bob], is_direct=True))
    assert await room.content("m.room.member", alice) == {"membership": "join", "displayname": "Alice"}
    assert await room.content("m.room.member", bob) == {
        "membership": "invite",
        "displayname": "Bob",
        "is_direct": True,
    }


async def test_alias_and_publication_are_stored_with_the_room(world: World) -> None:
    room = await world.room(world.user("alice"), NewRoom(visibility="public", room_alias_name="pub"))
    assert await world.directory.resolve("#pub:here.example") == (room.room_id, ["here.example"])
    assert await room.content("m.room.canonical_alias") == {"alias": "#pub:here.example"}
    assert await world.directory.is_published(room.room_id)


async def test_an_alias_leads_to_one_room_only(world: World) -> None:
    alice = world.user("alice")
    await world.room(alice, NewRoom(room_alias_name="pub"))
    assert await refused(world, alice, NewRoom(room_alias_name="pub")) == (400, "M_ROOM_IN_USE")


async def test_of_two_rooms_that_race_for_an_alias_nothing_is_left_of_the_loser(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = world.user("alice")
    await world.room(alice, NewRoom(room_alias_name="pub"))
    before = await world.db.read.fetch_row("SELECT COUNT(*) FROM rooms")

    async def free(*_: Any) -> None:
        return None

    monkeypatch.setattr(room_storage, "alias", free)  # as if both had looked before either wrote
    announced = len(world.announced)
    assert await refused(world, alice, NewRoom(room_alias_name="pub")) == (400, "M_ROOM_IN_USE")
    assert list(await world.db.read.fetch_row("SELECT COUNT(*) FROM rooms") or ()) == list(before or ())
    assert len(world.announced) == announced


@pytest.mark.parametrize(
    ("wish", "errcode"),
    [
        (NewRoom(room_version="99"), "M_UNSUPPORTED_ROOM_VERSION"),
        (
            NewRoom(power_level_content_override={"users": {"@alice:here.example": 100}}),
            "M_INVALID_ROOM_STATE",
        ),
        (NewRoom(power_level_content_override={"state_default": "high"}), "M_INVALID_ROOM_STATE"),
        (
            NewRoom(room_version="11", name="x", power_level_content_override={"users": {}}),
            "M_INVALID_ROOM_STATE",
        ),
        (NewRoom(initial_state=[InitialState("m.room.create", {})]), "M_INVALID_ROOM_STATE"),
        (NewRoom(initial_state=[InitialState("m.room.member", {}, "@bob:x")]), "M_INVALID_ROOM_STATE"),
        (NewRoom(creation_content={"additional_creators": "@bob:x"}), "M_BAD_JSON"),
        (NewRoom(creation_content={"additional_creators": ["bob"]}), "M_INVALID_ROOM_STATE"),
        (NewRoom(initial_state=[InitialState("m.x", {"pi": 3.14})]), "M_BAD_JSON"),
        (NewRoom(room_alias_name="a b"), "M_INVALID_PARAM"),
        (NewRoom(room_alias_name="pub:elsewhere"), "M_INVALID_PARAM"),
        (NewRoom(invite=["bob"]), "M_INVALID_PARAM"),
    ],
)
async def test_what_cannot_be_is_refused_before_anything_is_stored(
    world: World, wish: NewRoom, errcode: str
) -> None:
    assert await refused(world, world.user("alice"), wish) == (400, errcode)
    assert await world.db.read.fetch_value("SELECT COUNT(*) FROM rooms") == 0


async def test_an_event_that_is_too_large_is_refused(world: World) -> None:
    assert await refused(world, world.user("alice"), NewRoom(name="x" * 70_000)) == (413, "M_TOO_LARGE")


async def test_invites_by_email_are_refused(world: World) -> None:
    wish = NewRoom(invite_3pid=[InvitedAddress("email", "bob@example.org", "id.example")])
    assert await refused(world, world.user("alice"), wish) == (403, "M_THREEPID_DENIED")


async def test_a_server_that_cannot_be_reached_does_not_undo_the_room(world: World) -> None:
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.room(alice, NewRoom(invite=[f"@carol:{ELSEWHERE}", bob]))
    assert await room.membership(f"@carol:{ELSEWHERE}") is None
    assert await room.membership(bob) == "invite"
    assert [asked[:3] for asked in world.remote.asked] == [("invite", room.room_id, f"@carol:{ELSEWHERE}")]


async def test_a_new_room_is_announced_once_and_whole(world: World) -> None:
    alice = world.user("alice")
    room = await world.public_room(alice)
    (news,) = world.announced
    assert news.room is await room.live()
    assert [stored.id for stored in news.events] == [stored.id for stored in await room.timeline()]
    assert news.users == {alice}
    assert news.pos == (await room.live()).last_pos


async def test_a_room_is_the_same_after_a_restart(database: Database) -> None:
    world = await World.open(database)
    alice, bob = world.user("alice"), world.user("bob")
    room = await world.public_room(alice, name="Pub", invite=[bob])
    live, again = await room.live(), await (await world.reopen()).rooms.get(room.room_id)
    assert again.row() == live.row()
    assert again.servers == live.servers
    assert {key: stored.id for key, stored in again.state.items()} == {
        key: stored.id for key, stored in live.state.items()
    }
    assert [stored.id for stored in again.recent] == [stored.id for stored in live.recent]
