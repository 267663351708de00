"""What the server says of itself."""

from __future__ import annotations

from tests.client_api.account_server import AccountServer


async def test_the_versions_of_the_specification_are_public(server: AccountServer) -> None:
    status, reply = await server.call("GET", "/_matrix/client/versions")
    assert status == 200
    assert {"r0.6.1", "v1.1", "v1.19"} <= set(reply["versions"])


async def test_capabilities_name_the_room_versions(server: AccountServer) -> None:
    _, reply = await server.call("GET", "/capabilities", token=await server.user("alice"))
    room_versions = reply["capabilities"]["m.room_versions"]
    assert room_versions["default"] == "12"
    assert room_versions["available"]["1"] == "stable"
    assert reply["capabilities"]["m.change_password"] == {"enabled": True}
    assert await server.refused("GET", "/capabilities") == (401, "M_MISSING_TOKEN")


async def test_clients_are_told_where_to_go(server: AccountServer) -> None:
    expected = {"m.homeserver": {"base_url": "https://a.org"}}
    assert await server.call("GET", "/.well-known/matrix/client") == (200, expected)
