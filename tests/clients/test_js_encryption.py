"""matrix-js-sdk, which browsers and desktops use, encrypts on our server: its own stories, told in ``js``."""

from __future__ import annotations

import pytest

from tests.clients.storyteller import Storyteller

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.xdist_group("js-encryption")]


async def test_cross_signing_and_secret_storage_are_set_up(js: Storyteller) -> None:
    assert await js.tell("crossSigning") == {
        "before": False,
        "ready": True,
        "secretStorage": True,
        "ownDevice": True,
        "published": True,
        "backup": True,
    }


async def test_two_people_chat_and_who_comes_later_reads_from_then_on(js: Storyteller) -> None:
    assert await js.tell("chat") == {
        "heard": ["How are you?", "Fine!"],
        "carols": "Welcome, Carol",
        "early": True,
        "onTheWire": "m.room.encrypted",
    }


async def test_a_backup_is_restored_on_another_device(js: Storyteller) -> None:
    outcome = await js.tell("backup")

    assert outcome["texts"] == ["one", "two", "three", "four"]
    assert outcome["before"] is True
    assert (outcome["sameVersion"], outcome["trusted"], outcome["verified"]) == (True, True, True)
    assert outcome["restored"] == {"imported": 2, "total": 2}


async def test_a_backup_is_begun_anew_and_given_up(js: Storyteller) -> None:
    assert await js.tell("backupReset") == {
        "replaced": True,
        "left": {"errcode": "M_NOT_FOUND", "status": 404},
    }


async def test_a_dehydrated_device_receives_keys_while_nobody_is_there(js: Storyteller) -> None:
    assert await js.tell("dehydration") == {
        "supported": True,
        "dehydrated": 1,
        "before": True,
        "text": "while nobody was there",
    }


async def test_every_device_reads_and_one_that_is_deleted_is_gone(js: Storyteller) -> None:
    assert await js.tell("ownDevices") == {
        "texts": ["to both", "to both"],
        "left": 1,
        "ended": {"errcode": "M_UNKNOWN_TOKEN", "status": 401},
    }


async def test_two_devices_of_one_person_verify_each_other_and_share_secrets(js: Storyteller) -> None:
    assert await js.tell("devices") == {
        "before": False,
        "undecrypted": True,
        "sameEmojis": True,
        "emojis": 7,
        "ready": True,
        "verified": True,
        "text": "before the laptop was there",
    }


async def test_two_people_verify_each_other_in_a_room(js: Storyteller) -> None:
    assert await js.tell("users") == {
        "before": False,
        "inRoom": True,
        "sameEmojis": True,
        "alice": True,
        "bob": True,
    }


async def test_a_device_without_one_time_keys_is_reached_by_its_fallback_key(
    js: Storyteller,
) -> None:
    outcome = await js.tell("fallbackKey")

    assert outcome["taken"] == outcome["distinct"] > 20
    assert (outcome["text"], outcome["renewed"]) == ("by the fallback key", True)
