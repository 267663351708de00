"""The keys that other servers sign with: from memory, from storage, from the server, from notaries.

Says which key a server had and until when it counts; what must be signed is
``homeserver.protocol.signing``'s.  A key is only taken from an answer that the
server signed itself, and an id that means one key never comes to mean another.
Specification: server-server API, "Retrieving server keys"; room version 5,
"Signing key validity period".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import structlog

from federation.lookups import Restraint, wait_at_most
from federation.notaries import Notaries, Wanted
from federation.published_keys import (
    FOREVER_MS,
    Answer,
    InvalidServerKeys,
    VerifyKey,
    answer_of,
    check_self_signed,
    contradicted,
    learned,
    missing,
    read_server_keys,
    signing_key_ids,
    usable,
)
from homeserver.clock import Clock
from homeserver.errors import RemoteError
from homeserver.lookups import InFlight, Recent
from homeserver.protocol.canonical_json import InvalidJSON
from homeserver.protocol.signing import BadSignature, SigningKey, check_signature, verify_json

_log = structlog.get_logger()

#: A server that did not give the key wanted is not asked again for so long.
RETRY_SECONDS: Final = 60
#: How long one who needs keys waits for servers in all, and as long again for notaries.
DEADLINE_SECONDS: Final = 45.0

_PARALLEL: Final = 200
#: Servers that may be being asked at a time; anybody can name servers that never answer.
_MAX_UNDER_WAY: Final = 5_000
_REMEMBERED_SERVERS: Final = 10_000


class KeyStore(Protocol):
    """Where keys survive a restart."""

    async def load(self, server_names: Collection[str]) -> dict[str, list[VerifyKey]]:
        """All keys known of servers."""
        ...

    async def store(self, server_name: str, keys: Collection[VerifyKey], answer: Answer | None) -> None:
        """Add keys or what is new about them, and keep the answer they stood in."""
        ...


class Keyring:
    """Knows servers' keys.

    ``fetch`` asks a server for what it publishes, ``query`` one of ``notaries`` for what
    others do; both raise ``RemoteError``.  ``old_keys`` are this server's own.
    """

    def __init__(
        self,
        *,
        server_name: str,
        own_keys: Iterable[SigningKey],
        store: KeyStore,
        fetch: Callable[[str], Awaitable[Mapping[str, Any]]],
        query: Callable[[str, Wanted], Awaitable[Sequence[Mapping[str, Any]]]],
        clock: Clock,
        old_keys: Iterable[VerifyKey] = (),
        notaries: Sequence[str] = (),
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        self._store = store
        self._fetch = fetch
        self._clock = clock
        self._deadline = deadline
        self._server_name = server_name
        self._own_keys = {key.key_id: key for key in old_keys} | {
            key.key_id: VerifyKey(key.key_id, key.verify_key_base64, FOREVER_MS) for key in own_keys
        }
        self._known: Recent[str, Mapping[str, VerifyKey]] = Recent(_REMEMBERED_SERVERS)
        self._asked = Restraint(clock, RETRY_SECONDS, _REMEMBERED_SERVERS)
        self._loads: InFlight[frozenset[str], dict[str, Mapping[str, VerifyKey]]] = InFlight()
        self._fetches: InFlight[str, None] = InFlight()
        self._free = asyncio.Semaphore(_PARALLEL)
        self._notaries = Notaries(
            names=[name for name in notaries if name != server_name],
            query=query,
            take=self._learn_from_notary,
            still_missing=self._still_missing,
            clock=clock,
        )

    async def verify_json(self, server_name: str, obj: dict[str, Any]) -> None:
        """Check that the server signed the object with a key that is valid now.

        One good signature is enough; those by keys that are unknown or no longer valid
        are passed over.  Raises ``BadSignature``.
        """
        wanted = self._wanted_now(server_name, obj)
        known = await self.keys_for_all({server_name: wanted})
        self._verify(server_name, obj, wanted, known[server_name])

    async def verify_bytes(
        self, server_name: str, signatures: Mapping[str, str], forms: Iterable[bytes]
    ) -> None:
        """The same for signatures, by key id, of one of several forms; each is made when it is tried."""
        wanted = self._wanted_now(server_name, {"signatures": {server_name: signatures}})
        known = await self.keys_for_all({server_name: wanted})
        keys = usable(known[server_name], wanted, max(wanted.values()))
        failure = BadSignature(f"None of the keys that {server_name} signed with is known and valid")
        for signed in forms:
            for key_id, key in keys.items():
                try:
                    check_signature(signed, signatures[key_id], server_name, key_id, key.key_base64)
                except BadSignature as error:
                    failure = error
                else:
                    return
        raise failure

    async def keys_for_all(self, wanted: Wanted) -> dict[str, Mapping[str, VerifyKey]]:
        """Every key known of the servers, after those wanted were asked for where need be.

        The time a key is wanted for is, for an event of a room version with
        ``enforce_key_validity``, its ``origin_server_ts``, for older versions 0, for a request
        the present; what a key covers the caller sees from its ``valid_until_ms``.
        A server is asked when a key is missing or not known to be valid at its time; for what
        the servers do not give, the notaries are asked.  Nobody is waited for longer than the
        deadline: a key that comes later is there the next time.
        """
        known = await self._with_fetched(wanted)
        lacking = self._lacking(wanted, known)
        if lacking:
            await self._notaries.ask(lacking, self._deadline)
            known |= await self._known_of(lacking)
        return known

    async def refresh(self, wanted: Mapping[str, Collection[str]]) -> None:
        """Ask servers in parallel for what they publish now, but for those asked just now.

        ``wanted`` are servers and the key ids for which they are asked, if for any.
        """
        known = await self._known_of(wanted)
        asking = [
            asyncio.ensure_future(self._refreshed(name, set(key_ids) - known[name].keys()))
            for name, key_ids in wanted.items()
        ]
        await wait_at_most(self._deadline, asking)
        for task in asking:
            task.cancel()

    async def close(self) -> None:
        """Stop asking."""
        await self._notaries.close()
        await self._fetches.close()
        await self._loads.close()

    async def _with_fetched(self, wanted: Wanted) -> dict[str, Mapping[str, VerifyKey]]:
        known = await self._known_of(wanted)
        lacking = self._lacking(wanted, known)
        if lacking:
            await self.refresh(lacking)
            known |= await self._known_of(lacking)
        return known

    async def _still_missing(self, wanted: Wanted) -> Wanted:
        return self._lacking(wanted, await self._known_of(wanted))

    def _lacking(self, wanted: Wanted, known: Mapping[str, Mapping[str, VerifyKey]]) -> Wanted:
        lacking = missing(wanted, known)
        lacking.pop(self._server_name, None)
        return lacking

    async def _known_of(self, server_names: Iterable[str]) -> dict[str, Mapping[str, VerifyKey]]:
        """What memory or storage has of the servers' keys."""
        names = list(server_names)
        to_load = [name for name in names if name != self._server_name and self._known.get(name) is None]
        loaded: Mapping[str, Mapping[str, VerifyKey]] = {}
        if to_load:
            loaded = await self._loads.run(frozenset(to_load), lambda: self._load(to_load))
        found = {name: self._known.get(name) or loaded.get(name, {}) for name in names}
        return found | ({self._server_name: self._own_keys} if self._server_name in found else {})

    async def _load(self, server_names: Sequence[str]) -> dict[str, Mapping[str, VerifyKey]]:
        stored = await self._store.load(server_names)
        loaded: dict[str, Mapping[str, VerifyKey]] = {
            name: {key.key_id: key for key in stored.get(name, ())} for name in server_names
        }
        for name, keys in loaded.items():
            # What was learned while this was being read is newer.
            if self._known.get(name) is None:
                self._known.put(name, keys)
        return loaded

    async def _refreshed(self, server_name: str, new: Collection[str]) -> None:
        await self._fetches.run(server_name, lambda: self._refresh(server_name, new))

    async def _refresh(self, server_name: str, new: Collection[str]) -> None:
        if len(self._fetches) > _MAX_UNDER_WAY or not self._asked.allows(server_name, new):
            return
        async with self._free:
            try:
                response = await self._fetch(server_name)
                await self._learn(server_name, response, first_hand=True)
            except (RemoteError, InvalidServerKeys) as error:
                _log.info("keys not had", server=server_name, reason=str(error))
                return
        self._asked.answered(server_name)

    async def _learn_from_notary(self, notary: str, server_name: str, response: Mapping[str, Any]) -> None:
        """Believe an answer that both the notary and the server it is about have signed."""
        obj = dict(response)
        try:
            wanted = self._wanted_now(notary, obj)
            # Not from other notaries, who might be waiting for this one.
            known = await self._with_fetched({notary: wanted})
            self._verify(notary, obj, wanted, known[notary])
            await self._learn(server_name, obj, first_hand=False)
        except (BadSignature, InvalidJSON, InvalidServerKeys) as error:
            _log.info("notary not believed", notary=notary, server=server_name, reason=str(error))

    async def _learn(self, server_name: str, response: Mapping[str, Any], *, first_hand: bool) -> None:
        """Take in what a server published; raises ``InvalidServerKeys``."""
        now = self._clock.now_ms()
        published = read_server_keys(server_name, response, now)
        known = (await self._known_of([server_name]))[server_name]
        disputed = contradicted(known, published)
        answer = answer_of(server_name, response, published, now if first_hand else 0)
        if disputed:
            _log.warning("server gives a known key another value", server=server_name, keys=sorted(disputed))
            undisputed = [key for key in published if not key.expired and key.key_id not in disputed]
            check_self_signed(server_name, response, undisputed)
        changes = learned(known, published, first_hand=first_hand)
        self._known.put(server_name, {**known, **changes})
        await self._store.store(server_name, changes.values(), None if disputed else answer)

    def _wanted_now(self, server_name: str, obj: dict[str, Any]) -> dict[str, int]:
        key_ids = signing_key_ids(obj, server_name)
        if not key_ids:
            raise BadSignature(f"{server_name} has not signed with a supported key")
        return dict.fromkeys(key_ids, self._clock.now_ms())

    def _verify(
        self,
        server_name: str,
        obj: dict[str, Any],
        wanted: Mapping[str, int],
        known: Mapping[str, VerifyKey],
    ) -> None:
        failure = BadSignature(f"None of the keys that {server_name} signed with is known and valid")
        for key in usable(known, wanted, max(wanted.values())).values():
            try:
                verify_json(obj, server_name, key.key_id, key.key_base64)
            except BadSignature as error:
                failure = error
            else:
                return
        raise failure
