"""The email addresses (and telephone numbers) that accounts have here.

An address belongs to one account, which showed by a validation that it is theirs.  What
identity servers are told of it is ``identity_bindings``' business.
Specification: client-server API, "Adding Account Administrative Contact Information".
"""

from __future__ import annotations

from homeserver.clock import Clock
from homeserver.errors import MatrixError, invalid_param
from homeserver.protocol.third_party_ids import canonical_address
from homeserver.storage import address_validations, third_party_ids
from homeserver.storage.address_validations import Validation
from homeserver.storage.database import Database, Transaction
from homeserver.storage.third_party_ids import ThirdPartyId
from homeserver.users.address_validation import in_use

#: More are refused: an account has a few, and each is listed in every answer.
MAX_ADDRESSES = 50


class ThirdPartyIds:
    """Which account has which address."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def of_user(self, user_id: str) -> list[ThirdPartyId]:
        """The addresses of a user, the oldest first."""
        return await third_party_ids.of_user(self._db.read, user_id)

    async def owner(self, medium: str, address: str) -> str | None:
        """The user who has an address, in whatever form it is written."""
        try:
            return await third_party_ids.owner(self._db.read, medium, canonical_address(medium, address))
        except ValueError:
            return None

    async def add(self, user_id: str, validation: Validation) -> None:
        """Give a user the address that was validated, which uses the validation up.

        Raises ``M_THREEPID_IN_USE`` where another has it, ``M_THREEPID_DENIED`` for too many.
        """
        if len(await self.of_user(user_id)) >= MAX_ADDRESSES:
            raise MatrixError(403, "M_THREEPID_DENIED", f"An account has at most {MAX_ADDRESSES} addresses")
        now = self._clock.now_ms()

        async def add(tx: Transaction) -> None:
            await add_validated(tx, user_id, validation, now)

        await self._db.write(add)

    async def remove(self, user_id: str, medium: str, address: str) -> None:
        """Take an address from a user, if they have it; ``M_INVALID_PARAM`` for what is no address."""
        kept = canonical(medium, address)
        await self._db.write(lambda tx: third_party_ids.remove(tx, user_id, medium, kept))


async def add_validated(tx: Transaction, user_id: str, validation: Validation, now: int) -> None:
    """Within a transaction, give a user the address that was validated.

    Raises ``M_THREEPID_IN_USE``, and ``M_THREEPID_AUTH_FAILED`` for a validation that was used up meanwhile.
    """
    if not await address_validations.remove(tx, validation.sid):
        raise MatrixError(403, "M_THREEPID_AUTH_FAILED", "The address has not been validated")
    added = ThirdPartyId(validation.medium, validation.address, validation.validated_at or now, now)
    if not await third_party_ids.add(tx, user_id, added):
        raise in_use()


def canonical(medium: str, address: str) -> str:
    """The address in the form it is kept in; ``M_INVALID_PARAM`` for what is none."""
    try:
        return canonical_address(medium, address)
    except ValueError as error:
        raise invalid_param(str(error)) from None
