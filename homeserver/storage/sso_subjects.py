"""Who people are at providers of single sign-on."""

from __future__ import annotations

from homeserver.storage.database import Reader, Transaction


async def user_of(r: Reader, provider: str, subject: str) -> str | None:
    """The user whom a provider calls ``subject``, deactivated or not."""
    user_id: str | None = await r.fetch_value(
        "SELECT user_id FROM sso_subjects WHERE provider = $1 AND subject = $2", provider, subject
    )
    return user_id


async def providers_of(r: Reader, user_id: str) -> list[str]:
    """The providers that know a user."""
    rows = await r.fetch(
        "SELECT DISTINCT provider FROM sso_subjects WHERE user_id = $1 ORDER BY provider", user_id
    )
    return [row[0] for row in rows]


async def add(tx: Transaction, provider: str, subject: str, user_id: str) -> bool:
    """Note whom a provider means by ``subject``; whether that was not known before."""
    added = await tx.execute(
        """
        INSERT INTO sso_subjects (provider, subject, user_id) VALUES ($1, $2, $3)
        ON CONFLICT (provider, subject) DO NOTHING
        """,
        provider,
        subject,
        user_id,
    )
    return added == 1
