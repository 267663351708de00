"""Email addresses and telephone numbers of local users, and the identity servers that know of them."""

from __future__ import annotations

import msgspec

from homeserver.storage.database import Reader, Transaction


class ThirdPartyId(msgspec.Struct, frozen=True, gc=False):
    """An address in its canonical form; times in milliseconds since the epoch."""

    medium: str
    address: str
    validated_at: int
    added_at: int


class Binding(msgspec.Struct, frozen=True, gc=False):
    """An address that an identity server was told of."""

    medium: str
    address: str
    id_server: str


async def of_user(r: Reader, user_id: str) -> list[ThirdPartyId]:
    """The addresses of a user, the oldest first."""
    rows = await r.fetch(
        """
        SELECT medium, address, validated_at, added_at FROM third_party_ids WHERE user_id = $1
        ORDER BY added_at, medium, address
        """,
        user_id,
    )
    return [ThirdPartyId(*row) for row in rows]


async def owner(r: Reader, medium: str, address: str) -> str | None:
    """The user who has an address."""
    found: str | None = await r.fetch_value(
        "SELECT user_id FROM third_party_ids WHERE medium = $1 AND address = $2", medium, address
    )
    return found


async def add(tx: Transaction, user_id: str, added: ThirdPartyId) -> bool:
    """Give a user an address; ``False`` where another has it.  One's own is only validated anew."""
    changed = await tx.execute(
        """
        INSERT INTO third_party_ids (medium, address, user_id, validated_at, added_at)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (medium, address) DO UPDATE SET validated_at = excluded.validated_at
        WHERE third_party_ids.user_id = excluded.user_id
        """,
        added.medium,
        added.address,
        user_id,
        added.validated_at,
        added.added_at,
    )
    return changed == 1


async def remove(tx: Transaction, user_id: str, medium: str, address: str) -> bool:
    """Take an address from a user; whether they had it."""
    removed = await tx.execute(
        "DELETE FROM third_party_ids WHERE user_id = $1 AND medium = $2 AND address = $3",
        user_id,
        medium,
        address,
    )
    return removed == 1


async def remove_all(tx: Transaction, user_id: str) -> None:
    """Take every address from a user."""
    await tx.execute("DELETE FROM third_party_ids WHERE user_id = $1", user_id)


async def bindings(r: Reader, user_id: str) -> list[Binding]:
    """What identity servers were told of a user's addresses."""
    rows = await r.fetch(
        """
        SELECT medium, address, id_server FROM third_party_bindings WHERE user_id = $1
        ORDER BY medium, address, id_server
        """,
        user_id,
    )
    return [Binding(*row) for row in rows]


async def bind(tx: Transaction, user_id: str, binding: Binding) -> None:
    """Note that an identity server was told of an address."""
    await tx.execute(
        """
        INSERT INTO third_party_bindings (user_id, medium, address, id_server) VALUES ($1, $2, $3, $4)
        ON CONFLICT (user_id, medium, address, id_server) DO NOTHING
        """,
        user_id,
        binding.medium,
        binding.address,
        binding.id_server,
    )


async def unbind(tx: Transaction, user_id: str, binding: Binding) -> None:
    """Note that an identity server knows of an address no more."""
    await tx.execute(
        """
        DELETE FROM third_party_bindings
        WHERE user_id = $1 AND medium = $2 AND address = $3 AND id_server = $4
        """,
        user_id,
        binding.medium,
        binding.address,
        binding.id_server,
    )
