"""The list of published rooms, this server's and others', page by page.

The rooms with the most members come first, newer ones before older ones with as many.
Each page is an indexed read that begins where the other ended, so that turning pages is
as stable as the numbers of members are, and costs the same wherever it happens.
Who may publish a room is decided in ``rooms/directory.py``.
Specification: client-server API, "Published room directory".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from homeserver.errors import invalid_param
from homeserver.protocol.ids import is_server_name
from homeserver.rooms.summaries import RoomSummaries, RoomSummary
from homeserver.storage import summaries as summary_storage
from homeserver.storage.database import Database
from homeserver.storage.summaries import Listed, Network, PublishedRow

MAX_LIMIT = 500
_DEFAULT_LIMIT = 100

#: How many rooms are read at once for a search, and for one page of its results.
_BATCH = 200
_MAX_SCANNED = 5_000

_token = re.compile(r"([np])([0-9]{1,15})\.([0-9]{1,18})").fullmatch


class RemoteLists(Protocol):
    """Asks other servers for their lists."""

    async def public_rooms(self, server_name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """``POST /publicRooms``: the body of the answer; raises ``RemoteError``."""
        ...


class SearchFilter(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Which rooms are wanted; ``None`` in ``room_types`` stands for rooms without a type."""

    generic_search_term: str | None = None
    room_types: list[str | None] | None = None


class Wanted(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A request for a page, as the spec has its body."""

    limit: int | None = None
    since: str | None = None
    filter: SearchFilter | None = None
    include_all_networks: bool = False
    third_party_instance_id: str | None = None


class PublishedRooms:
    """Reads the lists."""

    def __init__(self, db: Database, summaries: RoomSummaries, remote: RemoteLists, server_name: str) -> None:
        self._db = db
        self._summaries = summaries
        self._remote = remote
        self._server_name = server_name

    async def page(self, wanted: Wanted) -> dict[str, Any]:
        """A page of this server's list.

        A search that has looked through many rooms ends its page early and says where to go on.
        Raises ``M_INVALID_PARAM``.
        """
        limit = _limit(wanted)
        backwards, beyond = _parse(wanted.since)
        listed = _listed(wanted)
        found, last = await self._collect(wanted, listed, beyond, limit, backwards=backwards)
        total = await summary_storage.count_published(self._db.scan, listed)
        shown = found[:limit]
        end = shown[-1][0] if len(found) > limit else last
        if backwards:
            shown.reverse()
        reply: dict[str, Any] = {
            "chunk": [summary.published() for _, summary in shown],
            "total_room_count_estimate": total,
        }
        if end is not None:
            reply["prev_batch" if backwards else "next_batch"] = _written(end, backwards=backwards)
        if beyond is not None:
            behind = beyond if not shown else shown[-1 if backwards else 0][0]
            reply["next_batch" if backwards else "prev_batch"] = _written(behind, backwards=not backwards)
        return reply

    async def page_of(self, server_name: str, wanted: Wanted) -> dict[str, Any]:
        """A page of some server's list; raises ``RemoteError`` where that is another's."""
        if server_name == self._server_name:
            return await self.page(wanted)
        if not is_server_name(server_name):
            raise invalid_param("'server' is not a server name")
        asked = {**msgspec.to_builtins(wanted), "limit": _limit(wanted)}
        return checked_page(await self._remote.public_rooms(server_name, asked), _limit(wanted))

    async def _collect(
        self, wanted: Wanted, listed: Listed, beyond: PublishedRow | None, limit: int, *, backwards: bool
    ) -> tuple[list[tuple[PublishedRow, RoomSummary]], PublishedRow | None]:
        """More than ``limit`` rooms where there are, and where to go on if not all were looked at."""
        searching = wanted.filter is not None
        found: list[tuple[PublishedRow, RoomSummary]] = []
        for _ in range(_MAX_SCANNED // _BATCH):
            size = _BATCH if searching else limit + 1 - len(found)
            rows = await summary_storage.published(
                self._db.scan, beyond, size, backwards=backwards, listed=listed
            )
            summaries = await self._summaries.by_nids([row.nid for row in rows])
            found += [
                (row, summaries[row.nid])
                for row in rows
                if row.nid in summaries and _matches(summaries[row.nid], wanted.filter)
            ]
            if len(rows) < size or len(found) > limit:
                return found, None
            beyond = rows[-1]
        return found, beyond


def checked_page(reply: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Another server's page as clients may be shown it: entries without a room id are left out."""
    chunk = [
        {"num_joined_members": 0, "world_readable": False, "guest_can_join": False, **entry}
        for entry in reply["chunk"][:limit]
        if isinstance(entry.get("room_id"), str)
    ]
    page: dict[str, Any] = {"chunk": chunk}
    for name, kind in (("next_batch", str), ("prev_batch", str), ("total_room_count_estimate", int)):
        if isinstance(reply.get(name), kind):
            page[name] = reply[name]
    return page


def _limit(wanted: Wanted) -> int:
    limit = _DEFAULT_LIMIT if wanted.limit is None else wanted.limit
    if limit < 0:
        raise invalid_param("'limit' is negative")
    # To servers, 0 means without a limit.
    return min(limit or MAX_LIMIT, MAX_LIMIT)


def _listed(wanted: Wanted) -> Listed:
    """Whose list is wanted.  An instance's id is that of the service, and the network, as in its protocol."""
    if wanted.third_party_instance_id is None:
        return "all" if wanted.include_all_networks else None
    if wanted.include_all_networks:
        raise invalid_param("'third_party_instance_id' contradicts 'include_all_networks'")
    service_id, _, network_id = wanted.third_party_instance_id.partition("|")
    return Network(service_id, network_id)


def _matches(summary: RoomSummary, wanted: SearchFilter | None) -> bool:
    """A room that this server has left is in its list no more, for nobody here knows what it is like."""
    if not summary.resident:
        return False
    if wanted is None:
        return True
    if wanted.room_types is not None and summary.room_type not in wanted.room_types:
        return False
    if not wanted.generic_search_term:
        return True
    term = wanted.generic_search_term.casefold()
    return any(term in text.casefold() for text in _texts(summary))


def _texts(summary: RoomSummary) -> Sequence[str]:
    return [text for text in (summary.name, summary.topic, summary.canonical_alias) if text]


def _parse(token: str | None) -> tuple[bool, PublishedRow | None]:
    """Whether a token leads backwards, and the room it begins after."""
    if token is None:
        return False, None
    match = _token(token)
    if match is None:
        raise invalid_param("That is no token of this server's")
    return match[1] == "p", PublishedRow(int(match[2]), int(match[3]))


def _written(row: PublishedRow, *, backwards: bool) -> str:
    return f"{'p' if backwards else 'n'}{row.joined_members}.{row.nid}"
