"""Validations under way: showing that what is sent to an address can be read."""

from __future__ import annotations

import msgspec

from homeserver.storage.database import Reader, Transaction


class Validation(msgspec.Struct, frozen=True, gc=False):
    """One validation; ``client_secret`` and ``token`` are hashes, times milliseconds since the epoch."""

    sid: str
    purpose: str
    medium: str
    address: str
    client_secret: bytes
    #: ``None`` where nothing was sent that could validate it.
    token: bytes | None
    send_attempt: int
    next_link: str | None
    expires_at: int
    validated_at: int | None


_COLUMNS = """sid, purpose, medium, address, client_secret, token, send_attempt, next_link, expires_at,
    validated_at"""


async def by_sid(r: Reader, sid: str) -> Validation | None:
    """A validation, expired or not."""
    row = await r.fetch_row(f"SELECT {_COLUMNS} FROM address_validations WHERE sid = $1", sid)
    return Validation(*row) if row else None


async def by_secret(
    r: Reader, purpose: str, medium: str, address: str, client_secret: bytes
) -> Validation | None:
    """The validation that a client's secret belongs to."""
    row = await r.fetch_row(
        f"""
        SELECT {_COLUMNS} FROM address_validations
        WHERE purpose = $1 AND medium = $2 AND address = $3 AND client_secret = $4
        """,
        purpose,
        medium,
        address,
        client_secret,
    )
    return Validation(*row) if row else None


async def put(tx: Transaction, validation: Validation) -> None:
    """Store a validation in place of what the same client's secret belonged to."""
    await tx.execute(
        """
        DELETE FROM address_validations
        WHERE purpose = $1 AND medium = $2 AND address = $3 AND client_secret = $4
        """,
        validation.purpose,
        validation.medium,
        validation.address,
        validation.client_secret,
    )
    await tx.execute(
        f"INSERT INTO address_validations ({_COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        *msgspec.structs.astuple(validation),
    )


async def validated(tx: Transaction, sid: str, *, at: int, expires_at: int) -> None:
    """Note that a validation has succeeded."""
    await tx.execute(
        "UPDATE address_validations SET validated_at = $2, expires_at = $3 WHERE sid = $1",
        sid,
        at,
        expires_at,
    )


async def remove(tx: Transaction, sid: str) -> bool:
    """End a validation; whether there was one."""
    return await tx.execute("DELETE FROM address_validations WHERE sid = $1", sid) == 1


async def remove_expired(tx: Transaction, now: int) -> None:
    """Forget the validations that nobody can use any more."""
    await tx.execute("DELETE FROM address_validations WHERE expires_at <= $1", now)
