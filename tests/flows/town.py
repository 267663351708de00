"""A small town to make bad requests in: one server, some people, rooms they are in and rooms they are not in.

alice made ``$room`` (version 11, public, with an alias); bob is in it, mallory banned, carol a stranger whom
alice has invited to ``$invited``.  ``$private`` is bob's own, and in ``$strict`` he may do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.interop.client import Client
from tests.processes import Server

PASSWORD = "correct horse battery staple"


@dataclass(frozen=True)
class Town:
    """``names`` is what ``$name`` stands for in a bad request, ``tokens`` the access token of each asker."""

    names: dict[str, str]
    tokens: dict[str, str]


async def found_town(http: aiohttp.ClientSession, server: Server) -> Town:
    """Register everybody and make the rooms."""
    people = {}
    for name in ("alice", "bob", "carol", "dora", "mallory", "gone"):
        people[name] = Client(http, server)
        await people[name].register(name, PASSWORD)
    names = {
        **{name: person.user_id for name, person in people.items()},
        "alice_localpart": "alice",
        "gone_localpart": "gone",
        "nobody": f"@nobody:{server.server_name}",
        "password": PASSWORD,
        "device": people["alice"].device_id,
        "bobs_device": people["bob"].device_id,
        "server_name": server.server_name,
        "no_room": f"!nowhere:{server.server_name}",
        "no_room_v12": "!" + "n" * 43,
        "no_alias": f"#nowhere:{server.server_name}",
        "free_alias": f"#free:{server.server_name}",
        "no_event": "$" + "n" * 43,
        **await _rooms(server, people),
    }
    sessions, used = await _ended_sessions(http, server, people["gone"])
    tokens = {name: person.access_token for name, person in people.items()}
    return Town({**names, **used}, {**tokens, **sessions})


async def _rooms(server: Server, people: dict[str, Client]) -> dict[str, str]:
    alice, bob = people["alice"], people["bob"]
    room = await alice.create_room(preset="public_chat", room_version="11", room_alias_name="lobby")
    await bob.join(room)
    await alice.ban(room, people["mallory"].user_id)
    event = await alice.say(room, "hello")
    other = await alice.create_room(preset="public_chat", room_version="11", room_alias_name="other")
    nobody_may = {"invite": 100, "events_default": 100}
    strict = await alice.create_room(
        preset="public_chat", room_version="11", power_level_content_override=nobody_may
    )
    await bob.join(strict)
    invited = await alice.create_room(room_version="11")
    await alice.invite(invited, people["carol"].user_id)
    private = await bob.create_room(preset="private_chat", room_version="11")
    bobs_filter = await bob.request("POST", f"/user/{bob.user_id}/filter", {"event_fields": ["type"]})
    return {
        "room": room,
        "event": event,
        "alias": f"#lobby:{server.server_name}",
        "alias_localpart": "lobby",
        "other": other,
        "other_alias": f"#other:{server.server_name}",
        "strict": strict,
        "invited": invited,
        "private": private,
        "secret": await bob.say(private, "nobody hears this"),
        "bobs_filter": bobs_filter["filter_id"],
    }


async def _ended_sessions(
    http: aiohttp.ClientSession, server: Server, gone: Client
) -> tuple[dict[str, str], dict[str, str]]:
    """Tokens that are good no more: by name, and the refresh token that was used."""
    dora = Client(http, server)
    login: dict[str, Any] = {"type": "m.login.password", "password": PASSWORD, "refresh_token": True}
    login["identifier"] = {"type": "m.id.user", "user": "dora"}
    first = await dora.request("POST", "/login", login)
    second = await dora.request("POST", "/refresh", {"refresh_token": first["refresh_token"]})
    dora.access_token = second["access_token"]
    # Tokens that were exchanged end with the first use of those that they were exchanged for.
    await dora.request("GET", "/account/whoami")
    await dora.login("dora", PASSWORD)
    await dora.request("POST", "/logout")
    identifier = {"type": "m.id.user", "user": gone.user_id}
    proof = {"type": "m.login.password", "identifier": identifier, "password": PASSWORD}
    await gone.request("POST", "/account/deactivate", {"auth": proof})
    tokens = {
        "ended": dora.access_token,
        "refreshed": first["access_token"],
        "refresh_token": second["refresh_token"],
    }
    return tokens, {"used_refresh_token": first["refresh_token"]}
