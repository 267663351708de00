"""Cross-signing: users' own keys, and the signatures by which they vouch for devices and for each other.

Specification: client-server API, "Cross-signing".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from homeserver.e2e.changes import KeyChanges
from homeserver.e2e.device_lists import DeviceLists
from homeserver.e2e.queries import KeyQueries
from homeserver.errors import MatrixError, forbidden, invalid_param, missing_param, not_found
from homeserver.protocol.e2e_keys import (
    USAGES,
    BadKey,
    CrossSigningKey,
    Signature,
    cross_signing_key,
    ed25519_key_of,
    is_signatures,
    is_signed,
    key_json,
    without_signatures,
)
from homeserver.protocol.ids import is_user_id
from homeserver.storage import cross_signing as storage
from homeserver.storage import device_lists, devices, e2e_keys
from homeserver.storage.database import Database, Transaction

#: Signed objects in one request.
_MAX_SIGNED = 1000
_QUERY_SECONDS = 10.0


class NewSigningKeys(msgspec.Struct, frozen=True, gc=False):
    """Keys that may be stored as they are; ``authentication_needed`` before that."""

    keys: tuple[CrossSigningKey, ...]
    authentication_needed: bool


class Signer(msgspec.Struct, frozen=True, gc=False):
    """One of a user's keys, as something that signs."""

    user_id: str
    key_id: str
    public_key: str


class CrossSigning:
    """Stores the cross-signing keys of local users, and what they sign."""

    def __init__(self, *, db: Database, changes: KeyChanges, lists: DeviceLists, queries: KeyQueries) -> None:
        self._db = db
        self._changes = changes
        self._lists = lists
        self._queries = queries

    async def check_keys(self, user_id: str, contents: Mapping[str, Any]) -> NewSigningKeys:
        """Look at keys a user wants to publish, by usage.

        Raises ``M_INVALID_PARAM`` for what is no such key, ``M_MISSING_PARAM`` where there is no
        master key, ``M_INVALID_SIGNATURE`` for keys it has not signed, ``M_FORBIDDEN`` for one
        that is the id of a device.
        """
        try:
            given = {
                usage: cross_signing_key(contents[usage], user_id, usage)
                for usage in USAGES
                if contents.get(usage) is not None
            }
        except BadKey as error:
            raise invalid_param(f"Not a cross-signing key: {error}") from error
        known = (await storage.keys_of(self._db.read, [user_id])).get(user_id, {})
        master = given.get("master") or known.get("master")
        if master is None:
            raise missing_param("There is no master key")
        for key in given.values():
            if key.usage != "master" and not is_signed(
                key.content, user_id, master.key_id, master.public_key
            ):
                raise _invalid_signature(f"The {key.usage} key is not signed by the master key")
        taken = set(await devices.device_ids(self._db.read, user_id))
        if any(key.public_key in taken for key in given.values()):
            raise forbidden("A key is the same as the ID of a device")
        new = tuple(key for key in given.values() if not _is_known(key, known))
        return NewSigningKeys(new, authentication_needed=bool(new) and "master" in known)

    async def store_keys(self, user_id: str, new: NewSigningKeys) -> None:
        """Publish keys that were checked; what was signed with those they replace is forgotten."""
        if not new.keys:
            return

        async def work(tx: Transaction) -> None:
            known = (await storage.keys_of(tx, [user_id])).get(user_id, {})
            replaced = [known[key.usage].key_id for key in new.keys if key.usage in known]
            await storage.remove_signatures_by(tx, user_id, replaced)
            await storage.put(tx, user_id, new.keys)
            await device_lists.record_signing_keys(tx, user_id)

        await self._db.write(work)
        await self._lists.devices_changed(user_id, [], [])

    async def add_signatures(self, user_id: str, signed: Mapping[str, Any]) -> dict[str, Any]:
        """Store what a user signed: objects by their owner and key; what failed, in the same way.

        ``M_TOO_LARGE`` for too many at once.
        """
        objects = [
            (owner, target, content)
            for owner, by_key in signed.items()
            if isinstance(by_key, dict)
            for target, content in by_key.items()
        ]
        if len(objects) > _MAX_SIGNED:
            raise MatrixError(413, "M_TOO_LARGE", f"At most {_MAX_SIGNED} objects can be signed at once")
        failures: dict[str, dict[str, Any]] = {}
        own_keys = (await storage.keys_of(self._db.read, [user_id])).get(user_id, {})
        user_signing = _signer(user_id, own_keys.get("user_signing"))
        others = {owner for owner, _, _ in objects if owner != user_id and is_user_id(owner)}
        masters = await self._queries.master_keys(user_id, others, _QUERY_SECONDS) if others else {}
        accepted: list[Signature] = []
        for owner, target, content in objects:
            try:
                if owner == user_id:
                    accepted += await self._of_own(user_id, target, content, own_keys)
                else:
                    accepted.append(_of_other(user_signing, owner, target, content, masters.get(owner)))
            except MatrixError as error:
                failures.setdefault(owner, {})[target] = error.body()
        await self._store_signatures(user_id, accepted, own_keys)
        return failures

    async def _of_own(
        self, user_id: str, target: str, content: Any, own_keys: Mapping[str, CrossSigningKey]
    ) -> list[Signature]:
        """A device that the self-signing key signed, or the master key signed by devices."""
        master, signer = own_keys.get("master"), _signer(user_id, own_keys.get("self_signing"))
        if master is not None and target == master.public_key:
            _check_same(content, master.content)
            return await self._by_devices(user_id, target, content)
        stored = await e2e_keys.device_keys(self._db.read, user_id, target)
        if stored is None:
            raise not_found("There is no such key")
        _check_same(content, orjson.loads(stored))
        if signer is None:
            raise not_found("There is no self-signing key")
        return [_checked(signer, user_id, target, content)]

    async def _by_devices(self, user_id: str, target: str, content: Mapping[str, Any]) -> list[Signature]:
        signatures = content.get("signatures", {}).get(user_id, {})
        with_keys = (await e2e_keys.devices_with_keys(self._db.read, [user_id])).get(user_id, [])
        known = dict(filter(None, (ed25519_key_of(orjson.loads(each.keys)) for each in with_keys)))
        signers = [Signer(user_id, key_id, known[key_id]) for key_id in signatures if key_id in known]
        if not signers:
            raise _invalid_signature("No device of the user signed it")
        return [_checked(signer, user_id, target, content) for signer in signers]

    async def _store_signatures(
        self, user_id: str, signatures: list[Signature], own_keys: Mapping[str, CrossSigningKey]
    ) -> None:
        if not signatures:
            return
        master = own_keys.get("master")
        own = {each.target_key for each in signatures if each.target_user == user_id}
        signed_master = master is not None and master.public_key in own
        signed_devices = sorted(own - {master.public_key} if master else own)
        pos = self._changes.next_position()

        async def work(tx: Transaction) -> None:
            await storage.add_signatures(tx, signatures, pos)
            await device_lists.record(tx, user_id, signed_devices)
            if signed_master:
                await device_lists.record_signing_keys(tx, user_id)

        await self._db.write(work)
        self._changes.announce_to(user_id, pos)
        if own:
            await self._lists.devices_changed(user_id, signed_devices, [])


def _is_known(key: CrossSigningKey, known: Mapping[str, CrossSigningKey]) -> bool:
    """Whether it is the key that is stored; its signatures do not make it another one."""
    return key.usage in known and without_signatures(key.content) == without_signatures(
        known[key.usage].content
    )


def _signer(user_id: str, key: CrossSigningKey | None) -> Signer | None:
    return None if key is None else Signer(user_id, key.key_id, key.public_key)


def _of_other(
    signer: Signer | None, owner: str, target: str, content: Any, master: Mapping[str, Any] | None
) -> Signature:
    """Somebody else's master key, signed by the user-signing key."""
    if signer is None:
        raise not_found("There is no user-signing key")
    if master is None or target not in master["keys"].values():
        raise not_found("There is no such key")
    _check_same(content, master)
    return _checked(signer, owner, target, content)


def _check_same(content: Any, stored: Mapping[str, Any]) -> None:
    try:
        key_json(content)
    except BadKey as error:
        raise invalid_param(f"Not a key: {error}") from error
    if not isinstance(content, dict) or not is_signatures(content.get("signatures", {})):
        raise invalid_param("'signatures' must map user IDs to objects of strings")
    if without_signatures(content) != without_signatures(stored):
        raise invalid_param("It is not the key that is known here")


def _checked(signer: Signer, owner: str, target: str, content: Mapping[str, Any]) -> Signature:
    if not is_signed(content, signer.user_id, signer.key_id, signer.public_key):
        raise _invalid_signature("Invalid signature")
    signature = content["signatures"][signer.user_id][signer.key_id]
    return Signature(owner, target, signer.user_id, signer.key_id, signature)


def _invalid_signature(message: str) -> MatrixError:
    return MatrixError(400, "M_INVALID_SIGNATURE", message)
