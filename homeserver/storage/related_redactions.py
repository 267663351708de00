"""Redactions that extend to what relates to the redacted event."""

from __future__ import annotations

import msgspec

from homeserver.storage.database import Reader, Row, Transaction


class RelatedRedaction(msgspec.Struct, frozen=True, gc=False):
    """Which children of a redacted event are redacted too, and by whom."""

    #: The redaction of the parent.
    redaction_id: str
    room_nid: int
    parent_id: str
    sender: str
    #: ``*`` is any type.
    rel_types: tuple[str, ...]
    #: What valid replacements of the parent compete for (``protocol/relations.py``), if there can be any.
    slot: str | None
    #: Whether the parent may have had a thread.
    is_thread_root: bool
    #: Whether the sender is an administrator of this server; or suspended, with a right to their own
    #: events alone.
    is_admin: bool
    own_only: bool
    reason: str | None
    #: Until when children that come late are redacted too, in milliseconds since the epoch.
    expires_ts: int


_encode = msgspec.json.encode
_decode_types = msgspec.json.Decoder(tuple[str, ...]).decode


async def add(tx: Transaction, one: RelatedRedaction) -> None:
    """Remember one."""
    await tx.execute(
        """INSERT INTO related_redactions (redaction_id, room_nid, parent_id, sender, rel_types, slot,
                                           is_thread_root, is_admin, own_only, reason, expires_ts)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)""",
        one.redaction_id,
        one.room_nid,
        one.parent_id,
        one.sender,
        _encode(one.rel_types).decode(),
        one.slot,
        int(one.is_thread_root),
        int(one.is_admin),
        int(one.own_only),
        one.reason,
        one.expires_ts,
    )


async def newest(r: Reader, now: int, limit: int) -> list[RelatedRedaction]:
    """Those that are not over at ``now`` (milliseconds), up to ``limit``, the oldest of them first."""
    rows = await r.fetch(
        """SELECT redaction_id, room_nid, parent_id, sender, rel_types, slot,
                  is_thread_root, is_admin, own_only, reason, expires_ts
           FROM related_redactions WHERE expires_ts > $1 ORDER BY expires_ts DESC LIMIT $2""",
        now,
        limit,
    )
    return [_read(row) for row in reversed(rows)]


async def forget_expired(tx: Transaction, now: int) -> None:
    """Forget those that are over."""
    await tx.execute("DELETE FROM related_redactions WHERE expires_ts <= $1", now)


def _read(row: Row) -> RelatedRedaction:
    redaction_id, room_nid, parent_id, sender, rel_types, slot, is_root, is_admin, own_only, *rest = row
    reason, expires_ts = rest
    return RelatedRedaction(
        redaction_id,
        room_nid,
        parent_id,
        sender,
        _decode_types(rel_types),
        slot,
        bool(is_root),
        bool(is_admin),
        bool(own_only),
        reason,
        expires_ts,
    )
