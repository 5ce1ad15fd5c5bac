"""What the operator knows of resources: the newest of each, and what of it decides which address belongs where."""

from __future__ import annotations

from typing import Any

from mailfleet_operator.decisions.resources import LANE_LABEL, SOURCE_LABEL
from mailfleet_operator.shell.cluster import ADDRESS, DEPLOYMENT, POOL
from mailfleet_operator.shell.stock import Stock


def body(name: str, version: int, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "mail", "uid": name, "resourceVersion": str(version)}, **more}


def pool(version: int, *sources: str, status: dict[str, Any] | None = None) -> dict[str, Any]:
    spec = {"egress": {"mode": "PodNetwork"}, "sources": [{"name": each} for each in sources], "spares": ["ip-9"]}
    return body("tx", version, spec=spec, status=status or {})


def address(version: int, state: str = "Pending") -> dict[str, Any]:
    return body("ip-1", version, spec={"hostname": "a.example", "address": "192.0.2.1"}, status={"state": state})


def sender(source: str, lane: int, version: int = 1) -> dict[str, Any]:
    found = body(f"{source}-{lane}", version)
    found["metadata"]["labels"] = {SOURCE_LABEL: source, LANE_LABEL: str(lane)}
    return found


def test_what_is_known_already_is_no_news_and_what_is_older_is_not_taken() -> None:
    stock = Stock()
    assert stock.put(ADDRESS, True, address(5, "Active"))
    assert not stock.put(ADDRESS, True, address(5, "Active"))
    assert not stock.put(ADDRESS, True, address(4, "Pending"))
    assert stock.addresses["ip-1"].status.state == "Active"
    assert stock.put(ADDRESS, True, address(6, "Slow"))
    assert stock.put(ADDRESS, False, address(6))
    assert stock.addresses == {}


def test_only_what_pools_name_and_what_there_is_decides_who_belongs_where() -> None:
    stock = Stock()
    stock.put(POOL, True, pool(1, "ip-1"))
    stock.put(ADDRESS, True, address(2))
    version = stock.version
    stock.put(ADDRESS, True, address(3, "Active"))
    stock.put(POOL, True, pool(4, "ip-1", status={"readyReplicas": 1}))
    assert stock.version == version
    stock.put(POOL, True, pool(5, "ip-1", status={"spares": [{"name": "ip-9"}]}))
    assert stock.version == version + 1
    stock.put(POOL, True, pool(6, "ip-1", "ip-2"))
    assert stock.version == version + 2
    stock.put(ADDRESS, False, address(7))
    assert stock.version == version + 3


def test_a_list_takes_away_what_it_does_not_have_but_nothing_that_came_after_it() -> None:
    stock = Stock()
    stock.put(DEPLOYMENT, True, sender("ip-1", 0, version=3))
    stock.put(DEPLOYMENT, True, sender("ip-1", 1, version=9))
    stock.put(ADDRESS, True, address(3))
    stock.replace(DEPLOYMENT, [sender("ip-2", 2, version=4)], 6)
    assert set(stock.lanes_of("ip-1")) == {("mail", "ip-1-1")}
    assert set(stock.lanes_of("ip-2")) == {("mail", "ip-2-2")}
    assert set(stock.addresses) == {"ip-1"}


def test_senders_are_found_by_their_source() -> None:
    stock = Stock()
    for lane in (0, 1):
        stock.put(DEPLOYMENT, True, sender("ip-1", lane))
    stock.put(DEPLOYMENT, False, sender("ip-1", 0, version=2))
    assert set(stock.lanes_of("ip-1")) == {("mail", "ip-1-1")} == set(stock.deployments)
    assert stock.lanes_of("ip-2") == {}
