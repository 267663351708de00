"""No address that is not of the public internet is contacted, however it is written."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.addresses import AddressRefused, address_policy

PUBLIC_ONLY = address_policy()


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "2002:7f00:1::",
        "2001:db8::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
    ],
)
def test_refused_by_default(address: str) -> None:
    assert not PUBLIC_ONLY.permits(address)


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"],
)
def test_permitted_by_default(address: str) -> None:
    assert PUBLIC_ONLY.permits(address)


@given(st.ip_addresses())
def test_only_global_addresses_are_permitted(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    if PUBLIC_ONLY.permits(str(address)):
        unfit = (address.is_private, address.is_loopback, address.is_link_local, address.is_multicast)
        assert not any(unfit)


@given(st.ip_addresses(v=4))
def test_mapping_an_address_into_ipv6_changes_nothing(address: ipaddress.IPv4Address) -> None:
    assert PUBLIC_ONLY.permits(f"::ffff:{address}") == PUBLIC_ONLY.permits(str(address))


def test_an_allowed_network_is_an_exception_to_a_denied_one() -> None:
    policy = address_policy(allowed=["10.5.0.0/16"])
    assert policy.permits("10.5.6.7")
    assert policy.permits("::ffff:10.5.6.7")
    assert not policy.permits("10.6.6.7")


def test_networks_can_be_denied_beyond_the_default() -> None:
    assert not address_policy(denied=["1.1.1.0/24"]).permits("1.1.1.1")


def test_a_policy_of_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="not-a-network"):
        address_policy(allowed=["not-a-network"])


def test_no_socket_is_opened_for_a_refused_address() -> None:
    stream = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    with pytest.raises(AddressRefused) as refusal:
        PUBLIC_ONLY.open_socket((*stream, ("192.168.0.1", 8448)))
    assert "192.168" not in str(refusal.value)
    PUBLIC_ONLY.open_socket((*stream, ("1.1.1.1", 8448))).close()
