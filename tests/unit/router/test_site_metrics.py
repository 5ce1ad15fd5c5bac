"""Metrics of the busiest sites: bounded, taken away in time, and fair where it was fair."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from mailfleet_core import metrics
from mailfleet_core.model.wire import Event
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.shaping.fairness import Fair
from mailfleet_router.decisions.shaping.last_minute import LastMinute
from mailfleet_router.decisions.site_queue import READY, Held, SiteQueue
from mailfleet_router.shell.site_metrics import SITES, SiteMetrics


def site(name: str, ready: int = 1, tenants: tuple[str, ...] = ("shop",), in_flight: int = 0) -> SiteQueue:
    found = SiteQueue(name, 0.0)
    found.ready = Fair()
    for number in range(ready):
        held = Held(b"u", b"", b"P", 0, state=READY, tenant=tenants[number % len(tenants)])
        found.ready.add(held, held.tenant)
    found.units, found.in_flight = ready + in_flight, in_flight
    return found


def partition(*sites: SiteQueue) -> list[Partition]:
    scheduler = SimpleNamespace(sites={each.name: each for each in sites})
    return [cast(Partition, SimpleNamespace(scheduler=scheduler))]


def shown(gauge: object) -> dict[tuple[str, ...], float]:
    (family,) = gauge.collect()  # type: ignore[attr-defined]
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def served(minute: LastMinute, **tenants: int) -> None:
    minute.note(
        Event(b"u", "attempted", 0.0, tenant=tenant, site="mx", source="ip-1")
        for tenant, count in tenants.items()
        for _ in range(count)
    )


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Routers of other tests have told of their sites."""
    metrics.SITE_UNITS.clear()
    metrics.SITE_FAIRNESS.clear()
    yield
    metrics.SITE_UNITS.clear()
    metrics.SITE_FAIRNESS.clear()


def test_only_the_busiest_sites_have_series_and_the_rest_lose_them() -> None:
    told = SiteMetrics(LastMinute(0.0))
    told.tell(partition(*(site(f"mx{number}", ready=number + 1) for number in range(SITES + 10))), 10.0)
    assert len(shown(metrics.SITE_UNITS)) == 3 * SITES
    assert ("mx0", "ready") not in shown(metrics.SITE_UNITS)
    told.tell(partition(site("mx0", ready=2, in_flight=3)), 20.0)
    assert shown(metrics.SITE_UNITS) == {("mx0", "ready"): 2, ("mx0", "in_flight"): 3, ("mx0", "waiting"): 0}


def test_fairness_is_told_once_several_tenants_have_waited_for_a_minute() -> None:
    minute = LastMinute(0.0)
    told = SiteMetrics(minute)
    queue = partition(site("mx", ready=6, tenants=("bulk", "shop")))
    for now in (10.0, 31.0, 62.0):
        assert shown(metrics.SITE_FAIRNESS) == {}
        served(minute, bulk=9, shop=1)
        told.tell(queue, now)
    told.tell(queue, 70.0)
    assert shown(metrics.SITE_FAIRNESS) == {("mx",): pytest.approx((18 + 2) ** 2 / (2 * (18**2 + 2**2)))}


def test_a_tenant_alone_has_no_fairness() -> None:
    told = SiteMetrics(LastMinute(0.0))
    for now in (10.0, 31.0, 62.0, 70.0):
        told.tell(partition(site("mx", ready=6)), now)
    assert shown(metrics.SITE_FAIRNESS) == {}
