"""matrix-js-sdk, which browsers and desktops use, in rooms on our server: its own stories, told in ``js``."""

from __future__ import annotations

import pytest

from tests.clients.storyteller import Storyteller

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("js-rooms")]


async def test_a_password_logs_in_and_a_logout_ends_the_device(js: Storyteller) -> None:
    outcome = await js.tell("login")

    assert "m.login.password" in outcome["flows"]
    assert outcome["wrong"] == {"errcode": "M_FORBIDDEN", "status": 403}
    assert (outcome["same"], outcome["stillSame"], outcome["named"]) == (True, True, "phone")
    assert outcome["after"] == {"errcode": "M_UNKNOWN_TOKEN", "status": 401}
    assert (outcome["versions"], outcome["stable"]) == (True, True)


async def test_the_newest_edit_is_what_everybody_reads(js: Storyteller) -> None:
    assert await js.tell("edits") == {"original": "Helo", "late": "Hello!", "bundled": "Hello!"}


async def test_reactions_are_counted_and_taken_back(js: Storyteller) -> None:
    assert await js.tell("reactions") == {"all": {"👍": 2, "🍰": 1}, "left": {"👍": 1, "🍰": 1}}


async def test_a_redacted_message_is_gone_for_everybody(js: Storyteller) -> None:
    assert await js.tell("redactions") == {
        "before": "a secret",
        "after": [],
        "late": True,
        "because": "too much",
    }


async def test_receipts_and_read_markers_move_on(js: Storyteller) -> None:
    assert await js.tell("receipts") == {"unread": True, "read": True, "marker": True, "hidden": True}


async def test_who_types_is_seen(js: Storyteller) -> None:
    assert await js.tell("typing") == {"started": True, "stopped": True}


async def test_presence_is_seen(js: Storyteller) -> None:
    assert await js.tell("presence") == {"presence": "unavailable", "status": "at lunch"}


async def test_a_thread_is_listed_and_counted_on_its_own(js: Storyteller) -> None:
    assert await js.tell("threads") == {
        "unread": True,
        "read": True,
        "listed": True,
        "length": 2,
        "texts": ["Where do we meet?", "In the park", "At the lake"],
        "latest": "At the lake",
        "inTimeline": False,
    }


async def test_a_room_is_upgraded_and_found_again(js: Storyteller) -> None:
    assert await js.tell("upgrade") == {
        "version": "11",
        "predecessor": True,
        "same": True,
        "visible": [True],
    }


async def test_a_space_and_all_below_it_are_shown(js: Storyteller) -> None:
    assert await js.tell("spaces") == {
        "names": ["Flower bed", "Garden", "House", "Kitchen"],
        "suggested": [True, False],
        "nested": True,
        "isSpace": True,
    }


async def test_members_are_loaded_when_they_are_needed(js: Storyteller) -> None:
    assert await js.tell("lazyLoading") == {
        "before": True,
        "after": 4,
        "counted": 4,
        "window": 5,
        "oldest": "message 0",
        "sender": "join",
        "unheard": "join",
    }


async def test_a_filter_leaves_out_what_nobody_asked_for(js: Storyteller) -> None:
    assert await js.tell("filters") == {"types": ["m.room.message"], "kept": True}


async def test_a_public_room_is_found_joined_and_left(js: Storyteller) -> None:
    assert await js.tell("directory") == {
        "found": [[True, "Green", 1]],
        "joined": True,
        "because": "closing time",
    }
