"""The inside-address guard."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.dns.guard import INSIDE, InsideGuard

INSIDE_ADDRESSES = [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.8",
    "192.168.1.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fc00::1", "fd12::1",
    "fe80::1", "ff02::1", "64:ff9b::a00:1", "2002:a00:1::", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:8.8.8.8",
    "::127.0.0.1", "localhost", "", "1.2.3", "127.1", "0x7f.1", "fe80::1%eth0",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE_ADDRESSES)
def test_inside_addresses_and_what_is_no_address_are_refused(address: str) -> None:
    assert not InsideGuard().permits(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "193.0.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1", "2a00::1"])
def test_public_addresses_are_permitted(address: str) -> None:
    assert InsideGuard().permits(address)


def test_only_the_networks_named_are_allowed_inside() -> None:
    guard = InsideGuard(["127.0.0.0/8", "10.1.0.0/16", "::1"])
    assert [guard.permits(a) for a in ("127.9.9.9", "10.1.2.3", "10.2.0.1", "::1", "::ffff:127.0.0.1", "fe80::1")] == [
        True, True, False, True, True, False,
    ]  # fmt: skip


@given(st.sampled_from(INSIDE), st.integers(min_value=0))
def test_no_address_of_an_inside_network_is_ever_permitted(network: ipaddress.IPv4Network, number: int) -> None:
    address = network[number % network.num_addresses]
    assert not InsideGuard().permits(str(address))
