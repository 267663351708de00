"""EDUs of others' users, in great numbers, or of no sense; and transactions that are a flood."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from homeserver.ephemeral import Ephemeral, wire_ephemeral
from homeserver.rooms.edus import RemoteEdus
from tests.hostile.conftest import Start
from tests.hostile.harm import Scene, refused
from tests.remote import Server


class Silent(RemoteEdus):
    """Nothing that is received is to be passed on."""

    def send_edu(self, *edu: Any, **options: Any) -> None:
        raise AssertionError(edu)


@pytest.fixture
async def here(start: Start) -> Server:
    """The server with what really takes EDUs in."""

    async def nothing(origin: str, content: dict[str, Any]) -> None:
        pass

    edus: dict[str, Any] = {"x.nothing": nothing}
    server: Server = await start("here.example", Server, edu_receivers=edus)
    ephemeral = wire_ephemeral(server.core, Silent(), presence=True)
    edus.update(ephemeral.edu_receivers())
    server.ephemeral = ephemeral  # type: ignore[attr-defined]
    return server


def typing(room_id: Any, user_id: Any, is_typing: Any = True) -> dict[str, Any]:
    return {
        "edu_type": "m.typing",
        "content": {"room_id": room_id, "user_id": user_id, "typing": is_typing},
    }


def receipt(room_id: str, user_id: str, event_id: Any = "$x", **data: Any) -> dict[str, Any]:
    said = {"event_ids": [event_id], "data": {"ts": 1, **data}}
    return {"edu_type": "m.receipt", "content": {room_id: {"m.read": {user_id: said}}}}


def presence(user_id: Any, state: Any = "online", **more: Any) -> dict[str, Any]:
    update = {"user_id": user_id, "presence": state, "last_active_ago": 1, **more}
    return {"edu_type": "m.presence", "content": {"push": [update]}}


def to_device(sender: str, messages: Any, message_id: Any = "m1") -> dict[str, Any]:
    content = {"sender": sender, "type": "x", "message_id": message_id, "messages": messages}
    return {"edu_type": "m.direct_to_device", "content": content}


async def test_edus_in_the_name_of_others_are_passed_over(scene: Scene) -> None:
    ephemeral: Ephemeral = scene.here.ephemeral  # type: ignore[attr-defined]
    room = await scene.here.room(scene.room_id)
    message = room.recent[-1].id
    edus = [
        typing(scene.room_id, scene.alice),
        typing(scene.other_id, scene.mallory),
        typing("!nowhere:here.example", scene.mallory),
        receipt(scene.room_id, scene.alice, message),
        receipt(scene.other_id, scene.mallory, message),
        presence(scene.alice),
        to_device(scene.alice, {scene.alice: {"*": {"x": "y"}}}),
        to_device(scene.mallory, {"@bob:there.example": {"*": {}}}),
    ]
    async with refused(scene, lines=0, rows=2):
        assert await scene.evil.sends(scene.here, edus=edus) == {}
        assert ephemeral.typing.users(room.nid) == []
        assert await ephemeral.receipts.of_user(room, scene.alice) == []


DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]

NONSENSE: list[Any] = [
    None,
    [],
    "x",
    {},
    {"edu_type": 3, "content": {}},
    {"edu_type": ["m.typing"], "content": {}},
    {"edu_type": "m.typing", "content": []},
    {"edu_type": "m.unknown", "content": {}},
    typing(3, "@mallory:evil.example"),
    typing("!x\x00:y", "@mallory:evil.example"),
    typing("!x:y", "@mallory:evil.example\x00"),
    typing("!x:y", {"a": 1}, "yes"),
    {"edu_type": "m.receipt", "content": {"!x:y": {"m.read": {"@m:evil.example": {"event_ids": {}}}}}},
    {"edu_type": "m.receipt", "content": {"": 1, "!": [], "!a:b": {"m.read": []}}},
    presence("@mallory:evil.example", "dancing"),
    presence("@mallory:evil.example", last_active_ago=-1),
    presence("@mallory:evil.example", last_active_ago=2**70),
    presence("@mallory:evil.example", status_msg="x" * 100_000),
    presence("@mallory:evil.example", status_msg={"deep": DEEP}),
    {"edu_type": "m.presence", "content": {"push": [3, None, {}, [[]]]}},
    {"edu_type": "m.presence", "content": {"push": {}}},
    to_device("@mallory:evil.example", []),
    to_device("@mallory:evil.example", {"@alice:here.example": {"*": DEEP}}),
    to_device("@mallory:evil.example", {"@alice:here.example": {"*": {"deep": DEEP}}}),
    to_device("@mallory:evil.example", {"@alice:here.example": []}),
    to_device("@mallory:evil.example", {"@alice:here.example": {"\x00": {}}}),
    to_device("@mallory:evil.example", {"@alice:here.example": {"*": {}}}, "x" * 1000),
    to_device("@mallory:evil.example", {"@alice:here.example": {"*": {}}}, {"a": 1}),
]


async def test_edus_that_make_no_sense_are_passed_over_and_keep_nobody_back(scene: Scene) -> None:
    room = await scene.here.room(scene.room_id)
    async with refused(scene, lines=0, rows=4):
        await scene.evil.sends(scene.here, edus=[*NONSENSE, typing(scene.room_id, scene.mallory)])
        assert scene.here.ephemeral.typing.users(room.nid) == [scene.mallory]  # type: ignore[attr-defined]


async def test_a_receipt_for_twenty_thousand_rooms_is_cut(scene: Scene) -> None:
    said = {"m.read": {scene.mallory: {"event_ids": ["$x"], "data": {"ts": 1}}}}
    content = {f"!{n}:nowhere.example": said for n in range(20_000)}
    async with refused(scene, lines=0, queries=300) as seen:
        await scene.evil.sends(scene.here, edus=[{"edu_type": "m.receipt", "content": content}])
    assert not seen.asked


async def test_messages_for_ten_thousand_devices_are_cut(scene: Scene) -> None:
    everybody = {f"@u{n}:here.example": {"*": {"x": "y"}} for n in range(10_000)}
    devices = {scene.alice: {f"D{n}": {"x": "y"} for n in range(10_000)}}
    edus = [to_device(scene.mallory, everybody, "m1"), to_device(scene.mallory, devices, "m2")]
    async with refused(scene, lines=0, rows=3, queries=2000) as seen:
        await scene.evil.sends(scene.here, edus=edus)
    assert not seen.asked


@pytest.mark.parametrize(
    "body",
    [
        {"pdus": [{}] * 51},
        {"edus": [{}] * 101},
        {"edus": [{}] * 10_000},
        {"pdus": [[]]},
        {"pdus": {"a": {}}},
        {"edus": "x"},
    ],
    ids=range(6),
)
async def test_a_transaction_of_too_much_is_refused(scene: Scene, body: dict[str, Any]) -> None:
    async with refused(scene, rows=0):
        status, answer = await scene.evil.asks(
            scene.here, "PUT", "v1", "send", "t", content={"pdus": [], "edus": [], **body}
        )
        assert (status, answer["errcode"]) == (400, "M_BAD_JSON")


async def test_a_transaction_id_with_other_content_is_answered_as_before(scene: Scene) -> None:
    first = await scene.evil.message(scene.room_id, scene.mallory, "first")
    assert list((await scene.evil.sends(scene.here, first, id="same")).values()) == [{}]
    second = await scene.evil.message(scene.room_id, scene.mallory, "second")
    async with refused(scene, rows=0, lines=0):
        answer = await scene.evil.sends(scene.here, second, id="same")
        assert list(answer) == [await scene.evil.id_of(scene.room_id, first)]


async def test_a_transaction_sent_many_times_at_once_is_taken_once(scene: Scene) -> None:
    pdu = await scene.evil.message(scene.room_id, scene.mallory, "once")
    answers = await asyncio.gather(
        *(scene.evil.sends(scene.here, pdu, id="same") for _ in range(5)), return_exceptions=True
    )
    taken = [answer for answer in answers if isinstance(answer, dict)]
    assert taken
    assert all(answer == taken[0] for answer in taken)
    assert (await scene.here.bodies(scene.room_id)).count("once") == 1
    await scene.works()


async def test_a_server_that_sends_many_transactions_at_once_is_told_to_wait(scene: Scene) -> None:
    """Servers send one after the other: waiting ones would only fill the memory."""
    body = {"origin": scene.evil.name, "origin_server_ts": 1, "pdus": [], "edus": []}
    async with refused(scene, rows=20, lines=500):
        answers = await asyncio.gather(
            *(scene.evil.asks(scene.here, "PUT", "v1", "send", f"flood{n}", content=body) for n in range(200))
        )
        statuses = [status for status, _ in answers]
        assert statuses.count(429) > 150
        assert set(statuses) == {200, 429}
        limited = next(answer for status, answer in answers if status == 429)
        assert limited["errcode"] == "M_LIMIT_EXCEEDED"
