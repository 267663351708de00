"""Names become addresses, and what has none is an ``OSError``."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import aiodns
import pytest

from homeserver.resolver import SystemResolver


async def test_a_name_of_this_machine_is_found() -> None:
    resolver = SystemResolver()
    found = await resolver.resolve("localhost", 8448)
    await resolver.close()

    assert [(one["hostname"], one["host"], one["port"]) for one in found] == [
        ("localhost", "127.0.0.1", 8448)
    ]


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ((b"192.0.2.1", 8448), "192.0.2.1"),
        ((b"2001:db8::1", 8448, 0, 0), "2001:db8::1"),
        ((b"fe80::1", 8448, 0, 3), "fe80::1%3"),
    ],
)
async def test_addresses_of_both_kinds_are_read(
    monkeypatch: pytest.MonkeyPatch, address: tuple[object, ...], host: str
) -> None:
    answered(monkeypatch, [SimpleNamespace(addr=address, family=2)])
    found = await SystemResolver().resolve("there.example")

    assert [one["host"] for one in found] == [host]


async def test_a_name_without_addresses_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, [])
    with pytest.raises(OSError, match="no address"):
        await SystemResolver().resolve("nowhere.example")


async def test_dns_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answered(monkeypatch, aiodns.error.DNSError(4, "Domain name not found"))
    with pytest.raises(OSError, match="not found"):
        await SystemResolver().resolve("nowhere.example")


def answered(monkeypatch: pytest.MonkeyPatch, answer: list[SimpleNamespace] | Exception) -> None:
    """DNS answers with these addresses, or fails."""

    def getaddrinfo(*_: object, **__: object) -> asyncio.Future[SimpleNamespace]:
        future = asyncio.get_running_loop().create_future()
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(SimpleNamespace(nodes=answer))
        return future

    monkeypatch.setattr(aiodns.DNSResolver, "getaddrinfo", getaddrinfo)
