"""Which key of a session a backup keeps, and when its etag changes: any keys, on both engines."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeserver.e2e.backup import KeyBackups, is_better
from homeserver.errors import MatrixError
from homeserver.storage import open_database
from homeserver.storage.database import Database
from homeserver.storage.key_backup import BackedUpKey
from tests.databases import in_own_loop

ALICE = "@alice:here"
small = st.integers(0, 2)
keys = st.builds(
    BackedUpKey,
    room_id=st.sampled_from(["!a", "!b"]),
    session_id=st.sampled_from(["s", "t"]),
    first_message_index=small,
    forwarded_count=small,
    is_verified=st.booleans(),
    session_data=st.sampled_from(['{"n":1}', '{"n":2}']),
)
#: A key to store, or a room and perhaps a session to delete.
steps = st.lists(
    st.lists(keys, max_size=3, unique_by=lambda key: (key.room_id, key.session_id))
    | st.tuples(st.sampled_from(["!a", "!b", None]), st.sampled_from(["s", None])).filter(
        lambda named: named[0] is not None or named[1] is None
    ),
    max_size=8,
)

Contents = dict[tuple[str, str], BackedUpKey]


async def stored(backups: KeyBackups) -> Contents:
    pages = backups.keys(ALICE, await backups.current(ALICE))
    return {(key.room_id, key.session_id): key async for page in pages for key in page}


@given(keys, keys)
def test_one_of_two_keys_is_better_by_the_three_rules_in_their_order(a: BackedUpKey, b: BackedUpKey) -> None:
    if a.is_verified != b.is_verified:
        assert is_better(a, b) == a.is_verified
    elif a.first_message_index != b.first_message_index:
        assert is_better(a, b) == (a.first_message_index < b.first_message_index)
    else:
        assert is_better(a, b) == (a.forwarded_count < b.forwarded_count)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_the_etag_changes_if_and_only_if_the_keys_do(
    story: list[list[BackedUpKey] | tuple[str | None, str | None]],
) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            db = await open_database(f"sqlite://{Path(folder)}/test.db")
            try:
                await check(db)
            finally:
                await db.close()

    async def check(db: Database) -> None:
        backups = KeyBackups(db)
        version = await backups.create(ALICE, "m.test", {})
        before: Contents = {}
        etag = (await backups.current(ALICE)).etag
        for step in story:
            if isinstance(step, list):
                reply = await backups.add(ALICE, version, step)
            else:
                reply = await backups.remove(ALICE, version, *step)
            after, described = await stored(backups), await backups.current(ALICE)
            assert (described.etag != etag) == (after != before)
            assert (reply.count, reply.etag) == (len(after), str(described.etag))
            assert described.count == len(after)
            before, etag = after, described.etag

    in_own_loop(run())


async def test_both_engines_keep_the_better_keys(database: Database) -> None:
    backups = KeyBackups(database)
    version = await backups.create(ALICE, "m.test", {"a": "ü"})

    def key(session_id: str, first: int, room_id: str = "!a") -> BackedUpKey:
        return BackedUpKey(room_id, session_id, first, 0, False, f'{{"n":{first}}}')

    await backups.add(ALICE, version, [key("s", 5), key("t", 5), key("s", 5, "!b")])
    reply = await backups.add(ALICE, version, [key("s", 4), key("t", 6), key("u", 1)])

    assert (reply.count, reply.etag) == (4, "2")
    found = await stored(backups)
    assert found["!a", "s"] == key("s", 4)
    assert found["!a", "t"] == key("t", 5)
    assert found["!b", "s"] == key("s", 5, "!b")
    assert (await backups.remove(ALICE, version, "!a")).count == 1
    assert list(await stored(backups)) == [("!b", "s")]
    await backups.delete(ALICE, version)
    assert await backups.create(ALICE, "m.test", {}) == "2"


async def test_keys_beyond_the_bound_are_refused_but_better_ones_are_not(database: Database) -> None:
    backups = KeyBackups(database, max_keys=2)
    version = await backups.create(ALICE, "m.test", {})
    full = [BackedUpKey("!a", session_id, 5, 0, False, "{}") for session_id in ("s", "t")]
    await backups.add(ALICE, version, full)

    with pytest.raises(MatrixError, match="at most 2 keys") as refused:
        await backups.add(ALICE, version, [BackedUpKey("!a", "u", 5, 0, False, "{}")])
    assert refused.value.errcode == "M_TOO_LARGE"
    reply = await backups.add(ALICE, version, [BackedUpKey("!a", "s", 1, 0, False, "{}")])
    assert (reply.count, reply.etag) == (2, "2")


async def test_a_user_has_not_more_backups_than_a_hundred(database: Database) -> None:
    backups = KeyBackups(database)
    versions = [await backups.create(ALICE, "m.test", {}) for _ in range(100)]

    with pytest.raises(MatrixError, match="delete old ones"):
        await backups.create(ALICE, "m.test", {})
    await backups.delete(ALICE, versions[0])
    assert await backups.create(ALICE, "m.test", {}) == "101"
