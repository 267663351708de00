"""Rooms shared between two processes of our own server."""

from __future__ import annotations

import pytest

from tests.interop.client import Client, View
from tests.interop.conftest import Pair
from tests.interop.stories import Stories, shared_room
from tests.processes import Server

pytestmark = pytest.mark.xdist_group("interop-two-of-ours")


@pytest.fixture
def pair(ours: Server, another: Server) -> Pair:
    return Pair(ours, another)


class TestTwoOfOurs(Stories):
    """Every story between two Inglenooks."""

    async def test_people_of_the_other_server_are_found_by_the_name_they_have(
        self, alice: Client, bob: Client, pair: Pair
    ) -> None:
        room = await shared_room(alice, bob, pair)
        await bob.set_displayname("Bob by the river")

        def has_new_name(view: View) -> bool:
            member = view.state[room]["m.room.member", bob.user_id]
            return bool(member["content"].get("displayname") == "Bob by the river")

        await alice.until("the new name", has_new_name)
        found = await alice.request("POST", "/user_directory/search", {"search_term": "river"})
        assert [one["user_id"] for one in found["results"]] == [bob.user_id]
