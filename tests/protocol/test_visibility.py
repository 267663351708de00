"""Who may see an event: the spec's table, and what must hold for every combination."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.visibility import may_see_event, server_may_see, visibility_of

VISIBILITIES = st.sampled_from(["world_readable", "shared", "invited", "joined"])
MEMBERSHIPS = st.sampled_from([None, "invite", "join", "knock", "leave", "ban"])


@pytest.mark.parametrize(
    ("visibility", "membership", "joined_since", "seen"),
    [
        ("world_readable", None, False, True),
        ("world_readable", "ban", False, True),
        ("shared", "join", False, True),
        ("shared", None, False, False),
        ("shared", None, True, True),
        ("shared", "leave", True, True),
        ("shared", "invite", False, False),
        ("invited", "invite", False, True),
        ("invited", "invite", True, True),
        ("invited", None, True, False),
        ("invited", "leave", True, False),
        ("invited", "join", False, True),
        ("joined", "join", False, True),
        ("joined", "invite", True, False),
        ("joined", None, True, False),
        ("joined", "knock", True, False),
    ],
)
def test_the_five_rules(visibility: str, membership: str | None, joined_since: bool, seen: bool) -> None:
    assert (
        may_see_event(visibility=visibility, membership_at_event=membership, joined_since=joined_since)
        is seen
    )


@pytest.mark.parametrize(
    ("content", "visibility"),
    [
        (None, "shared"),
        ({}, "shared"),
        ({"history_visibility": "secret"}, "shared"),
        ({"history_visibility": ["joined"]}, "shared"),
        ({"history_visibility": "joined"}, "joined"),
        ({"history_visibility": "world_readable"}, "world_readable"),
    ],
)
def test_what_is_not_understood_is_shared(content: dict[str, object] | None, visibility: str) -> None:
    assert visibility_of(content) == visibility


def test_a_change_of_visibility_is_seen_when_either_side_allows() -> None:
    for before, after in (("world_readable", "joined"), ("joined", "world_readable")):
        assert may_see_event(
            visibility=before, visibility_after=after, membership_at_event=None, joined_since=False
        )


@pytest.mark.parametrize(
    ("before", "after", "seen"),
    [
        ("leave", "join", True),
        (None, "join", True),
        ("join", "leave", True),
        ("join", "ban", True),
        ("invite", "leave", True),
        ("knock", "leave", True),
        (None, "invite", False),
        ("leave", "ban", False),
        ("ban", "leave", False),
    ],
)
def test_own_member_events_in_a_room_only_members_may_read(
    before: str | None, after: str, seen: bool
) -> None:
    assert (
        may_see_event(
            visibility="joined", membership_at_event=before, membership_after=after, joined_since=False
        )
        is seen
    )


@given(VISIBILITIES, VISIBILITIES, MEMBERSHIPS, st.booleans())
def test_a_change_shows_exactly_what_before_or_after_shows(
    before: str, after: str, membership: str | None, joined_since: bool
) -> None:
    def alone(visibility: str) -> bool:
        return may_see_event(visibility=visibility, membership_at_event=membership, joined_since=joined_since)

    together = may_see_event(
        visibility=before,
        visibility_after=after,
        membership_at_event=membership,
        joined_since=joined_since,
    )
    assert together == (alone(before) or alone(after))


@given(MEMBERSHIPS, st.booleans())
def test_the_visibilities_are_ordered(membership: str | None, joined_since: bool) -> None:
    seen = [
        may_see_event(visibility=visibility, membership_at_event=membership, joined_since=joined_since)
        for visibility in ("joined", "invited", "world_readable")
    ]
    assert seen == sorted(seen)


@given(VISIBILITIES, st.lists(MEMBERSHIPS.filter(lambda m: m is not None), max_size=4), st.booleans())
def test_a_server_sees_what_some_user_of_it_sees(
    visibility: str, memberships: list[str], joined_since: bool
) -> None:
    server = server_may_see(
        visibility=visibility, memberships_at_event=memberships, joined_since=joined_since
    )
    assert server == any(
        may_see_event(visibility=visibility, membership_at_event=membership, joined_since=joined_since)
        for membership in (None, *memberships)
    )


def test_a_server_sees_the_join_of_its_first_user() -> None:
    assert server_may_see(
        visibility="joined", memberships_at_event=[], memberships_after=["join"], joined_since=False
    )
    assert not server_may_see(visibility="joined", memberships_at_event=[], joined_since=True)
