"""Vouching for the keys of other servers: what they published, with this server's signature beside theirs.

An answer is kept as its server signed it, and given as long as that server cannot be
asked.  Specification: server-server API, "Querying Keys Through Another Server".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, Protocol

from federation.published_keys import Answer
from homeserver.clock import Clock
from homeserver.protocol.ids import is_server_name
from homeserver.protocol.signing import SigningKey, sign_json

#: How long those who ask wait for servers that are asked on their behalf.
DEADLINE_SECONDS: Final = 15.0

#: Servers that are asked at a time on behalf of others, who may name any.
_PARALLEL: Final = 20
_MAX_WAITING: Final = 1_000
#: Answers of one server in one reply.
_MAX_ANSWERS: Final = 10


class AnswerStore(Protocol):
    """Where answers are kept."""

    async def answers(self, server_names: Collection[str]) -> dict[str, list[Answer]]:
        """What servers published, the newest first."""
        ...


class Notary:
    """Signs what other servers published.

    ``refresh`` has servers asked, whose answers are in ``store`` then; it shows restraint
    by itself.  ``allows`` says of which servers to speak at all.
    """

    def __init__(
        self,
        *,
        server_name: str,
        keys: Sequence[SigningKey],
        store: AnswerStore,
        refresh: Callable[[Mapping[str, Collection[str]]], Awaitable[None]],
        allows: Callable[[str], bool],
        clock: Clock,
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        self._server_name = server_name
        self._keys = keys
        self._store = store
        self._refresh = refresh
        self._allows = allows
        self._clock = clock
        self._deadline = deadline
        self._free = asyncio.Semaphore(_PARALLEL)
        self._waiting = 0

    async def vouched(self, wanted: Mapping[str, Mapping[str, int]], until_ms: int) -> list[dict[str, Any]]:
        """What servers published, as far as it can be had, signed.

        ``wanted`` are servers with the keys that are asked for and the times they should be
        valid at (ms since the epoch), which is ``until_ms`` for all keys where none are named.
        """
        spoken_of = {
            server: keys
            for server, keys in wanted.items()
            if server != self._server_name and is_server_name(server) and self._allows(server)
        }
        known = await self._store.answers(spoken_of)
        stale = {
            server: set(keys)
            for server, keys in spoken_of.items()
            if is_stale(
                known.get(server, ()), keys, max(keys.values(), default=until_ms), self._clock.now_ms()
            )
        }
        if stale:
            await self._ask(stale)
            known |= await self._store.answers(stale)
        return [
            self._signed(answer.content)
            for server, keys in spoken_of.items()
            for answer in chosen(known.get(server, ()), keys)
        ]

    async def _ask(self, stale: Mapping[str, Collection[str]]) -> None:
        async def ask(server: str, key_ids: Collection[str]) -> None:
            async with self._free:
                await self._refresh({server: key_ids})

        if self._waiting + len(stale) > _MAX_WAITING:
            return
        self._waiting += len(stale)
        try:
            async with asyncio.timeout(self._deadline):
                await asyncio.gather(*(ask(*each) for each in stale.items()))
        except TimeoutError:
            return  # what came in time is in the store
        finally:
            self._waiting -= len(stale)

    def _signed(self, published: dict[str, Any]) -> dict[str, Any]:
        for key in self._keys:
            published = sign_json(published, self._server_name, key)
        return published


def is_stale(answers: Sequence[Answer], key_ids: Collection[str], until_ms: int, now_ms: int) -> bool:
    """Whether the server should be asked again before its newest answer is given.

    It is past half of its lifetime, or not valid for as long as is wanted, or a key that is
    wanted is in none.
    """
    if not answers:
        return True
    newest = answers[0]
    half = (newest.fetched_at_ms + newest.valid_until_ms) // 2
    return (
        now_ms > half
        or newest.valid_until_ms < until_ms
        or not all(any(answer.has(key_id) for answer in answers) for key_id in key_ids)
    )


def chosen(answers: Sequence[Answer], wanted: Collection[str]) -> list[Answer]:
    """The newest answer, and for each other key that is wanted the newest that has it; no keys are all."""
    if not answers:
        return []
    found = [answers[0]]
    for answer in answers[1:]:
        lacking = [key_id for key_id in wanted or answer.key_ids if not any(one.has(key_id) for one in found)]
        if any(answer.has(key_id) for key_id in lacking):
            found.append(answer)
    return found[:_MAX_ANSWERS]
