"""EDUs to other servers: what is put together, what is kept, what is not worth sending any more."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from federation.waiting_edus import MAX_WAITING, WaitingEdus, edu_json, is_of_type, receipt_edus, said_of
from homeserver.protocol.canonical_json import decode
from homeserver.rooms.receipts import READ
from homeserver.storage import outbox, receipts
from homeserver.storage.receipts import Receipt
from homeserver.users.to_device import messages_in_parts
from tests.federation.sending import PEER, Story, away, written

DEVICE_LIST = "m.device_list_update"


def receipt(user_id: str, event_id: str, pos: int, thread_id: str = "") -> Receipt:
    return Receipt(user_id, READ, thread_id, event_id, pos, 1, pos)


async def read(story: Story, user_id: str, event_id: str, thread_id: str = "") -> None:
    """A receipt as the write path makes it: stored, then told."""
    pos = story.server.core.positions.next()
    room = await story.room()
    one = receipt(user_id, event_id, pos, thread_id)
    await story.server.db.write(lambda tx: receipts.advance(tx, room.nid, one))
    story.server.notifier.announce(pos)
    story.sender.send_receipts(room, [one])


def receipts_of(story: Story) -> list[Any]:
    return [
        content[story.room_id][READ] for edu_type, content in story.peer.edus() if edu_type == "m.receipt"
    ]


async def test_receipts_that_wait_are_one_edu_with_the_newest_of_each(story: Story) -> None:
    await story.sender.idle()
    said = [(story.alice, "$1"), (story.alice, "$2"), ("@ann:here.example", "$1")]
    pos = story.server.notifier.position
    told = [receipt(user_id, event_id, pos) for user_id, event_id in said]
    story.sender.send_receipts(await story.room(), told)
    await story.sender.idle()

    (users,) = receipts_of(story)
    assert {user: said["event_ids"] for user, said in users.items()} == {
        story.alice: ["$2"],
        "@ann:here.example": ["$1"],
    }


async def test_receipts_outlive_absence_and_crash_and_are_put_together(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")
    for number in range(5):
        await read(story, story.alice, f"${number}")
        await read(story, story.alice, f"$t{number}", "$thread")
        await story.wait(100)
    await story.restart(crash=True)
    story.peer.refuses = None
    story.peer.transactions.clear()
    await story.wait(48 * 3600)

    first, second = receipts_of(story)
    assert first[story.alice]["event_ids"] == ["$4"]
    assert second[story.alice] == {"event_ids": ["$t4"], "data": {"ts": 1, "thread_id": "$thread"}}
    await story.restart()
    await story.wait(60)
    assert len(receipts_of(story)) == 2


async def test_receipts_are_not_for_servers_that_have_left(story: Story) -> None:
    story.peer.refuses = away()
    await story.say("hello")
    await read(story, story.alice, "$1")
    await story.server.membership.kick(story.alice, story.room_id, f"@bob:{PEER}")
    story.peer.refuses = None
    await story.wait(60)

    assert receipts_of(story) == []


async def test_to_device_messages_go_to_their_server_and_device_lists_where_a_room_is_shared(
    story: Story,
) -> None:
    await story.server.membership.kick(story.alice, story.room_id, f"@bob:{PEER}")
    story.sender.send_edu(PEER, DEVICE_LIST, {"stream_id": 1}, durable=True)
    await written(story.server.db)
    await story.sender.idle()
    story.sender.send_edu(PEER, DEVICE_LIST, {"stream_id": 2}, durable=True)
    story.sender.send_edu(PEER, "m.direct_to_device", {"message_id": "1"}, durable=True)
    story.sender.send_presence([PEER], {"user_id": story.alice, "presence": "online"})
    await written(story.server.db)
    await story.sender.idle()

    assert [edu_type for edu_type, _ in story.peer.edus()] == ["m.direct_to_device"]
    assert await outbox.destinations(story.server.db.scan) == []


async def test_what_is_stored_with_something_else_is_sent_when_that_is_on_disk(story: Story) -> None:
    edus = story.sender.durable([(PEER, "m.direct_to_device", {"message_id": "1"})])
    await story.server.db.write(edus.store)
    await story.restart(crash=True)

    await story.sender.idle()
    assert [content["message_id"] for _, content in story.peer.edus()] == ["1"]


async def test_an_edu_beyond_all_bounds_is_not_sent(story: Story) -> None:
    story.sender.send_edu(PEER, "m.direct_to_device", {"a": "x" * 200_000}, durable=True)
    await written(story.server.db)
    await story.sender.idle()

    assert story.peer.edus() == []


async def test_one_transaction_takes_a_megabyte_of_edus(story: Story) -> None:
    for _ in range(20):
        story.sender.send_edu(PEER, "m.direct_to_device", {"a": "x" * 100_000}, durable=True)
    await written(story.server.db)
    await story.sender.idle()

    assert [len(content["edus"]) for content in story.peer.taken][-2:] == [10, 10]


async def test_an_outbox_is_bounded_in_age(story: Story) -> None:
    story.peer.refuses = away()
    story.sender.send_edu(PEER, "m.direct_to_device", {"message_id": "old"}, durable=True)
    await written(story.server.db)
    await story.sender.idle()
    story.server.network.clock.advance(31 * 24 * 3600)
    story.sender.send_edu(PEER, "m.direct_to_device", {"message_id": "new"}, durable=True)
    story.sender.tick()
    await written(story.server.db)

    assert [
        decode(edu)["content"]["message_id"] for _, edu in await outbox.oldest(story.server.db.scan, PEER, 9)
    ] == ["new"]


async def test_an_outbox_is_bounded_in_number(story: Story, monkeypatch: Any) -> None:
    monkeypatch.setattr("federation.sender.MAX_OUTBOX", 3)
    monkeypatch.setattr("federation.sender._CUT_EVERY", 5)
    story.peer.refuses = away()
    for number in range(10):
        story.sender.send_edu(PEER, "m.direct_to_device", {"message_id": str(number)}, durable=True)
    await written(story.server.db)
    await written(story.server.db)

    assert len(await outbox.oldest(story.server.db.scan, PEER, 100)) == 3


async def test_presence_of_several_is_one_edu(story: Story) -> None:
    for user, state in (("ann", "online"), ("ben", "online"), ("ann", "unavailable")):
        story.sender.send_presence([PEER], {"user_id": f"@{user}:here.example", "presence": state})
    await story.sender.idle()

    assert story.peer.edus() == [
        (
            "m.presence",
            {
                "push": [
                    {"user_id": "@ben:here.example", "presence": "online"},
                    {"user_id": "@ann:here.example", "presence": "unavailable"},
                ]
            },
        )
    ]


async def test_typing_that_is_over_or_nobody_s_business_is_not_sent(story: Story) -> None:
    room, waiting = await story.room(), WaitingEdus()
    waiting.add_typing(room, "@a:x", True, now=0.0)
    waiting.add_typing(room, "@b:x", True, now=40.0)
    assert [decode(edu)["content"]["user_id"] for edu in waiting.take(9, PEER, now=41.0)] == ["@b:x"]
    waiting.add_typing(room, "@b:x", True, now=40.0)
    assert waiting.take(9, "gone.example", now=41.0) == []
    assert not waiting


def test_what_waits_is_bounded() -> None:
    waiting = WaitingEdus()
    for number in range(MAX_WAITING + 10):
        waiting.add_presence({"user_id": f"@{number}:x", "presence": "online"})
    edus = waiting.take(100, PEER, 0.0)
    assert [len(decode(edu)["content"]["push"]) for edu in edus] == [100] * 5
    assert decode(edus[0])["content"]["push"][0]["user_id"] == "@10:x"


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.sampled_from("uvw"), st.sampled_from(["", "t1", "t2"])),
        st.integers(0, 9),
    )
)
def test_receipt_edus_lose_nothing_and_are_as_few_as_threads_demand(receipts: dict[Any, int]) -> None:
    edus = receipt_edus(
        (room, user, thread, said_of(f"${number}", 1, thread))
        for (room, user, thread), number in receipts.items()
    )
    found = {
        (room, user, said["data"].get("thread_id", "")): int(said["event_ids"][0][1:])
        for edu in edus
        for room, by_type in decode(edu)["content"].items()
        for user, said in by_type[READ].items()
    }
    assert found == receipts
    pairs = [(room, user) for room, user, _ in receipts]
    assert len(edus) == max(map(pairs.count, pairs), default=0)


def test_a_type_is_told_from_the_end_of_an_edu() -> None:
    edu = edu_json(DEVICE_LIST, {"edu_type": "m.direct_to_device"})
    assert is_of_type(edu, DEVICE_LIST)
    assert not is_of_type(edu, "m.direct_to_device")


def test_messages_for_many_devices_are_parted() -> None:
    messages = {f"@{user}:x": {f"D{device}": {"a": "x" * 1000} for device in range(10)} for user in range(20)}
    messages["@tiny:x"] = {f"D{device}": {} for device in range(700)}
    parts = list(messages_in_parts(messages, 60_000))
    assert max(sum(map(len, part.values())) for part in parts) <= 500
    assert max(len(str(part)) for part in parts) < 65_536
    together: dict[str, dict[str, Any]] = {}
    for part in parts:
        for user, by_device in part.items():
            together.setdefault(user, {}).update(by_device)
    assert together == messages
