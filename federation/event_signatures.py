"""Reads PDUs of other servers: which keys are needed, whether they signed, and which event it is.

The keys of all servers concerned are fetched together, each once.  A few PDUs are verified on the
spot; many in processes of their own, so that a large join does not hold up everybody else.
Specification: server-server API, "Validating hashes and signatures on received events"; room
version 5, "Signing key validity period".
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
import structlog

from federation.keyring import Keyring
from federation.published_keys import VerifyKey, is_key_id
from federation.signature_worker import Batch, Verdict
from federation.signature_workers import SignatureWorkers, WorkerLost, processes_worth_while
from homeserver.protocol.event_format import InvalidEvent, read_pdu
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.signing import BadSignature, required_signers
from homeserver.protocol.unsealing import Signer, unseal, unsealed_event
from homeserver.rooms.policy import POLICY_SERVER_KEY_ID
from homeserver.turns import each_in_turns

_log = structlog.get_logger()

#: Up to this many PDUs are verified on the spot: to start a process costs more than so many signatures.
FEW: Final = 200

_MAX_SIGNATURES: Final = 10

#: What is known, by server and key id.
_Keys: TypeAlias = Mapping[str, Mapping[str, VerifyKey]]


class _Sealed(msgspec.Struct, frozen=True, gc=False):
    """A PDU in the right form, not yet known to be signed."""

    pdu: dict[str, Any]
    json: bytes
    #: Who must have signed it, and with which keys they claim to have.
    wanted: Mapping[str, Sequence[str]]
    #: When the keys must have been valid, in ms since the epoch; 0: it does not matter (until v4).
    at: int


class KeyringVerifier:
    """``homeserver.rooms.inbound.EventVerifier`` with the keys of a ``Keyring``.

    ``processes`` as ``SignatureWorkers`` has it; with 0 all is verified in this process.
    """

    def __init__(self, keyring: Keyring, *, processes: int | None = None) -> None:
        self._keyring = keyring
        processes = processes_worth_while() if processes is None else processes
        self.workers = SignatureWorkers(processes) if processes else None

    async def verified(self, pdus: Sequence[Mapping[str, Any]], rules: RoomVersion) -> list[Event | str]:
        """For each PDU its event when every required signature is good, else what is wrong."""
        read = await each_in_turns(lambda pdu: _read(dict(pdu), rules), pdus)
        sealed = [each for each in read if isinstance(each, _Sealed)]
        keys = await self._keys(sealed)
        signers = [_signers(each, keys) for each in sealed]
        found = iter(zip(sealed, await self._verdicts(rules, sealed, signers), strict=True))
        return await each_in_turns(
            lambda each: each if isinstance(each, str) else _event(rules, *next(found)), read
        )

    async def close(self) -> None:
        """Let the worker processes go."""
        if self.workers is not None:
            await self.workers.close()

    async def _keys(self, sealed: Sequence[_Sealed]) -> _Keys:
        """Every key that can be had of the servers, however long it is valid."""
        latest: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for each in sealed:
            for server, key_ids in each.wanted.items():
                of_server = latest[server]
                for key_id in key_ids:
                    of_server[key_id] = max(of_server.get(key_id, 0), each.at)
        return await self._keyring.keys_for_all(latest)

    async def _verdicts(
        self, rules: RoomVersion, sealed: Sequence[_Sealed], signers: Sequence[Sequence[Signer]]
    ) -> list[Verdict]:
        if len(sealed) > FEW and self.workers is not None:
            batch = Batch(rules.id, [(each.json, by) for each, by in zip(sealed, signers, strict=True)])
            try:
                return await self.workers.verdicts(batch)
            except WorkerLost as error:
                _log.error("the process that verifies signatures was lost", reason=str(error))
        return await each_in_turns(
            lambda each: _verdict(each[0], rules, each[1]), zip(sealed, signers, strict=True)
        )


def _read(pdu: dict[str, Any], rules: RoomVersion) -> _Sealed | str:
    """A PDU with the keys that claim to have signed for each server that must have."""
    try:
        pdu, encoded = read_pdu(pdu, rules)
        signers = required_signers(pdu, rules)
    except InvalidEvent as error:
        return f"invalid event: {error}"
    except BadSignature as error:
        return str(error)
    signatures = pdu.get("signatures", {})
    wanted: dict[str, Sequence[str]] = {}
    for server in signers:
        key_ids = [
            key_id
            for key_id in signatures.get(server, ())
            if is_key_id(key_id) and key_id != POLICY_SERVER_KEY_ID
        ]
        if not key_ids:
            return f"{server} has not signed the event"
        wanted[server] = key_ids[:_MAX_SIGNATURES]
    return _Sealed(pdu, encoded, wanted, pdu["origin_server_ts"] if rules.enforce_key_validity else 0)


def _signers(sealed: _Sealed, keys: _Keys) -> list[Signer]:
    signers = []
    for server, key_ids in sealed.wanted.items():
        known = keys[server]
        counting = [
            (key_id, known[key_id].key_base64)
            for key_id in key_ids
            if key_id in known and known[key_id].valid_until_ms >= sealed.at
        ]
        signers.append(Signer(server, counting))
    return signers


def _verdict(sealed: _Sealed, rules: RoomVersion, signers: Sequence[Signer]) -> Verdict:
    try:
        return unseal(sealed.pdu, rules, signers)
    except BadSignature as error:
        return str(error)


def _event(rules: RoomVersion, sealed: _Sealed, verdict: Verdict) -> Event | str:
    return verdict if isinstance(verdict, str) else unsealed_event(sealed.pdu, sealed.json, rules, verdict)
