"""What tells people outside which rooms there are: many rooms in few queries, published ones in order.

``rooms/summaries.py`` says what is made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from homeserver.storage.database import Reader, Row
from homeserver.storage.rooms import MEMBERSHIP_NAMES, MEMBERSHIPS

#: How many keys ``values`` is asked for at most; fewer are filled up, so that it is one query.
MOST_KEYS = 10

_NO_KEY = -1
_CHUNK = 500


class SummaryRow(msgspec.Struct, frozen=True, gc=False):
    """A room's row as far as its summary needs it."""

    nid: int
    room_id: str
    version: str
    last_pos: int
    joined_members: int
    #: Whether the server asked about has members in it.
    resident: bool


class PublishedRow(msgspec.Struct, frozen=True, gc=False):
    """A published room and what decides its place in the list."""

    joined_members: int
    nid: int


class Network(msgspec.Struct, frozen=True, gc=False):
    """A third-party network that an application service publishes rooms for."""

    service_id: str
    network_id: str


#: Whose list is read: this server's own (``None``), that of one network, or all of them together.
Listed: TypeAlias = Network | Literal["all"] | None

_OF_NETWORK = """EXISTS (SELECT 1 FROM appservice_rooms a WHERE a.room_nid = rooms.room_nid
                         AND a.service_id = {service} AND a.network_id = {network})"""
_OF_ALL = "(published = 1 OR EXISTS (SELECT 1 FROM appservice_rooms a WHERE a.room_nid = rooms.room_nid))"


def _is_listed(listed: Listed, first: int) -> tuple[str, tuple[str, ...]]:
    """A condition on ``rooms``, and its arguments, which are numbered from ``first`` on."""
    if listed is None:
        return "published = 1", ()
    if listed == "all":
        return _OF_ALL, ()
    condition = _OF_NETWORK.format(service=f"${first}", network=f"${first + 1}")
    return condition, (listed.service_id, listed.network_id)


_ROW = """
    SELECT r.room_nid, r.room_id, r.version, r.last_pos, r.joined_members, s.joined
    FROM rooms r LEFT JOIN room_servers s ON s.room_nid = r.room_nid AND s.server_name = $2
"""


def _summary_row(row: Row) -> SummaryRow:
    nid, room_id, version, last_pos, joined_members, joined = row
    return SummaryRow(nid, room_id, version, last_pos, joined_members, bool(joined))


async def by_ids(r: Reader, room_ids: Sequence[str], server_name: str) -> list[SummaryRow]:
    """The rows of rooms by their ids; ``server_name`` is whose residence is told."""
    return [
        _summary_row(row)
        for chunk in _chunks(room_ids)
        for row in await r.fetch_in(f"{_ROW} WHERE r.room_id IN $1", chunk, server_name)
    ]


async def by_nids(r: Reader, nids: Sequence[int], server_name: str) -> list[SummaryRow]:
    """The same by their numbers."""
    return [
        _summary_row(row)
        for start in range(0, len(nids), _CHUNK)
        for row in await r.fetch_in(
            f"{_ROW} WHERE r.room_nid IN $1", nids[start : start + _CHUNK], server_name
        )
    ]


async def values(r: Reader, room_nids: Sequence[int], key_nids: Sequence[int]) -> list[tuple[int, int]]:
    """``(room_nid, event_nid)`` of up to ``MOST_KEYS`` keys in the current state of rooms."""
    keys = [*key_nids, *[_NO_KEY] * (MOST_KEYS - len(key_nids))]
    wanted = ", ".join(f"${number}" for number in range(2, MOST_KEYS + 2))
    query = f"SELECT room_nid, event_nid FROM current_state WHERE room_nid IN $1 AND key_nid IN ({wanted})"
    return [
        (row[0], row[1])
        for start in range(0, len(room_nids), _CHUNK)
        for row in await r.fetch_in(query, room_nids[start : start + _CHUNK], *keys)
    ]


async def published(
    r: Reader, beyond: PublishedRow | None, limit: int, *, backwards: bool, listed: Listed = None
) -> list[PublishedRow]:
    """A page of the published rooms that have members.

    The order is that of the most members first, and ``backwards`` the opposite;
    ``beyond`` is the room it begins after.
    """
    condition, arguments = _is_listed(listed, 4)
    if backwards:
        order, compare = "joined_members, room_nid", ">"
        start = beyond or PublishedRow(0, 0)
    else:
        order, compare = "joined_members DESC, room_nid DESC", "<"
        start = beyond or PublishedRow(2**62, 0)
    rows = await r.fetch(
        f"""SELECT joined_members, room_nid FROM rooms
            WHERE {condition} AND joined_members > 0 AND (joined_members, room_nid) {compare} ($1, $2)
            ORDER BY {order} LIMIT $3""",
        start.joined_members,
        start.nid,
        limit,
        *arguments,
    )
    return [PublishedRow(*row) for row in rows]


async def count_published(r: Reader, listed: Listed = None) -> int:
    """How many published rooms have members."""
    condition, arguments = _is_listed(listed, 1)
    count: int = await r.fetch_value(
        f"SELECT COUNT(*) FROM rooms WHERE {condition} AND joined_members > 0", *arguments
    )
    return count


async def memberships_in(r: Reader, user_id: str, room_ids: Sequence[str]) -> dict[str, str]:
    """What a local user is in each of the rooms they have to do with."""
    return {
        row[0]: MEMBERSHIP_NAMES[row[1]]
        for chunk in _chunks(room_ids)
        for row in await r.fetch_in(
            """SELECT r.room_id, m.membership
               FROM rooms r JOIN local_memberships m ON m.room_nid = r.room_nid
               WHERE r.room_id IN $1 AND m.user_id = $2""",
            chunk,
            user_id,
        )
    }


async def rooms_with(r: Reader, server_name: str, own_name: str, room_ids: Sequence[str]) -> set[str]:
    """Those of the rooms in which both servers have members."""
    return {
        row[0]
        for chunk in _chunks(room_ids)
        for row in await r.fetch_in(
            """SELECT r.room_id FROM rooms r
               JOIN room_servers own ON own.room_nid = r.room_nid AND own.server_name = $3
               JOIN room_servers s ON s.room_nid = r.room_nid AND s.server_name = $2
               WHERE r.room_id IN $1""",
            chunk,
            server_name,
            own_name,
        )
    }


async def rooms_inviting(r: Reader, server_name: str, room_nids: Sequence[int]) -> set[int]:
    """Those of the rooms that have invited users of a server."""
    return {
        row[0]
        for start in range(0, len(room_nids), _CHUNK)
        for row in await r.fetch_in(
            """SELECT DISTINCT c.room_nid
               FROM current_state c JOIN state_keys k ON k.key_nid = c.key_nid
               WHERE c.room_nid IN $1 AND c.membership = $2 AND k.state_key LIKE $3""",
            room_nids[start : start + _CHUNK],
            MEMBERSHIPS["invite"],
            # A server name holds neither of the characters that mean something here.
            f"%:{server_name}",
        )
    }


def _chunks(values: Sequence[str]) -> list[Sequence[str]]:
    return [values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK)]
