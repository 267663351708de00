"""matrix-js-sdk with what clients of today ask for: sliding sync, media, search, delayed events."""

from __future__ import annotations

import pytest

from tests.clients.storyteller import Storyteller

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("js-today")]


async def test_the_newest_rooms_come_first_and_the_others_when_they_are_looked_at(js: Storyteller) -> None:
    assert await js.tell("slidingSync") == {
        "first": ["Attic", "Den", "Entrance"],
        "count": 5,
        "heard": "hello",
        "texts": ["old 0", "old 1", "old 2", "old 3", "old 4", "hello"],
        "colour": "red",
        "bob": "join",
    }


async def test_encrypted_messages_are_read_and_sent_over_sliding_sync(js: Storyteller) -> None:
    assert await js.tell("encryptedSlidingSync") == {"to": "can you read this?", "back": "every word"}


async def test_a_picture_is_shown_small_and_whole_until_it_is_redacted(js: Storyteller) -> None:
    assert await js.tell("media") == {
        "same": True,
        "type": "image/png",
        "smaller": 128,
        "open": 404,
        "limited": True,
    }


async def test_words_of_every_language_are_found_as_they_are_now(js: Storyteller) -> None:
    assert await js.tell("search") == {
        "found": {
            "teapot": ["Where is the teapot?"],
            "厨房": ["茶壶在厨房里"],
            "お茶": ["お茶を飲みましょう"],
            "ห้องครัว": ["ห้องครัวอยู่ที่ไหน"],
        },
        "edited": {"teapot": [], "kettle": 1},
        "redacted": [],
    }


async def test_events_are_sent_later_sooner_or_never(js: Storyteller) -> None:
    assert await js.tell("delayedEvents") == {
        "announced": True,
        "ids": 5,
        "scheduled": 4,
        "bodies": ["in a moment", "now"],
        "rest": [True],
    }
