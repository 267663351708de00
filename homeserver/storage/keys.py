"""The integers that stand for ``(type, state_key)`` pairs, with a memory of those in use."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from homeserver.protocol.events import StateKey
from homeserver.storage import state
from homeserver.storage.database import Reader
from homeserver.storage.numbers import Sequence as NumberSequence

_REMEMBERED = 200_000


class Keys:
    """Interns state keys.

    A new key gets its number at once and is written by the transaction that first
    uses it; until that is on disk every transaction that uses the key writes it too,
    so that none depends on another's success.
    """

    def __init__(self, read: Reader, scan: Reader, numbers: NumberSequence) -> None:
        self._read = read
        self._scan = scan
        self._numbers = numbers
        self._nids: dict[StateKey, int] = {}
        self._keys: dict[int, StateKey] = {}
        self._unwritten: dict[int, StateKey] = {}

    async def find(self, key: StateKey) -> int | None:
        """The number of a key, or ``None`` for one no room has ever used."""
        nid = self._nids.get(key)
        if nid is None:
            nid = await state.key_nid(self._read, key)
            if nid is not None:
                self._remember(nid, key)
        return nid

    async def intern(self, key: StateKey) -> int:
        """The number of a key, a new one if need be."""
        nid = await self.find(key)
        if nid is not None:
            return nid
        if key in self._nids:  # another task was given a number for it meanwhile
            return self._nids[key]
        return self._give_number(key)

    async def intern_all(self, keys: Iterable[StateKey]) -> None:
        """Have numbers for many keys at hand, with a query for each type and not for each key."""
        unknown: defaultdict[str, list[str]] = defaultdict(list)
        for type_, state_key in keys:
            if (type_, state_key) not in self._nids:
                unknown[type_].append(state_key)
        for type_, state_keys in unknown.items():
            found = await state.nids_of_keys(self._scan, type_, state_keys)
            for state_key in state_keys:
                key = (type_, state_key)
                if state_key in found:
                    self._remember(found[state_key], key)
                elif key not in self._nids:
                    self._give_number(key)

    async def names(self, nids: Sequence[int]) -> dict[int, StateKey]:
        """The keys of numbers."""
        found = {nid: self._keys[nid] for nid in nids if nid in self._keys}
        unknown = [nid for nid in nids if nid not in found]
        if unknown:
            reader = self._read if len(unknown) <= 50 else self._scan
            for nid, key in (await state.keys_by_nid(reader, unknown)).items():
                self._remember(nid, key)
                found[nid] = key
        return found

    def unwritten(self, nids: Iterable[int]) -> Mapping[int, StateKey]:
        """Those of the numbers that a transaction still has to write."""
        return {nid: self._unwritten[nid] for nid in nids if nid in self._unwritten}

    def written(self, nids: Iterable[int]) -> None:
        """These are on disk now."""
        for nid in nids:
            self._unwritten.pop(nid, None)

    def _give_number(self, key: StateKey) -> int:
        nid = self._numbers.next()
        self._remember(nid, key)
        self._unwritten[nid] = key
        return nid

    def _remember(self, nid: int, key: StateKey) -> None:
        if len(self._nids) >= _REMEMBERED:
            self._nids = {key: nid for nid, key in self._unwritten.items()}
            self._keys = dict(self._unwritten)
        self._nids[key] = nid
        self._keys[nid] = key
