"""What the log is told of a source."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mailfleet_core.model import wire
from mailfleet_operator.decisions import records
from mailfleet_operator.decisions.life import ACTIVE
from mailfleet_operator.decisions.resources import Address, AddressSpec, Pool, PoolSpec

EGRESS: dict[str, dict[str, Any]] = {
    "PodNetwork": {},
    "EgressGateway": {"gateway": {"nodeSelector": {"egress": "true"}}},
    "HostNetwork": {},
    "SecondaryNetwork": {"secondaryNetwork": {"networkRef": {"name": "vlan"}}},
    "EgressProxy": {"proxy": {"endpoints": ["egress:1080"]}},
}


def told(mode: str, **spec: str) -> wire.Source:
    address = Address("ip-1", "mail", "u", 1, 0.0, AddressSpec(hostname="mx1.example.org", address="192.0.2.1", **spec))
    egress = {"mode": mode, **EGRESS[mode]}
    pool = Pool("tx", "mail", "u", 1, 0.0, msgspec.convert({"egress": egress, "sources": [{"name": "ip-1"}]}, PoolSpec))
    return records.source(address, pool, "tx", ACTIVE, "", (0,), ("", 0.0), 1.0)


@pytest.mark.parametrize("mode", ["HostNetwork", "SecondaryNetwork", "EgressProxy"])
def test_an_address_is_bound_where_it_is(mode: str) -> None:
    assert told(mode).address == "192.0.2.1"
    assert told(mode, bind_address="10.0.0.1").address == "10.0.0.1"


@pytest.mark.parametrize("mode", ["PodNetwork", "EgressGateway"])
def test_on_a_pods_own_network_the_system_chooses_the_address(mode: str) -> None:
    found = told(mode, address6="2001:db8::1")
    assert (found.address, found.address6, found.ehlo_name) == ("", "", "mx1.example.org")
