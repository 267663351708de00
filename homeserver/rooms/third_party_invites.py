"""Third-party invites when the invited person is found: turned into invites, here or where they were made.

An identity server tells whose an email address or phone number has turned out to be, in a
statement signed with the keys that the room's ``m.room.third_party_invite`` names.  Only
the server of the person who invited can make the invite event, so this server makes those
of its own users, and asks for the others.  Whether the statement counts is for the auth
rules; decided here is whether its key is still good, which they cannot know.
Specification: server-server API, "Third-party invites".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
import structlog

from homeserver.errors import MatrixError, RemoteError, forbidden, invalid_param
from homeserver.protocol.auth_membership import third_party_signers
from homeserver.protocol.auth_rules import NotAllowed
from homeserver.protocol.ids import is_room_id, is_user_id, server_name_of
from homeserver.rooms.membership import Membership
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.server_acl import check_may_take_part

_log = structlog.get_logger()

#: Pending invites taken from one notification, and how many are redeemed at once.
MAX_PENDING = 50
_PARALLEL = 5
_MAX_KEYS_ASKED = 3

THIRD_PARTY_INVITE = "m.room.third_party_invite"


class RemoteExchange(Protocol):
    """Asks other servers to make invites."""

    async def exchange_third_party_invite(
        self, server_name: str, room_id: str, event: Mapping[str, Any]
    ) -> None:
        """``PUT /exchange_third_party_invite``; raises ``RemoteError``."""
        ...


class KeyValidity(Protocol):
    """Asks identity servers whether their keys are still good."""

    async def __call__(self, url: str, public_key: str) -> bool:
        """Whether a ``key_validity_url`` says so; false where it cannot be asked."""
        ...


class PendingInvite(msgspec.Struct, frozen=True):
    """An invite that an identity server has kept, with its signed statement."""

    mxid: str
    room_id: str
    sender: str
    signed: dict[str, Any]


class PartialInvite(msgspec.Struct, frozen=True):
    """The invite event that another server asks for."""

    type: str
    room_id: str
    sender: str
    state_key: str
    content: dict[str, Any]


class ThirdPartyInvites:
    """Turns redeemed third-party invites into invites."""

    def __init__(
        self,
        *,
        rooms: Rooms,
        membership: Membership,
        remote: RemoteExchange,
        is_valid: KeyValidity,
        server_name: str,
    ) -> None:
        self._rooms = rooms
        self._membership = membership
        self._remote = remote
        self._is_valid = is_valid
        self._server_name = server_name

    async def redeem(self, user_id: str, pending: Sequence[PendingInvite]) -> None:
        """Have a local user invited to where an identity server says they were; what fails is logged."""
        free = asyncio.Semaphore(_PARALLEL)

        async def redeem_one(invite: PendingInvite) -> None:
            async with free:
                try:
                    await self._redeem(user_id, invite)
                except (MatrixError, NotAllowed, RemoteError) as error:
                    _log.info("invite not redeemed", room_id=invite.room_id, reason=str(error))

        await asyncio.gather(*map(redeem_one, pending[:MAX_PENDING]))

    async def exchange(self, origin: str, invite: PartialInvite) -> None:
        """Invite another server's user, whose server shows what the identity server signed.

        Raises ``M_INVALID_PARAM``, ``M_FORBIDDEN``, ``NotAllowed``, and what the invited
        user's server answers.
        """
        if not is_user_id(invite.state_key) or server_name_of(invite.state_key) != origin:
            raise forbidden("The invited user is not of your server")
        if not is_user_id(invite.sender) or server_name_of(invite.sender) != self._server_name:
            raise invalid_param("The sender is not of this server")
        if invite.type != "m.room.member" or invite.content.get("membership") != "invite":
            raise invalid_param("The event is not an invite")
        shown = invite.content.get("third_party_invite")
        signed = shown.get("signed") if isinstance(shown, dict) else None
        if not isinstance(shown, dict) or not isinstance(signed, dict):
            raise invalid_param("The event shows no signed third-party invite")
        check_may_take_part(await self._rooms.get(invite.room_id), origin)
        await self._invite(invite.sender, invite.room_id, invite.state_key, signed)

    async def _redeem(self, user_id: str, invite: PendingInvite) -> None:
        if invite.mxid != user_id or not is_room_id(invite.room_id) or not is_user_id(invite.sender):
            raise invalid_param("The invite is for somebody else, or from nobody")
        server = server_name_of(invite.sender)
        if server == self._server_name:
            await self._invite(invite.sender, invite.room_id, user_id, invite.signed)
            return
        event = {
            "type": "m.room.member",
            "room_id": invite.room_id,
            "sender": invite.sender,
            "state_key": user_id,
            "content": {
                "membership": "invite",
                "third_party_invite": {
                    "display_name": await self._shown_name(invite),
                    "signed": invite.signed,
                },
            },
        }
        await self._remote.exchange_third_party_invite(server, invite.room_id, event)

    async def _shown_name(self, invite: PendingInvite) -> str:
        """What the room calls the invited person, as far as it is known here."""
        room = await self._rooms.find(invite.room_id)
        token = invite.signed.get("token")
        issued = room.state_event(THIRD_PARTY_INVITE, token) if room and isinstance(token, str) else None
        name = issued.content.get("display_name") if issued else None
        return name if isinstance(name, str) else invite.mxid

    async def _invite(self, sender: str, room_id: str, target: str, signed: Mapping[str, Any]) -> None:
        token = signed.get("token")
        room = await self._rooms.get(room_id)
        issued = room.state_event(THIRD_PARTY_INVITE, token) if isinstance(token, str) else None
        if issued is None:
            raise forbidden("The room issued no such third-party invite")
        if not await self._is_signed(signed, issued.content):
            raise forbidden("The key that signed the third-party invite is not valid, or not any more")
        name = issued.content.get("display_name")
        proof = {"display_name": name if isinstance(name, str) else target, "signed": dict(signed)}
        await self._membership.invite(sender, room_id, target, {"third_party_invite": proof})

    async def _is_signed(self, signed: Mapping[str, Any], issued: dict[str, Any]) -> bool:
        """Whether a key that the room knows signed, and its server says it is still good.

        A key that names no place to ask is taken as it is.
        """
        signers = third_party_signers(dict(signed), issued)
        urls = [signer.get("key_validity_url") for signer in signers]
        if any(url is None for url in urls):
            return True
        for signer, url in list(zip(signers, urls, strict=True))[:_MAX_KEYS_ASKED]:
            if isinstance(url, str) and await self._is_valid(url, signer["public_key"]):
                return True
        return False
