"""The lists of published rooms, read from one server by another."""

from __future__ import annotations

import pytest

from homeserver.errors import MatrixError, RemoteError
from homeserver.rooms.published import SearchFilter, Wanted
from tests.remote import Network, Server


async def test_a_published_room_is_found_from_another_server(here: Server, there: Server) -> None:
    alice = here.user("alice")
    room_id = await here.public_room(alice, visibility="public", name="The Hearth", topic="Warmth")
    await here.public_room(alice, name="Open, and in no list")

    page = await there.finding.published.page_of(here.name, Wanted())

    assert page == {
        "chunk": [
            {
                "room_id": room_id,
                "name": "The Hearth",
                "topic": "Warmth",
                "num_joined_members": 1,
                "world_readable": False,
                "guest_can_join": False,
                "join_rule": "public",
            }
        ],
        "total_room_count_estimate": 1,
    }


async def test_pages_lead_on_and_back(here: Server, there: Server) -> None:
    alice = here.user("alice")
    rooms = [await here.public_room(alice, visibility="public", name=f"Room {each}") for each in range(5)]
    for number, room_id in enumerate(rooms):
        for guest in range(number):
            await here.join(here.user(f"guest{guest}"), room_id)
    busiest_first = rooms[::-1]

    async def turn(since: str | None) -> tuple[list[str], str | None, str | None]:
        page = await there.finding.published.page_of(here.name, Wanted(limit=2, since=since))
        chunk = [entry["room_id"] for entry in page["chunk"]]
        return chunk, page.get("prev_batch"), page.get("next_batch")

    first, before, after = await turn(None)
    assert (first, before) == (busiest_first[:2], None)
    second, back_to_first, after = await turn(after)
    assert second == busiest_first[2:4]
    third, back_to_second, after = await turn(after)
    assert (third, after) == (busiest_first[4:], None)

    again, before, on = await turn(back_to_second)
    assert again == busiest_first[2:4]
    assert before is not None
    assert (await turn(on))[0] == busiest_first[4:]
    again, before, on = await turn(back_to_first)
    assert (again, before) == (busiest_first[:2], None)
    assert (await turn(on))[0] == busiest_first[2:4]


async def test_a_list_is_searched_by_text_and_type(here: Server, there: Server) -> None:
    alice = here.user("alice")
    named = await here.public_room(alice, visibility="public", name="Gardening")
    described = await here.public_room(alice, visibility="public", topic="About GARDENS")
    space = await here.public_room(
        alice, visibility="public", name="The garden space", creation_content={"type": "m.space"}
    )
    await here.public_room(alice, visibility="public", name="Woodwork")

    async def found(**wanted: object) -> set[str]:
        page = await there.finding.published.page_of(here.name, Wanted(filter=SearchFilter(**wanted)))  # type: ignore[arg-type]
        return {entry["room_id"] for entry in page["chunk"]}

    assert await found(generic_search_term="garden") == {named, described, space}
    assert await found(generic_search_term="garden", room_types=[None]) == {named, described}
    assert await found(room_types=["m.space"]) == {space}
    assert await found(generic_search_term="nothing of the kind") == set()


async def test_the_list_tells_how_a_room_is_now(here: Server, there: Server) -> None:
    alice, bob = here.user("alice"), here.user("bob")
    room_id = await here.public_room(alice, visibility="public", name="Before")
    await there.finding.published.page_of(here.name, Wanted())

    await here.set_state(room_id, alice, "m.room.name", {"name": "After"})
    await here.set_state(room_id, alice, "m.room.join_rules", {"join_rule": "knock"})
    await here.membership.invite(alice, room_id, bob)
    await here.join(bob, room_id)

    (entry,) = (await there.finding.published.page_of(here.name, Wanted()))["chunk"]
    assert (entry["name"], entry["join_rule"], entry["num_joined_members"]) == ("After", "knock", 2)


async def test_a_room_that_everybody_left_is_listed_no_more(here: Server, there: Server) -> None:
    alice = here.user("alice")
    room_id = await here.public_room(alice, visibility="public")
    await here.membership.leave(alice, room_id)

    assert (await here.finding.published.page(Wanted()))["chunk"] == []


async def test_a_room_that_only_others_are_in_still_is_listed_no_more(
    here: Server, there: Server, network: Network
) -> None:
    alice, bob = here.user("alice"), there.user("bob")
    room_id = await here.public_room(alice, visibility="public")
    await there.join(bob, room_id, here)
    await here.membership.leave(alice, room_id)
    await network.settle()

    assert (await here.finding.published.page(Wanted()))["chunk"] == []


async def test_what_makes_no_sense_is_refused(here: Server, there: Server) -> None:
    for wanted in (
        Wanted(since="somewhere"),
        Wanted(limit=-1),
        Wanted(include_all_networks=True, third_party_instance_id="irc"),
    ):
        with pytest.raises(MatrixError) as refused:
            await here.finding.published.page(wanted)
        assert refused.value.errcode == "M_INVALID_PARAM"
    with pytest.raises(MatrixError) as refused:
        await here.finding.published.page_of("no server name", Wanted())
    assert refused.value.errcode == "M_INVALID_PARAM"


async def test_no_bridged_network_is_known(here: Server) -> None:
    await here.public_room(here.user("alice"), visibility="public")

    assert (await here.finding.published.page(Wanted(third_party_instance_id="irc")))["chunk"] == []
    assert len((await here.finding.published.page(Wanted(include_all_networks=True)))["chunk"]) == 1


async def test_a_server_may_keep_its_list_to_itself(start: object, here: Server) -> None:
    private = await start("private.example", lists_rooms=False)  # type: ignore[operator]
    await private.public_room(private.user("carol"), visibility="public")

    with pytest.raises(RemoteError) as refused:
        await here.finding.published.page_of(private.name, Wanted())

    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")
    assert len((await private.finding.published.page(Wanted()))["chunk"]) == 1


async def test_the_plain_reading_of_the_list_is_served_too(here: Server, there: Server) -> None:
    room_id = await here.public_room(here.user("alice"), visibility="public")

    reply = await there.client.request(
        "GET", here.name, "/_matrix/federation/v1/publicRooms", query={"limit": "3"}
    )

    assert [entry["room_id"] for entry in reply["chunk"]] == [room_id]
