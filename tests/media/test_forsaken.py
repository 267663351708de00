"""Uploads go with the last event that names them, and with nothing else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from homeserver.config.media import Media as Settings
from homeserver.content_repository import ContentRepository, wire_content_repository
from homeserver.errors import MatrixError
from homeserver.media.content import Content
from homeserver.media.forsaken import fill_names
from homeserver.media.mxc import Mxc
from homeserver.media.thumbnails import Wanted
from homeserver.media.uploads import Description
from homeserver.rooms.purge import Purge
from homeserver.storage import account_data, event_media, profiles
from homeserver.storage import media as storage
from homeserver.storage.database import Database
from tests.media.pictures import picture
from tests.world import World, WorldRoom

SMALL = Wanted.nearest(32, 32, "crop", False)


class House:
    """A server with rooms and a content repository."""

    def __init__(self, world: World, content: ContentRepository, folder: Path) -> None:
        self.world = world
        self.content = content
        self.folder = folder
        self.alice = world.user("alice")
        self.bob = world.user("bob")

    async def upload(self, user_id: str) -> Mxc:
        async def pieces() -> AsyncIterator[bytes]:
            yield picture(200, 200)

        return await self.content.uploads.upload(user_id, pieces(), Description("image/png", None, None))

    async def find(self, mxc: Mxc) -> Content:
        return await self.content.media.find(mxc, to_anybody=False, may_fetch=False, wait_ms=0)

    async def is_there(self, mxc: Mxc) -> bool:
        """Whether it is, once everything was done that is to be done."""
        await self.content.forsaken.round()
        return await storage.local(self.world.db.read, mxc.media_id) is not None

    def files(self) -> int:
        return sum(path.is_file() for path in self.folder.rglob("*"))


@pytest.fixture
async def house(database: Database, tmp_path: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as closing:
        yield await house_on(database, tmp_path, closing)


async def house_on(
    database: Database,
    tmp_path: Path,
    closing: AsyncExitStack,
    *,
    kept: tuple[str, ...] = (),
    **settings: Any,
) -> House:
    world = await World.open(database)
    closing.push_async_callback(world.background.close)
    content = wire_content_repository(
        world.core, Settings(folder=tmp_path / "media", **settings), None, kept=kept
    )
    await content.open(world.core, closing)
    return House(world, content, tmp_path / "media")


def image(mxc: Mxc) -> dict[str, Any]:
    return {"msgtype": "m.image", "body": "a picture", "url": str(mxc)}


async def sent(room: WorldRoom, sender: str, mxc: Mxc) -> str:
    return (await room.send_event(sender, "m.room.message", image(mxc))).id


async def test_a_redacted_picture_is_gone_with_its_thumbnails(house: House) -> None:
    room, mxc = await house.world.public_room(house.alice), await house.upload(house.alice)
    event_id = await sent(room, house.alice, mxc)
    await house.content.thumbnails.find(await house.find(mxc), SMALL)
    assert house.files() == 2
    assert await house.is_there(mxc)

    await room.redact(house.alice, event_id)

    assert not await house.is_there(mxc)
    with pytest.raises(MatrixError, match="no such media"):
        await house.find(mxc)
    assert house.files() == 0
    assert await event_media.discarded(house.world.db.read, 10) == []


@pytest.mark.parametrize(
    "content",
    [
        {"file": {"url": "MXC"}},
        {"info": {"thumbnail_url": "MXC"}},
        {"info": {"thumbnail_file": {"url": "MXC"}}},
        {"formatted_body": '<img data-mx-emoticon src="MXC">'},
        {"org.example.gallery": [{"items": ["MXC"]}]},
    ],
)
async def test_wherever_an_event_names_it(house: House, content: dict[str, Any]) -> None:
    room, mxc = await house.world.public_room(house.alice), await house.upload(house.alice)
    named = json.loads(json.dumps(content).replace("MXC", str(mxc)))
    event = await room.send_event(house.alice, "m.room.message", {"body": "x", **named})
    assert await house.is_there(mxc)
    await room.redact(house.alice, event.id)

    assert not await house.is_there(mxc)


async def test_what_another_event_names_stays_until_that_goes_too(house: House) -> None:
    here, there = await house.world.public_room(house.alice), await house.world.public_room(house.bob)
    mxc = await house.upload(house.alice)
    first, copy = await sent(here, house.alice, mxc), await sent(there, house.bob, mxc)

    await here.redact(house.alice, first)
    assert await house.is_there(mxc)
    await there.redact(house.bob, copy)
    assert not await house.is_there(mxc)


async def test_what_no_event_ever_named_stays(house: House) -> None:
    room, unsent = await house.world.public_room(house.alice), await house.upload(house.alice)
    await room.redact(house.alice, (await room.send(house.alice, "only words")).id)

    assert await house.is_there(unsent)


async def test_nobody_deletes_what_is_anothers(house: House) -> None:
    """Bob saw it in an encrypted room, which the server cannot read."""
    room, mxc = await house.world.public_room(house.bob), await house.upload(house.alice)
    await room.redact(house.bob, await sent(room, house.bob, mxc))

    assert await house.is_there(mxc)


async def test_a_moderator_may_do_it(house: House) -> None:
    room, mxc = await house.world.public_room(house.bob), await house.upload(house.alice)
    await room.join(house.alice)
    await room.redact(house.bob, await sent(room, house.alice, mxc))

    assert not await house.is_there(mxc)


async def test_an_avatar_stays_as_long_as_it_is_one(house: House) -> None:
    room, mxc = await house.world.public_room(house.alice), await house.upload(house.alice)
    db = house.world.db
    await db.write(lambda tx: profiles.set_field(tx, house.bob, "avatar_url", f'"{mxc}"'))
    await room.redact(house.alice, await sent(room, house.alice, mxc))
    assert await house.is_there(mxc)

    await db.write(lambda tx: profiles.remove_field(tx, house.bob, "avatar_url"))
    house.world.clock.advance(25 * 3600)
    assert not await house.is_there(mxc)


async def test_what_accounts_name_elsewhere_stays(house: House) -> None:
    room, db = await house.world.public_room(house.alice), house.world.db
    pack, banner = await house.upload(house.alice), await house.upload(house.alice)
    emotes = json.dumps({"images": {"wave": {"url": str(pack)}}})
    await db.write(lambda tx: profiles.set_field(tx, house.alice, "org.example", f'{{"banner":"{banner}"}}'))
    await db.write(
        lambda tx: account_data.set_content(
            tx, house.bob, account_data.GLOBAL, "im.ponies.user_emotes", content_json=emotes, pos=1
        )
    )
    for mxc in (pack, banner):
        await room.redact(house.alice, await sent(room, house.alice, mxc))

    assert await house.is_there(pack)
    assert await house.is_there(banner)


async def test_state_counts_as_long_as_it_is_not_redacted(house: House) -> None:
    room, mxc = await house.world.public_room(house.alice), await house.upload(house.alice)
    old = await room.set_state(house.alice, "m.room.avatar", {"url": str(mxc)})
    await room.redact(house.alice, await sent(room, house.alice, mxc))
    await room.set_state(house.alice, "m.room.avatar", {})
    assert await house.is_there(mxc)

    await room.redact(house.alice, old.id)
    assert not await house.is_there(mxc)


async def test_a_purged_message_takes_it_along(house: House) -> None:
    room, mxc = await house.world.public_room(house.alice), await house.upload(house.alice)
    await sent(room, house.alice, mxc)
    newest = await room.send(house.alice, "the newest stays")
    purge = Purge(house.world.db, house.world.rooms, house.world.events, also=[event_media.remove], pause=0)
    assert await house.is_there(mxc)

    await purge.upto(room.room_id, newest.pos or 0)

    assert not await house.is_there(mxc)


async def test_a_second_redaction_finds_nothing_to_take(house: House) -> None:
    room, mxc = await house.world.public_room(house.alice), await house.upload(house.alice)
    event_id = await sent(room, house.alice, mxc)
    for _ in range(2):
        await room.redact(house.alice, event_id)

    assert not await house.is_there(mxc)


async def test_it_can_be_switched_off_and_on_again(database: Database, tmp_path: Path) -> None:
    async with AsyncExitStack() as closing:
        house = await house_on(database, tmp_path, closing, delete_with_events=False)
        room, mxc = await house.world.public_room(house.alice), await house.upload(house.alice)
        await room.redact(house.alice, await sent(room, house.alice, mxc))
        assert await house.is_there(mxc)

    async with AsyncExitStack() as closing:
        assert not await (await house_on(database, tmp_path, closing)).is_there(mxc)


async def test_what_the_configuration_names_stays(database: Database, tmp_path: Path) -> None:
    async with AsyncExitStack() as closing:
        mxc = await (await house_on(database, tmp_path, closing)).upload("@alice:here.example")
    async with AsyncExitStack() as closing:
        house = await house_on(database, tmp_path, closing, kept=(str(mxc),))
        room = await house.world.public_room(house.alice)
        await room.redact(house.alice, await sent(room, house.alice, mxc))

        assert await house.is_there(mxc)


async def test_a_stop_between_the_row_and_the_file_forgets_neither(
    database: Database, tmp_path: Path
) -> None:
    async with AsyncExitStack() as closing:
        house = await house_on(database, tmp_path, closing)
        room, mxc = await house.world.public_room(house.alice), await house.upload(house.alice)
        await room.redact(house.alice, await sent(room, house.alice, mxc))
        await database.write(lambda tx: event_media.let_go(tx, [mxc.media_id]))
        assert house.files() == 1

    async with AsyncExitStack() as closing:
        after = await house_on(database, tmp_path, closing)
        await after.content.forsaken.round()

        assert after.files() == 0


async def test_an_event_that_comes_in_between_keeps_it(house: House) -> None:
    room, mxc = await house.world.public_room(house.alice), await house.upload(house.alice)
    await room.redact(house.alice, await sent(room, house.alice, mxc))
    await sent(room, house.alice, mxc)
    await house.world.db.write(lambda tx: event_media.let_go(tx, [mxc.media_id]))

    assert await house.is_there(mxc)


async def test_an_id_that_never_got_its_content_is_forgotten(house: House) -> None:
    room = await house.world.public_room(house.alice)
    mxc, _ = await house.content.uploads.create(house.alice)
    await room.redact(house.alice, await sent(room, house.alice, mxc))

    assert not await house.is_there(mxc)


async def test_old_events_are_looked_at_before_anything_goes(house: House) -> None:
    here, there = await house.world.public_room(house.alice), await house.world.public_room(house.alice)
    mxc, db = await house.upload(house.alice), house.world.db
    first, second = await sent(here, house.alice, mxc), await sent(there, house.alice, mxc)
    newest = house.world.event_nids.last

    async def as_before_the_index(tx: Any) -> None:
        await tx.execute("DELETE FROM event_media")
        await tx.execute("UPDATE event_media_fill SET upto = $1", newest)

    await db.write(as_before_the_index)
    await here.redact(house.alice, first)
    assert await house.is_there(mxc)
    await fill_names(db, house.world.core.server_name, at_once=2, pause=0)
    assert await house.is_there(mxc)
    await there.redact(house.alice, second)

    assert not await house.is_there(mxc)


async def test_a_thumbnail_that_was_being_made_does_not_stay_behind(house: House) -> None:
    room, mxc = await house.world.public_room(house.alice), await house.upload(house.alice)
    event_id, original = await sent(room, house.alice, mxc), await house.find(mxc)
    await room.redact(house.alice, event_id)
    await house.world.db.write(lambda tx: event_media.let_go(tx, [mxc.media_id]))
    with pytest.raises(MatrixError) as refused:
        await house.content.thumbnails.find(original, SMALL)
    await house.content.forsaken.round()

    assert refused.value.errcode == "M_NOT_FOUND"
    assert house.files() == 0


async def test_words_alone_cost_no_row(house: House) -> None:
    room = await house.world.public_room(house.alice)
    await room.send(house.alice, "mxc://elsewhere.example/abc and mxc://here.example/unknown")

    assert await house.world.db.read.fetch_value("SELECT COUNT(*) FROM event_media") == 0
