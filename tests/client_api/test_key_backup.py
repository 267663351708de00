"""Backups of room keys over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tests.client_api.account_server import AccountServer, segment

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
ROOM, OTHER = "!room:a.org", "!other:a.org"


class Backups:
    """What somebody does with their backups."""

    def __init__(self, server: AccountServer, token: str) -> None:
        self.server = server
        self.token = token

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        return await self.server.call(method, f"/room_keys/{path}", body, token=self.token)

    async def create(self, **auth_data: Any) -> str:
        status, reply = await self.call("POST", "version", {"algorithm": ALGORITHM, "auth_data": auth_data})
        assert status == 200, reply
        version: str = reply["version"]
        return version

    async def put(self, version: str, rooms: dict[str, dict[str, Any]]) -> tuple[int, Any]:
        body = {"rooms": {room: {"sessions": sessions} for room, sessions in rooms.items()}}
        return await self.call("PUT", f"keys?version={version}", body)


def key(data: str = "x", *, first: int = 0, forwarded: int = 0, verified: bool = False) -> dict[str, Any]:
    return {
        "first_message_index": first,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": {"ciphertext": data},
    }


@pytest.fixture
async def alice(server: AccountServer) -> Backups:
    return Backups(server, await server.user("alice"))


async def test_a_new_backup_is_the_current_one(alice: Backups) -> None:
    assert await alice.call("GET", "version") == (
        404,
        {"errcode": "M_NOT_FOUND", "error": "No current backup version"},
    )
    version = await alice.create(public_key="abc")

    described = {
        "algorithm": ALGORITHM,
        "auth_data": {"public_key": "abc"},
        "count": 0,
        "etag": "0",
        "version": version,
    }
    assert await alice.call("GET", "version") == (200, described)
    assert await alice.call("GET", f"version/{version}") == (200, described)
    newer = await alice.create()
    assert newer != version
    assert (await alice.call("GET", "version"))[1]["version"] == newer
    assert (await alice.call("GET", f"version/{version}"))[0] == 200


@pytest.mark.parametrize("version", ["7", "0", "01", "-1", "bogus", "1.0", "9" * 30, "١"])
async def test_versions_that_never_were_are_not_found(alice: Backups, version: str) -> None:
    await alice.create()
    named = segment(version)
    update = {"algorithm": ALGORITHM, "auth_data": {}}

    for method, path, body in (
        ("GET", f"version/{named}", None),
        ("PUT", f"version/{named}", update),
        ("DELETE", f"version/{named}", None),
        ("GET", f"keys?version={named}", None),
        ("GET", f"keys/{segment(ROOM)}?version={named}", None),
        ("GET", f"keys/{segment(ROOM)}/s?version={named}", None),
        ("DELETE", f"keys?version={named}", None),
        ("PUT", f"keys?version={named}", {"rooms": {}}),
    ):
        status, reply = await alice.call(method, path, body)
        assert (status, reply["errcode"]) == (404, "M_NOT_FOUND"), (method, path)


async def test_only_the_auth_data_of_a_backup_can_be_changed(alice: Backups) -> None:
    version = await alice.create(public_key="abc")
    path, signed = f"version/{version}", {"public_key": "abc", "signatures": {"@alice:a.org": {"k": "s"}}}

    assert await alice.call("PUT", path, {"algorithm": ALGORITHM, "auth_data": signed}) == (200, {})
    with_version = {"algorithm": ALGORITHM, "auth_data": signed, "version": version}
    assert await alice.call("PUT", path, with_version) == (200, {})
    for wrong in ({"algorithm": "other"}, {"version": "99"}):
        status, reply = await alice.call("PUT", path, {**with_version, **wrong})
        assert (status, reply["errcode"]) == (400, "M_INVALID_PARAM")
    status, reply = await alice.call("PUT", path, {"auth_data": signed})
    assert (status, reply["errcode"]) == (400, "M_BAD_JSON")

    described = (await alice.call("GET", path))[1]
    assert described["auth_data"] == signed
    assert described["etag"] == "0"


async def test_a_deleted_backup_can_be_deleted_again_and_its_version_does_not_return(alice: Backups) -> None:
    first, second = await alice.create(), await alice.create()
    await alice.put(second, {ROOM: {"s": key()}})

    assert await alice.call("DELETE", f"version/{second}") == (200, {})
    assert await alice.call("DELETE", f"version/{second}") == (200, {})
    assert (await alice.call("GET", f"version/{second}"))[0] == 404
    assert (await alice.call("GET", "version"))[1]["version"] == first
    third = await alice.create()
    assert third not in (first, second)
    assert await alice.call("GET", f"keys?version={third}") == (200, {"rooms": {}})


async def test_keys_come_back_as_they_were_stored(alice: Backups) -> None:
    version = await alice.create()
    rooms = {
        ROOM: {"s/1": key("a"), "s2": key("ü", first=3, forwarded=1, verified=True)},
        OTHER: {"s1": key()},
    }
    assert await alice.put(version, rooms) == (200, {"etag": "1", "count": 3})

    one = f"keys/{segment(ROOM)}/{segment('s/1')}?version={version}"
    assert await alice.call("GET", one) == (200, key("a"))
    assert await alice.call("GET", f"keys/{segment(ROOM)}?version={version}") == (
        200,
        {"sessions": rooms[ROOM]},
    )
    everything = {"rooms": {room: {"sessions": sessions} for room, sessions in rooms.items()}}
    assert await alice.call("GET", f"keys?version={version}") == (200, everything)
    described = (await alice.call("GET", "version"))[1]
    assert (described["count"], described["etag"]) == (3, "1")


async def test_keys_of_a_room_and_of_a_session_can_be_stored_alone(alice: Backups) -> None:
    version = await alice.create()
    room = f"keys/{segment(ROOM)}"

    stored = await alice.call("PUT", f"{room}?version={version}", {"sessions": {"s": key("a")}})
    assert stored == (200, {"etag": "1", "count": 1})
    stored = await alice.call("PUT", f"{room}/t?version={version}", key("b"))
    assert stored == (200, {"etag": "2", "count": 2})
    assert (await alice.call("GET", f"{room}?version={version}"))[1] == {
        "sessions": {"s": key("a"), "t": key("b")}
    }


async def test_what_is_not_there_is_empty_or_not_found(alice: Backups) -> None:
    version = await alice.create()

    assert await alice.call("GET", f"keys?version={version}") == (200, {"rooms": {}})
    assert await alice.call("GET", f"keys/{segment(ROOM)}?version={version}") == (200, {"sessions": {}})
    status, reply = await alice.call("GET", f"keys/{segment(ROOM)}/s?version={version}")
    assert (status, reply["errcode"]) == (404, "M_NOT_FOUND")


async def test_the_better_key_of_a_session_is_kept(alice: Backups) -> None:
    version = await alice.create()

    async def offered(new: dict[str, Any]) -> tuple[str, Any]:
        """The etag after a key was offered, and the key that is kept."""
        _, reply = await alice.put(version, {ROOM: {"s": new}})
        assert reply["count"] == 1
        return reply["etag"], (await alice.call("GET", f"keys/{segment(ROOM)}/s?version={version}"))[1]

    first = key("a", first=5, forwarded=2)
    assert await offered(first) == ("1", first)
    assert await offered(key("b", first=5, forwarded=2)) == ("1", first)
    assert await offered(key("c", first=6, forwarded=0)) == ("1", first)
    closer = key("d", first=5, forwarded=1)
    assert await offered(closer) == ("2", closer)
    earlier = key("e", first=4, forwarded=9)
    assert await offered(earlier) == ("3", earlier)
    verified = key("f", first=9, forwarded=9, verified=True)
    assert await offered(verified) == ("4", verified)
    assert await offered(key("g")) == ("4", verified)


async def test_keys_go_to_the_current_backup_only(alice: Backups) -> None:
    old = await alice.create()
    current = await alice.create()

    status, reply = await alice.put(old, {ROOM: {"s": key()}})
    assert status == 403
    assert (reply["errcode"], reply["current_version"]) == ("M_WRONG_ROOM_KEYS_VERSION", current)
    await alice.call("DELETE", f"version/{old}")
    status, reply = await alice.put(old, {ROOM: {"s": key()}})
    assert (status, reply["current_version"]) == (403, current)
    await alice.call("DELETE", f"version/{current}")
    assert (await alice.put(current, {ROOM: {"s": key()}}))[0] == 404


async def test_keys_can_be_deleted_alone_by_room_or_all(alice: Backups) -> None:
    version = await alice.create()
    await alice.put(version, {ROOM: {"s1": key(), "s2": key(), "s3": key()}, OTHER: {"s1": key()}})

    async def delete(path: str) -> tuple[int, Any]:
        return await alice.call("DELETE", f"keys{path}?version={version}")

    assert await delete(f"/{segment(ROOM)}/s1") == (200, {"etag": "2", "count": 3})
    assert await delete(f"/{segment(ROOM)}/s1") == (200, {"etag": "2", "count": 3})
    assert await delete(f"/{segment(ROOM)}") == (200, {"etag": "3", "count": 1})
    assert await alice.call("GET", f"keys?version={version}") == (
        200,
        {"rooms": {OTHER: {"sessions": {"s1": key()}}}},
    )
    assert await delete("") == (200, {"etag": "4", "count": 0})
    assert await alice.call("GET", f"keys?version={version}") == (200, {"rooms": {}})


async def test_thousands_of_keys_come_back_in_one_reply(alice: Backups) -> None:
    version = await alice.create()
    rooms = {
        f"!{room}:a.org": {f"s{number}": key(str(number)) for number in range(size)}
        for room, size in (("a", 3), ("b", 1203), ("c", 1), ("d", 499), ("e", 700))
    }
    assert await alice.put(version, rooms) == (200, {"etag": "1", "count": 2406})

    status, reply = await alice.call("GET", f"keys?version={version}")
    assert status == 200
    assert reply == {"rooms": {room: {"sessions": sessions} for room, sessions in rooms.items()}}
    status, reply = await alice.call("GET", f"keys/{segment('!b:a.org')}?version={version}")
    assert reply == {"sessions": rooms["!b:a.org"]}


async def test_backups_are_their_owners_alone(server: AccountServer, alice: Backups) -> None:
    version = await alice.create()
    await alice.put(version, {ROOM: {"s": key()}})
    bob = Backups(server, await server.user("bob"))

    assert (await bob.call("GET", f"keys?version={version}"))[0] == 404
    assert await bob.create() == version
    assert await bob.call("GET", f"keys?version={version}") == (200, {"rooms": {}})


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_message_index": -1},
        {"forwarded_count": "0"},
        {"is_verified": 1},
        {"session_data": "text"},
        {"first_message_index": 2**63},
    ],
)
async def test_what_is_no_key_is_refused(alice: Backups, wrong: dict[str, Any]) -> None:
    version = await alice.create()
    status, reply = await alice.put(version, {ROOM: {"good": key(), "bad": {**key(), **wrong}}})

    assert (status, reply["errcode"]) == (400, "M_BAD_JSON")
    assert (await alice.call("GET", "version"))[1]["count"] == 0


async def test_what_is_too_large_is_refused(alice: Backups) -> None:
    version = await alice.create()

    status, reply = await alice.put(version, {ROOM: {"s": key("x" * 70_000)}})
    assert (status, reply["errcode"]) == (413, "M_TOO_LARGE")
    status, reply = await alice.put(version, {ROOM: {"s" * 256: key()}})
    assert (status, reply["errcode"]) == (400, "M_INVALID_PARAM")
    large = {"algorithm": ALGORITHM, "auth_data": {"a": "x" * 70_000}}
    status, reply = await alice.call("POST", "version", large)
    assert (status, reply["errcode"]) == (413, "M_TOO_LARGE")


async def test_the_version_has_to_be_named(alice: Backups) -> None:
    await alice.create()
    for method, body in (("GET", None), ("PUT", {"rooms": {}}), ("DELETE", None)):
        status, reply = await alice.call(method, "keys", body)
        assert (status, reply["errcode"]) == (400, "M_MISSING_PARAM")


async def test_with_an_erased_account_goes_its_backup(server: AccountServer, alice: Backups) -> None:
    version = await alice.create()
    await alice.put(version, {ROOM: {"s": key()}})
    await server.accounts.deactivate("@alice:a.org", erase=True)

    left = await server.db.read.fetch_value("SELECT COUNT(*) FROM backed_up_keys")
    assert left == 0
