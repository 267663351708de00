"""A server that is in the room sends events with every strange value, properly hashed and signed.

So they come through to the auth rules, to state resolution and to the clients.  All of them build upon
the same event, and the room forks as often.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from homeserver.protocol.canonical_json import InvalidJSON, NotCanonical, decode_strict
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.protocol.signing import event_id_of, sign_event
from tests.flows.bad import bad
from tests.flows.test_strange_values import changed
from tests.flows.world import World

pytestmark = [pytest.mark.xdist_group("strange-events"), pytest.mark.asyncio(loop_scope="module")]

_PAGE = 50

#: What the rules look into, by type: the state key if there is one, and the content.
CONTENTS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "m.room.power_levels": (
        "",
        {"users": {"$alice": 100, "$eve": 100}, "events": {"x": 1}, "ban": 50, "state_default": 50,
         "events_default": 0, "users_default": 0, "notifications": {"room": 50}},
    ),
    "m.room.member": ("$eve", {"membership": "join", "displayname": "Eve", "avatar_url": "mxc://a/b",
                               "join_authorised_via_users_server": "$alice", "is_direct": True}),
    "m.room.join_rules": (
        "", {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": "!a"}]},
    ),
    "m.room.history_visibility": ("", {"history_visibility": "shared"}),
    "m.room.canonical_alias": ("", {"alias": "#a:b", "alt_aliases": ["#c:d"]}),
    "m.room.server_acl": ("", {"allow": ["*"], "deny": ["x.example"], "allow_ip_literals": True}),
    "m.room.third_party_invite": (
        "x", {"public_key": "x", "key_validity_url": "x", "public_keys": [{"public_key": "x"}]},
    ),
    "m.room.tombstone": ("", {"body": "x", "replacement_room": "!a:b"}),
    "m.room.redaction": (None, {"redacts": "$a", "reason": "x"}),
    "m.room.message": (
        None,
        {"msgtype": "m.text", "body": "x", "m.mentions": {"user_ids": ["$alice"], "room": True},
         "m.relates_to": {"rel_type": "m.thread", "event_id": "$a", "m.in_reply_to": {"event_id": "$a"}}},
    ),
}  # fmt: skip


@dataclass
class Guest:
    """eve of the strange server, who is in one room of alice's and has all power there."""

    world: World
    rules: RoomVersion
    room: str = ""
    joined: str = ""
    auth_events: list[str] = field(default_factory=list)

    @property
    def user_id(self) -> str:
        return f"@eve:{self.world.stranger.name}"

    async def join(self) -> None:
        """Join through the front door: make_join, sign, send_join."""
        place = f"{quote(self.room, safe='')}/{quote(self.user_id, safe='')}"
        template = await self._ask(f"GET /_matrix/federation/v1/make_join/{place}?ver={self.rules.id}")
        event = self.signed(template["event"])
        self.joined = event_id_of(event, self.rules)
        place = f"{quote(self.room, safe='')}/{quote(self.joined, safe='')}"
        answer = await self._ask(f"PUT /_matrix/federation/v2/send_join/{place}", event)
        wanted = (
            {"m.room.power_levels"} if self.rules.hash_room_ids else {"m.room.power_levels", "m.room.create"}
        )
        self.auth_events = [event_id_of(pdu, self.rules) for pdu in answer["state"] if pdu["type"] in wanted]

    def event(self, type_: str, state_key: str | None, content: Any) -> dict[str, Any]:
        """An event that builds upon eve's join."""
        event = {
            "type": type_,
            "room_id": self.room,
            "sender": self.user_id,
            "content": content,
            "origin_server_ts": 1_700_000_000_000,
            "depth": 20,
            "prev_events": [self.joined],
            "auth_events": [*self.auth_events, self.joined],
        }
        return event if state_key is None else {**event, "state_key": state_key}

    def signed(self, event: dict[str, Any]) -> dict[str, Any]:
        """With hash and signature; what cannot have them goes as it is."""
        try:
            return sign_event(event, self.rules, self.world.stranger.name, self.world.stranger.key)
        except (ValueError, TypeError, KeyError, AttributeError, NotCanonical):
            return event

    async def send(self, number: int, pdus: list[dict[str, Any]]) -> int:
        """One transaction; how many of its events were taken."""
        body = {"origin": self.world.stranger.name, "origin_server_ts": 1, "pdus": pdus, "edus": []}
        answer = await self._ask(f"PUT /_matrix/federation/v1/send/{self.rules.id}-{number}", body)
        return sum(1 for result in answer["pdus"].values() if not result)

    async def _ask(self, request: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        base = f"https://{self.world.server.server_name}"
        got, answer, _ = await self.world.ask(bad("", request, body=content, by="stranger"), base)
        trouble = self.world.new_trouble()
        assert not trouble, f"{request} {body}\n{trouble}"
        assert got == "200", f"{request} {body}\n{got} {answer}"
        return answer


def strange_events(guest: Guest) -> Iterator[dict[str, Any]]:
    """Every content with every strange value, and an event with every strange field."""
    names = {"$alice": guest.world.town.names["alice"], "$eve": guest.user_id, "$a": guest.joined}

    def named(value: Any) -> Any:
        text = json.dumps(value)
        for name, meant in names.items():
            text = text.replace(f'"{name}"', json.dumps(meant))
        return json.loads(text)

    for type_, (state_key, content) in CONTENTS.items():
        for strange in changed(content):
            key = guest.user_id if state_key == "$eve" else state_key
            yield guest.signed(guest.event(type_, key, named(strange)))
    message = guest.event("m.room.message", None, {"msgtype": "m.text", "body": "x"})
    yield from map(guest.signed, changed(message))
    yield from changed(guest.signed(message))
    state = guest.event("org.example", "x", {"x": "y"})
    yield from map(guest.signed, changed(state))
    yield guest.signed(guest.event("m.room.create", "", {"room_version": "11"}))
    yield guest.signed(guest.event("m.room.member", "nobody", {"membership": "invite"}))


STILL_HERE = {"msgtype": "m.text", "body": "still here"}


@pytest.mark.parametrize("version", ["3", "11", "12"])
async def test_strange_events_harm_nobody(world: World, version: str) -> None:
    assert await after_everything_strange(world, version) == STILL_HERE


async def test_strange_events_harm_nobody_on_postgresql(postgres_world: World) -> None:
    assert await after_everything_strange(postgres_world, "11") == STILL_HERE


async def after_everything_strange(world: World, version: str) -> Any:
    """eve joins a new room of alice's and sends all she has; then alice looks at it, and goes on.

    What alice reads there of what she said last.
    """
    guest = Guest(world, ROOM_VERSIONS[version])
    creator = {} if guest.rules.hash_room_ids else {world.town.names["alice"]: 100}
    wish = {
        "preset": "public_chat",
        "room_version": version,
        "power_level_content_override": {"users": {**creator, guest.user_id: 100}},
    }
    guest.room = (await alice(world, "POST /createRoom", wish))["room_id"]
    since = (await alice(world, "GET /sync"))["next_batch"]
    await guest.join()

    events = [event for event in strange_events(guest) if can_be_sent(event)]
    taken = 0
    for number in range(0, len(events), _PAGE):
        taken += await guest.send(number, events[number : number + _PAGE])
    assert taken > 100

    room = f"/rooms/{quote(guest.room, safe='')}"
    for query in ("", f"?since={since}", "?full_state=true", f"?since={since}&use_state_after=true"):
        synced = await alice(world, f"GET /sync{query}")
        assert guest.room in synced["rooms"]["join"]
    for path in ("messages?dir=b&limit=1000", "messages?dir=f&limit=1000", "state", "members"):
        await alice(world, f"GET {room}/{path}")
    sent = await alice(world, f"PUT {room}/send/m.room.message/still", STILL_HERE)
    return (await alice(world, f"GET {room}/event/{quote(sent['event_id'], safe='')}"))["content"]


def can_be_sent(event: dict[str, Any]) -> bool:
    """A request's signature is over canonical JSON: other numbers would be refused with the request."""
    try:
        decode_strict(json.dumps(event).encode())
    except (NotCanonical, InvalidJSON):
        return False
    return True


async def alice(world: World, request: str, body: Any = None) -> Any:
    """alice does something that is right."""
    content = None if body is None else json.dumps(body).encode()
    got, answer, _ = await world.ask(bad("", request, body=content), world.server.client_url)
    trouble = world.new_trouble()
    assert not trouble, f"{request}\n{trouble}"
    assert got == "200", f"{request}\n{answer}"
    return answer
