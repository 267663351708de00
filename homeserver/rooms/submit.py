"""What a client asks to be put into a room, with all that its kind is checked for, at once or later.

The auth rules are ``Send``'s; here stands what this server asks of its own users beyond them.
"""

from __future__ import annotations

import msgspec

from homeserver.errors import bad_json, invalid_param, user_suspended
from homeserver.protocol.relations import relation_of
from homeserver.rooms.directory import CANONICAL_ALIAS, Directory
from homeserver.rooms.membership import Membership
from homeserver.rooms.redaction import RedactionRights
from homeserver.rooms.related_redactions import RelatedRedactions, With
from homeserver.rooms.related_sends import RelatedSends
from homeserver.rooms.room import MEMBER
from homeserver.rooms.send import AlsoFor, Draft, Send
from homeserver.storage.events import StoredEvent
from homeserver.users.requester import Requester

REDACTION = "m.room.redaction"


class Submit:
    """Sends what users ask for, whichever kind of event it is."""

    def __init__(
        self,
        *,
        send: Send,
        membership: Membership,
        directory: Directory,
        redaction_rights: RedactionRights,
        related: RelatedSends,
        related_redactions: RelatedRedactions,
    ) -> None:
        self._send = send
        self._membership = membership
        self._directory = directory
        self._redaction_rights = redaction_rights
        self._related = related
        self._related_redactions = related_redactions

    async def submit(
        self, requester: Requester, room_id: str, draft: Draft, also: AlsoFor | None = None
    ) -> StoredEvent:
        """Send an event; it is on disk when this returns.

        A redaction names what it redacts in ``draft.redacts``, or else in its content.  ``also`` as for
        ``Send.send``; it is not asked for where nothing has to be stored, nor for memberships.
        Raises what ``Send.send`` does, ``M_USER_SUSPENDED``, and what its kind of event is refused for.
        """
        if draft.state_key is not None:
            return await self._state(requester, room_id, draft, draft.state_key, also)
        if draft.type == REDACTION:
            return await self.redact(requester, room_id, draft, also)
        if requester.is_suspended:
            raise user_suspended()
        relation = relation_of(draft.content)
        if relation is None:
            return await self._send.send(room_id, draft, also)
        async with self._related.checked(room_id, draft, relation):
            return await self._send.send(room_id, draft, also)

    async def _state(
        self, requester: Requester, room_id: str, draft: Draft, state_key: str, also: AlsoFor | None
    ) -> StoredEvent:
        membership = draft.content.get("membership") if draft.type == MEMBER else None
        if requester.is_suspended and not (state_key == draft.sender and membership == "leave"):
            raise user_suspended()
        if draft.type == MEMBER:
            return await self._membership.set_member(
                draft.sender, room_id, state_key, draft.content, origin_server_ts=draft.origin_server_ts
            )
        if draft.type == REDACTION:
            raise invalid_param("A redaction is not a state event")
        if draft.type == CANONICAL_ALIAS and not state_key:
            await self._directory.check_canonical_alias(room_id, draft.content)
        return await self._send.send(room_id, draft, also)

    async def redact(
        self,
        requester: Requester,
        room_id: str,
        draft: Draft,
        also: AlsoFor | None,
        rel_types: tuple[str, ...] = (),
    ) -> StoredEvent:
        """Send a redaction, also of what relates to its target in one of these ways.

        Raises as ``submit``.
        """
        content = {name: value for name, value in draft.content.items() if name != "redacts"}
        redacts: object = draft.content.get("redacts") if draft.redacts is None else draft.redacts
        if not isinstance(redacts, str):
            raise bad_json("A redaction needs the id of an event in 'redacts'")
        await self._redaction_rights.check(
            draft.sender, room_id, redacts, is_admin=requester.is_admin, own_only=requester.is_suspended
        )
        draft = msgspec.structs.replace(draft, content=content, redacts=redacts)
        if not rel_types:
            return await self._send.send(room_id, draft, also)
        wanted = With(rel_types, is_admin=requester.is_admin, own_only=requester.is_suspended)
        return await self._related_redactions.redact(room_id, draft, wanted, also)
