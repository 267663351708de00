"""How much is kept, and for how long: of one user's uploads, and of other servers' media."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from homeserver.media.uploads import MAX_PENDING
from tests.media.conftest import StartServer
from tests.media.pictures import picture
from tests.media.server import OLD, V1, MediaServer

CREATE = "/_matrix/media/v1/create"
_DAY_S = 24 * 3600


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def created(server: MediaServer) -> str:
    answer = await server.call(server.alice, "POST", CREATE)
    return str(answer.json["content_uri"]).removeprefix("mxc://")


async def of_unknown_size(size: int) -> AsyncIterator[bytes]:
    yield b"x" * size


async def test_the_quota_holds_for_content_that_comes_later(start: StartServer, tmp_path: Path) -> None:
    here = await start("here.example", max_bytes_per_user=100_000)
    first, second = await created(here), await created(here)
    assert (await here.call(here.alice, "PUT", f"{OLD}/upload/{first}", b"x" * 60_000)).status == 200

    for body in (b"x" * 60_000, of_unknown_size(60_000)):
        refused = await here.call(here.alice, "PUT", f"{OLD}/upload/{second}", body)
        assert refused.error == (403, "M_FORBIDDEN")
    assert len(files_in(tmp_path / here.name / "local")) == 1
    # What was refused took nothing: the id can still have what fits.
    assert (await here.call(here.alice, "PUT", f"{OLD}/upload/{second}", b"x" * 40_000)).status == 200


async def test_uploads_at_once_do_not_slip_past_the_quota(start: StartServer, tmp_path: Path) -> None:
    here = await start("here.example", max_bytes_per_user=100_000)
    ids = [await created(here) for _ in range(4)]
    puts = [here.call(here.alice, "PUT", f"{OLD}/upload/{mxc}", of_unknown_size(45_000)) for mxc in ids]
    posts = [here.call(here.alice, "POST", f"{OLD}/upload", of_unknown_size(45_000)) for _ in range(4)]
    answers = await asyncio.gather(*puts, *posts)

    assert sorted(answer.status for answer in answers) == [200] * 2 + [403] * 6
    assert {answer.error[1] for answer in answers if answer.status == 403} == {"M_FORBIDDEN"}
    assert len(files_in(tmp_path / here.name / "local")) == 2


async def test_ids_asked_for_at_once_are_counted_all(here: MediaServer) -> None:
    answers = await asyncio.gather(*(here.call(here.alice, "POST", CREATE) for _ in range(MAX_PENDING + 5)))
    refused = [answer for answer in answers if answer.status != 200]

    assert len(refused) == 5
    assert {answer.error for answer in refused} == {(429, "M_LIMIT_EXCEEDED")}
    assert all(answer.json["retry_after_ms"] > 0 for answer in refused)


async def test_a_copy_that_nobody_asks_for_goes_with_its_thumbnails(
    start: StartServer, there: MediaServer, tmp_path: Path
) -> None:
    here = await start("here.example", remote_cache_days=30)
    forgotten, watched = [await there.upload(picture(300, 300), "image/png") for _ in range(2)]
    for mxc in (forgotten, watched):
        assert (await here.get(f"{V1}/thumbnail/{mxc}?width=32&height=32")).status == 200
    await here.content.copies.note_uses()
    here.town.clock.advance(20 * _DAY_S)
    await here.content.copies.expire()
    assert len(files_in(tmp_path / here.name)) == 4

    await here.get(f"{V1}/download/{watched}")
    here.town.clock.advance(11 * _DAY_S)
    await here.content.copies.expire()

    found = [
        (await here.get(f"{V1}/download/{mxc}?allow_remote=false")).status for mxc in (forgotten, watched)
    ]
    assert found == [404, 200]
    assert len(files_in(tmp_path / here.name)) == 2
    # It is fetched again when somebody wants it after all.
    assert (await here.get(f"{V1}/download/{forgotten}")).status == 200


async def test_without_a_word_copies_stay(here: MediaServer, there: MediaServer) -> None:
    mxc = await there.upload(b"hello")
    await here.get(f"{V1}/download/{mxc}")
    here.town.clock.advance(1000 * _DAY_S)
    await here.content.copies.expire()

    assert (await here.get(f"{V1}/download/{mxc}?allow_remote=false")).body == b"hello"


async def test_uploads_of_this_servers_people_never_expire(start: StartServer) -> None:
    here = await start("here.example", remote_cache_days=1)
    mxc = await here.upload(b"hello")
    here.town.clock.advance(1000 * _DAY_S)
    await here.content.copies.expire()

    assert (await here.get(f"{V1}/download/{mxc}")).body == b"hello"
