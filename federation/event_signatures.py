"""Verifies the signatures of events: which keys are needed, and whether they signed.

The keys of all servers concerned are fetched together, each once.  A few signatures are
verified on the spot; many in a process of their own, so that a large join does not
hold up everybody else.  Specification: server-server API, "Validating hashes and
signatures on received events"; room version 5, "Signing key validity period".
"""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from typing import Any, Final, TypeAlias

import structlog

from federation.keyring import Keyring
from federation.published_keys import VerifyKey, is_key_id
from federation.signature_checks import Check, Signer, verdict, verdicts
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing import BadSignature, required_signers
from homeserver.rooms.policy import POLICY_SERVER_KEY_ID

_log = structlog.get_logger()

#: Up to this many PDUs are verified on the spot.
FEW: Final = 50

_BATCH: Final = 500
_MAX_SIGNATURES: Final = 10

#: Who must have signed a PDU, by key id; or the sentence that says why it cannot be good.
_Wanted: TypeAlias = "dict[str, list[str]] | str"
#: What is known, by server and key id.
_Keys: TypeAlias = Mapping[str, Mapping[str, VerifyKey]]


class KeyringVerifier:
    """``homeserver.rooms.inbound.EventVerifier`` with the keys of a ``Keyring``."""

    def __init__(self, keyring: Keyring, *, workers: int = 1) -> None:
        self._keyring = keyring
        self._workers = workers
        self._pool: ProcessPoolExecutor | None = None

    async def verify(self, pdus: Sequence[Mapping[str, Any]], rules: RoomVersion) -> list[str | None]:
        """For each PDU ``None`` when every required signature is good, else what is wrong."""
        wanted = [_wanted(pdu, rules) for pdu in pdus]
        times = [_signed_at(pdu, rules) for pdu in pdus]
        keys = await self._keys(wanted, times)
        results: list[str | None] = [each if isinstance(each, str) else None for each in wanted]
        checks = {
            index: Check(pdus[index], _signers(each, times[index], keys))
            for index, each in enumerate(wanted)
            if not isinstance(each, str)
        }
        found = await self._verdicts(rules, list(checks.values()))
        for index, outcome in zip(checks, found, strict=True):
            results[index] = outcome
        return results

    async def close(self) -> None:
        """Let the worker processes go."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None

    async def _keys(self, wanted: Sequence[_Wanted], times: Sequence[int]) -> _Keys:
        """Every key that can be had of the servers, however long it is valid."""
        latest: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for each, at in zip(wanted, times, strict=True):
            if not isinstance(each, str):
                for server, key_ids in each.items():
                    for key_id in key_ids:
                        latest[server][key_id] = max(latest[server].get(key_id, 0), at)
        return await self._keyring.keys_for_all(latest)

    async def _verdicts(self, rules: RoomVersion, checks: Sequence[Check]) -> list[str | None]:
        if len(checks) > FEW:
            try:
                return await self._in_processes(rules, checks)
            except BrokenExecutor:
                _log.error("the process that verifies signatures died", events=len(checks))
                self._pool = None
        found: list[str | None] = []
        for index, check in enumerate(checks):
            found.append(verdict(rules.id, check))
            if index % FEW == FEW - 1:
                await asyncio.sleep(0)
        return found

    async def _in_processes(self, rules: RoomVersion, checks: Sequence[Check]) -> list[str | None]:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_ignore_interrupts,
            )
        loop = asyncio.get_running_loop()
        batches = [checks[start : start + _BATCH] for start in range(0, len(checks), _BATCH)]
        found = await asyncio.gather(
            *(loop.run_in_executor(self._pool, verdicts, rules.id, batch) for batch in batches)
        )
        return [outcome for batch in found for outcome in batch]


def _wanted(pdu: Mapping[str, Any], rules: RoomVersion) -> _Wanted:
    """The keys that claim to have signed for each server that must have."""
    try:
        signers = required_signers(dict(pdu), rules)
    except BadSignature as error:
        return str(error)
    signatures = pdu.get("signatures")
    wanted: dict[str, list[str]] = {}
    for server in signers:
        of_server = signatures.get(server) if isinstance(signatures, dict) else None
        key_ids = [
            key_id for key_id in of_server or () if is_key_id(key_id) and key_id != POLICY_SERVER_KEY_ID
        ]
        if not key_ids:
            return f"{server} has not signed the event"
        wanted[server] = key_ids[:_MAX_SIGNATURES]
    return wanted


def _signed_at(pdu: Mapping[str, Any], rules: RoomVersion) -> int:
    """When the keys must have been valid, in ms since the epoch; 0: it does not matter (until v4)."""
    return int(pdu["origin_server_ts"]) if rules.enforce_key_validity else 0


def _signers(wanted: Mapping[str, Sequence[str]], at: int, keys: _Keys) -> tuple[Signer, ...]:
    return tuple(
        Signer(
            server,
            tuple(
                (key_id, key.key_base64)
                for key_id in key_ids
                if (key := keys[server].get(key_id)) is not None and key.valid_until_ms >= at
            ),
        )
        for server, key_ids in wanted.items()
    )


def _ignore_interrupts() -> None:
    """Ctrl-C is for the server, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
