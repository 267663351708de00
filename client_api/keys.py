"""Keys for end-to-end encryption (client-server API, "Key management API", "Cross-signing")."""

from __future__ import annotations

from typing import Any

import msgspec

from homeserver.e2e.claims import KeyClaims
from homeserver.e2e.cross_signing import CrossSigning
from homeserver.e2e.queries import KeyQueries
from homeserver.e2e.uploads import KeyUploads, new_keys
from homeserver.errors import bad_json, forbidden
from homeserver.replies import Reply
from homeserver.sync.positions import SyncToken
from homeserver.sync.sync import Sync
from homeserver.users.confirmation import Confirmation
from homeserver.users.interactive_auth import Operation
from homeserver.web import Request

#: How long other servers are waited for, in milliseconds.
_TIMEOUT_MS = 10_000
_MAX_TIMEOUT_MS = 60_000


class _Upload(msgspec.Struct, frozen=True):
    device_keys: dict[str, Any] | None = None
    one_time_keys: dict[str, Any] | None = None
    fallback_keys: dict[str, Any] | None = None


class _Query(msgspec.Struct, frozen=True):
    device_keys: dict[str, list[str]]
    timeout: int = _TIMEOUT_MS


class _Claim(msgspec.Struct, frozen=True):
    one_time_keys: dict[str, dict[str, str]]
    timeout: int = _TIMEOUT_MS


class _SigningKeys(msgspec.Struct, frozen=True):
    master_key: dict[str, Any] | None = None
    self_signing_key: dict[str, Any] | None = None
    user_signing_key: dict[str, Any] | None = None


class KeysApi:
    """Endpoints by which devices publish their keys and find those of others."""

    def __init__(
        self,
        *,
        uploads: KeyUploads,
        queries: KeyQueries,
        claims: KeyClaims,
        cross_signing: CrossSigning,
        confirmation: Confirmation,
        sync: Sync,
    ) -> None:
        self._uploads = uploads
        self._queries = queries
        self._claims = claims
        self._cross_signing = cross_signing
        self._confirmation = confirmation
        self._sync = sync

    async def upload(self, request: Request) -> Reply:
        """``POST /keys/upload``."""
        requester, wanted = request.requester, request.decode(_Upload)
        if requester.device_id is None:
            raise forbidden("Only a device has keys")
        keys = new_keys(
            requester.user_id,
            requester.device_id,
            device_keys=wanted.device_keys,
            one_time_keys=wanted.one_time_keys or {},
            fallback_keys=wanted.fallback_keys or {},
        )
        return {"one_time_key_counts": await self._uploads.upload(keys)}

    async def query(self, request: Request) -> Reply:
        """``POST /keys/query``."""
        wanted = request.decode(_Query)
        return await self._queries.query(
            request.requester.user_id, wanted.device_keys, _seconds(wanted.timeout)
        )

    async def claim(self, request: Request) -> Reply:
        """``POST /keys/claim``."""
        wanted = request.decode(_Claim)
        return await self._claims.claim(wanted.one_time_keys, _seconds(wanted.timeout))

    async def changes(self, request: Request) -> Reply:
        """``GET /keys/changes``."""
        since, upto = (SyncToken.parse(request.query_text(name)) for name in ("from", "to"))
        changed, left = await self._sync.device_lists(request.requester.user_id, since.pos, upto.pos)
        return {"changed": changed, "left": left}

    async def upload_signing_keys(self, request: Request) -> Reply:
        """``POST /keys/device_signing/upload``."""
        user_id, wanted = request.requester.user_id, request.decode(_SigningKeys)
        contents = {
            "master": wanted.master_key,
            "self_signing": wanted.self_signing_key,
            "user_signing": wanted.user_signing_key,
        }
        new = await self._cross_signing.check_keys(user_id, contents)
        if new.authentication_needed and request.requester.appservice is None:
            operation = Operation("POST /keys/device_signing/upload", user_id)
            await self._confirmation.confirm(operation, request.json())
        await self._cross_signing.store_keys(user_id, new)
        return {}

    async def upload_signatures(self, request: Request) -> Reply:
        """``POST /keys/signatures/upload``."""
        signed = request.json()
        if not all(isinstance(by_key, dict) for by_key in signed.values()):
            raise bad_json("The body must map user IDs to objects of signed keys")
        return {"failures": await self._cross_signing.add_signatures(request.requester.user_id, signed)}


def _seconds(timeout_ms: int) -> float:
    return min(max(timeout_ms, 0), _MAX_TIMEOUT_MS) / 1000
