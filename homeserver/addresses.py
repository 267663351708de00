"""Which IP addresses this server may contact on behalf of others.

Server names, redirects and DNS are all chosen by strangers, so the decision is made
where nothing can change any more: on the address a socket is about to be opened
to.  Names are not judged here, only addresses.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec
from aiohttp import AddrInfoType

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Everything that is not the public internet (IANA special-purpose registries, and multicast).
DENIED_BY_DEFAULT: Final = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    # Also what once stood for IPv4 addresses, and what may be translated to them.
    "::/96",
    "::ffff:0:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
)

#: Addresses under this prefix are delivered to the IPv4 address in their last 32 bits.
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


class AddressRefused(PermissionError):
    """An address this server does not contact.  Never says which, as its reader may be a stranger."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "The server's address may not be contacted")


class AddressPolicy(msgspec.Struct, frozen=True):
    """Networks that may not be contacted, except for those that may after all."""

    denied: tuple[IPNetwork, ...]
    allowed: tuple[IPNetwork, ...]

    def permits(self, address: str) -> bool:
        """Whether the address may be contacted; raises ``ValueError`` for what is not an address.

        An IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4) is
        judged as both.
        """
        ip = ipaddress.ip_address(address.partition("%")[0])
        if any(_within(ip, self.allowed) for ip in _meanings(ip)):
            return True
        return not any(_within(ip, self.denied) for ip in _meanings(ip))

    def open_socket(self, address: AddrInfoType) -> socket.socket:
        """The socket factory of an aiohttp connector; raises ``AddressRefused``.

        It is called with the very address that is then connected to, be it from DNS
        or a literal, so a name that changes its mind after a check gains nothing.
        """
        family, kind, protocol, _, endpoint = address
        if not self.permits(str(endpoint[0])):
            raise AddressRefused
        return socket.socket(family, kind, protocol)


def address_policy(denied: Iterable[str] = DENIED_BY_DEFAULT, allowed: Iterable[str] = ()) -> AddressPolicy:
    """A policy from networks in CIDR notation; raises ``ValueError`` for what is not a network."""
    return AddressPolicy(
        tuple(ipaddress.ip_network(network) for network in denied),
        tuple(ipaddress.ip_network(network) for network in allowed),
    )


def _within(ip: IPAddress, networks: tuple[IPNetwork, ...]) -> bool:
    return any(ip in network for network in networks)


def _meanings(ip: IPAddress) -> list[IPAddress]:
    """The address and, where it embeds an IPv4 address packets would go to, that one."""
    if isinstance(ip, ipaddress.IPv4Address):
        return [ip]
    if ip.ipv4_mapped is not None:
        return [ip.ipv4_mapped]
    if ip.sixtofour is not None:
        return [ip, ip.sixtofour]
    if ip in _NAT64:
        return [ip, ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)]
    return [ip]
