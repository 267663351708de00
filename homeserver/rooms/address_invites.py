"""Inviting by email address or phone number.

An identity server says whose the address is.  Whom it knows is invited like anybody; for
others it keeps the invite, and the room gets an ``m.room.third_party_invite`` with the keys
that will show who it was for.  Nobody is told of an invite that the room would not take.
What becomes of it later is ``third_party_invites``' business.
Specification: client-server API, "Third-party invites".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec

from homeserver.errors import MatrixError, RemoteError, forbidden, invalid_param
from homeserver.protocol.signing import decode_base64
from homeserver.protocol.third_party_ids import canonical_address
from homeserver.rooms.membership import Membership
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.send import Draft, Send
from homeserver.rooms.shown_profile import Profiles
from homeserver.rooms.third_party_invites import THIRD_PARTY_INVITE

_MAX_CHARS: Final = 255
_MAX_KEYS: Final = 10


class IdentityServers(Protocol):
    """Asks identity servers (``users.identity_servers``); raises ``MatrixError`` and ``RemoteError``."""

    def trusts(self, id_server: str) -> bool:
        """Whether an identity server may be asked."""
        ...

    async def look_up(self, id_server: str, token: str, medium: str, address: str) -> str | None:
        """The user whose address it is, if the server knows."""
        ...

    async def store_invite(self, id_server: str, token: str, invite: Mapping[str, Any]) -> dict[str, Any]:
        """Have an invite kept until the address is somebody's."""
        ...


class InvitedAddress(msgspec.Struct, frozen=True):
    """Somebody to invite, as ``/invite`` and ``invite_3pid`` name them."""

    medium: str
    address: str
    id_server: str
    id_access_token: str = ""


class AddressInvites:
    """Invites people by their addresses; without trusted identity servers nobody."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        send: Send,
        membership: Membership,
        profiles: Profiles,
        servers: IdentityServers | None,
    ) -> None:
        self._rooms = rooms
        self._send = send
        self._membership = membership
        self._profiles = profiles
        self._servers = servers

    def check(self, invited: InvitedAddress) -> None:
        """Whether an address could be invited: ``M_THREEPID_DENIED`` or ``M_INVALID_PARAM`` if not."""
        self._checked(invited)

    async def invite(
        self, sender: str, room_id: str, invited: InvitedAddress, content: Mapping[str, Any]
    ) -> None:
        """Invite whoever has an address, now or once they show that it is theirs.

        ``content`` is for the member event of somebody who is known.  Raises as
        ``check`` and ``Membership.invite`` do, and what the identity server answers.
        """
        servers, address = self._checked(invited)
        id_server, token, medium = invited.id_server, invited.id_access_token, invited.medium
        await self._check_may_invite(sender, room_id)
        user_id = await servers.look_up(id_server, token, medium, address)
        if user_id is not None:
            await self._membership.invite(sender, room_id, user_id, content)
            return
        invite = await self._described(sender, await self._rooms.get(room_id))
        kept = await servers.store_invite(id_server, token, {**invite, "medium": medium, "address": address})
        state_key, issued = _third_party_invite(id_server, kept)
        await self._send.send(room_id, Draft(sender, THIRD_PARTY_INVITE, issued, state_key=state_key))

    def _checked(self, invited: InvitedAddress) -> tuple[IdentityServers, str]:
        if self._servers is None or not self._servers.trusts(invited.id_server):
            raise MatrixError(
                403, "M_THREEPID_DENIED", "This server does not invite by way of that identity server"
            )
        try:
            return self._servers, canonical_address(invited.medium, invited.address)
        except ValueError as error:
            raise invalid_param(str(error)) from None

    async def _check_may_invite(self, sender: str, room_id: str) -> None:
        """Raises ``NotAllowed`` where the room would not take the invite, before anybody is told of it."""
        async with self._rooms.lock(room_id) as room:
            if not self._rooms.is_in(room):
                raise forbidden("You are not in this room")
            await self._send.compose(room, Draft(sender, THIRD_PARTY_INVITE, {}, state_key="unknown"))

    async def _described(self, sender: str, room: Room) -> dict[str, Any]:
        """What the invited person is told of the room and of who invites, as far as there is something."""
        name, avatar = await self._profiles.name_and_avatar(sender)
        parts = {
            "room_id": room.room_id,
            "sender": sender,
            "sender_display_name": name,
            "sender_avatar_url": avatar,
            "room_alias": _said(room, "m.room.canonical_alias", "alias"),
            "room_avatar_url": _said(room, "m.room.avatar", "url"),
            "room_join_rules": room.join_rule,
            "room_name": _said(room, "m.room.name", "name"),
            "room_type": _said(room, "m.room.create", "type"),
        }
        return {field: value for field, value in parts.items() if value is not None}


def _said(room: Room, type_: str, field: str) -> str | None:
    event = room.state_event(type_)
    value = event.content.get(field) if event else None
    return value if isinstance(value, str) else None


def _third_party_invite(id_server: str, kept: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """State key and content of the event for an invite that an identity server keeps."""
    token, name = kept.get("token"), kept.get("display_name")
    given = kept.get("public_keys")
    entries = given[:_MAX_KEYS] if isinstance(given, list) else []
    keys = [_key(entry) for entry in entries if isinstance(entry, dict) and _is_key(entry.get("public_key"))]
    if (
        not isinstance(token, str)
        or not 0 < len(token) <= _MAX_CHARS
        or not isinstance(name, str)
        or not keys
    ):
        raise RemoteError(
            id_server, "The identity server did not keep the invite", reachable=True, transient=False
        )
    return token, {"display_name": name[:_MAX_CHARS], **keys[0], "public_keys": keys}


def _key(entry: Mapping[str, Any]) -> dict[str, Any]:
    url = entry.get("key_validity_url")
    return {"public_key": entry["public_key"], **({"key_validity_url": url} if isinstance(url, str) else {})}


def _is_key(value: Any) -> bool:
    try:
        return isinstance(value, str) and len(decode_base64(value)) == 32
    except ValueError:
        return False
