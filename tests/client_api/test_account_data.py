"""Account data, tags and filters over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.client_api.account_server import AccountServer, segment

USER = "/user/@alice:a.org"
ROOM = f"{USER}/rooms/{segment('!room:a.org')}"


@pytest.mark.parametrize("place", [USER, ROOM])
async def test_account_data_is_kept_and_announced(server: AccountServer, place: str) -> None:
    token = await server.user("alice")
    path = f"{place}/account_data/org.example"
    assert await server.refused("GET", path, token=token) == (404, "M_NOT_FOUND")
    assert await server.call("PUT", path, {"a": [1]}, token=token) == (200, {})
    assert await server.call("GET", path, token=token) == (200, {"a": [1]})
    assert server.witness.announced == ["@alice:a.org"]


async def test_a_room_has_account_data_of_its_own(server: AccountServer) -> None:
    token = await server.user("alice")
    await server.call("PUT", f"{USER}/account_data/x", {"a": 1}, token=token)
    assert await server.refused("GET", f"{ROOM}/account_data/x", token=token) == (404, "M_NOT_FOUND")


UNSTABLE = "/_matrix/client/unstable/org.matrix.msc3391"


@pytest.mark.parametrize("place", [USER, ROOM])
@pytest.mark.parametrize("deletes", ["DELETE", "PUT"])
async def test_deleted_account_data_is_gone(server: AccountServer, place: str, deletes: str) -> None:
    token = await server.user("alice")
    path = f"{place}/account_data/org.example"
    await server.call("PUT", path, {"a": 1}, token=token)
    server.witness.announced.clear()
    if deletes == "DELETE":
        assert await server.call("DELETE", UNSTABLE + path, token=token) == (200, {})
    else:
        assert await server.call("PUT", path, {}, token=token) == (200, {})
    assert await server.refused("GET", path, token=token) == (404, "M_NOT_FOUND")
    assert server.witness.announced == ["@alice:a.org"]


async def test_deleting_what_is_not_there_changes_nothing(server: AccountServer) -> None:
    token = await server.user("alice")
    path = f"{UNSTABLE}{USER}/account_data/org.example"
    assert await server.call("DELETE", path, token=token) == (200, {})
    assert server.witness.announced == []


async def test_the_account_data_of_others_cannot_be_deleted(server: AccountServer) -> None:
    token = await server.user("bob")
    path = f"{UNSTABLE}{USER}/account_data/org.example"
    assert await server.refused("DELETE", path, token=token) == (403, "M_FORBIDDEN")
    assert await server.refused("DELETE", path) == (401, "M_MISSING_TOKEN")


@pytest.mark.parametrize("place", [USER, ROOM])
async def test_syncs_tell_of_a_deletion_once(server: AccountServer, place: str) -> None:
    token = await server.user("alice")
    _, room = await server.call("POST", "/createRoom", {}, token=token)
    place = place.replace(segment("!room:a.org"), segment(room["room_id"]))

    async def told(since: str | None) -> tuple[str, list[dict[str, Any]]]:
        query = f"?since={since}" if since else ""
        _, reply = await server.call("GET", f"/sync{query}", token=token)
        joined = reply["rooms"].get("join", {}).get(room["room_id"], {"account_data": {"events": []}})
        events = [*reply["account_data"]["events"], *joined["account_data"]["events"]]
        return reply["next_batch"], [one for one in events if one["type"] == "org.example"]

    await server.call("PUT", f"{place}/account_data/org.example", {"a": 1}, token=token)
    before, events = await told(None)
    assert events == [{"type": "org.example", "content": {"a": 1}}]
    await server.call("DELETE", f"{UNSTABLE}{place}/account_data/org.example", token=token)
    after, events = await told(before)
    assert events == [{"type": "org.example", "content": {}}]
    assert (await told(after))[1] == []
    assert (await told(None))[1] == []


@pytest.mark.parametrize("type_", ["m.fully_read", "m.push_rules"])
@pytest.mark.parametrize("place", [USER, ROOM])
async def test_types_the_server_manages_cannot_be_written(
    server: AccountServer, place: str, type_: str
) -> None:
    token = await server.user("alice")
    path = f"{place}/account_data/{type_}"
    assert await server.refused("PUT", path, {}, token=token) == (405, "M_BAD_JSON")
    assert await server.refused("DELETE", UNSTABLE + path, token=token) == (405, "M_BAD_JSON")


async def test_account_data_that_is_refused(server: AccountServer) -> None:
    token, bob = await server.user("alice"), await server.user("bob")
    path = f"{USER}/account_data/x"
    assert await server.refused("PUT", path, {}, token=bob) == (403, "M_FORBIDDEN")
    assert await server.refused("GET", path, token=bob) == (403, "M_FORBIDDEN")
    bad_room = f"{USER}/rooms/room/account_data/x"
    assert await server.refused("PUT", bad_room, {}, token=token) == (400, "M_INVALID_PARAM")
    too_long = f"{USER}/account_data/{'x' * 256}"
    assert await server.refused("PUT", too_long, {}, token=token) == (400, "M_INVALID_PARAM")
    deep: dict[str, Any] = {}
    for _ in range(150):
        deep = {"a": deep}
    assert await server.refused("PUT", path, deep, token=token) == (400, "M_BAD_JSON")


async def test_push_rules_can_be_read_as_account_data(server: AccountServer) -> None:
    token = await server.user("alice")
    _, content = await server.call("GET", f"{USER}/account_data/m.push_rules", token=token)
    assert content["global"]["override"][0]["rule_id"] == ".m.rule.master"


async def test_tags_come_and_go(server: AccountServer) -> None:
    token = await server.user("alice")
    assert await server.call("GET", f"{ROOM}/tags", token=token) == (200, {"tags": {}})
    await server.call("PUT", f"{ROOM}/tags/m.favourite", {"order": 0.5}, token=token)
    await server.call("PUT", f"{ROOM}/tags/{segment('u.a/b')}", {}, token=token)
    tags = {"m.favourite": {"order": 0.5}, "u.a/b": {}}
    assert await server.call("GET", f"{ROOM}/tags", token=token) == (200, {"tags": tags})
    assert await server.call("GET", f"{ROOM}/account_data/m.tag", token=token) == (200, {"tags": tags})
    assert await server.call("DELETE", f"{ROOM}/tags/m.favourite", token=token) == (200, {})
    assert await server.call("DELETE", f"{ROOM}/tags/m.favourite", token=token) == (200, {})
    assert await server.call("GET", f"{ROOM}/tags", token=token) == (200, {"tags": {"u.a/b": {}}})


async def test_tags_set_at_once_are_all_kept(server: AccountServer) -> None:
    token = await server.user("alice")
    names = [f"u.{i}" for i in range(8)]
    await asyncio.gather(
        *(server.call("PUT", f"{ROOM}/tags/{name}", {"order": 0.1}, token=token) for name in names)
    )
    _, reply = await server.call("GET", f"{ROOM}/tags", token=token)
    assert sorted(reply["tags"]) == names


async def test_tags_that_are_refused(server: AccountServer) -> None:
    token, bob = await server.user("alice"), await server.user("bob")
    assert await server.refused("PUT", f"{ROOM}/tags/{'x' * 256}", {}, token=token) == (
        400,
        "M_INVALID_PARAM",
    )
    assert await server.refused("PUT", f"{ROOM}/tags/x", {"order": "1"}, token=token) == (400, "M_BAD_JSON")
    assert await server.refused("GET", f"{ROOM}/tags", token=bob) == (403, "M_FORBIDDEN")


async def test_filters_are_numbered_and_equal_ones_share_their_number(server: AccountServer) -> None:
    token = await server.user("alice")
    first = {"room": {"timeline": {"limit": 5}}, "presence": {"types": []}}
    again = {"presence": {"types": []}, "room": {"timeline": {"limit": 5}}}
    ids = [
        (await server.call("POST", f"{USER}/filter", body, token=token))[1]["filter_id"]
        for body in (first, {"event_fields": ["type"]}, again)
    ]
    assert ids == ["0", "1", "0"]
    assert await server.call("GET", f"{USER}/filter/0", token=token) == (200, first)


async def test_filters_that_are_refused_or_unknown(server: AccountServer) -> None:
    token, bob = await server.user("alice"), await server.user("bob")
    body = {"room": {"timeline": {"limit": "many"}}}
    assert await server.refused("POST", f"{USER}/filter", body, token=token) == (400, "M_BAD_JSON")
    assert await server.refused("POST", f"{USER}/filter", {}, token=bob) == (403, "M_FORBIDDEN")
    for filter_id in ("0", "x", "9" * 30, "-1"):
        assert await server.refused("GET", f"{USER}/filter/{filter_id}", token=token) == (404, "M_NOT_FOUND")
